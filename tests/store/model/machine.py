"""What every part of the machine needs: a store and rules that begin empty, how to choose a run, and what holds after every step."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from reproq_supervisor.core.runs import Claimed
from tests.store.model.rules import Rules, Run
from tests.store.model.world import World

LEASE_S = 60
EMPTY = """
SET LOCAL session_replication_role = replica;
DELETE FROM task_runs; DELETE FROM task_lane; DELETE FROM workflow_runs; DELETE FROM rate_limits; DELETE FROM reproq_flow_ends;
DELETE FROM reproq_key_arrivals; DELETE FROM reproq_cancel_requests; DELETE FROM reproq_queue_controls; DELETE FROM reproq_queue_settings;
DELETE FROM reproq_key_floors; DELETE FROM reproq_line_floors;
SELECT setval('draws', 0);
"""
STATE = """
SELECT coalesce(r.result_id, l.result_id), r.status,
       CASE WHEN l.state IN ('ready', 'parked') THEN 'pending' WHEN l.state = 'running' THEN 'held' ELSE l.state END,
       coalesce(l.queue_name, r.queue_name), coalesce(l.priority, r.priority), coalesce(l.attempts, r.attempts), l.leased_by, l.lease_no,
       (extract(epoch FROM l.leased_until) * 1000000)::bigint, (extract(epoch FROM l.due_at) * 1000000)::bigint, l.order_key, r.dedupe_key,
       r.errors_json #>> '{-1,kind}'
FROM task_runs r FULL JOIN task_lane l USING (result_id) ORDER BY 1
"""
# Of each key that somebody is parked on: the queue, how many wait that would fit now, the room they have, how many of the queue are ready
# to ask for the key, and whether word was left of it.
WAITERS = """
SELECT w.on_key, w.queue_name, count(*), min(w.size) - w.used,
       (SELECT count(*) FROM task_lane o
        WHERE o.state = 'ready' AND o.queue_name = w.queue_name AND w.on_key IN (o.lock_name, o.limit_name)),
       EXISTS (SELECT FROM reproq_key_arrivals a WHERE a.key = w.on_key)
FROM (SELECT l.on_key, l.queue_name, CASE WHEN l.on_key LIKE 'lock:%' THEN 1 ELSE l.limit_size END AS size, u.used
      FROM task_lane l
      CROSS JOIN LATERAL (SELECT count(*) AS used FROM task_lane h
                          WHERE h.state = 'running' AND l.on_key IN (h.lock_name, h.limit_name)) u
      WHERE l.park_reason = 'key') w
WHERE w.size > w.used GROUP BY w.on_key, w.queue_name, w.used
"""
OVERFULL = """
SELECT k.name, count(*), max(k.size) FROM task_lane l
CROSS JOIN LATERAL (VALUES (l.lock_name, 1), (l.limit_name, l.limit_size)) AS k (name, size)
WHERE l.state = 'running' AND k.name IS NOT NULL GROUP BY k.name HAVING count(*) > max(k.size)
"""

QUEUES = st.sampled_from("ab")
PRIORITIES = st.integers(-1, 2)
LOCKS = st.sampled_from((None, None, "x", "y"))
LIMITS = st.sampled_from((None, None, "m", "n"))
DELAYS_S = st.sampled_from((0, 0, 0, 5, 100))
PICK = st.integers(0, 50)


class _Any:
    """Equal to whatever it is compared with."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "..."


ANY = _Any()


class Machine(RuleBasedStateMachine):
    """Does to the store what it does to the rules."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.sizes = {"m": 2, "n": 1}
        self.opened: list[Run] = []  # of the producer's open transaction
        self.seized: list[tuple[int, int]] = []  # of the claimer's: run, number of the lease
        self.seized_at = 0
        self.producing = self.claiming = False
        self.count = 0
        self.old_claims: list[Claimed] = []
        with self.world.database.connect() as connection, connection.transaction():
            connection.execute(EMPTY.encode())
        ((now,),) = self.world.query("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
        self.rules = Rules(now)

    def teardown(self) -> None:
        self.world.producer.rollback()
        self.world.claimer.rollback()

    def pick(self, at: int, *states: str | None) -> Run | None:
        """Choose one of the runs that are in one of *states*."""
        runs = [run for run in self.rules.runs.values() if run.state in states]
        return runs[at % len(runs)] if runs else None

    @property
    def is_quiet(self) -> bool:
        return not self.claiming

    @initialize()
    def begin(self) -> None:
        """An empty store and no rules are the same."""

    @invariant()
    def both_say_the_same(self) -> None:
        for _ in range(20):
            if not self.world.keeper.run(self.world.keeper.store.settle_flows()):
                break
        assert self.world.query("SELECT * FROM reproq_check_invariant(0)") == []
        assert self.told() == self.expected()
        flows = self.world.query("SELECT workflow_id::text, status, expected_count FROM workflow_runs ORDER BY 1")
        assert flows == [(name, flow.status, flow.expected) for name, flow in sorted(self.rules.flows.items())]

    @invariant()
    def no_key_is_overfull_and_no_waiter_forgotten(self) -> None:
        assert self.world.query(OVERFULL) == []
        for key, queue, fitting, room, ready, has_word in self.world.query(WAITERS):
            assert has_word or ready >= min(fitting, room), f"{key} in {queue}: {fitting} wait, {room} could run, {ready} are ready"

    def told(self) -> list[tuple[Any, ...]]:
        return self.world.query(STATE)

    def expected(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for run in sorted(self.rules.runs.values(), key=lambda each: each.id):
            hold = run.hold
            status = "RUNNING" if hold and hold.shown else run.status
            lives = run.state is not None
            order = self.rules.order(run)[0] if lives and not hold else ANY
            rows.append((
                run.id, status, run.state, run.queue, run.priority, run.attempts, hold and hold.worker, hold.lease_no if hold else ANY,
                hold and hold.until, run.due if lives else None, order, run.dedupe, run.kind,
            ))  # fmt: skip
        return rows
