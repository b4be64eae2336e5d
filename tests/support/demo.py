"""A demo in a checkout of its own, watched from outside: by a mark in the environment, and by where processes work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.marked import MARK, marked_pids, state_of

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 100.0


@dataclass
class Checkout:
    """A copy of what a demo needs; *env* is what its demos run with."""

    folder: Path
    env: dict[str, str]
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a demo as a shell would, in a process group of its own."""
        argv = [sys.executable, "-P", "-m", "reproq_supervisor", "demo", *arguments]
        demo = subprocess.Popen(
            argv,
            cwd="/",
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.started.append(demo)
        return demo

    @property
    def folders(self) -> list[Path]:
        """The folders that demos made and have not removed."""
        return sorted((self.folder / ".reproq").glob("demo-*"))

    def processes(self) -> dict[int, str]:
        """Return the living processes of all demos here, by pid with their command lines.

        The mark reaches everything that keeps its environment. A server of PostgreSQL writes titles over it; that one works in its data
        folder.
        """
        pids = {*marked_pids(self.env[MARK]), *_working_below(self.folder)}
        return {pid: _command(pid) for pid in pids if state_of(pid) not in ("", "Z")}


@contextmanager
def checkout(name: str = "checkout") -> Iterator[Checkout]:
    """Copy the program and the demo's files to a new folder *name* that everybody can reach; all of it goes at the end."""
    base = Path(tempfile.mkdtemp(prefix="reproq-test-", dir="/tmp"))
    base.chmod(0o755)
    folder = base / name
    for part in ("reproq_supervisor", "workers"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "config").mkdir()
    shutil.copyfile(ROOT / "config/demo.yaml", folder / "config/demo.yaml")
    made = Checkout(folder, {**os.environ, "PYTHONPATH": str(folder), MARK: uuid.uuid4().hex})
    try:
        yield made
    finally:
        for pid in made.processes():
            _kill(pid)
        for demo in made.started:
            demo.communicate(timeout=_TIMEOUT_S)
        shutil.rmtree(base, ignore_errors=True)


def finish(demo: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for the end of a demo; return exit code, output and errors."""
    out, err = demo.communicate(timeout=_TIMEOUT_S)
    return demo.returncode, out, err


def finish_json(demo: "subprocess.Popen[str]") -> Any:
    """Wait for the end of a demo that was started with `--json`; return its report. It must have ended well."""
    code, out, err = finish(demo)
    assert code == 0, f"exit code {code}: {err or out}"
    return json.loads(out)


def _working_below(folder: Path) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if Path(os.readlink(f"/proc/{name}/cwd")).is_relative_to(folder):
                    found.append(int(name))
            except OSError:
                continue  # gone, or of somebody else
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
