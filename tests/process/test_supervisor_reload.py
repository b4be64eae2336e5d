"""Reload and restart with real processes: one answer each, the new beside the old, or the old and the reason."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.supervised import Supervised, fake

Make = Callable[..., Supervised]


def release(number: int, script: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a pool of another release: its environment differs."""
    pool = fake(script)
    pool["env"]["RELEASE"] = str(number)
    return pool


def test_a_live_change_is_told_and_replaces_nobody(supervised: Make) -> None:
    daemon = supervised().start()
    before = daemon.pids()
    daemon.write_config({"mail": fake(executors={"min": 1, "max": 5})})
    answer = daemon.ask("reload")
    assert answer["ok"]
    assert answer["changed"] is True
    assert [(c["key"], c["class"]) for c in answer["plan"]] == [("pools.mail.executors.max", "live")]
    assert daemon.pids() == before
    told = eventually(lambda: [m for m in daemon.heard("mail/0", before["mail/0"]) if m["type"] == "adjust"], what="adjust")
    assert told[0]["pool_settings"]["executors"]["max"] == 5


def test_a_rolling_change_starts_the_new_beside_the_old_and_then_drains_it(supervised: Make) -> None:
    daemon = supervised({"mail": release(1), "bulk": fake()}).start()
    before = daemon.pids()
    daemon.write_config({"mail": release(2), "bulk": fake()})
    answer = daemon.ask("reload")
    assert answer["ok"]
    assert answer["generation"] == 2
    after = daemon.pids()
    assert after["bulk/0"] == before["bulk/0"]
    assert after["keeper"] == before["keeper"]
    assert after["mail/0"] != before["mail/0"]
    eventually(lambda: len(daemon.children("shard")) == 2, what="the old one is gone")
    lines = daemon.log.splitlines()
    ready = next(n for n, line in enumerate(lines) if "became_ready child=mail/0" in line and "generation=2" in line)
    drained = next(n for n, line in enumerate(lines) if "process.draining child=mail/0" in line)
    assert ready < drained


