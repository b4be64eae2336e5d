"""A file in memory into which every task notes when it started: measured alike for everybody, in whatever process a task runs."""

import mmap
import os
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "REPROQ_BENCH_METER"
"""Environment variable of workers: where the file is."""
_ITEM_BYTES = 8


class Meter:
    """One number for each task: when it started, in seconds of the clock that all processes share; 0.0 until then."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._known = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's processes must have in their environment."""
        return {VARIABLE: str(self.path)}

    def starts(self) -> list[float]:
        """Return when each task started, by its number."""
        found = array("d")
        found.frombytes(self.path.read_bytes())
        return found.tolist()

    def seen(self) -> int:
        """Return how many tasks have started."""
        return self.size - array("d", self.path.read_bytes()).count(0.0)

    def wait(self, count: int, timeout: float) -> bool:
        """Wait until *count* tasks have started; answer whether they have within *timeout* seconds."""
        until = time.monotonic() + timeout
        while self.seen() < count:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def wait_one(self, number: int, timeout: float) -> float:
        """Return when task *number* started, as soon as it has.

        Raises:
          TimeoutError: it has not within *timeout* seconds.
        """
        until = time.monotonic() + timeout
        with self.path.open("rb") as file:
            while True:
                (started,) = array("d", os.pread(file.fileno(), _ITEM_BYTES, number * _ITEM_BYTES))
                if started:
                    return started
                if time.monotonic() > until:
                    raise TimeoutError(f"task {number}: expected it to start within {timeout:g} s")
                time.sleep(0.002)


@contextmanager
def new_meter(size: int) -> Iterator[Meter]:
    """Make the file for *size* tasks; it is gone afterwards."""
    memory = Path("/dev/shm")
    with tempfile.NamedTemporaryFile(prefix="reproq-bench-", dir=memory if memory.is_dir() else None) as file:
        file.truncate(size * _ITEM_BYTES)
        yield Meter(Path(file.name), size)


def open_for_notes() -> memoryview:
    """Return the numbers of the file that the environment names, to be written by tasks."""
    with open(os.environ[VARIABLE], "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
