"""Kills processes of one daemon, at random: those that it names itself, and only while they descend from it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from reproq_supervisor.cli.torture.proof import Kill
from reproq_supervisor.process.descent import kill_descendant
from reproq_supervisor.process.proctable import children_of

Status = dict[str, Any]

_PAUSE_S = (0.05, 0.6)
_WEIGHTS = {"executor": 12, "nursery": 2, "shard": 3, "keeper": 1, "postgres": 1}
# What dies again and again is restarted after growing pauses, and then its pool is put into quarantine: torture is about losing nothing,
# not about that. So nobody dies who has just died, and fewer than quarantine allows.
_MOST_FAILURES = 3
_SPARE_EXITS = 2
_DATABASE_EVERY_S = 60.0


class Chaos:
    """Kills something now and then; call `turn` often.

    Args:
      status: asks the daemon; None when it does not answer now.
      database: kill its embedded PostgreSQL, too.
    """

    def __init__(self, status: Callable[[], Status | None], rng: random.Random, *, database: bool) -> None:
        self._status = status
        self._rng = rng
        self._kinds = [kind for kind in _WEIGHTS if kind != "postgres" or database]
        self._next_mono = 0.0
        self._database_mono = 0.0
        self.kills: list[Kill] = []

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind were killed."""
        return dict(Counter(kill.kind for kill in self.kills))

    def turn(self) -> None:
        """Kill somebody, if it is time."""
        now = time.monotonic()
        if now < self._next_mono:
            return
        self._next_mono = now + self._rng.uniform(*_PAUSE_S)
        kind = self._rng.choices(self._kinds, [_WEIGHTS[each] for each in self._kinds])[0]
        if (status := self._status()) is None:
            return
        victims = sorted(victims_of(kind, status))
        if not victims or (kind == "postgres" and now < self._database_mono):
            return
        pid = self._rng.choice(victims)
        at = time.monotonic()  # before: what follows from it follows this
        if kill_descendant(pid, status["pid"]):
            self.kills.append(Kill(kind, pid, at))
            if kind == "postgres":
                self._database_mono = now + _DATABASE_EVERY_S


def victims_of(kind: str, status: Status) -> Iterator[int]:
    """Yield the pids of one kind that a daemon with this *status* can do without now."""
    match kind:
        case "executor":
            for pool in status["pools"].values():
                for snapshot in pool["snapshots"].values():
                    yield from snapshot.get("executors", {}).get("pids", ())
        case "keeper":
            yield from _ready(status, "keeper", "pid", status["keeper"]["account"])
        case "postgres":
            for guard in _ready(status, "postgres", "pid"):
                yield from children_of(guard)
        case _:
            for name, pool in status["pools"].items():
                yield from _ready(status, "shard", "nursery_pid" if kind == "nursery" else "pid", pool["account"], name)


def _ready(status: Status, role: str, key: str, account: Status | None = None, pool: str | None = None) -> Iterator[int]:
    """Yield the pids at *key* of the children of a *role* that are ready, and whose *account* bears one more death."""
    if account is not None and (account["circuit"] != "closed" or account["recent_exits"] + _SPARE_EXITS > account["allowed_exits"]):
        return
    for child in status["children"]:
        failures = 0 if account is None else account["units"].get(child["child"], {}).get("failures", 0)
        if child["role"] == role and child["state"] == "ready" and child["pool"] == pool and child[key] and failures < _MOST_FAILURES:
            yield child[key]
