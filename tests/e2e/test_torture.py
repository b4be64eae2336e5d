"""Torture finds nothing where nothing is wrong, finds what is, and says what it needs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

ALLOWED = "reproq_supervisor.executor.torture."
# One run is changed behind everybody's back, one ends with a result that nobody returned.
LYING = """
CREATE FUNCTION lie() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'SUCCESSFUL' AND NEW.spec_json #>> '{args,3}' = 't3' THEN
        NEW.return_json := '"somebody else"';
    ELSIF NEW.status = 'SUCCESSFUL' AND NEW.spec_json #>> '{args,3}' = 't5' THEN
        NEW.status := 'FAILED';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a_lie BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION lie();
"""


def config(dsn: str, **pool: Any) -> dict[str, Any]:
    found = demo_config(dsn, pool={"queues": ["default", "mail"], "shards": 2, **pool})
    found["app"]["allowed_task_modules"].append(ALLOWED)
    return found


@pytest.mark.slow
def test_a_sound_installation_is_found_sound_and_left_as_it_was(start_daemon: Callable[..., Daemon], database: Database) -> None:
    daemon = start_daemon(config(database.dsn))
    told = daemon.answer("torture", "--count", "300", "--queues", "default,mail", "--seed", "5")
    assert (told["ok"], told["offenders"], told["ended"], told["lost"], told["twice"]) == (True, [], 300, 0, 0)
    assert told["executions"] > 300, "some fail once"
    assert told["per_s"] > 0
    assert max(count for key, count in told["most_at_once"].items() if key.startswith("lock")) == 1
    assert database.query("SELECT count(*) FROM task_runs") == [(0,)]


@pytest.mark.slow
def test_what_is_wrong_is_named(start_daemon: Callable[..., Daemon], database: Database) -> None:
    database.query(LYING)
    done = start_daemon(config(database.dsn)).command("torture", "--count", "20", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], len(told["offenders"])) == (1, False, 2)
    assert "(t3 of default): expected the result of its last execution" in told["offenders"][0]
    assert "(t5 of default): expected SUCCESSFUL, found FAILED" in told["offenders"][1]
    assert database.query("SELECT count(*) FROM task_runs WHERE spec_json #>> '{args,3}' LIKE 't%%'") == [(20,)], "kept, to be looked at"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_while_processes_are_killed(start_daemon: Callable[..., Daemon], database: Database) -> None:
    daemon = start_daemon(config(database.dsn, quarantine={"exits": 100, "window": "60s"}))
    told = daemon.answer("torture", "--count", "1500", "--chaos", "--yes", timeout=500)
    assert (told["ok"], told["ended"], told["lost"]) == (True, 1500, 0)
    assert set(told["kills"]) <= {"executor", "nursery", "shard", "keeper"}
    assert sum(told["kills"].values()) > 0
    assert daemon.answer("status")["pid"] == daemon.pid


@pytest.mark.slow
def test_it_says_what_it_needs(start_daemon: Callable[..., Daemon], database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))

    def refused(*arguments: str) -> tuple[int, str]:
        done = daemon.command("torture", *arguments)
        return done.returncode, done.stderr

    code, error = refused()
    assert (code, ALLOWED in error) == (1, True)
    code, error = refused("--queues", "default,letters")
    assert code == 69
    assert "queue letters: expected a daemon that serves it" in error
    assert "--private" in error
    code, error = refused("--chaos")
    assert (code, "--yes" in error) == (2, True)
    code, error = refused("--chaos-database", "--yes")
    assert (code, "embedded" in error) == (2, True)
    assert database.query("SELECT count(*) FROM task_lane") == [(0,)]
    daemon.stop()
    assert refused("--chaos", "--yes")[0] == 69


@pytest.mark.slow
def test_what_is_interrupted_leaves_nothing_waiting(start_daemon: Callable[..., Daemon], database: Database) -> None:
    daemon = start_daemon(config(database.dsn, executors=1, shards=1))
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "torture", "-c", str(daemon.config_path), "--count", "20000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as torture:
        eventually(lambda: database.query("SELECT count(*) FROM task_lane")[0][0] > 10_000, timeout=120, what="tasks wait")
        torture.send_signal(signal.SIGINT)
        torture.communicate(timeout=120)
        assert torture.returncode == 130
    eventually(lambda: database.query("SELECT count(*) FROM task_lane") == [(0,)], timeout=60, what="nothing waits")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = [path.name for path in (tmp_path / ".reproq").iterdir()] if (tmp_path / ".reproq").exists() else []
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_private_one_needs_nothing_and_leaves_nothing(elsewhere: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REPROQ_CONFIG")} | {
        "PYTHONPATH": str(CHECKOUT)
    }
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "torture", "--private", "--count", "200", "--chaos-database", "--json"]
    done = subprocess.run(argv, env=env, cwd=elsewhere, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    assert json.loads(done.stdout)["ok"] is True
