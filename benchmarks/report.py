"""Figures of several rounds as a table, as JSON, and as a line of the history file."""

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).parents[1] / "benchmarks-history.jsonl"
"""Of this checkout only: figures of one machine are nothing to another."""

Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""By contender, the figures of each round."""


def medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return the median of each figure, by contender."""
    return {
        name: {figure: statistics.median(each[figure] for each in figures if figure in each) for figure in figures[0]}
        for name, figures in rounds.items()
        if figures
    }


def ratios(rounds: Rounds, figure: str, name: str) -> dict[str, dict[str, float]]:
    """Return how often *name*'s figure goes into another's, by the other: of each round, then median and bounds."""
    mine = rounds.get(name, ())
    found = {}
    for other, theirs in rounds.items():
        each = [one[figure] / two[figure] for one, two in zip(mine, theirs, strict=False) if two.get(figure)]
        if other != name and each:
            found[other] = {"median": statistics.median(each), "min": min(each), "max": max(each)}
    return found


def table(title: str, rounds: Rounds, columns: Mapping[str, str]) -> str:
    """Return a table; *columns* are names of figures with their headings."""
    found = medians(rounds)
    shown = {figure: head for figure, head in columns.items() if any(figure in each for each in found.values())}
    lines = [title, f"  {'':<18}" + "".join(f"{head:>{max(12, len(head) + 2)}}" for head in shown.values())]
    for name, figures in found.items():
        cells = (f"{_number(figures.get(figure)):>{max(12, len(head) + 2)}}" for figure, head in shown.items())
        lines.append(f"  {name:<18}" + "".join(cells))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def remember(result: Mapping[str, Any], path: Path = HISTORY) -> None:
    """Append *result* to the history, with the time."""
    line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **result})
    with path.open("a") as file:
        file.write(line + "\n")
