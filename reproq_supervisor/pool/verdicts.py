"""From what an executor said, or from how it died, to the ending that is written."""

import json
import signal
from collections.abc import Sequence

from reproq_supervisor.core.runs import ErrorKind, Outcome, RunId
from reproq_supervisor.core.work import Result, Verdict
from reproq_supervisor.pool.held import RELEASED, End, Held
from reproq_supervisor.process.deadlines import SoftReason

_OUTCOMES = {Verdict.SUCCEED: Outcome.SUCCEED, Verdict.FAIL: Outcome.FAIL, Verdict.FAIL_FINALLY: Outcome.FAIL_FINALLY}


def end_of_result(held: Held, result: Result, logs_uri: str | None, policy_delay_s: float) -> End:
    """Return the end of a run whose executor reported it; *policy_delay_s* is the delay of a retry that asks for none itself."""
    if result.verdict is Verdict.COMPLETED:
        return End(Outcome.COMPLETED, logs_uri=logs_uri)
    if result.verdict is Verdict.STOPPED:
        return _end_of_stopped(held, logs_uri, policy_delay_s)
    delay_s = result.delay_s if result.delay_s is not None else policy_delay_s
    return End(_OUTCOMES[result.verdict], result.body, delay_s if result.verdict is Verdict.FAIL else None, logs_uri)


def end_of_death(held: Held, status: int, logs_uri: str | None, policy_delay_s: float, shared_with: Sequence[RunId] = ()) -> End:
    """Return the end of a run that was running when its executor died.

    Args:
      status: the exit code, or minus the signal.
      policy_delay_s: the delay of a retry after a time limit; after a crash the store decides, which knows how many there were.
      shared_with: the other runs that were running there: any of them may be the cause.
    """
    if held.soft_reason is not None:
        return _end_of_stopped(held, logs_uri, policy_delay_s)
    error: dict[str, object] = {"kind": ErrorKind.WORKER_CRASHED}
    if status < 0:
        error["signal"] = signal_name(-status)
        error["message"] = f"the executor was killed by {error['signal']}"
    else:
        error["exit_code"] = status
        error["message"] = f"the executor exited with code {status} in the middle of the task"
    if shared_with:
        error["shared_with"] = list(shared_with)
    return End(Outcome.FAIL, json.dumps(error).encode(), logs_uri=logs_uri)


def _end_of_stopped(held: Held, logs_uri: str | None, policy_delay_s: float) -> End:
    match held.soft_reason:
        case SoftReason.TIMEOUT:
            message = f"stopped after {held.limit_s or held.claimed.timeout_s:g} s, its time limit"
            return End(Outcome.FAIL, _error(ErrorKind.TIMEOUT, message), policy_delay_s, logs_uri)
        case SoftReason.CANCEL:
            return End(Outcome.CANCEL, _error(ErrorKind.CANCELLED, "Task cancelled by request"), logs_uri=logs_uri)
        case SoftReason.BLOCKED:
            message = "kept its executor from starting any other task, so the executor was killed"
            return End(Outcome.FAIL, _error(ErrorKind.WORKER_CRASHED, message), logs_uri=logs_uri)
        case SoftReason.BEREFT:
            # A release all the same, of which the store counts how often it came to that.
            return End(
                Outcome.RELEASE, _error(ErrorKind.WORKER_CRASHED, "its nursery died while it ran, and it had started last"), None, logs_uri
            )
        case _:
            return RELEASED


def cancelled_before_start() -> End:
    """Return the end of a run that was cancelled while it waited here."""
    return End(Outcome.CANCEL, _error(ErrorKind.CANCELLED, "Task cancelled by request"))


def _error(kind: ErrorKind, message: str) -> bytes:
    return json.dumps({"kind": kind, "message": message}).encode()


def signal_name(signum: int) -> str:
    """Return SIGKILL for 9, and so on."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
