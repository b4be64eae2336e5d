"""Celery on Redis: two forked worker processes that take many short tasks ahead, results ignored."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from celery import Celery as App

from benchmarks.contenders.commands import running_commands
from benchmarks.contenders.contender import Contender, Queue, Work, Workers
from benchmarks.contenders.meter import Meter
from benchmarks.contenders.redis_server import redis_socket
from benchmarks.contenders.tasks import probe
from tests.support.postgres import Cluster

BROKER = "REPROQ_BENCH_BROKER"
PREFETCH = 64
"""Its manual's figure for many short tasks: 50 to 150."""


def make_app(broker: str) -> App:
    """Return the application with its only task."""
    made = App("bench", broker=broker)
    made.conf.update(task_ignore_result=True, worker_prefetch_multiplier=PREFETCH, broker_connection_retry_on_startup=True)
    made.task(probe, name="probe")
    return made


def __getattr__(name: str) -> App:
    # Only a worker's command line asks for it, and only there the environment says where the broker is.
    if name == "app":
        return make_app(os.environ[BROKER])
    raise AttributeError(name)


class CeleryQueue(Queue):
    """A broker of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._broker = f"redis+socket://{socket}"
        self._app = make_app(self._broker)
        self._task = self._app.tasks["probe"]

    def enqueue_many(self, works: Sequence[Work]) -> None:
        # It has no call for many; one connection for all is the quickest it has.
        with self._app.producer_pool.acquire(block=True) as producer:
            for work in works:
                self._task.apply_async(kwargs=work.arguments(), producer=producer)

    def enqueue_one(self, work: Work) -> None:
        self._task.apply_async(kwargs=work.arguments())

    def is_drained(self) -> bool:
        # Those that were taken ahead are acknowledged one by one as they start.
        with redis.Redis(unix_socket_path=self._socket) as client:
            return not client.llen("celery") and not client.hlen("unacked")

    @contextmanager
    def workers(self, meter: Meter) -> Iterator[Workers]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
        argv = ["celery", "--app", "benchmarks.contenders.celery:app", "worker", "--pool", "prefork", "--concurrency", "2", *quiet]
        with running_commands(argv, {**meter.environment, BROKER: self._broker}) as workers:
            yield workers

    def close(self) -> None:
        """Close the producer's connections."""
        self._app.close()


@dataclass(frozen=True)
class Celery(Contender):
    """Celery with one worker of two processes."""

    @contextmanager
    def open(self, cluster: Cluster) -> Iterator[Queue]:
        with redis_socket() as socket:
            queue = CeleryQueue(socket)
            try:
                yield queue
            finally:
                queue.close()


CONTENDERS = {"celery": Celery("celery", f"Redis (nothing flushed), two processes, prefetch {PREFETCH} each", share=0.1, slots=2)}
