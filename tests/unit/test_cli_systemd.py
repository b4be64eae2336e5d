"""The unit file: what it says for which configuration, and what `systemd-analyze` thinks of it."""

import json
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.cli.systemd import machine
from reproq_supervisor.cli.systemd.directives import NOTIFY_RELOAD_SINCE, OLDEST, SINCE
from reproq_supervisor.cli.systemd.quoting import UnitTextError, command_line, listed, plain
from tests.support.program import Done, enter_empty_surroundings, run_program
from tests.support.unit_file import EXTERNAL, directives, unit, unit_text

ROOT = Path(__file__).parents[2]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)
    monkeypatch.delenv("SUDO_USER", raising=False)


def write(*arguments: object, text: str = "database: postgresql://app@db/app\n") -> Done:
    Path("supervisor.yaml").write_text(text)
    return run_program("systemd", *arguments)


# What the file says


def test_the_file_of_the_checkout_is_the_one_that_the_command_writes() -> None:
    written = unit_text()
    shipped = ROOT / "systemd/reproq-supervisor.service"
    assert shipped.read_text() == written, f"write it again: {shipped}"


def test_a_reload_that_is_refused_fails_and_the_end_comes_in_order() -> None:
    found = unit({**EXTERNAL, "shutdown_timeout": "90s", "pools": {"a": {"boot_timeout": "5m"}, "b": {}}})
    assert found["Type"] == ["notify"]
    assert found["ExecReload"] == [
        "/srv/app/.venv/bin/python -P -m reproq_supervisor reload -c /etc/reproq-supervisor/supervisor.yaml",
    ]
    assert (found["NotifyAccess"], found["KillMode"], found["OOMPolicy"]) == (["main"], ["mixed"], ["continue"])
    assert (found["Restart"], found["RestartPreventExitStatus"]) == (["on-failure"], ["78"])
    assert (found["TimeoutStartSec"], found["TimeoutStopSec"]) == (["330s"], ["105s"]), "longer than what the daemon grants itself"
    assert found["LoadCredential"] == ["dsn:/etc/reproq-supervisor/dsn"]


def test_an_older_systemd_gets_no_directive_that_it_does_not_know() -> None:
    old, new = unit(systemd=OLDEST), unit(systemd=max(SINCE.values()))
    assert set(new) - set(old) == set(SINCE)


# By systemd's manual (systemd.unit, .service, .exec, .kill, .resource-control), "Added in version"; what is older than 200 is 0.
_ADDED = {
    0: """Description Wants After WantedBy Type NotifyAccess ExecStart ExecReload KillMode User Group WorkingDirectory EnvironmentFile UMask
        LimitNICE LimitNOFILE PrivateTmp TimeoutStartSec TimeoutStopSec WatchdogSec Restart RestartSec RestartPreventExitStatus
        NoNewPrivileges CapabilityBoundingSet SystemCallFilter""",
    209: "DevicePolicy PrivateDevices SystemCallArchitectures SystemCallErrorNumber",
    214: "RestrictAddressFamilies ProtectHome ProtectSystem",
    232: """StartLimitIntervalSec RestrictRealtime ReadWritePaths PrivateUsers RemoveIPC ProtectControlGroups ProtectKernelModules
        ProtectKernelTunables""",
    235: """RestrictNamespaces KeyringMode LockPersonality StateDirectory RuntimeDirectory LogsDirectory ConfigurationDirectory
        StateDirectoryMode RuntimeDirectoryMode LogsDirectoryMode""",
    243: "PrivateMounts ProtectHostname RestrictSUIDSGID OOMPolicy",
    248: "ProtectKernelLogs ProtectClock LoadCredential ProtectProc PrivateIPC",
}
_ADDED_IN = {name: version for version, names in _ADDED.items() for name in names.split()}


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize(
    "settings", [EXTERNAL, {"database": "embedded"}, {**EXTERNAL, "logs_dir": "/srv/logs", "pools": {"a": {"nice": -5}}}]
)
def test_the_oldest_systemd_knows_every_directive(settings: dict[str, Any], *, is_root: bool) -> None:
    found = unit(settings, systemd=OLDEST, is_root=is_root, env_file=Path("/etc/env"))
    assert [name for name in found if _ADDED_IN.get(name, OLDEST + 1) > OLDEST] == []


def test_reload_by_signal_needs_no_command() -> None:
    found = unit(notify_reload=True, systemd=NOTIFY_RELOAD_SINCE)
    assert found["Type"] == ["notify-reload"]
    assert "ExecReload" not in found


def test_another_instance_has_folders_of_its_own() -> None:
    found = unit(instance="mail")
    folders = {name: found[name] for name in ("StateDirectory", "RuntimeDirectory", "LogsDirectory", "ConfigurationDirectory")}
    assert set(map(tuple, folders.values())) == {("reproq-supervisor-mail",)}


