"""Several real keepers on one database: one acts; frozen, killed or told to leave, it is followed, and can do nothing more.

How soon, `make bench-beat` measures on an idle machine, and tests/unit/test_term.py adds up from the times that are set; here is why.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.eventually import eventually
from tests.support.keepers import RunningKeeper, running_keeper
from tests.support.postgres import Database


@pytest.fixture
def keepers(database: Database) -> Iterator[list[RunningKeeper]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running_keeper(database, f"keeper-{n}")) for n in range(3)]


def holder(database: Database) -> str | None:
    """Return who keeps now; None while nobody does."""
    rows = database.query("SELECT holder FROM reproq_keeper_term WHERE ends_at > clock_timestamp()")
    return rows[0][0] if rows else None


def wait_for_an_acting_one(keepers: list[RunningKeeper]) -> RunningKeeper:
    def acting() -> list[RunningKeeper]:
        for keeper in keepers:
            keeper.listen()
        return [keeper for keeper in keepers if keeper.acts()]

    return eventually(lambda: acting() if len(acting()) == 1 else [], timeout=60, interval=0.0, what="one of them acts")[0]


def follow(database: Database, name: str) -> None:
    """Wait until another one than *name* keeps."""
    eventually(lambda: holder(database) not in (None, name), timeout=60, interval=0.02, what="another one was elected")


def begins_before_the_last_one_would_have_ended(database: Database, ends_at: object) -> bool:
    ((before,),) = database.query("SELECT since < %s FROM reproq_keeper_term", ends_at)
    return bool(before)


def lengthen_term(database: Database) -> object:
    """Have the term last for longer than anybody would wait, and return its end; its holder is frozen, so it stays so."""
    return database.query("UPDATE reproq_keeper_term SET ends_at = clock_timestamp() + interval '50 s' RETURNING ends_at")[0][0]


def test_a_keeper_that_is_killed_is_followed_because_its_server_process_is_gone(keepers: list[RunningKeeper], database: Database) -> None:
    acting = wait_for_an_acting_one(keepers)
    os.kill(acting.pid, signal.SIGSTOP)
    ends_at = lengthen_term(database)
    os.kill(acting.pid, signal.SIGKILL)
    follow(database, acting.name)
    assert begins_before_the_last_one_would_have_ended(database, ends_at)


def test_a_keeper_that_leaves_ends_its_term_itself(keepers: list[RunningKeeper], database: Database) -> None:
    acting = wait_for_an_acting_one(keepers)
    ((term_no,),) = database.query("SELECT term_no FROM reproq_keeper_term")
    acting.tell(type="drain", timeout=1)
    follow(database, acting.name)
    assert database.query("SELECT term_no FROM reproq_keeper_term") == [(term_no + 1,)]


def test_a_keeper_that_is_frozen_is_followed_when_its_term_has_ended(keepers: list[RunningKeeper], database: Database) -> None:
    acting = wait_for_an_acting_one(keepers)
    others = [keeper for keeper in keepers if keeper is not acting]
    os.kill(acting.pid, signal.SIGSTOP)
    ((ends_at,),) = database.query("SELECT ends_at FROM reproq_keeper_term")
    follow(database, acting.name)
    assert not begins_before_the_last_one_would_have_ended(database, ends_at)
    successor = wait_for_an_acting_one(others)
    os.kill(acting.pid, signal.SIGCONT)
    acting.wait(lambda: not acting.acts(), "the one that was frozen has noticed")
    assert acting.events().count("keeper.deposed") == 1
    assert successor.acts()
    assert holder(database) == successor.name
