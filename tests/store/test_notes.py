"""Notes of running tasks on a real database: fenced, whole, and never waiting for anybody."""

from typing import Any

import pytest

from reproq_supervisor.core.runs import Claimed, Note
from tests.store.actors import Shard, assert_invariant, record
from tests.support.postgres import Database


def note(shard: Shard, claimed: Claimed, metadata: bytes) -> frozenset[int]:
    return frozenset(shard.run(shard.store.note([Note(claimed.result_id, claimed.lease_no, metadata)])))


def test_a_note_replaces_the_metadata_and_comes_back_with_the_next_attempt(put: Any, shard: Shard, database: Database) -> None:
    (run,) = put()
    claimed = shard.claim_one()
    assert b"metadata" not in claimed.spec
    assert note(shard, claimed, b'{"page": 3}') == frozenset()
    assert note(shard, claimed, b'{"page": 4}') == frozenset()
    assert record(database, run)["metadata_json"] == {"page": 4}
    shard.fail(claimed, delay_s=0.0)
    assert b'"metadata": {"page": 4}' in shard.claim_one().spec
    assert_invariant(database)


def test_who_lost_the_lease_notes_nothing(put: Any, shard: Shard, database: Database) -> None:
    (run,) = put()
    old = shard.claim_one()
    shard.release(old)
    new = shard.claim_one()
    assert note(shard, old, b'{"from": "old"}') == frozenset()
    assert record(database, run)["metadata_json"] == {}
    shard.succeed(new)
    note(shard, new, b'{"from": "late"}')
    assert record(database, run)["metadata_json"] == {}


@pytest.mark.parametrize("metadata", [b"", b"{", b'{"a": "\\u0000"}', b"\xff\x00", b'{"a": "\\ud800"}'])
def test_what_is_no_json_changes_nothing_and_costs_the_others_nothing(put: Any, shard: Shard, database: Database, metadata: bytes) -> None:
    bad, good = put(2)
    claimed = {each.result_id: each for each in shard.claim(2)}
    notes = [Note(bad, claimed[bad].lease_no, metadata), Note(good, claimed[good].lease_no, b'{"fine": "\\"\\\\"}')]
    assert shard.run(shard.store.note(notes)) == frozenset()
    assert (record(database, bad)["metadata_json"], record(database, good)["metadata_json"]) == ({}, {"fine": '"\\'})


def test_a_locked_run_is_told_and_the_others_are_written(put: Any, shard: Shard, database: Database) -> None:
    locked, free = put(2)
    claimed = {each.result_id: each for each in shard.claim(2)}
    with database.connect(autocommit=False) as other:
        other.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", [locked])
        notes = [Note(run, each.lease_no, b'{"a": 1}') for run, each in claimed.items()]
        assert shard.run(shard.store.note(notes)) == {locked}
    assert (record(database, locked)["metadata_json"], record(database, free)["metadata_json"]) == ({}, {"a": 1})


def test_a_spec_that_is_no_object_is_handed_over_as_it_is(shard: Shard, database: Database) -> None:
    database.query("INSERT INTO task_runs (spec_json, spec_hash, task_path, metadata_json) VALUES ('[1]', 'h', 'app.task', '{\"a\": 1}')")
    assert shard.claim_one().spec == b"[1]"
