"""The older worker's settings: who wins, what each becomes, and how wrong ones are told."""

import os
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.settings.contract.dsn import Dsn, read_dsn
from reproq_supervisor.settings.contract.durations import parse_go_duration
from reproq_supervisor.settings.contract.file import ContractError, find_file, read_file
from reproq_supervisor.settings.contract.load import Worker, load_worker
from reproq_supervisor.settings.contract.values import settle
from reproq_supervisor.settings.contract.words import WORDS
from reproq_supervisor.settings.load import answer
from reproq_supervisor.settings.problems import Problem

DSN = {"DATABASE_URL": "postgres://app@db/app"}


def written(folder: Path, text: str, name: str = "reproq.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def worker(path: str | None = None, flags: dict[str, str] | None = None, environ: dict[str, str] | None = None) -> Worker:
    return load_worker(path, flags or {}, DSN if environ is None else environ)


def problems(path: str | None = None, flags: dict[str, str] | None = None, environ: dict[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ContractError) as caught:
        worker(path, flags, environ)
    assert caught.value.exit_code == 1
    return caught.value.problems


# Precedence

# One value of each word for the file, the environment and the flag, and what is read.
EXAMPLES: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "text": (("a", "b", "c"), ("a", "b", "c")),
    "int": (("11", "12", "13"), (11, 12, 13)),
    "float": (("1.5", "2", "3"), (1.5, 2.0, 3.0)),
    "duration": (("90s", "2m", "1h"), (90.0, 120.0, 3600.0)),
    "list": (("a,b", "c", "d, e"), (("a", "b"), ("c",), ("d", "e"))),
}
CHOSEN = {
    "payload-mode": (("file", "inline", "stdin"), ("file", "inline", "stdin")),
    "poll-min-backoff": (("1.5s", "", ""), (1.5, None, None)),
}


@pytest.mark.parametrize("name", [word.name for word in WORDS])
def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path, name: str) -> None:
    (word,) = (word for word in WORDS if word.name == name)
    (in_file, in_env, in_flag), (of_file, of_env, of_flag) = CHOSEN.get(name) or EXAMPLES[word.kind]
    path, section = tmp_path / "reproq.toml", word.keys[-1].rpartition(".")
    path.write_text((f"[{section[0]}]\n" if section[0] else "") + f'{section[2]} = "{in_file}"\n')
    file, base = read_file(str(path)), {} if name == "dsn" else DSN
    assert settle(file, base, {}).by_name[name] == of_file
    environ = {**base, word.env: in_env} if word.env else base
    expected = of_env if word.env else of_file
    assert settle(file, environ, {}).by_name[name] == expected
    assert settle(file, environ, {name: in_flag}).by_name[name] == (of_flag if word.flag else expected)
    empty = {**base, **({word.env: ""} if word.env else {})}
    assert settle(file, empty, {name: ""}).by_name[name] == of_file, "empty is unset"


def test_the_worker_section_is_stronger_than_the_top_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "dsn: postgres://top/x\nworker: {dsn: 'postgres://section/x'}\n")
    assert worker(path, environ={}).settings.database == "postgres://section/x"
    assert worker(written(tmp_path, "dsn: postgres://top/x"), environ={}).settings.database == "postgres://top/x"


def test_empty_texts_and_lists_of_the_file_are_unset(tmp_path: Path) -> None:
    text = "worker:\n  queues: []\n  worker_id: ''\n  logs_dir:\n  exec_timeout: ~\nmetrics:\nbeat: {interval: 30s}\n"
    loaded = worker(written(tmp_path, text))
    assert list(loaded.settings.pools["worker"].queues) == ["default"]
    assert (loaded.name, loaded.settings.logs_dir, loaded.settings.pools["worker"].timeout) == (None, None, 3600.0)
    assert loaded.advice == ()


def test_usual_files_are_found_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_file(None) is None
    for name in (".reproq.toml", ".reproq.yaml", "reproq.toml", "reproq.yml", "reproq.yaml"):
        Path(name).touch()
        assert find_file(None) == name
    assert find_file("other.yaml") == "other.yaml"


# Ours for theirs


