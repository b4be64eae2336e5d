"""A duty that fails keeps it to itself, is counted, and is tried again ever more rarely."""

import asyncio
import itertools
from typing import Any

import pytest

from reproq_supervisor.keeper.duties import FIRST_RETRY_S, LONGEST_RETRY_S, Duty, Ran
from reproq_supervisor.store.errors import StoreError, StoreUnavailable, TermLost
from reproq_supervisor.store.keeper import KeeperStore


class FakeStore:
    """As much of a store as a duty's failure looks at."""

    closed = False


class Playing:
    """A duty that ends as it is told to, and what was told of it."""

    def __init__(self, interval_s: float = 5.0) -> None:
        self.events: list[dict[str, Any]] = []
        self.store = FakeStore()
        self.ends: Exception | Ran = Ran(0)
        self.duty = Duty("play", interval_s, self._run)

    def run(self, ends: Exception | Ran) -> None:
        self.ends = ends
        asyncio.run(self.duty.attempt(self.store, self.events.append))  # type: ignore[arg-type]

    async def _run(self, _store: KeeperStore) -> Ran:
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StoreError("42501: no rights"), "42501: no rights"),
        (StoreUnavailable("55P03: locked"), "55P03: locked"),
        (ZeroDivisionError("of mine"), "ZeroDivisionError: of mine (test_keeper_duties.py:"),
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left"),
    ],
)
def test_whatever_goes_wrong_is_counted_and_said_once(error: Exception, words: str) -> None:
    playing = Playing()
    for _ in range(3):
        playing.run(error)
    (event,) = playing.events
    assert (event["name"], event["duty"]) == ("duty.failed", "play")
    assert event["error"].startswith(words)
    shown = playing.duty.as_fields(playing.duty.due_mono)
    assert (shown["failed_total"], shown["failed_in_a_row"], shown["last_run_s_ago"] is None) == (3, 3, False)
    assert str(shown["error"]).startswith(words)
    playing.run(Ran(2))
    assert playing.events[-1] == {"name": "duty.recovered", "duty": "play"}
    shown = playing.duty.as_fields(0.0)
    assert (shown["failed_total"], shown["failed_in_a_row"], shown["error"], shown["total"]) == (3, 0, None, 2)


@pytest.mark.parametrize("interval_s", [0.5, 5.0, 3600.0])
def test_it_is_tried_again_soon_and_then_ever_more_rarely(interval_s: float) -> None:
    duty = Playing(interval_s).duty
    pauses = []
    for _ in range(30):
        duty.note_failure("no", began=100.0, now=101.0)
        pauses.append(duty.due_mono - 101.0)
    assert pauses[0] == FIRST_RETRY_S
    assert all(later == min(2 * sooner, pauses[-1]) for sooner, later in itertools.pairwise(pauses))
    assert pauses[-1] == max(LONGEST_RETRY_S, interval_s)
    assert duty.last_took_s == 1.0


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), ZeroDivisionError("gone")])
def test_one_whose_connection_breaks_has_it_made_anew_and_is_held_to_account(error: Exception) -> None:
    playing = Playing()
    playing.store.closed = True
    with pytest.raises(StoreUnavailable):
        playing.run(error)
    assert playing.duty.failed_in_a_row == 1


def test_the_end_of_the_term_is_no_failure() -> None:
    playing = Playing()
    with pytest.raises(TermLost):
        playing.run(TermLost("over"))
    assert (playing.duty.failed_total, playing.duty.error, playing.events) == (0, None, [])
