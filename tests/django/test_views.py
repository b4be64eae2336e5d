"""The pages for dashboards: who may read them, how a dashboard is paired, and what they pass on from a worker."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import AsyncClient, Client, override_settings

from reproq_django.models import TaskRun
from reproq_django.views import auth, pairing, places, proxies, tokens
from tests.django.app import tasks

TOKEN = "the token of the metrics"
BEARER = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def surroundings(sqlite: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A site with a token, and a cache that nothing is in."""
    for name in ("METRICS_ADDR", "METRICS_PORT", "LOW_MEMORY_MODE", "REPROQ_TUI_DISABLE_EVENTS", "REPROQ_TUI_SECRET"):
        monkeypatch.delenv(name, raising=False)
    cache.clear()
    with override_settings(METRICS_AUTH_TOKEN=TOKEN, ALLOWED_HOSTS=["*"]):
        yield
    cache.clear()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser("boss", "boss@example.org", "secret")


def paired(client: Client, boss: User) -> str:
    """Pair a dashboard, and return its token."""
    code = client.post("/reproq/tui/pair/").json()["code"]
    approver = Client()
    approver.force_login(boss)
    assert approver.post("/reproq/tui/authorize/", {"code": code}).status_code == 200
    return str(client.get(f"/reproq/tui/pair/{code}/").json()["token"])


# -- who may read -----------------------------------------------------------------------------------------------------


def test_numbers_are_for_the_token_for_dashboards_and_for_staff(client: Client, boss: User) -> None:
    tasks.add.enqueue(1)
    assert client.get("/reproq/stats/").status_code == 403
    assert client.get("/reproq/stats/", HTTP_AUTHORIZATION="Bearer wrong").status_code == 403
    assert client.get("/reproq/stats/", **BEARER).json()["tasks"] == {"READY": 1}
    assert client.get("/reproq/stats/", HTTP_X_REPROQ_TOKEN=TOKEN).status_code == 200
    assert client.get("/reproq/stats/", HTTP_AUTHORIZATION=f"Bearer {paired(client, boss)}").status_code == 200
    client.force_login(boss)
    assert client.get("/reproq/stats/").status_code == 200
    client.force_login(User.objects.create_user("guest"))
    assert client.get("/reproq/stats/").status_code == 403


def test_a_token_that_is_not_set_lets_nobody_in(client: Client) -> None:
    with override_settings(METRICS_AUTH_TOKEN=""):
        assert client.get("/reproq/stats/", HTTP_AUTHORIZATION="Bearer ").status_code == 403
        assert client.get("/reproq/stats/", HTTP_X_REPROQ_TOKEN="").status_code == 403
        assert client.post("/reproq/tui/pair/").status_code == 404


def test_whoever_guesses_too_often_is_told_so_and_shuts_nobody_out(client: Client) -> None:
    seen = [client.get("/reproq/stats/", HTTP_AUTHORIZATION="Bearer guess").status_code for _ in range(auth.MOST_FAILURES + 2)]
    assert seen[0] == 403 and seen[-1] == 429
    assert client.get("/reproq/stats/", **BEARER).status_code == 200, "behind a reverse proxy all have one address"


# -- pairing ----------------------------------------------------------------------------------------------------------


def test_a_dashboard_is_paired_by_a_superuser_and_gets_its_token_once(client: Client, boss: User) -> None:
    begun = client.get("/reproq/tui/pair/").json()
    code = begun["code"]
    assert begun["verify_url"].endswith(f"/reproq/tui/authorize/?code={code}") and len(code) == 16
    assert client.get(f"/reproq/tui/pair/{code}/").json() == {"status": "pending"}
    approver = Client(enforce_csrf_checks=True)
    assert "/reproq/tui/login/" in approver.get(f"/reproq/tui/authorize/?code={code}").headers["Location"]
    assert approver.get("/reproq/tui/login/").status_code == 200
    approver.force_login(User.objects.create_user("staff", is_staff=True))
    assert approver.get(f"/reproq/tui/authorize/?code={code}").status_code == 403
    approver.force_login(boss)
    page = approver.get(f"/reproq/tui/authorize/?code={code}")
    assert code in page.content.decode()
    assert approver.post("/reproq/tui/authorize/", {"code": code}).status_code == 403, "not without the form"
    form = {"code": code, "csrfmiddlewaretoken": approver.cookies["csrftoken"].value}
    assert "Approved" in approver.post("/reproq/tui/authorize/", form).content.decode()
    told = client.get(f"/reproq/tui/pair/{code}/").json()
    assert told["status"] == "approved" and told["expires_at"] > begun["expires_at"]
    assert client.get(f"/reproq/tui/pair/{code}/").status_code == 404
    assert approver.get(f"/reproq/tui/authorize/?code={code}").status_code == 404


