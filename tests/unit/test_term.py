"""How soon a keeper that says nothing more is followed: what the times that are set add up to."""

import pytest

from reproq_supervisor.store.connection import StoreConnection
from reproq_supervisor.store.term import RENEW_S, TERM_S, KeeperTerm, TermView

FOLLOWED_WITHIN_S = 5.0
SPARE_S = 0.3
"""For the statements of an election."""


class FakeConnection:
    """As much of a connection as a candidate's patience looks at."""


def candidate(left_s: float) -> KeeperTerm:
    """Return one that has just seen another one's term."""
    connection: StoreConnection = FakeConnection()  # type: ignore[assignment]
    term = KeeperTerm(connection, "candidate")
    term.seen = TermView(7, "somebody else", since_s=60.0, left_s=left_s)
    return term


@pytest.mark.parametrize("left_s", [0.0, 0.01, 0.3, 1.0, TERM_S, 3600.0])
def test_a_candidate_looks_soon_after_any_end_of_the_term(left_s: float) -> None:
    # It was seen at 0 by a monotonic clock: `look_again_in_s` counts from there.
    pause_s = candidate(left_s).look_again_in_s(0.0)
    assert 0.0 < pause_s <= RENEW_S / 2
    assert pause_s <= max(left_s, 0.05)


def test_a_frozen_keeper_is_followed_within_five_seconds_of_its_last_renewal() -> None:
    latest_look_after_the_end_s = RENEW_S / 2
    assert TERM_S + latest_look_after_the_end_s + SPARE_S < FOLLOWED_WITHIN_S


def test_a_keeper_renews_several_times_in_a_term() -> None:
    assert RENEW_S * 3 < TERM_S
