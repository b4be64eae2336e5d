"""How attempts end, and that only the holder of the lease can end them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.core.runs import Claimed, Ending, LeaseNo, Outcome, RunId, RunStatus
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Keeper, Shard, assert_invariant, lane, record
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


@pytest.fixture(autouse=True)
def invariant(database: Database) -> Any:
    yield
    assert_invariant(database)


@pytest.fixture
def claimed(put: Put, shard: Shard) -> Claimed:
    put()
    return shard.claim_one()


def due_in_s(database: Database, run: int) -> float:
    ((seconds,),) = database.query("SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM task_lane WHERE result_id = %s", run)
    return float(seconds)


def test_a_success_is_written_in_one_update_with_all_that_belongs_to_it(shard: Shard, claimed: Claimed, database: Database) -> None:
    value = b'{"answer": [42, null, "gr\xc3\xbc\xc3\x9fe"]}'
    reply = shard.end_run(claimed, Outcome.SUCCEED, value, started_s_ago=2.5, logs_uri="file:///logs/1")
    assert reply.ended == {claimed.result_id: RunStatus.SUCCESSFUL}
    run = record(database, claimed.result_id)
    assert (run["status"], run["attempts"], run["worker_ids"], run["rev"]) == ("SUCCESSFUL", 1, ["worker-1"], 1)
    assert run["return_json"] == {"answer": [42, None, "grüße"]}
    assert (run["finished_at"] - run["started_at"]).total_seconds() == pytest.approx(2.5)
    assert run["last_attempted_at"] <= run["finished_at"]
    assert (run["leased_by"], run["leased_until"], run["errors_json"], run["last_error"], run["failed_at"]) == (None, None, [], None, None)
    assert run["logs_uri"] == "file:///logs/1"
    assert lane(database, claimed.result_id) is None


def test_a_failure_with_attempts_left_is_retried_by_the_policy(shard: Shard, claimed: Claimed, database: Database) -> None:
    assert shard.fail(claimed).ended == {claimed.result_id: RunStatus.READY}
    run = record(database, claimed.result_id)
    assert (run["status"], run["attempts"], run["worker_ids"], run["last_error"]) == ("READY", 1, ["worker-1"], None)
    (error,) = run["errors_json"]
    assert (error["kind"], error["message"], error["attempt"], error["worker_id"]) == ("app_error", "it broke", 1, "worker-1")
    assert error["at"].endswith("Z")
    row = lane(database, claimed.result_id)
    assert (row["state"], row["park_reason"], row["leased_by"]) == ("parked", "due", None)
    assert run["run_after"] == row["due_at"]
    assert 25 < due_in_s(database, claimed.result_id) < 33.1


@pytest.mark.parametrize(("attempts", "expected_s"), [(2, 60), (3, 120), (7, 1920), (8, 3600), (20, 3600)])
def test_the_delay_doubles_up_to_an_hour(put: Put, shard: Shard, database: Database, attempts: int, expected_s: float) -> None:
    put(max_attempts=100)
    database.query("UPDATE task_lane SET attempts = %s", attempts - 1)
    claimed = shard.claim_one()
    shard.fail(claimed)
    assert expected_s * 0.89 < due_in_s(database, claimed.result_id) < expected_s * 1.11


def test_a_task_can_ask_for_its_delay(shard: Shard, claimed: Claimed, database: Database) -> None:
    shard.fail(claimed, delay_s=5)
    assert 4 < due_in_s(database, claimed.result_id) <= 5


def test_the_last_attempt_fails_for_good(put: Put, shard: Shard, database: Database) -> None:
    put(max_attempts=2)
    shard.fail(shard.claim_one(), delay_s=0)
    claimed = shard.claim_one()
    assert claimed.attempt == 2
    assert shard.fail(claimed, message="broken again").ended == {claimed.result_id: RunStatus.FAILED}
    run = record(database, claimed.result_id)
    assert (run["status"], run["attempts"], run["last_error"], run["run_after"]) == ("FAILED", 2, "broken again", None)
    assert run["failed_at"] == run["finished_at"]
    assert [error["attempt"] for error in run["errors_json"]] == [1, 2]
    assert run["worker_ids"] == ["worker-1", "worker-1"]


def test_fail_finally_spends_no_further_attempt(shard: Shard, claimed: Claimed, database: Database) -> None:
    shard.end_run(claimed, Outcome.FAIL_FINALLY, b'{"kind": "security_violation", "message": "not allowed"}')
    assert record(database, claimed.result_id)["status"] == "FAILED"
    assert record(database, claimed.result_id)["last_error"] == "not allowed"


def test_cancel_ends_as_cancelled(shard: Shard, claimed: Claimed, database: Database) -> None:
    shard.end_run(claimed, Outcome.CANCEL, b'{"kind": "cancelled", "message": "Task cancelled by request"}')
    run = record(database, claimed.result_id)
    assert (run["status"], run["cancel_requested"], run["failed_at"]) == ("CANCELLED", True, None)
    assert run["errors_json"][0]["kind"] == "cancelled"


def test_a_release_leaves_no_trace_of_the_attempt(shard: Shard, claimed: Claimed, database: Database) -> None:
    assert shard.release(claimed).ended == {claimed.result_id: RunStatus.READY}
    run, row = record(database, claimed.result_id), lane(database, claimed.result_id)
    assert (run["status"], run["attempts"], run["worker_ids"], run["errors_json"]) == ("READY", 0, [], [])
    assert (row["state"], row["attempts"], row["releases"]) == ("ready", 0, 1)


def test_a_run_that_shows_as_running_shows_as_ready_after_its_release(shard: Shard, claimed: Claimed, database: Database) -> None:
    shard.show(claimed)
    shard.release(claimed)
    run = record(database, claimed.result_id)
    assert (run["status"], run["attempts"], run["leased_by"], run["leased_until"]) == ("READY", 0, None, None)


def test_a_run_that_is_given_back_again_and_again_fails_as_crashed(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    for _ in range(10):
        assert shard.release(shard.claim_one()).ended == {run: RunStatus.READY}
    assert shard.release(shard.claim_one()).ended == {run: RunStatus.FAILED}
    assert record(database, run)["errors_json"][-1]["kind"] == "worker_crashed"


def test_a_run_that_never_started_may_be_put_back_for_ever(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    for _ in range(20):
        assert shard.end_run(shard.claim_one(), Outcome.PUT_BACK).ended == {run: RunStatus.READY}
    row = lane(database, run)
    assert (row["state"], row["attempts"], row["releases"]) == ("ready", 0, 0)


@pytest.mark.parametrize("kind", ["worker_crashed", "lease_expiry"])
def test_the_first_retry_after_a_crash_is_at_once_and_later_ones_by_the_policy(
    put: Put, shard: Shard, database: Database, kind: str
) -> None:
    (run,) = put()
    shard.fail(shard.claim_one(), kind)
    shard.fail(shard.claim_one(), kind)
    assert 50 < due_in_s(database, run) < 70


def test_a_queue_may_have_a_policy_of_its_own(put: Put, shard: Shard, keeper: Keeper, database: Database) -> None:
    """Also for what no shard decides."""
    keeper.run(keeper.store.sync_queue_retries({"default": (5.0, 8.0), "bulk": (None, 40.0)}))
    (run,), (other,) = put(max_attempts=9), put(queue_name="bulk", max_attempts=9)
    shard.fail(shard.claim_one(), "worker_crashed")
    for low, high in ((7.1, 8.9), (7.1, 8.9)):
        shard.fail(shard.claim_one(), "worker_crashed")
        assert low < due_in_s(database, run) < high
        database.query("UPDATE task_lane SET due_at = now() - interval '1 s' WHERE result_id = %s", run)
        keeper.run(keeper.store.wake_due())
    shard.fail(shard.claim_one("bulk"))
    assert 25 < due_in_s(database, other) < 34, "what it leaves open is as ever"
    keeper.run(keeper.store.sync_queue_retries({"default": (None, None)}))
    shard.fail(shard.claim_one())
    assert due_in_s(database, run) > 100


def test_a_wish_to_cancel_outweighs_another_attempt(put: Put, shard: Shard, database: Database) -> None:
    for end in (shard.fail, shard.release):
        (run,) = put()
        claimed = shard.claim_one()
        database.query("UPDATE task_runs SET cancel_requested = true WHERE result_id = %s", run)
        assert end(claimed).ended == {run: RunStatus.CANCELLED}
    assert database.query("SELECT count(*) FROM reproq_cancel_requests") == [(0,)]


def test_a_worker_that_lost_its_lease_cannot_complete(put: Put, shard_of: Callable[..., Shard], database: Database) -> None:
    (run,) = put()
    old, new = shard_of("worker-old"), shard_of("worker-new")
    stale = old.claim_one(lease_s=0)
    database.query("SELECT reproq_reclaim(10)")
    fresh = new.claim_one()
    assert old.succeed(stale, b'"stale"').lost == {run}
    assert old.renew(stale).lost == {run}
    assert old.show(stale).lost == {run}
    assert record(database, run)["worker_ids"] == ["worker-old"]
    new.succeed(fresh, b'"fresh"')
    assert record(database, run)["return_json"] == "fresh"


def test_the_number_of_an_older_lease_of_the_same_worker_is_no_fence(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    stale = shard.claim_one()
    shard.fail(stale, delay_s=0)
    fresh = shard.claim_one()
    assert shard.succeed(stale, b'"stale"').lost == {run}
    assert shard.succeed(fresh, b'"fresh"').ended == {run: RunStatus.SUCCESSFUL}
    assert record(database, run)["return_json"] == "fresh"


def test_a_stale_ending_takes_no_wish_away(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    stale = shard.claim_one()
    shard.release(stale)
    fresh = shard.claim_one()
    database.query("SELECT reproq_wish_cancel(ARRAY[%s::bigint])", run)
    assert shard.succeed(stale).lost == {run}
    assert shard.fail(fresh).ended == {run: RunStatus.CANCELLED}


def test_a_run_that_was_never_claimed_cannot_be_ended(put: Put, shard: Shard) -> None:
    (run,) = put()
    ending = Ending(run, LeaseNo(0), Outcome.SUCCEED, b"1")
    assert shard.cycle(endings=(ending,)).lost == {run}


def test_sending_endings_again_after_a_lost_reply_is_safe(put: Put, shard: Shard, database: Database) -> None:
    put(4)
    claims = shard.claim(4)
    outcomes = (Outcome.SUCCEED, Outcome.FAIL, Outcome.CANCEL, Outcome.RELEASE)
    endings = tuple(Ending(c.result_id, c.lease_no, o, b"{}", started_s_ago=1) for c, o in zip(claims, outcomes, strict=True))
    first, again = shard.cycle(endings=endings), shard.cycle(endings=endings)
    released = claims[3].result_id
    assert again.ended == {run: status for run, status in first.ended.items() if run != released}
    assert again.lost == {released}
    assert {len(record(database, c.result_id)["errors_json"]) for c in claims} == {0, 1}


def test_many_endings_of_every_kind_in_one_cycle(put: Put, shard: Shard, database: Database) -> None:
    put(300, max_attempts=1)
    claims = shard.claim(300)
    kinds = [outcome for outcome in Outcome if outcome is not Outcome.COMPLETED]  # that one ends nothing
    outcomes = [kinds[number % len(kinds)] for number in range(300)]
    endings = tuple(Ending(c.result_id, c.lease_no, o, b"{}") for c, o in zip(reversed(claims), outcomes, strict=True))
    reply = shard.cycle(endings=endings)
    assert len(reply.ended) == 300
    counts = dict(database.query("SELECT status, count(*) FROM task_runs GROUP BY 1"))
    assert counts == {"SUCCESSFUL": 50, "FAILED": 100, "CANCELLED": 50, "READY": 100}


POISON = {
    "nul in a text": (b'"a\\u0000b"', "bad_result"),
    "nul byte": (b'"a\x00b"', "bad_result"),
    "half a surrogate pair": (b'"\\ud800"', "bad_result"),
    "not a number": (b"NaN", "bad_result"),
    "no json": (b"{broken", "bad_result"),
    "no utf-8": (b'"\xff"', "bad_result"),
    "too deep": (b"[" * 100_000 + b"]" * 100_000, "bad_result"),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_result_that_cannot_be_stored_fails_alone_and_at_once(put: Put, shard: Shard, database: Database, poison: str) -> None:
    value, kind = POISON[poison]
    put(3)
    bad, *good = shard.claim(3)
    endings = [Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b'"fine"', started_s_ago=1) for c in good]
    endings.insert(1, Ending(bad.result_id, bad.lease_no, Outcome.SUCCEED, value, started_s_ago=1))
    reply = shard.cycle(endings=tuple(endings))
    assert reply.ended == {bad.result_id: RunStatus.FAILED, **{c.result_id: RunStatus.SUCCESSFUL for c in good}}
    run = record(database, bad.result_id)
    assert run["errors_json"][0]["kind"] == kind
    assert "cannot be stored: expected" in run["last_error"]


@pytest.mark.parametrize("poison", POISON)
def test_an_error_that_cannot_be_stored_is_still_an_error(put: Put, shard: Shard, database: Database, poison: str) -> None:
    put(2, max_attempts=1)
    bad, good = shard.claim(2)
    told = b'{"kind": "timeout", "message": ' + POISON[poison][0] + b"}"
    reply = shard.cycle(
        endings=(
            Ending(bad.result_id, bad.lease_no, Outcome.FAIL, told),
            Ending(good.result_id, good.lease_no, Outcome.FAIL, b'{"kind": "app_error", "message": "plain"}'),
        )
    )
    assert set(reply.ended.values()) == {RunStatus.FAILED}
    assert record(database, good.result_id)["last_error"] == "plain"
    assert record(database, bad.result_id)["last_error"]


def test_the_kind_of_an_error_survives_what_cannot_be_stored_of_it(shard: Shard, claimed: Claimed, database: Database) -> None:
    shard.end_run(claimed, Outcome.FAIL_FINALLY, b'{"kind": "timeout", "message": "\\ud800"}')
    assert record(database, claimed.result_id)["errors_json"][0]["kind"] == "timeout"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (rb'{"message": "a\u0000b"}', "a\ufffdb"),
        (rb'{"message": "\u0000\u0000"}', "\ufffd\ufffd"),
        (rb'{"message": "path c:\\u0000"}', "path c:\\u0000"),
        (rb'{"message": "c:\\\u0000"}', "c:\\\ufffd"),
    ],
)
def test_nul_in_an_error_becomes_the_replacement_character(
    shard: Shard, claimed: Claimed, database: Database, told: bytes, message: str
) -> None:
    shard.end_run(claimed, Outcome.FAIL_FINALLY, told)
    assert record(database, claimed.result_id)["errors_json"][0]["message"] == message


@pytest.mark.parametrize("value", [b'"a word"', b"[1]", b"null", None, b"{}"])
def test_an_error_of_another_shape_is_wrapped(shard: Shard, claimed: Claimed, database: Database, value: bytes | None) -> None:
    shard.end_run(claimed, Outcome.FAIL_FINALLY, value)
    (error,) = record(database, claimed.result_id)["errors_json"]
    assert {"attempt", "at", "worker_id"} <= set(error)


@pytest.mark.parametrize("message", ["x" * 5000, "é" * 5000, "€" * 5000, "🐘" * 5000, "a" + "🐘" * 5000])
def test_last_error_is_cut_on_characters_to_a_kilobyte(shard: Shard, claimed: Claimed, database: Database, message: str) -> None:
    shard.end_run(claimed, Outcome.FAIL_FINALLY, json.dumps({"message": message}).encode())
    last_error = record(database, claimed.result_id)["last_error"]
    assert message.startswith(last_error)
    assert 1020 < len(last_error.encode()) <= 1024


def test_lists_keep_their_newest_fifty(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put(max_attempts=1000)
    database.query(
        """UPDATE task_runs SET rev = rev + 1, errors_json = (SELECT jsonb_agg(n) FROM generate_series(1, 50) n),
                                worker_ids = (SELECT jsonb_agg(n::text) FROM generate_series(1, 50) n)"""
    )
    shard.fail(shard.claim_one())
    told = record(database, run)
    assert len(told["errors_json"]) == len(told["worker_ids"]) == 50
    assert (told["errors_json"][0], told["errors_json"][-1]["kind"], told["worker_ids"][-1]) == (2, "app_error", "worker-1")


def test_lists_that_are_no_lists_do_not_cost_the_batch(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    database.query("UPDATE task_runs SET rev = rev + 1, errors_json = '{}', worker_ids = '3'")
    shard.fail(shard.claim_one())
    assert record(database, run)["worker_ids"] == ["worker-1"]


def test_one_row_that_the_database_refuses_costs_only_itself(put: Put, shard: Shard, database: Database) -> None:
    database.query(
        """CREATE FUNCTION grumble() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.return_json = '"bad"' THEN RAISE EXCEPTION 'not on my watch'; END IF; RETURN NEW; END $$"""
    )
    database.query("CREATE TRIGGER grumble BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION grumble()")
    put(3)
    claims = shard.claim(3)
    values = (b'"good"', b'"bad"', b'"good"')
    endings = tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, v) for c, v in zip(claims, values, strict=True))
    reply = shard.cycle(endings=endings)
    assert [reply.ended[c.result_id] for c in claims] == [RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.SUCCESSFUL]
    assert "not on my watch" in record(database, claims[1].result_id)["last_error"]


def test_the_uri_of_the_logs_stays_when_a_later_attempt_has_none(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    shard.fail(shard.claim_one(), delay_s=0, logs_uri="file:///first\0")
    shard.succeed(shard.claim_one())
    assert record(database, run)["logs_uri"] == "file:///first"


def test_the_first_start_stays(put: Put, shard: Shard, database: Database) -> None:
    (run,) = put()
    shard.fail(shard.claim_one(), delay_s=0, started_s_ago=100)
    started_at = record(database, run)["started_at"]
    shard.end_run(shard.claim_one(), Outcome.SUCCEED, b"1", started_s_ago=1)
    told = record(database, run)
    assert told["started_at"] == started_at
    assert told["last_attempted_at"] > started_at


def test_an_ended_run_can_be_enqueued_again(put: Put, shard: Shard) -> None:
    (first,) = put(dedupe=True)
    assert put(dedupe=True) == [first]
    shard.succeed(shard.claim_one())
    assert put(dedupe=True) != [first]


def test_the_last_write_of_a_run_stays_on_its_page(database: Database) -> None:
    with database.connect(autocommit=False) as connection:
        for length in range(0, 400, 20):
            enqueue(connection, [NewRun("app.tasks.send", kwargs={"n": n, "text": "x" * length}) for n in range(20)])
        connection.commit()
        rows = connection.execute("SELECT result_id, lease_no FROM reproq_claim('host:1234:mail/0', 60, '{default}', '{400}')").fetchall()
        runs, numbers = [row[0] for row in rows], [row[1] for row in rows]
        outcomes, values, started = ["succeed"] * len(runs), ["null"] * len(runs), [0.1] * len(runs)
        end = "SELECT * FROM reproq_end('host:1234:mail/0', %s::bigint[], %s::bigint[], %s, %s, NULL, %s::float8[])"
        connection.execute(end, (runs, numbers, outcomes, values, started))
        written = (
            "SELECT pg_stat_get_xact_tuples_updated('task_runs'::regclass), pg_stat_get_xact_tuples_hot_updated('task_runs'::regclass)"
        )
        assert connection.execute(written).fetchone() == (400, 400)