def test_pairing_is_throttled(client: Client) -> None:
    seen = [client.post("/reproq/tui/pair/").status_code for _ in range(pairing.MOST_PAIRINGS + 2)]
    assert seen[0] == 200 and seen[-1] == 429
    asked = [client.get("/reproq/tui/pair/0123456789abcdef/").status_code for _ in range(pairing.MOST_QUESTIONS + 2)]
    assert asked[0] == 404 and asked[-1] == 429
    assert client.post("/reproq/tui/pair/", HTTP_X_FORWARDED_FOR="10.1.1.1").status_code == 429, "a header is no other address"


@pytest.mark.parametrize("end", ["revoked", "password", "no superuser", "inactive", "other key", "changed", "ended"])
def test_a_token_is_worth_nothing_when(client: Client, boss: User, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    token = paired(client, boss)
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    assert client.get("/reproq/stats/", **bearer).status_code == 200
    match end:
        case "revoked":
            assert client.post("/reproq/tui/revoke/").status_code == 403
            assert client.post("/reproq/tui/revoke/", **bearer).json() == {"ok": True}
        case "password":
            boss.set_password("another")
            boss.save()
        case "no superuser":
            User.objects.update(is_superuser=False)
        case "inactive":
            User.objects.update(is_active=False)
        case "other key":
            monkeypatch.setenv("REPROQ_TUI_SECRET", "a key of its own")
        case "changed":
            head, claims, signature = token.split(".")
            bearer = {"HTTP_AUTHORIZATION": f"Bearer {head}.{claims[:-2]}AA.{signature}"}
        case "ended":
            later = time.time() + tokens.LIFETIME_S + 1
            monkeypatch.setattr(tokens.time, "time", lambda: later)
    assert client.get("/reproq/stats/", **bearer).status_code == 403


def test_the_key_of_tokens_is_not_the_token_of_the_metrics(boss: User) -> None:
    token, _ = tokens.issue(boss)
    with override_settings(METRICS_AUTH_TOKEN="changed"):
        assert tokens.user_of(token) == boss
    assert tokens.user_of("") is None and tokens.user_of("a.b.c") is None and tokens.user_of("äöü.é.ß") is None


# -- what dashboards are told -----------------------------------------------------------------------------------------


def test_a_dashboard_is_told_this_site_s_pages_and_nothing_internal(client: Client) -> None:
    with override_settings(REPROQ_TUI_WORKER_INTERNAL_URL="http://10.0.0.5:9090", METRICS_ADDR="10.0.0.5:9090"):
        told = client.get("/reproq/tui/config/").json()
    assert told["worker_metrics_url"] == "http://testserver/reproq/tui/metrics/"
    assert told["events_url"] == "http://testserver/reproq/tui/events/"
    assert "10.0.0.5" not in json.dumps(told)
    with override_settings(REPROQ_TUI_WORKER_URL="https://worker.example/", REPROQ_TUI_DISABLE_EVENTS="1"):
        told = client.get("/reproq/tui/config/").json()
    assert told["worker_health_url"] == "https://worker.example/healthz" and "events_url" not in told


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:9090/metrics"),
        ({"METRICS_PORT": 9999}, "http://127.0.0.1:9999/metrics"),
        ({"METRICS_ADDR": ":9100", "METRICS_PORT": 9999}, "http://127.0.0.1:9100/metrics"),
        ({"METRICS_ADDR": "10.0.0.5:9100"}, "http://10.0.0.5:9100/metrics"),
        ({"REPROQ_TUI_WORKER_INTERNAL_URL": "https://worker/", "METRICS_ADDR": ":9100"}, "https://worker/metrics"),
    ],
)
def test_a_worker_is_found_where_the_contract_says(settings: dict[str, Any], url: str) -> None:
    with override_settings(**settings):
        assert places.internal_url("metrics") == url


