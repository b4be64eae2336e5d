"""The kinds of value a setting can have.

Each type reads what people write, says what it expected, and describes itself in the JSON Schema.
"""

import re
from collections.abc import Callable
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from reproq_supervisor.settings.units import format_duration, format_fraction, format_size, parse_duration, parse_fraction, parse_size

MAX_DURATION_S = 3650 * 86400.0
# And lone surrogates, which "\ud800" in YAML makes, and nobody can encode.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

T = TypeVar("T")


class Group(BaseModel):
    """A mapping of the file: closed, immutable, described by the texts under its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, hide_input_in_errors=True)


def expected(what: str, hint: str = "") -> PydanticCustomError:
    """Return the error that says what the value should have been. `complaints` adds what it was."""
    return PydanticCustomError("expected", "expected {what}", {"what": what, "hint": hint})


def _reading(parse: Callable[[object], T], what: str) -> Callable[[object], T]:
    def read(value: object) -> T:
        try:
            return parse(value)
        except ValueError:
            raise expected(what) from None

    return read


def _read_duration(value: object) -> float:
    seconds = parse_duration(value)
    if seconds > MAX_DURATION_S:
        raise ValueError("too long")
    return seconds


def _refuse_bool(value: object) -> object:
    """Keep `true` from counting as the number 1."""
    if isinstance(value, bool):
        raise expected("a whole number")
    return value


def _split_commas(value: object) -> object:
    """Let one text stand for a list, as an environment variable must: "a, b" is [a, b], an empty text is the empty list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _empty_as_none(value: object) -> object:
    """An empty text means unset, so that `${LOGS_DIR:-}` works."""
    return None if value == "" else value


def _check_text(value: str) -> str:
    if _CONTROL.search(value):
        raise expected("a text without control characters")
    return value


NAME_RULE = "a name of 1 to 200 characters, without control characters or spaces around it"


def is_name(value: str) -> bool:
    """Answer whether a queue may be called so (`NAME_RULE`)."""
    return 1 <= len(value) <= 200 and value == value.strip() and not _CONTROL.search(value)


def _check_name(value: str) -> str:
    if not is_name(value):
        raise expected(NAME_RULE)
    return value


def _check_label(value: str) -> str:
    # It is part of process titles, of `mail/0`, and of keys with dots.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", value):
        raise expected("a pool name of letters, digits, - and _ (63 at most, the first a letter or digit)")
    return value


def _check_variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise expected("the name of an environment variable: letters, digits and _")
    return value


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def at_least(shortest: float) -> AfterValidator:
    """Refuse durations shorter than *shortest* seconds."""

    def check(seconds: float) -> float:
        if seconds < shortest:
            raise expected(f"a duration of at least {format_duration(shortest)}")
        return seconds

    return AfterValidator(check)


def _writing(write: Callable[[T], str]) -> PlainSerializer:
    """Serialise as a number, or as people write it when the context says {"human": True}."""

    def serialise(value: T, info: SerializationInfo) -> T | str | int:
        if info.context and info.context.get("human"):
            return write(value) if value else 0
        return value

    return PlainSerializer(serialise)


def _unit_schema(pattern: str, example: str) -> WithJsonSchema:
    forms = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^({pattern})$"}]
    return WithJsonSchema({"anyOf": forms, "examples": [example]})


def is_database_url(value: str) -> bool:
    """Answer whether *value* is a libpq URL."""
    try:
        url = urlsplit(value)
        return url.scheme in ("postgresql", "postgres") and (url.port or 1) > 0
    except ValueError:
        return False


Duration = Annotated[
    float,
    BeforeValidator(_reading(_read_duration, "a duration such as 500ms, 30s or 1h30m (at most 3650d)")),
    _writing(format_duration),
    _unit_schema(r"\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)\s*)+|[0-9]+(\.[0-9]+)?", "30s"),
]
Size = Annotated[
    int,
    BeforeValidator(_reading(parse_size, "a size such as 512MiB, 1GB or a number of bytes")),
    _writing(format_size),
    _unit_schema(r"[0-9]+(\.[0-9]+)?\s*[kKmMgGtT]?i?[bB]|[0-9]+", "512MiB"),
]
Fraction = Annotated[
    float,
    BeforeValidator(_reading(parse_fraction, "a percentage from 0% to 100%, or a number from 0 to 1")),
    _writing(format_fraction),
    _unit_schema(r"[0-9]+(\.[0-9]+)?\s*%?", "10%"),
]
Whole = Annotated[int, BeforeValidator(_refuse_bool)]
Text = Annotated[str, AfterValidator(_check_text)]
MaybeText = Annotated[Text | None, BeforeValidator(_empty_as_none)]
COMMAS = BeforeValidator(_split_commas)
TextList = Annotated[list[Text], COMMAS]
QueueName = Annotated[str, AfterValidator(_check_name)]
PoolName = Annotated[str, AfterValidator(_check_label)]
VariableName = Annotated[str, AfterValidator(_check_variable)]
VariableText = Annotated[Text, BeforeValidator(_number_as_text)]


class Range(Group):
    """A number, or {min, max}."""

    min: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    """The smallest number."""
    max: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    """The largest number."""

    @model_validator(mode="before")
    @classmethod
    def read_number(cls, value: object) -> object:
        """Let one number stand for both ends."""
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        if not isinstance(value, dict | Range):
            raise expected("a whole number, or {min, max}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Offer both forms."""
        return {"anyOf": [handler(schema), {"type": "integer", "minimum": 1}]}


class RangeFromNone(Range):
    """A number, or {min, max}; *min* may be 0, where there may be none for a while."""

    min: Annotated[Whole, Field(ge=0, le=10_000)] = 1
    """The smallest number."""
