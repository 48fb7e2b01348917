"""Servers' files that are damaged: what is missing is named, and taken again from the servers that have it."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer.log.interface import LogError
from sequencer.log.jetstream import Stream
from sequencer.log.jetstream_config import StreamDamaged
from sequencer.log.nats_server import NatsServer, missing
from tests.log.servers import Cluster, is_whole, until

BODIES = 240
SIZE = 80_000  # two block files of 8 MiB, and a part of a third


def _body(place: int) -> bytes:
    return b"%08d" % place * (SIZE // 8)


def _blocks(server: NatsServer, stream: Stream) -> list[Path]:
    folder = server.config.folder / "store" / "jetstream" / "$G" / "streams" / stream.name / "msgs"
    return sorted(folder.glob("*.blk"), key=lambda path: int(path.stem))


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.fixture
def settled(cluster: Cluster) -> Stream:
    """A stream whose bodies are in the block files alone, and no more in the servers' logs of proposals."""
    stream = cluster.opened()
    for place in range(0, BODIES, 40):
        stream.append(place, [_body(at) for at in range(place, place + 40)])
    for server in cluster.servers:
        server.stop()
        cluster.start(server)
        until(lambda: is_whole(stream))
    return stream


def _damage(server: NatsServer, stream: Stream, how: Callable[[Path], None]) -> None:
    server.kill()
    blocks = _blocks(server, stream)
    assert len(blocks) >= 2
    how(blocks[0])


@pytest.mark.slow
@pytest.mark.parametrize("how", [flip, Path.unlink])
def test_damage_on_one_server__is_seen_and_its_store_is_made_again(
    cluster: Cluster, settled: Stream, how: Callable[[Path], None]
) -> None:
    server = cluster.leader_of(settled)
    _damage(server, settled, how)
    cluster.start(server)
    until(lambda: is_whole(settled))
    settled.append(BODIES, [_body(BODIES)])
    # It counts as current, and may lead: what it lacks is missing to readers then, not wrong.
    with contextlib.suppress(StreamDamaged):
        assert settled.read(0, BODIES + 9) == [_body(place) for place in range(BODIES + 1)]
    server.replace_store()
    until(lambda: is_whole(settled))
    until(lambda: [missing(one.config.monitor_port, settled.name) for one in cluster.servers] == [0, 0, 0])
    assert settled.read(0, BODIES + 9) == [_body(place) for place in range(BODIES + 1)]


@pytest.mark.slow
def test_damage_on_every_server__is_named_and_not_read_over(cluster: Cluster, settled: Stream) -> None:
    for server in cluster.servers:
        _damage(server, settled, flip)
    cluster.start(*cluster.servers)
    until(lambda: is_whole(settled))
    with pytest.raises(StreamDamaged, match=rf"has no body at place \d+, and yet {BODIES} places") as damaged:
        settled.read(0, BODIES)
    assert damaged.value.place < BODIES / 2
    assert settled.read(0, damaged.value.place) == [_body(place) for place in range(damaged.value.place)]
    failures: list[Exception] = []
    follower = settled.follow(0, lambda _, bodies: None, failures.append)
    until(lambda: failures)
    assert isinstance(failures[0], StreamDamaged)
    assert follower.place <= damaged.value.place


@pytest.mark.slow
def test_servers_without_room__refuse_and_keep_what_they_have_acknowledged(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, store_bytes=24 << 20)
    try:
        stream = cluster.opened(patience_s=3.0)
        bodies = [_body(place) * 20 for place in range(40)]
        acknowledged = 0

        def fill() -> None:
            nonlocal acknowledged
            for body in bodies:
                stream.append(acknowledged, [body])
                acknowledged += 1

        with pytest.raises(LogError):
            fill()
        assert 5 < acknowledged < 20
        for server in cluster.servers:
            server.stop()
            server.config = dataclasses.replace(server.config, store_bytes=1 << 30)
        cluster.start(*cluster.servers)
        again = cluster.opened(stream.name)
        assert again.read(0, 40) in (bodies[:acknowledged], bodies[: acknowledged + 1])
        again.append(again.last(), [b"goes on"])
    finally:
        cluster.close()
