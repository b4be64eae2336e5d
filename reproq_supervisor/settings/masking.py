"""Which values are secret, and how they are shown. Standard library only: the supervisor uses it too."""

import re
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(r"secret|token|passw|api_?key|authorization|credential|private_?key", re.IGNORECASE)
_PAYLOAD = re.compile(r"schedules\..+\.(kw)?args", re.DOTALL)
# Greedy up to the last @: an unescaped @ or / in a password must not let the rest of it through.
_URL_PASSWORD = re.compile(r"(?<=://)([^:/?#@\s]*):(\S*)@")
_PARAMETER_PASSWORD = re.compile(r"\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", re.IGNORECASE)


def mask_text(text: str) -> str:
    """Return *text* with the passwords of connection strings replaced, in URL and in `key=value` form."""
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _PARAMETER_PASSWORD.sub(rf"\1{MASK}", text)


def is_secret(path: str) -> bool:
    """Answer whether the value at *path* is secret by its name, that is by the last part, or is a payload."""
    return _SECRET_NAME.search(path.rsplit(".", 1)[-1]) is not None or _PAYLOAD.fullmatch(path) is not None


def mask(path: str, value: Any) -> Any:
    """Return *value* as it may be shown: secrets by their name (the last part of *path*) and connection strings by their shape.

    Empty values are shown, so that a person sees that a secret is not set.
    """
    match value:
        case dict():
            return {key: mask(f"{path}.{key}", inner) for key, inner in value.items()}
        case list():
            return [mask(path, inner) for inner in value]
        case str() if value and is_secret(path):
            return MASK
        case str():
            return mask_text(value)
        case _:
            return value
