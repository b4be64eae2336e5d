"""Fixtures for every test."""

import importlib.util
from collections.abc import Iterator

import pytest

from tests.support.postgres import Cluster, Database, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server that all tests share; leave it as it is."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A server for this test alone, to be stopped, killed or frozen."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A new database without our schema."""
    with cluster.new_database() as database:
        yield database


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A new database with our schema."""
    with cluster.new_database(_template_of(cluster)) as database:
        yield database


@pytest.fixture
def own_database(own_cluster: Cluster) -> Iterator[Database]:
    """A new database with our schema on a server that this test may hurt."""
    with own_cluster.new_database(_template_of(own_cluster)) as database:
        yield database


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a database, for runs on another server."""
    for item in items:
        if {"cluster", "own_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("postgres")


def _template_of(cluster: Cluster) -> str:
    if importlib.util.find_spec("reproq_supervisor.store.migrate") is None:
        return "template1"
    from reproq_supervisor.store.migrate import migrate

    return cluster.ensure_template(migrate)
