"""The replicated log on three real servers that all run: appends, reads, followers, fencing, and what is refused."""

import asyncio
import threading

import nats
import pytest
from nats.js import api

from sequencer.log.interface import LogError, LogLost
from sequencer.log.jetstream import BODY_BYTES, Stream
from sequencer.log.jetstream_config import StreamDamaged, body_id, subjects, wanted_config
from sequencer.log.nats_server import syncs_always
from tests.log.servers import Cluster, until


def _bodies(count: int, size: int = 20) -> list[bytes]:
    return [index.to_bytes(4, "big") * (size // 4) for index in range(count)]


def _with_js(cluster: Cluster, work) -> None:
    """Runs `work(js, client)` as a client that knows nothing of the log's rules."""

    async def run() -> None:
        client = await nats.connect(servers=cluster.urls)
        try:
            await work(client.jetstream(), client)
        finally:
            await client.close()

    asyncio.run(run())


def test_what_was_appended__is_read_in_order(cluster: Cluster) -> None:
    stream = cluster.opened()
    bodies = _bodies(40)
    for place, body in enumerate(bodies[:20]):
        stream.append(place, [body])
    stream.append(20, bodies[20:])
    assert stream.last() == 40
    assert stream.read(0, 100) == bodies
    assert stream.read(37, 2) == bodies[37:39]
    assert stream.read(40, 5) == []


def test_servers__sync_before_they_acknowledge(cluster: Cluster) -> None:
    assert [syncs_always(server.config.monitor_port) for server in cluster.servers] == [True] * 3


def test_largest_body__is_taken_and_one_byte_more_is_refused(cluster: Cluster) -> None:
    stream = cluster.opened()
    body = bytes(BODY_BYTES)
    stream.append(0, [body])
    assert stream.read(0, 1) == [body]
    with pytest.raises(
        LogError, match=f"place 1 has {BODY_BYTES + 1} bytes, of at most {BODY_BYTES}"
    ) as refused:
        stream.append(1, [body + b"x"])
    assert not isinstance(refused.value, LogLost)
    stream.append(1, [b"goes on"])
    assert stream.last() == 2


def test_many_large_bodies__are_appended_in_several_batches(cluster: Cluster) -> None:
    stream = cluster.opened()
    bodies = [bytes([index]) * (5 << 20) for index in range(5)] + _bodies(300)
    stream.append(0, bodies)
    assert stream.read(0, 400) == bodies


def test_an_empty_body__is_a_body(cluster: Cluster) -> None:
    stream = cluster.opened()
    stream.append(0, [b"", b"x"])
    assert stream.read(0, 9) == [b"", b"x"]


def test_the_same_bodies_again__are_no_second_append(cluster: Cluster) -> None:
    stream = cluster.opened()
    bodies = _bodies(5)
    for _ in range(3):
        stream.append(0, bodies)
        stream.append(0, bodies[:1])
    assert stream.read(0, 9) == bodies


def test_two_writers__one_gets_each_place(cluster: Cluster) -> None:
    first, second = cluster.opened(), None
    second = cluster.opened(first.name)
    won: dict[int, list[str]] = {}

    def write(stream: Stream, name: str) -> None:
        place = 0
        while place < 60:
            try:
                stream.append(place, [f"{name} {place}".encode()])
                won.setdefault(place, []).append(name)
                place += 1
            except LogLost:
                stream.open()
                place = stream.last()

    threads = [
        threading.Thread(target=write, args=(stream, name)) for stream, name in ((first, "a"), (second, "b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bodies = first.read(0, 100)
    assert len(bodies) == 60
    assert bodies == [f"{won[place][0]} {place}".encode() for place in range(60)]
    assert all(len(names) == 1 for names in won.values())


def test_a_batch_around_another_writers_body__is_refused_whole(cluster: Cluster) -> None:
    stream, other = cluster.opened(), None
    other = cluster.opened(stream.name)
    other.append(0, [b"other's"])
    with pytest.raises(LogLost, match="another node leads: place 0 of the stream is not this node's"):
        stream.append(0, _bodies(3))
    assert stream.read(0, 9) == [b"other's"]


def test_a_writer_that_lost__appends_nothing_until_it_is_opened(cluster: Cluster) -> None:
    stream, other = cluster.opened(), None
    other = cluster.opened(stream.name)
    other.append(0, [b"other's"])
    with pytest.raises(LogLost, match="another node leads"):
        stream.append(0, [b"mine"])
    with pytest.raises(LogLost, match="another node leads"):
        stream.append(1, [b"mine"])
    stream.open()
    stream.append(1, [b"mine"])
    assert other.read(0, 9) == [b"other's", b"mine"]


def test_a_place_beyond_the_streams_end__is_lost_not_appended(cluster: Cluster) -> None:
    stream = cluster.opened(patience_s=1.0)
    stream.append(0, [b"a"])
    with pytest.raises(LogLost, match="ends at place 1, before place 5: what was acknowledged is missing"):
        stream.append(5, [b"b"])
    assert stream.last() == 1


def test_follower__gets_each_body_once_in_order(cluster: Cluster) -> None:
    stream = cluster.opened()
    bodies = _bodies(400)
    stream.append(0, bodies[:100])
    got: list[bytes] = []
    places: list[int] = []

    def on_bodies(place: int, more: list[bytes]) -> None:
        places.append(place)
        assert place == len(got) + 10
        got.extend(more)

    follower = cluster.opened(stream.name).follow(10, on_bodies)
    for place in range(100, 200):
        stream.append(place, [bodies[place]])
    stream.append(200, bodies[200:])
    until(lambda: follower.place == 400)
    follower.stop()
    assert got == bodies[10:]
    assert follower.failure is None
    stream.append(400, [b"after the stop"])
    assert got == bodies[10:]


def test_follower_whose_callback_fails__ends_and_says_so(cluster: Cluster) -> None:
    stream = cluster.opened()
    failures: list[Exception] = []

    def on_bodies(place: int, bodies: list[bytes]) -> None:
        raise LogError("journal is full")

    follower = stream.follow(0, on_bodies, failures.append)
    stream.append(0, [b"x"])
    until(lambda: failures)
    assert str(failures[0]) == "log: journal is full"
    assert follower.failure is failures[0]
    assert follower.place == 0


def test_beat__reaches_every_node(cluster: Cluster) -> None:
    leader = cluster.opened()
    heard: list[bytes] = []
    cluster.opened(leader.name).on_beat(heard.append)

    def beats() -> list[bytes]:
        leader.beat(b"term 7")
        return heard

    until(beats)
    assert heard[0] == b"term 7"
    with pytest.raises(ValueError, match="beat: 1025 bytes, of at most 1024"):
        leader.beat(bytes(1025))


def test_status__names_leader_and_replicas(cluster: Cluster) -> None:
    stream = cluster.opened()
    stream.append(0, [b"x"])
    status = stream.status()
    assert [replica.name for replica in status.replicas] == ["n1", "n2", "n3"]
    assert [replica.name for replica in status.replicas if replica.is_leader] == [status.leader]
    assert (status.places, status.is_connected, status.error) == (1, True, "")
    assert status.bytes > 0


def test_messages__cannot_be_removed(cluster: Cluster) -> None:
    stream = cluster.opened()
    stream.append(0, [b"x"])

    async def remove(js, client) -> None:
        with pytest.raises(nats.js.errors.APIError, match="message delete not permitted"):
            await js.delete_msg(stream.name, 1)
        with pytest.raises(nats.js.errors.APIError, match="purge not permitted"):
            await js.purge_stream(stream.name)

    _with_js(cluster, remove)
    assert stream.read(0, 1) == [b"x"]


def test_a_body_that_was_not_appended_by_the_rules__is_named(cluster: Cluster) -> None:
    stream = cluster.opened()
    stream.append(0, [b"x"])
    failures: list[Exception] = []
    follower = stream.follow(0, lambda place, bodies: None, failures.append)
    until(lambda: follower.place == 1)

    async def publish(js, client) -> None:
        await js.publish(subjects(stream.name)[0], b"y", headers={"Nats-Msg-Id": body_id(1, b"z")})

    _with_js(cluster, publish)
    with pytest.raises(StreamDamaged, match="the body at place 1 is not what was appended there"):
        stream.read(0, 9)
    until(lambda: failures)
    assert isinstance(failures[0], StreamDamaged)
    assert failures[0].place == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"num_replicas": 1},
            "num_replicas is 1 and must be 3: one server's loss could lose acknowledged bodies",
        ),
        ({"storage": api.StorageType.MEMORY}, "storage is memory and must be file: a restart would lose it"),
        ({"deny_delete": False}, "deny_delete is False and must be True: bodies could be removed"),
        ({"deny_purge": False}, "deny_purge is False and must be True: bodies could be removed"),
        ({"discard": api.DiscardPolicy.OLD}, "discard is old and must be new: old bodies would make room"),
        ({"max_age": 3600}, "max_age is 3600.0 and must be 0: old bodies would be removed"),
        ({"max_msgs": 10}, "max_msgs is 10 and must be -1: old bodies would make room"),
        ({"republish": None}, "republish is nothing and must be fairstrike.+copy: followers would be late"),
    ],
)
def test_a_stream_that_is_not_what_it_must_be__is_refused(cluster: Cluster, change, words: str) -> None:
    stream = cluster.stream()

    async def make(js, client) -> None:
        await js.add_stream(wanted_config(stream.name, 3).evolve(**change))

    _with_js(cluster, make)
    with pytest.raises(LogError, match=f"stream {stream.name}: {words}"):
        stream.open()


def test_a_stream_that_is_not_there__is_not_made_by_a_reader(cluster: Cluster) -> None:
    stream = cluster.stream("nowhere")
    with pytest.raises(LogError, match="the servers have no stream nowhere"):
        stream.open(create=False)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", "x" * 65])
def test_a_name_that_is_none__is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name of the stream"):
        Stream(["nats://127.0.0.1:1"], name)


def test_no_server__is_an_error_that_says_so() -> None:
    stream = Stream(["nats://127.0.0.1:1"], "x", patience_s=0.5)
    try:
        with pytest.raises(LogError, match=r"no server of the stream can be reached: Connect call failed"):
            stream.open()
        with pytest.raises(LogError, match="no server of the stream can be reached") as refused:
            stream.append(0, [b"x"])
        assert not isinstance(refused.value, LogLost)
        assert stream.status().places == -1
    finally:
        stream.close()
