"""What a change of configuration touches, and what stays until a restart."""

import pytest

from reproq_supervisor.core.policy.reload import Extent, extent_of, settings_in_force
from reproq_supervisor.core.supervision.operation import Change
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.settings.changes import classify
from tests.sim.settings import pool, settings

TWO = Plan(settings({"mail": pool(), "bulk": pool()}))
ONE = Plan(settings({"mail": pool()}))
BOTH = frozenset({"mail", "bulk"})


@pytest.mark.parametrize(
    ("change", "extent"),
    [
        (Change("pools.mail.mode", "rolling"), Extent(frozenset({"mail"}))),
        (Change("pools.mail.executors.max", "live"), Extent()),
        (Change("app.preload", "rolling"), Extent(BOTH)),
        (Change("code", "rolling"), Extent(BOTH)),
        (Change("store.listen", "rolling"), Extent(BOTH, keeper=True)),
        (Change("logs_dir", "rolling"), Extent(BOTH, keeper=True)),
        (Change("logs_dir", "live"), Extent()),
        (Change("keeper.beat", "live"), Extent()),
        (Change("database", "restart"), Extent()),
        (Change("pools", "rolling"), Extent(BOTH)),
    ],
)
def test_a_change_rolls_the_pools_that_it_touches(change: Change, extent: Extent) -> None:
    assert extent_of([change], TWO, TWO) == extent


def test_changes_add_up() -> None:
    changes = [Change("pools.mail.mode", "rolling"), Change("pools.bulk.mode", "rolling"), Change("shutdown_timeout", "live")]
    assert extent_of(changes, TWO, TWO) == Extent(BOTH)


def test_a_new_pool_is_tried_like_a_changed_one() -> None:
    assert extent_of(classify(ONE.settings, TWO.settings), ONE, TWO) == Extent(frozenset({"bulk"}))
    assert extent_of([], ONE, TWO) == Extent(frozenset({"bulk"}))


def test_a_pool_that_goes_is_not_tried() -> None:
    assert extent_of(classify(TWO.settings, ONE.settings), TWO, ONE) == Extent()


def test_what_only_a_restart_can_change_stays_and_the_rest_is_new() -> None:
    old = settings(database="postgresql://old/x", control={"socket": None, "mode": 1})
    new = settings(database="postgresql://new/x", control={"socket": "/new", "mode": 1}, shutdown_timeout=99.0)
    changes = classify(old, new)
    in_force = settings_in_force(old, new, changes)
    assert in_force == {**new, "database": old["database"], "control": old["control"]}
    assert new["database"] == "postgresql://new/x", "the settings that were read are not touched"
    assert {c.key for c in classify(old, in_force)} == {"shutdown_timeout"}
    assert {c.key for c in classify(in_force, new)} == {"database", "control.socket"}