def test_without_anything_it_is_the_contracts_worker() -> None:
    settings = worker().settings
    pool = settings.pools["worker"]
    assert (settings.database, list(pool.queues), settings.shutdown_timeout) == ("postgres://app@db/app", ["default"], 30.0)
    assert settings.app.allowed_task_modules == ["myapp.tasks.", "tasks."]
    assert (pool.executors.min, pool.executors.max, pool.timeout, pool.lease) == (10, 10, 3600.0, 300.0)
    assert (pool.poll.min, pool.poll.max) == (0.1, 5.0)
    assert (pool.retry.base, pool.retry.cap) == (30.0, 3600.0)
    assert (settings.keeper.reclaim_interval, settings.keeper.beat) == (60.0, False)
    assert settings.queues["default"].priority_aging == 60.0
    assert pool.env == {"REPROQ_PROCESS_ROLE": "worker"}


def test_a_whole_file_of_the_contract(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        dsn: "postgres://file:secret@db/app?pool_max_conns=20"
        worker:
          worker_id: mailer
          queues: [mail, bulk, mail]
          allowed_task_modules: [shop.tasks.]
          concurrency: 3
          lease_seconds: 90
          heartbeat_seconds: 2
          reclaim_interval_seconds: 0
          payload_mode: file
          python_bin: python3
          max_attempts_default: 3
          priority_aging_factor: 0
          logs_dir: /var/log/reproq
          poll_min_backoff: 250ms
          poll_max_backoff: 1.5s
          exec_timeout: 1h30m
          shutdown_timeout: 45s
          colour: red
        metrics: {addr: "127.0.0.1:9090", auth_token: hush}
        """.replace("\n        ", "\n"),
    )
    loaded = worker(path, environ={"DJANGO_SETTINGS_MODULE": "shop.settings"})
    settings, pool = loaded.settings, loaded.settings.pools["worker"]
    assert (settings.database, loaded.name) == ("postgres://file:secret@db/app", "mailer")
    assert (dict(pool.queues), pool.executors.max, pool.lease, pool.heartbeat) == ({"mail": 1, "bulk": 1}, 3, 90.0, 2.0)
    assert (pool.timeout, pool.poll.min, pool.poll.max, settings.shutdown_timeout) == (5400.0, 0.25, 1.5, 45.0)
    assert (settings.queues["mail"].priority_aging, settings.logs_dir) == (0.0, "/var/log/reproq")
    assert settings.keeper.reclaim_interval > 86400 * 365
    assert settings.app.django_settings_module == "shop.settings"
    assert len(loaded.advice) == 4
    for words in ("worker.colour", "--metrics-addr, --metrics-auth-token", "worker.payload_mode", "pool_max_conns"):
        assert any(words in line for line in loaded.advice)
    assert not any("hush" in line or "secret" in line for line in loaded.advice)


def test_another_program_runs_each_task_as_the_contract_says(tmp_path: Path) -> None:
    path = written(tmp_path, "worker: {executor_module: shop.executor, payload_mode: file, max_stdout_bytes: 2048}")
    loaded = worker(path)
    pool = loaded.settings.pools["worker"]
    assert (pool.isolation, pool.exec.command) == ("exec", ["python3", "-m", "shop.executor"])
    assert (pool.exec.payload, pool.exec.max_stdout, pool.exec.max_stderr) == ("file", 2048, 2**20)
    (line,) = loaded.advice
    assert "many times faster" in line


@pytest.mark.parametrize("lease_s", [1, 2, 5, 30, 3600])
def test_every_lease_leaves_room_for_the_deadlines(lease_s: int) -> None:
    pool = worker(flags={"lease-seconds": str(lease_s)}).settings.pools["worker"]
    assert 9 * pool.heartbeat < pool.lease
    assert pool.grace < pool.lease


@pytest.mark.parametrize("text", ["1", "true", "YES", " on "])
def test_low_memory_does_without_what_it_can(text: str) -> None:
    settings = worker(environ={**DSN, "LOW_MEMORY_MODE": text}).settings
    assert (settings.store.listen, settings.pools["worker"].recycle.rss) == (False, 256 * 2**20)
    assert worker(environ={**DSN, "LOW_MEMORY_MODE": "0"}).settings.store.listen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://a:b@c/d?sslmode=require", Dsn("postgres://a:b@c/d?sslmode=require")),
        ("postgres://c/d?pool_max_conns=5&sslmode=require", Dsn("postgres://c/d?sslmode=require", True, ("pool_max_conns",))),
        ("postgres://c/d?default_query_exec_mode=exec", Dsn("postgres://c/d", False, ("default_query_exec_mode",))),
        ("host=db dbname=app password='it\\'s' port=5433", Dsn("postgresql:///?host=db&dbname=app&password=it%27s&port=5433")),
        ("host = /run/pg  user=me", Dsn("postgresql:///?host=%2Frun%2Fpg&user=me")),
        ("nonsense", Dsn("nonsense")),
        ("", Dsn("")),
    ],
)
def test_a_dsn_of_the_go_driver_is_one_for_libpq(text: str, expected: Dsn) -> None:
    assert read_dsn(text) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1h30m", 5400),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2m3.5s", 123.5),
        ("250us", 0.00025),
        ("1µs", 1e-6),
        ("+3s", 3),
    ],
)
def test_a_go_duration(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "-1s", "1 s", "1d", "s", ".s", "1s2", "9" * 50 + "s", "٣s"])
def test_what_go_does_not_take_for_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_go_duration(text)


# Wrong ones


def test_every_wrong_value_is_told_at_once_and_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "worker: {concurrency: many, exec_timeout: '5', max_stdout_bytes: 0, payload_mode: fax}")
    found = problems(path, {"lease-seconds": "0"}, {**DSN, "PRIORITY_AGING_FACTOR": "fast", "METRICS_AUTH_TOKEN": "hush"})
    assert [problem.path for problem in found] == [
        *("worker.concurrency", "--lease-seconds", "worker.payload_mode", "PRIORITY_AGING_FACTOR"),
        *("worker.max_stdout_bytes", "worker.exec_timeout"),
    ]
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("worker: [", "r.yaml", "expected YAML"),
        ("worker = ", "r.toml", "expected TOML"),
        ("{}", "r.json", "expected a file .yaml, .yml or .toml, got .json"),
        ("{}", "r", "got no suffix"),
        ("worker: 5", "r.yaml", "worker: expected a mapping"),
        ("- a", "r.yaml", "expected a mapping of settings"),
        ("worker: {concurrency: {a: 1}}", "r.yaml", "worker.concurrency: expected a text"),
        ("worker: {queues: [[a]]}", "r.yaml", "worker.queues: expected a text"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, name: str, words: str) -> None:
    with pytest.raises(ContractError, match=words.replace(".", r"\.")):
        worker(written(tmp_path, text, name))


def test_a_worker_needs_a_database_that_outlives_it() -> None:
    for environ in ({}, {"DATABASE_URL": "embedded"}):
        (problem,) = problems(environ=environ)
        assert "--dsn, DATABASE_URL" in (problem.hint or "")


def test_a_minimum_above_its_maximum_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "worker: {poll_min_backoff: 6s}"))
    assert problem.path == "worker.poll_max_backoff"


def test_what_our_settings_refuse_ends_with_1_too() -> None:
    problem, *_ = problems(flags={"queues": "a\x07b"})
    assert problem.path.startswith("pools.worker.queues")


def test_no_problem_shows_the_password() -> None:
    assert "hunter2" not in str(problems(flags={"dsn": "mysql://me:hunter2@db/x"}))


# Reload


def test_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    path = written(tmp_path, "worker: {concurrency: 2}")
    start = {"config_path": path, "environ": DSN, "runtime": {"contract": {"path": path, "flags": {"queues": "mail"}}}}
    assert answer(start)["settings"]["pools"]["worker"]["executors"] == {"min": 2, "max": 2}
    written(tmp_path, "worker: {concurrency: 3}")
    again = answer(start)["settings"]
    assert (again["pools"]["worker"]["executors"], again["pools"]["worker"]["queues"]) == ({"min": 3, "max": 3}, {"mail": 1})
    written(tmp_path, "worker: {concurrency: none}")
    assert answer(start)["problems"][0]["path"] == "worker.concurrency"
    os.unlink(path)
    assert "found none" in answer(start)["problems"][0]["message"]
