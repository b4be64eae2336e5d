"""What a person, or a program, is told at the end."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reproq_supervisor.cli.output import Output
from reproq_supervisor.cli.torture.proof import Spread, Verdict

_SHOWN = 20


def tell(output: Output, verdict: Verdict, *, seed: int, kills: Mapping[str, int], kept: str | None) -> None:
    """Tell what was found."""
    if output.as_json:
        found = {"ok": not verdict.offenders, "seed": seed, "kills": dict(kills), "kept": kept, **asdict(verdict)}
        output.show_json(found)
        return
    _tell_figures(output, verdict, kills)
    output.line()
    if verdict.offenders:
        output.line(f"{len(verdict.offenders)} things are not as promised", style="bold red")
        for sentence in verdict.offenders[:_SHOWN]:
            output.line(f"  {sentence}")
        if len(verdict.offenders) > _SHOWN:
            output.line(f"  and {len(verdict.offenders) - _SHOWN} more; --json has them all")
        output.line(f"  the same mixture again: --seed {seed}")
    else:
        output.line("Every task ended, and nothing contradicts what the tasks themselves told", style="bold green")
    if kept:
        output.line(f"  kept: {kept}")


def _tell_figures(output: Output, verdict: Verdict, kills: Mapping[str, int]) -> None:
    rows: list[tuple[str, Any]] = [
        ("tasks", f"{verdict.count:,}, of which {verdict.ended:,} ended"),
        ("lost", f"{verdict.lost:,}"),
        ("ran to the end twice", f"{verdict.twice:,}"),
        ("executions", f"{verdict.executions:,}, of which {verdict.broken:,} were cut off"),
        ("most at once of a key", ", ".join(f"{key}: {count}" for key, count in verdict.most_at_once.items()) or "no keys"),
        ("tasks a second", f"{verdict.per_s:,.0f}, the telling included"),
        ("enqueue to start", _words(verdict.waited)),
        ("start to end", _words(verdict.ran)),
    ]
    if kills:
        rows.append(("killed", ", ".join(f"{count} {kind}" for kind, count in sorted(kills.items()))))
    output.line()
    for name, value in rows:
        output.line(f"  {name:<22} {value}")


def _words(spread: Spread) -> str:
    parts = (("p50", spread.p50_s), ("p90", spread.p90_s), ("p99", spread.p99_s), ("most", spread.max_s))
    return ", ".join(f"{name} {value * 1000:,.1f} ms" for name, value in parts)
