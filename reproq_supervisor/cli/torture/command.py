"""`torture`: is this installation sound? Thousands of tasks, and a proof."""

import random
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import click

from reproq_supervisor.cli.daemon.record import NoDaemonError
from reproq_supervisor.cli.database import worded
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.cli.torture import report
from reproq_supervisor.cli.torture.chaos import Chaos
from reproq_supervisor.cli.torture.place import Place, find_place, private_place
from reproq_supervisor.cli.torture.progress import Display, display_for
from reproq_supervisor.cli.torture.proof import Verdict, judge
from reproq_supervisor.cli.torture.recorder import Recorder
from reproq_supervisor.cli.torture.rehearsal import NAME, rehearse
from reproq_supervisor.cli.torture.session import Session
from reproq_supervisor.cli.torture.workload import Planned, plan, run_of
from reproq_supervisor.cli.values import as_duration
from reproq_supervisor.core.runs import RunId

FAILED = 1
_LOOK_EVERY_S = 0.1
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for."""

    count: int
    queues: tuple[str, ...]
    seed: int
    timeout_s: float
    host: str
    port: int
    chaos: bool
    database: bool
    keep: bool


def _as_queues(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if not all(names):
        raise click.BadParameter(f"expected names of queues such as mail,bulk, got {value!r}")
    return names


def _as_address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon:
        host, port = value, "0"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"expected HOST or HOST:PORT, got {value!r}")
    return host, int(port)


@click.command(
    epilog=example(
        "reproq-supervisor torture --private",
        "reproq-supervisor torture --count 20000 --queues mail,bulk",
        "reproq-supervisor torture --chaos --yes --json",
    )
)
@click.option("--count", metavar="N", type=click.IntRange(1, _MOST), default=1000, show_default=True, help="How many tasks.")
@click.option("--queues", metavar="A,B", callback=_as_queues, default="default", show_default=True, help="Where they are enqueued.")
@click.option("--chaos", is_flag=True, help="Kill processes of the daemon meanwhile; it must run on this host.")
@click.option("--chaos-database", is_flag=True, help="Kill its embedded PostgreSQL, too.")
@click.option("--private", is_flag=True, help="Use a daemon and a database of its own; nothing is left behind.")
@click.option("--seed", metavar="N", type=int, help="For the same mixture, and the same dice of chaos, again.")
@click.option("--timeout", metavar="DURATION", callback=as_duration, default="10m", show_default=True, help="Give up after that long.")
@click.option("--listen", metavar="HOST[:PORT]", callback=_as_address, default="127.0.0.1", help="Where executors reach this command.")
@click.option("--keep", is_flag=True, help="Keep the records of a clean run, and the folder of --private.")
@click.option("--yes", is_flag=True, help="Do not ask before killing anything.")
@common_options
@click.pass_context
def torture(
    context: click.Context,
    options: Options,
    count: int,
    queues: tuple[str, ...],
    chaos: bool,
    chaos_database: bool,
    private: bool,
    seed: int | None,
    timeout: float,
    listen: tuple[str, int],
    keep: bool,
    yes: bool,
) -> int:
    """Prove on real tasks that nothing is lost.

    Every task tells this command, past the queue, when it starts and ends. From that and from the database it proves that each ended, that
    its result is that of its last execution, that none ran beside itself or ran twice (after a kill it may), and that no key was exceeded.
    The daemon must allow `reproq_supervisor.executor.torture.` in app.allowed_task_modules, and its executors must reach --listen.

    Exit code 0 when all of it holds, 1 when not, with the offenders; 69 without a daemon that serves the queues.
    """
    if private:
        _refuse_settings(context)
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    wishes = Wishes(count, queues, seed, timeout, *listen, chaos or chaos_database, chaos_database, keep)
    interruption = Interruption()
    with interruption.watched(), ExitStack() as stack:
        if private:
            if not options.output.as_json:
                options.output.line("Starting PostgreSQL and the daemon …")
            place = stack.enter_context(private_place(queues, interruption, keep=keep))
        else:
            place = find_place(options, queues)
            if wishes.chaos:
                _confirm(options, place, wishes, yes=yes)
        return _run(options, place, wishes)


def _refuse_settings(context: click.Context) -> None:
    for name in ("config", "dsn"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name}: expected none, --private has a configuration and a database of its own")


def _confirm(options: Options, place: Place, wishes: Wishes, *, yes: bool) -> None:
    status = place.status() if place.is_local else None
    if status is None:
        raise NoDaemonError(
            "--chaos: expected the daemon to run on this host, under this configuration and on this database, since only then are its "
            "processes known; found none; run it there, or add --private"
        )
    if wishes.database and not status["embedded"]:
        raise click.UsageError(
            "--chaos-database: expected a daemon with an embedded database, found another one, which is not ours to kill"
        )
    if yes:
        return
    if options.output.as_json or not sys.stdin.isatty():
        raise click.UsageError(
            "--chaos kills processes of the daemon and cuts off what they run: expected --yes, since nobody can be asked"
        )
    click.confirm(f"Kill processes of the daemon with pid {status['pid']} at random, whatever else they run?", abort=True)


def _run(options: Options, place: Place, wishes: Wishes) -> int:
    output = options.output
    if not output.as_json:
        output.line(f"seed {wishes.seed}: {wishes.count:,} tasks in {', '.join(wishes.queues)}")
    rng = random.Random(wishes.seed)  # noqa: S311 - dice, not a secret
    token = secrets.token_hex(8)
    planned = plan(wishes.count, wishes.queues, rng)
    chaos = Chaos(place.status, rng, database=wishes.database) if wishes.chaos else None
    recorder = _recorder(wishes, token, planned)
    with worded(place.dsn), Session(place.dsn) as session, _listening(recorder):
        address = (wishes.host, recorder.port)
        try:
            rehearse(session, wishes.queues, address, token, place.check)
            began = time.monotonic()
            ids = session.enqueue([run_of(each, address, token, chaos=wishes.chaos) for each in planned])
            with display_for(output, wishes.count) as display:
                _follow(session, ids, place, chaos, display, began + wishes.timeout_s)
            verdict = _judge(session, dict(zip(ids, planned, strict=True)), recorder, chaos, began)
        finally:
            if session.cancel_open() is None:
                click.echo("the database is away: what has not ended is left there, and will fail, since nobody listens any more", err=True)
        if not verdict.offenders and not wishes.keep:
            session.remove()
    if verdict.offenders and not output.as_json:
        click.echo("\n".join(place.log_tail()), err=True)
    kept = "the records" if verdict.offenders or wishes.keep else None
    report.tell(output, verdict, seed=wishes.seed, kills=chaos.counts if chaos else {}, kept=kept)
    return FAILED if verdict.offenders else 0


def _recorder(wishes: Wishes, token: str, planned: Sequence[Planned]) -> Recorder:
    try:
        return Recorder(wishes.host, wishes.port, token, [each.name for each in planned if each.fails_once])
    except OSError as error:
        raise click.UsageError(f"--listen: expected to listen at {wishes.host}, port {wishes.port}, got: {error.strerror}") from error


@contextmanager
def _listening(recorder: Recorder) -> Iterator[None]:
    recorder.start()
    try:
        yield
    finally:
        recorder.close()


def _follow(session: Session, ids: Sequence[RunId], place: Place, chaos: Chaos | None, display: Display, deadline: float) -> None:
    """Show how far it is, and have chaos its turns, until all has ended or the time is over."""
    left: int | None = len(ids)
    while left != 0 and time.monotonic() < deadline:
        place.check()
        if chaos is not None:
            chaos.turn()
        left = session.open_count(ids)
        killed = f"{len(chaos.kills)} killed" if chaos is not None else ""
        if left is not None:
            display.show(len(ids) - left, killed)
        if left:
            time.sleep(_LOOK_EVERY_S)


def _judge(session: Session, planned: Mapping[RunId, Planned], recorder: Recorder, chaos: Chaos | None, began: float) -> Verdict:
    executions = [each for each in recorder.executions if each.name != NAME]
    kills = chaos.kills if chaos is not None else []
    outcomes = session.outcomes(list(planned))
    return judge(planned, outcomes, executions, kills, began=began, allows_kills=chaos is not None)
