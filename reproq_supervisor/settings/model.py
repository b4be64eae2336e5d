"""The configuration file as types: every key, its default and what it is for. The texts under the keys become the JSON Schema."""

import ipaddress
import os
import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, TypeAdapter, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from reproq_supervisor.settings.fields import (
    COMMAS,
    Duration,
    Group,
    MaybeText,
    PoolName,
    QueueName,
    Size,
    Text,
    TextList,
    Whole,
    at_least,
    expected,
    is_database_url,
)
from reproq_supervisor.settings.pools import Pool
from reproq_supervisor.settings.schedules import Schedule

EMBEDDED = "embedded"
MAX_SOCKET_PATH_BYTES = 107
MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _check_database(value: str) -> str:
    if value != EMBEDDED and not is_database_url(value):
        raise expected("embedded, or a URL such as postgresql://user@host:5432/name")
    return value


def _check_module(value: str) -> str:
    if not MODULE_NAME.fullmatch(value):
        raise expected("the dotted name of a module, such as myapp.tasks")
    return value


def _check_task_prefix(value: str) -> str:
    if value != "*" and not MODULE_NAME.fullmatch(value.removesuffix(".")):
        raise expected("the start of a dotted name, such as myapp.tasks., or *")
    return value


def _check_cidr(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise expected("a network such as 10.0.0.0/8") from None
    return value


def _check_listen(value: str | None) -> str | None:
    if value is not None:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and int(port) < 65536):
            raise expected("an address and port such as 127.0.0.1:9090")
    return value


def _check_socket(value: str | None) -> str | None:
    if value is not None and len(os.fsencode(value)) > MAX_SOCKET_PATH_BYTES:
        raise expected(f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes, as the kernel has it")
    return value


ModuleList = Annotated[list[Annotated[Text, AfterValidator(_check_module)]], COMMAS]
PrefixList = Annotated[list[Annotated[Text, AfterValidator(_check_task_prefix)]], COMMAS]
NetworkList = Annotated[list[Annotated[Text, AfterValidator(_check_cidr)]], COMMAS]


class Store(Group):
    """How the database is talked to."""

    listen: bool = True
    """Keep one connection per shard that is woken by notifications; false for a transaction pooler: polling only."""
    prepare: bool = True
    """Use prepared statements; false for poolers that lose them."""


class App(Group):
    """The application whose tasks run."""

    path: TextList = ["."]
    """Folders put in front of sys.path; relative ones start from the working directory of the daemon."""
    preload: ModuleList = []
    """Modules imported once per nursery, before executors are forked."""
    allowed_task_modules: PrefixList = []
    """Only task paths that start with one of these run; "*" allows any, for development only."""
    django_settings_module: MaybeText = None
    """DJANGO_SETTINGS_MODULE of the nursery; null: not a Django application."""


class Queue(Group):
    """What belongs to a queue wherever it is served."""

    priority_aging: Duration = 60.0
    """Waiting this long is worth one point of priority; 0: strict priority, first due first served."""
    retry_base: Annotated[Duration, at_least(0.001)] | None = None
    """Before the second attempt of a task of this queue, doubled with every attempt; null: the pool's."""
    retry_cap: Duration | None = None
    """The longest delay between attempts of a task of this queue; null: the pool's."""


class Budget(Group):
    """What the executors of all pools may have together, shared by weight; each pool has its least in any case. null: no bound."""

    executors: Annotated[Whole | None, Field(ge=1, le=10_000)] = None
    """Executors in all pools."""
    memory: Annotated[Size | None, Field(ge=2**20)] = None
    """Memory of the executors of pools that find their size."""
    connections: Annotated[Whole | None, Field(ge=1, le=100_000)] = None
    """Database connections of tasks: one for each slot of each executor."""


class Retention(Group):
    """How long finished tasks are kept, by how they ended: a duration for all, or one for each. 0 keeps them for ever."""

    successful: Duration = 0.0
    """Those that succeeded."""
    failed: Duration = 0.0
    """Those that failed."""
    cancelled: Duration = 0.0
    """Those that were cancelled."""

    @model_validator(mode="before")
    @classmethod
    def read_duration(cls, value: object) -> object:
        """Let one duration stand for all."""
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return dict.fromkeys(("successful", "failed", "cancelled"), value)
        if not isinstance(value, dict | Retention):
            raise expected("a duration such as 30d, or {successful, failed, cancelled}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Offer both forms."""
        return {"anyOf": [handler(schema), TypeAdapter(Duration).json_schema()]}


class Keeper(Group):
    """Duties that one process does for all: any number of keepers may run, one acts."""

    beat: bool = True
    """Fire schedules; false where pg_cron or a timer does it. REPROQ_SCHEDULER_MODE in the environment wins: beat, or anything else."""
    beat_interval: Annotated[Duration, at_least(0.1)] = 1.0
    """How soon a new or changed schedule is noticed; what is known to be due fires in time."""
    reclaim_interval: Annotated[Duration, at_least(0.1)] = 5.0
    """How often expired leases are looked for."""
    retention: Retention = Retention()
    """How long finished tasks are kept: a duration, or one for each of successful, failed and cancelled; 0: for ever."""


class Web(Group):
    """The process with metrics, health and dashboard."""

    listen: Annotated[MaybeText, AfterValidator(_check_listen)] = None
    """Address and port; null: off."""
    auth_token: MaybeText = None
    """Bearer token that clients must show."""
    allow_cidrs: NetworkList = []
    """Networks that clients may come from; empty: any."""
    tls: None = None
    """Certificates."""


class Control(Group):
    """The socket through which commands reach the daemon."""

    socket: Annotated[MaybeText, AfterValidator(_check_socket)] = None
    """Path of the socket, relative ones beside this file; null: in the runtime directory."""


class Logs(Group):
    """What the daemon writes to its standard error."""

    format: LogFormat = LogFormat.AUTO
    """auto: for people on a terminal, logfmt elsewhere."""
    level: LogLevel = LogLevel.INFO
    """The least important line that is written."""


class Settings(Group):
    """The configuration of reproq-supervisor."""

    database: Annotated[Text, AfterValidator(_check_database)] = EMBEDDED
    """A libpq URL, or embedded: a private PostgreSQL that the daemon starts and stops."""
    store: Store = Store()
    """How the database is talked to."""
    app: App = App()
    """The application whose tasks run."""
    logs_dir: MaybeText = None
    """Folder for the captured output of tasks; null: it is counted and dropped."""
    logs: Logs = Logs()
    """What the daemon writes to its standard error."""
    shutdown_timeout: Annotated[Duration, at_least(1.0)] = 30.0
    """How long a stop may take, all in all. Running tasks get what the end does not need: about 6 s, with an embedded database 9 s."""
    pools: Annotated[dict[PoolName, Pool], Field(min_length=1)] = Field(default_factory=lambda: {"default": Pool()})
    """Groups of processes, by name."""
    budget: Budget = Budget()
    """What the pools share."""
    queues: dict[QueueName, Queue] = Field(default_factory=dict)
    """Settings of queues; a queue that is not named here has the defaults."""
    schedules: dict[QueueName, Schedule] = Field(default_factory=dict)
    """Tasks that are enqueued by the clock, by name."""
    keeper: Keeper = Keeper()
    """Single-runner duties."""
    web: Web = Web()
    """Metrics, health and dashboard."""
    control: Control = Control()
    """The control socket."""
