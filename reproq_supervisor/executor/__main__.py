"""Entry of a nursery: `python -P -m reproq_supervisor.executor`, started by a shard with its channel at descriptor 3."""

import faulthandler
import gc
import json
import os
import signal
import socket
import struct
import sys
from typing import Any

from reproq_supervisor.core import frames
from reproq_supervisor.executor.command import Command, prepare_environment
from reproq_supervisor.executor.conditions import ConditionError, check_room, take_on
from reproq_supervisor.executor.elders import Elders
from reproq_supervisor.executor.executor import ExecutorPlan
from reproq_supervisor.executor.nursery import Nursery
from reproq_supervisor.executor.preload import PreloadError, check_forkable, preload
from reproq_supervisor.executor.rehearsal import rehearse
from reproq_supervisor.executor.shared_imports import import_shared
from reproq_supervisor.executor.streams import TaskStreams
from reproq_supervisor.executor.task_database import TaskDatabase
from reproq_supervisor.process import prctl, stacks
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.heap import give_back
from reproq_supervisor.process.link import send_frame
from reproq_supervisor.process.spawn import adopt_channel
from reproq_supervisor.process.title import ProcessTitle

PERMANENT = 78
SEND_TIMEOUT_S = 1


def main() -> int:
    """Import the application and fork executors until the shard is gone."""
    # While booting nothing is owned yet, so leaving at once is safe, whatever the imports are doing.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    channel = adopt_channel()
    start, table, dsn_fd = _receive_start(channel)
    pool = start["pool_settings"]
    prctl.become_subreaper()
    try:
        elders = Elders(start["supervisor_pid"], start["shard_pid"])
    except ProcessLookupError:
        return 0  # nobody is left to serve
    # A shard that does not read for so long is frozen; see `Nursery._say`.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
    prctl.set_name("reproq-nursery")
    stacks.write_stacks_on_signal()
    title = ProcessTitle()
    title.set(f"reproq: nursery {start['child']} (importing)")
    if start["mode"] != "process":
        TaskStreams().restore()  # before anybody keeps what `sys.stderr` is now, as handlers of logging do
    try:
        command = _prepare(start, channel, table)
    except (ConditionError, PreloadError) as error:
        send_frame(channel, frames.encode_message({"type": "failed", "reason": str(error), "permanent": isinstance(error, ConditionError)}))
        return PERMANENT
    give_back()
    # What is imported so far stays in shared pages: no collection will ever touch it.
    gc.freeze()
    # Executors write theirs to our log, too, though their own standard error leads elsewhere.
    log_fd = os.dup(2)
    stacks.write_stacks_on_signal(log_fd)
    faulthandler.enable(log_fd)
    title.set(f"reproq: nursery {start['child']}")
    Nursery(
        channel,
        table,
        {
            "elders": elders,
            "plan": ExecutorPlan(
                title=title,
                child=start["child"],
                keep_output=start["keep_output"],
                mode=start["mode"],
                slots=start["slots"],
                allowed=start["app"].get("allowed_task_modules") or [],
                single_use=pool.get("isolation", "reuse") != "reuse",
                command=command,
                heartbeat_s=float(pool.get("heartbeat", 10.0)),
                limits=pool.get("limits") or {},
                database=TaskDatabase(start["worker_id"], dsn_fd),
            ),
            "tick_s": start["tick_s"],
            "log_fd": log_fd,
        },
    ).run()
    return 0


def _prepare(start: dict[str, Any], channel: socket.socket, table: DeadlineTable) -> Command | None:
    """Take on the pool's conditions, and import the application or find the program that runs each task.

    Raises:
      ConditionError, PreloadError: executors cannot be forked, and why.
    """
    pool, command = start["pool_settings"], None
    take_on(pool)
    # The kernel forgets it when the user changes.
    prctl.set_pdeathsig(signal.SIGTERM, parent_pid=start["shard_pid"])
    if pool.get("isolation") == "exec":
        # What a program imports it imports itself; here it would only take memory.
        prepare_environment(start["app"])
        command = Command.find(pool["exec"])
    else:
        if start["mode"] == "process":
            rehearse(table)
        preload(start["app"])
        import_shared(start["mode"], start["app"].get("allowed_task_modules") or [])
    check_forkable(frozenset({channel.fileno()}))
    check_room(pool)
    return command


def _receive_start(channel: socket.socket) -> tuple[dict[str, Any], DeadlineTable, int | None]:
    """Return the first message, the deadline table, and the descriptor with the database of tasks, where they have one."""
    reader = frames.FrameReader()
    descriptors: list[int] = []
    while True:
        data, came, _, _ = socket.recv_fds(channel, 65536, 3)
        # The mark of the worker, between the two, needs nothing but to stay open here and in every executor.
        descriptors += came
        for each in came:
            os.set_inheritable(each, False)
        if not data:
            os._exit(0)
        for frame in reader.feed(data):
            start = _read_start(frame)
            return start, DeadlineTable.attach(descriptors[0]), descriptors[-1] if start["has_database"] else None


def _read_start(payload: bytes) -> dict[str, Any]:
    message = json.loads(payload)
    if message.get("type") != "start":
        raise ValueError(f"nursery: expected a start message, got {message.get('type')!r}")
    return dict(message)


if __name__ == "__main__":
    sys.exit(main())
