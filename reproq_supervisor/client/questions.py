"""What both clients ask the store, with what a caller gives checked first and what it gets in the caller's terms."""

from collections.abc import Sequence

from reproq_supervisor.client.arguments import check_ids, check_run
from reproq_supervisor.client.result import TaskResult
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store import commands
from reproq_supervisor.store.asking import Question
from reproq_supervisor.store.commands import counting, watching
from reproq_supervisor.store.enqueue import enqueuing as inserting
from reproq_supervisor.store.triage import Retried
from reproq_supervisor.store.triage import retrying as beginning_anew

__all__ = ["cancelling", "counting", "enqueuing", "reading", "retrying", "watching"]


def enqueuing(runs: Sequence[NewRun]) -> Question[list[RunId]]:
    """Insert *runs* and return their ids.

    Raises:
      ArgumentsError: one of them cannot be stored as it is; none is inserted.
    """
    return (yield from inserting(runs, check_run))


def reading(runs: Sequence[int]) -> Question[dict[RunId, TaskResult]]:
    """Return those of *runs* that exist."""
    found = yield from commands.reading(check_ids(runs))
    return {run: TaskResult.of(view) for run, view in found.items()}


def cancelling(runs: Sequence[int], *, leaves_word: bool) -> Question[dict[RunId, commands.CancelOutcome]]:
    """Cancel *runs*, and say what that did; *leaves_word* in the caller's own transaction."""
    return (yield from commands.cancelling(check_ids(runs), leaves_word=leaves_word))


def retrying(runs: Sequence[int]) -> Question[dict[RunId, Retried]]:
    """Make ended *runs* active again, and say what that did."""
    retried = yield from beginning_anew(check_ids(runs))
    return {each.result_id: each for each in retried}
