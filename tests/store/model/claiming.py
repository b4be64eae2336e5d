"""Runs are claimed, shown, renewed and ended, by two shards and by a claimer whose transaction stays open and may die."""

from typing import cast

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from reproq_supervisor.core.runs import Claimed, CycleReply, Ending, LeaseNo, Outcome, RunId
from tests.store.model.machine import LEASE_S, PICK, QUEUES, Machine
from tests.store.model.rules import ENDED, SECOND, Run

# All that a shard says of its own: COMPLETED tells of an end that the task has written by itself.
OUTCOMES = tuple(outcome for outcome in Outcome if outcome is not Outcome.COMPLETED)


class Claiming(Machine):
    """Whoever holds runs."""

    @rule(worker=st.integers(0, 1), queue=QUEUES, wanted=st.sampled_from((1, 2, 3, 20)))
    def claim(self, worker: int, queue: str, wanted: int) -> None:
        """Claim until nothing more comes: that is exactly what the rules admit, in their order."""
        shard, rules = self.world.shards[worker], self.rules
        self.world.keeper.run(self.world.keeper.store.wake_due())
        expected: list[Run] = []
        for run in rules.admitted(queue):
            if sum(rules.unwanted(each) is None for each in expected) < wanted:
                expected.append(run)
        # Who has two keys may come after those whom it has let pass.
        is_exact = not self.claiming and not any(len(run.keys) == 2 for run in rules.line(queue))
        got = 0
        for _ in range(60):
            reply = shard.cycle(LEASE_S, claims=((queue, wanted - got),))
            changed = self.note_claims(shard.worker_id, queue, reply)
            got += len(reply.claimed)
            self.old_claims += reply.claimed
            if got == wanted or (not changed and (self.claiming or not (reply.is_cut or reply.is_contended))):
                break
        else:
            raise AssertionError("claims find nothing, and say that there is more")
        if is_exact:
            for run in expected:
                assert run.state in ("held", None), f"{run} should have been claimed or ended"
            assert got == sum(run.state == "held" for run in expected), "no others"
        if got < wanted and not self.claiming:
            assert list(rules.admitted(queue)) == [], "who could run was left"

    def note_claims(self, worker: str, queue: str, reply: CycleReply) -> bool:
        """Tell the rules whom a cycle took and ended; each must have been free to go. Returns whether there were any."""
        rules = self.rules
        statuses = dict(self.world.query("SELECT result_id, status FROM task_runs"))
        gone = [run for run in rules.line(queue) if statuses[run.id] in ENDED and rules.unwanted(run)]
        for run in gone:
            assert queue not in rules.paused
            rules.refuse(run)
        taken = [rules.runs[claimed.result_id] for claimed in reply.claimed]
        assert [run.id for run in taken] == [run.id for run in sorted(taken, key=rules.order)], "in their order"
        for run, claimed in zip(taken, reply.claimed, strict=True):
            assert run.state == "pending"
            assert run.due <= rules.now
            assert run.queue == queue
            assert queue not in rules.paused
            assert rules.has_room(run, {}), f"no room for {run}"
            assert not (bucket := rules.bucket_of(run)) or rules.buckets[bucket].at(rules.now) >= 1, "without a token"
            rules.hold(run, worker, claimed.lease_no, LEASE_S * SECOND)
        return bool(gone or taken)

    @precondition(lambda self: not self.claiming and not self.producing)
    @rule(queue=QUEUES, wanted=st.integers(1, 3))
    def a_claimer_stays_open(self, queue: str, wanted: int) -> None:
        if any(self.rules.unwanted(run) for run in self.rules.line(queue)):
            return
        rows = self.world.claimer.execute(
            "SELECT result_id, lease_no FROM reproq_claim('open', %s, %s, %s) WHERE what = 'claimed'", (LEASE_S, [queue], [wanted])
        ).fetchall()
        self.seized, self.claiming = rows, True
        self.seized_at = self.rules.now
        for run, _ in rows:
            assert self.rules.has_room(self.rules.runs[run], {})

    @precondition(lambda self: self.claiming)
    @rule(commits=st.booleans())
    def the_claimer_ends(self, commits: bool) -> None:
        self.claiming = False
        if not commits:
            self.world.claimer.rollback()
            return
        self.world.claimer.commit()
        for run, lease_no in self.seized:
            assert self.rules.has_room(self.rules.runs[run], {}), "what it took was taken by nobody else meanwhile"
            self.rules.hold(self.rules.runs[run], "open", lease_no, LEASE_S * SECOND, self.seized_at)

    # -- holders ----------------------------------------------------------------------------------------------------------

    @rule(at=PICK, outcome=st.sampled_from(OUTCOMES), delay_s=st.sampled_from((None, 0, 7)))
    def end(self, at: int, outcome: Outcome, delay_s: int | None) -> None:
        run = self.pick(at, "held")
        shard = next((each for each in self.world.shards if run and run.hold and each.worker_id == run.hold.worker), None)
        if run is None or run.hold is None or shard is None:
            return
        if outcome is Outcome.PUT_BACK and self.claiming and self.rules.bucket_of(run):
            return  # the open claim may have the bucket, and then the token is lost
        value = None if outcome in (Outcome.RELEASE, Outcome.PUT_BACK) else b'{"kind": "app_error", "message": "no"}'
        ending = Ending(RunId(run.id), LeaseNo(run.hold.lease_no), outcome, value, delay_s, 0.01)
        reply = shard.cycle(LEASE_S, endings=(ending,))
        match outcome:
            case Outcome.SUCCEED:
                self.rules.end(run, "SUCCESSFUL")
            case Outcome.FAIL:
                self.rules.fail(run, lambda: self.next_due(run, delay_s))
            case Outcome.FAIL_FINALLY:
                self.rules.end(run, "FAILED", "app_error")
            case Outcome.CANCEL:
                self.rules.end(run, "CANCELLED", "app_error")
            case Outcome.RELEASE:
                self.rules.release(run, capped=True)
            case Outcome.PUT_BACK:
                self.rules.put_back(run)
        assert reply.lost == frozenset()

    @rule(worker=st.integers(0, 1), queue=QUEUES)
    def work_off(self, worker: int, queue: str) -> None:
        """Claim and end much at once: by single steps a history of forty hardly comes to what one end frees for others."""
        self.claim(worker=worker, queue=queue, wanted=20)
        shard = self.world.shards[worker]
        for run in [each for each in self.rules.runs.values() if each.hold and each.hold.worker == shard.worker_id]:
            assert run.hold
            ending = Ending(RunId(run.id), LeaseNo(run.hold.lease_no), Outcome.SUCCEED, b"1", None, 0.01)
            assert shard.cycle(LEASE_S, endings=(ending,)).lost == frozenset()
            self.rules.end(run, "SUCCESSFUL")

    def next_due(self, run: Run, delay_s: int | None) -> int:
        """Return when a retry is due: as asked, or as the policy drew it, which is within its bounds."""
        if delay_s is not None:
            return self.rules.now + delay_s * SECOND
        ((due,),) = self.world.query("SELECT (extract(epoch FROM due_at) * 1000000)::bigint FROM task_lane WHERE result_id = %s", run.id)
        usual = min(30 * 2 ** (run.attempts - 1), 3600) * SECOND
        assert 0.89 * usual <= due - self.rules.now <= 1.11 * usual
        return cast("int", due)

    @precondition(lambda self: self.old_claims)
    @rule(at=PICK, outcome=st.sampled_from((Outcome.SUCCEED, Outcome.FAIL, Outcome.RELEASE)))
    def end_what_is_not_held_any_more(self, at: int, outcome: Outcome) -> None:
        claimed = self.old_claims[at % len(self.old_claims)]
        run = self.rules.runs.get(claimed.result_id)
        if run and run.hold and run.hold.lease_no == claimed.lease_no:
            return
        for shard in self.world.shards:
            shard.cycle(LEASE_S, endings=(Ending(claimed.result_id, claimed.lease_no, outcome, b"null", 0.0, 0.01),))

    @rule(worker=st.integers(0, 1), lease_s=st.sampled_from((60, 600)))
    def renew(self, worker: int, lease_s: int) -> None:
        shard = self.world.shards[worker]
        held = [run for run in self.rules.runs.values() if run.hold and run.hold.worker == shard.worker_id]
        leases = tuple((RunId(run.id), LeaseNo(run.hold.lease_no)) for run in held if run.hold)
        reply = shard.cycle(lease_s, renew=leases)
        assert (reply.lost, reply.unrenewed) == (frozenset(), frozenset())
        for run in held:
            assert run.hold
            run.hold.until = self.rules.now + lease_s * SECOND

    @rule(at=PICK)
    def show(self, at: int) -> None:
        run = self.pick(at, "held")
        if run and run.hold and run.hold.worker != "open":
            shard = next(each for each in self.world.shards if each.worker_id == run.hold.worker)
            shard.show(Claimed(RunId(run.id), LeaseNo(run.hold.lease_no), *(None,) * 8))  # type: ignore[arg-type]
            run.hold.shown = True
