"""Loading the configuration: values, precedence, and every problem in one go."""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.settings.checks import advise
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.settings.resolve import resolve


class Written:
    """A configuration file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "supervisor.yaml"

    def load(self, text: str, *, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
        self.path.write_text(text, encoding="utf-8")
        flags = {key.replace("__", "."): value for key, value in overrides.items()}
        return load(str(self.path), overrides=flags, environ=environ or {}).settings

    def problems(self, text: str, *, environ: dict[str, str] | None = None, **overrides: Any) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ=environ, **overrides)
        return caught.value.problems

    def problem(self, text: str, **options: Any) -> Problem:
        problems = self.problems(text, **options)
        assert len(problems) == 1, problems
        return problems[0]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_no_file_means_all_defaults() -> None:
    assert load(None, environ={}).settings == Settings()


def test_an_empty_mapping_means_all_defaults(written: Written) -> None:
    assert written.load("{}") == Settings()


def test_values_are_read_as_people_write_them(written: Written) -> None:
    settings = written.load(
        """
        pools:
          mail:
            queues: [mail, on, "1:30"]
            executors: 3
            timeout: 1h30m
            heartbeat: 500ms
            recycle: {rss: 1.5GiB, jitter: 25%}
            env: {SIZE: 4}
        """
    )
    pool = settings.pools["mail"]
    assert pool.queues == {"mail": 1, "on": 1, "1:30": 1}
    assert (pool.executors.min, pool.executors.max) == (3, 3)
    assert (pool.timeout, pool.heartbeat) == (5400.0, 0.5)
    assert (pool.recycle.rss, pool.recycle.jitter) == (1610612736, 0.25)
    assert pool.env == {"SIZE": "4"}


def test_two_pools_may_share_a_queue(written: Written) -> None:
    settings = written.load("pools: {a: {queues: [x]}, b: {queues: {x: 2}}}")
    assert [pool.queues for pool in settings.pools.values()] == [{"x": 1}, {"x": 2}]


def test_an_alias_repeats_a_value(written: Written) -> None:
    settings = written.load("pools: {a: {recycle: &often {tasks: 10}}, b: {recycle: *often}}")
    assert settings.pools["b"].recycle.tasks == 10


def test_every_problem_is_told_at_once_in_the_order_of_the_file(written: Written) -> None:
    problems = written.problems(
        """\
app:
  pth: [.]
logs_dir: ${NOPE}
pools:
  mail:
    executors: {min: 5, max: 2}
    lease: 20
    recycle: {rss: 3 apples}
  other:
    executors: 0
    slots: 2
