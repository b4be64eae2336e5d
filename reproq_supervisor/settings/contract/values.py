"""Who wins: defaults < file < environment < flags. An empty text is unset, wherever it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from reproq_supervisor.settings.contract.file import ContractError, WorkerFile
from reproq_supervisor.settings.contract.reading import Value, WrongValueError, read_value
from reproq_supervisor.settings.contract.words import BY_NAME, WORDS, Word
from reproq_supervisor.settings.masking import is_secret, mask_text
from reproq_supervisor.settings.model import EMBEDDED
from reproq_supervisor.settings.problems import Problem

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Values:
    """Every word's value, by the name of its flag, and who gave it."""

    by_name: Mapping[str, Value]
    origins: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return a text; empty when it is unset."""
        return cast("str", self.by_name[name])

    def texts(self, name: str) -> list[str]:
        """Return a list."""
        return list(cast("tuple[str, ...]", self.by_name[name]))

    def number(self, name: str) -> float:
        """Return a number, or the seconds of a duration."""
        return cast("float", self.by_name[name])

    def whole(self, name: str) -> int:
        """Return a whole number."""
        return cast("int", self.by_name[name])

    def is_given(self, name: str) -> bool:
        """Answer whether anybody gave it."""
        return self.origins[name] != DEFAULT

    def is_changed(self, name: str) -> bool:
        """Answer whether somebody gave it another value than its default: files are often made from a template that has them all."""
        return self.is_given(name) and self.by_name[name] != read_value(BY_NAME[name], BY_NAME[name].default)


def settle(file: WorkerFile, environ: Mapping[str, str], flags: Mapping[str, str]) -> Values:
    """Return the value of every word.

    Args:
      flags: by name, without dashes.

    Raises:
      ContractError: with every value that is wrong, whoever gave it.
    """
    by_name: dict[str, Value] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    for word in WORDS:
        text, origin = _strongest(word, file, environ, flags)
        try:
            by_name[word.name], origins[word.name] = read_value(word, text), origin
        except WrongValueError as error:
            problems.append(Problem(origin, f"{error}, got {_shown(word, text)}"))
    if not problems:
        problems += _check_together(by_name, origins)
    if problems:
        raise ContractError(file.path or "worker", tuple(problems))
    return Values(by_name, origins)


def _strongest(word: Word, file: WorkerFile, environ: Mapping[str, str], flags: Mapping[str, str]) -> tuple[str, str]:
    if word.flag and flags.get(word.name):
        return flags[word.name], f"--{word.name}"
    if word.env and environ.get(word.env):
        return environ[word.env], word.env
    for key in reversed(word.keys):
        if key in file.texts:
            return file.texts[key], key
    return word.default, DEFAULT


def _check_together(by_name: Mapping[str, Value], origins: Mapping[str, str]) -> list[Problem]:
    if by_name["dsn"] in ("", EMBEDDED):  # the folder of a worker goes with it, and so would the data
        return [
            Problem(
                "dsn",
                "expected the URL of a database",
                hint="--dsn, DATABASE_URL, or dsn in reproq.yaml; an embedded one comes with: reproq-supervisor run",
            )
        ]
    least, most = cast("float", by_name["poll-min-backoff"]), cast("float", by_name["poll-max-backoff"])
    if least > most:
        return [Problem(BY_NAME["poll-max-backoff"].keys[0], f"expected at least poll_min_backoff ({least:g} s), got {most:g} s")]
    return []


def _shown(word: Word, text: str) -> str:
    return "***" if is_secret(word.name) or word.name == "dsn" else repr(mask_text(text)[:60])
