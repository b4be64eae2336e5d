"""Nouns of a task run that the store and the shard share."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType

RunId = NewType("RunId", int)
LeaseNo = NewType("LeaseNo", int)


class RunStatus(StrEnum):
    """The contract's words for the state of a record (`task_runs.status`)."""

    READY = "READY"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL = frozenset({RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.CANCELLED})


class Outcome(StrEnum):
    """How an attempt ends; the store's ending function takes these words."""

    SUCCEED = "succeed"
    FAIL = "fail"  # counted; retried while attempts are left
    FAIL_FINALLY = "fail_finally"  # counted; never retried
    CANCEL = "cancel"  # ends as CANCELLED
    RELEASE = "release"  # given back in the middle of its execution; not counted; capped per run
    COMPLETED = "completed"  # it has ended itself, together with its own writes; what the shard adds is where its output went
    PUT_BACK = "put_back"  # given back before it started: no trace, no cap, for nothing can be wrong with it


class ErrorKind(StrEnum):
    """`errors_json[].kind`."""

    APP_ERROR = "app_error"
    INFRA_ERROR = "infra_error"
    CANCELLED = "cancelled"
    SECURITY_VIOLATION = "security_violation"
    INVALID_SPEC = "invalid_spec"
    LEASE_EXPIRY = "lease_expiry"
    WORKFLOW_FAILED = "workflow_failed"
    RECLAIM = "reclaim"
    TIMEOUT = "timeout"
    WORKER_CRASHED = "worker_crashed"
    EXPIRED = "expired"
    PARENT_FAILED = "parent_failed"
    BAD_RESULT = "bad_result"


class Claimed(NamedTuple):
    """One claimed run, as the shard holds it.

    Attributes:
      spec: JSON text that the shard passes on without parsing it.
      is_suspect: shards keep dying that hold it. It starts only when its record says RUNNING, so that one more death counts as a release.
    """

    result_id: RunId
    lease_no: LeaseNo
    attempt: int
    queue_name: str
    priority: int
    task_path: str
    timeout_s: float
    max_attempts: int
    spec: bytes
    is_suspect: bool = False


class Ending(NamedTuple):
    """What the holder of a lease says about the end of its attempt.

    Attributes:
      value: JSON text: the result for SUCCEED, the error object for FAIL, FAIL_FINALLY and CANCEL (the store adds
        `attempt`, `worker_id` and `at`), None for RELEASE.
      delay_s: seconds until the retry; None means the policy of the queue.
      started_s_ago: seconds from the start of the execution to now, None if it never started.
      logs_uri: where the captured output went.
    """

    result_id: RunId
    lease_no: LeaseNo
    outcome: Outcome
    value: bytes | None = None
    delay_s: float | None = None
    started_s_ago: float | None = None
    logs_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A run that has been executing for a while and should show as RUNNING in its record."""

    result_id: RunId
    lease_no: LeaseNo
    started_s_ago: float


@dataclass(frozen=True, slots=True)
class Note:
    """What the holder of a lease has its run note down about itself: JSON text, the whole of `metadata_json`."""

    result_id: RunId
    lease_no: LeaseNo
    metadata: bytes


@dataclass(frozen=True, slots=True)
class CycleRequest:
    """One conversation of a shard with the database: everything in it is one commit.

    Attributes:
      claims: (queue name, wanted) in the order of this cycle's turns; what one queue cannot fill is offered to the
        others in that order.
      renew: leases to extend to now + `lease_s`.
      watch: held runs to check for cancel requests.
      claim_bytes: the claim ends with the run whose spec goes beyond it, so that there is always one.
    """

    lease_s: float
    endings: tuple[Ending, ...] = ()
    started: tuple[Started, ...] = ()
    renew: tuple[tuple[RunId, LeaseNo], ...] = ()
    watch: tuple[RunId, ...] = ()
    claims: tuple[tuple[str, int], ...] = ()
    claim_bytes: int = 64 * 1024 * 1024

    @property
    def only_claims(self) -> bool:
        """Answers whether it asks for work and says nothing else."""
        return not (self.endings or self.started or self.renew or self.watch)


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits in the queues of a pool.

    Attributes:
      waiting: runs that are ready, counted up to a bound.
      workers: shards of all hosts that serve any of these queues, the one that asks included.
    """

    waiting: int = 0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class CycleReply:
    """What became of a `CycleRequest`.

    Attributes:
      ended: run → the status its record has now (READY after a retry or release).
      lost: runs of `endings`, `started` or `renew` whose lease is no longer ours: drop them, stop what still runs.
      busy: runs of `endings` or `started` that somebody else has locked: still ours, nothing is written, say it again later.
      refused: runs of `endings` or `started` that PostgreSQL does not write → why, fit for a log: still ours, say it again.
      unrenewed: runs of `renew` whose lease stays as it was, for the same reason.
      cancel: watched runs that somebody asked to cancel.
      is_cut: `claim_bytes` ended the claim, or it passed over too many runs whose keys are full, though there was more to claim.
      is_contended: others had the locks of some keys; a claim a moment later may find more.
      next_token_s: seconds until the next token of a rate limit that anybody waits for; None when nobody does.
    """

    ended: dict[RunId, RunStatus] = field(default_factory=dict)
    lost: frozenset[RunId] = frozenset()
    busy: frozenset[RunId] = frozenset()
    refused: dict[RunId, str] = field(default_factory=dict)
    unrenewed: frozenset[RunId] = frozenset()
    cancel: frozenset[RunId] = frozenset()
    claimed: tuple[Claimed, ...] = ()
    is_cut: bool = False
    is_contended: bool = False
    next_token_s: float | None = None
