"""When an execution is killed because its lease cannot be renewed: by the shard, and if that is frozen, by its nursery.

    |---------------------------- lease ----------------------------|
            started no more ^      ^ asked softly  ^ shard  ^ nursery
                                     (if shared)      kills    kills
                                                             <------>  nursery margin

The nursery wakes at the very moment, not at its next look, so all of its margin is there for what a starved machine does: wake it late.
It is a tenth of the lease, with bounds. Measured with twenty busy processes in its own scheduling group on two processors, a process that
waits like the nursery woke up to 0.15 s late, with a raised priority, too; in a group of its own, as every nursery has on a host with
autogroups, 0.01 s. Woken later than its margin (a starved host with a lease of a second), an execution outlives its lease by the rest, and
only the fence protects the row.
"""

_LEAST_MARGIN_S = 0.15
_MOST_MARGIN_S = 3.0
_SHARD_LATE_S = 0.15
"""The shard looks ten times a second, and a kill takes a moment: so much earlier it comes first, unless it is frozen."""


def nursery_margin_s(lease_s: float) -> float:
    """Return how long before the end the nursery kills: a tenth of the lease, within bounds."""
    return min(_MOST_MARGIN_S, max(_LEAST_MARGIN_S, lease_s / 10))


def shard_margin_s(lease_s: float) -> float:
    """Return how long before the end the shard kills."""
    return nursery_margin_s(lease_s) + _SHARD_LATE_S


def soft_notice_s(lease_s: float) -> float:
    """Return how long before the shard's kill a run that shares its executor is asked to stop.

    Renewal begins with two thirds of the lease left: with half of it left nobody may have been asked yet, or a cycle that takes a moment
    stops what runs.
    """
    return min(shard_margin_s(lease_s), lease_s / 6)


def start_margin_s(lease_s: float) -> float:
    """Return with how much left of its lease a run is not started any more: the nursery must see its deadline before that has come."""
    return shard_margin_s(lease_s) + nursery_tick_s(lease_s)


def nursery_tick_s(lease_s: float) -> float:
    """Return how often the nursery looks for deadlines that were set or moved."""
    return min(0.5, nursery_margin_s(lease_s) / 2)
