"""Frames between gateway and sequencer: what goes in comes out, in order; what is no frame ends the connection."""

import asyncio
import os
import stat

import pytest
import uvloop
from exchange_fixture import PATIENCE_S
from hypothesis import given
from hypothesis import strategies as st

from sequencer.api import ipc
from sequencer.api.admission import LINK_SECRET
from sequencer.api.ipc import (
    Acks,
    Answer,
    Connection,
    Events,
    Hear,
    IpcError,
    Query,
    Submit,
    connect,
    encode_frame,
)
from sequencer.api.ipc_server import IpcServer

RIDS = st.integers(0, 2**63 - 1)
MESSAGES = st.one_of(
    st.builds(
        Submit,
        st.lists(
            st.tuples(RIDS, st.binary(max_size=130), st.binary(max_size=20), st.text(max_size=8)), max_size=20
        ),
    ),
    st.builds(
        Query,
        RIDS,
        st.text(max_size=20),
        st.dictionaries(st.text(max_size=8), st.integers(-9, 9), max_size=4),
    ),
    st.builds(Acks, st.lists(st.tuples(RIDS, st.booleans(), st.binary(max_size=200)), max_size=20)),
    st.builds(Answer, RIDS, st.booleans(), st.binary(max_size=200)),
    st.builds(Events, st.lists(st.tuples(st.text(max_size=20), RIDS, st.binary(max_size=200)), max_size=20)),
)


