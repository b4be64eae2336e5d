"""Where each value came from, and how a configuration is shown."""

from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.settings.load import Loaded, load
from reproq_supervisor.settings.present import as_yaml, with_origins

TEXT = """\
logs_dir: ${BASE}/logs
shutdown_timeout: 45
pools:
  mail:
    queues: [a, b.c]
    executors: 3
    recycle: {tasks: 7, rss: 512MiB}
    env: {API_TOKEN: hunter2}
web: {auth_token: "${TOKEN:-hunter2}"}
"""


def loaded(folder: Path, **overrides: Any) -> Loaded:
    path = folder / "c.yaml"
    path.write_text(TEXT)
    flags = {key.replace("__", "."): value for key, value in overrides.items()}
    return load(str(path), overrides=flags, environ={"BASE": "/var", "DATABASE_URL": "postgresql://u:hunter2@h/x"})


def origins(loaded: Loaded) -> dict[str, str]:
    return {each.key: each.origin for each in with_origins(loaded.settings, loaded.layers, human=True)}


def test_every_value_says_where_it_came_from(tmp_path: Path) -> None:
    found = origins(loaded(tmp_path, pools__mail__shards=2, logs={"level": "debug"}))
    source = str(tmp_path / "c.yaml")
    expected = {
        "database": "environment DATABASE_URL",
        "logs_dir": f"environment BASE ({source}:1)",
        "shutdown_timeout": f"{source}:2",
        "pools.mail.queues.a": f"{source}:5",
        "pools.mail.queues.b.c": f"{source}:5",
        "pools.mail.executors.max": f"{source}:6",
        "pools.mail.recycle.tasks": f"{source}:7",
        "pools.mail.recycle.jitter": "default",
        "pools.mail.timeout": "default",
        "pools.mail.shards": "flag",
        "logs.level": "flag",
        "logs.format": "default",
        "web.auth_token": f"{source}:9",
        "keeper.beat": "default",
    }
    assert {key: found[key] for key in expected} == expected


def test_values_are_shown_as_people_write_them_or_as_numbers(tmp_path: Path) -> None:
    it = loaded(tmp_path)
    shown = {human: {each.key: each.value for each in with_origins(it.settings, it.layers, human=human)} for human in (True, False)}
    keys = ("shutdown_timeout", "pools.mail.timeout", "pools.mail.recycle.rss", "pools.mail.recycle.jitter", "pools.mail.recycle.age")
    assert [shown[True][key] for key in keys] == ["45s", "15m", "512MiB", "10%", 0]
    assert [shown[False][key] for key in keys] == [45.0, 900.0, 2**29, 0.1, 0.0]


@pytest.mark.parametrize("human", [True, False])
def test_secrets_are_masked_everywhere(tmp_path: Path, human: bool) -> None:
    it = loaded(tmp_path)
    shown = repr(list(with_origins(it.settings, it.layers, human=human))) + as_yaml(it.settings)
    assert "hunter2" not in shown
    assert "***" in shown


def test_what_is_shown_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    it = loaded(tmp_path, database="embedded", web__auth_token=None, pools__mail__env={"A": "1"})
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(it.settings))
    assert load(str(again), environ={}).settings == it.settings
