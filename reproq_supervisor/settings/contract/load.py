"""The settings of a one-pool supervisor from what the older worker is given; also for a reload, which reads the file again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproq_supervisor.settings.contract.dsn import read_dsn
from reproq_supervisor.settings.contract.file import USUAL_FILES, ContractError, read_file
from reproq_supervisor.settings.contract.translate import translate
from reproq_supervisor.settings.contract.values import settle
from reproq_supervisor.settings.document import Document
from reproq_supervisor.settings.layers import Layers
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.settings.validate import validate


@dataclass(frozen=True, slots=True)
class Worker:
    """Settings that are valid, the name its processes claim under (None: the host's), and advice."""

    settings: Settings
    name: str | None
    advice: tuple[str, ...]


def load_worker(path: str | None, flags: Mapping[str, str], environ: Mapping[str, str]) -> Worker:
    """Return the worker of that file, those flags and that environment.

    Raises:
      ContractError: with every problem.
    """
    file = read_file(path)
    values = settle(file, environ, flags)
    translation = translate(values, environ)
    source = path or "worker"
    try:
        settings = validate(Layers.stack(source, Document(), {}, translation.overrides))
    except ConfigError as error:
        raise ContractError(source, error.problems) from error
    unknown = (f"{key}: is not known, and ignored" for key in file.unknown)
    return Worker(settings, values.text("worker-id") or None, (*unknown, *translation.advice))


def is_worker_file(path: str) -> bool:
    """Answer by its name whether the file is one of the older worker, for commands that only need its database."""
    return Path(path).name in USUAL_FILES or Path(path).suffix == ".toml"


def dsn_of_file(path: str) -> str:
    """Return the database that a worker's file names.

    Raises:
      ContractError: it cannot be read, or names none.
    """
    texts = read_file(path).texts
    found = texts.get("worker.dsn") or texts.get("dsn")
    if found is None:
        problem = Problem("dsn", "expected the URL of a database, found none", hint="--dsn, DATABASE_URL, or dsn in this file")
        raise ContractError(path, (problem,))
    return read_dsn(found).url


def origin_of(path: str | None, flags: Mapping[str, str]) -> dict[str, Any]:
    """Return what a reload needs to come to these settings again, for `runtime` (docs/architecture.md)."""
    return {"contract": {"path": path, "flags": dict(flags)}}
