"""Fixtures for every test."""

import importlib.util
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.daemon import Daemon
from tests.support.postgres import Cluster, Database, running_cluster

# How long an example takes, or its making, says something of the machine, and nothing of what is tried.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


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


def pytest_configure() -> None:
    """Let an interrupt reach what tests start: a shell starts what it runs in the background with it ignored, and that is inherited."""
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, handler)


_DAEMONS = pytest.StashKey[list[Daemon]]()


@pytest.fixture
def start_daemon(request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """Start daemons: ``start_daemon(config, env=..., view=..., until_ready=True)``. After the test they are ended, and leave no process."""
    daemons = request.node.stash.setdefault(_DAEMONS, [])

    def start(
        config: Mapping[str, Any], *, env: Mapping[str, str] | None = None, view: Sequence[str] = (), until_ready: bool = True
    ) -> Daemon:
        daemon = Daemon(config, env=env, view=view)
        daemons.append(daemon)
        daemon.start(until_ready=until_ready)
        return daemon

    yield start
    with ExitStack() as stack:
        for daemon in daemons:
            stack.callback(daemon.close)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of its daemons with a failed test."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {daemon.config_path}", daemon.log[-20000:]) for daemon in item.stash.get(_DAEMONS, [])]
    return report


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
