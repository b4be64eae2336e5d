"""When a shard claims again: at once while claims bring all that they ask for, then when there is a reason to; time is one."""

import math
import random
import time

from reproq_supervisor.core.runs import CycleReply

_CONTENDED_S = (0.002, 0.008)
_LEAST_THROTTLED_S = 0.01
_WORTH_SLEEPING_S = 0.1
"""To go to sleep is several questions and up to 50 ms; for less than this we only wait, and hear of new runs that much later."""
_CYCLE_AFTER_READY_S = 0.005
"""How long the rest of a cycle may wait after a claim of what was ready: mostly the end of the run brings it sooner."""


class Appetite:
    """What the last claim says about the next one.

    Args:
      listens: notes tell of new runs, so that polling is only for what they miss.

    Attributes:
      may_rest: the last claim came back short: do not claim again before a reason to.
      was_full: the last claim got all that it asked for.
    """

    def __init__(self, poll_min_s: float, poll_max_s: float, *, listens: bool) -> None:
        self.may_rest = False
        self.was_full = False
        self._poll_min_s = poll_min_s
        self._poll_max_s = poll_max_s
        self._poll_s = poll_min_s
        self._listens = listens
        self._look_at_mono = math.inf  # when time itself is a reason

    def note_claim(self, asked: int, reply: CycleReply, *, is_quick: bool) -> None:
        """Take in what a claim of *asked* runs brought; *is_quick*: it looked at nothing but what was ready."""
        got = len(reply.claimed)
        self.was_full = got >= asked
        self.may_rest = got < asked and not reply.is_cut
        self._look_at_mono = math.inf
        if is_quick:
            # What woke us may be something that only a cycle finds.
            self.may_rest = self.may_rest and got > 0
            self._look_at_mono = time.monotonic() + _CYCLE_AFTER_READY_S
        elif reply.is_contended:
            # As long as a commit takes: then those who had the locks of some keys are done.
            self._look_at_mono = time.monotonic() + random.uniform(*_CONTENDED_S)  # noqa: S311 - spread, not a secret
        elif reply.next_token_s is not None:
            self._look_at_mono = time.monotonic() + max(_LEAST_THROTTLED_S, reply.next_token_s)
        if got:
            self._poll_s = self._poll_min_s
        elif not self._listens:
            self._poll_s = min(self._poll_max_s, self._poll_s * 2)

    @property
    def may_settle(self) -> bool:
        """Whether it may go to sleep until somebody tells of new runs, or until it is time.

        Runs that wait for a token of next hour keep nobody awake: who is not asleep is not told of new runs, and finds them by polling. Nor
        does what woke it for nothing in the middle of its sleep.
        """
        return self.may_rest and self._listens and self._look_at_mono > time.monotonic() + _WORTH_SLEEPING_S

    def wait_s(self, settle_s: float | None) -> float:
        """Return how long to wait for another reason; *settle_s*: as long as the store says, who goes to sleep step by step."""
        seconds = self._poll_s if settle_s is None else min(self._poll_max_s, settle_s)
        now = time.monotonic()
        # A point in time, kept from wait to wait: the watch wakes us ten times a second, and would put off a mere duration for ever.
        self._look_at_mono = min(self._look_at_mono, now + seconds * random.uniform(0.75, 1.25))  # noqa: S311 - spread, not a secret
        return max(0.0, self._look_at_mono - now)

    def note_time(self) -> None:
        """A wait is over: it may be time to claim again."""
        if time.monotonic() >= self._look_at_mono:
            self._look_at_mono = math.inf
            self.may_rest = False
