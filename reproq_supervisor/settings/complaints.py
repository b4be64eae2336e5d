"""Turns what pydantic says about values into problems with a place, a wording of ours and a suggestion."""

import difflib
from typing import Any

from pydantic_core import ErrorDetails

from reproq_supervisor.settings.document import Path, dotted
from reproq_supervisor.settings.layers import Layers
from reproq_supervisor.settings.masking import MASK, is_secret, mask_text
from reproq_supervisor.settings.problems import Problem
from reproq_supervisor.settings.schema import keys_at

_EXPECTED: dict[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "enum": "{expected}",
    "finite_number": "a number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "model_type": "a mapping",
    "none_required": "null (more is not available yet in this version)",
    "string_too_long": "at most {max_length} characters",
    "string_type": "a text",
    "too_short": "at least {min_length} entry",
}
_ONLY_KEY = "[key]"


def complain(error: ErrorDetails, layers: Layers) -> tuple[Path, Problem]:
    """Word one error of pydantic; return also the path of the value that is wrong.

    An error about a value made from a shorthand (`executors: 0` gives `executors.min`) is told about what was written.
    """
    path = error["loc"]
    if error["type"] == "extra_forbidden":
        return path, place_problem(path, "expected a known key", _suggest(path), layers, about_key=True)
    # Last only: it may also be the name that somebody gave to a pool.
    about_key = path[-1:] == (_ONLY_KEY,)
    if about_key:
        path = path[:-1]
    while path and not layers.is_given(path):
        path = path[:-1]
    message, hint = _describe(error, path)
    return path, place_problem(path, message, hint, layers, about_key=about_key)


def place_problem(
    path: Path, message: str, hint: str | None, layers: Layers, *, about_key: bool = False, near: tuple[Path, ...] = ()
) -> Problem:
    """Return the problem with its place: the first of *path* and *near* that somebody gave, else what is around *path*."""
    given = next((candidate for candidate in (path, *near) if layers.is_given(candidate)), path)
    if override := layers.override_of(given):
        hint = f"{hint}; given by {override.origin}" if hint else f"given by {override.origin}"
    place = layers.place_of(given, key=about_key)
    if place is None:
        return Problem(dotted(path), message, hint=hint)
    return Problem(dotted(path), message, place.line, place.column, hint)


def _describe(error: ErrorDetails, path: Path) -> tuple[str, str | None]:
    context = error.get("ctx", {})
    hint: str | None = None
    if error["type"] == "expected":
        what, hint = context["what"], context["hint"] or None
    elif error["type"] in _EXPECTED:
        what = _EXPECTED[error["type"]].format_map(context)
    else:
        return mask_text(error["msg"]), None
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        hint = "put it in quotes"
    return f"expected {what}, got {show(path, error['input'])}", hint


def show(path: Path, value: Any) -> str:
    """Return *value* as a problem may show it: short, and no secret."""
    secret = path == ("database",) or is_secret(dotted(path))
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case "":
            return "an empty text"
        case _ if secret:
            return MASK
        case str():
            text = mask_text(value)
            return repr(text if len(text) <= 60 else text[:57] + "...")
        case _:
            return str(value)[:60]


def _suggest(path: Path) -> str | None:
    keys = sorted(keys_at(path[:-1]))
    close = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"one of {', '.join(keys)}" if keys else None
