"""Write what an attempt printed to its log file, in the contract's form."""

import contextlib
import os
from pathlib import Path

from reproq_supervisor.core.runs import Claimed
from reproq_supervisor.pool.worker import Output
from reproq_supervisor.process.task_logs import log_name


class OutputFiles:
    """The folder of task logs: mode 0700, files 0600, one per attempt, written again when the attempt is."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None

    @property
    def enabled(self) -> bool:
        return self._folder is not None

    def save(self, claimed: Claimed, output: Output | None) -> str | None:
        """Write the file and return its path; None when nothing was written or it cannot be kept. Closes *output*."""
        if output is None:
            return None
        try:
            fds = (output.stdout_fd, output.stderr_fd)
            texts = [os.pread(fd, kept, 0) for fd, kept in zip(fds, output.kept_bytes, strict=True)]
            if self._folder is None or not any(texts):
                return None
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / log_name(claimed.result_id, claimed.attempt)
            with open(path, "wb", opener=_private) as file:
                for title, fd, text in zip((b"STDOUT:", b"STDERR:"), fds, texts, strict=True):
                    dropped = os.fstat(fd).st_size - len(text)
                    file.write(title + b"\n" + text)
                    if text and not text.endswith(b"\n"):
                        file.write(b"\n")
                    if dropped > 0:
                        file.write(f"[{dropped} bytes more were dropped]\n".encode())
            return str(path)
        except OSError:
            # A full or read-only disk must not cost the result of the task; the run simply has no log.
            return None
        finally:
            output.close()


def _private(path: str, flags: int) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - an earlier file may belong to somebody else: never follow or reuse it
    return os.open(path, flags | os.O_EXCL | os.O_CLOEXEC, 0o600)
