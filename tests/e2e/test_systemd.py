"""The unit under a real systemd, where one can be booted: start, reload, refusal, watchdog, crash, stop, and what is not tried again."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.booted_systemd import USER, USER_ID, BootedSystemd, NotBootedError, why_not
from tests.support.eventually import eventually
from tests.support.program import run_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.postgres]
UNIT = "reproq-supervisor"


@pytest.fixture(scope="module")
def booted() -> Iterator[BootedSystemd]:
    if reason := why_not():
        pytest.skip(reason)
    systemd = BootedSystemd()
    try:
        systemd.__enter__()
    except NotBootedError as error:  # every container forbids something else
        pytest.skip(f"no systemd boots here: {error}")
    yield systemd
    systemd.__exit__()


class Service:
    """The unit that `reproq-supervisor systemd` writes, with an embedded database, under the booted systemd."""

    def __init__(self, systemd: BootedSystemd) -> None:
        self.systemd = systemd
        self.folder = systemd.folder / "my app 100% $HOME's"  # every character that means something in a unit
        self.folder.mkdir(exist_ok=True)
        self.config = self.folder / "supervisor.yaml"
        self.log_path = systemd.folder / "daemon.log"

    def install(self, *arguments: str, user: str = USER, name: str = UNIT, more: str = "") -> None:
        """Write the unit, and beside it only what a test must have: a log, and shorter times."""
        done = run_program(
            "systemd", "-c", self.config, "--directory", self.folder, "--user", user, "--output", self.systemd.units, "--force", *arguments
        )
        assert done.code == 0, done.err
        drop_in = self.systemd.units / f"{name}.service.d"
        drop_in.mkdir(exist_ok=True)
        (drop_in / "test.conf").write_text(f"[Service]\nStandardError=append:{self.log_path}\nRestartSec=100ms\n{more}")
        assert self.systemd.run("systemctl", "daemon-reload").returncode == 0

    def configure(
        self, executors: object = 2, *, pools: dict[str, dict[str, Any]] | None = None, user: str | None = None, **keys: Any
    ) -> None:
        times = {"grace": "1s", "lease": "15s", "heartbeat": "1s"}
        wanted = pools or {"default": {"queues": ["default"], "executors": executors, "user": user}}
        pools = {name: {**times, **pool} for name, pool in wanted.items()}
        app = {"preload": ["workers.demo.tasks"], "allowed_task_modules": ["workers.demo."]}
        self.config.write_text(json.dumps({"database": "embedded", "app": app, "shutdown_timeout": "20s", "pools": pools, **keys}))

    def systemctl(self, verb: str, name: str = UNIT) -> tuple[int, str]:
        done = self.systemd.run("systemctl", verb, name)
        return done.returncode, done.stdout + done.stderr

    def show(self, *names: str) -> list[str]:
        return self.systemd.show(UNIT, *names)

    @property
    def main_pid(self) -> int:
        """Pid of the daemon, as this machine numbers it."""
        pids = self.systemd.pids(UNIT)
        return next((pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "reproq-super\n"), 0)

    def runs_a_task(self, path: str = "workers.demo.tasks.add", args: str = "[1, 2]", queue: str = "default") -> bool:
        """Enqueue a task as an operator does, wait for its end, and answer whether it succeeded."""
        asked = ("--args", args, "--queue", queue, "--max-attempts", "1", "--json", "-c", str(self.config))
        added = self.systemd.product("enqueue", path, *asked)
        assert added.returncode == 0, added.stdout + added.stderr + self.log
        (number,) = json.loads(added.stdout)["ids"]
        done = self.systemd.product("result", str(number), "--wait", "60s", "--json", "-c", str(self.config))
        return done.returncode == 0

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


def _product(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "reproq_supervisor", *arguments]


@pytest.fixture
def service(booted: BootedSystemd) -> Iterator[Service]:
    service = Service(booted)
    yield service
    booted.run("systemctl", "stop", UNIT)
    booted.run("systemctl", "reset-failed", UNIT)
    service.log_path.unlink(missing_ok=True)


def test_a_life_under_systemd(service: Service) -> None:
    service.configure()
    service.install()
    assert service.systemctl("start") == (0, ""), service.log
    assert service.show("ActiveState", "StatusText", "NotifyAccess") == ["active", "running", "main"]
    assert service.runs_a_task()
    daemon = service.main_pid

    service.configure(3)
    assert service.systemctl("reload") == (0, ""), service.log
    assert "generation" in service.show("StatusText")[0]
    service.configure("many")
    code, _ = service.systemctl("reload")
    assert code != 0, "it was refused"
    assert service.show("ActiveState", "SubState") == ["active", "running"]
    assert service.main_pid == daemon
    assert service.runs_a_task()

    service.configure()
    assert service.systemctl("stop") == (0, "")
    assert service.show("ActiveState", "Result", "NRestarts") == ["inactive", "success", "0"]
    assert service.systemd.pids(UNIT) == []
    assert service.systemctl("start") == (0, ""), service.log
    assert service.runs_a_task(), "the database is where it was"


def test_what_pools_can_do_is_possible_in_spite_of_the_hardening(service: Service) -> None:
    limits = {"nice": 5, "cpus": [0], "umask": "027", "limits": {"open_files": 256}, "recycle": {"tasks": 1, "rss": "512MiB"}}
    pools = {
        "limited": {"queues": ["limited"], "executors": 1, **limits},
        "fork": {"queues": ["fork"], "executors": 1, "isolation": "fork"},
        "exec": {"queues": ["exec"], "executors": 1, "isolation": "exec"},
    }
    service.configure(pools=pools, logs_dir="${LOGS_DIRECTORY:-}")
    service.install()
    assert service.systemctl("start") == (0, ""), service.log
    for queue in pools:
        assert not service.runs_a_task("workers.demo.tasks.crash", "[9]", queue), queue
        assert service.runs_a_task("workers.demo.tasks.leave_grandchild", "[60]", queue), queue
    assert service.runs_a_task("workers.demo.tasks.flood", "[1]", "limited")
    assert list(Path(f"/proc/{service.main_pid}/root/var/log/{UNIT}").glob("*.log")), "what tasks printed is kept"


def test_a_daemon_that_crashes_or_hangs_is_started_again(service: Service) -> None:
    service.configure()
    service.install(more="WatchdogSec=10s\n")
    assert service.systemctl("start") == (0, ""), service.log
    old = set(service.systemd.pids(UNIT))
    os.kill(service.main_pid, signal.SIGKILL)
    eventually(
        lambda: service.show("NRestarts", "ActiveState", "SubState") == ["1", "active", "running"], timeout=120, what="it was restarted"
    )
    assert not old & set(service.systemd.pids(UNIT)), "nothing of the first life is left"
    assert service.runs_a_task()

    old = set(service.systemd.pids(UNIT))
    os.kill(service.main_pid, signal.SIGSTOP)
    eventually(
        lambda: service.show("NRestarts", "ActiveState", "SubState") == ["2", "active", "running"],
        timeout=180,
        what="the watchdog ended it",
    )
    assert not old & set(service.systemd.pids(UNIT))
    assert service.runs_a_task()


def test_a_wrong_configuration_is_not_tried_again(service: Service) -> None:
    service.configure()
    service.install()
    service.configure("many")
    code, _ = service.systemctl("start")
    assert code != 0
    assert service.show("ActiveState", "Result", "ExecMainStatus", "NRestarts") == ["failed", "exit-code", "78", "0"]
    assert "pools.default.executors" in service.log


def test_the_database_can_be_a_credential_that_only_root_can_read(service: Service) -> None:
    service.configure()
    service.install()
    assert service.systemctl("start") == (0, ""), service.log
    credential = service.folder / "dsn"
    credential.write_text(f"postgresql://reproq@/reproq?host=%2Frun%2F{UNIT}%2Fpostgres&port=5432\n")
    credential.chmod(0o600)
    second = f"{UNIT}-second"
    service.config = service.folder / "second.yaml"
    service.configure()
    service.install("--instance", "second", "--credential", str(credential), name=second)
    try:
        assert service.systemctl("start", second) == (0, ""), service.log
        (main,) = service.systemd.show(second, "MainPID")
        status = service.systemd.run("env", f"RUNTIME_DIRECTORY=/run/{second}", *_product("status", "--json", "-c", str(service.config)))
        found = json.loads(status.stdout)
        assert str(found["pid"]) == main
        assert {child["role"] for child in found["children"]} == {"keeper", "shard"}, "no database of its own"
    finally:
        service.systemctl("stop", second)


def test_root_becomes_another_user_for_the_embedded_database_and_for_a_pool(service: Service) -> None:
    name = f"{UNIT}-root"
    service.config = service.folder / "root.yaml"
    service.configure(user=USER)
    service.install("--instance", "root", user="root", name=name)
    try:
        assert service.systemctl("start", name) == (0, ""), service.log
        assert service.runs_a_task()
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in service.systemd.pids(name)}
        assert {0, USER_ID} < owners, "root, the pool's user, and whoever runs PostgreSQL"
        assert service.systemctl("stop", name) == (0, "")
        assert service.systemd.pids(name) == []
    finally:
        service.systemctl("stop", name)
