"""The database's clock is set while schedules wait: nothing fires twice, and nothing waits for a time that only a wrong clock has named.

No test can set the clock of a server that others use: here all that the tables remember is moved the other way, which looks the same to
everybody who asks.
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from reproq_supervisor.keeper.beat import Beat
from tests.store.actors import Keeper
from tests.support.postgres import Database

TEN_MINUTES = timedelta(minutes=10)


class World:
    """A schedule that fires every ten minutes, and a clock that can be set."""

    def __init__(self, database: Database, keeper: Keeper) -> None:
        self._database = database
        self._keeper = keeper
        self.events: list[dict[str, Any]] = []

    def add(self, name: str, **columns: Any) -> None:
        row = {"cron_expr": "*/10 * * * *", "task_path": "app.task", **columns}
        names, values = ", ".join(row), ", ".join(["%s"] * len(row))
        self._database.query(
            f"INSERT INTO periodic_tasks (name, next_run_at, {names}) VALUES (%s, now() - interval '1 s', {values})", name, *row.values()
        )

    def set_clock(self, by: timedelta) -> None:
        """Put the clock forward, or back if *by* is negative."""
        moved = f"interval '{by.total_seconds()} s'"
        self._database.query(
            f"""UPDATE periodic_tasks SET next_run_at = next_run_at - {moved}, last_run_at = last_run_at - {moved},
                                          created_at = created_at - {moved}, updated_at = updated_at - {moved}"""
        )
        self._database.query(f"UPDATE reproq_firings SET fire_at = fire_at - {moved}, fired_at = fired_at - {moved}")

    def beat(self) -> int:
        """Fire as a keeper does that has just begun its term; return how many firings were entered."""
        return self._keeper.run(Beat(self.events.append).run(self._keeper.store.schedules)).count

    def waits(self, name: str) -> timedelta:
        ((left,),) = self._database.query("SELECT next_run_at - now() FROM periodic_tasks WHERE name = %s", name)
        found: timedelta = left
        return found

    def firings(self) -> list[Any]:
        return self._database.query("SELECT name, fire_at FROM reproq_firings ORDER BY 1, 2")


@pytest.fixture
def world(database: Database, keeper: Keeper) -> World:
    return World(database, keeper)


@pytest.mark.parametrize("back", [timedelta(minutes=5), timedelta(hours=3), timedelta(hours=23)])
def test_a_clock_that_is_set_back_by_less_than_a_day_is_waited_for(world: World, back: timedelta) -> None:
    world.add("s")
    assert world.beat() == 1
    world.set_clock(-back)
    assert world.beat() == 0
    assert back - TEN_MINUTES < world.waits("s") < back + 2 * TEN_MINUTES
    assert world.events == []
    world.set_clock(back)
    assert world.waits("s") <= TEN_MINUTES
    assert len(world.firings()) == 1


@pytest.mark.parametrize("back", [timedelta(days=3), timedelta(days=400), timedelta(days=80 * 365)])
def test_a_clock_that_was_far_ahead_is_forgotten(world: World, database: Database, back: timedelta) -> None:
    world.add("fired")
    assert world.beat() == 1
    world.add("never fired")
    database.query("UPDATE periodic_tasks SET next_run_at = now() + interval '10 min' WHERE name = 'never fired'")
    world.set_clock(-back)
    world.add("bad", cron_expr="nonsense")
    database.query("UPDATE periodic_tasks SET next_run_at = now() + interval '9 y', updated_at = now() + interval '2 d' WHERE name = 'bad'")
    assert world.beat() == 0
    assert world.waits("fired") <= TEN_MINUTES
    assert world.waits("never fired") <= TEN_MINUTES
    assert {"name": "schedules.followed_clock", "count": 3} in world.events
    assert database.query("SELECT enabled FROM periodic_tasks WHERE name = 'bad'") == [(False,)]
    world.set_clock(TEN_MINUTES)
    assert world.beat() >= 2
    assert len(world.events) == 2


def test_a_next_time_that_somebody_has_set_far_ahead_stays(world: World, database: Database) -> None:
    world.add("paused")
    assert world.beat() == 1
    database.query("UPDATE periodic_tasks SET next_run_at = now() + interval '3 y'")
    assert world.beat() == 0
    assert world.waits("paused") > timedelta(days=1000)


def test_what_was_fired_by_a_wrong_clock_does_not_fire_again_when_its_time_comes(world: World, database: Database) -> None:
    world.add("s")
    assert world.beat() == 1
    world.set_clock(-timedelta(days=2))
    world.beat()
    # Two days later: the time that was fired already is due.
    world.set_clock(timedelta(days=2))
    database.query("UPDATE periodic_tasks SET next_run_at = (SELECT fire_at FROM reproq_firings), last_run_at = NULL")
    fired = world.beat()
    names = world.firings()
    assert len(names) == len(set(names)) == 1 + fired
    assert database.query("SELECT count(*) FROM task_runs") == [(1 + fired,)]


def test_a_clock_that_is_put_forward_leaves_it_to_the_rule_of_missed_firings(world: World) -> None:
    for rule in ("one", "all", "none"):
        world.add(rule, missed=rule)
    assert world.beat() == 3
    world.set_clock(timedelta(hours=3))
    world.beat()
    counts = {rule: sum(name == rule for name, _ in world.firings()) - 1 for rule in ("one", "all", "none")}
    assert counts["one"] == 1
    assert counts["all"] >= 17
    assert counts["none"] <= 1  # the latest, where that is less than a minute ago


def test_beats_that_follow_the_clock_at_once_move_each_schedule_once(world: World, database: Database) -> None:
    for n in range(50):
        world.add(f"s{n}")
    world.beat()
    world.set_clock(-timedelta(days=30))

    async def all_at_once() -> int:
        from reproq_supervisor.store.keeper import KeeperStore

        stores = [await KeeperStore.connect(database.dsn) for _ in range(4)]
        found: list[dict[str, Any]] = []
        await asyncio.gather(*(Beat(found.append).run(store.schedules) for store in stores))
        for store in stores:
            await store.close()
        return sum(event["count"] for event in found)

    assert asyncio.run(all_at_once()) == 50
    assert max(world.waits(f"s{n}") for n in range(50)) <= TEN_MINUTES
