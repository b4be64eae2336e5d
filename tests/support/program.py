"""The command line in this process: arguments in; exit code, output and errors out."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value that it wrote."""
        return json.loads(self.out)


def run_program(*arguments: object) -> Done:
    """Run `reproq-supervisor` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def enter_empty_surroundings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in *folder*, with an environment that names neither configuration nor database."""
    monkeypatch.chdir(folder)
    for name in ("REPROQ_CONFIG", "DATABASE_URL", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
