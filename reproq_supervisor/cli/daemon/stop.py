"""`stop`: the end of the daemon, awaited."""

import os
import select
import time
from contextlib import nullcontext

import click

from reproq_supervisor.cli.daemon.control import RefusedError, ask
from reproq_supervisor.cli.daemon.record import NoDaemonError
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_duration
from reproq_supervisor.core.errors import ReproqError

_LOOK_EVERY_S = 0.5


class StillRunsError(ReproqError):
    """The daemon has not ended in the time that was given."""

    exit_code = 75


@click.command(epilog=example("reproq-supervisor stop", "reproq-supervisor stop --quick"))
@click.option("--quick", is_flag=True, help="Give running tasks back at once instead of letting them finish.")
@click.option(
    "--wait", "wait_s", metavar="DURATION", callback=as_duration, default="5m", show_default=True, help="Wait that long for its end."
)
@common_options
def stop(options: Options, quick: bool, wait_s: float) -> None:
    """Drain and stop the daemon.

    Waits until it is gone. Running tasks may finish within `shutdown_timeout`; what does not is given back and no attempt is counted.
    """
    pid = int(ask(options, "status")["status"]["pid"])
    pidfd = os.pidfd_open(pid)  # before the request, so that the pid cannot be somebody else's by then
    try:
        ask(options, "stop", quick=quick)
        began = time.monotonic()
        _wait_gone(options, pidfd, began + wait_s)
    finally:
        os.close(pidfd)
    took_s = time.monotonic() - began
    if options.output.as_json:
        options.output.show_json({"ok": True, "pid": pid, "took_s": round(took_s, 3)})
    else:
        options.output.line(f"stopped (pid {pid}, {took_s:.1f} s)")


def _wait_gone(options: Options, pidfd: int, deadline: float) -> None:
    """Wait until the process is gone, and show meanwhile what it waits for.

    Raises:
      StillRunsError: it is not, at the deadline.
    """
    shown = not options.output.as_json and options.output.console.is_terminal
    with options.output.console.status("stopping") if shown else nullcontext() as display:
        while not select.select([pidfd], [], [], max(0.0, min(_LOOK_EVERY_S, deadline - time.monotonic())))[0]:
            if time.monotonic() >= deadline:
                raise StillRunsError("daemon: expected to end in time, still runs; see status, wait longer (--wait), or use --quick")
            if display is not None:
                display.update(_progress(options))


def _progress(options: Options) -> str:
    """Return what the daemon waits for, in a few words."""
    try:
        pools = ask(options, "status")["status"]["pools"]
    except (NoDaemonError, RefusedError):
        return "stopping: the last processes"
    running = {name: sum(snapshot.get("running", 0) for snapshot in pool["snapshots"].values()) for name, pool in pools.items()}
    busy = ", ".join(f"{name} {count}" for name, count in running.items() if count)
    return f"stopping: tasks still running: {busy}" if busy else "stopping: no task is running any more"
