"""The table of commands: where each lives, and its line in the help. Nothing is imported until a command is asked for."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One command: the `module:attribute` of this room that holds it, and what it does in a few words."""

    target: str
    summary: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Daemon": {
        "run": Entry("daemon_run:run", "Start the supervisor and its pools."),
        "worker": Entry("worker.command:worker", "Start one pool from the older worker's flags."),
        "reload": Entry("daemon_reload:reload", "Apply a changed configuration, or keep the old and say why."),
        "status": Entry("daemon_status:status", "Show pools, processes and what they do."),
        "scale": Entry("daemon_pools:scale", "Set the size of a pool for a while."),
        "drain": Entry("daemon_pools:drain", "Let a pool finish what it runs and claim nothing new."),
        "resume": Entry("daemon_pools:resume", "Let a drained pool claim again."),
        "restart": Entry("daemon_pools:restart", "Replace a pool's processes by fresh ones."),
        "stop": Entry("daemon_stop:stop", "Drain and stop the daemon."),
        "explain": Entry("daemon_explain:explain", "Say why a pool is as it is."),
        "events": Entry("daemon_events:events", "Follow what happens."),
    },
    "Set-up": {
        "init": Entry("init:init", "Write a configuration file to start from."),
        "check": Entry("check:check", "Validate the configuration; change nothing."),
        "config": Entry("config:config", "Show the configuration and where its values come from."),
        "migrate": Entry("task_migrate:migrate", "Bring the database to the schema of this version."),
        "doctor": Entry("task_doctor:doctor", "Examine database and configuration for trouble."),
        "systemd": Entry("systemd.command:systemd", "Write the unit file for this machine."),
        "demo": Entry("demo.command:demo", "Run real tasks on a private PostgreSQL."),
        "version": Entry("version:version", "Show the versions of program and Python."),
    },
    "Tasks": {
        "enqueue": Entry("task_enqueue:enqueue", "Insert tasks to run."),
        "result": Entry("task_result:result", "Show what became of a task."),
        "cancel": Entry("task_cancel:cancel", "Cancel waiting or running tasks."),
        "logs": Entry("task_logs:logs", "Show what a task printed."),
        "stats": Entry("task_stats:stats", "Count tasks by queue and state."),
        "queue": Entry("queue:queue", "List, pause and resume queues."),
        "limit": Entry("limit:limit", "Set how many tasks a second may start."),
    },
}


def find_command(name: str) -> Entry | None:
    """Return the entry of the command *name*."""
    return next((commands[name] for commands in SECTIONS.values() if name in commands), None)
