"""What `doctor` says of the safety of a configuration: all of it works, and some of it lets in who should stay out."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from reproq_supervisor.settings.model import Settings

# (level, check, message, remedy): `task_doctor` makes findings of them.
Words = tuple[str, str, str, str]

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_GUARDED = {"require", "verify-ca", "verify-full"}
_AT_HOME = ("localhost", "127.", "::1", "/", "@")


def examine_safety(settings: "Settings", source: Path | None, dsn: str | None) -> Iterator[Words]:
    """Examine what the settings allow. *source*: the file they come from; *dsn*: of the database, None when it is not known."""
    yield from _tasks(settings)
    if settings.logs_dir is not None:
        yield from _logs(Path(settings.logs_dir))
    if source is not None:
        yield from _file(source)
    if dsn is not None:
        yield from _connection(dsn)
    yield from _web(settings)


def _tasks(settings: "Settings") -> Iterator[Words]:
    allowed = settings.app.allowed_task_modules
    if "*" in allowed:
        message = 'app.allowed_task_modules has "*": whoever can insert a row can run any function'
        yield "warning", "tasks", message, "name the modules of your tasks, such as myapp.tasks."
    elif not allowed:
        yield (
            "warning",
            "tasks",
            "app.allowed_task_modules is empty: no task may run",
            "name the modules of your tasks, such as myapp.tasks.",
        )


def _logs(folder: Path) -> Iterator[Words]:
    """The daemon makes a missing folder, for itself alone."""
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        parent = next((each for each in folder.absolute().parents if each.exists()), Path("/"))
        if not os.access(parent, os.W_OK | os.X_OK):
            yield "error", "logs_dir", f"{folder} does not exist, and cannot be made in {parent}", "make it for the account of the daemon"
        return
    except OSError as error:
        yield "error", "logs_dir", f"{folder}: expected a folder, got {error.strerror}", "make it for the account of the daemon"
        return
    if not stat.S_ISDIR(mode):
        yield "error", "logs_dir", f"{folder}: expected a folder, got a file", "name another one"
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield "error", "logs_dir", f"{folder} cannot be written to by this account", "change its owner, or run doctor as the daemon does"
    elif mode & _OF_OTHERS:
        yield (
            "warning",
            "logs_dir",
            f"{folder} is open to others (mode {mode & 0o777:03o}): what tasks print is theirs to read",
            f"chmod 700 {folder}",
        )


def _file(source: Path) -> Iterator[Words]:
    try:
        mode, text = source.stat().st_mode, source.read_text(errors="replace")
    except OSError:
        return  # the settings say what is wrong with the file
    if mode & (stat.S_IRGRP | stat.S_IROTH) and any(_has_password(word.strip("'\"")) for word in text.split() if "://" in word):
        yield (
            "warning",
            "secrets",
            f"{source} holds a password and can be read by others",
            f"chmod 600 {source}, or ${{DATABASE_URL}} in it",
        )


def _has_password(url: str) -> bool:
    try:
        return bool(urlsplit(url).password) and "${" not in url
    except ValueError:
        return False


def _connection(dsn: str) -> Iterator[Words]:
    """Only what the URL says: libpq's own variables may say more."""
    try:
        url = urlsplit(dsn)
        asked = parse_qs(url.query)
        hosts = [*(asked.get("host") or asked.get("hostaddr") or [unquote(url.hostname or "")])[-1].split(",")]
    except ValueError:
        return  # the connection itself says what is wrong with it
    sslmode = asked.get("sslmode", ["not set"])[-1]
    if any(host and not host.startswith(_AT_HOME) for host in hosts) and sslmode not in _GUARDED:
        message = f"the connection to {','.join(hosts)} may go unencrypted: sslmode is {sslmode}"
        yield "warning", "connection", message, "sslmode=verify-full in the URL, or require at least"


def _web(settings: "Settings") -> Iterator[Words]:
    listen = settings.web.listen
    if listen is None:
        return
    host = listen.rpartition(":")[0].strip("[]")
    if not host.startswith(("127.", "localhost", "::1")) and not (settings.web.auth_token and settings.web.allow_cidrs):
        yield (
            "warning",
            "web",
            f"web.listen is {listen}, beyond this machine, without both auth_token and allow_cidrs",
            "set both, or listen on 127.0.0.1",
        )
