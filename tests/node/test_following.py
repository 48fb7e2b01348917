"""A node that was second to lead follows whoever was first, and leads when that one is silent in its turn."""

import asyncio
from pathlib import Path

import msgspec

from sequencer.clock import ManualClock
from sequencer.log.interface import Entry, Term
from sequencer.log.jetstream import Stream
from sequencer.log.replicated import open_journal
from sequencer.log.sqlite import LOG_FILE
from sequencer.node.following import ClusterConfig, Following
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from tests.log.servers import Cluster
from tests.simulation.little import NOW, PARAMS


def term_of(service: Service, number: int, node: str) -> bytes:
    """The entry by which another node, which has executed as much, begins to lead."""
    state = service.state
    entry = Entry(*(state.globals.seq, state.globals.time, state.root(), []), control=Term(number, node))
    return msgspec.msgpack.encode(entry)


def test_take_over__lost_to_another__is_tried_again_when_that_one_is_silent(tmp_path: Path) -> None:
    servers = Cluster(tmp_path / "nats")
    try:
        asyncio.run(play(tmp_path, servers.opened("race"), servers.opened("race")))
    finally:
        servers.close()


async def play(folder: Path, stream: Stream, others: Stream) -> None:
    log = await asyncio.to_thread(open_journal, folder / "a" / LOG_FILE, stream)
    service = Service(ServiceConfig(folder / "a", PARAMS), ManualClock(NOW), log=log)
    await service.start(str(folder / "a.sock"))
    try:
        following = Following(service, stream, ClusterConfig((), "a", 0.3), lambda: None)
        whole = stream.last

        def last() -> int:
            """Between this node's question and its append another appends its term."""
            stream.last = whole  # type: ignore[method-assign]  # the next question is asked in peace
            places = whole()
            others.append(places, [term_of(service, 1, "b")])
            return places

        stream.last = last  # type: ignore[method-assign]  # as above
        assert not await following.take_over()
        async with asyncio.timeout(30):
            assert await following.run(asyncio.Event())
        assert service.term == 2
        assert await asyncio.to_thread(stream.last) == service.log.places == 2
    finally:
        await service.stop()
