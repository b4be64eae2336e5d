"""Each pool's part of what the pools of one daemon share: executors, processors, memory, connections.

    the least of each ──► what each has use for ──► head-room for what may come
      (in any case)          by weight, while there is enough of everything

A grant is how many executors one claimant may have now. Who has more than its part keeps it until somebody else has use for it, and then
gives it back as its tasks end; only what is really free is granted to others. So the sum stays within the totals but for the least of each,
which nobody can take away: a pool is never starved.

Pure. Between two claimants that both want more, one executor at a time goes to the one that is furthest behind its weight.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reproq_supervisor.core.policy.capacity import LEAST_PART


class Resource(StrEnum):
    """What is shared; the words of `explain`."""

    EXECUTORS = "executors"
    PROCESSORS = "processors"
    MEMORY = "memory"
    CONNECTIONS = "connections"


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of each resource so much: the totals that there are, None for no bound, or what one executor takes."""

    executors: float | None = None
    processors: float | None = None
    memory: float | None = None
    connections: float | None = None

    def of(self, resource: Resource) -> float | None:
        """Return the amount of one resource."""
        amount: float | None = getattr(self, resource.value)
        return amount


@dataclass(frozen=True, slots=True)
class Claimant:
    """One shard: what it has, what it has use for, and what an executor of it takes.

    Attributes:
      least, most: its limits.
      size: executors that it has, those that start or leave included.
      want: executors that its work keeps busy.
      use: executors that it would have if it were alone: its want, and for a while what it wanted before.
    """

    least: int
    most: int
    size: int
    want: int
    use: int
    weight: float
    takes: Amounts


@dataclass(frozen=True, slots=True)
class Grant:
    """How many executors a claimant may have, and what it would need more of; None when it may have its most."""

    executors: int
    lacks: Resource | None


def divide(totals: Amounts, claimants: Sequence[Claimant]) -> list[Grant]:
    """Return the grant of each claimant, in their order."""
    fair = _Sharing(totals, claimants, [each.least for each in claimants])
    fair.fill([max(each.least, min(each.most, max(each.use, each.size))) for each in claimants])
    fair.expect_work()
    fair.fill([each.most for each in claimants])
    now = _Sharing(totals, claimants, [max(each.least, each.size) for each in claimants])
    now.fill(fair.parts)
    return [
        Grant(min(part, allowed), None if min(part, allowed) >= each.most else fair.lacks[i] or now.lacks[i])
        for i, (each, part, allowed) in enumerate(zip(claimants, fair.parts, now.parts, strict=True))
    ]


class _Sharing:
    """What is left while one executor after the other is given away."""

    def __init__(self, totals: Amounts, claimants: Sequence[Claimant], parts: Sequence[int]) -> None:
        self.parts = list(parts)
        self.lacks: list[Resource | None] = [None] * len(parts)
        self._claimants = claimants
        self._totals = totals
        self._left: dict[Resource, float] = {}
        for resource in Resource:
            total = totals.of(resource)
            if total is not None:
                self._left[resource] = total - sum(_taken(each, part, resource) for each, part in zip(claimants, parts, strict=True))

    def fill(self, up_to: Sequence[int]) -> None:
        """Give each claimant as much as goes, but not more than *up_to*."""
        self.lacks = [None] * len(self.parts)
        hungry = [(self._behind(i), i) for i, most in enumerate(up_to) if self.parts[i] < most]
        heapq.heapify(hungry)
        while hungry:
            _, i = heapq.heappop(hungry)
            lacks = self._lacking(self._claimants[i])
            if lacks is not None:
                self.lacks[i] = lacks
                continue
            self.parts[i] += 1
            for resource in self._left:
                self._left[resource] -= self._claimants[i].takes.of(resource) or 0.0
            if self.parts[i] < up_to[i]:
                heapq.heappush(hungry, (self._behind(i), i))

    def expect_work(self) -> None:
        """Count the least of each as busy: what comes for one of them may come for all."""
        left = self._left.get(Resource.PROCESSORS)
        if left is not None:
            idle = [max(0, each.least - each.want) * (each.takes.processors or 0.0) for each in self._claimants]
            self._left[Resource.PROCESSORS] = left - sum(idle)

    def _behind(self, i: int) -> float:
        return (self.parts[i] + 1) / self._claimants[i].weight

    def _lacking(self, claimant: Claimant) -> Resource | None:
        for resource, left in self._left.items():
            takes = claimant.takes.of(resource) or 0.0
            if resource is Resource.PROCESSORS:
                # The last one may be used in part: what is left of it would serve nobody. And none takes more than there are.
                takes = LEAST_PART * min(takes, self._totals.of(resource) or 0.0) - 1e-6
            if takes > 0 and left < takes:
                return resource
        return None


def _taken(claimant: Claimant, part: int, resource: Resource) -> float:
    """Return what *part* executors take; idle ones take no processor."""
    busy = min(part, claimant.want) if resource is Resource.PROCESSORS else part
    return busy * (claimant.takes.of(resource) or 0.0)
