"""The comparison on one database: slices of the servers in turn, the others held."""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.calls import Wrong
from benchmarks.peers import Peer, bare, ours
from benchmarks.samples import Samples
from benchmarks.servers import Server
from benchmarks.slices import Slices

SLICE_SECONDS_AT_MOST = 180.0
SETTLING_SECONDS = 0.2
GROUPS = ("latency", "throughput", "long", "many", "replay", "states", "idle")
"""Figures that are measured together, by the names of their slices. The last has a server of its own in each round."""


async def compare(
    database: str, samples: dict[str, Samples], *, groups: list[str], rounds: int, seconds: float
) -> None:
    """Samples of both servers, by name; what there is when it is stopped has been measured, too."""
    peers = [bare(database), ours(database)]
    with ExitStack() as stack:
        slices = {peer.name: await _prepared(stack, peer, samples[peer.name], seconds) for peer in peers}
        for group in groups:
            for number in range(rounds):
                for peer in peers:
                    begun = time.perf_counter()
                    if group == "idle":
                        await _attempt(_idle(peer, samples[peer.name], seconds), group, samples[peer.name])
                    else:
                        await _attempt(_alone(slices[peer.name], group), group, samples[peer.name])
                    took = time.perf_counter() - begun
                    print(f"  {database}: {group} {number + 1} of {rounds}, {peer.name}: {took:.1f} s", flush=True)


async def _prepared(stack: ExitStack, peer: Peer, samples: Samples, seconds: float) -> Slices:
    """A server that is warm and held."""
    server = stack.enter_context(peer.started())
    await server.ready()
    slices = Slices(server, samples, seconds=seconds)
    await asyncio.wait_for(slices.warm(), SLICE_SECONDS_AT_MOST)
    server.hold()
    return slices


async def _alone(slices: Slices, group: str) -> None:
    with _released(slices.server):
        await asyncio.sleep(SETTLING_SECONDS)
        await getattr(slices, group)()


async def _idle(peer: Peer, samples: Samples, seconds: float) -> None:
    with peer.started() as server:
        samples.add("start", await server.ready())
        slices = Slices(server, samples, seconds=seconds)
        await asyncio.sleep(SETTLING_SECONDS)
        samples.add("memory", server.resident_bytes() / 1e6)
        await slices.idle()


async def _attempt(slice: Awaitable[None], group: str, samples: Samples) -> None:
    """What goes wrong is a line of the report, and the other figures are still wanted."""
    try:
        await asyncio.wait_for(slice, SLICE_SECONDS_AT_MOST)
    except (Wrong, OSError, TimeoutError, RuntimeError, ExceptionGroup) as error:
        first: Exception = error
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        samples.errors[f"{group}: {type(first).__name__}: {first}"] += 1


@contextmanager
def _released(server: Server) -> Iterator[None]:
    server.release()
    try:
        yield
    finally:
        server.hold()
