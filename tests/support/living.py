"""Is a process alive? A zombie is not, whoever forgets to reap it."""

import psutil


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that are alive."""
    return [process for process in processes if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Answer whether it runs, sleeps or is stopped."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
