"""Time goes on, the keeper does its duties, and people change what they may."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store import commands, controls
from tests.store.model.claiming import Claiming
from tests.store.model.machine import PICK, PRIORITIES, QUEUES
from tests.store.model.rules import SECOND, SUSPECT_FROM, Bucket


class Operating(Claiming):
    """Whoever neither produces nor holds runs."""

    @rule(seconds=st.sampled_from((1, 4, 31, 100, 700)))
    def time_goes_on(self, seconds: int) -> None:
        self.world.query("SELECT setval('clock_s', (SELECT last_value FROM clock_s) + %s)", seconds)
        self.rules.now += seconds * SECOND

    @precondition(lambda self: self.is_quiet)
    @rule()
    def reclaim(self) -> None:
        expired = [run for run in self.rules.runs.values() if run.hold and run.hold.until < self.rules.now]
        assert self.world.keeper.run(self.world.keeper.store.reclaim()) == len(expired)
        for run in sorted(expired, key=lambda each: each.hold.lease_no if each.hold else 0):
            if run.hold:
                self.rules.fail(run, lambda run=run: self.next_due(run, None if run.crashes else 0), kind="lease_expiry")  # type: ignore[misc]

    @precondition(lambda self: self.is_quiet)
    @rule(worker=st.sampled_from(("worker-0", "worker-1", "open")))
    def a_worker_dies(self, worker: str) -> None:
        held = [run for run in self.rules.runs.values() if run.hold and run.hold.worker == worker]
        assert self.world.keeper.run(self.world.keeper.store.release_workers([worker])) == len(held)
        shown = [run for run in held if run.hold and run.hold.shown]
        # What killed the worker may be what it claimed last of all that ran.
        suspect = max(shown, key=lambda run: (run.hold.since if run.hold else 0, run.id), default=None)
        for run in held:
            if not run.hold:
                continue
            if run is suspect and run.deaths > SUSPECT_FROM and not run.wish:
                self.rules.fail(run, lambda run=run: self.next_due(run, None), kind="worker_crashed")  # type: ignore[misc]
                continue
            waits = run is suspect and run.deaths == SUSPECT_FROM
            run.deaths += run is suspect or (not run.hold.shown and run.deaths < SUSPECT_FROM)
            self.rules.release(
                run,
                capped=run.hold.shown,
                suspect=run is suspect,
                due=(lambda run=run: self.next_due(run, None)) if waits else None,  # type: ignore[misc]
            )

    @precondition(lambda self: self.is_quiet)
    @rule(at=PICK)
    def cancel(self, at: int) -> None:
        run = self.pick(at, "pending", "waiting", "held", None)
        if run is None:
            return
        outcome = commands.cancel(self.world.somebody, [RunId(run.id)])[RunId(run.id)]
        assert outcome == {"pending": "cancelled", "waiting": "cancelled", "held": "requested", None: "ended"}[run.state]
        if run.state == "held":
            run.wish = True
        elif run.state is not None:
            self.rules.end(run, "CANCELLED", "cancelled")

    @precondition(lambda self: self.is_quiet)
    @rule(at=PICK)
    def an_admin_page_cancels(self, at: int) -> None:
        run = self.pick(at, "pending", "waiting", "held")
        if run is None:
            return
        self.world.query("UPDATE task_runs SET status = 'CANCELLED' WHERE result_id = %s", run.id)
        if run.state == "held":
            run.wish = True
        else:
            run_after = run.run_after
            self.rules.end(run, "CANCELLED")
            run.run_after = run_after  # a hand changes the status alone

    @precondition(lambda self: self.is_quiet)
    @rule(at=PICK)
    def an_admin_page_retries(self, at: int) -> None:
        run = self.pick(at, None)
        if run:
            self.world.query("UPDATE task_runs SET status = 'READY', cancel_requested = false WHERE result_id = %s", run.id)
            self.rules.restart(run)

    @precondition(lambda self: self.is_quiet)
    @rule(at=PICK, priority=PRIORITIES, queue=QUEUES)
    def an_admin_page_moves(self, at: int, priority: int, queue: str) -> None:
        run = self.pick(at, "pending", "waiting")
        if run:
            self.world.query("UPDATE task_runs SET priority = %s, queue_name = %s WHERE result_id = %s", priority, queue, run.id)
            if (run.priority, run.queue) != (priority, queue):
                run.due = max(run.enqueued, run.run_after or run.enqueued)
            run.priority, run.queue = priority, queue

    @precondition(lambda self: self.is_quiet)
    @rule(at=PICK)
    def somebody_deletes(self, at: int) -> None:
        run = self.pick(at, "pending", "waiting", "held", None)
        if run is None:
            return
        self.world.query("DELETE FROM task_runs WHERE result_id = %s", run.id)
        if run.state != "held":
            self.rules.delete(run)

    @rule(queue=QUEUES, is_paused=st.booleans())
    def pause(self, queue: str, is_paused: bool) -> None:
        if is_paused:
            controls.pause(self.world.somebody, queue, None)
            self.rules.paused.add(queue)
        else:
            controls.resume(self.world.somebody, queue)
            self.rules.paused.discard(queue)

    @rule(limit=st.sampled_from("mn"), size=st.integers(1, 3))
    def a_limit_changes(self, limit: str, size: int) -> None:
        self.sizes[limit] = size

    @precondition(lambda self: self.is_quiet)
    @rule(
        key=st.sampled_from(("global", "queue:a", "queue:b", "task:app.other")), rate=st.sampled_from((0, 1, 1, 2)), burst=st.integers(1, 3)
    )
    def set_a_rate(self, key: str, rate: int, burst: int) -> None:
        controls.set_limit(self.world.somebody, key, rate, burst)
        # Who waits for a wider one is told by the keeper's next look, which a frozen clock would not bring.
        while self.world.keeper.run(self.world.keeper.store.settle_keys()):
            pass
        self.rules.buckets[key] = Bucket(rate, burst, burst, self.rules.now)

    @precondition(lambda self: self.is_quiet and self.rules.buckets)
    @rule(at=PICK)
    def remove_a_rate(self, at: int) -> None:
        key = sorted(self.rules.buckets)[at % len(self.rules.buckets)]
        assert controls.remove_limit(self.world.somebody, key)
        del self.rules.buckets[key]

    @precondition(lambda self: self.is_quiet and not self.producing)
    @rule(queue=QUEUES, aging_s=st.sampled_from((0, 10, 60)))
    def set_the_aging(self, queue: str, aging_s: int) -> None:
        self.world.keeper.run(self.world.keeper.store.sync_queue_settings({queue: aging_s}))
        self.rules.aging_s[queue] = aging_s

    @rule()
    def the_keeper_sweeps(self) -> None:
        """Nothing is left for it to find."""
        self.world.keeper.run(self.world.keeper.store.sweep_flows())
        self.world.keeper.run(self.world.keeper.store.sweep_keys())
        self.world.keeper.run(self.world.keeper.store.settle_wishes())
