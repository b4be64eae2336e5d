"""The client that tasks are enqueued by when nobody names one: made at the first use, of the database that `find_database` finds."""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reproq_supervisor.client.async_client import AsyncClient
    from reproq_supervisor.client.client import Client

_LOCK = threading.Lock()
_CHOSEN: dict[str, "Client | AsyncClient"] = {}


def use(client: "Client | AsyncClient | None") -> None:
    """Enqueue by *client* from now on: `Client` by `enqueue`, `AsyncClient` by `aenqueue`. None forgets both, without closing them."""
    with _LOCK:
        if client is None:
            _CHOSEN.clear()
        else:
            _CHOSEN[type(client).__name__] = client


def default_client() -> "Client":
    """Return the client of this process for threads.

    Raises:
      ReproqError: nothing says which database is meant.
    """
    from reproq_supervisor.client.client import Client

    with _LOCK:
        client = _CHOSEN.get(Client.__name__)
        if not isinstance(client, Client):
            client = _CHOSEN[Client.__name__] = Client()
        return client


def default_async_client() -> "AsyncClient":
    """Return the client of this process for coroutines; raises as `default_client`."""
    from reproq_supervisor.client.async_client import AsyncClient

    with _LOCK:
        client = _CHOSEN.get(AsyncClient.__name__)
        if not isinstance(client, AsyncClient):
            client = _CHOSEN[AsyncClient.__name__] = AsyncClient()
        return client
