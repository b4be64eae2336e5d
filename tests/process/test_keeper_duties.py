"""A duty of a real keeper that goes wrong, in every way that there is, stops no other one, and shows."""

from typing import Any

import pytest

from reproq_supervisor.keeper.remarks import MOST
from tests.store.actors import Shard, ended
from tests.support.keepers import RunningKeeper, running_keeper
from tests.support.postgres import Database
from tests.support.runs import Runs

POISON = """CREATE OR REPLACE FUNCTION reproq_settle_wishes(p_limit integer) RETURNS integer
            LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN {} END $$"""
HOW = {
    "it is refused": "RAISE EXCEPTION 'poisoned' USING ERRCODE = '22000';",
    "its answer means nothing": "RETURN NULL;",
    "it is told to come again, and again": "RAISE EXCEPTION 'poisoned' USING ERRCODE = '55P03';",
    "its connection breaks": "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN 0;",
}


def duty(keeper: RunningKeeper, name: str) -> dict[str, Any]:
    duties: Any = keeper.snapshot.get("duties", {})
    found: dict[str, Any] = duties.get(name, {})
    return found


@pytest.mark.parametrize("how", HOW)
def test_a_poisoned_duty_stops_no_other_one_and_shows_until_it_works_again(database: Database, how: str) -> None:
    ((sound,),) = database.query("SELECT pg_get_functiondef('reproq_settle_wishes(integer)'::regprocedure)")
    database.query(POISON.format(HOW[how]))
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('tick', '* * * * * *', 'app.task', now())")
    with running_keeper(database) as keeper:
        keeper.wait(lambda: duty(keeper, "wishes").get("failed_in_a_row", 0) >= 3, "it failed again and again")
        before = keeper.ran("beat")
        keeper.wait(lambda: keeper.ran("beat") >= before + 2, "the duties behind it go on")
        shown = duty(keeper, "wishes")
        assert shown["error"]
        assert shown["last_run_s_ago"] is not None
        assert shown["last_took_s"] >= 0
        assert keeper.events().count("duty.failed") == 1
        database.query(sound)
        keeper.wait(lambda: duty(keeper, "wishes")["error"] is None, "it works again")
        assert duty(keeper, "wishes")["failed_in_a_row"] == 0
        assert duty(keeper, "wishes")["failed_total"] >= 3
        assert "duty.recovered" in keeper.events()


def test_who_stands_by_says_no_next_run_of_what_the_other_one_does(database: Database) -> None:
    with running_keeper(database, "one") as one, running_keeper(database, "other") as other:
        for keeper in (one, other):
            keeper.wait(lambda keeper=keeper: keeper.snapshot.get("term"), "it knows who acts")
        acting, standing = (one, other) if one.acts() else (other, one)
        acting.wait(lambda: duty(acting, "beat").get("last_run_s_ago") is not None, "it has done its duties once")
        assert duty(acting, "beat")["next_run_s"] is not None
        assert duty(standing, "beat")["next_run_s"] is None
        standing.wait(lambda: duty(standing, "settings").get("last_run_s_ago") is not None, "it does what is everybody's")
        assert duty(standing, "settings")["next_run_s"] is not None


def test_a_keeper_that_shall_not_beat_shows_that_it_does_not(database: Database) -> None:
    database.query("INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at) VALUES ('tick', '* * * * * *', 'a.b', now())")
    with running_keeper(database) as keeper:
        keeper.wait(lambda: keeper.ran("beat") >= 1, "it beats")
        keeper.tell(type="adjust", keeper_settings={"beat": False})
        keeper.wait(lambda: duty(keeper, "beat")["next_run_s"] is None, "it says that it does not")
        keeper.tell(type="adjust", keeper_settings={"beat": True})
        before = keeper.ran("beat")
        keeper.wait(lambda: keeper.ran("beat") > before, "it beats again")


def test_a_row_that_is_refused_is_reported_and_the_others_go_on(database: Database) -> None:
    poisoned, *others = Runs(database).add("noop", count=12)
    with ended(shard := Shard(database.dsn)):
        shard.claim(12, lease_s=0)
    database.query(
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.result_id < {poisoned + 8} THEN RAISE EXCEPTION 'never'; END IF; RETURN NEW; END $$"""
    )
    database.query("CREATE TRIGGER refuse BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION refuse()")
    with running_keeper(database) as keeper:
        keeper.wait(lambda: keeper.ran("reclaim") == len(others) - 7, "what can be reclaimed is")
        keeper.wait(lambda: keeper.events().count("database.warned") == MOST + 1, "a few are told of, and how many more there are")
