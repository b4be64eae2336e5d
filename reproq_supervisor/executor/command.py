"""The program that runs the tasks of a pool with `isolation: exec`: found once, in the nursery, and started for every task.

    <command...> --result-id 7 --attempt 1 --payload-stdin        the spec on standard input, then its end
                                           --payload-file PATH    the spec in a file
                                           --payload-json JSON    the spec for everybody to read in the process list

The file is a memory file, which the program reaches through /proc: it is never on a disk, and gone with the executor whatever happens.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from reproq_supervisor.core.work import PayloadMode, Work
from reproq_supervisor.executor.preload import PreloadError
from reproq_supervisor.process.spawn import python_argv

PROGRAM = "reproq_supervisor.executor.program"


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.

    Attributes:
      argv: argv[0] is the full path of the program.
      max_stdout_bytes: an envelope may be this long.
    """

    argv: tuple[str, ...]
    payload: PayloadMode
    max_stdout_bytes: int

    @classmethod
    def find(cls, settings: Mapping[str, Any]) -> Self:
        """Return the command of the `exec` section of a pool.

        Raises:
          PreloadError: there is no such program.
        """
        argv = settings.get("command") or python_argv(PROGRAM)
        path = _find_program(argv[0])
        if path is None:
            raise PreloadError(f"exec.command: expected a program that can be run, got {argv[0]!r}: no such file, or not executable")
        return cls((path, *argv[1:]), PayloadMode(settings["payload"]), int(settings["max_stdout"]))

    def argv_for(self, work: Work, payload_fd: int, *, names_its_task: bool) -> list[str]:
        """Return the command line for *work*, whose spec is in the memory file *payload_fd* of this process.

        Args:
          names_its_task: the spec has a task path; without one the program is told that of the record.
        """
        options = ["--result-id", str(work.result_id), "--attempt", str(work.attempt)]
        match self.payload:
            case PayloadMode.STDIN:
                options.append("--payload-stdin")
            case PayloadMode.FILE:
                options += ["--payload-file", f"/proc/{os.getpid()}/fd/{payload_fd}"]
            case PayloadMode.INLINE:
                options += ["--payload-json", os.fsdecode(work.spec)]
        return [*self.argv, *options] if names_its_task else [*self.argv, *options, "--task-path", work.task_path]


def prepare_environment(app: Mapping[str, Any]) -> None:
    """Tell programs through the environment what a nursery knows from *app* (the `app` section): path, allow-list, settings module."""
    path = [os.path.abspath(entry) for entry in app.get("path") or []]  # noqa: PTH100 - a missing folder is no error
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*path, inherited] if inherited else path)
    os.environ["ALLOWED_TASK_MODULES"] = ",".join(app.get("allowed_task_modules") or [])
    if app.get("django_settings_module"):
        os.environ["DJANGO_SETTINGS_MODULE"] = app["django_settings_module"]


def _find_program(name: str) -> str | None:
    if os.sep in name:
        candidates = [os.path.abspath(name)]  # noqa: PTH100 - not resolved: a virtual environment's Python is a link
    else:
        candidates = [os.path.join(folder, name) for folder in os.get_exec_path()]  # noqa: PTH118
    return next((path for path in candidates if os.path.isfile(path) and os.access(path, os.X_OK)), None)  # noqa: PTH113
