"""Unit files for tests: a site to fill them in with, and their directives as data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from reproq_supervisor.cli.systemd.needs import find_needs
from reproq_supervisor.cli.systemd.site import Site
from reproq_supervisor.cli.systemd.unit import render_unit
from reproq_supervisor.settings.model import Settings

# What systemd/reproq-supervisor.service of the checkout is filled in with.
USUAL = Site(
    user="app",
    group="app",
    is_root=False,
    python=Path("/srv/app/.venv/bin/python"),
    installed=(Path("/srv/app/.venv"), Path("/usr")),
    directory=Path("/srv/app"),
    config=Path("/etc/reproq-supervisor/supervisor.yaml"),
    systemd=249,
    credential=Path("/etc/reproq-supervisor/dsn"),
)
EXTERNAL = {"database": "postgresql://app@db/app"}


def unit_text(settings: dict[str, Any] | None = None, **site: Any) -> str:
    """Return the unit of these settings at the usual site with changes."""
    loaded, changed = Settings.model_validate(EXTERNAL if settings is None else settings), replace(USUAL, **site)
    return render_unit(loaded, changed, find_needs(loaded, changed))


def directives(text: str) -> dict[str, list[str]]:
    """Return every directive with its values, in their order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def unit(settings: dict[str, Any] | None = None, **site: Any) -> dict[str, list[str]]:
    """Return the directives of these settings at the usual site with changes."""
    return directives(unit_text(settings, **site))
