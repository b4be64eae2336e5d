"""A configuration for people's eyes: as a file would say it, and where each value came from. Secrets are masked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from reproq_supervisor.settings.document import Path, dotted
from reproq_supervisor.settings.interpolation import escape
from reproq_supervisor.settings.layers import Layers
from reproq_supervisor.settings.masking import mask
from reproq_supervisor.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Shown:
    """One value: its key, the value as people write it, and its origin."""

    key: str
    value: Any
    origin: str


def as_data(settings: Settings, *, human: bool) -> dict[str, Any]:
    """Return the settings as plain data, secrets masked.

    Args:
      human: as a file would have them, "1h30m" and "512MiB", instead of seconds and bytes.
    """
    shown = mask("", settings.model_dump(mode="json", context={"human": human}))
    assert isinstance(shown, dict)
    return shown


def as_yaml(settings: Settings) -> str:
    """Return a file with every key that says what *settings* say, secrets excepted."""
    return yaml.safe_dump(escape(as_data(settings, human=True)), sort_keys=False, allow_unicode=True, width=120)


def with_origins(settings: Settings, layers: Layers, *, human: bool) -> Iterator[Shown]:
    """Yield every value with its origin, in the order of the models."""
    for path, value in _leaves((), as_data(settings, human=human)):
        yield Shown(dotted(path), value, layers.origin_of(path))


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    else:
        yield path, value
