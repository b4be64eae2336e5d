"""Problems of a configuration as the loader found them, in the words of the log, of `status` and of `explain`."""

from collections.abc import Mapping, Sequence
from typing import Any


def one_line(problem: Mapping[str, Any], source: str | None) -> str:
    """Return one problem as a compiler would say it: `file:line: key: message`. Messages never hold a secret."""
    place = f"{source or 'configuration'}:{problem['line']}" if problem.get("line") else source or "configuration"
    subject = f"{problem['path']}: " if problem.get("path") else ""
    hint = f" ({problem['hint']})" if problem.get("hint") else ""
    return " ".join(f"{place}: {subject}{problem.get('message')}{hint}".split())


def summary(problems: Sequence[Mapping[str, Any]], source: str | None) -> str:
    """Return the first of them and how many there are, for a place that has one line."""
    if not problems:
        return "the configuration has problems"
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{one_line(problems[0], source)}{more}"
