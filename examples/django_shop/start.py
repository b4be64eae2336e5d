"""The whole shop by one command: python start.py [--port 8000]

    python manage.py reproq worker     the supervisor, with a private PostgreSQL
    python manage.py migrate           the tables
    python manage.py fill              three products to sell
    python manage.py runserver         the pages

Ctrl-C stops everything; what was ordered is kept in .reproq beside this file.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
MANAGE = [sys.executable, "manage.py"]
PATIENCE_S = 120


def main() -> int:
    """Start everything, wait for Ctrl-C, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):  # also where a shell has started this in the background, with the first ignored
        signal.signal(signum, _interrupt)
    worker = _begin(*MANAGE, "reproq", "worker")
    pages = None
    try:
        _wait_until_it_runs(worker)
        _do(*MANAGE, "migrate", "--verbosity", "0")
        _do(*MANAGE, "fill")
        pages = _begin(*MANAGE, "runserver", "--noreload", f"127.0.0.1:{arguments.port}")
        print(f"\nThe shop is open: http://127.0.0.1:{arguments.port}/   (Ctrl-C closes it)\n", flush=True)
        while pages.poll() is None and worker.poll() is None:
            time.sleep(0.2)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for process in (pages, worker):
            if process is not None:
                _end(process)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _begin(*command: str) -> "subprocess.Popen[bytes]":
    # In a session of its own: a Ctrl-C is for us, who stop one after the other.
    return subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, start_new_session=True)


def _do(*command: str) -> None:
    subprocess.run(command, cwd=HERE, check=True)


def _wait_until_it_runs(worker: "subprocess.Popen[bytes]") -> None:
    status = [sys.executable, "-m", "reproq_supervisor", "status", "-c", "supervisor.yaml", "--json"]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if worker.poll() is not None:
            sys.exit(f"the worker ended with exit code {worker.returncode}; it says why above")
        answer = subprocess.run(status, cwd=HERE, capture_output=True, text=True, check=False)
        with suppress(ValueError):  # nothing yet that answers
            if json.loads(answer.stdout).get("state") == "running":
                return
        time.sleep(0.3)
    sys.exit(f"the worker is not ready after {PATIENCE_S} s: reproq-supervisor explain mail -c {HERE}/supervisor.yaml")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
