"""The keeper's term as one keeper sees it, and the duties that it does under it.

    candidate ──elect──► keeps ──elect (renews)──► keeps ──resign, or nobody renewed──► candidate

Of all keepers of a database one has the term. It renews it with every `RENEW_S`, between two statements if need be; every statement of a
duty is fenced by it in the database: `reproq_under_term` refuses it when the term is over, and while the statement runs no other term can
begin. When it fails: a frozen, cut off or killed keeper does not renew, and what it sends later is refused (`TermLost`); a candidate
takes over when the term ends, or as soon as the holder's server process is gone.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.store.connection import StoreConnection
from reproq_supervisor.store.errors import TermLost

TERM_S = 4.0
"""So long after its last sign of life a keeper is replaced; short enough that delayed tasks wait no more than five seconds."""
RENEW_S = 1.0
UNFENCED: Mapping[str, None] = {"term_no": None, "holder": None}
"""The parameters of a duty's statement for somebody who has no term and may do without, such as a command."""


@dataclass(frozen=True, slots=True)
class TermView:
    """The term that there is. `left_s`: until it ends; 0 when it has, but one of its duties is still under way."""

    term_no: int
    holder: str
    since_s: float
    left_s: float


class KeeperTerm:
    """One keeper's part in the elections, on its connection."""

    def __init__(self, connection: StoreConnection, holder: str, length_s: float = TERM_S) -> None:
        """Take part under the name *holder*, which no other process may ever use.

        Attributes:
          renew_s: the term is renewed as often, and before any statement of a duty that comes later than that.
        """
        self._connection = connection
        self._holder = holder
        self._length_s = length_s
        self.renew_s = min(RENEW_S, length_s / 4)
        self._renewed_mono = 0.0
        self.seen: TermView | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it was ours when the database was last asked."""
        return self.seen is not None and self.seen.holder == self._holder

    def look_again_in_s(self, now: float) -> float:
        """Return the seconds until the next election: to renew what is ours, or to be there when another one's ends."""
        if self.seen is None:
            return 0.0
        since_s = now - self._renewed_mono
        return self.renew_s - since_s if self.is_ours else min(self.renew_s / 2, max(0.05, self.seen.left_s)) - since_s

    def as_fields(self) -> dict[str, object] | None:
        """Return who keeps, as `status` shows it; None when that is not known."""
        if self.seen is None:
            return None
        return {"acts": self.is_ours, "term_no": self.seen.term_no, "holder": self.seen.holder, "since_s": round(self.seen.since_s, 1)}

    async def elect(self) -> TermView:
        """Renew the term, or begin one if there is none; return the one that there is."""
        asked_mono = time.monotonic()
        parameters = {"holder": self._holder, "length_s": self._length_s, "backend_pid": self._connection.backend_pid}
        ((term_no, holder, since_s, left_s),) = await self._connection.ask("reproq_keeper_term", "elect", parameters)
        self._renewed_mono = asked_mono
        self.seen = TermView(term_no, holder, since_s, left_s)
        return self.seen

    async def resign(self) -> None:
        """End the term, if it is ours, so that another keeper can follow at once."""
        self.seen = None
        await self._connection.ask("reproq_keeper_term", "resign", {"holder": self._holder})

    async def ask(self, table: str, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement of a duty; it must take one of its arguments through `reproq_under_term`.

        Raises:
          TermLost: the term is over; nothing was done.
        """
        if self.is_ours and self.look_again_in_s(time.monotonic()) <= 0:
            await self.elect()
        if self.seen is None or not self.is_ours:
            raise TermLost(f"expected to keep, but {self.seen.holder if self.seen else 'nobody'} does")
        try:
            fence = {"term_no": self.seen.term_no, "holder": self._holder}
            return await self._connection.ask(table, name, {**parameters, **fence})
        except TermLost:
            self.seen = None
            raise
