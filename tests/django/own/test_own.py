"""Django's own tests of its tasks framework: those of its two backends run against ours, the others in a project with it.

`DummyBackend` notes down what is enqueued: in its place, ours in a database that nobody works at. `ImmediateBackend` runs a task while
it is enqueued: in its place, ours with a running supervisor, waited for. What does not apply is in `NOT_OURS`, each with its reason.
"""

import importlib
import os
import sys
import unittest
from collections.abc import Iterator
from unittest import mock

import pytest

from reproq_django.models import TaskRun
from tests.django.conftest import using_databases
from tests.django.databases import postgres_settings
from tests.django.own.backends import SERVED, Finishing, Keeping
from tests.django.own.hearing import Hearing
from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.postgres import Cluster

FOLDER = os.environ.get("REPROQ_DJANGO_OWN_TESTS")
if not FOLDER:
    pytest.skip("`make test-django-own` fetches Django's own tests and runs them", allow_module_level=True)

MODULES = ("test_tasks", "test_dummy_backend", "test_immediate_backend", "test_custom_backend")
IN_MEMORY = "changes a result in the memory of Django's backend; ours reads the row"
BETTER = "says that the backend cannot do what ours can"
NOT_OURS = {
    ("DummyBackendTestCase", "test_refresh_result"): IN_MEMORY,
    ("DummyBackendTestCase", "test_refresh_result_async"): IN_MEMORY,
    ("TaskTestCase", "test_enqueue_with_invalid_argument"): "a datetime, which ours takes and gives to the task as text",
    ("TaskTestCase", "test_aenqueue_with_invalid_argument"): "a datetime, which ours takes and gives to the task as text",
    ("ImmediateBackendTestCase", "test_cannot_get_result"): BETTER,
    ("ImmediateBackendTestCase", "test_cannot_refresh_result"): BETTER,
    ("ImmediateBackendTestCase", "test_cannot_pass_run_after"): BETTER,
    ("ImmediateBackendTestCase", "test_throws_keyboard_interrupt"): "nobody waits at the keyboard of an executor: the attempt has failed",
    ("ImmediateBackendTestCase", "test_complex_return_value"): "a result that cannot be stored is our BadResultError, not a TypeError",
}


def adopted() -> Iterator[tuple[str, type[unittest.TestCase]]]:
    """Yield Django's classes of tests, with our backends in the place of its own: for good, since settings name them by their paths."""
    sys.path.insert(0, str(FOLDER))
    importlib.import_module("django.tasks.backends.dummy").DummyBackend = Keeping
    importlib.import_module("django.tasks.backends.immediate").ImmediateBackend = Finishing
    for each in MODULES:
        module = importlib.import_module(f"tasks.{each}")
        for case in vars(module).values():
            if isinstance(case, type) and issubclass(case, unittest.TestCase) and case.__module__ == module.__name__:
                case.databases = {"default", SERVED}
                if case.__name__ == "ImmediateBackendTransactionTestCase":
                    continue  # sees a task of an open transaction end: here one of another database, which would prove nothing
                for test in vars(case).keys() & {test for owner, test in NOT_OURS if owner == case.__name__}:
                    reason = NOT_OURS[case.__name__, test]
                    setattr(case, test, pytest.mark.xfail(strict=True, reason=reason)(getattr(case, test)))
                yield case.__name__, case


globals().update(adopted())


@pytest.fixture(scope="module", autouse=True)
def site(cluster: Cluster, django_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A project with two databases, and a supervisor at work in one of them."""
    log = tmp_path_factory.mktemp("own") / "tasks.log"
    log.touch()
    with cluster.new_database(django_template) as default, cluster.new_database(django_template) as served:
        app = {
            "path": [str(FOLDER), str(CHECKOUT)],
            "preload": ["tasks.tasks"],
            "allowed_task_modules": ["tasks."],
            "django_settings_module": "tests.django.own.settings",
        }
        env = {"REPROQ_TEST_DJANGO_DSN": served.dsn, "REPROQ_TEST_LOG_FILE": str(log), "DJANGO_ALLOW_ASYNC_UNSAFE": "1"}
        daemon = Daemon(demo_config(served.dsn, app=app), env=env)
        try:
            daemon.start()
            Finishing.hearing = Hearing(log)
            # Their coroutines ask without await, as they may ask Django's backends, which have no database.
            unsafe = mock.patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="1")
            with unsafe, using_databases(default=postgres_settings(default.dsn), **{SERVED: postgres_settings(served.dsn)}):
                yield
        finally:
            daemon.close()


@pytest.fixture(autouse=True)
def nothing_is_noted(site: None) -> None:
    """Django's backend is made anew by each test that names it; of the table, what an earlier test has committed is none of this one's."""
    TaskRun.objects.all().delete()
