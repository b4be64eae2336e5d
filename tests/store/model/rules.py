"""The rules of the queue in plain Python, for one database in which things happen one after the other: what the store is compared with.

Times are microseconds. A run that has not ended is *pending* (it waits for a claim, whatever the lane calls it), *held*, or *waiting* (for
others of its workflow).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SECOND = 1_000_000
RELEASE_CAP = 10
SUSPECT_FROM = 3
ENDED = ("SUCCESSFUL", "FAILED", "CANCELLED")
BY_OTHERS = ("parent_failed", "workflow_failed")


@dataclass
class Hold:
    worker: str
    lease_no: int
    until: int
    since: int
    shown: bool = False


@dataclass
class Run:
    """A run; *status* is what a reader of the record sees while nobody holds it."""

    id: int
    queue: str
    priority: int
    due: int
    enqueued: int
    task: str = "app.task"
    lock: str | None = None
    limit: str | None = None
    size: int = 0
    max_attempts: int = 3
    expires: int | None = None
    dedupe: str | None = None
    hash: str = ""
    was_deduped: bool = False
    workflow: str | None = None
    parent: int | None = None
    status: str = "READY"
    attempts: int = 0
    releases: int = 0
    crashes: int = 0
    deaths: int = 0
    wish: bool = False
    kind: str | None = None
    run_after: int | None = None
    hold: Hold | None = None

    @property
    def state(self) -> str | None:
        """Pending, held, waiting; None when it has ended."""
        if self.status in ENDED:
            return None
        return "held" if self.hold else "waiting" if self.status == "WAITING" else "pending"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.lock and f"lock:{self.lock}", self.limit and f"limit:{self.limit}") if key)


@dataclass
class Flow:
    """A row of workflow_runs."""

    expected: int
    callback: int
    status: str = "RUNNING"


@dataclass
class Bucket:
    rate: int
    burst: int
    tokens: int
    refilled: int

    def at(self, now: int) -> int:
        return min(self.burst, self.tokens + self.rate * (now - self.refilled) // SECOND)


@dataclass
class Rules:
    """The whole state, and what each event makes of it."""

    now: int
    runs: dict[int, Run] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    aging_s: dict[str, int] = field(default_factory=dict)

    # -- who may run ------------------------------------------------------------------------------------------------------

    def order(self, run: Run) -> tuple[float, int, int]:
        """Return the key by which runs of a queue stand in line, the first first."""
        aging = self.aging_s.get(run.queue, 60)
        return (run.due / SECOND - run.priority * aging if aging else -run.priority, run.due, run.id)

    def line(self, queue: str) -> list[Run]:
        """Return the runs of *queue* that wait for a claim and are due, in their order."""
        return sorted((r for r in self.runs.values() if r.queue == queue and r.state == "pending" and r.due <= self.now), key=self.order)

    def used(self, key: str) -> int:
        return sum(run.state == "held" and key in run.keys for run in self.runs.values())

    def has_room(self, run: Run, taken: dict[str, int]) -> bool:
        """Answer whether its keys admit it beside those who hold them and *taken*."""
        sizes = {f"lock:{run.lock}": 1, f"limit:{run.limit}": run.size}
        return all(self.used(key) + taken.get(key, 0) < sizes[key] for key in run.keys)

    def bucket_of(self, run: Run) -> str | None:
        """Return the key of the rate that applies: the first that is there decides, and one of nothing frees."""
        for key in (f"task:{run.task}", f"queue:{run.queue}", "global"):
            if key in self.buckets:
                return key if self.buckets[key].rate > 0 else None
        return None

    def unwanted(self, run: Run) -> str | None:
        if run.expires is not None and run.expires <= self.now:
            return "expired"
        return "cancelled" if run.wish else None

    def admitted(self, queue: str) -> Iterator[Run]:
        """Yield those whom claims take from *queue*, the unwanted among them, as if each were taken at once."""
        taken: dict[str, int] = {}
        spent: dict[str, int] = {}
        for run in self.line(queue) if queue not in self.paused else []:
            bucket = self.bucket_of(run)
            if not self.has_room(run, taken):
                continue
            if self.unwanted(run):
                yield run
                continue
            if bucket and self.buckets[bucket].at(self.now) <= spent.get(bucket, 0):
                continue
            for key in run.keys:
                taken[key] = taken.get(key, 0) + 1
            if bucket:
                spent[bucket] = spent.get(bucket, 0) + 1
            yield run

    # -- events -----------------------------------------------------------------------------------------------------------

    def hold(self, run: Run, worker: str, lease_no: int, lease: int, since: int | None = None) -> None:
        """Give *run* to *worker*, which has had it, and its token, *since* then: now, where nothing is said."""
        since = self.now if since is None else since
        run.hold = Hold(worker, lease_no, since + lease, since)
        run.attempts += 1
        if bucket := self.bucket_of(run):
            of = self.buckets[bucket]
            of.tokens, of.refilled = of.at(since) - 1, since

    def refuse(self, run: Run) -> None:
        """End a run that a claim met and that shall not run."""
        reason = self.unwanted(run)
        self.end(run, "CANCELLED" if reason == "cancelled" else "FAILED", reason)

    def end(self, run: Run, status: str, kind: str | None = None) -> None:
        """End a run for good, with all that follows in its workflow."""
        run.was_deduped = run.dedupe is not None
        run.status, run.kind, run.hold, run.dedupe, run.wish = status, kind or run.kind, None, None, False
        run.run_after = run.run_after if status == "SUCCESSFUL" else None
        children = [each for each in self.runs.values() if each.parent == run.id]
        for child in children:
            if status == "SUCCESSFUL":
                self.wake(child)
        if status != "SUCCESSFUL":
            for child in children:
                if child.status == "WAITING":
                    self.end(child, "FAILED", "parent_failed")
        if run.workflow in self.flows:
            self.settle(run.workflow, run)

    def settle(self, workflow: str | None, of: Run | None) -> None:
        """Decide what follows in a chord from the end of *of*; None: a member that had succeeded was deleted."""
        assert workflow is not None
        flow = self.flows[workflow]
        callback = self.runs.get(flow.callback)
        members = [r for r in self.runs.values() if r.workflow == workflow and r is not callback]
        if of is not None and of.id == flow.callback:
            flow.status = "SUCCESSFUL" if of.status == "SUCCESSFUL" else "FAILED"
        elif of is not None and of.status != "SUCCESSFUL":
            flow.status = "FAILED"
            if callback and callback.state in ("pending", "waiting"):
                self.end(callback, "FAILED", "workflow_failed")
        elif all(member.state is None for member in members):
            succeeded = sum(member.status == "SUCCESSFUL" for member in members)
            if succeeded == len(members) and succeeded >= flow.expected:
                if callback:
                    self.wake(callback)
                if callback and callback.state is not None:
                    flow.status = "WAITING_CALLBACK"

    def wake(self, run: Run) -> None:
        if run.status == "WAITING" or (run.status == "FAILED" and run.kind in BY_OTHERS):
            run.status = "READY"
            run.due = run.run_after = max(run.run_after or self.now, self.now)

    def give_back(self, run: Run, *, counted: bool, due: int | None = None) -> None:
        run.hold, run.status = None, "READY"
        if due is not None:
            run.due = run.run_after = due
        if not counted:
            run.attempts = max(run.attempts - 1, 0)

    def fail(self, run: Run, due: Callable[[], int], *, kind: str = "app_error") -> None:
        """End an attempt that failed. *due* answers when the next one is, where there is one."""
        if run.wish:
            self.end(run, "CANCELLED", kind)
        elif run.attempts >= run.max_attempts:
            self.end(run, "FAILED", kind)
        else:
            self.give_back(run, counted=True, due=due())
            run.kind = kind
            run.crashes += kind != "app_error"

    def release(self, run: Run, *, capped: bool, suspect: bool = False, due: Callable[[], int] | None = None) -> None:
        """Give back uncounted. *due* answers when the next attempt is, where that is not at once."""
        if run.wish:
            self.end(run, "CANCELLED", "cancelled")
        elif capped and run.releases >= RELEASE_CAP:
            self.end(run, "FAILED", "worker_crashed")
        else:
            run.releases += capped
            run.crashes += suspect
            self.give_back(run, counted=False, due=due() if due else None)

    def put_back(self, run: Run) -> None:
        """Its holder says that it never began."""
        if bucket := self.bucket_of(run):
            of = self.buckets[bucket]
            of.tokens, of.refilled = min(of.burst, of.at(self.now) + 1), self.now
        self.release(run, capped=False)

    def delete(self, run: Run) -> None:
        """Somebody deletes the record of a run that nobody holds."""
        del self.runs[run.id]
        children = [each for each in self.runs.values() if each.parent == run.id]
        for child in children:
            child.parent = None
            if child.status == "WAITING":
                self.end(child, "FAILED", "parent_failed")
        flow = self.flows.get(run.workflow or "")
        if flow is None:
            return
        if run.status not in ENDED:
            run.status = "CANCELLED"
            self.settle(run.workflow, run)
        elif run.status == "SUCCESSFUL" and run.id != flow.callback and flow.status != "SUCCESSFUL":
            flow.expected = max(flow.expected - 1, 0)
            self.settle(run.workflow, None)

    def restart(self, run: Run) -> None:
        """Somebody sets the status of a run that has ended to READY."""
        run.status, run.hold, run.releases, run.crashes, run.deaths = "READY", None, 0, 0, 0
        run.due = max(run.enqueued, run.run_after or run.enqueued)
        taken = {each.dedupe for each in self.runs.values()}
        run.dedupe = run.hash if run.was_deduped and run.hash not in taken else None
