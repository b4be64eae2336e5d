"""`beat`: fire what is due, without a supervisor."""

import asyncio
import os
import random
import signal
from typing import Any

import click

from reproq_supervisor.cli.database import find_dsn, worded
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_duration
from reproq_supervisor.core.words import counted
from reproq_supervisor.settings.scheduler_mode import VARIABLE, does_beat

_LAST_RETRY_S = 5.0


@click.command(epilog=example("reproq-supervisor beat", "reproq-supervisor beat --once --json"))
@click.option("--once", is_flag=True, help="Fire what is due now, and end: for a timer.")
@click.option(
    "--interval", metavar="DURATION", callback=as_duration, default="1s", show_default=True, help="Between two looks for changes."
)
@common_options
def beat(options: Options, once: bool, interval: float) -> None:
    """Fire schedules without a supervisor.

    The keeper of a supervisor does the same; however many do it at once, every firing enqueues one run. A database that goes away is
    waited for. With REPROQ_SCHEDULER_MODE set to something else than beat, only --once does anything.
    """
    dsn = find_dsn(options)
    if does_beat(os.environ) is False and not once:
        options.output.line(f"{VARIABLE} is {os.environ[VARIABLE]}, not beat: nothing to do")
        return
    if not once and interval < 0.1:
        raise click.BadParameter(f"expected at least 100ms, got {interval:g} s", param_hint="--interval")
    with worded(dsn):
        fired = asyncio.run(_beat(options, dsn, None if once else interval))
    if once and options.output.as_json:
        options.output.show_json({"ok": True, "fired": fired})
    elif once:
        options.output.line(f"{fired} fired")


async def _beat(options: Options, dsn: str, interval_s: float | None) -> int:
    """Fire until told to stop; without an interval, until nothing is due. Return how many firings were entered."""
    from reproq_supervisor.keeper.beat import Beat
    from reproq_supervisor.store.errors import StoreUnavailable
    from reproq_supervisor.store.keeper import KeeperStore

    def tell(event: dict[str, Any]) -> None:
        if event["name"] == "schedule.disabled":
            click.echo(f"{event['schedule']}: disabled: {event['reason']}", err=True)
        else:
            click.echo(f"the database's clock was set back: {counted(event['count'], 'schedule')} found the next time anew", err=True)

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    duty, store, fired, retry_s = Beat(tell), None, 0, 0.1
    try:
        while not stop.is_set():
            try:
                if store is None or store.closed:
                    store = await KeeperStore.connect(dsn, application_name="reproq beat")
                ran = await duty.run(store.schedules)
                fired, retry_s = fired + ran.count, 0.1
            except StoreUnavailable as error:
                if interval_s is None or store is None:
                    raise  # of the first connection whoever typed it wants to hear
                click.echo(f"database: {error}; trying again", err=True)
                await _wait(stop, retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spread, not a secret
                retry_s = min(_LAST_RETRY_S, retry_s * 2)
                continue
            if interval_s is None and ran.again_in_s > 0:
                break
            await _wait(stop, min(interval_s or 0.0, ran.again_in_s))
    finally:
        if store is not None:
            await store.close()
    return fired


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
