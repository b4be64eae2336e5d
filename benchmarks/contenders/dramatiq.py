"""Dramatiq on Redis: two worker processes of eight threads each, as it does by itself."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.commands import running_commands
from benchmarks.contenders.contender import Contender, Queue, Work, Workers
from benchmarks.contenders.meter import Meter
from benchmarks.contenders.redis_server import redis_socket
from benchmarks.contenders.tasks import probe
from tests.support.postgres import Cluster

BROKER = "REPROQ_BENCH_BROKER"
PROCESSES = 2
THREADS = 8


def make_broker(socket: str) -> RedisBroker:
    """Return the broker with its only actor."""
    made = RedisBroker(url=f"unix://{socket}")
    dramatiq.actor(probe, actor_name="probe", broker=made)
    return made


def set_up() -> RedisBroker:
    """Return what its command line runs."""
    broker = make_broker(os.environ[BROKER])
    dramatiq.set_broker(broker)
    return broker


class DramatiqQueue(Queue):
    """A broker of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._broker = make_broker(self._socket)
        self._actor = self._broker.get_actor("probe")

    def enqueue_many(self, works: Sequence[Work]) -> None:
        for work in works:  # it has no call for many
            self.enqueue_one(work)

    def enqueue_one(self, work: Work) -> None:
        self._actor.send(**work.arguments())

    def is_drained(self) -> bool:
        # The hash has every message until it is acknowledged.
        with redis.Redis(unix_socket_path=self._socket) as client:
            return not client.hlen("dramatiq:default.msgs")

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        sizes = ["--processes", str(PROCESSES), "--threads", str(THREADS)]
        argv = ["dramatiq", "benchmarks.contenders.dramatiq:set_up", *sizes]
        with running_commands(argv, {**meter.environment, BROKER: self._socket}) as workers:
            yield workers

    def close(self) -> None:
        """Close the producer's connections."""
        self._broker.close()


@dataclass(frozen=True)
class Dramatiq(Contender):
    """Dramatiq with one worker."""

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[Queue]:
        with redis_socket() as socket:
            queue = DramatiqQueue(socket)
            try:
                yield queue
            finally:
                queue.close()


CONTENDERS = {
    "dramatiq": Dramatiq(
        "dramatiq", f"Redis (nothing flushed), {PROCESSES} processes of {THREADS} threads", share=0.3, slots=PROCESSES * THREADS
    )
}
