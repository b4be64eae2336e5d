"""Runs come: ours, those of older producers, workflows, and those of a transaction that stays open."""

from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.model.machine import DELAYS_S, LIMITS, LOCKS, PRIORITIES, QUEUES, Machine
from tests.store.model.rules import SECOND, Flow, Run

OLDER_INSERT = """
INSERT INTO task_runs (queue_name, priority, spec_json, spec_hash, task_path, lock_key, run_after)
VALUES (%s, %s, '{"task_path": "app.task"}', %s, 'app.task', %s, now() + %s * interval '1 s')
ON CONFLICT DO NOTHING RETURNING result_id
"""
MEMBER = """
INSERT INTO task_runs (spec_json, spec_hash, task_path, queue_name, status, workflow_id, parent_id, wait_count, max_attempts, lock_key,
                       dedupe_key)
VALUES ('{"task_path": "app.task"}', gen_random_uuid()::text, 'app.task', %s, %s, %s, %s, %s, 1, %s, NULL) RETURNING result_id, spec_hash
"""


class Producing(Machine):
    """Whoever inserts."""

    def new(self, queue: str, priority: int, lock: str | None, limit: str | None, delay_s: int, **parts: Any) -> NewRun:
        self.count += 1
        parts = {"args": [self.count], **parts}
        return NewRun(
            parts.pop("task", "app.task"),
            queue_name=queue,
            priority=priority,
            lock_key=lock,
            concurrency_key=limit,
            concurrency_limit=self.sizes[limit] if limit else 0,
            delay_s=delay_s or None,
            max_attempts=2,
            **parts,
        )

    def known(self, run: RunId, new: NewRun, hash_: str) -> Run:
        due = self.rules.now + int((new.delay_s or 0) * SECOND)
        expires = self.rules.now + int(new.expires_in_s * SECOND) if new.expires_in_s is not None else None
        return Run(
            run, new.queue_name, new.priority, due, self.rules.now, new.task_path, new.lock_key, new.concurrency_key, new.concurrency_limit,
            new.max_attempts, expires, hash_ if new.dedupe else None, hash_, run_after=due if new.delay_s else None,
        )  # fmt: skip

    def insert(self, connection: psycopg.Connection[Any], news: list[NewRun]) -> list[Run]:
        ids = enqueue(connection, news)
        hashes = dict(connection.execute("SELECT result_id, rtrim(spec_hash) FROM task_runs WHERE result_id = ANY (%s)", (ids,)).fetchall())
        return [self.known(run, new, hashes[run]) for run, new in zip(ids, news, strict=True)]

    @rule(
        queue=QUEUES, priority=PRIORITIES, lock=LOCKS, limit=LIMITS, delay_s=DELAYS_S, count=st.sampled_from((1, 1, 3)),
        expires_s=st.sampled_from((None, None, None, 30)), task=st.sampled_from(("app.task", "app.other")),
    )  # fmt: skip
    def enqueue(
        self, queue: str, priority: int, lock: str | None, limit: str | None, delay_s: int, count: int, expires_s: int | None, task: str
    ) -> None:
        news = [self.new(queue, priority, lock, limit, delay_s, expires_in_s=expires_s, task=task) for _ in range(count)]
        for run in self.insert(self.world.somebody, news):
            self.rules.runs[run.id] = run

    @rule(queue=QUEUES, which=st.sampled_from("pq"))
    def enqueue_unless_active(self, queue: str, which: str) -> None:
        new = self.new(queue, 0, None, None, 0, args=[which, queue], dedupe=True)
        (run,) = self.insert(self.world.somebody, [new])
        active = [each for each in self.rules.runs.values() if each.dedupe == run.hash]
        if active:
            assert run.id == active[0].id
        else:
            assert run.id not in self.rules.runs
            self.rules.runs[run.id] = run

    @rule(queue=QUEUES, priority=PRIORITIES, lock=LOCKS, delay_s=st.sampled_from((-20, 0, 10)), which=st.sampled_from(("h1", "h2", None)))
    def an_older_producer_inserts(self, queue: str, priority: int, lock: str | None, delay_s: int, which: str | None) -> None:
        self.count += 1
        hash_ = which or f"older-{self.count}"
        rows = self.world.query(OLDER_INSERT, queue, priority, hash_, lock, delay_s)
        assert bool(rows) == (hash_ not in {run.dedupe for run in self.rules.runs.values()})
        for (run,) in rows:
            due = self.rules.now + delay_s * SECOND
            self.rules.runs[run] = Run(
                run, queue, priority, max(due, self.rules.now), self.rules.now, lock=lock, dedupe=hash_, hash=hash_, run_after=due
            )

    @precondition(lambda self: not self.producing)
    @rule(queue=QUEUES, lock=LOCKS, limit=LIMITS, count=st.integers(1, 3))
    def a_producer_stays_open(self, queue: str, lock: str | None, limit: str | None, count: int) -> None:
        self.opened = self.insert(self.world.producer, [self.new(queue, 0, lock, limit, 0) for _ in range(count)])
        self.producing = True

    @precondition(lambda self: self.producing)
    @rule(commits=st.booleans())
    def the_producer_ends(self, commits: bool) -> None:
        self.producing = False
        if commits:
            self.world.producer.commit()
            self.rules.runs |= {run.id: run for run in self.opened}
        else:
            self.world.producer.rollback()

    def member(self, queue: str, status: str, workflow: str, parent: int | None, waits: int, lock: str | None) -> Run:
        ((run, hash_),) = self.world.query(MEMBER, queue, status, workflow, parent, waits, lock)
        now = self.rules.now
        made = Run(run, queue, 0, now, now, lock=lock, max_attempts=1, hash=hash_.strip(), workflow=workflow, parent=parent, status=status)
        self.rules.runs[run] = made
        return made

    @rule(queue=QUEUES, length=st.integers(2, 4), lock=LOCKS)
    def enqueue_a_chain(self, queue: str, length: int, lock: str | None) -> None:
        ((workflow,),) = self.world.query("SELECT gen_random_uuid()::text")
        last: int | None = None
        for _ in range(length):
            last = self.member(queue, "WAITING" if last else "READY", workflow, last, 1 if last else 0, lock).id

    @rule(queue=QUEUES, members=st.integers(1, 3), lock=LOCKS)
    def enqueue_a_chord(self, queue: str, members: int, lock: str | None) -> None:
        ((workflow,),) = self.world.query("SELECT gen_random_uuid()::text")
        callback = self.member(queue, "WAITING", workflow, None, members, lock)
        self.world.query(
            "INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id) VALUES (%s, %s, %s)",
            workflow,
            members,
            callback.id,
        )
        self.rules.flows[workflow] = Flow(members, callback.id)
        for _ in range(members):
            self.member(queue, "READY", workflow, None, 0, lock)
