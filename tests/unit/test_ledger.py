"""What an answer of the database changes in what a shard holds."""

import time

import pytest

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.runs import Claimed, CycleReply, CycleRequest, LeaseNo, Outcome, RunId, RunStatus
from reproq_supervisor.pool.held import RELEASED, End, HeldRuns
from reproq_supervisor.pool.ledger import Ledger

LEASE_S = 60.0


def claimed(run: int, lease_no: int) -> Claimed:
    return Claimed(RunId(run), LeaseNo(lease_no), 1, "default", 0, "app.task", 60.0, 3, b"{}")


def ledger() -> tuple[Ledger, HeldRuns]:
    held = HeldRuns()
    return Ledger(held, Turns({"default": 1}), LEASE_S), held


def test_a_run_that_is_claimed_again_is_lost_under_its_earlier_lease() -> None:
    book, held = ledger()
    (first,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    (second,), lost = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 2),)), 0.0)
    assert lost == [first]
    assert held.values() == [second]
    assert book.totals.lost == 1


def test_one_that_is_told_to_be_lost_and_claimed_again_in_one_answer_is_lost_once() -> None:
    book, _ = ledger()
    (first,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    _, lost = book.apply(CycleRequest(LEASE_S), CycleReply(lost=frozenset({RunId(1)}), claimed=(claimed(1, 2),)), 0.0)
    assert lost == [first]
    assert book.totals.lost == 1


def test_what_has_ended_under_its_earlier_lease_needs_no_stop() -> None:
    book, held = ledger()
    (first,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    held.end(first, RELEASED)
    (second,), lost = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 2),)), 0.0)
    assert lost == []
    assert (held.values(), held.ended) == ([second], 0)


def test_an_ending_that_somebodys_lock_keeps_from_its_record_is_named_until_it_is_written() -> None:
    book, held = ledger()
    runs, _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1), claimed(2, 2))), 0.0)
    for each in runs:
        held.end(each, RELEASED)
    request = book.request(0, 0.0)
    assert request is not None
    assert book.locked_endings() == []
    book.apply(request, CycleReply(busy=frozenset({RunId(2)})), 0.0)
    assert book.locked_endings() == [2]
    book.apply(request, CycleReply(), 0.0)
    assert book.locked_endings() == []


def refuse(book: Ledger, run: int, *, ending: bool = True) -> None:
    """Have the next request, which says something of *run*, refused for it."""
    request = book.request(0, 0.0)
    assert request is not None
    assert run in [each.result_id for each in (request.endings if ending else request.started)]
    book.apply(request, CycleReply(refused={RunId(run): "42P01: no audit"}), 0.0)


def test_an_ending_that_is_refused_is_kept_and_said_again_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    book, held = ledger()
    (run,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    held.end(run, End(Outcome.SUCCEED, b'"kept"'))
    for pause_s in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        refuse(book, 1)
        assert (book.unwritten, book.refused()) == (1, {1: "42P01: no audit"})
        clock[0] += pause_s - 0.1
        request = book.request(0, 0.0)
        assert request is None or not request.endings
        clock[0] += 0.2
    request = book.request(0, 0.0)
    assert request is not None
    assert [each.value for each in request.endings] == [b'"kept"']
    book.apply(request, CycleReply(ended={RunId(1): RunStatus.SUCCESSFUL}), 0.0)
    assert (book.unwritten, book.refused(), book.totals.completed) == (0, {}, 1)


def test_the_lease_of_a_refused_ending_is_renewed() -> None:
    book, held = ledger()
    (run,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    held.end(run, RELEASED)
    refuse(book, 1)
    request = book.request(0, LEASE_S / 2)
    assert request is not None
    assert (request.endings, request.renew) == ((), ((1, 1),))


def test_a_refusal_is_told_once_and_forgotten_with_its_cause() -> None:
    book, held = ledger()
    (run,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    held.end(run, RELEASED)
    refuse(book, 1)
    assert book.take_newly_refused() == {1: "42P01: no audit"}
    book.hasten()
    refuse(book, 1)
    assert book.take_newly_refused() == {}
    book.hasten()
    request = book.request(0, 0.0)
    assert request is not None
    book.apply(request, CycleReply(busy=frozenset({RunId(1)})), 0.0)
    assert (book.refused(), book.locked_endings()) == ({}, [1])


def test_a_start_that_is_refused_does_not_hold_its_end_back() -> None:
    book, held = ledger()
    (run,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    run.is_next = True
    refuse(book, 1, ending=False)
    assert not run.shown
    held.end(run, RELEASED)
    request = book.request(0, 0.0)
    assert request is not None
    assert [each.result_id for each in request.endings] == [1]
    assert book.refused() == {}


def test_the_last_note_of_a_run_is_written_before_its_ending() -> None:
    book, held = ledger()
    (run,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    run.note = b'{"a": 1}'
    first = book.notes()
    run.note = b'{"a": 2}'
    book.apply_notes(first, frozenset())
    assert book.notes() == []  # not twice in a second
    held.end(run, End(Outcome.SUCCEED, b"1"))
    request = book.request(0, 0.0)
    assert request is None or request.endings == ()
    last = book.notes()
    assert [(note.result_id, note.lease_no, note.metadata) for note in last] == [(1, 1, b'{"a": 2}')]
    book.apply_notes(last, frozenset())
    request = book.request(0, 0.0)
    assert request is not None
    assert [ending.result_id for ending in request.endings] == [1]


def test_a_note_that_meets_a_lock_holds_its_ending_back_and_no_other() -> None:
    book, held = ledger()
    (first, second), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1), claimed(2, 1))), 0.0)
    first.note = b"{}"
    for run in (first, second):
        held.end(run, End(Outcome.SUCCEED, b"1"))
    book.apply_notes(book.notes(), frozenset({RunId(1)}))
    assert book.notes() == []
    request = book.request(0, 0.0)
    assert request is not None
    assert [ending.result_id for ending in request.endings] == [2]


def test_a_note_of_an_earlier_lease_changes_nothing_of_the_present_one() -> None:
    book, _ = ledger()
    (first,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 1),)), 0.0)
    first.note = b"old"
    notes = book.notes()
    (second,), _ = book.apply(CycleRequest(LEASE_S), CycleReply(claimed=(claimed(1, 2),)), 0.0)
    second.note = b"new"
    book.apply_notes(notes, frozenset())
    assert second.note == b"new"
