"""The reference implementation of the executor protocol, run by hand."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.runs import DEMO, ODD

ROOT = Path(__file__).resolve().parents[2]
ARGV = [sys.executable, "-P", "-m", "reproq_supervisor.executor.program", "--result-id", "7"]
STEERING = "workers.demo.steering."
PROCESS_MAX_S = 60


@dataclass
class Ended:
    """What a program said, and how it ended."""

    code: int
    envelope: dict[str, Any]
    stderr: str

    @property
    def end(self) -> tuple[int, str]:
        return self.code, self.envelope["exception_class"]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("ALLOWED_TASK_MODULES", "DJANGO_SETTINGS_MODULE")}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def run(payload: bytes | dict[str, Any], *options: str, env: Mapping[str, str] | None = None) -> Ended:
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    argv = [*ARGV, *(options or ("--payload-stdin",))]
    done = subprocess.run(argv, input=text, capture_output=True, env=environment(env or {}), timeout=PROCESS_MAX_S, check=False)
    return Ended(done.returncode, json.loads(done.stdout), done.stderr.decode())


def call(task: str, *args: Any, **keys: Any) -> dict[str, Any]:
    return {"v": 1, "task_path": task, "args": list(args), "kwargs": {}, **keys}


def test_a_task_succeeds() -> None:
    ended = run(call(f"{DEMO}echo", 1, kwargs={"a": "ü"}))
    assert (ended.code, ended.envelope) == (0, {"ok": True, "return": {"args": [1], "kwargs": {"a": "ü"}}})


def test_a_coroutine_succeeds() -> None:
    assert run(call(f"{DEMO}coroutine_echo", 5)).envelope == {"ok": True, "return": 5}


def test_a_task_fails() -> None:
    ended = run(call(f"{DEMO}fail", "on purpose"))
    assert ended.end == (1, "RuntimeError")
    assert ended.envelope["message"] == "on purpose"
    assert "in fail" in ended.envelope["traceback"]


def test_the_payload_may_come_from_a_file_or_inline(tmp_path: Path) -> None:
    spec = json.dumps(call(f"{DEMO}add", 1, 2))
    (tmp_path / "spec.json").write_text(spec)
    assert run(b"", "--payload-file", str(tmp_path / "spec.json")).envelope["return"] == 3
    assert run(b"", "--payload-json", spec).envelope["return"] == 3


def test_what_a_task_writes_anywhere_is_on_standard_error() -> None:
    assert run(call(f"{DEMO}say", "words", "wrong words")).stderr.splitlines().count("words (from a program)") == 1
    ended = run(call(f"{ODD}write_from_c", "from C"))
    assert (ended.envelope, ended.stderr) == ({"ok": True, "return": None}, "from C\nfrom C\n")


@pytest.mark.parametrize(
    ("payload", "exception_class"),
    [
        (b"", "PayloadError"),
        (b"{", "PayloadError"),
        (b"[]", "PayloadError"),
        (b'{"task_path": "a.b", "args": 5}', "PayloadError"),
        (b'{"task_path": "workers.demo.tasks.nothing"}', "ImportError"),
        (b'{"task_path": "nowhere.at.all"}', "ImportError"),
    ],
)
def test_a_payload_that_cannot_be_run_is_a_failure_of_its_own_class(payload: bytes, exception_class: str) -> None:
    ended = run(payload)
    assert (ended.end, ended.envelope["traceback"]) == ((1, exception_class), None)


def test_a_payload_that_cannot_be_read_is_a_bad_payload(tmp_path: Path) -> None:
    assert run(b"", "--payload-file", str(tmp_path / "nothing")).end == (1, "PayloadError")


def test_a_spec_without_a_path_may_get_it_as_an_option() -> None:
    assert run({"args": [2, 3]}, "--payload-stdin", "--task-path", f"{DEMO}add").envelope["return"] == 5


def test_a_task_learns_from_its_context_what_the_spec_says() -> None:
    spec = call(f"{STEERING}tell_context", takes_context=True, queue_name="mail", priority=3, exec={"max_attempts": 9})
    assert run(spec, "--payload-stdin", "--attempt", "4").envelope["return"] == [
        {"result_id": "7", "attempt": 4, "max_attempts": 9, "task_path": f"{STEERING}tell_context", "queue_name": "mail", "priority": 3}
    ]


@pytest.mark.parametrize(("allowed", "code"), [("workers.demo.", 0), ("workers.demo.,other.", 0), ("other.", 1), ("", 1)])
def test_the_environment_may_limit_what_runs(allowed: str, code: int) -> None:
    ended = run(call(f"{DEMO}noop"), env={"ALLOWED_TASK_MODULES": allowed})
    assert ended.code == code
    assert ended.envelope.get("kind") == (None if code == 0 else "security_violation")


def test_a_path_through_an_imported_module_is_not_allowed() -> None:
    ended = run(call(f"{ODD}imported_run", ["true"]), env={"ALLOWED_TASK_MODULES": ODD})
    assert ended.envelope["kind"] == "security_violation"


@pytest.mark.parametrize("task", ["return_nan", "return_nul", "return_large", "return_object"])
def test_what_cannot_be_stored_is_a_bad_result(task: str) -> None:
    ended = run(call(f"{DEMO}{task}"))
    assert (ended.end, ended.envelope["kind"]) == ((1, "BadResultError"), "bad_result")


def test_a_task_may_steer_its_retry() -> None:
    assert run(call(f"{STEERING}ask_for_a_retry", 5)).envelope["retry_after_s"] == 5
    assert run(call(f"{STEERING}give_up", "never")).envelope["retry"] is False


def test_an_exit_from_within_a_task_is_an_error_of_the_task() -> None:
    assert run(call(f"{DEMO}exit_process")).end == (1, "SystemExit")


def test_a_child_that_comes_back_from_the_task_says_nothing() -> None:
    assert run(call(f"{ODD}fork_and_return")).envelope == {"ok": True, "return": "parent"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_lets_the_task_clean_up(tmp_path: Path, signum: signal.Signals) -> None:
    ready, marker = tmp_path / "ready", tmp_path / "marker"
    spec = json.dumps(call(f"{ODD}say_ready_and_clean_up", str(ready), str(marker)))
    argv = [*ARGV, "--payload-json", spec]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment({})) as process:
        eventually(ready.exists, timeout=PROCESS_MAX_S, what="the task runs")
        process.send_signal(signum)
        assert process.stdout is not None
        envelope = json.loads(process.stdout.read())
    assert (process.returncode, envelope["exception_class"], marker.read_text()) == (1, "Terminated", "SoftTimeout")


@pytest.mark.parametrize(
    "arguments", [["--result-id", "1"], ["--payload-stdin"], ["--result-id", "1", "--payload-stdin", "--payload-json", "{}"]]
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    argv = [sys.executable, "-P", "-m", "reproq_supervisor.executor.program", *arguments]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment({}), timeout=PROCESS_MAX_S, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


def test_settings_of_django_come_from_the_option_the_spec_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "django.py").write_text("import os\ndef setup(): os.environ['SET_UP'] = os.environ['DJANGO_SETTINGS_MODULE']\n")
    (tmp_path / "asked.py").write_text("import os\ndef what(): return os.environ.get('SET_UP')\n")
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "DJANGO_SETTINGS_MODULE": "of.environment"}
    spec = {"task_path": "asked.what"}
    own = {**spec, "django": {"settings_module": "of.spec"}}
    assert run(spec, env=env).envelope["return"] == "of.environment"
    assert run(own, env=env).envelope["return"] == "of.spec"
    assert run(own, "--payload-stdin", "--settings", "of.option", env=env).envelope["return"] == "of.option"


def test_settings_that_cannot_be_set_up_are_told(tmp_path: Path) -> None:
    (tmp_path / "django.py").write_text("def setup(): raise RuntimeError('no such settings')\n")
    ended = run(call(f"{DEMO}noop"), "--payload-stdin", "--settings", "x", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert (ended.end, ended.envelope["message"]) == ((1, "RuntimeError"), "no such settings")