async def until(condition):
    """Returns once `condition()` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # both ends are on this loop
            await asyncio.sleep(0.001)


class _Transport(asyncio.Transport):
    """Keeps what is written; never sends it."""

    def __init__(self):
        super().__init__()
        self.closed = False
        self.written = []
        self.unsent = 0
        self.high = None

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def is_closing(self):
        return self.closed

    def abort(self):
        self.closed = True

    def close(self):
        self.closed = True

    def writelines(self, parts):
        self.written.append(b"".join(parts))

    def get_write_buffer_size(self):
        return self.unsent


def run(coroutine):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


@given(st.lists(MESSAGES, max_size=6), st.data())
def test_messages__cut_anywhere__arrive_whole_and_in_order(messages, data):
    async def scenario():
        arrived = []
        connection = Connection(lambda _, message: arrived.append(message))
        connection.connection_made(_Transport())
        stream = b"".join(map(encode_frame, messages))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            connection.data_received(stream[start:end])
        assert arrived == messages

    run(scenario())


@given(st.binary(max_size=60))
def test_bytes_that_are_no_frame__never_raise(data):
    async def scenario():
        arrived = []
        connection = Connection(lambda _, message: arrived.append(message))
        connection.connection_made(_Transport())
        connection.data_received(len(data).to_bytes(4, "big") + data)
        assert connection.is_open == (len(arrived) == 1)

    run(scenario())


def test_frame__beyond_the_limit__is_refused_on_both_ends():
    async def scenario():
        with pytest.raises(IpcError, match=f"at most {ipc.FRAME_BYTES_MAX}"):
            encode_frame(Answer(1, True, bytes(ipc.FRAME_BYTES_MAX)))
        connection = Connection(lambda *_: None)
        connection.connection_made(_Transport())
        connection.data_received((ipc.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
        assert not connection.is_open

    run(scenario())


def test_messages_of_one_turn__leave_as_one_write():
    async def scenario():
        transport = _Transport()
        connection = Connection(lambda *_: None)
        connection.connection_made(transport)
        messages = [Answer(n, True, b"{}") for n in range(50)]
        for message in messages:
            assert connection.send(message)
        await asyncio.sleep(0)
        assert transport.written == [b"".join(map(encode_frame, messages))]

    run(scenario())


def test_peer__counts_as_slow_from_as_much_as_a_busy_tick_leaves_unread_on():
    async def scenario():
        transport = _Transport()
        Connection(lambda *_: None).connection_made(transport)
        record = encode_frame(Submit([(2**32, bytes(93), bytes(20), "")]))
        # At 20,000 records a second a tick may take a third of a second, and none is refused for it.
        assert 20_000 // 3 * len(record) < transport.high < ipc.BUFFER_BYTES_MAX

    run(scenario())


def test_peer_that_does_not_read__is_cut_off():
    async def scenario():
        transport = _Transport()
        connection = Connection(lambda *_: None)
        connection.connection_made(transport)
        connection.pause_writing()
        assert connection.paused
        transport.unsent = ipc.BUFFER_BYTES_MAX
        assert not connection.send(Answer(1, True, b"{}"))
        assert not connection.is_open

    run(scenario())


def test_drained__waits_for_a_slow_peer():
    async def scenario():
        connection = Connection(lambda *_: None)
        connection.connection_made(_Transport())
        connection.pause_writing()
        waiting = asyncio.create_task(connection.drained())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        connection.resume_writing()
        await waiting

    run(scenario())


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_server__answers_submissions_queries_and_broadcasts(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(LINK_SECRET, "5" * 32)

    async def scenario():
        lost = []

        def on_submit(connection, items):
            connection.send_acks([(rid, True, raw + signer) for rid, raw, signer, _ in items])

        def on_query(connection, rid, method, params):
            connection.send_answer(rid, False, f"{method}{params}".encode())

        server = IpcServer(on_submit, on_query, lost.append)
        address = str(tmp_path / "s") if kind == "unix" else "127.0.0.1:0"
        await server.start(address)
        if kind == "tcp":
            address = f"127.0.0.1:{server._servers[0].sockets[0].getsockname()[1]}"
        else:
            assert stat.S_IMODE(os.stat(address).st_mode) == 0o600
        heard = [[], []]
        gone = asyncio.Event()
        first = await connect(address, lambda _, message: heard[0].append(message))
        second = await connect(address, lambda _, message: heard[1].append(message), lambda *_: gone.set())
        first.send(Submit([(1, b"a", b"b", ""), (2, b"c", b"d", "")]))
        first.send(Query(3, "m", {"x": 1}))
        await until(lambda: len(heard[0]) == 2)
        assert heard[0] == [Acks([(1, True, b"ab"), (2, True, b"cd")]), Answer(3, False, b"m{'x': 1}")]
        server.broadcast([("trades", 0, b"{}")])
        await until(lambda: heard[1] and len(heard[0]) == 3)
        assert heard[0][-1] == Events([("trades", 0, b"{}")])
        assert heard[1] == [Events([("trades", 0, b"{}")])]
        first.close()
        await until(lambda: lost)
        assert len(lost) == 1
        assert len(server.connections) == 1
        assert not lost[0].send_acks([(9, True, b"{}")])  # dropped, and said so
        await server.close()
        await asyncio.wait_for(gone.wait(), PATIENCE_S)
        assert not second.is_open

    run(scenario())


def test_acks__too_large_for_one_frame__are_split():
    async def scenario():
        transport = _Transport()
        connection = Connection(lambda *_: None)
        connection.connection_made(transport)
        items = [(n, True, bytes(1_000_000)) for n in range(40)]
        assert connection.send_acks(items)
        await asyncio.sleep(0)
        arrived = []
        other = Connection(lambda _, message: arrived.append(message))
        other.connection_made(_Transport())
        other.data_received(transport.written[0])
        assert [item for message in arrived for item in message.items] == items
        assert len(arrived) > 1

    run(scenario())


def test_server__that_gets_what_only_it_sends__cuts_off(tmp_path):
    async def scenario():
        server = IpcServer(lambda *_: None, lambda *_: None)
        await server.start(str(tmp_path / "s"))
        connection = await connect(str(tmp_path / "s"), lambda *_: None)
        connection.send(Acks([(1, True, b"{}")]))
        await asyncio.wait_for(connection.closed.wait(), PATIENCE_S)
        await server.close()

    run(scenario())


def test_channels__that_gateways_hear__are_known_until_the_last_has_gone(tmp_path):
    async def scenario():
        server = IpcServer(lambda *_: None, lambda *_: None)
        await server.start(str(tmp_path / "s"))
        heard = []
        first = await connect(str(tmp_path / "s"), lambda _, message: heard.append(message))
        second = await connect(str(tmp_path / "s"), lambda _, message: heard.append(message))
        assert not server.is_heard("trades")
        first.send(Hear(7, True, ["trades", "trades", "account.1"]))
        await until(lambda: heard)
        assert heard == [Answer(7, True, b"null")]
        second.send(Hear(8, True, ["trades"]))
        await until(lambda: len(heard) == 2)
        first.send(Hear(9, False, ["trades", "book.x"]))
        await until(lambda: len(heard) == 3)
        assert server.is_heard("trades")
        assert server.is_heard("account.1")
        first.close()
        await until(lambda: len(server.connections) == 1)
        assert not server.is_heard("account.1")
        assert server.is_heard("trades")
        second.close()
        await until(lambda: not server.is_heard("trades"))
        await server.close()

    run(scenario())


def test_query__that_makes_its_handler_fail__is_answered_and_the_connection_lives(tmp_path):
    def on_query(connection, rid, method, params):
        connection.send_answer(rid, True, b"%d" % (1 // params["x"]))

    async def scenario():
        server = IpcServer(lambda *_: None, on_query)
        await server.start(str(tmp_path / "s"))
        heard = []
        connection = await connect(str(tmp_path / "s"), lambda _, message: heard.append(message))
        connection.send(Query(1, "m", {"x": 0}))
        connection.send(Query(2, "m", {"x": 1}))
        await until(lambda: len(heard) == 2)
        assert [(one.rid, one.ok) for one in heard] == [(1, False), (2, True)]
        assert b"-32603" in heard[0].body
        await server.close()

    run(scenario())


def test_second_server__on_a_live_socket__is_refused__and_on_a_dead_one_is_not(tmp_path):
    async def scenario():
        address = str(tmp_path / "s")
        first = IpcServer(lambda *_: None, lambda *_: None)
        await first.start(address)
        second = IpcServer(lambda *_: None, lambda *_: None)
        with pytest.raises(OSError, match="another sequencer listens"):
            await second.start(address)
        await first.close()
        await asyncio.sleep(0.01)
        await second.start(address)
        await second.close()
        (tmp_path / "file").write_text("precious")
        with pytest.raises(OSError, match="is no socket"):
            await second.start(str(tmp_path / "file"))

    run(scenario())


def test_address__beyond_this_machine__is_refused():
    with pytest.raises(ValueError, match="beyond this machine"):
        ipc.parse_address("10.0.0.1:7000")
