"""What the supervisor tells a shard at its start, and what may change while it lives."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from reproq_supervisor.core.policy.lease import nursery_tick_s
from reproq_supervisor.core.policy.recycle import RecyclePolicy
from reproq_supervisor.core.policy.retry import RetryPolicy
from reproq_supervisor.pool.conversation import StoreOptions
from reproq_supervisor.pool.watch import Limits
from reproq_supervisor.pool.worker import CAPTURE_BYTES

NO_DATABASE = "none"


@dataclass(frozen=True, slots=True)
class ShardStart:
    """The `start` message, read once. Durations are seconds.

    Attributes:
      slots_before: what was right for this shard before it was started again.
      budget: executors that it may have until it is told otherwise; None for no bound.
    """

    child: str
    supervisor_pid: int
    worker_id: str
    dsn: str
    pool_settings: Mapping[str, Any]
    app: Mapping[str, Any]
    store: Mapping[str, Any]
    logs_dir: str | None
    shutdown_timeout_s: float
    runtime_dir: str | None = None
    workers_dir: str | None = None
    queues_settings: Mapping[str, Any] = field(default_factory=dict)
    slots_before: int | None = None
    budget: int | None = None

    @classmethod
    def from_message(cls, message: Mapping[str, Any], supervisor_pid: int) -> Self:
        return cls(
            child=message["child"],
            supervisor_pid=supervisor_pid,
            worker_id=message["worker_id"],
            dsn=message["dsn"],
            pool_settings=message["pool_settings"],
            app=message["app"],
            store=message.get("store") or {},
            logs_dir=message.get("logs_dir"),
            shutdown_timeout_s=message["shutdown_timeout"],
            runtime_dir=message.get("runtime_dir"),
            workers_dir=message.get("workers_dir"),
            queues_settings=message.get("queues_settings") or {},
            slots_before=message.get("slots_before"),
            budget=message.get("budget"),
        )

    def adjusted(self, message: Mapping[str, Any]) -> Self:
        """Return this with the live keys of an `adjust` message."""
        queues_settings = message.get("queues_settings", self.queues_settings)
        return replace(self, pool_settings=message["pool_settings"], queues_settings=queues_settings)

    @property
    def queues(self) -> dict[str, int]:
        """Weight by queue name."""
        return dict(self.pool_settings["queues"])

    @property
    def shards(self) -> int:
        """Shards that share the pool's executors."""
        return int(self.pool_settings.get("shards", 1))

    @property
    def executors(self) -> int:
        """Executors of this shard at most: its part of the pool's `max`."""
        return max(1, -(-int(self.pool_settings["executors"]["max"]) // self.shards))

    @property
    def executors_min(self) -> int:
        """Executors of this shard at least, without which it is not ready: its part of the pool's `min`, which may be 0."""
        return min(self.executors, -(-int(self.pool_settings["executors"]["min"]) // self.shards))

    @property
    def cpus(self) -> frozenset[int]:
        """Processors that executors are bound to; empty: all."""
        return frozenset(self.pool_settings.get("cpus") or ())

    @property
    def drain_target_s(self) -> float:
        """How fast a backlog should be worked off."""
        return float(self.pool_settings.get("drain_target", 10.0))

    @property
    def single_use(self) -> bool:
        """Whether every task gets an executor of its own."""
        return self.isolation != "reuse"

    @property
    def isolation(self) -> str:
        """How much of a process a task finds used: `reuse`, `fork` or `exec`."""
        return str(self.pool_settings.get("isolation", "reuse"))

    @property
    def kept_bytes(self) -> tuple[int, int]:
        """What is kept of an attempt's standard output and standard error."""
        if self.isolation != "exec":
            return CAPTURE_BYTES, CAPTURE_BYTES
        limits = self.pool_settings["exec"]
        return int(limits["max_stdout"]), int(limits["max_stderr"])

    @property
    def mode(self) -> str:
        """How tasks share an executor: `process`, `thread` or `async`."""
        return str(self.pool_settings.get("mode", "process"))

    @property
    def slots(self) -> int:
        """Tasks at once in one executor at most."""
        return 1 if self.mode == "process" else int(self.pool_settings["slots"]["max"])

    @property
    def slots_min(self) -> int:
        """Tasks at once in one executor at least."""
        return min(self.slots, 1 if self.mode == "process" else int(self.pool_settings["slots"]["min"]))

    @property
    def lease_s(self) -> float:
        return float(self.pool_settings["lease"])

    @property
    def import_timeout_s(self) -> float:
        """Seconds for the nursery's imports: less than the supervisor gives the whole boot, so that the reason told is ours."""
        return 0.9 * float(self.pool_settings.get("boot_timeout", 60.0))

    def store_options(self) -> StoreOptions:
        """Return how the database is reached and polled."""
        poll = self.pool_settings["poll"]
        return StoreOptions(
            dsn=self.dsn,
            worker_id=self.worker_id,
            application_name=f"reproq shard {self.child}",
            listen=bool(self.store.get("listen", True)),
            prepare=bool(self.store.get("prepare", True)),
            poll_min_s=float(poll["min"]),
            poll_max_s=float(poll["max"]),
            concurrency=self.executors * self.slots,
        )

    def retry_of(self, queue: str) -> RetryPolicy:
        """Return the delay between attempts of that queue's tasks: the pool's, but for what the queue says itself."""
        pool, own = self.pool_settings["retry"], self.queues_settings.get(queue) or {}
        policy = RetryPolicy(float(pool["base"]), float(pool["cap"]), float(pool["jitter"]))
        return policy.of_queue(own.get("retry_base"), own.get("retry_cap"))

    def recycle(self) -> RecyclePolicy:
        """Return when executors are replaced."""
        rules = self.pool_settings.get("recycle") or {}
        if self.single_use:
            return RecyclePolicy()  # every task has a fresh one
        return RecyclePolicy(
            int(rules.get("tasks", 0)),
            int(rules.get("rss", 0)),
            float(rules.get("age", 0.0)),
            float(rules.get("jitter", 0.0)),
            int(rules.get("at_once", 1)),
        )

    @property
    def turns_path(self) -> Path | None:
        """Where the shards of this pool take turns; None without a runtime directory."""
        return Path(self.runtime_dir, f"recycle-{self.child.rpartition('/')[0]}.turns") if self.runtime_dir else None

    @property
    def task_dsn(self) -> str | None:
        """The database that tasks may complete themselves in, None for none: ours is not for another user unless the pool says so."""
        named = self.pool_settings.get("task_database")
        if named == NO_DATABASE or self.isolation == "exec":
            return None
        return named or (None if self.pool_settings.get("user") else self.dsn)

    def nursery_message(self, shard_pid: int, *, keep_output: bool) -> dict[str, Any]:
        """Return the first message for the nursery."""
        return {
            "supervisor_pid": self.supervisor_pid,
            "shard_pid": shard_pid,
            "child": self.child,
            "worker_id": self.worker_id,
            "has_database": self.task_dsn is not None,
            "app": dict(self.app),
            # Where the database of tasks is, is read by descriptor, and by nobody who only forks.
            "pool_settings": {key: value for key, value in self.pool_settings.items() if key != "task_database"},
            "mode": self.mode,
            "slots": self.slots,
            # The result of a program comes over its standard output.
            "keep_output": keep_output or self.isolation == "exec",
            "kept_bytes": self.kept_bytes,
            "tick_s": nursery_tick_s(self.lease_s),
        }

    def limits(self) -> Limits:
        """Return the deadlines that the watch enforces."""
        pool = self.pool_settings
        return Limits(float(pool["timeout"]), float(pool["grace"]), self.lease_s, float(pool["heartbeat"]))
