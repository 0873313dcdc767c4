"""The doorbell between processes on Postgres: "look at these runs", and nothing more.

Rows are the truth; a ring that is lost costs its listeners the wait for their next poll. It is rung after a commit,
never in the transaction: notifying commits wait for one another.
"""

import asyncio
import logging
from collections.abc import Callable

import asyncpg

from app.store.postgres import BROKEN, CONNECTION_SECONDS, asyncpg_url

logger = logging.getLogger(__name__)

CHANNEL = "millstream"
RING_SECONDS = 0.02
"""At most one ring in this time, for all runs that changed meanwhile."""
MAX_PAYLOAD_BYTES = 7500
"""Postgres refuses 8000 and more."""
RECONNECT_SECONDS = 1.0


class Doorbell:
    """One process's end of it: one connection that listens, and rings."""

    def __init__(self, url: str, heard: Callable[[str], None]) -> None:
        """`heard` is called with the id of each run that another process, or this one, has rung for."""
        self._url = asyncpg_url(url)
        self._heard = heard
        self._changed: dict[str, None] = {}
        self._waiting = asyncio.Event()

    def ring(self, run_id: str) -> None:
        """Tell everybody that the run has news; soon, together with others."""
        self._changed[run_id] = None
        self._waiting.set()

    async def run(self) -> None:
        """Listen and ring until cancelled, over as many connections as it takes."""
        while True:
            try:
                await self._serve(await asyncpg.connect(self._url, timeout=CONNECTION_SECONDS))
            except BROKEN as error:
                logger.warning("doorbell_lost", extra={"error": str(error) or type(error).__name__})
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _serve(self, connection: asyncpg.Connection) -> None:
        connection.add_termination_listener(lambda _connection: self._waiting.set())
        try:
            await connection.add_listener(CHANNEL, self._hear)
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                changed, self._changed = list(self._changed), {}
                for payload in _payloads(changed):
                    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
                if connection.is_closed():
                    raise asyncpg.ConnectionDoesNotExistError("the connection was closed")
                await asyncio.sleep(RING_SECONDS)
        finally:
            connection.terminate()

    def _hear(self, _connection: asyncpg.Connection, _process_id: int, _channel: str, payload: str) -> None:
        for run_id in payload.split(","):
            self._heard(run_id)


def _payloads(run_ids: list[str]) -> list[str]:
    """The ids, joined into as few payloads as they fit in."""
    payloads: list[str] = []
    for run_id in run_ids:
        if payloads and len(payloads[-1]) + 1 + len(run_id) <= MAX_PAYLOAD_BYTES:
            payloads[-1] += f",{run_id}"
        else:
            payloads.append(run_id)
    return payloads
