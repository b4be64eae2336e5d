"""This product in every mode, with longer tasks, with larger payloads, and beside many runs that cannot run now.

    python -m benchmarks.matrix [--only modes,durations,payloads,beside] [--rounds 5] [--tasks 50000] [--depth 1000000] [--json]

Each line is the median of the rounds, which take turns. *modes*: a backlog of no-op tasks. *durations*: how much of its slots a pool
uses with tasks of 1, 10 and 100 ms. *payloads*: 0.3, 10 and 200 kB with each task. *beside*: the first 2,000 of a backlog beside
finished, later, blocked and throttled runs, and under a snapshot that somebody holds, as a ratio to a backlog alone.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping

import psutil

from benchmarks.contenders.contender import Contender
from benchmarks.contenders.product import CONTENDERS
from benchmarks.measures.backlog import SHALLOW, first_of_many
from benchmarks.measures.beside import KINDS
from benchmarks.measures.drain import Load, drain
from benchmarks.peers import BACKLOG, INTERRUPTED, QUESTIONS
from benchmarks.report import medians, remember, table
from benchmarks.stage import at_least_one, describe_machine, durable_server
from tests.support.postgres import Cluster

Rounds = dict[str, list[dict[str, float]]]

NAPS_MS = (1, 10, 100)
NAPS_FOR_S = 4.0
"""So long a pool that uses all its slots has to do."""
PAYLOADS_BYTES = {300: 1.0, 10_000: 0.2, 200_000: 0.02}
"""With the share of the tasks that carry so much."""
_COLUMNS = {**QUESTIONS["drain"].columns, "slots_used": "slots used"}


def modes(cluster: Cluster, options: argparse.Namespace) -> Rounds:
    """Return what each variant makes of a backlog of no-op tasks."""
    return _in_turns(cluster, options, {name: (one, Load(int(options.tasks * one.share))) for name, one in CONTENDERS.items()})


def durations(cluster: Cluster, options: argparse.Namespace) -> Rounds:
    """Return what is left of the slots' time for tasks that wait."""
    loads = {}
    for name in ("product", "product-thread", "product-async"):
        one = CONTENDERS[name]
        assert one.slots is not None, "every variant says its slots"
        for nap_ms in NAPS_MS:
            loads[f"{name.removeprefix('product-')} {nap_ms} ms"] = (
                one,
                Load(min(options.tasks, int(NAPS_FOR_S * 1000 / nap_ms * one.slots)), nap_ms),
            )
    found = _in_turns(cluster, options, loads)
    for name, (one, load) in loads.items():
        for figures in found[name]:
            figures["slots_used"] = figures["tasks_per_s"] * load.nap_ms / 1000 / (one.slots or 1)
    return found


def payloads(cluster: Cluster, options: argparse.Namespace) -> Rounds:
    """Return what each variant makes of a backlog whose tasks carry something."""
    one = CONTENDERS["product"]
    loads = {f"{size / 1000:g} kB": (one, Load(int(options.tasks * share), 0, size)) for size, share in PAYLOADS_BYTES.items()}
    return _in_turns(cluster, options, loads)


def beside(cluster: Cluster, options: argparse.Namespace) -> Rounds:
    """Return the rate of the first tasks beside others that cannot run now."""
    one = CONTENDERS["product"]
    counts = {name: options.depth if name == "finished" else options.depth // 10 for name in KINDS}
    found = {
        f"{counts[name]} {name}": first_of_many(
            cluster, one, SHALLOW, options.rounds, before=lambda queue, put=put, name=name: put(queue, counts[name])
        )
        for name, put in KINDS.items()
        if not options.kinds or name in options.kinds
    }
    if not options.kinds or "snapshot" in options.kinds:
        found["snapshot held"] = first_of_many(cluster, one, SHALLOW, options.rounds, pinned=True)
    return found


def _in_turns(cluster: Cluster, options: argparse.Namespace, loads: Mapping[str, tuple[Contender, Load]]) -> Rounds:
    found: Rounds = {name: [] for name in loads}
    for round_no in range(options.rounds):
        for name, (one, load) in loads.items():
            found[name].append(drain(cluster, one, load))
            if not options.json:
                print(f"round {round_no + 1}: {name:<18} {found[name][-1]['tasks_per_s']:,.0f}/s", flush=True)
    return found


PARTS: dict[str, tuple[str, Callable[[Cluster, argparse.Namespace], Rounds], Mapping[str, str]]] = {
    "modes": ("A backlog of no-op tasks worked off, by mode and isolation", modes, _COLUMNS),
    "durations": ("Tasks that wait; slots used: the share of all slots' time in which a task ran", durations, _COLUMNS),
    "payloads": ("A backlog of no-op tasks with payloads, two executors", payloads, _COLUMNS),
    "beside": ("The first 2,000 of ten thousand, beside others that cannot run now", beside, BACKLOG.columns),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=_names, default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--kinds", type=_names, default=[], help=f"of beside: {', '.join(KINDS)}, snapshot")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--depth", type=int, default=1_000_000, help="finished runs; a tenth of it are parked for each reason")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if unknown := set(options.kinds) - {*KINDS, "snapshot"}:
        parser.error(f"--kinds: expected some of {', '.join(KINDS)}, snapshot, got {', '.join(sorted(unknown))}")
    with durable_server() as cluster:
        about = {"machine": describe_machine(cluster), "rounds": options.rounds, "tasks": options.tasks}
        found: dict[str, Rounds] = {}
        try:
            for name in options.only:
                found[name] = PARTS[name][1](cluster, options)
        except KeyboardInterrupt:
            print("\ninterrupted: what was measured until now is not kept in the history", file=sys.stderr)
    load = psutil.getloadavg()[0]
    result = {**about, "depth": options.depth, "load": load, "medians": {name: medians(rounds) for name, rounds in found.items()}}
    if is_whole := len(found) == len(options.only):
        remember(result)
    if options.json:
        print(json.dumps(result))
    else:
        for name, rounds in found.items():
            title, _, columns = PARTS[name]
            print("\n" + table(title, rounds, columns))
        print(f"\n{about['machine']}; load {load:.1f}; medians of {options.rounds}")
    if not is_whole:
        sys.exit(INTERRUPTED)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
