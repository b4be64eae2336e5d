"""Arguments as JSON and back: what JSON has, and of Django's values those that a task can get again.

    timedelta          {"__reproq_type__": "timedelta", "days": 1, "seconds": 0, "microseconds": 0}
    a saved model      {"__reproq_type__": "model", "app_label": "shop", "model": "order", "pk": "7"}, fetched anew when the task starts
    a dict with that very name in it    {"__reproq_type__": "dict", "items": {...}}

Dates, times, Decimal, UUID and translated texts become text as in `DjangoJSONEncoder`, and arrive as text, as numbers do that are keys of
a dict; tuples arrive as lists.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model
from django.utils.functional import Promise

from reproq_supervisor.client.arguments import check_json

TYPE = "__reproq_type__"
_PLAIN = frozenset({str, int, float, bool, type(None)})


class DeserializationError(Exception):
    """An argument cannot be made again; the attempt fails, and may succeed later."""


class _Encoder(DjangoJSONEncoder):
    """Django's encoder, asked for one value at a time."""


_ENCODER = _Encoder()


def encode_args(args: Any, kwargs: Mapping[str, Any], path: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call of the task *path* as PostgreSQL can keep them.

    Raises:
      TypeError: a value has no form in JSON, as a model whose key is of several columns.
      ValueError: a model that is not saved, or text or numbers that JSON or PostgreSQL refuse; the message names the place.
    """
    encoded_args = [_encode_at(f"{path}: args[{at}]", value) for at, value in enumerate(args)]
    encoded_kwargs = {name: _encode_at(f"{path}: kwargs.{name}", value) for name, value in kwargs.items()}
    for at, value in enumerate(encoded_args):
        check_json(value, f"{path}: args[{at}]")
    check_json(encoded_kwargs, f"{path}: kwargs")
    return encoded_args, encoded_kwargs


def _encode_at(place: str, value: Any) -> Any:
    try:
        return _encode(value)
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{place}: expected a value that does not contain itself") from error


def _encode(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        items = {_key(name): _encode(item) for name, item in value.items()}
        if len(items) < len(value):
            raise ValueError("expected keys that differ as text, got two that JSON cannot tell apart")
        return {TYPE: "dict", "items": items} if TYPE in items else items
    if isinstance(value, timedelta):
        return {TYPE: "timedelta", "days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
    if isinstance(value, Model):
        return _reference_to(value)
    if isinstance(value, str | int | float):
        # A subclass, such as the members of TextChoices, is what JSON makes of it.
        return json.loads(_ENCODER.encode(value))
    return _ENCODER.default(value)


def _key(name: Any) -> str:
    """Return *name* as the key that JSON makes of it: a number or None becomes text, as a translated text does."""
    if isinstance(name, Promise):
        return str(name)
    (key,) = json.loads(json.dumps({name: None}))
    return str(key)


def _reference_to(instance: Model) -> dict[str, str]:
    meta = instance._meta
    if instance.pk is None or instance._state.adding:
        raise ValueError(f"{meta.label}: expected a saved object as argument of a task, got one that is in no database yet")
    if isinstance(instance.pk, tuple):
        raise TypeError(f"{meta.label}: expected an object with one primary key, got one of several columns; pass their values")
    return {TYPE: "model", "app_label": meta.app_label, "model": str(meta.model_name), "pk": str(instance.pk)}


def decode_args(args: list[Any], kwargs: Mapping[str, Any], alias: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments as the task gets them; models are read from the database *alias*.

    Raises:
      DeserializationError: one of them cannot be made.
    """
    return [_decode(value, alias) for value in args], {name: _decode(value, alias) for name, value in kwargs.items()}


def _decode(value: Any, alias: str) -> Any:
    if isinstance(value, list):
        return [_decode(item, alias) for item in value]
    if not isinstance(value, dict):
        return value
    if TYPE not in value:
        return {name: _decode(item, alias) for name, item in value.items()}
    try:
        match value[TYPE]:
            case "timedelta":
                return timedelta(days=value["days"], seconds=value["seconds"], microseconds=value["microseconds"])
            case "model":
                return _fetch(value, alias)
            case "dict":
                return {name: _decode(item, alias) for name, item in value["items"].items()}
            case unknown:
                raise DeserializationError(f"{TYPE}: expected timedelta, model or dict, got {unknown!r}")
    except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DeserializationError(f"{value[TYPE]}: expected what this package writes, got {type(error).__name__}: {error}") from error


def _fetch(value: Mapping[str, Any], alias: str) -> Model:
    named = f"{value['app_label']}.{value['model']}"
    try:
        model = apps.get_model(value["app_label"], value["model"])
    except LookupError as error:
        raise DeserializationError(f"{named}: expected a model of an installed application: {error}") from error
    try:
        found: Model = model._default_manager.using(alias).get(pk=value["pk"])
    except (ObjectDoesNotExist, ValidationError) as error:
        raise DeserializationError(f"{named}: expected an object with the primary key {value['pk']!r}, got none in {alias!r}") from error
    return found
