"""Words a record as one line: for a person at a terminal, as logfmt, or as JSON."""

import json
from enum import StrEnum
from typing import Any

Record = dict[str, Any]
"""What happened: flat, closed, presentable; `records` makes it of an event."""


class LogFormat(StrEnum):
    """How lines look."""

    HUMAN = "human"
    LOGFMT = "logfmt"
    JSON = "json"


_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "debug": "\x1b[2m"}
_RESET = "\x1b[0m"


def render(record: Record, log_format: LogFormat) -> str:
    """Return the line without its line end; it never contains one."""
    match log_format:
        case LogFormat.JSON:
            return json.dumps(record, separators=(",", ":"))
        case LogFormat.LOGFMT:
            return " ".join(f"{key}={_quoted(value)}" for key, value in record.items())
        case LogFormat.HUMAN:
            return _human(record)


def _human(record: Record) -> str:
    fields = " ".join(f"{key}={_quoted(value)}" for key, value in record.items() if key not in ("at", "level", "name"))
    clock = str(record["at"]).partition("T")[2][:12]
    line = f"{clock} {record['name']:<24} {fields}".rstrip()
    colour = _COLOURS.get(record["level"], "")
    return f"{colour}{line}{_RESET}" if colour else line


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(json.dumps(value, ensure_ascii=False, separators=(",", ":")), ensure_ascii=False)
    text = str(value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    # JSON's escapes keep control characters and line ends out of the log.
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in json.dumps(text, ensure_ascii=False))
