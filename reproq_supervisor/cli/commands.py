"""The table of commands: where each lives, and its line in the help. Nothing is imported until a command is asked for."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One command: the `module:attribute` of this room that holds it, and what it does in a few words."""

    target: str
    summary: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Daemon": {
        "run": Entry("daemon.run:run", "Start the supervisor and its pools."),
        "worker": Entry("worker.command:worker", "Start one pool from the older worker's flags."),
        "reload": Entry("daemon.reload:reload", "Apply a changed configuration, or keep the old and say why."),
        "status": Entry("daemon.status:status", "Show pools, processes and what they do."),
        "scale": Entry("daemon.pools:scale", "Set the size of a pool for a while."),
        "drain": Entry("daemon.pools:drain", "Let a pool finish what it runs and claim nothing new."),
        "resume": Entry("daemon.pools:resume", "Let a drained pool claim again."),
        "restart": Entry("daemon.pools:restart", "Replace a pool's processes by fresh ones."),
        "stop": Entry("daemon.stop:stop", "Drain and stop the daemon."),
        "explain": Entry("daemon.explain:explain", "Say why a pool is as it is."),
        "events": Entry("daemon.events:events", "Follow what happens."),
    },
    "Set-up": {
        "init": Entry("setup.init:init", "Write a configuration file to start from."),
        "check": Entry("setup.check:check", "Validate the configuration; change nothing."),
        "config": Entry("setup.config:config", "Show the configuration and where its values come from."),
        "migrate": Entry("setup.migrate:migrate", "Bring the database to the schema of this version."),
        "doctor": Entry("setup.doctor:doctor", "Examine database and configuration for trouble."),
        "systemd": Entry("systemd.command:systemd", "Write the unit file for this machine."),
        "demo": Entry("demo.command:demo", "Run real tasks on a private PostgreSQL."),
        "version": Entry("setup.version:version", "Show the versions of program and Python."),
    },
    "Tasks": {
        "enqueue": Entry("tasks.enqueue:enqueue", "Insert tasks to run."),
        "result": Entry("tasks.result:result", "Show what became of a task."),
        "cancel": Entry("tasks.cancel:cancel", "Cancel waiting or running tasks."),
        "logs": Entry("tasks.logs:logs", "Show what a task printed."),
        "replay": Entry("operations.replay:replay", "Enqueue tasks once more, as new ones."),
        "triage": Entry("operations.triage:triage", "Look through failed tasks and run them again."),
        "prune": Entry("operations.prune:prune", "Delete tasks that ended long ago."),
        "reclaim": Entry("operations.reclaim:reclaim", "Take back tasks whose lease has expired."),
        "stats": Entry("tasks.stats:stats", "Count tasks by queue and state."),
        "torture": Entry("torture.command:torture", "Prove on real tasks that nothing is lost."),
        "queue": Entry("queues.queue:queue", "List, pause and resume queues."),
        "limit": Entry("queues.limit:limit", "Set how many tasks a second may start."),
    },
    "Schedules": {
        "schedule": Entry("schedules.schedule:schedule", "List, add, change and try schedules."),
        "beat": Entry("schedules.beat:beat", "Fire schedules without a supervisor."),
        "pg-cron": Entry("schedules.pg_cron:pg_cron", "Let pg_cron fire the schedules, without any process of ours."),
    },
}


def find_command(name: str) -> Entry | None:
    """Return the entry of the command *name*."""
    return next((commands[name] for commands in SECTIONS.values() if name in commands), None)
