"""The cluster that failure tests use really does what its verbs say."""

import psycopg
import pytest

from tests.support.postgres import Cluster, Database


def test_each_test_gets_an_empty_database_of_its_own(cluster: Cluster, empty_database: Database) -> None:
    empty_database.query("CREATE TABLE leftover (x int)")
    with cluster.new_database() as other:
        assert other.query("SELECT to_regclass('leftover')") == [(None,)]


def test_rows_without_columns_are_rows(empty_database: Database) -> None:
    assert empty_database.query("SELECT FROM generate_series(1, 2)") == [(), ()]
    assert empty_database.query("CREATE TABLE nothing ()") == []


def test_a_killed_server_comes_back_with_its_data(own_cluster: Cluster) -> None:
    with own_cluster.admin() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        connection.execute("CHECKPOINT")
        own_cluster.kill()
        assert own_cluster.processes() == []
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    own_cluster.start()
    with own_cluster.admin() as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (1,)


def test_a_frozen_server_answers_nothing_until_it_is_thawed(own_cluster: Cluster) -> None:
    own_cluster.freeze()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_cluster.dsn(), connect_timeout=2)
    own_cluster.thaw()
    with own_cluster.admin() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
