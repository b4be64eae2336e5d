"""The reference implementation of the executor protocol: run one task in a fresh interpreter, say how it ended, leave.

    python -m reproq_supervisor.executor.program --result-id 7 --attempt 1 --payload-stdin < spec.json

The result envelope (see `envelope`) is all that reaches the real standard output; what the task itself writes there, C code and programs
that it starts included, goes to standard error. TERM and INT are the soft signal: the task gets `SoftTimeout`, and the envelope says
`Terminated`. ALLOWED_TASK_MODULES (prefixes with commas) limits which tasks may run; unset, whoever started the program has seen to that.

Exit codes: 0 success, 1 failure, 2 wrong arguments.
"""

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from reproq_supervisor.core.runs import ErrorKind
from reproq_supervisor.core.work import MAX_RESULT_BYTES, Result, Verdict, Work
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.encode import encode_error, message_of
from reproq_supervisor.executor.envelope import write_envelope
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.process import stacks
from reproq_supervisor.process.deadlines import DeadlineTable, SoftReason

_SEQ = 1
_DEFAULT_MAX_ATTEMPTS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the one task that the arguments tell of; return the exit code."""
    options = _parse(arguments)
    envelope_fd = _take_stdout()
    stacks.write_stacks_on_signal()
    soft = _catch_termination()
    own_pid = os.getpid()
    result = _run(options, soft)
    if os.getpid() != own_pid:
        os._exit(0)  # the task forked and came back twice: only the parent speaks
    _write_all(envelope_fd, write_envelope(result))
    return 0 if result.verdict is Verdict.SUCCEED else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="reproq_supervisor.executor.program", description="Run one task and print its result envelope.")
    parser.add_argument("--result-id", type=int, required=True)
    parser.add_argument("--attempt", type=int, default=1)
    payload = parser.add_mutually_exclusive_group(required=True)
    payload.add_argument("--payload-stdin", action="store_true", help="read the spec from standard input")
    payload.add_argument("--payload-file", metavar="PATH", help="read the spec from a file")
    payload.add_argument("--payload-json", metavar="JSON", help="the spec itself; everybody on the machine can read it")
    parser.add_argument("--settings", metavar="MODULE", help="DJANGO_SETTINGS_MODULE")
    parser.add_argument("--task-path", metavar="PATH", help="for a spec without task_path")
    return parser.parse_args(arguments)


def _take_stdout() -> int:
    """Keep the real standard output for the envelope, and lead descriptor 1 to standard error."""
    envelope_fd = os.dup(1)
    os.dup2(2, 1)
    return envelope_fd


def _catch_termination() -> SoftSignal:
    table = DeadlineTable.create(1)
    soft = SoftSignal(table, 0)

    def ask(signum: int, frame: FrameType | None) -> None:
        table.set_soft(0, _SEQ, SoftReason.TERMINATED)
        soft.handle(signum, frame)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, ask)
    return soft


def _run(options: argparse.Namespace, soft: SoftSignal) -> Result:
    try:
        payload = _read_payload(options)
    except OSError as error:
        return Result(_SEQ, Verdict.FAIL_FINALLY, encode_error(ErrorKind.INVALID_SPEC, f"the payload cannot be read: {error}"))
    spec = _glance(payload)
    try:
        _set_up_django(options.settings or _in(spec, "django", "settings_module") or os.environ.get("DJANGO_SETTINGS_MODULE"))
    except BaseException as error:  # boundary: importing settings and applications runs user code
        return Result(_SEQ, Verdict.FAIL, encode_error(ErrorKind.APP_ERROR, message_of(error), error))
    work = Work(
        _SEQ,
        options.result_id,
        options.attempt,
        _whole(_in(spec, "exec", "max_attempts"), _DEFAULT_MAX_ATTEMPTS),
        _whole(spec.get("priority"), 0),
        str(spec.get("queue_name") or "default"),
        options.task_path or "",
        payload,
    )
    allowed = os.environ.get("ALLOWED_TASK_MODULES")
    prefixes = ["*"] if allowed is None else [prefix.strip() for prefix in allowed.split(",") if prefix.strip()]
    return run_attempt(work, Resolver(prefixes), soft, MAX_RESULT_BYTES)


def _read_payload(options: argparse.Namespace) -> bytes:
    if options.payload_json is not None:
        return os.fsencode(options.payload_json)
    if options.payload_file is not None:
        return Path(options.payload_file).read_bytes()
    return sys.stdin.buffer.read()


def _glance(payload: bytes) -> dict[str, Any]:
    """Return what is told beside the call; a spec that does not parse tells nothing, and `run_attempt` says why."""
    try:
        spec = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return spec if isinstance(spec, dict) else {}


def _in(spec: dict[str, Any], group: str, key: str) -> Any:
    inner = spec.get(group)
    return inner.get(key) if isinstance(inner, dict) else None


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _set_up_django(settings_module: object) -> None:
    if settings_module:
        os.environ["DJANGO_SETTINGS_MODULE"] = str(settings_module)
        importlib.import_module("django").setup()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    sys.exit(main())
