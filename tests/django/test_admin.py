"""The admin's pages: they open, count nothing, change nothing by GET, and do what their actions say to whoever may."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, setup_test_environment, teardown_test_environment
from django.urls import reverse
from django.utils import timezone

from reproq_django.admin.paginator import UncountedPaginator
from reproq_django.framework import task_backends
from reproq_django.models import PeriodicTask, QueueControl, RateLimit, TaskRun, Worker, WorkflowRun
from reproq_django.workflows import chord
from tests.django.app import tasks

pytestmark = pytest.mark.usefixtures("any_database")
_SCHEDULE = {
    "name": "hand",
    "cron_expr": "*/5 * * * *",
    "task_path": "tests.django.app.tasks.add",
    "payload_json": '{"args": [4]}',
    "queue_name": "default",
    "priority": "0",
    "max_attempts": "3",
    "concurrency_limit": "0",
    "timezone": "UTC",
    "jitter_s": "0",
    "overlap": "allow",
    "missed": "one",
    "timeout_seconds": "900",
    "enabled": "on",
}
MODELS = (TaskRun, PeriodicTask, QueueControl, RateLimit, Worker, WorkflowRun)


def url_of(model: Any, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:reproq_django_{model._meta.model_name}_{page}", args=args)


@pytest.fixture(scope="module", autouse=True)
def instrumented() -> Iterator[None]:
    """Responses tell what their templates were given."""
    setup_test_environment()
    yield
    teardown_test_environment()


@pytest.fixture
def operator(any_database: str) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def reader(any_database: str) -> Client:
    user = User.objects.create(username="reader", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_", content_type__app_label="reproq_django"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def runs() -> Iterator[dict[str, TaskRun]]:
    """One run in each state that it can be in without a worker."""
    rows = {}
    for number, status in enumerate(("READY", "FAILED", "SUCCESSFUL", "CANCELLED")):
        run = tasks.add.enqueue(number)
        ended = {"finished_at": timezone.now()} if status != "READY" else {}
        TaskRun.objects.filter(pk=run.id).update(status=status, **ended)
        rows[status] = TaskRun.objects.get(pk=run.id)
    yield rows


def act(client: Client, model: Any, action: str, *keys: Any) -> str:
    response = client.post(url_of(model), {"action": action, "_selected_action": list(keys)}, follow=True)
    assert response.status_code == 200
    return " ".join(map(str, response.context["messages"]))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_list_and_every_page_opens(operator: Client, runs: dict[str, TaskRun], model: Any) -> None:
    Worker.objects.create(worker_id="host-1", queues=["default", "mail"])
    QueueControl.objects.create(queue_name="mail", paused=True)
    RateLimit.objects.update_or_create(key="global", defaults={"tokens_per_second": 0})
    chord((tasks.add, [1], {}), callback=(tasks.add, [2], {})).enqueue()

    assert operator.get(url_of(model)).status_code == 200
    key = model.objects.values_list("pk", flat=True)[0]
    page = operator.get(url_of(model, "change", key))
    assert page.status_code == 200
    assert operator.get(url_of(model, "add")).status_code == (403 if model in (TaskRun, Worker, WorkflowRun) else 200)


def test_the_list_of_runs_counts_nothing(operator: Client) -> None:
    task_backends["default"].bulk_enqueue([(tasks.add, [number], {}) for number in range(420)])

    with CaptureQueriesContext(connection) as queries:
        page = operator.get(url_of(TaskRun))

    assert page.context["cl"].result_list[0].spec_json["args"] == [419]
    assert "150+ task runs" in page.content.decode()
    of_runs = [query["sql"] for query in queries if 'FROM "task_runs"' in query["sql"]]
    assert of_runs
    assert not [query for query in of_runs if "COUNT(" in query]
    last = operator.get(url_of(TaskRun), {"p": 9})
    assert "420 task runs" in last.content.decode()
    assert [row.spec_json["args"] for row in last.context["cl"].result_list] == [[number] for number in range(19, -1, -1)]


def test_a_paginator_looks_a_little_ahead() -> None:
    task_backends["default"].bulk_enqueue([(tasks.add, [number], {}) for number in range(7)])
    rows = TaskRun.objects.order_by("pk")

    assert [str(UncountedPaginator(rows, 2, page=page).count) for page in (1, 2, 3, 4, 9)] == ["6+", "7", "7", "7", "16"]


@pytest.mark.parametrize(
    "query",
    [
        {"status": "active"},
        {"status": "READY"},
        {"lease_status": "none", "status": "READY"},
        {"queue_name": "default", "status": "READY"},
        {"backend_alias": "default", "status": "READY"},
        {"q": "tests.django.app", "status": "READY"},
    ],
)
def test_filters_find_what_they_say(operator: Client, runs: dict[str, TaskRun], query: dict[str, str]) -> None:
    assert [row.pk for row in operator.get(url_of(TaskRun), query).context["cl"].result_list] == [runs["READY"].pk]


def test_a_search_goes_by_what_is_known_of_a_run(operator: Client, runs: dict[str, TaskRun]) -> None:
    found = runs["FAILED"]
    for word in (str(found.pk), found.spec_hash.strip()):
        assert [row.pk for row in operator.get(url_of(TaskRun), {"q": word}).context["cl"].result_list] == [found.pk]
    for word in ("9" * 30, "00000000-0000-0000-0000-000000000001", "no such thing", "%"):
        assert not list(operator.get(url_of(TaskRun), {"q": word}).context["cl"].result_list)
    assert operator.get(url_of(TaskRun), {"lease_status": "stale"}).status_code == 200
    assert operator.get(url_of(TaskRun), {"lease_status": "active"}).status_code == 200


def test_actions_do_what_they_say(operator: Client, runs: dict[str, TaskRun]) -> None:
    ids = {status: run.pk for status, run in runs.items()}

    assert "1 retried" in act(operator, TaskRun, "retry_failed", *ids.values())
    assert TaskRun.objects.get(pk=ids["FAILED"]).status == "READY"
    assert "cancelled" in act(operator, TaskRun, "cancel", ids["FAILED"])
    assert TaskRun.objects.get(pk=ids["FAILED"]).status == "CANCELLED"
    assert "1 enqueued" in act(operator, TaskRun, "replay", ids["SUCCESSFUL"])
    assert TaskRun.objects.filter(status="READY").count() == 2
    TaskRun.objects.filter(pk=ids["READY"]).update(status="FAILED", finished_at=timezone.now())
    assert "1 discarded" in act(operator, TaskRun, "discard_failed", *ids.values())
    assert TaskRun.objects.get(pk=ids["READY"]).last_error == "Discarded in admin"
    assert "1 deleted" in act(operator, TaskRun, "delete_successful", *ids.values())
    assert not TaskRun.objects.filter(pk=ids["SUCCESSFUL"]).exists()
    assert "No action selected" in act(operator, TaskRun, "delete_selected", *ids.values())


def test_whoever_may_only_look_changes_nothing(reader: Client, runs: dict[str, TaskRun]) -> None:
    before = list(TaskRun.objects.order_by("pk").values())
    for action in ("retry_failed", "cancel", "replay", "discard_failed", "delete_successful"):
        act(reader, TaskRun, action, *(run.pk for run in runs.values()))
    assert reader.get(url_of(TaskRun, "change", runs["READY"].pk)).status_code == 200
    assert reader.post(url_of(TaskRun, "change", runs["READY"].pk), {"status": "FAILED"}).status_code == 403

    assert list(TaskRun.objects.order_by("pk").values()) == before


def test_no_page_changes_anything_by_get(operator: Client, runs: dict[str, TaskRun]) -> None:
    before = list(TaskRun.objects.order_by("pk").values())
    for action in ("retry_failed", "cancel", "replay"):
        operator.get(url_of(TaskRun), {"action": action, "_selected_action": runs["FAILED"].pk})
    operator.get(url_of(TaskRun, "delete", runs["FAILED"].pk))
    assert list(TaskRun.objects.order_by("pk").values()) == before


def test_queues_are_paused_and_resumed(operator: Client) -> None:
    operator.post(url_of(QueueControl, "add"), {"queue_name": "mail", "paused": "on", "reason": "rest"})
    mail = QueueControl.objects.get(queue_name="mail")
    assert (mail.paused, mail.reason, mail.paused_at is not None) == (True, "rest", True)
    assert "Resumed: mail" in act(operator, QueueControl, "resume", "mail")
    assert not QueueControl.objects.get(queue_name="mail").paused
    assert "Paused: mail" in act(operator, QueueControl, "pause", "mail")
    operator.post(url_of(QueueControl, "change", "mail"), {"reason": ""})
    mail.refresh_from_db()
    assert (mail.paused, mail.paused_at) == (False, None)


def test_a_schedule_can_be_written_and_run(operator: Client) -> None:
    assert b"expected" in operator.post(url_of(PeriodicTask, "add"), _SCHEDULE | {"cron_expr": "99 * * * *"}).content
    assert operator.post(url_of(PeriodicTask, "add"), _SCHEDULE).status_code == 302
    assert PeriodicTask.objects.get(name="hand").next_run_at > timezone.now()
    assert "Disabled: 1" in act(operator, PeriodicTask, "disable", "hand")
    assert PeriodicTask.objects.get(name="hand").disabled_reason == "by operator"
    assert "Enabled: 1" in act(operator, PeriodicTask, "enable", "hand")
    assert "Enqueued" in act(operator, PeriodicTask, "run_now", "hand")
    assert TaskRun.objects.get().spec_json["args"] == [4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"payload_json": "5"},
        {"payload_json": '{"args": 5}'},
        {"payload_json": '{"a": NaN}'},
        {"payload_json": '{"a": "\\u0000"}'},
        {"max_attempts": "0"},
        {"timeout_seconds": "-1"},
        {"jitter_s": "-1"},
    ],
    ids=str,
)
def test_a_schedule_that_could_not_run_is_refused(operator: Client, wrong: dict[str, str]) -> None:
    assert b"expected" in operator.post(url_of(PeriodicTask, "add"), _SCHEDULE | wrong).content
    assert not PeriodicTask.objects.filter(name="hand").exists()


def test_a_schedule_without_arguments_can_be_written(operator: Client) -> None:
    assert operator.post(url_of(PeriodicTask, "add"), _SCHEDULE | {"payload_json": ""}).status_code == 302
    assert PeriodicTask.objects.get(name="hand").payload_json == {}


def test_a_schedule_that_holds_no_arguments_keeps_no_other_from_running(operator: Client) -> None:
    for name, payload in (("good", {"args": [4]}), ("bad", 5)):
        PeriodicTask.objects.create(name=name, cron_expr="@daily", task_path="tests.django.app.tasks.add", payload_json=payload)

    told = act(operator, PeriodicTask, "run_now", "good", "bad")

    assert "bad: payload: expected" in told
    assert "Enqueued" in told
    assert TaskRun.objects.get().spec_json["args"] == [4]


def test_saving_the_page_of_a_run_sets_nothing_back(operator: Client, runs: dict[str, TaskRun]) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert operator.post(url_of(TaskRun, "change", runs["READY"].pk)).status_code == 302

    assert not [query["sql"] for query in queries if query["sql"].startswith('UPDATE "task_runs"')]


def test_a_run_that_somebody_holds_is_not_deleted(operator: Client, runs: dict[str, TaskRun]) -> None:
    held = runs["READY"].pk
    TaskRun.objects.filter(pk=held).update(status="RUNNING", leased_by="host-1", leased_until=timezone.now() + timezone.timedelta(hours=1))

    assert operator.post(url_of(TaskRun, "delete", held), {"post": "yes"}).status_code == 403
    assert operator.post(url_of(TaskRun, "delete", runs["FAILED"].pk), {"post": "yes"}).status_code == 302
    assert set(TaskRun.objects.values_list("pk", flat=True)) == {row.pk for row in runs.values()} - {runs["FAILED"].pk}


def test_a_status_that_nobody_knows_is_shown_as_it_is(operator: Client, runs: dict[str, TaskRun]) -> None:
    TaskRun.objects.filter(pk=runs["FAILED"].pk).update(status="ODD")

    assert b"ODD" in operator.get(url_of(TaskRun)).content


def test_a_reason_can_be_written_for_a_queue_that_is_not_paused(operator: Client) -> None:
    QueueControl.objects.create(queue_name="mail")
    operator.post(url_of(QueueControl, "change", "mail"), {"reason": "was slow"})

    assert QueueControl.objects.get(queue_name="mail").reason == "was slow"


@pytest.mark.parametrize("wrong", [{"tokens_per_second": "-1"}, {"tokens_per_second": "1e39"}, {"burst_size": "0"}], ids=str)
def test_a_rate_limit_that_means_nothing_is_refused(operator: Client, wrong: dict[str, str]) -> None:
    form = {"key": "queue:mail", "tokens_per_second": "1", "burst_size": "1"}

    assert operator.post(url_of(RateLimit, "add"), form | wrong).status_code == 200
    assert not RateLimit.objects.filter(key="queue:mail").exists()


def test_a_rate_limit_begins_with_a_full_bucket(operator: Client) -> None:
    operator.post(url_of(RateLimit, "add"), {"key": "queue:mail", "tokens_per_second": "2.5", "burst_size": "10"})

    limit = RateLimit.objects.get(key="queue:mail")
    assert (limit.tokens_per_second, limit.burst_size, limit.current_tokens) == (2.5, 10, 10)


def test_workers_that_are_gone_can_be_deleted(operator: Client) -> None:
    Worker.objects.create(worker_id="gone", last_seen_at=timezone.now() - timezone.timedelta(minutes=11))
    Worker.objects.create(worker_id="here")

    assert "Deleted: 1" in act(operator, Worker, "delete_stale", "gone", "here")
    assert Worker.objects.get().worker_id == "here"
