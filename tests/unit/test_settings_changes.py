"""What differs between two configurations, and what each difference asks for."""

import copy
import subprocess
import sys
from typing import Any

import pytest

from reproq_supervisor.settings.changes import CLASSES, ChangeClass, classify, fingerprint
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.resolve import resolve
from reproq_supervisor.settings.schema import leaf_paths


def wire(**overrides: Any) -> dict[str, Any]:
    """Return a resolved configuration with some values of its own."""
    flags = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve(load(None, overrides=flags, environ={}).settings, {"dsn": "x"})


def test_every_setting_has_a_class_and_every_class_a_setting() -> None:
    leaves = {".".join(path) for path in leaf_paths()}
    assert leaves - set(CLASSES) == set()
    assert set(CLASSES) - leaves == {"pools.*", "queues.*", "schedules.*"}


def test_the_same_configuration_differs_in_nothing() -> None:
    assert classify(wire(), wire()) == []
    assert fingerprint(wire()) == fingerprint(wire())


def test_the_runtime_is_not_compared() -> None:
    assert classify(wire(), {**wire(), "runtime": {"dsn": "y"}}) == []
    assert fingerprint(wire()) == fingerprint({**wire(), "runtime": {"dsn": "y"}})


@pytest.mark.parametrize(
    ("overrides", "key", "how"),
    [
        ({"pools__default__executors": {"min": 1, "max": 9}}, "pools.default.executors.max", "live"),
        ({"pools__default__queues": {"default": 2}}, "pools.default.queues.default", "live"),
        ({"pools__default__timeout": "1m"}, "pools.default.timeout", "live"),
        ({"pools__default__shards": 2}, "pools.default.shards", "live"),
        ({"queues": {"default": {"priority_aging": 0}}}, "queues.default.priority_aging", "live"),
        ({"app__preload": ["x"]}, "app.preload", "rolling"),
        ({"pools__default__env": {"A": 1}}, "pools.default.env.A", "rolling"),
        ({"pools__default__lease": 90}, "pools.default.lease", "rolling"),
        ({"database": "postgresql://h/x"}, "database", "restart"),
        ({"control__socket": "/run/x"}, "control.socket", "restart"),
    ],
)
def test_a_change_has_its_class(overrides: dict[str, Any], key: str, how: str) -> None:
    changes = classify(wire(), wire(**overrides))
    assert [(change.key, change.how) for change in changes] == [(key, how)]
    assert fingerprint(wire()) != fingerprint(wire(**overrides))


def test_a_pool_that_comes_or_goes_is_one_change() -> None:
    small, large = wire(), wire(pools={"default": {}, "mail": {}})
    came, went = classify(small, large), classify(large, small)
    assert [(change.key, change.how, change.old) for change in came] == [("pools.mail", "rolling", None)]
    assert [(change.key, change.how, change.new) for change in went] == [("pools.mail", "rolling", None)]


def test_a_queue_that_a_pool_serves_now_is_live() -> None:
    changes = classify(wire(), wire(pools__default__queues=["default", "a.b"]))
    assert {change.key: change.how for change in changes} == {"pools.default.queues.a.b": "live", "queues.a.b": "live"}


def test_a_key_of_another_version_waits_for_a_restart() -> None:
    newer = copy.deepcopy(wire())
    newer["pools"]["default"]["invented"] = 1
    assert [(change.key, change.how) for change in classify(wire(), newer)] == [("pools.default.invented", ChangeClass.RESTART)]


def test_secrets_are_masked_in_changes() -> None:
    changes = classify(
        wire(database="postgresql://u:hunter1@h/x", pools__default__env={"API_TOKEN": "hunter1"}),
        wire(
            database="postgresql://u:hunter2@h/x", pools={"default": {"env": {"API_TOKEN": "hunter2"}}, "b": {"env": {"SECRET": "hunter3"}}}
        ),
    )
    assert {change.key for change in changes} == {"database", "pools.default.env.API_TOKEN", "pools.b"}
    assert "hunter" not in repr(changes)


def test_a_change_keeps_its_values_for_people_to_read() -> None:
    (change,) = classify(wire(), wire(pools__default__timeout="1m"))
    assert (change.old, change.new) == (900.0, 60.0)


def test_the_supervisor_can_compare_without_importing_a_library() -> None:
    code = "import sys; import reproq_supervisor.settings.changes; print(sorted({'pydantic', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
