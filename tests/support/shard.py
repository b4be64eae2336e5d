"""A real shard with its nursery and executors; the test plays the supervisor.

    with running_shard(database, executors=2) as shard:
        shard.wait_ready()
        ...

At the end of the block the lifeline is closed, and every process of the shard, found by a mark in its environment, must be gone.
"""

import os
import select
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from reproq_supervisor.core import frames
from reproq_supervisor.process.spawn import python_argv, spawn_child
from tests.support.eventually import eventually
from tests.support.marked import MARK, children_of, leads_executor_session, marked_pids, state_of
from tests.support.postgres import Database

ROOT = Path(__file__).resolve().parents[2]
GONE_WITHIN_S = 5.0
_POOL = {
    "queues": {"default": 1},
    "timeout": 30.0,
    "grace": 1.0,
    "lease": 10.0,
    "heartbeat": 1.0,
    "poll": {"min": 0.05, "max": 0.5, "only": 0.2},
    "retry": {"base": 0.1, "cap": 1.0, "jitter": 0.1},
    "boot_timeout": 20.0,
    "env": {},
    "nice": 0,
    "recycle": {"tasks": 0, "rss": 0, "age": 0.0, "jitter": 0.0, "at_once": 1},
}

EXEC = {"command": None, "payload": "stdin", "max_stdout": 1 << 20, "max_stderr": 1 << 20}
"""The section `exec` of a pool, as it is by default."""

Message = dict[str, Any]


