"""From the start of a shard to its readiness: what an application may do while it is imported, and what happens when it must not."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import ROOT, RunningShard, running_shard

Booting = Callable[..., AbstractContextManager[RunningShard]]


@pytest.fixture
def booting(database: Database, tmp_path: Path) -> Booting:
    """Start a shard that preloads a module with the given source."""

    @contextmanager
    def boot(source: str, **options: object) -> Iterator[RunningShard]:
        (tmp_path / "application.py").write_text(source)
        app = {"path": [str(tmp_path), str(ROOT)], "preload": ["application", "workers.demo.tasks"]}
        with running_shard(database, ready=False, app=app, log=tmp_path / "shard.log", **options) as shard:
            yield shard

    return boot


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('broken release')", ["application", "RuntimeError: broken release"]),
        ("import no_such_module_anywhere", ["application", "No module named 'no_such_module_anywhere'"]),
        ("def broken(:", ["application", "SyntaxError"]),
        ("import sys; sys.exit(3)", ["application", "SystemExit: 3"]),
        ("raise KeyboardInterrupt", ["application", "KeyboardInterrupt"]),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='pump', daemon=True).start()",
            ["one thread", "got 2"],
        ),
        (
            "import socket\nserver = socket.create_server(('127.0.0.1', 0))\nclient = socket.create_connection(server.getsockname())",
            ["no open sockets", "127.0.0.1"],
        ),
        ("import os; os._exit(5)", ["nursery", "status 5"]),
        ("import os; os.abort()", ["nursery", "status -6"]),
    ],
)
def test_an_application_that_cannot_be_forked_is_refused_with_its_reason(booting: Booting, source: str, words: list[str]) -> None:
    with booting(source) as shard:
        reason = shard.wait_said("failed")["reason"]
        assert all(word in reason for word in words), reason
        assert shard.wait_exit() == 70
        shard.wait_gone()


def test_an_import_that_hangs_is_ended_with_its_reason_and_its_stacks(booting: Booting) -> None:
    with booting("import time\ndef wait_for_godot():\n    time.sleep(3600)\nwait_for_godot()", boot_timeout=1.0) as shard:
        reason = shard.wait_said("failed")["reason"]
        assert "imports to end within 0.9 s" in reason
        assert shard.wait_exit() == 70
        assert "wait_for_godot" in shard.log


def test_an_application_may_print_while_it_is_imported(booting: Booting, database: Database, tmp_path: Path) -> None:
    source = "import sys\nprint('imported')\nsys.stdout.write('half a line')\nprint('careful', file=sys.stderr)"
    with booting(source, logs_dir=tmp_path / "logs", executors=2) as shard:
        shard.wait_ready()
        run = Runs(database).end_of("say", "mine")
        assert run.log.splitlines() == ["STDOUT:", "mine", "mine (from a program)", "STDERR:"]


def test_an_application_may_start_and_end_threads_sockets_and_programs(booting: Booting, database: Database) -> None:
    source = (
        "import socket, subprocess, threading\n"
        "thread = threading.Thread(target=print); thread.start(); thread.join()\n"
        "a, b = socket.socketpair(); a.close(); b.close()\n"
        "subprocess.run(['true'], check=True)\n"
    )
    with booting(source) as shard:
        shard.wait_ready()
        assert Runs(database).end_of("echo").status == "SUCCESSFUL"


def test_standard_streams_may_be_sockets_as_those_of_a_journal_are(booting: Booting, database: Database) -> None:
    source = (
        "import os, socket\n"
        "ours, journal = socket.socketpair()\n"
        "for stream in (1, 2):\n"
        "    os.dup2(ours.fileno(), stream)\n"
        "ours.close(); journal.close()\n"
    )
    with booting(source) as shard:
        shard.wait_ready()
        assert Runs(database).end_of("echo").status == "SUCCESSFUL"


def test_what_an_application_does_to_signals_does_not_reach_the_nursery(booting: Booting, database: Database) -> None:
    source = (
        "import signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1])\n"
    )
    with booting(source) as shard:
        shard.wait_ready()
        runs = Runs(database)
        assert runs.end_of("crash", max_attempts=1).end == ("FAILED", "worker_crashed", 1)
        assert runs.end_of("nap", 60, max_attempts=1, timeout_seconds=1).end == ("FAILED", "timeout", 1)
        os.kill(shard.nursery_pid, signal.SIGTERM)
        assert shard.wait_exit(timeout=5) == 70
        shard.wait_gone(timeout=2)


@pytest.mark.parametrize("order", ["drain", "quit", "term", "lifeline", "kill"])
def test_a_shard_leaves_at_once_while_its_nursery_imports(booting: Booting, tmp_path: Path, order: str) -> None:
    marker = tmp_path / "importing"
    source = f"import subprocess, time\nsubprocess.Popen(['sleep', '3600'])\nopen({str(marker)!r}, 'w').close()\ntime.sleep(3600)"
    with booting(source) as shard:
        eventually(marker.exists, what="the import is under way")
        match order:
            case "term":
                shard.kill(signal.SIGTERM)
            case "kill":
                shard.kill()
            case "lifeline":
                shard.close_lifeline()
            case _:
                shard.say(order, timeout=30)
        assert shard.wait_exit(timeout=3) == (-9 if order == "kill" else 0)
        if order == "kill":
            eventually(lambda: shard.nursery_pid not in shard.processes(), what="the nursery is gone")
            shard.kill_strays()  # what the import had started falls to the supervisor
        shard.wait_gone(timeout=2)


def test_a_nursery_that_is_told_to_end_while_it_imports_ends_the_shard(booting: Booting, tmp_path: Path) -> None:
    marker = tmp_path / "importing"
    with booting(f"import time\nopen({str(marker)!r}, 'w').close()\ntime.sleep(3600)") as shard:
        eventually(marker.exists, what="the import is under way")
        os.kill(shard.nursery_pid, signal.SIGTERM)
        assert "the nursery ended with status 0" in shard.wait_said("failed")["reason"]
        assert shard.wait_exit() == 70


@pytest.mark.slow
def test_a_term_at_any_moment_of_the_start_is_not_lost(database: Database) -> None:
    for at in range(40):
        with running_shard(database, ready=False) as shard:
            delay = at * 0.02
            shard.let_run(delay)
            shard.kill(signal.SIGTERM)
            assert shard.wait_exit(timeout=5) in (0, -signal.SIGTERM), f"after {delay} s"
            shard.wait_gone(timeout=2)
