"""Flags in the syntax of Go programs: one dash or two, a value behind `=` or as the next word."""

from collections.abc import Sequence
from typing import Any

import click

from reproq_supervisor.settings.contract.reading import WrongValueError, read_value
from reproq_supervisor.settings.contract.words import BY_NAME, FLAGS, Kind, Word

# What `common_options` has already.
_COMMON = ("config", "dsn")
_SWITCHES = ("json", "help")
_SHORT = {"c": "config", "h": "help"}
_METAVARS = {Kind.TEXT: "TEXT", Kind.WHOLE: "N", Kind.NUMBER: "N", Kind.DURATION: "DURATION", Kind.LIST: "A,B"}


class GoCommand(click.Command):
    """A command that takes `-concurrency 4` for `--concurrency=4`, and words errors as Go does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write *args* in the one form that click reads without a doubt."""
        return super().parse_args(ctx, _normal(args, ctx))


def worker_options(function: Any) -> Any:
    """Give a command every flag of the table; it takes them as one keyword argument each, None when not given."""
    for word in reversed(FLAGS):
        if word.name not in _COMMON:
            option = click.option(f"--{word.name}", metavar=_METAVARS[word.kind], help=_help(word), callback=_check)
            function = option(function)
    return function


def _help(word: Word) -> str:
    notes = [each for each in (f"default {word.default}" if word.default else "", word.env or "") if each]
    return f"{word.about} ({'; '.join(notes)})" if notes else word.about


def _check(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse here what Go's flag package refuses: what is no number. Whether the number makes sense is asked with the file's."""
    word = BY_NAME[(parameter.name or "").replace("_", "-")]
    if value and word.kind in (Kind.WHOLE, Kind.NUMBER, Kind.DURATION):
        try:
            read_value(word._replace(least=float("-inf")), value)
        except WrongValueError:
            raise click.UsageError(f'invalid value "{value}" for flag -{word.name}: parse error', ctx) from None
    return value


def _normal(args: Sequence[str], ctx: click.Context) -> list[str]:
    known = {*(word.name for word in FLAGS), *_COMMON, *_SWITCHES}
    found: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if not arg.startswith("-") or arg in ("-", "--"):
            raise click.UsageError(f"expected flags only, got {arg!r}", ctx)
        name, equals, value = arg.removeprefix("-").removeprefix("-").partition("=")
        name = _SHORT.get(name, name)
        if name not in known:
            raise click.UsageError(f"flag provided but not defined: -{name}", ctx)
        if name in _SWITCHES:
            found.append(f"--{name}")
        elif equals:
            found.append(f"--{name}={value}")
        elif rest:
            found.append(f"--{name}={rest.pop(0)}")
        else:
            raise click.UsageError(f"flag needs an argument: -{name}", ctx)
    return found
