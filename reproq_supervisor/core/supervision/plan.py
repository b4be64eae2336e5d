"""The plan: what a resolved configuration asks of the supervisor. Everything else in the settings is only passed on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.core.policy.restart import RestartPolicy
from reproq_supervisor.core.supervision.units import KEEPER, Role, Unit

Settings = Mapping[str, Any]

KEEPER_BOOT_TIMEOUT_S = 60.0
KEEPER_LIVENESS_S = 15.0
POSTGRES_BOOT_TIMEOUT_S = 60.0
"""Until its first answer, which it also gives while it recovers."""
POSTGRES_LIVENESS_S = 12.0
PREPARE_TIMEOUT_S = 300.0
LOADER_TIMEOUT_S = 30.0
DEFAULT_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a process of a group may keep us waiting.

    Attributes:
      boot_s: from start to readiness.
      liveness_s: between two signs of life; None for programs that do not speak.
      grace_s: between the soft signal and the kill of a task while draining.
    """

    boot_s: float
    liveness_s: float | None
    grace_s: float = DEFAULT_GRACE_S


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted of one configuration."""

    settings: Settings

    @property
    def embedded(self) -> Mapping[str, Any] | None:
        """The embedded database's program and account, or None."""
        found: Mapping[str, Any] | None = self.settings["runtime"].get("embedded")
        return found

    @property
    def worker_name(self) -> str | None:
        """What claiming processes are named after in the database; None: the host."""
        found: str | None = self.settings["runtime"].get("worker_id")
        return found

    @property
    def pools(self) -> Mapping[str, Any]:
        """Pool name → its settings."""
        found: Mapping[str, Any] = self.settings["pools"]
        return found

    @property
    def shutdown_timeout_s(self) -> float:
        """Seconds from the request to stop to the end of the last process."""
        return float(self.settings["shutdown_timeout"])

    def shards(self, pool: str) -> list[Unit]:
        """Return the units of a pool."""
        return [Unit(Role.SHARD, pool, shard) for shard in range(int(self.pools[pool]["shards"]))]

    def units(self) -> list[Unit]:
        """Return the units that do the work: the keeper and every shard, in the order of their start."""
        return [KEEPER, *(unit for pool in self.pools for unit in self.shards(pool))]

    def has(self, unit: Unit) -> bool:
        """Answer whether the plan has such a unit: its pool exists, and is that large."""
        return unit.role is not Role.SHARD or (unit.pool in self.pools and unit.shard < int(self.pools[unit.pool]["shards"]))

    def deadlines(self, unit: Unit) -> Deadlines:
        """Return the unit's deadlines.

        Liveness is kept below a third of the lease (promise P3): a shard that is killed that late has not lost a lease yet.
        """
        match unit.role:
            case Role.SHARD if unit.pool in self.pools:
                pool = self.pools[unit.pool]
                liveness = min(3.0 * float(pool["heartbeat"]), float(pool["lease"]) / 3.0 * 0.9)
                return Deadlines(float(pool["boot_timeout"]), liveness, float(pool["grace"]))
            case Role.SHARD | Role.KEEPER:
                return Deadlines(KEEPER_BOOT_TIMEOUT_S, KEEPER_LIVENESS_S)
            case Role.PREPARE:
                return Deadlines(PREPARE_TIMEOUT_S, None)
            case Role.LOADER:
                return Deadlines(LOADER_TIMEOUT_S, None)
            case Role.POSTGRES:
                return Deadlines(POSTGRES_BOOT_TIMEOUT_S, POSTGRES_LIVENESS_S)

    def restart_policy(self, unit: Unit) -> RestartPolicy:
        """Return the restart rule of the unit's group."""
        if unit.role is Role.SHARD and unit.pool in self.pools:
            pool = self.pools[unit.pool]
            return RestartPolicy(
                exits=int(pool["quarantine"]["exits"]),
                window_s=float(pool["quarantine"]["window"]),
                slots=int(pool["shards"]),
            )
        if unit.role in (Role.POSTGRES, Role.PREPARE):
            # Nothing works without the database: keep trying, with pauses, instead of giving up for minutes.
            return RestartPolicy(exits=1_000_000, cap_s=10.0)
        return RestartPolicy()
