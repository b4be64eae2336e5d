"""The commands of an operator, on a real daemon."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from reproq_supervisor.store.migrate import migrate
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

Start = Callable[..., Daemon]


@pytest.fixture
def daemon(database: Database, start_daemon: Start) -> Daemon:
    """A daemon with one pool, `default`, of two executors."""
    return start_daemon(demo_config(database.dsn))


@pytest.fixture(scope="module")
def steady(cluster: Cluster) -> Iterator[Daemon]:
    """The daemon of tests that leave it as it is."""
    with cluster.new_database(cluster.ensure_template(migrate)) as database, closing(Daemon(demo_config(database.dsn))) as daemon:
        daemon.start()
        yield daemon


def pool_of(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.answer("status")["pools"]["default"]
    return found


def executors(daemon: Daemon) -> int:
    snapshots = pool_of(daemon)["snapshots"].values()
    return sum(snapshot["executors"]["ready"] for snapshot in snapshots)


def enqueue(daemon: Daemon, path: str, *arguments: str) -> list[int]:
    ids = daemon.answer("enqueue", path, *arguments)["ids"]
    return list(ids)


# tasks run


def test_a_task_runs_and_its_result_is_awaited(steady: Daemon) -> None:
    (run,) = enqueue(steady, "workers.demo.tasks.add", "--args", "[2, 3]")
    found = steady.answer("result", str(run), "--wait", "20s")
    assert (found["status"], found["result"], found["attempts"]) == ("SUCCESSFUL", 5, 1)


# status


def test_status_tells_what_there_is(steady: Daemon) -> None:
    found = steady.answer("status")
    assert (found["pid"], found["state"], found["config_path"]) == (steady.pid, "running", str(steady.config_path))
    assert found["memory"][str(steady.pid)] > 2**20
    assert {child["role"] for child in found["children"]} >= {"keeper", "shard"}
    text = steady.command("status", "--processes").stdout
    assert f"running, pid {steady.pid}" in text
    assert "default/0" in text


def test_status_as_a_stream_ends_without_noise(steady: Daemon) -> None:
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "status", "--watch", "--json", "-c", str(steady.config_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert [json.loads(watch.stdout.readline())["pid"] for _ in range(2)] == [steady.pid] * 2
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(10), watch.stderr.read()) == (0, "")


def test_without_a_daemon_every_command_of_it_is_69_and_says_how_to_start_one(daemon: Daemon) -> None:
    daemon.stop()
    for command in (["status"], ["reload"], ["stop"], ["scale", "default", "1"], ["explain", "default"], ["events", "--no-follow"]):
        done = daemon.command(*command)
        assert done.returncode == 69, command
        assert f"reproq-supervisor run -c {daemon.config_path}" in done.stderr


def test_status_finds_the_daemon_though_the_file_is_broken(daemon: Daemon) -> None:
    daemon.config_path.write_text("{")
    assert daemon.answer("status")["pid"] == daemon.pid


# pools


def test_scale_sets_the_size_and_auto_takes_it_back(daemon: Daemon) -> None:
    daemon.answer("scale", "default", "3")
    eventually(lambda: executors(daemon) == 3, what="three executors")
    assert "default has 3 executors by hand" in daemon.command("status").stdout
    daemon.answer("scale", "default", "auto")
    eventually(lambda: executors(daemon) == 2, what="two executors")


def test_scale_for_a_while_ends_by_itself(steady: Daemon) -> None:
    assert steady.command("scale", "default", "1", "--for", "500ms").stdout == "default: 1 executor until 500ms from now\n"
    eventually(lambda: pool_of(steady)["override"] is None, what="the override ends")


def test_a_drained_pool_claims_nothing_until_it_is_resumed(daemon: Daemon) -> None:
    daemon.answer("drain", "default")
    (run,) = enqueue(daemon, "workers.demo.tasks.add", "--args", "[2, 3]")
    assert daemon.command("result", str(run), "--wait", "1s").returncode == 75
    assert "was drained by hand" in daemon.command("explain", "default").stdout
    assert "back to work" in daemon.command("status").stdout
    daemon.answer("resume", "default")
    assert daemon.answer("result", str(run), "--wait", "20s")["result"] == 5


def test_restart_replaces_the_processes_of_the_pool(daemon: Daemon) -> None:
    before = daemon.pids("shard")
    assert daemon.command("restart", "default").stdout.startswith("default: restarted")
    eventually(lambda: (now := daemon.pids("shard")) and not set(now) & set(before), what="only new shards")


def test_an_unknown_pool_is_a_usage_error_that_names_the_pools(steady: Daemon) -> None:
    for command in (["scale", "nope", "1"], ["drain", "nope"], ["resume", "nope"], ["restart", "nope"], ["explain", "nope"]):
        done = steady.command(*command)
        assert done.returncode == 2, command
        assert "expected one of default, got 'nope'" in done.stderr


# reload


def test_a_dry_run_shows_the_plan_and_changes_nothing(daemon: Daemon, database: Database) -> None:
    daemon.configure(demo_config(database.dsn, pool={"executors": 3}))
    done = daemon.command("reload", "--dry-run")
    assert done.returncode == 0
    assert "pools.default.executors" in done.stdout
    assert executors(daemon) == 2


def test_a_reload_applies_the_change(daemon: Daemon, database: Database) -> None:
    daemon.configure(demo_config(database.dsn, pool={"executors": 3}))
    answer = daemon.answer("reload")
    assert answer["changed"] is True
    eventually(lambda: executors(daemon) == 3, what="three executors")


def test_a_reload_without_a_change_says_so(steady: Daemon) -> None:
    assert "nothing changed" in steady.command("reload").stdout


def test_a_refused_reload_is_78_with_every_problem(daemon: Daemon) -> None:
    daemon.config_path.write_text("webb: 1\nlogs: 2\n")
    done = daemon.command("reload")
    assert done.returncode == 78
    assert [line.partition(str(daemon.config_path))[2] for line in done.stderr.splitlines()] == [
        ":1:1: webb: expected a known key (did you mean web?)",
        ":2:7: logs: expected a mapping, got 2",
    ]


# events


def test_events_end_with_what_the_daemon_remembers_unless_followed(steady: Daemon) -> None:
    done = steady.command("events", "--no-follow", "--json")
    assert done.returncode == 0
    names = [json.loads(line)["name"] for line in done.stdout.splitlines()]
    assert names
    assert len(steady.command("events", "--no-follow").stdout.splitlines()) >= len(names)


def test_followed_events_arrive_as_they_happen(daemon: Daemon) -> None:
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "events", "--json", "-c", str(daemon.config_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        lines = _lines(watch)
        next(lines)
        daemon.answer("scale", "default", "1")
        assert any("scaled" in event["name"] for event in lines)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0


def _lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    while line := process.stdout.readline():
        yield json.loads(line)


# stop


def test_stop_waits_until_the_daemon_is_gone(daemon: Daemon) -> None:
    done = daemon.command("stop")
    assert done.returncode == 0
    assert done.stdout.startswith(f"stopped (pid {daemon.pid}, ")
    assert daemon.wait_exit(timeout=1) == 0


def test_stop_that_may_not_wait_so_long_is_75(daemon: Daemon) -> None:
    enqueue(daemon, "workers.demo.tasks.hang", "--args", "[3600]")
    eventually(lambda: daemon.answer("stats")["queues"]["default"]["running"], what="the task runs")
    done = daemon.command("stop", "--wait", "300ms")
    assert done.returncode == 75
    assert "still runs" in done.stderr
    assert daemon.command("stop", "--quick").returncode == 0


# the database


def test_without_its_database_the_daemon_starts_keeps_trying_and_says_so(start_daemon: Start) -> None:
    daemon = start_daemon(demo_config("postgresql://me:hunter2@127.0.0.1:1/x"), until_ready=False)
    eventually(lambda: "no database" in daemon.command("status").stdout, timeout=30, what="status tells of the outage")
    assert "the daemon starts and keeps trying" in daemon.log
    assert "without the database" in daemon.command("explain", "default").stdout
    assert "hunter2" not in daemon.log
    assert daemon.command("stop").returncode == 0


def test_commands_find_the_embedded_database_while_the_daemon_runs(start_daemon: Start) -> None:
    config = demo_config("embedded")
    daemon = start_daemon(config)
    (run,) = enqueue(daemon, "workers.demo.tasks.add", "--args", "[2, 3]")
    assert daemon.answer("result", str(run), "--wait", "20s")["result"] == 5
    daemon.stop()
    done = daemon.command("stats")
    assert done.returncode == 69
    assert "expected the embedded one to run" in done.stderr


def test_a_dsn_flag_outlives_a_reload_and_its_password_is_shown_nowhere(database: Database) -> None:
    secret = "hunter2"
    with closing(Daemon(demo_config("embedded"))) as daemon:
        daemon.start("--dsn", database.dsn.replace("reproq@", f"reproq:{secret}@"))
        daemon.configure(demo_config("embedded", pool={"executors": 1}))
        assert [change["key"] for change in daemon.answer("reload")["plan"]] == [
            "pools.default.executors.min",
            "pools.default.executors.max",
        ]
        (run,) = enqueue(daemon, "workers.demo.tasks.add", "--args", "[2, 3]", "--dsn", database.dsn)
        assert daemon.answer("result", str(run), "--wait", "20s", "--dsn", database.dsn)["result"] == 5
        for pid in daemon.processes():
            with open(f"/proc/{pid}/cmdline", "rb") as arguments, open(f"/proc/{pid}/environ", "rb") as environ:
                assert secret.encode() not in arguments.read() + environ.read()
        assert secret not in daemon.log + daemon.command("status", "--json").stdout + daemon.command("events", "--no-follow").stdout
