"""Held runs and their count."""

from reproq_supervisor.core.runs import Claimed, LeaseNo, Outcome, RunId
from reproq_supervisor.pool.held import RELEASED, End, Held, HeldRuns, Phase


def held(run: int = 1, lease_no: int = 1) -> Held:
    return Held(Claimed(RunId(run), LeaseNo(lease_no), 1, "default", 0, "a.b", 60.0, 3, b"{}"), lease_until=100.0, claimed_mono=0.0)


def runs_with(*all_held: Held) -> HeldRuns:
    runs = HeldRuns()
    for one in all_held:
        runs.add(one)
    return runs


def test_an_ended_run_stays_held_but_is_not_open() -> None:
    runs = runs_with(first := held(1), held(2))
    runs.end(first, RELEASED)
    assert (len(runs), runs.open, runs.ended) == (2, 1, 1)


def test_the_payloads_of_open_runs_are_counted() -> None:
    runs = runs_with(first := held(1), second := held(2))
    assert runs.open_bytes == 4
    runs.end(first, RELEASED)
    runs.end(first, RELEASED)
    assert runs.open_bytes == 2
    runs.add(held(2, lease_no=2))
    runs.drop(RunId(1))
    assert runs.open_bytes == 2
    assert runs.drop(RunId(2), second.claimed.lease_no) is None
    runs.drop(RunId(2))
    assert runs.open_bytes == 0


def test_a_second_end_replaces_the_first_and_counts_once() -> None:
    runs = runs_with(first := held())
    runs.end(first, RELEASED)
    runs.end(first, End(Outcome.SUCCEED, b"1"))
    assert (runs.open, runs.ended, first.phase) == (0, 1, Phase.ENDED)
    assert first.ending(0.0).outcome is Outcome.SUCCEED


def test_a_run_that_is_claimed_again_replaces_what_was_known_of_it() -> None:
    runs = runs_with(old := held(1, lease_no=1))
    runs.end(old, RELEASED)
    runs.add(new := held(1, lease_no=2))
    assert runs.get(RunId(1)) is new
    assert (len(runs), runs.open, runs.ended) == (1, 1, 0)


def test_the_acknowledged_end_of_an_old_lease_does_not_drop_the_new_one() -> None:
    runs = runs_with(held(1, lease_no=1))
    runs.add(new := held(1, lease_no=2))
    assert runs.drop(RunId(1), LeaseNo(1)) is None
    assert runs.get(RunId(1)) is new


def test_a_dropped_run_is_no_longer_counted() -> None:
    runs = runs_with(first := held(1))
    runs.end(first, RELEASED)
    assert runs.drop(RunId(1), LeaseNo(1)) is first
    assert (len(runs), runs.open, runs.ended) == (0, 0, 0)


def test_a_run_that_is_not_held_can_be_dropped_without_harm() -> None:
    assert HeldRuns().drop(RunId(7)) is None


def test_an_ending_tells_how_long_ago_the_execution_began() -> None:
    one = held()
    one.started_mono = 5.0
    one.end = End(Outcome.SUCCEED, b"null", logs_uri="/log")
    ending = one.ending(now_mono=7.5)
    assert (ending.started_s_ago, ending.lease_no, ending.logs_uri) == (2.5, 1, "/log")


def test_an_execution_that_never_began_has_no_age() -> None:
    one = held()
    one.end = RELEASED
    assert one.ending(now_mono=7.5).started_s_ago is None
