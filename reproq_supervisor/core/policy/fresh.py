"""How many executors to keep when each serves one task and leaves (`isolation: fork` and `exec`).

As many as wanted may run at once. Some more wait beside them, so that a task does not wait for a fork, and the end of one task is followed
by the start of the next while the executor of the first is still being buried.
"""

MOST_AHEAD = 8
"""Single-use executors that wait, beyond those that may run. Past a handful more of them hide nothing: forks come one after the other."""


def executors_to_keep(wanted: int, *, single_use: bool) -> int:
    """Return how many executors that have not served yet, or are at it, a shard keeps when *wanted* may run at once."""
    return wanted + min(wanted, MOST_AHEAD) if single_use else wanted
