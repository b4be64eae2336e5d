"""The task of all contenders, as a function and as a coroutine: notes its start, and takes as long as it is told."""

import asyncio
import time

from benchmarks.contenders.meter import open_for_notes

_notes: list[memoryview] = []


def probe(n: int, nap_ms: float = 0, payload: str = "") -> None:
    """Note that task *n* has started, and wait *nap_ms*."""
    _note(n)
    if nap_ms:
        time.sleep(nap_ms / 1000)


async def coroutine_probe(n: int, nap_ms: float = 0, payload: str = "") -> None:
    """As `probe`, without holding up others."""
    _note(n)
    if nap_ms:
        await asyncio.sleep(nap_ms / 1000)


def _note(n: int) -> None:
    if not _notes:
        _notes.append(open_for_notes())
    _notes[0][n] = time.monotonic()
