"""A deployment that changes source files and no setting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

StartDaemon = Callable[..., Daemon]


@pytest.fixture
def shop(tmp_path: Path, database: Database) -> dict[str, Any]:
    """Return the configuration of an application of one file, `shop.py` in *tmp_path*, whose task says which release it is."""
    deploy(tmp_path, "1")
    config = demo_config(database.dsn, pool={"executors": 1})
    config["app"] = {"path": [str(tmp_path)], "preload": ["shop"], "allowed_task_modules": ["shop."]}
    return config


def deploy(folder: Path, release: str) -> None:
    (folder / "shop.py").write_text(f"def which():\n    return 'release {release}'\n")


def answer_of(database: Database) -> str:
    with database.connect(autocommit=True) as connection:
        (number,) = enqueue(connection, [NewRun("shop.which")])
    found = eventually(lambda: database.query("SELECT return_json FROM task_runs WHERE result_id = %s AND status = 'SUCCESSFUL'", number))
    return str(found[0][0])


def test_a_reload_after_a_deployment_runs_the_new_code(
    start_daemon: StartDaemon, database: Database, shop: dict[str, Any], tmp_path: Path
) -> None:
    daemon = start_daemon(shop)
    assert answer_of(database) == "release 1"
    deploy(tmp_path, "22")
    plan = daemon.answer("reload")["plan"]
    assert [(change["key"], change["class"]) for change in plan] == [("code", "rolling")]
    assert answer_of(database) == "release 22"


def test_a_reload_without_a_deployment_replaces_nobody(start_daemon: StartDaemon, database: Database, shop: dict[str, Any]) -> None:
    daemon = start_daemon(shop)
    before = daemon.pids("shard")
    assert daemon.answer("reload")["changed"] is False
    assert daemon.pids("shard") == before


def test_a_broken_deployment_is_refused_until_it_is_mended(
    start_daemon: StartDaemon, database: Database, shop: dict[str, Any], tmp_path: Path
) -> None:
    daemon = start_daemon(shop)
    (tmp_path / "shop.py").write_text("raise RuntimeError('this release is broken')\n")
    for _ in range(2):
        refused = daemon.command("reload")
        assert refused.returncode == 1
        assert "this release is broken" in refused.stderr
    assert answer_of(database) == "release 1"
    deploy(tmp_path, "3")
    assert daemon.command("reload").returncode == 0
    assert answer_of(database) == "release 3"