# -- proxies ----------------------------------------------------------------------------------------------------------


class Worker(http.server.BaseHTTPRequestHandler):
    """A worker's own server: events come one by one, when the test lets them."""

    go: threading.Event
    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        if self.path.startswith("/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: 1\n\n")
            self.wfile.flush()
            self.go.wait(60)
            self.wfile.write(b"data: 2\n\n")
            return
        status = 503 if self.path == "/healthz" else 200
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"unhealthy" if status == 503 else b"reproq_queue_depth 3\n")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def worker() -> Iterator[type[Worker]]:
    handler = type("Handler", (Worker,), {"go": threading.Event(), "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with override_settings(METRICS_ADDR=f"127.0.0.1:{server.server_address[1]}"):
            yield handler
    finally:
        handler.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_metrics_and_health_are_passed_on_with_their_status(client: Client) -> None:
    with worker() as handler:
        answer = client.get("/reproq/tui/metrics/", **BEARER)
        assert answer.status_code == 200 and answer.content == b"reproq_queue_depth 3\n"
        assert answer["Content-Type"].startswith("text/plain")
        health = client.get("/reproq/tui/healthz/", **BEARER)
        assert health.status_code == 503 and health.content == b"unhealthy"
        assert handler.seen[0][1]["Authorization"] == f"Bearer {TOKEN}"
        assert client.get("/reproq/tui/metrics/").status_code == 403
        assert client.post("/reproq/tui/metrics/", **BEARER).status_code == 405


def test_an_event_is_passed_on_before_the_next_one_comes(client: Client) -> None:
    with worker() as handler:
        answer: Any = client.get("/reproq/tui/events/?queue=mail", HTTP_LAST_EVENT_ID="41", **BEARER)
        assert answer["X-Accel-Buffering"] == "no" and answer["Content-Type"] == "text/event-stream"
        pieces = iter(answer.streaming_content)
        assert next(pieces) == b"data: 1\n\n", "the worker has not sent more yet"
        handler.go.set()
        assert b"".join(pieces) == b"data: 2\n\n"
        path, headers = handler.seen[0]
        assert path == "/events?queue=mail" and headers["Last-Event-ID"] == "41"


def test_events_are_passed_on_as_they_come_under_asgi_too() -> None:
    import asyncio

    async def follow(handler: type[Worker]) -> list[bytes]:
        answer: Any = await AsyncClient().get("/reproq/tui/events/", headers={"authorization": f"Bearer {TOKEN}"})
        found = []
        async for piece in answer.streaming_content:
            found.append(piece)
            handler.go.set()
        return found

    with worker() as handler:
        assert asyncio.run(follow(handler)) == [b"data: 1\n\n", b"data: 2\n\n"]


def test_a_worker_that_is_not_there_is_told_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker() as handler:
        handler.go.clear()
    with override_settings(METRICS_ADDR="127.0.0.1:1"):
        assert client.get("/reproq/tui/metrics/", **BEARER).status_code == 502

    def too_late(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(proxies.Upstream, "ask", too_late)
    assert client.get("/reproq/tui/metrics/", **BEARER).status_code == 504
    with override_settings(LOW_MEMORY_MODE="1"):
        assert client.get("/reproq/tui/metrics/", **BEARER).status_code == 503
        assert client.get("/reproq/tui/config/").json()["low_memory_mode"] is True
    with override_settings(REPROQ_TUI_DISABLE_EVENTS="1"):
        assert client.get("/reproq/tui/events/", **BEARER).status_code == 404


# -- stress -----------------------------------------------------------------------------------------------------------


def test_staff_may_enqueue_tasks_to_try_the_queue_with_and_not_too_many(client: Client, boss: User) -> None:
    assert client.post("/reproq/stress-test/", {"count": 3}).status_code == 302
    client.force_login(boss)
    assert client.get("/reproq/stress-test/").status_code == 405
    assert client.post("/reproq/stress-test/", {"count": 3}).json() == {"ok": True, "enqueued": 3}
    assert TaskRun.objects.count() == 3
    for count in ("10000000", "-1", "many", "²"):
        assert client.post("/reproq/stress-test/", {"count": count}).status_code == 400
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(boss)
    assert strict.post("/reproq/stress-test/", {"count": 1}).status_code == 403
