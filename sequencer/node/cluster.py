"""The life of a cluster's node: it follows the stream of log entries, leads when its turn has come, follows again.

A node that has lost the log to another, by whatever reason, begins anew from its folder and the stream: that is the
path of a start, too.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable

import click

from sequencer.l1.sequencers import Standing
from sequencer.log.interface import LogError, LogLost
from sequencer.log.jetstream import Stream
from sequencer.log.jetstream_config import StreamDamaged, stream_name
from sequencer.log.replicated import NotTheSame, StreamShorter, open_journal
from sequencer.log.sqlite import LOG_FILE, SqliteLog
from sequencer.node.following import ClusterConfig, Following
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.node.startup import NodeError
from sequencer.protocol import codec
from sequencer.rollup.l1_worker import Deposed

AGAIN_S = 1.0  # after a failure that may pass

logger = logging.getLogger(__name__)

NewService = Callable[[SqliteLog], Service]


def cluster_config(
    servers: tuple[str, ...],
    name: str | None,
    lease_s: float,
    is_reader: bool,
    followed: tuple[str, ...] = (),
) -> ClusterConfig | None:
    """The settings of a node, None where no servers of a log are given. Raises NodeError."""
    if followed:
        if servers or name or is_reader:
            raise NodeError("--follow is of another member's log: give it without --log, --node and --reader")
        return ClusterConfig(followed, "", lease_s)
    if not servers:
        if name or is_reader:
            raise NodeError("--node and --reader are for a cluster: give the servers of its log with --log")
        return None
    if not name:
        raise NodeError("--log needs --node, the name of this node in the cluster")
    return ClusterConfig(servers, name, lease_s, is_reader)


async def run_node(
    of: ServiceConfig,
    config: ClusterConfig,
    new_service: NewService,
    sockets: tuple[str, ...],
    ask_l1: Callable[[], Standing | None],
    stop: asyncio.Event,
) -> None:
    """Follows and leads in turn until `stop`. `ask_l1`: see Following.

    Raises what ends a service for good: ReplayError, when this node gives another state than the leader's.
    """
    stream = Stream(config.servers, stream_name(codec.domain_separator(*of.signed_under)))
    hears = _Hears()
    try:
        while not stop.is_set():
            log = await _opened(of, stream, hears, stop)
            if log is None:
                return
            service = await asyncio.to_thread(new_service, log)
            try:
                await _one_life(service, stream, hears, config, sockets, ask_l1, stop)
            finally:
                await service.stop()
            if service.failure is None:
                continue
            if not isinstance(service.failure, LogLost | Deposed):
                raise service.failure
            logger.warning("node %s leads no more: %s", config.name, service.failure)
    finally:
        await asyncio.to_thread(stream.close)


async def _opened(
    of: ServiceConfig, stream: Stream, hears: "_Hears", stop: asyncio.Event
) -> SqliteLog | None:
    """The node's copy of the stream, level with it, once the servers answer; None when `stop` came first."""
    while not stop.is_set():
        try:
            return await asyncio.to_thread(_open, of, stream, hears)
        except (NotTheSame, StreamShorter, StreamDamaged):
            raise  # nothing that passes by itself
        except LogError as error:
            logger.warning("the cluster's log: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), AGAIN_S)
    return None


def _open(of: ServiceConfig, stream: Stream, hears: "_Hears") -> SqliteLog:
    stream.open()
    if not hears.is_on:
        stream.on_beat(hears)
        hears.is_on = True
    return open_journal(of.folder / LOG_FILE, stream)


async def _one_life(
    service: Service,
    stream: Stream,
    hears: "_Hears",
    config: ClusterConfig,
    sockets: tuple[str, ...],
    ask_l1: Callable[[], Standing | None],
    stop: asyncio.Event,
) -> None:
    """Follows, then leads, until `stop` or another leads."""
    following = hears.following = Following(service, stream, config, ask_l1)
    await service.start(*sockets)
    _tell(node=config.name, socket=", ".join(sockets), log_end=service.log.end, seq=service.state.globals.seq)
    if not await following.run(stop):
        return
    following.lead()
    _tell(node=config.name, leads=service.term, seq=service.state.globals.seq)
    beating = asyncio.create_task(following.beat())
    try:
        await service.serve(stop)
    finally:
        beating.cancel()


class _Hears:
    """Hands beats on to whoever follows now."""

    def __init__(self) -> None:
        self.is_on = False
        self.following: Following | None = None

    def __call__(self, payload: bytes) -> None:
        if self.following is not None:
            self.following.on_beat(payload)


def _tell(**what: object) -> None:
    click.echo(json.dumps(what))