"""
    )
    assert [(problem.path, problem.line, problem.column) for problem in problems] == [
        ("app.pth", 2, 3),
        ("logs_dir", 3, 11),
        ("pools.mail.executors.min", 6, 22),
        ("pools.mail.heartbeat", 7, 12),  # a default that does not fit the lease: told at the lease
        ("pools.mail.recycle.rss", 8, 20),
        ("pools.other.executors", 10, 16),
        ("pools.other.slots", 11, 12),
    ]


def test_an_unknown_key_comes_with_a_suggestion(written: Written) -> None:
    problem = written.problem("pools: {mail: {excutors: 3}}")
    assert (problem.path, problem.column, problem.hint) == ("pools.mail.excutors", 16, "did you mean executors?")


def test_an_unknown_key_like_no_other_comes_with_the_known_ones(written: Written) -> None:
    assert written.problem("control: {zzz: 1}").hint == "one of socket"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("", "", "expected a mapping of settings, got an empty file"),
        ("# only words", "", "expected a mapping of settings, got an empty file"),
        ("- a", "", "expected a mapping of settings, got a list"),
        ("word", "", "expected a mapping of settings, got a single value"),
        ("a: 1\n---\nb: 2", "", "expected YAML: but found another document (expected a single document in the stream)"),
        ("app: {", "", "expected YAML: expected the node content, but found '<stream end>' (while parsing a flow node)"),
        ("app: !!python/name:os.system x", "app", "expected a plain value, got the tag tag:yaml.org,2002:python/name:os.system"),
        ("app: {<<: {path: [.]}}", "app.<<", "expected a key, got a merge key"),
        ("logs: {level: info, level: debug}", "logs.level", "expected each key once, got it again: first on line 1"),
        ("app: {path: &a [*a]}", "app.path[0]", "expected a value, got an alias to something that contains it"),
        ("? [a]\n: 1", "", "expected a text as key, got a list"),
        ("app: 5", "app", "expected a mapping, got 5"),
        ("shutdown_timeout: -1", "shutdown_timeout", "expected a duration such as 500ms, 30s or 1h30m (at most 3650d), got -1"),
        ("shutdown_timeout: .inf", "shutdown_timeout", "expected a duration such as 500ms, 30s or 1h30m (at most 3650d), got '.inf'"),
        ("pools: {}", "pools", "expected at least 1 entry, got an empty mapping"),
        ("pools: {a: {queues: {}}}", "pools.a.queues", "expected at least 1 entry, got an empty mapping"),
        ("pools: {a: {queues: [x, x]}}", "pools.a.queues", "expected each queue once, got a list"),
        ("pools: {a: {queues: {x: 0}}}", "pools.a.queues.x", "expected at least 1, got 0"),
        ("pools: {a: {shards: true}}", "pools.a.shards", "expected a whole number, got true"),
        ("pools: {a: {shards: 1.5}}", "pools.a.shards", "expected a whole number, got 1.5"),
        ("pools: {a: {shards: 3, executors: 2}}", "pools.a.shards", "expected at most executors.max (2), got 3"),
        ("pools: {a: {grace: 2m}}", "pools.a.grace", "expected less than the lease (1m), got 2m"),
        ("pools: {a: {slots: 2}}", "pools.a.slots", "expected 1 in mode process, got 2"),
        ("pools: {a: {slots: {min: 1, max: 2}}}", "pools.a.slots", "expected 1 in mode process, got 2"),
        ("pools: {a: {mode: thread, slots: 501}}", "pools.a.slots", "expected at most 500, got 501"),
        ("pools: {a: {mode: async, isolation: fork}}", "pools.a.isolation", "expected reuse in mode async, got fork"),
        ("pools: {a: {exec: {payload: inline}}}", "pools.a.exec.payload", "expected stdin or file, got inline"),
        ("pools: {a: {exec: {command: []}}}", "pools.a.exec.command", "expected at least 1 entry, got an empty list"),
        ('pools: {a: {exec: {command: "sh \'x"}}}', "pools.a.exec.command", 'expected a command line with its quotes closed, got "sh \'x"'),
        ("pools: {a: {mode: fast}}", "pools.a.mode", "expected 'process', 'thread' or 'async', got 'fast'"),
        ("web: {tls: {cert: x}}", "web.tls", "expected null (more is not available yet in this version), got a mapping"),
    ],
)
def test_a_mistake_is_named(written: Written, text: str, path: str, message: str) -> None:
    problem = written.problem(text)
    assert (problem.path, problem.message) == (path, message)
    assert problem.line is not None


def test_a_queue_name_with_control_characters_is_refused_at_its_key(written: Written) -> None:
    problem = written.problem('pools: {a: {queues: {ok: 1, "a\\nb": 1}}}')
    assert (problem.line, problem.column) == (1, 29)


def test_a_rule_about_a_wrong_value_is_silent(written: Written) -> None:
    assert [problem.path for problem in written.problems("pools: {a: {lease: soon, heartbeat: 30}}")] == ["pools.a.lease"]


@pytest.mark.parametrize("content", [b"a: \xff", b"# fine\nlogs_dir: x\xc3("])
def test_bytes_that_are_not_utf8_are_found_with_their_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="expected UTF-8, got the byte") as caught:
        load(str(path), environ={})
    assert caught.value.problems[0].line == content.count(b"\n") + 1


def test_files_that_cannot_be_read_are_one_problem(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("none", "", "large", "pipe", "loop", "a\0b"):
        with pytest.raises(ConfigError) as caught:
            load(str(tmp_path / name), environ={})
        assert len(caught.value.problems) == 1, name


# Root may read everything, so it becomes somebody else, when all that is needed to load has been imported.
_LOAD_WITHOUT_RIGHTS = """
import os, sys
from reproq_supervisor.process.identity import identity_of
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.problems import ConfigError

