"""Whose turn it is: weighted round robin between the queues of a pool, also inside one batched claim."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Turns:
    """Credits of each queue, carried from claim to claim so that small claims are as fair as large ones.

    Every claim of n adds n * weight / total to each queue; whole credits are its turns now. What an empty queue cannot use
    is offered to the others by the claim itself and is not saved up: an hour of emptiness gives no hour of precedence.
    """

    weights: Mapping[str, int]
    _credits: dict[str, float] = field(default_factory=dict)

    def take(self, wanted: int) -> list[tuple[str, int]]:
        """Return (queue, share) in turn order, the shares adding up to *wanted*; a queue without a share still has its place in line."""
        total = sum(self.weights.values())
        if not total:
            return []
        credits = {name: self._credits.get(name, 0.0) + wanted * weight / total for name, weight in self.weights.items()}
        shares = {name: max(0, int(credit)) for name, credit in credits.items()}
        order = sorted(credits, key=lambda name: (shares[name] - credits[name], name))
        left = wanted - sum(shares.values())
        for name in order:
            if left <= 0:
                break
            shares[name] += 1
            left -= 1
        for name in reversed(order):
            # More whole credits than turns: a queue that was ahead gives them back.
            surplus = min(shares[name], max(0, -left))
            shares[name] -= surplus
            left += surplus
        self._credits = {name: max(-1.0, min(1.0, credits[name] - shares[name])) for name in credits}
        return [(name, shares[name]) for name in order]
