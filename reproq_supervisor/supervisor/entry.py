"""The life of the supervisor, from its first line to its exit code.

Descriptor N of `--settings-fd N` holds the resolved settings as JSON. Signals are taken before anything else, so that none is lost
during the boot.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import reproq_supervisor
from reproq_supervisor.core.supervision.messages import workers_dir
from reproq_supervisor.core.supervision.supervision import Supervision
from reproq_supervisor.process.heap import give_back
from reproq_supervisor.process.prctl import become_subreaper, set_name
from reproq_supervisor.settings.changes import classify
from reproq_supervisor.supervisor.address import Address, AddressError
from reproq_supervisor.supervisor.children import Children
from reproq_supervisor.supervisor.control import Control
from reproq_supervisor.supervisor.loop import Loop
from reproq_supervisor.supervisor.marks import Marks
from reproq_supervisor.supervisor.notify import Notifier, notify_environment
from reproq_supervisor.supervisor.orphans import Orphans
from reproq_supervisor.supervisor.programs import Programs
from reproq_supervisor.supervisor.signals import SignalFlags
from reproq_supervisor.telemetry.lines import LogFormat
from reproq_supervisor.telemetry.log import Log

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None, programs: Programs | None = None) -> int:
    """Supervise; return the exit code.

    Args:
      programs: what to start for each role; tests give their own.
    """
    signals = SignalFlags()
    match list(sys.argv[1:] if arguments is None else arguments):
        case ["--settings-fd", fd] if fd.isdecimal():
            settings = _read_settings(int(fd))
        case other:
            sys.stderr.write(
                f"reproq_supervisor.supervisor: expected --settings-fd N, got {other}; people start it with: reproq-supervisor run\n"
            )
            return EXIT_USAGE
    become_subreaper()
    set_name("reproq-super")
    try:
        return _supervise(settings, signals, programs or Programs())
    except AddressError as error:
        sys.stderr.write(f"reproq-supervisor: {error}\n")
        return EXIT_FAILED
    finally:
        _remove_temporary(settings)
        _remove_record(settings["runtime"])
        signals.close()


def _read_settings(fd: int) -> dict[str, Any]:
    with open(fd, "rb") as file:
        settings: dict[str, Any] = json.load(file)
    return settings


def _supervise(settings: dict[str, Any], signals: SignalFlags, programs: Programs) -> int:
    log = Log(sys.stderr.fileno(), LogFormat.LOGFMT)
    log.configure(settings.get("logs", {}), notify_environment())
    address = Address(settings["runtime"]["control_socket"])
    notifier = Notifier(notify_environment(), os.getpid())
    core = Supervision(settings, classify, pid=os.getpid(), version=reproq_supervisor.__version__, now=time.monotonic())
    orphans = Orphans()
    try:
        loop = Loop(
            core, Children(programs, orphans), orphans, Marks(workers_dir(settings)), Control(address.listener), signals, notifier, log
        )
        give_back()
        return loop.run()
    finally:
        notifier.close()
        address.close()


def _remove_record(runtime: dict[str, Any]) -> None:
    """Remove what commands found us by: the DSN in it may hold a password, and nobody needs it any more."""
    path = Path(runtime["runtime_dir"]) / "daemon.json"
    try:
        if json.loads(path.read_bytes())["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, TypeError, KeyError):
        return  # removed with its folder, or of somebody else


def _remove_temporary(settings: dict[str, Any]) -> None:
    runtime = settings["runtime"]
    folders = [*(runtime.get("temporary_dirs") or []), *((runtime.get("embedded") or {}).get("temporary_dirs") or [])]
    if folders:
        from reproq_supervisor.process.places import remove_temporary_dirs  # brings modules that only this needs

        remove_temporary_dirs(folders)
