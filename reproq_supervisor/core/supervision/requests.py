"""Requests of the control socket. Only names listed here do anything; their fields are checked before they are used."""

import math
from typing import Any

from reproq_supervisor.core.supervision import ending, rolling, telling
from reproq_supervisor.core.supervision.answers import pool as pool_status
from reproq_supervisor.core.supervision.answers import status
from reproq_supervisor.core.supervision.commands import Reply, Watch
from reproq_supervisor.core.supervision.events import PoolPaused, PoolResumed, PoolScaled
from reproq_supervisor.core.supervision.explain import explain
from reproq_supervisor.core.supervision.facts import ClientId, RequestReceived
from reproq_supervisor.core.supervision.operation import Wish
from reproq_supervisor.core.supervision.state import Override, State

EXIT_USAGE = 2
EXIT_TRY_AGAIN = 75
MAX_EXECUTORS = 10_000


class UsageError(ValueError):
    """The request cannot be understood; the text says what was expected."""


def handle(state: State, fact: RequestReceived, now: float) -> None:
    """Answer a request, or enter a wish that is answered later."""
    try:
        answer = _dispatch(state, fact.client, fact.request, now)
    except UsageError as error:
        answer = {"ok": False, "code": EXIT_USAGE, "error": str(error), "problems": []}
    if answer is not None:
        state.do(Reply(fact.client, answer))


def _dispatch(state: State, client: ClientId, request: dict[str, Any], now: float) -> dict[str, Any] | None:
    match request.get("command"):
        case "status":
            return {"ok": True, "status": status(state, now)}
        case "explain":
            pool = _pool(state, request)
            return {"ok": True, "lines": explain(state, pool, now), "pool": pool_status(state, pool, now)}
        case "events":
            state.do(Watch(client, bool(request.get("follow", True))))
            return None
        case "stop":
            quick = bool(request.get("quick", False))
            ending.begin(state, "stop was asked for on the control socket", now, quick=quick)
            return {"ok": True}
        case _ if state.stopping is not None:
            return {"ok": False, "code": EXIT_TRY_AGAIN, "error": "the daemon is stopping", "problems": []}
        case "reload":
            return _wish(state, Wish(client, dry_run=bool(request.get("dry_run", False))), now)
        case "restart":
            return _wish(state, Wish(client, pool=_pool(state, request)), now)
        case "scale":
            return _scale(state, request, now)
        case "drain":
            return _pause(state, _pool(state, request), paused=True)
        case "resume":
            return _pause(state, _pool(state, request), paused=False)
        case other:
            raise UsageError(f"command: expected one that the daemon knows, got {other!r:.100}")


def _wish(state: State, wish: Wish, now: float) -> dict[str, Any] | None:
    """Enter a wish; it is answered when it is done."""
    state.wishes.append(wish)
    rolling.start_next(state, now)
    return None


def _scale(state: State, request: dict[str, Any], now: float) -> dict[str, Any]:
    pool = _pool(state, request)
    executors, for_s = request.get("executors"), request.get("for_s")
    # A shard without an executor could do nothing with what it claims; whoever wants none to run says so by `drain`.
    least = len(state.plan.shards(pool))
    if executors is None:
        state.overrides.pop(pool, None)
    elif isinstance(executors, int) and not isinstance(executors, bool) and least <= executors <= MAX_EXECUTORS:
        if for_s is not None and not (isinstance(for_s, int | float) and math.isfinite(for_s) and for_s > 0):
            raise UsageError(f"for_s: expected seconds above 0, got {for_s!r:.100}")
        state.overrides[pool] = Override(executors, math.inf if for_s is None else now + for_s)
    else:
        expected = f"expected a number from {least} (one for each shard) to {MAX_EXECUTORS}, or null for the configured size"
        raise UsageError(f"executors: {expected}, got {executors!r:.100}; a pool stands still by: reproq-supervisor drain {pool}")
    state.emit(PoolScaled(pool, executors, for_s))
    telling.tell_settings(state)
    return {"ok": True, "pool": pool, "executors": executors, "for_s": for_s}


def _pause(state: State, pool: str, *, paused: bool) -> dict[str, Any]:
    if paused != (pool in state.paused):
        (state.paused.add if paused else state.paused.discard)(pool)
        state.emit(PoolPaused(pool) if paused else PoolResumed(pool))
        telling.tell_pause(state, pool)
    return {"ok": True, "pool": pool, "paused": paused}


def _pool(state: State, request: dict[str, Any]) -> str:
    """Return the pool that is named.

    Raises:
      UsageError: there is none of that name.
    """
    pool = request.get("pool")
    if not isinstance(pool, str) or pool not in state.plan.pools:
        raise UsageError(f"pool: expected one of {', '.join(state.plan.pools)}, got {pool!r:.100}")
    return pool


def forget_client(state: State, client: ClientId) -> None:
    """A client left: what it asked for goes on, but nobody is answered."""
    state.wishes = [wish for wish in state.wishes if wish.client != client]
    if state.operation is not None:
        state.operation.wishes = [_unanswered(wish) if wish.client == client else wish for wish in state.operation.wishes]


def _unanswered(wish: Wish) -> Wish:
    return Wish(None, dry_run=wish.dry_run, pool=wish.pool)
