"""What a crew tells the nursery before it gives an executor work."""

import asyncio

import pytest

from reproq_supervisor.core.policy.lease import nursery_margin_s
from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process import clock
from tests.support.crew import StillCrew


def held(run: int, lease_until: float) -> Held:
    claimed = Claimed(RunId(run), LeaseNo(1), 1, "default", 0, "a.b", 60.0, 3, b"{}")
    return Held(claimed, lease_until=lease_until, claimed_mono=0.0)


def test_the_deadline_stands_before_the_work_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # A shard that is frozen between the two would leave an execution behind that nobody ends.
    async def scene() -> None:
        still = StillCrew(1)
        seen: list[float] = []
        hand_out = Executor.hand_out

        def noted(executor: Executor, batch: list[Held]) -> bool:
            seen.append(still.table.kill_at(executor.row))
            return hand_out(executor, batch)

        monkeypatch.setattr(Executor, "hand_out", noted)
        first, second = clock.boot_time_s() + 60, clock.boot_time_s() + 50
        try:
            for lease_until in (first, second):
                still.times.observe("a.b", 0.0001)
                for begun in still.crew.executors[0].in_hand:
                    begun.started_mono = None  # on a busy machine it would be a long one by now, behind which nothing waits
                still.crew.buffer.append(held(int(lease_until), lease_until))
                still.crew.dispatch()
        finally:
            still.close()
        assert seen == [end - nursery_margin_s(60.0) for end in (first, second)]

    asyncio.run(scene())
