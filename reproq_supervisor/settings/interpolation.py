"""`${VAR}`, `${VAR:-default}` and the escape `$${` inside the texts of the configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"(\$\$\{)|\$\{([^{}]*)\}|(\$\{)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class InterpolationError(ValueError):
    """A reference that cannot be filled in; the text says which and why, and never holds a value."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Interpolated:
    """The text with every reference filled in, and the variables that gave something to it (a used default gives nothing)."""

    text: str
    variables: tuple[str, ...]


def interpolate(text: str, environ: Mapping[str, str]) -> Interpolated:
    """Fill in the references of *text*. What a variable holds is taken as it is: references inside it stay.

    As in a shell, `:-` replaces a variable that is unset or empty, and `${VAR}` of an empty variable is empty.

    Raises:
      InterpolationError: a variable is unset and has no default, is not UTF-8, or the reference is malformed.
    """
    variables: list[str] = []

    def fill(found: re.Match[str]) -> str:
        escaped, inside, unclosed = found.groups()
        if escaped:
            return "${"
        parts = None if unclosed else _INSIDE.fullmatch(inside)
        if parts is None:
            raise InterpolationError(f"expected ${{NAME}} or ${{NAME:-default}}, got {found.group()}", "write $${ for a literal ${")
        name, default = parts.groups()
        value = environ.get(name)
        if value is None or (value == "" and default is not None):
            if default is None:
                raise InterpolationError(
                    f"expected the environment variable {name} to be set, found it unset",
                    f"set it, or write ${{{name}:-default}}",
                )
            return str(default)
        if not _is_unicode(value):
            raise InterpolationError(f"expected UTF-8 in the environment variable {name}, found other bytes")
        variables.append(name)
        return value

    return Interpolated(_REFERENCE.sub(fill, text), tuple(dict.fromkeys(variables)))


def escape(value: Any) -> Any:
    """Return *value*, of plain data, with its texts written so that `interpolate` gives them back; keys are never filled in."""
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {key: escape(inner) for key, inner in value.items()}
        case list():
            return [escape(inner) for inner in value]
        case _:
            return value


def _is_unicode(value: str) -> bool:
    """Answer whether *value* holds no bytes that the interpreter smuggled in as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)
