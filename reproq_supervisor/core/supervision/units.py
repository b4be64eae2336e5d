"""Units: the places that the supervisor keeps filled, each by one process of a generation."""

from enum import StrEnum
from typing import NamedTuple, NewType

Serial = NewType("Serial", int)
"""Number of a process of ours, never used twice in the life of a supervisor (pids are)."""


class Role(StrEnum):
    """What a direct child of the supervisor does."""

    POSTGRES = "postgres"
    PREPARE = "prepare"  # one-shot: create and migrate the embedded database
    KEEPER = "keeper"
    SHARD = "shard"
    LOADER = "loader"  # one-shot: read and validate the configuration again


ONE_SHOTS = frozenset({Role.PREPARE, Role.LOADER})


class Unit(NamedTuple):
    """One place to fill: the keeper, the database, or shard *shard* of pool *pool*. A tuple, since every step hashes many."""

    role: Role
    pool: str = ""
    shard: int = 0

    @property
    def name(self) -> str:
        """The name that people see: `mail/0`, `keeper`."""
        return f"{self.pool}/{self.shard}" if self.role is Role.SHARD else self.role.value

    @property
    def group(self) -> str:
        """Whose account an abnormal exit is put on: the pool of a shard, otherwise the role."""
        return f"pool {self.pool}" if self.role is Role.SHARD else self.role.value


POSTGRES = Unit(Role.POSTGRES)
PREPARE = Unit(Role.PREPARE)
KEEPER = Unit(Role.KEEPER)
LOADER = Unit(Role.LOADER)
