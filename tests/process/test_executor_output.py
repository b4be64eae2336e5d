"""What a task writes ends in its own log: whoever writes it, however much, and whatever the task does to its descriptors."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_supervisor.store.migrate import migrate
from tests.support.eventually import eventually
from tests.support.postgres import Cluster
from tests.support.runs import ODD, Runs
from tests.support.shard import running_shard

MIB = 1 << 20


@pytest.fixture(scope="module")
def runs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The runs of a shard with one executor, which every task of this module shares."""
    folder = tmp_path_factory.mktemp("output")
    with (
        cluster.new_database(cluster.ensure_template(migrate)) as database,
        running_shard(database, executors=1, logs_dir=folder / "logs", log=folder / "shard.log"),
    ):
        yield Runs(database)


def assert_the_next_task_prints(runs: Runs, words: str = "the next task") -> None:
    run = runs.end_of(f"{ODD}print_only", words)
    assert (run.end, run.log) == (("SUCCESSFUL", None, 1), f"STDOUT:\n{words}\nSTDERR:\n")


def test_python_and_programs_write_into_one_log(runs: Runs) -> None:
    run = runs.end_of("say", "out", "err")
    assert sorted(run.log.splitlines()) == sorted(["STDOUT:", "out", "out (from a program)", "STDERR:", "err"])


def test_c_code_writes_into_the_log(runs: Runs) -> None:
    assert runs.end_of(f"{ODD}write_from_c", "from C").log == "STDOUT:\nfrom C\nSTDERR:\nfrom C\n"


def test_a_silent_task_has_no_log(runs: Runs) -> None:
    assert runs.end_of("noop").logs_uri is None


def test_the_log_is_private(runs: Runs) -> None:
    uri = runs.end_of("say", "secret").logs_uri
    assert uri is not None
    assert (Path(uri).stat().st_mode & 0o777, Path(uri).parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_was_written_before_a_crash_is_kept(runs: Runs) -> None:
    run = runs.end_of(f"{ODD}print_and_crash", "last words", max_attempts=1)
    assert (run.end, run.log) == (("FAILED", "worker_crashed", 1), "STDOUT:\nlast words\nSTDERR:\n")


def test_what_was_written_before_a_time_limit_is_kept(runs: Runs) -> None:
    run = runs.end_of(f"{ODD}print_and_hang", "last words", max_attempts=1, timeout_seconds=1)
    assert run.end == ("FAILED", "timeout", 1)
    assert "last words" in run.log


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_is_kept_to_its_first_mebibyte_and_the_rest_is_counted(runs: Runs, stream: str) -> None:
    run = runs.end_of("flood", 8, stream)
    assert run.status == "SUCCESSFUL"
    dropped = re.search(r"\[(\d+) bytes more were dropped\]", run.log)
    assert dropped is not None
    assert int(dropped[1]) == run.result - MIB
    kept = "".join(line for line in run.log.splitlines(keepends=True) if line.startswith("flood"))
    assert len(kept) in (MIB, MIB + 1)  # the cut line gets an end
    assert_the_next_task_prints(runs)


def test_each_attempt_has_its_own_log(runs: Runs) -> None:
    run = runs.end_of(f"{ODD}print_and_fail", "words", max_attempts=2)
    assert run.logs_uri is not None
    assert run.logs_uri.endswith("attempt-2.log")
    assert Path(run.logs_uri.replace("attempt-2", "attempt-1")).read_text() == run.log


@pytest.mark.parametrize(
    ("task", "args", "log"),
    [
        ("close_stdout", ["before"], "STDOUT:\nbefore\nSTDERR:\n"),
        ("replace_stdout", [], ""),
        ("drop_stdout", [], ""),
        ("close_standard_descriptors", [], ""),
    ],
)
def test_a_task_that_spoils_standard_output_spoils_only_its_own(runs: Runs, task: str, args: list[str], log: str) -> None:
    run = runs.end_of(f"{ODD}{task}", *args, max_attempts=1)
    assert (run.end, run.log) == (("SUCCESSFUL", None, 1), log)
    assert_the_next_task_prints(runs)


def test_a_task_that_redirects_its_descriptors_redirects_only_its_own(runs: Runs, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    run = runs.end_of(f"{ODD}redirect_standard_descriptors", str(elsewhere), "before", max_attempts=1)
    assert (run.status, run.log) == ("SUCCESSFUL", "STDOUT:\nbefore\nSTDERR:\n")
    assert_the_next_task_prints(runs)
    assert elsewhere.read_text() == ""


@pytest.mark.parametrize("first", ["", "first words"])
@pytest.mark.parametrize("double_fork", [False, True])
def test_a_writer_that_a_task_left_behind_never_reaches_the_log_of_the_next(
    runs: Runs, tmp_path: Path, first: str, double_fork: bool
) -> None:
    go = tmp_path / "go"
    runs.end_of(f"{ODD}leave_writer", "late words", str(go), kwargs={"first": first, "double_fork": double_fork})
    next_run = runs.end_of(f"{ODD}print_around", "words", str(go), str(go) + ".done", 0.5)
    assert next_run.log == "STDOUT:\nwords\nwords\nSTDERR:\n"
    eventually(go.exists, what="the next task let it write")
