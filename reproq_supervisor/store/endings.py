"""Endings as the parallel arrays that the database's ending function takes."""

import json
from collections.abc import Sequence
from typing import Any

from reproq_supervisor.core.runs import Ending, ErrorKind, Outcome
from reproq_supervisor.store.arrays import number_array, text_array


def arrays_of(endings: Sequence[Ending]) -> dict[str, Any]:
    """Return the seven `end_*` parameters of a cycle."""
    outcomes, values = zip(*map(_sendable, endings), strict=True) if endings else ((), ())
    ids, lease_nos, _, _, delays, started_ago, logs_uris = zip(*endings, strict=True) if endings else ((),) * 7
    return {
        "end_ids": number_array(ids),
        "end_lease_nos": number_array(lease_nos),
        "end_outcomes": "{" + ",".join(outcomes) + "}",
        "end_values": text_array(values),
        "end_delays": number_array(delays),
        "end_started_ago": number_array(started_ago),
        "end_logs_uris": text_array([uri and uri.replace("\0", "") for uri in logs_uris]),
    }


def _sendable(ending: Ending) -> tuple[Outcome, str | None]:
    """Return outcome and value as text that can at least reach the server.

    Bytes that are no UTF-8, or hold NUL, would fail the whole statement and with it the other endings. What is text but no JSON that
    PostgreSQL accepts is dealt with over there, row by row.
    """
    if ending.value is None:
        return ending.outcome, None
    try:
        words = ending.value.decode()
    except UnicodeDecodeError as error:
        return _refused(ending, f"got bytes that are not UTF-8 at position {error.start}")
    if "\0" in words:
        return _refused(ending, f"got a NUL at position {words.index(chr(0))}")
    return ending.outcome, words


def _refused(ending: Ending, why: str) -> tuple[Outcome, str]:
    outcome = Outcome.FAIL_FINALLY if ending.outcome is Outcome.SUCCEED else ending.outcome
    kind = ErrorKind.BAD_RESULT if ending.outcome is Outcome.SUCCEED else ErrorKind.APP_ERROR
    return outcome, json.dumps({"kind": kind, "message": f"the outcome cannot be stored: expected JSON text, {why}"})