path = sys.argv[1]
load(path, environ={})
os.chmod(path, 0)
if os.geteuid() == 0:
    identity_of("nobody").become()
try:
    load(path, environ={})
except ConfigError as error:
    print(*(problem.message for problem in error.problems), sep="\\n")
"""


def test_a_forbidden_file_is_one_problem() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # it is the file that is forbidden
        path = Path(folder, "c.yaml")
        path.write_text("{}")
        done = subprocess.run([sys.executable, "-c", _LOAD_WITHOUT_RIGHTS, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["expected a readable file: Permission denied"]


def test_aliases_that_multiply_are_stopped(written: Written) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "expected at most 20000 values" in written.problem("\n".join(lines)).message


def test_deep_nesting_is_one_problem(written: Written) -> None:
    assert written.problem("[" * 20_000).message == "expected settings, got a text nested too deeply"


def test_a_character_that_yaml_forbids_is_found_with_its_place(written: Written) -> None:
    problem = written.problem("logs_dir: x\nweb: a\x07b")
    assert (problem.line, problem.column) == (2, 7)


def test_the_environment_fills_in_references(written: Written) -> None:
    settings = written.load(
        "{logs_dir: '${BASE}/logs/${SUB:-x}', pools: {a: {executors: '${N:-4}', queues: '${Q}'}}, web: {allow_cidrs: '${CIDRS:-}'}}",
        environ={"BASE": "/var", "N": "", "Q": "mail, bulk"},
    )
    assert settings.logs_dir == "/var/logs/x"
    assert settings.pools["a"].executors.max == 4
    assert settings.pools["a"].queues == {"mail": 1, "bulk": 1}
    assert settings.web.allow_cidrs == []


def test_an_empty_reference_unsets_a_path(written: Written) -> None:
    assert written.load("logs_dir: ${LOGS:-}").logs_dir is None


def test_an_escaped_reference_stays(written: Written) -> None:
    assert written.load("logs_dir: /x/$${HOME}/$HOME").logs_dir == "/x/${HOME}/$HOME"


def test_flags_win_over_environment_and_environment_over_file(written: Written) -> None:
    text = "database: postgresql://file/x"
    url = {"DATABASE_URL": "postgresql://environment/x"}
    assert written.load(text).database == "postgresql://file/x"
    assert written.load(text, environ=url).database == "postgresql://environment/x"
    assert written.load(text, environ=url, database="embedded").database == "embedded"


def test_a_credential_wins_over_the_file_and_nothing_else(written: Written, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://credential/x\n")
    text, given = "database: ${NOPE}", {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert written.load(text, environ=given).database == "postgresql://credential/x"
    assert written.load(text, environ={**given, "DATABASE_URL": "postgresql://environment/x"}).database == "postgresql://environment/x"
    assert written.load("{}", environ={"CREDENTIALS_DIRECTORY": f"{tmp_path}/none"}).database == "embedded"


def test_an_empty_credential_is_no_silent_embedded_database(written: Written, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("\n")
    (problem,) = written.problems("{}", environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (problem.path, problem.line, problem.hint) == ("database", None, "given by credential dsn")
    assert "an empty text" in problem.message


def test_a_flag_makes_up_for_a_variable_that_is_not_set(written: Written) -> None:
    assert written.load("database: ${NOPE}", database="embedded").database == "embedded"


def test_a_flag_reaches_into_a_pool_and_leaves_the_rest(written: Written) -> None:
    settings = written.load("pools: {a: {shards: 2, executors: {min: 2, max: 8}}}", pools__a__executors=3)
    assert (settings.pools["a"].shards, settings.pools["a"].executors.min) == (2, 3)


def test_a_wrong_flag_is_told_as_such(written: Written) -> None:
    problem = written.problem("logs: {level: info}", logs__level="loud")
    assert (problem.path, problem.line, problem.hint) == ("logs.level", None, "given by flag")


def test_no_problem_shows_a_secret(written: Written) -> None:
    problems = written.problems(
        """
        database: ${DB}
        web: {auth_token: [hunter2]}
        logs_dir: [hunter2]
        control: {socket: "${S}"}
        pools: {a: {env: {API_TOKEN: 99}}}
        """,
        environ={"DB": "mysql://u:hunter2@h/x", "S": "postgresql://u:hunter2@" + "h" * 200},
        pools__a__env__DB_PASSWORD=["hunter2"],
    )
    assert len(problems) == 5
    assert "hunter2" not in repr(problems)


def test_the_error_survives_pickling_and_prints_one_line_a_problem(written: Written) -> None:
    with pytest.raises(ConfigError) as caught:
        written.load("app: 5\nweb: 6")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems
    assert str(again).splitlines() == [
        f"{written.path}:1:6: app: expected a mapping, got 5",
        f"{written.path}:2:6: web: expected a mapping, got 6",
    ]


def test_the_wire_form_has_numbers_and_every_default(written: Written) -> None:
    runtime = {"dsn": "postgresql:///x"}
    resolved = resolve(written.load("pools: {mail: {queues: [mail], timeout: 2m, executors: 2}}"), runtime)
    assert resolved["pools"]["mail"]["timeout"] == 120.0
    assert resolved["pools"]["mail"]["executors"] == {"min": 2, "max": 2}
    assert resolved["pools"]["mail"]["mode"] == "process"
    assert resolved["pools"]["mail"]["recycle"]["rss"] == 0
    assert resolved["queues"] == {"mail": {"priority_aging": 60.0, "retry_base": None, "retry_cap": None}}
    assert resolved["runtime"] == runtime


def test_a_queue_whose_first_delay_is_longer_than_its_longest_is_refused(written: Written) -> None:
    problem = written.problem("queues: {default: {retry_base: 1m, retry_cap: 30s}}")
    assert (problem.path, problem.message) == ("queues.default.retry_base", "expected at most retry_cap (30s), got 1m")


def test_duties_of_a_later_version_are_told(written: Written) -> None:
    settings = written.load(
        """
        app: {allowed_task_modules: ["myapp."]}
        pools: {a: {recycle: {rss: 1GB}, drain_target: 20s}, b: {recycle: {jitter: 5%}}}
        queues: {default: {priority_aging: 0}}
        keeper: {beat: true, retention: 30d}
        web: {listen: "127.0.0.1:9090"}
        """
    )
    keys = ["web.listen"]
    assert list(advise(settings)) == [(key, "has no effect yet in this version") for key in keys]


def test_recycling_what_serves_one_task_is_told_to_be_useless(written: Written) -> None:
    settings = written.load(
        '{app: {allowed_task_modules: ["a."]}, pools: {a: {isolation: fork, recycle: {tasks: 5}}, b: {isolation: fork}}}'
    )
    ((key, advice),) = advise(settings)
    assert key == "pools.a.recycle"
    assert "fresh process" in advice


def test_a_full_file_is_valid(written: Written) -> None:
    settings = written.load(
        """
        database: ${DATABASE_URL:-embedded}
        app:
          path: [.]
          preload: [workers.demo.tasks]
          allowed_task_modules: ["workers.demo."]
          django_settings_module: null
        logs_dir: null
        shutdown_timeout: 30s
        pools:
          default:
            queues: {default: 3, bulk: 1}
            shards: 1
            executors: {min: 1, max: 4}
            mode: process
            slots: 1
            isolation: reuse
            drain_target: 10s
            timeout: 15m
            grace: 10s
            lease: 60s
            recycle: {tasks: 0, rss: 512MiB, age: 0, jitter: 10%}
            nice: 0
            boot_timeout: 60s
            heartbeat: 5s
            quarantine: {exits: 5, window: 60s}
        queues:
          default: {priority_aging: 60s}
        keeper: {beat: true, beat_interval: 1s, reclaim_interval: 5s, retention: 30d}
        web: {listen: "127.0.0.1:9090", auth_token: null, allow_cidrs: [], tls: null}
        control: {socket: null}
        """
    )
    assert settings.pools["default"].queues == {"default": 3, "bulk": 1}
    assert settings.pools["default"].recycle.rss == 512 * 2**20