def test_a_release_that_fails_is_rolled_back_with_its_own_reason(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    before = daemon.pids()
    daemon.write_config({"mail": release(2, {"fails": "ImportError: no module named shop", "exits": 78, "permanent": True})})
    answer = daemon.ask("reload")
    assert (answer["ok"], answer["code"]) == (False, 1)
    assert "no module named shop" in answer["error"]
    assert daemon.pids() == before
    assert any("no module named shop" in line for line in daemon.ask("explain", pool="mail")["lines"])
    assert daemon.status()["pools"]["mail"]["account"]["circuit"] == "closed"


def test_a_release_that_dies_during_its_probation_is_rolled_back(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    before = daemon.pids()
    daemon.write_config({"mail": release(2, {"dies_s": 0.3})})
    answer = daemon.ask("reload")
    assert answer["ok"] is False
    assert "of the new generation exited with code 70" in answer["error"]
    assert daemon.pids() == before


def test_a_release_that_never_becomes_ready_is_rolled_back(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    before = daemon.pids()
    slow = release(2, {"boots": False}) | {"boot_timeout": 0.5}
    daemon.write_config({"mail": slow})
    answer = daemon.ask("reload")
    assert "was not ready within 0.5 s" in answer["error"]
    eventually(lambda: daemon.pids() == before, what="only the old ones are left")


def test_problems_are_answered_all_and_change_nothing(supervised: Make) -> None:
    daemon = supervised().start()
    before = daemon.pids()
    daemon.write_problems("expected a mapping", "expected a number")
    answer = daemon.ask("reload")
    assert (answer["ok"], answer["code"]) == (False, 78)
    assert [p["message"] for p in answer["problems"]] == ["expected a mapping", "expected a number"]
    assert daemon.pids() == before


def test_a_loader_that_dies_is_an_answer_too(supervised: Make) -> None:
    daemon = supervised().start()
    daemon.config.write_text("this is not JSON, and so the loader crashes")
    answer = daemon.ask("reload")
    assert (answer["ok"], answer["code"]) == (False, 75)
    assert "the loader exited with code 1" in answer["error"]


def test_a_dry_run_shows_the_plan_and_starts_nobody(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    before = daemon.pids()
    daemon.write_config({"mail": release(2)})
    answer = daemon.ask("reload", dry_run=True)
    assert [(c["key"], c["class"]) for c in answer["plan"]] == [("pools.mail.env.RELEASE", "rolling")]
    assert daemon.pids() == before
    assert daemon.status()["generation"] == 1


def test_what_only_a_restart_can_change_is_named_again_by_every_reload(supervised: Make) -> None:
    daemon = supervised().start()
    daemon.write_config({"mail": fake()}, database="postgresql://elsewhere/x")
    for _ in range(2):
        answer = daemon.ask("reload")
        assert [(c["key"], c["class"]) for c in answer["plan"]] == [("database", "restart")]
        assert answer["changed"] is False


def test_pools_come_and_go(supervised: Make) -> None:
    daemon = supervised({"mail": fake()}).start()
    daemon.write_config({"bulk": fake(shards=2)})
    assert daemon.ask("reload")["ok"]
    eventually(lambda: sorted(daemon.pids()) == ["bulk/0", "bulk/1", "keeper"], what="the pools of the new file")
    eventually(lambda: len(daemon.children()) == 3, what="nothing else is left")


def test_a_new_pool_that_cannot_start_is_not_taken_on(supervised: Make) -> None:
    daemon = supervised({"mail": fake()}).start()
    daemon.write_config({"mail": fake(), "bulk": fake({"exits": 70, "fails": "broken"})})
    answer = daemon.ask("reload")
    assert "bulk/0 of the new generation exited with code 70: broken" in answer["error"]
    assert list(daemon.status()["pools"]) == ["mail"]


def test_shards_are_added_and_removed_without_touching_the_others(supervised: Make) -> None:
    daemon = supervised({"mail": fake(shards=2)}).start()
    before = daemon.pids()
    daemon.write_config({"mail": fake(shards=3)})
    assert daemon.ask("reload")["ok"]
    eventually(lambda: "mail/2" in daemon.pids(), what="a third shard")
    daemon.write_config({"mail": fake(shards=1)})
    assert daemon.ask("reload")["ok"]
    eventually(lambda: sorted(daemon.pids()) == ["keeper", "mail/0"], what="one shard")
    assert daemon.pids()["mail/0"] == before["mail/0"]


def test_ten_reloads_at_once_share_their_work_and_each_is_answered(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    daemon.write_config({"mail": release(2)})
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: daemon.ask("reload"), range(10)))
    assert all(answer["ok"] for answer in answers)
    assert daemon.log.count("name=process.started child=loader") <= 3
    assert daemon.log.count("name=process.started child=mail/0") == 2


def test_a_stop_in_the_middle_of_a_reload_answers_it_and_ends_everything(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    daemon.write_config({"mail": release(2, {"boots": False})})
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(daemon.ask, "reload")
        eventually(lambda: "reload.canarying" in daemon.log, what="the canary")
        daemon.signal(signal.SIGTERM)
        assert answer.result()["code"] == 75
    assert daemon.wait_exit() == 0


def test_a_supervisor_killed_in_the_middle_of_a_reload_leaves_nothing(supervised: Make) -> None:
    daemon = supervised({"mail": release(1)}).start()
    daemon.write_config({"mail": release(2, {"boots": False})})
    with ThreadPoolExecutor(1) as threads:
        threads.submit(daemon.client.request, {"command": "reload"})
        eventually(lambda: len(daemon.children("shard")) == 2, what="the canary")
        daemon.signal(signal.SIGKILL)
        daemon.wait_exit()
    daemon.close()


def test_a_reload_ends_a_quarantine(supervised: Make) -> None:
    daemon = supervised({"mail": fake({"exits": 78, "fails": "no such thing", "permanent": True})}).start()
    assert daemon.status()["pools"]["mail"]["account"]["circuit"] == "refused"
    daemon.write_config({"mail": fake()})
    assert daemon.ask("reload")["ok"]
    eventually(lambda: "mail/0" in daemon.pids(), what="the mended pool")


def test_a_restart_replaces_the_processes_of_its_pool_only(supervised: Make) -> None:
    daemon = supervised({"mail": fake(), "bulk": fake()}).start()
    before = daemon.pids()
    assert daemon.ask("restart", pool="mail")["generation"] == 2
    after = daemon.pids()
    assert after["mail/0"] != before["mail/0"]
    assert after["bulk/0"] == before["bulk/0"]


@pytest.mark.timeout(600)  # each loads the settings in a fresh interpreter
def test_two_hundred_reloads_leave_descriptors_flat(supervised: Make) -> None:
    daemon = supervised().start()
    configs = [{"mail": fake(executors={"min": 1, "max": size})} for size in (3, 4)]
    daemon.write_config(configs[0])
    daemon.ask("reload")
    before = _descriptors(daemon.pid)
    for turn in range(200):
        daemon.write_config(configs[turn % 2])
        assert daemon.ask("reload")["ok"]
    # The first count may have met a loader that was just leaving.
    eventually(lambda: _descriptors(daemon.pid) <= before, what=f"no more than {before} descriptors")
    eventually(lambda: len(daemon.children()) == 2, what="keeper and shard are all that is left")


def _descriptors(pid: int) -> int:
    return len(os.listdir(Path(f"/proc/{pid}/fd")))
