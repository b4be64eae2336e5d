"""Real keepers fire schedules: in time, and each firing once whatever happens to them and to the database."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psycopg
import pytest

from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.resolve import resolve
from tests.support.eventually import eventually
from tests.support.keepers import RunningKeeper, running_keeper
from tests.support.postgres import Database

FIGHT_S = float(os.environ.get("REPROQ_FIGHT_S", "20"))
SCHEDULES = 200


def add_every_second(database: Database, count: int) -> None:
    database.query(
        """INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at, missed)
           SELECT 's' || n, '* * * * * *', 'app.task', date_trunc('second', now()) + interval '2 s', 'all' FROM generate_series(1, %s) n""",
        count,
    )


def assert_each_firing_once(database: Database) -> None:
    """Every second of every schedule was entered, with a run of its own, and nothing beside."""
    ((firings, names, runs, firings_of_runs),) = database.query(
        """SELECT count(*), count(DISTINCT name), count(DISTINCT result_id),
                  (SELECT count(DISTINCT (spec_json ->> 'periodic_name', spec_json ->> 'scheduled_at')) FROM task_runs)
           FROM reproq_firings"""
    )
    ((all_runs,),) = database.query("SELECT count(*) FROM task_runs")
    assert names == SCHEDULES
    assert firings == runs == all_runs == firings_of_runs
    missing = database.query(
        """SELECT name, count(*), min(fire_at), max(fire_at), p.next_run_at FROM reproq_firings f JOIN periodic_tasks p USING (name)
           GROUP BY name, p.next_run_at
           HAVING count(*) <> extract(epoch FROM p.next_run_at - min(fire_at)) OR max(fire_at) <> p.next_run_at - interval '1 s'"""
    )
    assert missing == []


class Fighters:
    """Three keepers, of which some are frozen or replaced all the time."""

    def __init__(self, database: Database, stack: ExitStack) -> None:
        self._database = database
        self._stack = stack
        self._count = 0
        self.frozen_total = self.killed_total = 0
        self.all: list[RunningKeeper] = []
        self._thaw_mono: dict[RunningKeeper, float] = {}
        for _ in range(3):
            self.add()

    def add(self) -> None:
        self._count += 1
        self.all.append(self._stack.enter_context(running_keeper(self._database, f"keeper-{self._count}")))

    def hurt_one(self, chance: random.Random) -> None:
        keeper = chance.choice(self.all)
        if keeper in self._thaw_mono:
            return
        if chance.random() < 0.6:
            os.kill(keeper.pid, signal.SIGSTOP)
            self.frozen_total += 1
            self._thaw_mono[keeper] = time.monotonic() + chance.uniform(0.1, 7.0)
        else:
            os.kill(keeper.pid, signal.SIGKILL)
            self.killed_total += 1
            self.all.remove(keeper)
            self.add()

    def thaw(self, now: float) -> None:
        for keeper in [keeper for keeper, at in self._thaw_mono.items() if at <= now]:
            del self._thaw_mono[keeper]
            os.kill(keeper.pid, signal.SIGCONT)

    def listen(self) -> None:
        for keeper in self.all:
            if keeper not in self._thaw_mono:
                keeper.listen()


@pytest.fixture
def fighters(own_database: Database) -> Iterator[Fighters]:
    with ExitStack() as stack:
        yield Fighters(own_database, stack)


@pytest.mark.slow
@pytest.mark.timeout(FIGHT_S + 300)
def test_three_keepers_that_are_frozen_killed_and_cut_off_fire_everything_once(own_database: Database, fighters: Fighters) -> None:
    seed = int(os.environ.get("REPROQ_FIGHT_SEED", "0")) or random.SystemRandom().randrange(2**31)
    sys.stderr.write(f"REPROQ_FIGHT_SEED={seed}\n")
    chance = random.Random(seed)
    add_every_second(own_database, SCHEDULES)
    end_mono = time.monotonic() + FIGHT_S
    hurt_mono = crash_mono = time.monotonic()
    restarts = 0
    while (now := time.monotonic()) < end_mono:
        fighters.listen()
        fighters.thaw(now)
        if now > hurt_mono:
            fighters.hurt_one(chance)
            hurt_mono = now + chance.uniform(0.2, 1.5)
        if now > crash_mono + FIGHT_S / 3:
            (own_database.cluster.kill if chance.random() < 0.5 else own_database.cluster.stop)()
            own_database.cluster.start()
            crash_mono = now
            restarts += 1
    fighters.thaw(float("inf"))
    ((until,),) = own_database.query("SELECT clock_timestamp()")

    def all_have_fired() -> bool:
        fighters.listen()
        with suppress(psycopg.OperationalError):
            return own_database.query("SELECT min(next_run_at) > %s FROM periodic_tasks", until)[0][0]
        return False

    eventually(all_have_fired, timeout=180, interval=0.2, what="everything up to the end has fired")
    own_database.query("UPDATE periodic_tasks SET enabled = false")
    assert_each_firing_once(own_database)
    ((firings, seconds, terms),) = own_database.query(
        "SELECT count(*), count(DISTINCT fire_at), (SELECT max(term_no) FROM reproq_keeper_term) FROM reproq_firings"
    )
    hurt = f"{fighters.frozen_total} freezes, {fighters.killed_total} kills of keepers, {restarts} restarts of the database"
    sys.stderr.write(f"{firings} firings of {seconds} seconds, each once, none missing; {terms} terms; {hurt}\n")


def test_a_keeper_fires_by_itself_and_tells_of_what_it_disables(database: Database) -> None:
    add_every_second(database, 1)
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('bad', 'x', 'a.b', now())")
    with running_keeper(database) as keeper:
        keeper.wait(lambda: keeper.ran("beat") >= 3, "three seconds have fired")
        keeper.wait(lambda: "schedule.disabled" in keeper.events(), "it told of the one that means nothing")
    late = database.query("SELECT min(fired_at - fire_at) FROM reproq_firings WHERE name = 's1'")[0][0]
    # On an idle machine it is a few milliseconds (`make bench-beat`); here others work, too.
    assert late.total_seconds() < 5


def test_a_keeper_brings_the_schedules_of_its_file_and_of_the_file_that_took_its_place(database: Database) -> None:
    def settings(*names: str) -> dict[str, object]:
        data = {"schedules": {name: {"cron": "@daily", "task": "app.task", "args": [name]} for name in names}}
        return {"schedules_settings": resolve(Settings.model_validate(data), {})["schedules"], "config_path": "/etc/c.yaml"}

    def names() -> list[str]:
        return [name for (name,) in database.query("SELECT name FROM periodic_tasks ORDER BY name")]

    with running_keeper(database, **settings("one", "two")) as keeper:
        keeper.wait(lambda: names() == ["one", "two"], "what the file has is there")
        keeper.tell(type="adjust", keeper_settings={}, **settings("two", "three"))
        keeper.wait(lambda: names() == ["three", "two"], "the other file is followed")
