"""How tasks are called: as their spec says, or by the way in of a framework."""

import functools
import json
from typing import Any

import pytest

from reproq_supervisor.core.work import MAX_RESULT_BYTES, Verdict, Work
from reproq_supervisor.executor import entry
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.entry import Invocation
from reproq_supervisor.executor.resolve import Resolver


class Soft:
    """Asks nobody to stop."""

    def begin(self, seq: int) -> None:
        """Let it run."""

    def end(self) -> None:
        """Nothing to do."""

    def run_coroutine(self, coroutine: Any) -> Any:
        raise AssertionError("no coroutine is expected")


def shout(text: str) -> str:
    return text.upper()


class Framed:
    """What a framework makes of a function."""

    takes_context = True

    def func(self, text: str) -> str:
        return shout(text)


FRAMED = Framed()


def run(path: str, *args: Any) -> Any:
    spec = json.dumps({"task_path": path, "args": args}).encode()
    result = run_attempt(Work(1, 7, 1, 3, 0, "default", path, spec), Resolver(["*"]), Soft(), MAX_RESULT_BYTES)
    assert result.verdict is Verdict.SUCCEED, result.body
    return json.loads(result.body)


def test_without_a_framework_a_task_gets_what_its_spec_says() -> None:
    assert run(f"{__name__}.shout", "a") == "A"


def test_a_framework_calls_every_task_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Invocation] = []

    def enter(invocation: Invocation) -> "functools.partial[Any]":
        seen.append(invocation)
        return functools.partial(invocation.call, f"{invocation.args[0]} by {invocation.context.result_id}")

    monkeypatch.setattr(entry, "_entry", entry.plain_entry)
    entry.use_entry(enter)
    assert run(f"{__name__}.shout", "a") == "A BY 7"
    assert run(f"{__name__}.FRAMED", "b") == "B BY 7"
    assert [(each.task, each.takes_context) for each in seen] == [(shout, False), (FRAMED, True)]
