"""`isolation: exec`: every task runs in a program that speaks the executor protocol."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.marked import state_of
from tests.support.postgres import Cluster, Database
from tests.support.runs import DEMO, ODD, Run, Runs
from tests.support.shard import EXEC, RunningShard, running_shard
from tests.support.shared_pool import SharedPool, shared_pool

PROGRAM = str(Path(__file__).resolve().parents[1] / "support" / "foreign.sh")
KEPT = 64 * 1024
INTERNAL_TO_LIBC = 1 << 31 | 1 << 32
"""Signals 32 and 33, which glibc ignores in everything that `posix_spawn` starts."""


def foreign(**more: Any) -> dict[str, Any]:
    """Return the settings of a pool whose tasks the shell script runs."""
    section = {**EXEC, "command": [PROGRAM], "max_stdout": KEPT, "max_stderr": KEPT, **more}
    return {"isolation": "exec", "exec": section, "app": {"preload": ["not.imported"], "allowed_task_modules": ["foreign."]}}


@pytest.fixture(scope="module")
def pool(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPool]:
    folder = tmp_path_factory.mktemp("exec")
    with shared_pool(cluster, folder, executors=2, grace=0.5, **foreign()) as pool:
        yield pool


def end_of(runs: Runs, what: str, *args: Any, **options: Any) -> Run:
    return runs.end_of(f"foreign.{what}", *args, **{"max_attempts": 1, **options})


def test_a_program_is_told_who_and_which_attempt(runs: Runs) -> None:
    run = end_of(runs, "arguments")
    assert (run.end, run.result) == (("SUCCESSFUL", None, 1), f"--result-id {run.result_id} --attempt 1 --payload-stdin")


def test_a_program_inherits_its_standard_streams_and_no_signal_held_back_or_ignored(runs: Runs) -> None:
    *descriptors, _, blocked, _, ignored = end_of(runs, "inherited").result.split()
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the listing's own
    assert (int(blocked, 16), int(ignored, 16) & ~INTERNAL_TO_LIBC) == (0, 0)


def test_the_path_of_the_record_is_told_when_the_spec_has_none(runs: Runs) -> None:
    (run,) = runs.ended(runs.add_spec('{"args": []}', task_path="foreign.arguments"))
    assert run.result == f"--result-id {run.result_id} --attempt 1 --payload-stdin --task-path foreign.arguments"


def test_a_failure_of_a_program_is_recorded_with_its_exit_code(runs: Runs) -> None:
    run = end_of(runs, "fail")
    error = run.errors[-1]
    assert run.end == ("FAILED", "app_error", 1)
    told = (error["exception_class"], error["message"], error["traceback"], error["exit_code"])
    assert told == ("Foreign", "no luck", "line 1", 1)


def test_a_failure_is_retried_unless_no_retry_can_help(runs: Runs) -> None:
    assert end_of(runs, "fail", max_attempts=2).attempts == 2
    assert end_of(runs, "missing", max_attempts=2).attempts == 1
    assert end_of(runs, "steer", max_attempts=2).attempts == 1


def test_the_exit_code_of_a_success_is_only_noted(runs: Runs) -> None:
    run = end_of(runs, "ok_and_exit_5")
    assert (run.end, run.log) == (("SUCCESSFUL", None, 1), "STDOUT:\nSTDERR:\nexit status 5\n")


@pytest.mark.parametrize(
    ("what", "message", "code"),
    [
        ("nothing", r"Invalid JSON on stdout: .+", None),
        ("exit_3", r"Invalid JSON on stdout: .+", 3),
        ("noise", r"Invalid JSON on stdout: .+", None),
        ("twice", r"Invalid JSON on stdout: .+", None),
        ("list", r"Invalid JSON on stdout: expected an object .+", None),
        ("long", rf"Invalid JSON on stdout: more than {KEPT} bytes .+", None),
    ],
)
def test_anything_but_one_envelope_is_an_error_of_the_task(runs: Runs, what: str, message: str, code: int | None) -> None:
    run = end_of(runs, what)
    assert run.end == ("FAILED", "app_error", 1)
    assert re.fullmatch(message, run.message)
    assert (run.errors[-1]["exception_class"], run.errors[-1]["traceback"], run.errors[-1].get("exit_code")) == ("", "", code)


def test_what_is_no_envelope_is_in_the_log_and_what_is_one_is_not(runs: Runs) -> None:
    assert end_of(runs, "noise").log == "STDOUT:\nhello\nSTDERR:\n"
    assert end_of(runs, "words").log == "STDOUT:\nSTDERR:\na word\n"
    assert end_of(runs, "ok").log == ""


@pytest.mark.parametrize("what", ["nan", "nul"])
def test_a_result_that_cannot_be_stored_is_a_bad_one(runs: Runs, what: str) -> None:
    assert end_of(runs, what, max_attempts=3).end == ("FAILED", "bad_result", 1)


def test_a_flood_is_kept_to_its_beginning(runs: Runs) -> None:
    run = end_of(runs, "flood_stderr")
    assert run.status == "SUCCESSFUL"
    assert len(run.log) - KEPT in range(200)
    assert f"[{8 * 1024 * 1024 - KEPT} bytes more were dropped]" in run.log


def test_a_flood_of_standard_output_is_kept_to_its_beginning_when_its_time_is_over(runs: Runs) -> None:
    run = end_of(runs, "flood_and_hang", timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert len(run.log) - KEPT in range(200)


def test_a_program_that_dies_by_a_signal_is_a_crash(shard: RunningShard, runs: Runs) -> None:
    run = end_of(runs, "die")
    assert (run.end, run.errors[-1]["signal"]) == (("FAILED", "worker_crashed", 1), "SIGKILL")
    assert end_of(runs, "terminate").errors[-1]["signal"] == "SIGTERM"


def test_nobody_waits_for_a_process_that_holds_the_streams(shard: RunningShard, runs: Runs) -> None:
    assert end_of(runs, "hold_streams").end == ("SUCCESSFUL", None, 1)
    eventually(lambda: "sleep" not in commands(shard), what="what it left is gone")


def commands(shard: RunningShard) -> list[str]:
    found = []
    for pid in shard.processes():
        try:
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            continue
    return found


def test_a_program_over_its_time_may_clean_up(runs: Runs) -> None:
    run = end_of(runs, "clean_up", timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert "1 s" in run.message


def test_a_program_that_succeeds_when_it_is_asked_to_stop_has_succeeded(database: Database) -> None:
    with running_shard(database, grace=60, **foreign()):
        assert end_of(Runs(database), "finish_late", timeout_seconds=1).end == ("SUCCESSFUL", None, 1)


def test_a_program_that_does_not_stop_is_killed_with_all_of_its_own(shard: RunningShard, runs: Runs) -> None:
    assert end_of(runs, "stubborn", timeout_seconds=1).end == ("FAILED", "timeout", 1)
    eventually(lambda: "foreign.sh" not in commands(shard), what="it is gone")


def test_a_running_program_is_cancelled(shard: RunningShard, runs: Runs) -> None:
    ids = runs.add("foreign.clean_up")
    shard.wait_for(lambda: "foreign.sh" in commands(shard), "it runs")
    runs.cancel(ids)
    assert runs.ended(ids)[0].status == "CANCELLED"


def test_a_task_outside_the_allow_list_starts_nothing(runs: Runs) -> None:
    assert runs.end_of("echo").end == ("FAILED", "security_violation", 1)


def test_a_broken_spec_starts_nothing(runs: Runs) -> None:
    (run,) = runs.ended(runs.add_spec('{"args": 5}', task_path="foreign.ok"))
    assert run.end == ("FAILED", "invalid_spec", 1)


def test_the_payload_reaches_a_program_whatever_its_size(runs: Runs) -> None:
    assert end_of(runs, "payload_bytes", "x" * 500_000).result > 500_000


def test_a_payload_that_is_too_large_starts_nothing(runs: Runs) -> None:
    assert end_of(runs, "ok", "x" * (1 << 20)).end[:2] == ("FAILED", "invalid_spec")


def test_a_payload_by_file_is_never_on_a_disk(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    runs = Runs(database)
    with running_shard(database, **foreign(payload="file")) as shard:
        run = end_of(runs, "arguments", "x" * 200_000)
        path = run.result.rpartition("--payload-file ")[2]
        assert path.startswith("/proc/")
        assert "secret" not in run.result
        assert end_of(runs, "payload_bytes", "x" * 500_000).result > 500_000
        assert end_of(runs, "die").end == ("FAILED", "worker_crashed", 1)
        assert not os.path.lexists(path)
        assert list(tmp_path.iterdir()) == []
        assert shard.events("executor.exited")


def test_a_payload_may_be_an_argument_where_that_was_asked_for(database: Database) -> None:
    runs = Runs(database)
    with running_shard(database, **foreign(payload="inline")):
        assert end_of(runs, "payload_bytes", "words").result > 5
        run = end_of(runs, "ok", "x" * 200_000, max_attempts=1)
        assert run.end == ("FAILED", "infra_error", 1)
        assert "Argument list too long" in run.message


def test_a_payload_is_in_no_argument_unless_that_was_asked_for(shard: RunningShard, runs: Runs) -> None:
    ids = runs.add("foreign.clean_up", "a-secret")
    shard.wait_for(lambda: "foreign.sh" in commands(shard), "it runs")
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in shard.processes() if state_of(pid)]
    runs.cancel(ids)
    runs.ended(ids)
    assert not any(b"a-secret" in line for line in lines)


def test_a_program_that_is_not_there_fails_the_pool_with_a_reason(database: Database) -> None:
    with running_shard(database, ready=False, **foreign(command=["/nowhere/at/all"])) as shard:
        reason = shard.wait_said("failed")["reason"]
        assert "exec.command" in reason
        assert "/nowhere/at/all" in reason
        assert shard.wait_exit() != 0


def test_a_program_that_vanishes_fails_its_tasks_and_takes_nothing_down(database: Database, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(Path(PROGRAM).read_text())
    program.chmod(0o755)
    runs = Runs(database)
    with running_shard(database, **foreign(command=[str(program)])) as shard:
        assert end_of(runs, "ok").status == "SUCCESSFUL"
        program.rename(tmp_path / "elsewhere")
        run = end_of(runs, "ok", max_attempts=1)
        assert run.end == ("FAILED", "infra_error", 1)
        assert f"cannot start {program}: No such file or directory" in run.message
        (tmp_path / "elsewhere").rename(program)
        assert end_of(runs, "ok").status == "SUCCESSFUL"
        assert not shard.events("executor.exited")


def test_a_program_without_a_logs_folder_still_tells_its_result(database: Database) -> None:
    with running_shard(database, **foreign()):
        run = end_of(Runs(database), "words")
        assert (run.result, run.log) == ("ok", "")


def test_our_own_program_finds_the_application_and_its_limits(database: Database, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import os\ndef where(): return os.getpid(), os.environ.get('DJANGO_SETTINGS_MODULE')\nrun = os.getpid\n"
    )
    (tmp_path / "django.py").write_text("def setup(): pass\n")
    app = {
        "path": [str(tmp_path)],
        "preload": [],
        "allowed_task_modules": ["shop.where", "shop.run"],
        "django_settings_module": "shop_settings",
    }
    runs = Runs(database)
    with running_shard(database, isolation="exec", exec=EXEC, app=app) as shard:
        ended = runs.ended(runs.add("shop.where", count=2))
        assert {run.result[1] for run in ended} == {"shop_settings"}
        assert len({run.result[0] for run in ended} | set(shard.wait_executors(2))) == 4
        assert runs.end_of("shop.run").end == ("FAILED", "security_violation", 1)
        assert runs.end_of("shop.nothing", max_attempts=3).end == ("FAILED", "security_violation", 1)


def test_what_a_task_of_our_own_program_prints_is_in_its_log(database: Database, tmp_path: Path) -> None:
    runs = Runs(database)
    with running_shard(database, isolation="exec", exec=EXEC, logs_dir=tmp_path / "logs"):
        assert runs.end_of(f"{ODD}write_from_c", "from C").log == "STDOUT:\nSTDERR:\nfrom C\nfrom C\n"
        assert runs.end_of(f"{ODD}print_from_a_program", "a program").log == "STDOUT:\nSTDERR:\na program\n"
        assert runs.end_of(f"{DEMO}kill_itself", max_attempts=1).errors[-1]["signal"] == "SIGKILL"
        failed = runs.end_of(f"{ODD}print_and_fail", "words", max_attempts=1)
        assert (failed.end, failed.errors[-1]["exception_class"]) == (("FAILED", "app_error", 1), "RuntimeError")
        assert failed.log == "STDOUT:\nSTDERR:\nwords\nexit status 1\n"
        assert runs.end_of("return_large", max_attempts=2).end == ("FAILED", "bad_result", 1)


@pytest.mark.parametrize("heartbeat", [0.5, 60.0])
def test_a_program_may_be_stopped_for_a_heartbeat(database: Database, tmp_path: Path, heartbeat: float) -> None:
    runs, pid_file = Runs(database), tmp_path / "pid"
    app = {"preload": ["not.imported"], "allowed_task_modules": ["tests."]}
    with running_shard(database, executors=1, heartbeat=heartbeat, isolation="exec", exec=EXEC, app=app) as shard:
        ids = runs.add(f"{ODD}stop_itself", str(pid_file), max_attempts=1, timeout_seconds=3600)
        if heartbeat > 1:
            pid = int(eventually(lambda: pid_file.exists() and pid_file.read_text(), timeout=60, what="the program runs"))
            eventually(lambda: state_of(pid) == "T", timeout=60, what="it stops itself")
            os.kill(pid, signal.SIGCONT)
            assert [run.end for run in runs.ended(ids)] == [("SUCCESSFUL", None, 1)]
        else:
            (run,) = runs.ended(ids)
            assert run.end == ("FAILED", "worker_crashed", 1)
            assert shard.wait_event("executor.exited")["status"] == -signal.SIGKILL
