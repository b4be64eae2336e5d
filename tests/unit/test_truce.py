"""When leases may be reclaimed after the database was away."""

import pytest

from reproq_supervisor.keeper.truce import BETWEEN_SILENCES_S, SILENCE_S, TRUCE_S, Truce

LONG_UP_S = 1e6


def test_a_first_connection_to_a_server_that_has_long_been_up_allows_it_at_once() -> None:
    truce = Truce()
    truce.note_connected(100.0, after_outage=False, server_age_s=LONG_UP_S)
    assert truce.left_s(100.0) == 0


def test_a_reconnection_begins_a_truce() -> None:
    truce = Truce()
    truce.note_connected(100.0, after_outage=True, server_age_s=LONG_UP_S)
    assert truce.left_s(100.0) == TRUCE_S
    assert truce.left_s(100.0 + TRUCE_S) == 0


@pytest.mark.parametrize("age_s", [0.0, 4.0])
def test_a_keeper_that_starts_after_the_server_waits_for_the_rest_of_it(age_s: float) -> None:
    truce = Truce()
    truce.note_connected(100.0, after_outage=False, server_age_s=age_s)
    assert truce.left_s(100.0) == TRUCE_S - age_s


def test_silence_is_an_outage_too() -> None:
    truce = Truce()
    truce.note_answer(SILENCE_S / 2, 100.0)
    assert truce.left_s(100.0) == 0
    truce.note_answer(SILENCE_S * 2, 100.0)
    assert truce.left_s(100.0) == TRUCE_S


def test_a_database_that_is_always_slow_does_not_put_it_off_for_ever() -> None:
    truce, allowed, now = Truce(), 0, 0.0
    while now < 10 * BETWEEN_SILENCES_S:
        truce.note_answer(SILENCE_S * 2, now)
        allowed += truce.left_s(now) == 0
        now += SILENCE_S * 2
    assert allowed > 20


def test_another_reconnection_never_shortens_it() -> None:
    truce = Truce()
    truce.note_connected(100.0, after_outage=True, server_age_s=LONG_UP_S)
    truce.note_connected(101.0, after_outage=False, server_age_s=LONG_UP_S)
    assert truce.left_s(101.0) == TRUCE_S - 1
