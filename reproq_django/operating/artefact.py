"""The program as a release artefact: where it is looked for, and how it comes from a release, with its checksum proved.

    REPROQ_WORKER_BIN (setting, then environment) → ./.reproq/bin/reproq → bin/ of this package → PATH

The program is a part of this very package, so nothing needs an artefact; it is for machines that run one without an installation of Python
packages. It comes from REPROQ_RELEASE_URL (setting, then environment) or `--source`, an https address or a folder:
`<address>/<tag>/reproq-<system>-<machine>`, beside it the same with `.sha256`. Without a matching checksum nothing is installed.
"""

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError

_LOCAL = Path(".reproq/bin/reproq")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_MOST_BYTES = 512 * 1024 * 1024
_TIMEOUT_S = 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def find_program() -> Path | None:
    """Return the first program in the order above; None where only this package has it."""
    return next((path for path in _candidates() if path.is_file() and os.access(path, os.X_OK)), None)


def version_of(program: Path) -> str:
    """Return what `--version` says.

    Raises:
      CommandError: it is no program of ours, or not for this machine.
    """
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CommandError(f"{program}: expected a program that says its --version, got: {error}") from error
    return done.stdout.strip()


def asset_name() -> str:
    """Return the name of the artefact for this machine."""
    machine = platform.machine().lower()
    return f"reproq-{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


def install_program(source: str | None, tag: str) -> Path:
    """Fetch the artefact, prove its checksum, try it, and put it in its place in one step; return that place.

    Raises:
      CommandError: why nothing was installed.
    """
    address = source or _named("REPROQ_RELEASE_URL")
    if not address:
        raise CommandError("--source: expected an address or a folder with releases, got none; REPROQ_RELEASE_URL sets one for good")
    asset = f"{address.rstrip('/')}/{tag}/{asset_name()}"
    target = Path(_named("REPROQ_WORKER_BIN") or _LOCAL).absolute()
    wanted = _checksum(asset)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    fetched = Path(name)
    try:
        with open(descriptor, "wb") as file:
            digest = hashlib.sha256()
            for chunk in _fetch(asset, _MOST_BYTES):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != wanted:
            raise CommandError(f"{asset}: expected the checksum {wanted}, got {digest.hexdigest()}; nothing was installed")
        fetched.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        version_of(fetched)
        fetched.replace(target)
    finally:
        fetched.unlink(missing_ok=True)
    return target


def _candidates() -> Iterator[Path]:
    if named := _named("REPROQ_WORKER_BIN"):
        yield Path(named)
    yield _LOCAL
    yield Path(__file__).parents[1] / "bin" / "reproq"
    if found := shutil.which("reproq"):
        yield Path(found)


def _named(name: str) -> str:
    return str(getattr(settings, name, None) or os.environ.get(name) or "")


def _checksum(asset: str) -> str:
    words = b"".join(_fetch(f"{asset}.sha256", 4096)).decode(errors="replace").split()
    if not words or len(words[0]) != 64 or set(words[0].lower()) - set("0123456789abcdef"):
        raise CommandError(f"{asset}.sha256: expected a SHA-256 checksum, got none; nothing was installed")
    return words[0].lower()


def _fetch(address: str, most: int) -> Iterator[bytes]:
    """Yield what is at *address*: of an https server, or a file.

    Raises:
      CommandError: it cannot be read, is longer than *most*, or would come unprotected over a network.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("", "file", "https") and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise CommandError(f"{address}: expected an https address or a folder")
    url = Path(address).absolute().as_uri() if not parts.scheme else address
    read = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the schemes are checked above
            while chunk := answer.read(1 << 16):
                read += len(chunk)
                if read > most:
                    raise CommandError(f"{address}: expected at most {most} bytes, got more")
                yield chunk
    except (OSError, urllib.error.URLError) as error:
        raise CommandError(f"{address}: expected to read it, got: {getattr(error, 'reason', error)}") from error
