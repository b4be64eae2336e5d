"""A systemd of our own, as process 1 of its own namespaces: units run for real and nothing of the machine changes.

It has its own /proc, /run, /var/lib and /var/log, an /etc whose changes are lost, and a control group below the one of this machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from reproq_supervisor.process.account import account_of
from tests.support.daemon import CHECKOUT
from tests.support.eventually import eventually

USER = "daemon"
USER_ID = 1
_PROGRAMS = (Path("/usr/lib/systemd/systemd"), Path("/lib/systemd/systemd"))
_TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "network-online", "boot")
_INNER = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mkdir /run/upper /run/work /run/keep
mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc
# What the service's user cannot reach, since it is in root's home, is bound to the same path below an open folder.
number=0
for path in $CLOSED; do
  number=$((number + 1)); mkdir /run/keep/$number; mount --bind "$path" /run/keep/$number
done
[ $number -eq 0 ] || mount -t tmpfs -o mode=755 tmpfs /root
number=0
for path in $CLOSED; do
  number=$((number + 1)); mkdir -p "$path"; mount --bind /run/keep/$number "$path"
done
# As process 1 does on a machine: credentials are mounted by a child of its own.
mount --make-rshared /
exec env -i container=reproq-test PATH="$PATH" SYSTEMD_UNIT_PATH="$UNITS" \\
  "$SYSTEMD" --system --unit=boot.target --show-status=no --log-target=console
"""


def why_not() -> str | None:
    """Return what is missing for a systemd of our own, None when nothing is."""
    if os.geteuid() != 0:
        return "it takes root"
    missing = [name for name in ("systemctl", "unshare", "nsenter") if shutil.which(name) is None]
    if missing or _program() is None:
        return f"it takes {', '.join(missing) or 'systemd'}"
    if (group := _unified()) is None or not os.access(group, os.W_OK):
        return "it takes control groups of version 2 that may be written"
    mount = "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && umount -R -l /sys/fs/cgroup"
    tried = subprocess.run(
        ["unshare", *_namespaces(), "--fork", "sh", "-c", mount], capture_output=True, text=True, timeout=60, check=False
    )
    if tried.returncode != 0:
        return f"it takes namespaces of its own: {tried.stderr.strip()}"
    if any(not path.is_relative_to("/root") for path in _closed()):
        return f"{USER} cannot reach {' '.join(map(str, _closed()))}"
    return None


class NotBootedError(RuntimeError):
    """This machine allows the parts, and yet no systemd runs."""


class BootedSystemd:
    """Runs from `with` to the end of the block; everything in it is gone afterwards."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="reproq-systemd-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.units = self.folder / "units"
        self.units.mkdir()
        group = _unified()
        assert group is not None
        self.group = group / self.folder.name
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> "BootedSystemd":
        for name in _TARGETS:
            (self.units / f"{name}.target").write_text("[Unit]\nDescription=Nothing\n")
        self.group.mkdir()
        join = f'echo $$ > {self.group}/cgroup.procs && exec unshare {" ".join(_namespaces())} --fork --kill-child sh -c "$INNER"'
        env = {**os.environ, "INNER": _INNER, "UNITS": str(self.units), "SYSTEMD": str(_program()), "CLOSED": " ".join(map(str, _closed()))}
        with (self.folder / "systemd.log").open("wb") as log:
            self._process = subprocess.Popen(["sh", "-c", join], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._init = eventually(self._find_init, timeout=60, what="systemd becomes process 1")
            eventually(lambda: self.run("systemctl", "is-system-running").stdout.strip() == "running", timeout=60, what="systemd runs")
        except AssertionError as error:
            self.__exit__()
            raise NotBootedError(f"{error}\n{self.log[-2000:]}") from error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        with suppress(OSError):
            (self.group / "cgroup.kill").write_text("1")
        self._process.kill()
        self._process.wait(30)
        eventually(self._remove_group, timeout=30, what="nothing is left in the control group")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What systemd said."""
        path = self.folder / "systemd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program beside systemd, as root of its namespaces."""
        enter = ["nsenter", "--target", str(self._init), "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--"]
        return subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=timeout, check=False, cwd="/")

    def product(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours beside systemd."""
        return self.run(sys.executable, "-P", "-m", "reproq_supervisor", *arguments)

    def show(self, unit: str, *names: str) -> list[str]:
        """Return properties of a unit."""
        found = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names)).stdout
        values = dict(line.partition("=")[::2] for line in found.splitlines())
        return [values[name] for name in names]

    def pids(self, unit: str) -> list[int]:
        """Return the processes of a unit, as this machine numbers them."""
        try:
            return [int(pid) for pid in (self.group / f"system.slice/{unit}.service/cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def _find_init(self) -> int | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"it ended with exit code {self._process.returncode}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return next((int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "systemd\n"), None)

    def _remove_group(self) -> bool:
        try:
            for folder, _, _ in os.walk(self.group, topdown=False):
                os.rmdir(folder)
        except OSError:
            return False
        return True


def _program() -> Path | None:
    return next((path for path in _PROGRAMS if path.exists()), None)


def _namespaces() -> list[str]:
    return ["--mount", "--pid", "--ipc", "--uts", "--cgroup"]


def _unified() -> Path | None:
    """Return where control groups of version 2 are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _closed() -> list[Path]:
    """Return the folders of Python and of the checkout that the service's user cannot reach."""
    account = account_of(USER_ID)
    needed = dict.fromkeys([Path(sys.base_prefix).resolve(), Path(sys.prefix), CHECKOUT])
    return [path for path in needed if account is None or not account.can_enter(path)]
