"""This product beside other queues: the same tasks, one durable PostgreSQL tuned alike for all, in turns.

    python -m benchmarks.peers [--only product,pgqueuer] [--measure drain,bulk,single,latency,backlog] [--rounds 5] [--tasks 50000] [--json]

Every contender is set up as its own manual says for many short tasks (docs/benchmarks.md); one that is not installed is named. Whoever
needs much longer for a task gets fewer tasks. Quote the ratios: they are taken round by round. Each run is appended to a history file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg

from benchmarks.contenders.contender import Contender, load_contenders
from benchmarks.measures.backlog import first_of_many
from benchmarks.measures.drain import Load, drain
from benchmarks.measures.enqueue import bulk, single
from benchmarks.measures.latency import latency
from benchmarks.report import medians, ratios, remember, table
from benchmarks.stage import at_least_one, describe_machine, durable_server
from tests.support.postgres import Cluster

INTERRUPTED = 130
Measure = Callable[[Cluster, Contender, argparse.Namespace], dict[str, float]]


@dataclass(frozen=True)
class Question:
    """What is measured once a round.

    Attributes:
      figure: of those that the measure answers, the one that is compared.
      columns: what the table shows, with headings.
    """

    title: str
    figure: str
    columns: Mapping[str, str]
    measure: Measure
    of_producers: bool = False


def _load(contender: Contender, options: argparse.Namespace) -> Load:
    return Load(max(20, int(options.tasks * contender.share)), options.nap_ms, options.payload)


_COSTS = {
    "cpu_us_workers": "us workers",
    "cpu_us_server": "us server",
    "commits_per_task": "commits",
    "wal_bytes_per_task": "WAL bytes",
    "dead_rows_per_task": "dead rows",
    "pss_mib": "PSS MiB",
    "private_mib": "private MiB",
}
QUESTIONS = {
    "drain": Question(
        "A backlog worked off; costs of a task, memory of all processes but the database's",
        "tasks_per_s",
        {"tasks_per_s": "tasks/s", **_COSTS},
        lambda cluster, contender, options: drain(cluster, contender, _load(contender, options)),
    ),
    "bulk": Question(
        "Many enqueued at once",
        "enqueued_per_s",
        {"enqueued_per_s": "tasks/s"},
        lambda cluster, contender, options: bulk(cluster, contender, _load(contender, options).tasks),
        of_producers=True,
    ),
    "single": Question(
        "Enqueued one by one, on one connection",
        "singles_per_s",
        {"singles_per_s": "tasks/s", "median_ms": "median ms", "p99_ms": "p99 ms"},
        lambda cluster, contender, _: single(cluster, contender),
        of_producers=True,
    ),
    "latency": Question(
        "From the return of the enqueue to the start, and from its call, idle",
        "p50_ms",
        {"p50_ms": "p50 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms", "call_p50_ms": "call p50 ms", "call_p99_ms": "call p99 ms"},
        lambda cluster, contender, options: latency(cluster, contender, options.latency_runs),
        of_producers=True,
    ),
}
BACKLOG = Question(
    "The first 2,000 tasks of a deep backlog beside those of a shallow one",
    "ratio",
    {
        "shallow_per_s": "shallow /s",
        "deep_per_s": "deep /s",
        "ratio": "ratio",
        "shallow_cpu_us": "shallow us",
        "deep_cpu_us": "deep us",
        "cpu_ratio": "ratio of us",
    },
    lambda *_: {},
)


def _backlog(cluster: Cluster, contender: Contender, options: argparse.Namespace) -> list[dict[str, float]]:
    return first_of_many(cluster, contender, options.depth, options.rounds, pinned=options.pinned)


@dataclass
class Contest:
    """What was measured so far, by question and contender, and who failed."""

    rounds: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def book(self, asked: str, contender: Contender, measure: Callable[[], Iterable[dict[str, float]]]) -> None:
        """Measure, and keep what came; a contender that fails a question is named and asked it no more."""
        place = f"{contender.name}: {asked}"
        if place in self.failed:
            return
        try:
            found = list(measure())
        except (OSError, RuntimeError, AssertionError, psycopg.Error) as error:
            self.failed[place] = str(error).partition("\n")[0]
            print(f"{place}: {error}", file=sys.stderr)
            return
        self.rounds.setdefault(asked, {}).setdefault(contender.name, []).extend(found)


def compete(contest: Contest, cluster: Cluster, contenders: Sequence[Contender], options: argparse.Namespace) -> None:
    """Ask everybody every question, in turns."""
    for round_no in range(options.rounds):
        for asked, question in QUESTIONS.items():
            if asked not in options.measure:
                continue
            for contender in contenders:
                if question.of_producers and not contender.enqueues:
                    continue
                contest.book(asked, contender, lambda question=question, one=contender: [question.measure(cluster, one, options)])
                _tell(options, round_no, asked, contest, contender)
    if "backlog" in options.measure:
        for contender in contenders:
            if contender.enqueues:
                contest.book("backlog", contender, lambda one=contender: _backlog(cluster, one, options))


def _tell(options: argparse.Namespace, round_no: int, asked: str, contest: Contest, contender: Contender) -> None:
    if (figures := contest.rounds.get(asked, {}).get(contender.name)) and not options.json:
        figure = QUESTIONS[asked].figure
        print(f"round {round_no + 1}: {asked:<8} {contender.name:<16} {figure} {figures[-1][figure]:,.2f}", flush=True)


def result_of(contest: Contest, contenders: Sequence[Contender], missing: Mapping[str, str], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything, as it is printed as JSON and kept in the history."""
    every = {**QUESTIONS, "backlog": BACKLOG}
    return {
        **about,
        "contenders": {contender.name: contender.how for contender in contenders},
        "missing": dict(missing),
        "failed": contest.failed,
        "medians": {asked: medians(rounds) for asked, rounds in contest.rounds.items()},
        "ratios_of_product": {asked: ratios(rounds, every[asked].figure, "product") for asked, rounds in contest.rounds.items()},
    }