@pytest.mark.parametrize(
    ("settings", "site", "expected"),
    [
        ({}, {}, {"ProtectHome": ["yes"], "PrivateTmp": ["yes"], "CapabilityBoundingSet": [""], "PrivateUsers": ["yes"]}),
        ({}, {"directory": Path("/home/me/app")}, {"ProtectHome": ["read-only"]}),
        ({"app": {"path": ["/home/me/lib"]}}, {}, {"ProtectHome": ["read-only"]}),
        ({"logs_dir": "/tmp/logs"}, {}, {"PrivateTmp": ["no"], "ReadWritePaths": ["/tmp/logs /tmp /var/tmp"]}),
        ({"logs_dir": "logs"}, {"writable": (Path("/srv/my media"),)}, {"ReadWritePaths": ['/srv/app/logs "/srv/my media"']}),
        ({"logs_dir": "/var/log/reproq-supervisor/tasks"}, {}, {"ReadWritePaths": None}),
        ({"control": {"socket": "/srv/run/s.sock"}}, {}, {"ReadWritePaths": ["/srv/run"]}),
        ({"pools": {"a": {"nice": -5}, "b": {"nice": 5}}}, {}, {"LimitNICE": ["-5"]}),
        ({"pools": {"a": {"nice": 5}}}, {}, {"LimitNICE": None}),
        ({"database": "embedded"}, {}, {"CapabilityBoundingSet": [""], "StateDirectoryMode": ["0700"], "TimeoutStartSec": ["150s"]}),
        (
            {"database": "embedded"},
            {"is_root": True},
            {"PrivateUsers": None, "RemoveIPC": None, "ProtectProc": ["default"], "StateDirectoryMode": ["0711"]},
        ),
        ({"pools": {"a": {"limits": {"open_files": 1048576}}}}, {}, {"LimitNOFILE": ["1048576"]}),
        ({"pools": {"a": {"user": "daemon"}}}, {"is_root": True}, {"PrivateUsers": None, "ProtectProc": ["default"]}),
        ({"pools": {"a": {"nice": -5}}}, {"is_root": True}, {"CapabilityBoundingSet": ["CAP_DAC_READ_SEARCH CAP_SYS_NICE"]}),
    ],
)
def test_hardening_leaves_what_the_configuration_needs(settings: dict[str, Any], site: dict[str, Any], expected: dict[str, Any]) -> None:
    found = unit({**EXTERNAL, **settings}, **site)
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("settings", [{"database": "embedded"}, {**EXTERNAL, "pools": {"a": {}, "b": {"user": "nobody"}}}])
def test_root_that_starts_processes_as_somebody_else_may_do_so(settings: dict[str, Any]) -> None:
    (capabilities,) = unit(settings, is_root=True)["CapabilityBoundingSet"]
    assert {"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"} <= set(capabilities.split())


# Words as systemd reads them


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("/a/b", "-c", "/x.yaml"), "/a/b -c /x.yaml"),
        (("/a b", "it's"), '"/a b" "it\'s"'),
        (("/a", "100%", "$HOME"), "/a 100%% $$HOME"),
        (("/a", 'say "hi"\\there', ";", ""), '/a "say \\"hi\\"\\\\there" ";" ""'),
    ],
)
def test_a_command_line_is_quoted(arguments: tuple[str, ...], expected: str) -> None:
    assert command_line(Path(arguments[0]), *arguments[1:]) == expected


def test_a_path_is_a_path_whatever_is_in_it() -> None:
    assert listed([Path("/a b"), Path("/c%d")]) == '"/a b" /c%%d'
    assert plain("/a b/%h") == "/a b/%%h"


@pytest.mark.parametrize("text", ["/a\nUser=root", "/a\x00", "/a ", "/a\\"])
def test_what_would_begin_another_line_is_refused(text: str) -> None:
    with pytest.raises(UnitTextError):
        plain(text)


# The command


def test_it_prints_the_unit_for_this_machine_and_account() -> None:
    done = write("--systemd-version", 252)
    found = directives(done.out)
    assert done.code == 0
    assert found["User"] == [pwd.getpwuid(os.geteuid()).pw_name]
    assert found["WorkingDirectory"] == [os.getcwd()]
    assert found["ExecStart"] == [
        command_line(machine.find_python(), "-P", "-m", "reproq_supervisor", "run", "-c", Path("supervisor.yaml").absolute())
    ]
    assert ("--user" in done.err) == (os.geteuid() == 0)


def test_it_never_replaces_a_file_unless_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    done = write("--output", "units", "--json")
    path = tmp_path / "units/reproq-supervisor.service"
    assert (done.json["path"], path.read_text(), path.stat().st_mode & 0o777) == (str(path), done.json["unit"], 0o644)
    path.write_text("mine")
    refused = write("--output", path)
    assert (refused.code, path.read_text()) == (1, "mine")
    assert "--force" in refused.err
    assert write("--output", path, "--force").code == 0
    assert path.read_text() == done.json["unit"]


