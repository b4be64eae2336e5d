"""How the demo tells what it found."""

import platform
from dataclasses import asdict
from typing import Any

from reproq_supervisor.cli.demo.findings import Findings, Spread
from reproq_supervisor.cli.output import Output

_MESSAGE_CHARS = 70


def tell(output: Output, findings: Findings, kept: str | None) -> None:
    """Write the report in the form that was asked for."""
    if output.as_json:
        output.show_json(_plain(findings, kept))
        return
    _tell_files(output, findings)
    _tell_misbehaved(output, findings)
    _tell_speed(output, findings)
    _tell_end(output, findings, kept)


def _plain(findings: Findings, kept: str | None) -> dict[str, Any]:
    data = asdict(findings)
    measures = data.pop("measures")
    return {
        "ok": not findings.surprises,
        "python": platform.python_version(),
        "totals": asdict(findings.totals),
        "largest": [{"name": name, **measures[name]} for name in findings.largest],
        "files_per_s": findings.files_per_s,
        **data,
        "kept": kept,
    }


def _tell_files(output: Output, findings: Findings) -> None:
    totals = findings.totals
    output.line()
    output.line(f"Measured {totals.files:,} files of the standard library of Python {platform.python_version()}", style="bold")
    output.line(f"  {totals.bytes:,} bytes, {totals.lines:,} lines, {totals.functions:,} functions, {totals.classes:,} classes")
    output.line(f"  {totals.files - totals.parsed} files are test data that does not parse; digest of all digests {totals.digest[:16]}…")
    output.line()
    rows = [
        (name, f"{measure['lines']:,}", f"{measure['bytes']:,}", f"{measure['functions']:,}", f"{measure['classes']:,}")
        for name in findings.largest
        if (measure := findings.measures[name])
    ]
    output.table(("the largest", "lines", "bytes", "functions", "classes"), rows)


def _tell_misbehaved(output: Output, findings: Findings) -> None:
    count = sum(len(group) for group in findings.misbehaved.values())
    output.line()
    output.line(f"{count} tasks misbehaved; nobody else noticed", style="bold")
    rows = [
        (kind if number == 0 else "", each.title, each.attempts, _short(each.message))
        for kind, group in findings.misbehaved.items()
        for number, each in enumerate(group)
    ]
    output.table(("ended as", "a task that", "attempts", "last error"), rows)


def _tell_speed(output: Output, findings: Findings) -> None:
    output.line()
    output.line(f"{findings.files_per_s:,.0f} files a second", style="bold")
    output.line(f"  {findings.run_s:.1f} s in the daemon, {findings.plain_s:.1f} s in a plain loop of one process")
    output.line(f"  from enqueue to start, all at once: {_spread(findings.waited)}")
    if findings.idle:
        output.line(f"  from enqueue to start, one by one:  {_spread(findings.idle)}")


def _tell_end(output: Output, findings: Findings, kept: str | None) -> None:
    output.line()
    if findings.surprises:
        output.line(f"{len(findings.surprises)} things are not as expected", style="bold red")
        for sentence in findings.surprises:
            output.line(f"  {sentence}")
    else:
        output.line("Everything is as expected", style="bold green")
        output.line("  results equal the plain loop's, failures are those that were asked for,")
        output.line("  and of the daemon nothing is left running")
    if kept:
        output.line(f"  database, logs and configuration are kept in {kept}")


def _spread(spread: Spread) -> str:
    return f"p50 {spread.p50_s * 1000:,.1f} ms, p99 {spread.p99_s * 1000:,.1f} ms"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_CHARS else f"{line[: _MESSAGE_CHARS - 1]}…"
