"""One entry of `pools`: what a pool claims, how many processes it has, and what it grants a task."""

import shlex
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from reproq_supervisor.core.work import PayloadMode
from reproq_supervisor.settings.fields import (
    Duration,
    Fraction,
    Group,
    QueueName,
    Range,
    RangeFromNone,
    Size,
    Text,
    VariableName,
    VariableText,
    Whole,
    at_least,
    expected,
    is_database_url,
)
from reproq_supervisor.settings.system import CpuList, ResourceLimits, Umask, User


class Mode(StrEnum):
    """How tasks share an executor."""

    PROCESS = "process"
    THREAD = "thread"
    ASYNC = "async"


class Isolation(StrEnum):
    """How much of a process a task finds used."""

    REUSE = "reuse"
    FORK = "fork"
    EXEC = "exec"


def _read_queues(value: object) -> object:
    """Let a list (or a text with commas) stand for equal weights."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value):
            raise expected("names of queues, or {name: weight}", "put a name that looks like a number in quotes")
        if len(set(value)) < len(value):
            raise expected("each queue once")
        return dict.fromkeys(value, 1)
    if not isinstance(value, dict):
        raise expected("a list of queues, or {name: weight}")
    return value


Queues = Annotated[
    dict[QueueName, Annotated[Whole, Field(ge=1, le=1000)]],
    BeforeValidator(_read_queues, json_schema_input_type=dict[str, Whole] | list[str]),
    Field(min_length=1),
]


class Recycle(Group):
    """When an executor is replaced by a fresh one; its replacement is ready first. 0 switches a rule off."""

    tasks: Annotated[Whole, Field(ge=0)] = 0
    """After this many tasks."""
    rss: Size = 0
    """When its own private memory is larger. Looked at after a task and during it; a running task is let finish."""
    age: Duration = 0.0
    """When it is older."""
    jitter: Fraction = 0.1
    """Up to so much is taken off these limits, drawn once per executor, so that they do not all leave together."""
    at_once: Annotated[Whole, Field(ge=1, le=1000)] = 1
    """So many executors of the pool, over all its shards, may be on their way out at the same time."""


def _split_words(value: object) -> object:
    """Let one text stand for the words of a command line, as a shell splits it."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value) or None
    except ValueError:
        raise expected("a command line with its quotes closed") from None


class Exec(Group):
    """The program that runs the tasks of a pool with `isolation: exec`; it speaks the executor protocol."""

    command: Annotated[
        Annotated[list[Text], Field(min_length=1)] | None, BeforeValidator(_split_words, json_schema_input_type=list[str] | str | None)
    ] = None
    """Program and first arguments, e.g. [python3, -m, myapp.executor]; null: the one of this package, with its own interpreter."""
    payload: PayloadMode = PayloadMode.STDIN
    """How it gets the spec of its task: stdin; file: a memory file by path; inline: an argument that everybody can read."""
    max_stdout: Annotated[Size, Field(ge=1024, le=64 * 2**20)] = 2**20
    """The longest result envelope; more is no result."""
    max_stderr: Annotated[Size, Field(le=64 * 2**20)] = 2**20
    """What is kept of its standard error; the rest is counted and dropped."""


def _check_task_database(value: str) -> str:
    if value != "none" and not is_database_url(value):
        raise expected("null, none, or a URL such as postgresql://user@host:5432/name")
    return value


class Retry(Group):
    """The delay before a failed task runs again: base, doubled with every attempt, up to the cap."""

    base: Annotated[Duration, at_least(0.001)] = 30.0
    """Before the second attempt."""
    cap: Duration = 3600.0
    """The longest delay."""
    jitter: Fraction = 0.1
    """Spread of each delay."""


class Poll(Group):
    """How often an idle shard looks by itself; every wait has jitter."""

    min: Annotated[Duration, at_least(0.01)] = 1.0
    """The first wait of a shard that nothing else wakes (`store.listen: false`); it doubles up to max."""
    max: Annotated[Duration, at_least(0.01)] = 5.0
    """The longest wait, and the usual one of a shard that notifications wake."""


class Quarantine(Group):
    """When a pool whose processes keep dying is no longer restarted at once but probed by one of them at a time."""

    exits: Annotated[Whole, Field(ge=1)] = 5
    """This many abnormal exits ..."""
    window: Annotated[Duration, at_least(1)] = 60.0
    """... within this time."""


class Pool(Group):
    """A named group of processes that claim from the same queues."""

    queues: Queues = Field(default_factory=lambda: {"default": 1})
    """Queues and their weights, that is turns per round; a list means equal weights."""
    shards: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Claiming processes. One serves several executors; more than cores never help."""
    executors: RangeFromNone = RangeFromNone(min=1, max=4)
    """Processes that run tasks, in the whole pool: as many between min and max as arrival and backlog ask for; with min: 0 none while there
    is nothing to do. A number fixes the size."""
    weight: Annotated[Whole, Field(ge=1, le=1000)] = 1
    """Of the pool where several want more than there is: of processors, memory, and the `budget`."""
    mode: Mode = Mode.PROCESS
    """process: one task per executor; thread, async: several."""
    slots: Range = Range(min=1, max=1)
    """Tasks at once in one executor (modes thread and async): the number between min and max that gets most done. A number fixes it."""
    isolation: Isolation = Isolation.REUSE
    """reuse: executors stay warm; fork: a fresh fork per task; exec: a fresh interpreter per task."""
    exec: Exec = Exec()
    """What runs the tasks with `isolation: exec`."""
    drain_target: Annotated[Duration, at_least(0.1)] = 10.0
    """How fast a backlog should be worked off; decides the size between min and max."""
    timeout: Annotated[Duration, at_least(0.1)] = 900.0
    """The longest a task may run; a task's own timeout can only be shorter."""
    grace: Duration = 10.0
    """Between the soft signal and the kill."""
    lease: Annotated[Duration, at_least(1)] = 60.0
    """How long a claimed task belongs to its shard without renewal; after the loss of a host its tasks wait this long."""
    recycle: Recycle = Recycle()
    """When an executor is replaced by a fresh one."""
    retry: Retry = Retry()
    """The delay before a failed task runs again."""
    poll: Poll = Poll()
    """How often an idle shard looks by itself."""
    nice: Annotated[Whole, Field(ge=-20, le=19)] = 0
    """CPU niceness of the executors; below 0 needs privileges."""
    cpus: CpuList = Field(default_factory=list)
    """Processors that the executors run on, such as [0, 2-3]; empty: all. A task could choose others."""
    limits: ResourceLimits = ResourceLimits()
    """Resource limits of each executor."""
    umask: Umask = None
    """Permissions that new files of tasks do not get, in octal; null: the daemon's."""
    user: User = None
    """Account, by name or number, that the application is imported and run as; needs a daemon that is root. null: the daemon's."""
    task_database: Annotated[Text, AfterValidator(_check_task_database)] | None = None
    """Where tasks write that complete themselves, a URL, or none; null: the daemon's own, but none for another `user`. It must be the same
    database, under another role at most."""
    env: dict[VariableName, VariableText] = Field(default_factory=dict)
    """Environment variables of the pool's processes, on top of the daemon's."""
    boot_timeout: Annotated[Duration, at_least(1)] = 60.0
    """How long a shard may take until it is ready, imports included."""
    heartbeat: Annotated[Duration, at_least(0.1)] = 5.0
    """Main loops of shard and executors show life this often; three missed in a row count as hung."""
    quarantine: Quarantine = Quarantine()
    """When the pool is probed instead of restarted."""
