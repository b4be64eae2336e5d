"""No lease is reclaimed for a while after the database was away.

    database away ──► back ──► truce: shards reconnect, write what ended meanwhile, renew the rest ──► what is still expired is reclaimed

During an outage leases expire that nobody could renew, and tasks end whose results nobody could write. The fence still holds for them as
long as nobody reclaims: a keeper that reconnected before their shards would count those attempts as lost and have finished work done again.
"""

import math

TRUCE_S = 15.0
"""A shard's longest back-off (5 s) and the time that one of its attempts to connect may take (10 s)."""
SILENCE_S = 3.0
"""A database that did not answer a small question for so long was away, though no connection broke: frozen, or behind a dead network."""
BETWEEN_SILENCES_S = 60.0
"""A database that is slow all the time must not put off the sweep for ever."""


class Truce:
    """Decides when leases may be reclaimed. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._until = -math.inf
        self._last_silence = -math.inf

    def left_s(self, now: float) -> float:
        """Return for how long no lease may be reclaimed yet; 0 when it may."""
        return max(0.0, self._until - now)

    def note_connected(self, now: float, *, after_outage: bool, server_age_s: float) -> None:
        """A connection was made: after others had failed, or to a server that has run for *server_age_s*."""
        self._until = max(self._until, now + (TRUCE_S if after_outage else TRUCE_S - server_age_s))

    def note_answer(self, took_s: float, now: float) -> None:
        """A small question was answered after *took_s*."""
        if took_s > SILENCE_S and now - self._last_silence > BETWEEN_SILENCES_S:
            self._last_silence = now
            self._until = max(self._until, now + TRUCE_S)
