"""When an execution is killed because its lease cannot be renewed: by the shard, and if that is frozen, by its nursery.

    |---------------- lease ----------------|
                          shard kills ^  ^ nursery kills
                                      margin

Both look at intervals, and a kill takes a moment: the earliest moment at which somebody else may claim the run must come after all of it.
"""

_LEAST_MARGIN_S = 0.25
_MOST_MARGIN_S = 2.0


def shard_margin_s(lease_s: float) -> float:
    """Return how long before the end the shard, which looks ten times a second, kills: a tenth of the lease, within bounds."""
    return min(_MOST_MARGIN_S, max(_LEAST_MARGIN_S, lease_s / 10))


def nursery_margin_s(lease_s: float) -> float:
    """Return how long before the end the nursery begins to kill."""
    return shard_margin_s(lease_s) / 2


def nursery_tick_s(lease_s: float) -> float:
    """Return how often the nursery looks, so that half of its margin is left even if it just missed the moment."""
    return nursery_margin_s(lease_s) / 2
