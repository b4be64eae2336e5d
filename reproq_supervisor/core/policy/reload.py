"""What a change of configuration touches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reproq_supervisor.core.supervision.operation import Change
from reproq_supervisor.core.supervision.plan import Plan, Settings

_OF_THE_KEEPER = frozenset({"store", "logs_dir"})
"""Top-level keys outside of `keeper` that the keeper reads once, at its start."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Which pools get a new generation, and whether the keeper does; all else is told to living processes, or needs no telling."""

    rolling: frozenset[str] = field(default_factory=frozenset)
    keeper: bool = False


def extent_of(changes: Sequence[Change], old: Plan, new: Plan) -> Extent:
    """Return the pools that roll: those with a rolling change, those that are new, and all for a rolling change outside of the pools."""
    rolling: set[str] = set()
    for change in changes:
        if change.how != "rolling":
            continue
        head, _, rest = change.key.partition(".")
        pool = rest.partition(".")[0]
        if head == "pools" and pool:
            rolling |= {pool} & set(new.pools)
        else:
            rolling |= set(new.pools)
    rolling |= set(new.pools) - set(old.pools)
    keeper = any(change.how == "rolling" and change.key.partition(".")[0] in _OF_THE_KEEPER for change in changes)
    return Extent(frozenset(rolling), keeper)


def settings_in_force(old: Settings, new: Settings, changes: Sequence[Change]) -> dict[str, Any]:
    """Return the new settings with the old values of what only a restart can change, so that every reload names it again."""
    settings = dict(new)
    for change in changes:
        if change.how == "restart":
            settings = _with_value(settings, change.key.split("."), _value(old, change.key.split(".")))
    return settings


def _value(settings: Any, path: Sequence[str]) -> Any:
    for key in path:
        settings = settings[key]
    return settings


def _with_value(settings: Settings, path: Sequence[str], value: object) -> dict[str, Any]:
    head, *rest = path
    return {**settings, head: _with_value(settings[head], rest, value) if rest else value}
