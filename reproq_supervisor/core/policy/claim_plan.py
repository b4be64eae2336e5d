"""Whose turn it is: weighted round robin between the queues of a pool, also inside one batched claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Turns:
    """Credits of each queue, carried from claim to claim so that small claims are as fair as large ones.

    A claim of n is planned by `take`: each queue has its credit and n * weight / total, and whole credits are its turns. What the claim
    brought is booked by `settle`: every queue that had more to give earns its part of all that was got, and pays for its own. So the
    turns of an empty queue, which the claim offers to the others, are paid by who used them, and are nobody's precedence later: an hour
    of emptiness gives no hour of it. A claim without an answer is not settled, and changes nothing.
    """

    weights: Mapping[str, int]
    _credits: dict[str, float] = field(default_factory=dict)

    def take(self, wanted: int) -> list[tuple[str, int]]:
        """Return (queue, share), the shares adding up to *wanted*, in the order in which they and what others leave are offered.

        That is the order of their credits, so that who was left out comes first; a queue without a share has its place in line, too.
        """
        total = sum(self.weights.values())
        if not total:
            return []
        due = {name: max(0.0, self._credit(name) + wanted * weight / total) for name, weight in self.weights.items()}
        # Who is ahead waits, and all others give up a little for those who are behind: what is due adds up to more than there is.
        scale = wanted / (sum(due.values()) or 1.0)
        shares = {name: int(credit * scale) for name, credit in due.items()}
        by_fraction = sorted(due, key=lambda name: (shares[name] - due[name] * scale, name))
        for name in by_fraction[: wanted - sum(shares.values())]:
            shares[name] += 1
        order = sorted(shares, key=lambda name: (-self._credit(name), -due[name], name))
        return [(name, shares[name]) for name in order]

    def settle(self, plan: Sequence[tuple[str, int]], got: Mapping[str, int], *, is_cut: bool = False) -> None:
        """Book what the claim of *plan* brought.

        Args:
          got: runs by queue, those that are not there none.
          is_cut: it ended early, so that a queue which gave less than its share may have more.
        """
        wanted = sum(share for _, share in plan)
        short = sum(got.values()) < wanted
        # Offered everything and still short: nobody has more. Otherwise only who did not fill its own share has no more.
        full = [name for name, share in plan if name in self.weights and (is_cut or not (short or got.get(name, 0) < share))]
        total = sum(self.weights[name] for name in full)
        earned = sum(got.get(name, 0) for name in full)
        credits = {name: self._credit(name) - got.get(name, 0) for name in full}
        # What they owe those who have left is forgiven, what those owe is lost: the credits of who is here add up to nothing.
        drift = sum(credits.values()) + earned
        # Of a claim that was cut nobody knows who is empty: those save up no more than what one claim can make good.
        most = wanted + len(self.weights)
        self._credits = {
            name: max(-most, min(most, credit + (earned - drift) * self.weights[name] / total)) for name, credit in credits.items()
        }

    def _credit(self, name: str) -> float:
        return self._credits.get(name, 0.0)
