"""`manage.py reproq …`: every subcommand does on the project's database what the product's own commands do."""

import hashlib
import io
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings
from django.utils import timezone
from psycopg.conninfo import conninfo_to_dict

from reproq_django.models import PeriodicTask, QueueControl, RunState, TaskRun, Worker
from reproq_django.operating import artefact
from reproq_django.operating.databases import as_url
from reproq_django.operating.worker import served_queues
from tests.django.app import tasks
from tests.support.django_command import manage
from tests.support.postgres import Database
from tests.support.program import enter_empty_surroundings
from tests.support.tasks import finish


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an environment that decides nothing."""
    enter_empty_surroundings(tmp_path, monkeypatch)
    for name in ("REPROQ_RELEASE_URL", "REPROQ_WORKER_BIN", "LOW_MEMORY_MODE", "REPROQ_BEAT_CMD", "REPROQ_SCHEDULER_MODE", "QUEUE_NAMES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# -- stats ------------------------------------------------------------------------------------------------------------


def test_stats_count_tasks_and_list_workers(any_database: str) -> None:
    tasks.add.enqueue(1)
    tasks.add.using(queue_name="mail").enqueue(2)
    Worker.objects.create(worker_id="w-1", hostname="here", concurrency=2, last_seen_at=timezone.now())
    Worker.objects.create(worker_id="w-2", hostname="gone", concurrency=2, last_seen_at=timezone.now() - timedelta(hours=1))
    found = json.loads(manage("stats", "--json").out)
    assert found["tasks"] == {"READY": 2}
    assert found["queues"] == {"default": {"READY": 1}, "mail": {"READY": 1}}
    assert found["worker_health"] == {"alive": 1, "dead": 1}
    assert {worker["worker_id"]: worker["database"] for worker in found["workers"]} == {"w-1": "default", "w-2": "default"}
    assert set(found) == {
        *("tasks", "queues", "workers", "periodic", "queue_controls", "worker_health", "scheduler", "top_failing", "databases")
    }
    done = manage("status")
    assert done.code == 0 and "w-1 on here" in done.out and "READY       2" in done.out


def test_stats_name_what_fails_most_and_what_fires_schedules(any_database: str) -> None:
    tasks.fail.enqueue("a")
    TaskRun.objects.update(status=RunState.FAILED)
    PeriodicTask.objects.create(name="by-hand", cron_expr="0 3 * * *", task_path="a.b")
    QueueControl.objects.create(queue_name="mail", paused=True, reason="relay")
    found = json.loads(manage("stats", "--json").out)
    assert found["scheduler"]["mode"] == "beat" and found["scheduler"]["beat_enabled"] is True
    assert "by-hand" in [each["name"] for each in found["periodic"]]
    assert found["queue_controls"][0]["reason"] == "relay"
    if any_database == "sqlite":  # the store leaves to none but its own functions what has ended
        assert found["top_failing"] == [{"task_path": "tests.django.app.tasks.fail", "count": 1}]


# -- queues and runs --------------------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_goes_on(postgres: Database) -> None:
    assert manage("pause-queue", "mail", "--reason", "relay").code == 0
    control = QueueControl.objects.get(queue_name="mail")
    assert control.paused and control.reason == "relay"
    assert manage("resume-queue", "mail").code == 0
    assert not QueueControl.objects.get(queue_name="mail").paused
    assert manage("resume-queue", "never-paused").code == 0


def test_a_task_is_cancelled_by_the_id_that_enqueue_gave(postgres: Database) -> None:
    result = tasks.add.enqueue(1)
    assert manage("cancel", "--id", result.id).code == 0
    result.refresh()
    assert result.raw_status == "CANCELLED"
    assert manage("cancel", "--id", f"default:{tasks.add.enqueue(2).id}").code == 0
    missing = manage("cancel", "--id", "12345678")
    assert missing.code == 1
    nonsense = manage("cancel", "--id", "abc")
    assert nonsense.code == 1 and "'abc'" in nonsense.err


def test_logs_show_what_a_task_printed(postgres: Database, tmp_path: Path) -> None:
    result = tasks.add.enqueue(1)
    file = tmp_path / "task.log"
    file.write_text("STDOUT:\none\ntwo\n")
    finish(postgres, result.result_id)
    postgres.query("UPDATE task_runs SET logs_uri = %s WHERE result_id = %s", str(file), result.result_id)
    assert manage("logs", "--id", result.id, "--tail", 1).out == "two\n"
    assert manage("logs", "--id", result.id, "--show-path").out.strip() == str(file)
    assert manage("logs", "--id", tasks.add.enqueue(5).id).code == 1


def test_what_ended_is_pruned_and_expired_leases_are_reclaimed(postgres: Database) -> None:
    result = tasks.add.enqueue(1)
    finish(postgres, result.result_id)
    assert manage("prune-successful", "--older-than", "0s", "--dry-run").code == 0
    assert TaskRun.objects.count() == 1
    assert manage("prune", "--statuses", "FAILED", "--older-than", "0s").code == 0
    assert TaskRun.objects.count() == 1
    assert manage("prune-successful", "--older-than", "0s", "--all-databases").code == 0
    assert TaskRun.objects.count() == 0
    Worker.objects.create(worker_id="old", last_seen_at=timezone.now() - timedelta(days=1))
    assert manage("prune-workers", "--older-than", "10m").code == 0
    assert not Worker.objects.exists()
    held = tasks.add.enqueue(2)
    postgres.query(
        "UPDATE task_lane SET state = 'running', leased_by = 'w', lease_no = nextval('reproq_lease_seq'), attempts = 1,"
        " leased_until = now() - interval '1 minute' WHERE result_id = %s",
        held.result_id,
    )
    assert "1" in manage("reclaim", "--action", "fail").out
    held.refresh()
    assert held.raw_status == "FAILED"


def test_what_is_no_postgresql_is_told_so(sqlite: Path) -> None:
    done = manage("reclaim")
    assert done.code == 1 and "expected PostgreSQL" in done.err


def test_rows_are_changed_on_sqlite_too(sqlite: Path) -> None:
    assert manage("pause-queue", "mail", "--reason", "relay").code == 0
    assert QueueControl.objects.get(queue_name="mail").reason == "relay"
    assert manage("resume-queue", "mail").code == 0
    assert not QueueControl.objects.get(queue_name="mail").paused
    result = tasks.add.enqueue(1)
    assert manage("cancel", "--id", result.id).code == 0
    assert manage("cancel", "--id", result.id).code == 1
    assert manage("prune-successful", "--older-than", "0s").out == "0 deleted\n"
    assert manage("prune", "--older-than", "0s", "--dry-run").out == "1 would be deleted\n"
    assert manage("prune", "--older-than", "0s").code == 0
    assert not TaskRun.objects.exists()
    assert manage("prune", "--statuses", "READY").code == 2
    assert manage("prune", "--older-than", "soon").code == 2
    Worker.objects.create(worker_id="old", last_seen_at=timezone.now() - timedelta(days=1))
    assert manage("prune-workers").code == 0
    assert not Worker.objects.exists()


def test_wrong_words_end_as_wrong_usage(postgres: Database) -> None:
    assert manage("prune", "--older-than", "soon").code == 2
    assert manage("stats", "--database", "nowhere").code == 1
    assert manage("stats", "--no-such-flag").code == 1  # within a process; from a shell it is argparse that ends it, with 2


# -- schedules and tasks ----------------------------------------------------------------------------------------------


def test_django_s_own_flags_may_stand_behind_a_subcommand(any_database: str) -> None:
    assert manage("stats", "--settings", "shop.production", "--pythonpath=.", "--traceback").code == 0


def test_due_schedules_fire_once(postgres: Database) -> None:
    # Once a year: a minute may begin in the middle of the test.
    PeriodicTask.objects.create(name="now", cron_expr="0 0 1 1 *", task_path="a.b", next_run_at=timezone.now() - timedelta(seconds=5))
    assert manage("schedule").code == 0
    assert manage("beat", "--once").code == 0
    assert TaskRun.objects.filter(task_path="a.b").count() == 1
    assert manage("pg-cron", "--if-supported", "--dry-run").code == 0


@pytest.mark.parametrize("flags", [[], ["--bulk"]])
def test_tasks_to_try_the_queue_with(any_database: str, flags: list[str]) -> None:
    assert manage("stress-test", "--count", 7, *flags).code == 0
    assert TaskRun.objects.filter(task_path="reproq_django.tasks.debug_noop_task").count() == 7
    assert manage("stress-test", "--count", 10**9).code == 1


# -- set-up -----------------------------------------------------------------------------------------------------------


def test_check_sees_program_database_and_tables(postgres: Database) -> None:
    done = manage("check")
    assert done.code == 0 and "of this version" in done.out
    assert "postgresql://" in done.out


def test_check_of_an_empty_database_names_what_to_type_and_migrate_worker_does_it(bare_postgres: Database) -> None:
    done = manage("check")
    assert done.code == 1 and "manage.py migrate" in done.err
    assert manage("migrate-worker").code == 0
    assert manage("check").code == 0


def test_doctor_is_content_with_a_good_project(postgres: Database) -> None:
    done = manage("doctor")
    assert done.code == 0, done


def test_doctor_reads_the_worker_s_file(postgres: Database, surroundings: Path) -> None:
    (surroundings / "reproq.yaml").write_text("worker: {concurrency: many}\n")
    done = manage("doctor")
    assert done.code == 1 and "many" in done.err


@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_init_writes_a_file_that_the_worker_reads_and_brings_the_tables(bare_postgres: Database, surroundings: Path, form: str) -> None:
    done = manage("init", "--format", form)
    assert done.code == 0, done
    told = json.loads(manage("config").out)
    assert told["allowed-task-modules"] == ["reproq_django.tasks.", "tests.django.app.tasks."]
    assert told["queues"] == ["default"]
    assert manage("check").code == 0
    assert manage("init", "--format", form, "--skip-migrate", "--skip-worker-migrate").code == 1  # a file is in the way
    assert manage("init", "--format", form, "--force", "--skip-migrate", "--skip-worker-migrate").code == 0


def test_config_says_where_values_come_from_and_hides_secrets(
    postgres: Database, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (surroundings / "reproq.yaml").write_text("worker: {concurrency: 3}\nmetrics: {auth_token: hush}\n")
    monkeypatch.setenv("QUEUE_NAMES", "a,b")
    done = manage("config", "--explain", "--lease-seconds", 20)
    lines = done.out.splitlines()
    assert "concurrency: 3 (config)" in lines
    assert "queues: ('a', 'b') (env)" in lines
    assert "lease-seconds: 20 (flag)" in lines
    assert any(line.startswith("dsn: postgresql://") and line.endswith("(settings)") for line in lines)
    assert "hush" not in done.out


def test_without_a_file_a_worker_is_told_what_the_project_knows(postgres: Database, surroundings: Path) -> None:
    lines = manage("config", "--explain").out.splitlines()
    assert "queues: ('default',) (settings)" in lines
    assert "allowed-task-modules: ('reproq_django.tasks.', 'tests.django.app.tasks.') (settings)" in lines
    assert "queues: ('mail',) (flag)" in manage("config", "--explain", "--queues", "mail").out.splitlines()


def test_what_a_file_leaves_to_the_project_is_no_trouble(postgres: Database, surroundings: Path) -> None:
    (surroundings / "supervisor.yaml").write_text("pools: {own: {queues: [default]}}\n")
    done = manage("doctor")
    assert done.code == 0 and "allowed_task_modules" not in done.out, done
    assert '"own"' in manage("config").out or "own" in manage("config").out
    (surroundings / "supervisor.yaml").write_text("pools: {own: {queues: [default], executors: many}}\n")
    wrong = manage("doctor")
    assert wrong.code == 1 and "executors" in wrong.out


def test_allowlist_lists_the_modules_of_tasks_and_writes_them(postgres: Database, surroundings: Path) -> None:
    assert manage("allowlist").out == "ALLOWED_TASK_MODULES=reproq_django.tasks.,tests.django.app.tasks.\n"
    assert "  tests.django.app.tasks.add" in manage("allowlist", "--show-tasks", "--format", "plain").out.splitlines()
    file = surroundings / "reproq.yaml"
    file.write_text("# mine\nworker:\n  concurrency: 3 # few\n  allowed_task_modules:\n    - old.\n  queues: [a]\n")
    assert manage("allowlist", "--write").code == 0
    assert file.read_text() == (
        "# mine\nworker:\n  concurrency: 3 # few\n"
        '  allowed_task_modules: ["reproq_django.tasks.", "tests.django.app.tasks."]\n  queues: [a]\n'
    )
    toml = surroundings / "other.toml"
    toml.write_text("[worker] # mine\nconcurrency = 3\n")
    assert manage("allowlist", "--write", "--config", toml).code == 0
    assert toml.read_text().splitlines()[1] == 'allowed_task_modules = ["reproq_django.tasks.", "tests.django.app.tasks."]'
    assert json.loads(manage("config", "--config", toml).out)["concurrency"] == 3


# -- install ----------------------------------------------------------------------------------------------------------


def release(folder: Path, text: str, *, checksum: str | None = None) -> Path:
    """Make a release with one artefact for this machine."""
    (folder / "latest").mkdir(parents=True)
    asset = folder / "latest" / artefact.asset_name()
    asset.write_text(text)
    digest = checksum or hashlib.sha256(text.encode()).hexdigest()
    asset.with_name(f"{asset.name}.sha256").write_text(f"{digest}  {asset.name}\n")
    return folder


def test_a_release_is_installed_when_its_checksum_is_right(postgres: Database, surroundings: Path) -> None:
    source = release(surroundings / "releases", "#!/bin/sh\necho reproq 9.9\n")
    done = manage("install", "--source", source)
    assert done.code == 0, done
    assert "reproq 9.9" in done.out
    assert artefact.find_program() == Path(".reproq/bin/reproq")
    with override_settings(REPROQ_RELEASE_URL=source.as_uri()):
        assert manage("upgrade", "--skip-worker-migrate").code == 0
    assert "reproq 9.9" in manage("check").out


@pytest.mark.parametrize("trouble", ["checksum", "no checksum", "no program", "no address"])
def test_nothing_is_installed_otherwise(postgres: Database, surroundings: Path, trouble: str) -> None:
    text = "not a program" if trouble == "no program" else "#!/bin/sh\necho reproq 9.9\n"
    source = release(surroundings / "releases", text, checksum="0" * 64 if trouble == "checksum" else None)
    if trouble == "no checksum":
        next((source / "latest").glob("*.sha256")).unlink()
    done = manage("install", *([] if trouble == "no address" else ["--source", source]))
    assert done.code == 1
    assert not (surroundings / ".reproq/bin/reproq").exists()
    assert not list((surroundings / ".reproq").rglob("*reproq*"))


def test_an_address_that_anybody_could_answer_for_is_refused(postgres: Database) -> None:
    done = manage("install", "--source", "http://releases.example")
    assert done.code == 1 and "https" in done.err


def test_the_program_that_the_settings_name_comes_first(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = surroundings / "mine"
    chosen.write_text("#!/bin/sh\n")
    chosen.chmod(0o755)
    monkeypatch.setenv("REPROQ_WORKER_BIN", str(surroundings / "environment"))
    with override_settings(REPROQ_WORKER_BIN=str(chosen)):
        assert artefact.find_program() == chosen


# -- older names ------------------------------------------------------------------------------------------------------


def test_health_tells_who_works_and_what_failed(any_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="found none"):
        call_command("reproq_health")
    Worker.objects.create(worker_id="w", last_seen_at=timezone.now())
    call_command("reproq_health")
    assert "1 alive, 0 dead" in capsys.readouterr().out


def test_check_has_its_older_name(postgres: Database, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("reproq_check")
    assert "of this version" in capsys.readouterr().out


# -- databases of queues ----------------------------------------------------------------------------------------------


def test_a_worker_serves_the_queues_of_its_database(postgres: Database) -> None:
    routed = {"mail": "other", "report-*": "other"}
    tasks_of = {"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "QUEUES": ["default", "mail", "report-daily"]}}
    with override_settings(TASKS=tasks_of, REPROQ_QUEUE_DATABASES=routed):
        assert served_queues(None) == ["default"]
        assert served_queues("other") == ["mail", "report-daily"]
    assert served_queues(None) == ["default"], "a backend that takes any queue serves those of its tasks"


@pytest.mark.parametrize(
    ("parameters", "url"),
    [
        ({"host": "db", "port": "5432", "user": "a", "dbname": "n"}, "postgresql://a@db:5432/n"),
        ({"host": "db", "user": "a b", "password": "p:@/?", "dbname": "n"}, "postgresql://a%20b:p%3A%40%2F%3F@db/n"),
        ({"host": "/run/pg", "port": "6", "dbname": "n"}, "postgresql:///n?host=%2Frun%2Fpg&port=6"),
        ({"host": "::1", "dbname": "n", "sslmode": "require"}, "postgresql://[::1]/n?sslmode=require"),
        ({"service": "shop"}, "postgresql:///?service=shop"),
    ],
)
def test_what_django_knows_of_a_database_becomes_a_url_that_libpq_reads_back(parameters: dict[str, str], url: str) -> None:
    assert as_url(parameters) == url
    assert conninfo_to_dict(url) == parameters


def test_an_executor_of_one_s_own_is_begun_with_a_file_that_runs(surroundings: Path) -> None:
    call_command("reproq_init_executor", stdout=io.StringIO())
    done = subprocess.run([sys.executable, "executor_stub.py", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--payload-stdin" in done.stdout
    with pytest.raises(CommandError, match="found one"):
        call_command("reproq_init_executor")
