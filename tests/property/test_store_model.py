"""The store against a plain model: whatever happens in whatever order, both say the same about every run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import psycopg
from hypothesis import given, settings

from reproq_supervisor.core.runs import Claimed, Ending, LeaseNo, Outcome, RunId, RunStatus, Started
from reproq_supervisor.store.commands import CancelOutcome, NewRun, cancel, enqueue
from tests.store.actors import Keeper, Shard, ended
from tests.support.postgres import Database

WORKERS = ("worker-1", "worker-2")
RELEASE_CAP = 10
SUSPECT_FROM = 3
# Weighted: what gives a run back leads to more than what ends it.
OUTCOMES = (
    Outcome.FAIL,
    Outcome.RELEASE,
    Outcome.SUCCEED,
    Outcome.FAIL,
    Outcome.RELEASE,
    Outcome.PUT_BACK,
    Outcome.CANCEL,
    Outcome.FAIL_FINALLY,
)


@dataclass
class Run:
    """What the model knows of a run. `place` orders runs of one priority: a higher one became due later."""

    priority: int
    place: int
    max_attempts: int
    state: str = "ready"
    status: str = "READY"
    attempts: int = 0
    releases: int = 0
    deaths: int = 0
    claim: int = 0
    is_shown: bool = False
    errors: int = 0
    holder: tuple[str, LeaseNo] | None = None
    wanted_cancelled: bool = False


class World:
    """Every event does the same to the database and to the model. *n* chooses what it happens to, *flag* how."""

    def __init__(self, connection: psycopg.Connection[Any], shards: dict[str, Shard], keeper: Keeper) -> None:
        self.connection = connection
        self.shards = shards
        self.claims = 0
        self.keeper = keeper
        self.runs: dict[RunId, Run] = {}
        self.leases: list[tuple[str, Claimed]] = []  # every lease there ever was
        self.places = 0
        self.connection.execute("DELETE FROM task_lane")
        self.connection.execute("TRUNCATE task_runs, reproq_cancel_requests")

    def next_place(self) -> int:
        self.places += 1
        return self.places

    # What happens

    def enqueue(self, n: int, flag: bool) -> None:
        count, priority, max_attempts, delayed = 1 + n % 3, n // 3 % 3, 1 + n // 9 % 4, flag and n % 2
        delay_s = 3600.0 if delayed else None
        new = [NewRun("app.task", priority=priority, delay_s=delay_s, max_attempts=max_attempts) for _ in range(count)]
        for run in enqueue(self.connection, new):
            self.runs[run] = Run(priority, self.next_place(), max_attempts, "parked" if delayed else "ready")

    def claim(self, n: int, flag: bool) -> None:
        worker, wanted = WORKERS[flag], 1 + n % 5
        reply = self.shards[worker].cycle(claims=(("default", wanted),))
        ready = sorted((r.priority * -1, r.place, run) for run, r in self.runs.items() if r.state == "ready")
        expected = []
        for _, _, run in ready[:wanted]:
            model = self.runs[run]
            if model.wanted_cancelled:
                self.finish(model, "CANCELLED")
                model.errors += 1
                continue
            expected.append(run)
            model.state, model.attempts, model.is_shown = "running", model.attempts + 1, False
        assert [claimed.result_id for claimed in reply.claimed] == expected
        self.claims += 1
        for claimed in reply.claimed:
            self.runs[claimed.result_id].claim = self.claims
            assert claimed.attempt == self.runs[claimed.result_id].attempts
            assert claimed.is_suspect == (self.runs[claimed.result_id].deaths >= SUSPECT_FROM)
            self.runs[claimed.result_id].holder = (worker, claimed.lease_no)
            self.leases.append((worker, claimed))

    def end(self, n: int, flag: bool) -> None:
        """End up to four leases of a worker in one cycle: the newest, or with *flag* any, stale ones too."""
        worker = WORKERS[n % 2]
        own = [claimed for name, claimed in self.leases if name == worker][0 if flag else -6 :]
        chosen: dict[RunId, tuple[Claimed, Outcome, bool]] = {}
        for part in range(min(len(own), 1 + n // 2 % 4)):
            draw = n >> 4 * part
            claimed = own[draw % len(own)]
            chosen[claimed.result_id] = (claimed, OUTCOMES[draw // 5 % len(OUTCOMES)], draw % 3 == 0)
        endings = tuple(
            Ending(c.result_id, c.lease_no, outcome, json.dumps({"kind": "app_error", "message": "x"}).encode(), 3600.0 if later else 0.0)
            for c, outcome, later in chosen.values()
        )
        reply = self.shards[worker].cycle(endings=endings)
        for run, (claimed, outcome, later) in sorted(chosen.items()):
            model = self.runs.get(run)
            if model and model.holder == (worker, claimed.lease_no):
                self.end_one(model, outcome, later)
                assert reply.ended[run] == model.status
                assert run not in reply.lost
            elif run in reply.ended:
                # It had ended before at the hands of this very worker: told again, changed nothing.
                assert model is not None
                assert model.state != "running"
                assert reply.ended[run] == model.status
            else:
                assert run in reply.lost

    def end_one(self, model: Run, outcome: Outcome, later: bool) -> None:
        model.holder = None
        gives_up = outcome in (Outcome.FAIL, Outcome.RELEASE, Outcome.PUT_BACK) and model.wanted_cancelled
        if outcome is Outcome.SUCCEED:
            self.finish(model, "SUCCESSFUL")
        elif outcome is Outcome.CANCEL or gives_up:
            self.finish(model, "CANCELLED")
            model.errors += 1
        elif outcome is Outcome.FAIL_FINALLY or (outcome is Outcome.FAIL and model.attempts >= model.max_attempts):
            self.finish(model, "FAILED")
            model.errors += 1
        elif outcome is Outcome.FAIL:
            model.state = "parked" if later else "ready"
            model.errors += 1
            model.place = self.next_place()
        elif outcome is Outcome.RELEASE and model.releases >= RELEASE_CAP:
            self.finish(model, "FAILED")
            model.errors += 1
        else:
            model.state = "ready"
            model.releases += outcome is Outcome.RELEASE
            model.attempts -= 1

    def finish(self, model: Run, status: str) -> None:
        model.state, model.status, model.holder, model.wanted_cancelled = "ended", status, None, False

    def renew_or_show(self, n: int, flag: bool) -> None:
        if not self.leases:
            return
        worker, claimed = self.leases[n % len(self.leases)]
        lease = (claimed.result_id, claimed.lease_no)
        parts: dict[str, Any] = {"started": (Started(*lease, 1.0),)} if flag else {"renew": (lease,)}
        model = self.runs.get(claimed.result_id)
        is_ours = model is not None and model.holder == (worker, claimed.lease_no)
        assert self.shards[worker].cycle(**parts).lost == (frozenset() if is_ours else {claimed.result_id})
        if is_ours and flag:
            model.is_shown = True

    def lose(self, n: int, flag: bool) -> None:
        """A lease expires, and the keeper reclaims the run."""
        held = [run for run, model in self.runs.items() if model.holder]
        if not held:
            return
        run = held[n % len(held)]
        self.connection.execute("UPDATE task_lane SET leased_until = now() - interval '1 s', crashes = 0 WHERE result_id = %s", (run,))
        assert self.keeper.run(self.keeper.store.reclaim()) == 1
        self.end_one(self.runs[run], Outcome.FAIL, later=False)

    def die(self, n: int, flag: bool) -> None:
        """A worker is gone, and its runs are released. The last that it claimed of those that ran is suspected, and later charged."""
        worker = WORKERS[flag]
        held = sorted(run for run, model in self.runs.items() if model.holder and model.holder[0] == worker)
        suspect = max((run for run in held if self.runs[run].is_shown), key=lambda run: (self.runs[run].claim, run), default=None)
        self.connection.execute("UPDATE task_lane SET crashes = 0 WHERE result_id = ANY (%s)", (held,))
        assert self.keeper.run(self.keeper.store.release_workers([worker])) == len(held)
        for run in held:
            model = self.runs[run]
            if run == suspect and model.deaths > SUSPECT_FROM:
                self.end_one(model, Outcome.FAIL, later=True)
                continue
            self.end_one(model, Outcome.RELEASE if model.is_shown else Outcome.PUT_BACK, later=False)
            if model.state != "ended":
                if run == suspect and model.deaths == SUSPECT_FROM:
                    model.state = "parked"
                model.deaths += run == suspect or (not model.is_shown and model.deaths < SUSPECT_FROM)

    def become_due(self, n: int, flag: bool) -> None:
        if not self.runs:
            return
        run = list(self.runs)[n % len(self.runs)]
        self.connection.execute("UPDATE task_lane SET due_at = clock_timestamp() WHERE result_id = %s AND state = 'parked'", (run,))
        model = self.runs[run]
        assert self.keeper.run(self.keeper.store.wake_due()).count == (model.state == "parked")
        if model.state == "parked":
            model.state, model.place = "ready", self.next_place()

    def cancel(self, n: int, flag: bool) -> None:
        if not self.runs:
            return
        run = list(self.runs)[n % len(self.runs)]
        model = self.runs[run]
        told = cancel(self.connection, [run])[run]
        if model.state == "ended":
            assert told is CancelOutcome.ENDED
        elif model.holder:
            assert told is CancelOutcome.REQUESTED
            model.wanted_cancelled = True
        else:
            assert told is CancelOutcome.CANCELLED
            self.finish(model, "CANCELLED")
            model.errors += 1

    def cancel_as_others_do(self, n: int, flag: bool) -> None:
        if not self.runs:
            return
        run = list(self.runs)[n % len(self.runs)]
        model = self.runs[run]
        changed = self.connection.execute(
            "UPDATE task_runs SET status = 'CANCELLED' WHERE result_id = %s AND status = 'READY'", (run,)
        ).rowcount
        if model.holder and changed:
            model.wanted_cancelled = True
        elif model.state in ("ready", "parked"):
            assert changed == 1
            self.finish(model, "CANCELLED")

    def delete_as_others_do(self, n: int, flag: bool) -> None:
        if not self.runs:
            return
        run = list(self.runs)[n % len(self.runs)]
        deleted = self.connection.execute("DELETE FROM task_runs WHERE result_id = %s", (run,)).rowcount
        assert deleted == (self.runs[run].holder is None)
        if deleted:
            del self.runs[run]

    def retry_as_others_do(self, n: int, flag: bool) -> None:
        failed = [run for run, model in self.runs.items() if model.status == "FAILED"]
        if not failed:
            return
        run = failed[n % len(failed)]
        retry = "status = 'READY', attempts = 0, run_after = clock_timestamp(), cancel_requested = false"
        assert self.connection.execute(f"UPDATE task_runs SET {retry} WHERE result_id = %s", (run,)).rowcount == 1
        model = self.runs[run]
        model.state, model.status, model.attempts, model.place = "ready", "READY", 0, self.next_place()
        model.releases = model.deaths = 0

    # What must hold after every step

    def the_database_says_what_the_model_says(self) -> None:
        rows = self.connection.execute(
            """SELECT r.result_id, r.status, coalesce(l.state, 'ended'), coalesce(l.attempts, r.attempts),
                      jsonb_array_length(r.errors_json),
                      CASE WHEN l.state = 'running' THEN l.leased_by END, CASE WHEN l.state = 'running' THEN l.lease_no END
               FROM task_runs r LEFT JOIN task_lane l USING (result_id)"""
        ).fetchall()
        told = {run: (state, attempts, errors, (by, no) if by else None) for run, _, state, attempts, errors, by, no in rows}
        assert told == {run: (m.state, m.attempts, m.errors, m.holder) for run, m in self.runs.items()}
        for run, status, *_ in rows:
            model = self.runs[run]
            assert status in ({"READY", RunStatus.RUNNING} if model.holder else {model.status})

    def a_record_has_not_ended_exactly_when_it_has_a_lane_row(self) -> None:
        assert self.connection.execute("SELECT * FROM reproq_check_invariant(0)").fetchall() == []


EVENTS = {
    World.enqueue: 3,
    World.claim: 5,
    World.end: 6,
    World.renew_or_show: 2,
    World.lose: 1,
    World.die: 1,
    World.become_due: 2,
    World.cancel: 1,
    World.cancel_as_others_do: 1,
    World.delete_as_others_do: 1,
    World.retry_as_others_do: 1,
}
STORY = st.lists(
    st.tuples(
        st.sampled_from([event for event, weight in EVENTS.items() for _ in range(weight)]), st.sampled_from(range(2**16)), st.booleans()
    ),
    min_size=60,
    max_size=120,
)


def test_the_store_does_what_the_model_does(database: Database) -> None:
    shards = {name: Shard(database.dsn, name) for name in WORKERS}
    keeper = Keeper(database.dsn)
    keeper.run(keeper.store.sync_queue_settings({"default": 0}))

    @settings(max_examples=60, deadline=None)
    @given(story=STORY)
    def live(story: list[tuple[Callable[[World, int, bool], None], int, bool]]) -> None:
        world = World(connection, shards, keeper)
        for event, n, flag in story:
            event(world, n, flag)
            world.the_database_says_what_the_model_says()
            world.a_record_has_not_ended_exactly_when_it_has_a_lane_row()

    with ended(*shards.values(), keeper), database.connect() as connection:
        live()
