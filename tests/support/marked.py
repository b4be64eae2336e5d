"""Find processes by a mark in their environment: it reaches every descendant, escaped ones included, and survives the death of parents."""

import os
from pathlib import Path

MARK = "REPROQ_TEST_MARK"


def marked_pids(mark: str) -> list[int]:
    """Return the pids of the living processes that carry *mark*; a zombie has no environment any more."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
            except OSError:
                continue  # gone, or of somebody else
    return found


def state_of(pid: int) -> str:
    """Return the state letter of *pid* as proc(5) has it (R, S, T, Z ...), '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    """Return the parent of a living process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[int]:
    """Return the children of *pid*, zombies included."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
            except OSError:
                continue
    return found


def leads_executor_session(pid: int) -> bool:
    """Answer whether *pid* is an executor: it has the name of one, and leads its session."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "reproq-executor\n" and os.getsid(pid) == pid
    except OSError:
        return False