def test_it_says_what_keeps_the_unit_from_starting(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("postgresql:///x")
    (tmp_path / "open").chmod(0o644)
    advice = write("--json", "--credential", "open", "--env-file", "missing", "--writable", "media").json["advice"]
    assert any("open: is open to other users" in each for each in advice)
    assert any("missing: expected the file with the environment" in each for each in advice)
    assert any("media: expected a folder" in each for each in advice)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--user", "no-such-user"), "expected a user of this machine, got no-such-user"),
        (("--group", "no-such-group"), "expected a group of this machine, got no-such-group"),
        (("--instance", "a b"), "expected letters"),
        (("--notify-reload", "--systemd-version", 252), "expected systemd 253 or newer, found 252"),
        (("--systemd-version", 200), "249"),
        (("--directory", "a\nb"), "no control characters"),
    ],
)
def test_what_cannot_be_is_a_usage_error(arguments: tuple[object, ...], words: str) -> None:
    done = write(*arguments)
    assert done.code == 2
    assert words in done.err


def test_a_wrong_configuration_has_no_unit() -> None:
    done = write(text="pools: {}\n")
    assert done.code == 78


def test_pools_of_other_users_need_root() -> None:
    text = "{database: postgresql:///x, pools: {a: {user: daemon}}}"
    assert "User=root\n" in write(text=text).out
    done = write("--user", "daemon", text=text)
    assert "User=daemon\n" in done.out
    assert "--user root" in done.err


def test_the_database_is_the_services_not_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = "{database: embedded}"
    monkeypatch.setenv("DATABASE_URL", "postgresql://mine/x")
    assert "TimeoutStartSec=150s" in write(text=embedded).out, "with time for initdb"
    assert "TimeoutStartSec=90s" in write("--credential", "dsn", text=embedded).out
    (tmp_path / "env").write_text("# comment\nDATABASE_URL='postgresql://app@db/x'\n")
    assert "TimeoutStartSec=90s" in write("--env-file", "env", text=embedded).out


def test_a_dsn_is_not_written_into_a_unit() -> None:
    done = write("--dsn", "postgresql://me:hunter2@db/x")
    assert (done.code, "--credential" in done.err, "hunter2" in done.err + done.out) == (2, True, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to try as somebody else")
def test_what_the_account_cannot_reach_is_told(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    done = write("--user", "daemon", "--directory", "closed")
    assert f"{tmp_path}/closed: expected a folder that daemon can reach" in done.err


def test_whoever_called_sudo_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "daemon")
    assert machine.find_account(None, None, os.environ).user == "daemon"
    assert machine.find_account("root", None, os.environ) == machine.ServiceAccount("root", "root", is_root=True)
    assert machine.find_account("54321", None, os.environ) == machine.ServiceAccount("54321", "54321", is_root=False)


def test_a_machine_without_systemd_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_systemd() is None
    assert any("found no systemd here" in each for each in write("--json").json["advice"])
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'systemd 257 (257.6-1)'\n")
    (tmp_path / "systemctl").chmod(0o755)
    assert machine.find_systemd() == 257


# What systemd thinks of it


@needs_systemd
@pytest.mark.parametrize("arguments", [(), ("--credential", "/etc/hostname", "--writable", "/srv", "--env-file", "/etc/hostname")])
def test_systemd_finds_nothing_to_say(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write("--user", "daemon", "--output", tmp_path, *arguments)
    path = tmp_path / "reproq-supervisor.service"
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


SCHEDULE_UNITS = ("reproq-schedule.service", "reproq-schedule.timer")


@needs_systemd
def test_systemd_finds_nothing_to_say_of_the_timer_of_the_checkout(tmp_path: Path) -> None:
    program = tmp_path / "reproq-supervisor"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in SCHEDULE_UNITS:
        text = (ROOT / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/srv/app/.venv/bin/reproq-supervisor", str(program)).replace("User=app", "User=daemon"))
    argv = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in SCHEDULE_UNITS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_the_timer_of_the_checkout_comes_every_minute() -> None:
    (when,) = directives((ROOT / "systemd/reproq-schedule.timer").read_text())["OnCalendar"]
    argv = ["systemd-analyze", "calendar", "--iterations=3", when]
    done = subprocess.run(argv, env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, timeout=60, check=True)
    seconds = re.findall(r"\d\d:(\d\d):(\d\d) UTC", done.stdout)
    assert len(seconds) >= 2
    assert all(second == "00" for _, second in seconds)


def test_the_timer_of_the_checkout_starts_a_command_that_there_is() -> None:
    (command,) = directives((ROOT / "systemd/reproq-schedule.service").read_text())["ExecStart"]
    program, *arguments = command.split()
    assert Path(program).name == "reproq-supervisor"
    assert run_program(*arguments, "--help").code == 0


@needs_systemd
@pytest.mark.parametrize(
    ("account", "database", "most"),
    [("daemon", "postgresql:///x", 2.5), ("daemon", "embedded", 2.5), ("root", "postgresql:///x", 3.0), ("root", "embedded", 4.0)],
)
def test_the_unit_leaves_little_exposed(tmp_path: Path, account: str, database: str, most: float) -> None:
    write("--user", account, "--output", tmp_path, text=f"database: {database}\n")
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / "reproq-supervisor.service")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze reads no unit that is not loaded")
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= most, done.stdout


def test_the_unit_is_json_for_programs() -> None:
    answer = write("--json", "--instance", "mail").json
    assert (answer["ok"], answer["name"], answer["path"]) == (True, "reproq-supervisor-mail.service", None)
    assert json.dumps(answer)
