"""Every setting of the older worker: its flag, its variable, its keys in the file, its default."""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """How a text is read."""

    TEXT = "text"
    WHOLE = "int"
    NUMBER = "float"
    DURATION = "duration"
    LIST = "list"


class Word(NamedTuple):
    """One setting.

    Attributes:
      name: the flag without its dashes; settings without a flag have a name all the same.
      default: as somebody would write it; empty means unset.
      keys: dotted places in the file, the weakest first.
      least: the smallest number that makes sense.
      choices: the only texts, empty for any.
    """

    name: str
    kind: Kind
    default: str
    keys: tuple[str, ...] = ()
    env: str | None = None
    about: str = ""
    flag: bool = True
    least: float = 0
    choices: tuple[str, ...] = ()


def _only_in_file(key: str, kind: Kind, default: str, least: float = 0) -> Word:
    return Word(key.replace("_", "-"), kind, default, (f"worker.{key}",), flag=False, least=least)


def _metrics(key: str, kind: Kind, default: str, about: str, *, env: bool = True) -> Word:
    name = f"metrics-{key.replace('_', '-')}"
    return Word(name, kind, default, (f"metrics.{key}",), f"METRICS_{key.upper()}" if env else None, about)


WORDS = (
    Word("dsn", Kind.TEXT, "", ("dsn", "worker.dsn"), "DATABASE_URL", "Database to work on; required."),
    Word(
        "worker-id",
        Kind.TEXT,
        "",
        ("worker.worker_id",),
        "WORKER_ID",
        "First part of the names of claiming processes; default: the host's.",
    ),
    Word("process-role", Kind.TEXT, "worker", ("worker.process_role",), "REPROQ_PROCESS_ROLE", "REPROQ_PROCESS_ROLE of the tasks."),
    Word("queues", Kind.LIST, "default", ("worker.queues",), "QUEUE_NAMES", "Queues, with commas; served in turn."),
    Word(
        *("allowed-task-modules", Kind.LIST, "myapp.tasks.,tasks.", ("worker.allowed_task_modules",), "ALLOWED_TASK_MODULES"),
        about="Only task paths that start with one of these run.",
    ),
    Word("concurrency", Kind.WHOLE, "10", ("worker.concurrency",), about="Tasks at once, each in an executor of its own.", least=1),
    Word(
        "lease-seconds", Kind.WHOLE, "300", ("worker.lease_seconds",), about="How long a task belongs to a worker without renewal.", least=1
    ),
    Word("heartbeat-seconds", Kind.WHOLE, "60", ("worker.heartbeat_seconds",), about="Leases are renewed after a third of their time."),
    Word(
        "reclaim-interval-seconds",
        Kind.WHOLE,
        "60",
        ("worker.reclaim_interval_seconds",),
        about="How often expired leases are looked for; 0: never.",
    ),
    Word(
        *("payload-mode", Kind.TEXT, "stdin", ("worker.payload_mode",)),
        about="How a program gets its payload; executors get it through memory.",
        choices=("stdin", "file", "inline"),
    ),
    Word(
        *("priority-aging-factor", Kind.NUMBER, "60", ("worker.priority_aging_factor",), "PRIORITY_AGING_FACTOR"),
        about="Seconds of waiting that are worth a point of priority.",
    ),
    Word("logs-dir", Kind.TEXT, "", ("worker.logs_dir",), "REPROQ_LOGS_DIR", "Folder for what tasks print."),
    _metrics("port", Kind.WHOLE, "0", "Port for metrics on every address.", env=False),
    _metrics("addr", Kind.TEXT, "", "Address for metrics; wins over the port."),
    _metrics("auth_token", Kind.TEXT, "", "Token that readers of metrics must show."),
    _metrics("allow_cidrs", Kind.LIST, "", "Networks that readers of metrics may come from."),
    _metrics("auth_limit", Kind.WHOLE, "30", "Failed attempts of a client in a window."),
    _metrics("auth_window", Kind.DURATION, "1m", "That window."),
    _metrics("auth_max_entries", Kind.WHOLE, "1000", "Clients whose attempts are counted."),
    _metrics("tls_cert", Kind.TEXT, "", "Certificate of the metrics server."),
    _metrics("tls_key", Kind.TEXT, "", "Its key."),
    _metrics("tls_client_ca", Kind.TEXT, "", "Authority of the clients' certificates."),
    _only_in_file("poll_min_backoff", Kind.DURATION, "100ms", 0.01),
    _only_in_file("poll_max_backoff", Kind.DURATION, "5s", 0.01),
    _only_in_file("python_bin", Kind.TEXT, "python3"),
    _only_in_file("executor_module", Kind.TEXT, "reproq_django.executor"),
    _only_in_file("max_payload_bytes", Kind.WHOLE, "1048576", 1),
    _only_in_file("max_stdout_bytes", Kind.WHOLE, "1048576", 1),
    _only_in_file("max_stderr_bytes", Kind.WHOLE, "1048576", 1),
    _only_in_file("exec_timeout", Kind.DURATION, "1h", 0.1),
    _only_in_file("max_attempts_default", Kind.WHOLE, "3", 1),
    _only_in_file("shutdown_timeout", Kind.DURATION, "30s"),
)
BY_NAME = {word.name: word for word in WORDS}
FLAGS = tuple(word for word in WORDS if word.flag)