class RunningShard:
    """The supervisor's side of one shard.

    Attributes:
      messages: everything it said, in order, snapshots excepted.
      snapshot: its last one.
    """

    def __init__(
        self, start: Mapping[str, Any], *, env: Mapping[str, str] | None = None, log: Path | None = None, view: Sequence[str] = ()
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.start_message: Message = {"type": "start", **start}
        self.messages: list[Message] = []
        self.snapshot: Message = {}
        self.log_path = log
        self._reader = frames.FrameReader()
        self._status: int | None = None
        stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600) if log else None
        try:
            environment = {**os.environ, MARK: self.mark, **(env or {})}
            self._child = spawn_child([*view, *python_argv("reproq_supervisor.pool")], environment, stderr=stderr)
        finally:
            if stderr is not None:
                os.close(stderr)
        self.pid = self._child.pid
        self.lifeline_open = True
        self._ended = False
        self._snapshots = 0

    # -- talk -----------------------------------------------------------------

    def say(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self._child.channel.sendall(frames.encode_message({"type": kind, **fields}))

    def send_start(self) -> None:
        """Send the first message; `running_shard` does it unless told otherwise."""
        self._child.channel.sendall(frames.encode_message(self.start_message))

    def adjust(self, **pool: Any) -> None:
        """Change live settings of the pool; `executors` may be a number."""
        self.say("adjust", pool_settings={**self.start_message["pool_settings"], **_sized(pool)}, queues_settings={})

    def listen(self, wait_s: float = 0.0) -> None:
        """Take in what the shard says, waiting up to *wait_s* for the first of it."""
        while self.lifeline_open and not self._ended and select.select([self._child.channel], [], [], wait_s)[0]:
            wait_s = 0.0
            try:
                data = self._child.channel.recv(1 << 20)
            except ConnectionResetError:
                self._ended = True
                return
            if not data:
                self._ended = True
                return
            for message in self._reader.feed_messages(data):
                if message["type"] == "snapshot":
                    self.snapshot = message["snapshot"]
                    self._snapshots += 1
                else:
                    self.messages.append(message)

    def wait_for(self, probe: Callable[[], Any], what: str, timeout: float = 15.0) -> Any:
        """Listen until *probe* says yes."""

        def heard() -> Any:
            self.listen()
            found = probe()
            if not found and self._ended:
                raise RuntimeError(f"{what}: the shard has ended; it said {self.messages[-5:]} and wrote {self.log[-2000:]}")
            return found

        return eventually(heard, timeout=timeout, what=f"{what} (said: {self.messages[-8:]}, {self.snapshot})")

    def wait_said(self, kind: str, timeout: float = 15.0, **fields: Any) -> Message:
        """Wait for a message of that type with these fields, and return it."""
        found: Message = self.wait_for(lambda: self._said(kind, fields), f"the shard says {kind} {fields or ''}", timeout)
        return found

    def _said(self, kind: str, fields: Mapping[str, Any]) -> Message | None:
        return next((m for m in self.messages if m["type"] == kind and all(m.get(name) == value for name, value in fields.items())), None)

    def events(self, name: str) -> list[Message]:
        """Return the events of that name so far."""
        self.listen()
        return [m["event"] for m in self.messages if m["type"] == "event" and m["event"]["name"] == name]

    def wait_event(self, name: str, timeout: float = 15.0, count: int = 1) -> Message:
        """Wait until *count* events of that name were told; return the last."""
        self.wait_for(lambda: len(self.events(name)) >= count, f"event {name}", timeout)
        return self.events(name)[-1]

    def wait_snapshot(self, probe: Callable[[Message], Any], what: str, timeout: float = 15.0) -> Message:
        """Wait for a snapshot of which *probe* says yes."""
        self.wait_for(lambda: self.snapshot and probe(self.snapshot), what, timeout)
        return self.snapshot

    def wait_snapshots(self, count: int) -> None:
        """Let it live through *count* more snapshots, which come three in a heartbeat."""
        self.listen()
        wanted = self._snapshots + count
        self.wait_for(lambda: self._snapshots >= wanted, f"{count} snapshots")

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Wait until it is ready and all executors wanted are there."""
        self.wait_said("ready", timeout)
        self.wait_snapshot(
            lambda s: s["state"] == "ready" and s["executors"]["ready"] == s["executors"]["wanted"], "all executors are up", timeout
        )

    # -- its processes --------------------------------------------------------

    @property
    def nursery_pid(self) -> int:
        """Pid of its nursery."""
        return int(self.wait_said("nursery")["pid"])

    @property
    def executors(self) -> list[int]:
        """Pids of its living executors, from the process table; each leads a session, which what it forked and left behind does not."""
        return [pid for pid in children_of(self.nursery_pid) if state_of(pid) not in ("Z", "") and leads_executor_session(pid)]

    def wait_executors(self, count: int) -> list[int]:
        """Wait until exactly *count* executors are alive."""
        return eventually(lambda: len(self.executors) == count and self.executors, what=f"{count} executors") or []

    def processes(self) -> dict[int, str]:
        """Return every living process of it with its state, whatever its parents are now."""
        return {pid: state for pid in marked_pids(self.mark) if (state := state_of(pid)) not in ("Z", "")}

    @property
    def log(self) -> str:
        """What shard and nursery wrote to standard error."""
        return self.log_path.read_text(errors="replace") if self.log_path and self.log_path.exists() else ""

    # -- its end --------------------------------------------------------------

    def close_lifeline(self) -> None:
        """Be gone, as a supervisor that was killed."""
        if self.lifeline_open:
            self.listen()
            self._child.channel.close()
            self.lifeline_open = False

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Signal the shard itself."""
        signal.pidfd_send_signal(self._child.pidfd, signum)

    def wait_exit(self, timeout: float = 15.0) -> int:
        """Wait until the shard has ended; return its exit code, negative for a signal."""
        if self._status is None:
            end = time.monotonic() + timeout
            while not select.select([self._child.pidfd], [], [], 0.02)[0]:
                self.listen()
                if time.monotonic() > end:
                    raise AssertionError(f"the shard: expected to end within {timeout} s, said {self.messages[-5:]}, {self.snapshot}")
            self.listen()
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def let_run(self, seconds: float) -> None:
        """Do nothing for a while, unless it ends before: for tests that try every moment of a start."""
        select.select([self._child.pidfd], [], [], seconds)

    def wait_gone(self, timeout: float = GONE_WITHIN_S) -> None:
        """Wait until nothing of it is alive, escaped grandchildren included."""

        def nothing() -> bool:
            left = {pid: (state, _command(pid)) for pid, state in self.processes().items()}
            assert not left, f"left: {left}"
            return True

        eventually(nothing, timeout=timeout, what="no process of the shard is left", interval=0.05)

    def kill_strays(self) -> None:
        """Kill what fell to nobody of its own: with shard and nursery both killed, that is the supervisor's part."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the lifeline, see that everything ends by that, and give descriptors back."""
        try:
            self._unfreeze()
            self.close_lifeline()
            self.wait_exit()
            self.wait_gone()
        finally:
            self.kill_strays()
            if self._status is None:
                self.wait_exit()
            os.close(self._child.pidfd)

    def _unfreeze(self) -> None:
        for pid, state in self.processes().items():
            if state == "T":
                os.kill(pid, signal.SIGCONT)


def start_message(
    database: Database,
    *,
    app: Mapping[str, Any] | None = None,
    store: Mapping[str, Any] | None = None,
    logs_dir: Path | None = None,
    runtime_dir: Path | None = None,
    slots_before: int | None = None,
    **pool: Any,
) -> Message:
    """Return the `start` message of a shard on *database*; *pool* replaces settings of the pool, sizes may be numbers."""
    preload = ["workers.demo.tasks", "tests.support.odd_tasks", "tests.support.shared_tasks"]
    allowed = ["workers.demo.", "tests.support.odd_tasks.", "tests.support.shared_tasks."]
    return {
        "role": "shard",
        "child": "default/0",
        "worker_id": f"test-{uuid.uuid4().hex[:12]}",
        "dsn": database.dsn,
        "pool_settings": {**_POOL, **_sized({"executors": 1, **pool})},
        "app": {"path": [str(ROOT)], "preload": preload, "allowed_task_modules": allowed, "django_settings_module": None, **(app or {})},
        "store": {"listen": True, **(store or {})},
        "logs_dir": str(logs_dir) if logs_dir else None,
        "runtime_dir": str(runtime_dir) if runtime_dir else None,
        "shutdown_timeout": 10.0,
        "slots_before": slots_before,
    }


@contextmanager
def running_shard(
    database: Database,
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    view: Sequence[str] = (),
    ready: bool = True,
    **start: Any,
) -> Iterator[RunningShard]:
    """Start a shard, with what `start_message` takes, and wait until it is *ready*; at the end nothing of it may be left.

    Args:
      view: what comes before its command line (`tests.support.somebody`).
    """
    shard = RunningShard(start_message(database, **start), env=env, log=log, view=view)
    try:
        shard.send_start()
        if ready:
            shard.wait_ready()
        yield shard
    finally:
        shard.close()


def _sized(pool: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {key: pool[key] for key in ("executors", "slots") if isinstance(pool.get(key), int)}
    return {**pool, **{key: {"min": size, "max": size} for key, size in sizes.items()}}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:60]
    except OSError:
        return "?"
