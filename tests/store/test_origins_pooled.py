"""Migrations work through a transaction pooler, in which no session is ours alone."""

import pytest

from reproq_supervisor.store.migrate import is_pooled, migrate, plan
from tests.store import layouts
from tests.store.actors import assert_invariant
from tests.store.catalog import catalog
from tests.support import pgbouncer
from tests.support.postgres import Database

pytestmark = pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="this machine has no pgbouncer")


@pytest.mark.parametrize("size", [2, 5])
def test_every_step_is_taken_through_a_transaction_pooler(empty_database: Database, database: Database, size: int) -> None:
    with database.connect() as connection:
        wanted = catalog(connection)
    with empty_database.connect() as connection:
        layouts.django_then_worker(connection)
        layouts.insert(connection, "SUCCESSFUL", 500)
        layouts.insert(connection, "READY", 50)
    with pgbouncer.pooled(empty_database, size=size) as pooled, pooled.connect(prepare_threshold=None) as connection:
        assert is_pooled(connection)
        migrate(connection)
        assert plan(connection) == []
    with empty_database.connect() as connection:
        assert not is_pooled(connection)
        assert catalog(connection) == wanted
    assert_invariant(empty_database)
