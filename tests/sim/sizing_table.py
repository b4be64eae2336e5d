"""The table of `docs/scaling.md`: what each rule for the number of executors makes of each simulated hour. Written by

python -m tests.sim.sizing_table
"""

from pathlib import Path

from tests.sim.scenarios import BY_NAME, RULES, made

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
HEAD = "| scenario | rule | p95 wait, s | starts | turns | executors |\n|---|---|---|---|---|---|\n"


def table() -> str:
    """Return the table."""
    rows = []
    for name in BY_NAME:
        for rule in RULES:
            each = made(name, rule)
            shown = name if rule == "this" else ""
            rows.append(f"| {shown} | {rule} | {each.p95_s:.1f} | {each.starts:.0f} | {each.reversals:.0f} | {each.average:.1f} |\n")
    return HEAD + "".join(rows)


def enter() -> None:
    """Put the table in the place of the one that the page has."""
    before, _, rest = PAGE.read_text().partition(HEAD)
    lines = rest.splitlines(keepends=True)
    end = next((at for at, line in enumerate(lines) if not line.startswith("|")), len(lines))
    PAGE.write_text(before + table() + "".join(lines[end:]))


if __name__ == "__main__":
    enter()