def print_tables(contest: Contest, result: Mapping[str, Any]) -> None:
    """Print a table for each question, and what this product's figure is as a multiple of everybody's."""
    for asked, rounds in contest.rounds.items():
        question = BACKLOG if asked == "backlog" else QUESTIONS[asked]
        print("\n" + table(question.title, rounds, question.columns))
        if asked != "backlog":
            for name, ratio in result["ratios_of_product"][asked].items():
                print(f"  product / {name:<16} {ratio['median']:8.2f}   ({ratio['min']:.2f} to {ratio['max']:.2f})")
    print(f"\n{result['machine']}; load {result['load']:.1f}; medians of {result['rounds']}")
    for name, how in result["contenders"].items():
        print(f"  {name:<16} {how}")
    for name, why in result["missing"].items():
        print(f"  {name:<16} missing: {why}")
    for place, why in result["failed"].items():
        print(f"  failed: {place}: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=_names, default=[], help="contenders, by comma; a variant such as product-async only by name")
    parser.add_argument("--measure", type=_names, default=list(QUESTIONS), help=f"{', '.join(QUESTIONS)}, backlog")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--tasks", type=int, default=50_000, help="of a backlog; slower contenders get a share")
    parser.add_argument("--nap-ms", type=float, default=0, help="how long each task of a backlog waits")
    parser.add_argument("--payload", type=int, default=0, help="bytes that come with each task of a backlog")
    parser.add_argument("--depth", type=int, default=1_000_000, help="of the deep backlog")
    parser.add_argument(
        "--pinned", action="store_true", help="hold a snapshot of the deep backlog's database, with many dead rows behind it"
    )
    parser.add_argument("--latency-runs", type=int, default=200, help="a round")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    if unknown := set(options.measure) - {*QUESTIONS, "backlog"}:
        parser.error(f"--measure: expected some of {', '.join(QUESTIONS)}, backlog, got {', '.join(sorted(unknown))}")
    try:
        contenders, missing = load_contenders(options.only)
    except LookupError as error:
        parser.error(f"--only: {error}")
    with durable_server() as cluster:
        about = {"machine": describe_machine(cluster), "rounds": options.rounds, "tasks": options.tasks}
        about |= {"nap_ms": options.nap_ms, "payload_bytes": options.payload, "depth": options.depth, "pinned": options.pinned}
        contest, is_whole = Contest(), False
        try:
            compete(contest, cluster, contenders, options)
            is_whole = True
        except KeyboardInterrupt:
            print("\ninterrupted: what was measured until now is not kept in the history", file=sys.stderr)
    result = result_of(contest, contenders, missing, {**about, "load": psutil.getloadavg()[0]})
    if is_whole:
        remember(result)
    if options.json:
        print(json.dumps(result))
    else:
        print_tables(contest, result)
    if not is_whole:
        sys.exit(INTERRUPTED)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
