"""Workers that a contender starts by its own command line."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from benchmarks.contenders.contender import Workers

CHECKOUT = Path(__file__).parents[2]
_TERM_TIMEOUT_S = 20.0


class CommandWorkers(Workers):
    """The processes of a command, and all below them."""

    def __init__(self, roots: list[psutil.Process]) -> None:
        self._roots = roots

    def processes(self) -> list[psutil.Process]:
        found = []
        for root in self._roots:
            with suppress(psutil.NoSuchProcess):
                found += [root, *root.children(recursive=True)]
        return found


@contextmanager
def running_commands(argv: list[str], environment: Mapping[str, str], *, count: int = 1) -> Iterator[CommandWorkers]:
    """Run `python -m argv`, *count* times, in this checkout; end it by TERM.

    Raises:
      RuntimeError: one of them ended by itself, with what it said.
    """
    env = {**os.environ, **environment, "PYTHONPATH": str(CHECKOUT)}
    with tempfile.TemporaryFile() as said:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", *argv],
                env=env,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            for _ in range(count)
        ]
        workers = CommandWorkers([psutil.Process(each.pid) for each in started])
        try:
            yield workers
            ended = [each.returncode for each in started if each.poll() is not None]
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{_last_words(said)}") from error
        finally:
            _end(started, workers)
        if ended:
            raise RuntimeError(f"{argv[0]}: ended by itself with {ended}:\n{_last_words(said)}")


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")[-2000:]


def _end(started: list[subprocess.Popen[bytes]], workers: CommandWorkers) -> None:
    """Ask all to end, and kill whatever is left of them."""
    everyone = workers.processes()
    for each in started:
        each.send_signal(signal.SIGTERM)
    for each in started:
        with suppress(subprocess.TimeoutExpired):
            each.wait(_TERM_TIMEOUT_S)
    for process in everyone:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for each in started:
        each.wait()
