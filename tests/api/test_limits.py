"""One client's load and the others: turns, budgets of bytes, readers that do not read, a sequencer that is silent."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest
import uvloop
from exchange_fixture import (
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    PATIENCE_S,
    PLACE,
    TAKER,
    Exchange,
    RealService,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

from sequencer.api import ipc, ipc_server
from sequencer.api.gateway import Limits
from sequencer.api.limits import Address, Addresses, Bucket, group_of
from sequencer.api.turns import Asked, Turns
from sequencer.engine.views import Trade
from sequencer.protocol.constants import Kind
from sequencer.sdk.client import Client, HttpClient, Trader
from sequencer.wire.pages import all_of, all_of_blocking


def call(method, number=1, **params):
    return json.dumps({"id": number, "method": method, "params": params})


def place(account=MAKER, nonce=0, **changes):
    return signed(Kind.PLACE, KEYS[account], **(PLACE | {"account": account, "nonce": nonce} | changes))


def fill_trades(running, count=1_000):
    trades = running.sequencer.views.trades
    for number in range(count):
        trades.append(Trade(NAMES[0], "2000.00", "0.0100", "buy", 1_700_000_000, number))


# --- queries ------------------------------------------------------------------------------------


def test_strangers_queries__of_sixty_megabytes__cut_nobody_off_and_no_fill_is_missed(stand_in):
    """Before, the sequencer's buffer for the gateway overflowed: 1103 for the others, fills without a trace."""
    stand_in.do(lambda: fill_trades(stand_in))
    heard, errors = [], []

    async def trade():
        async with await Client.connect(stand_in.ws_url) as client:
            events = await client.subscribe(f"trades.{NAMES[1]}")
            maker = await Trader.open(client, KEYS[MAKER])
            taker = await Trader.open(client, KEYS[TAKER])
            for _ in range(150):
                try:
                    await maker.place(NAMES[1], "sell", "1500", "0.001")
                    await taker.place(NAMES[1], "buy", "1500", "0.001", tif="IOC")
                except Exception as error:  # noqa: BLE001  # told below
                    errors.append(error)
            async with asyncio.timeout(PATIENCE_S):
                async for event in events:
                    heard.append(event)
                    if len(heard) >= 150:
                        return

    with connect(stand_in.ws_url, compression=None, max_size=None) as stranger:
        for number in range(990):
            stranger.send(call("trades", number, limit=1_000))
        worker = threading.Thread(target=lambda: asyncio.run(trade()))
        worker.start()
        answers = [json.loads(stranger.recv(PATIENCE_S)) for _ in range(990)]
        worker.join(2 * PATIENCE_S)
    assert errors == []
    assert [event.is_gap for event in heard] == [False] * 150
    assert {len(one["result"]) for one in answers if "result" in one} == {1_000}
    assert stand_in.gateway.ready


def test_queries__of_many_addresses__take_turns_and_debts_are_each_ones_own():
    async def scenario():
        now = [0.0]
        limits = Limits(
            address_answer_bytes_per_s=1_000, queries_in_flight=4, queries_in_flight_per_address=2
        )
        sent = []
        turns = Turns(limits, lambda rid, method, params: sent.append(rid) is None)
        addresses = [Address(name, limits, lambda: now[0]) for name in ("a", "b", "c")]
        peers = [_Reader(address) for address in addresses]
        for number in range(60):  # the greedy one first
            turns.ask(Asked(peers[0], number, "trades", {}))
        turns.ask(Asked(peers[1], 100, "trades", {}))
        turns.ask(Asked(peers[2], 200, "trades", {}))
        await asyncio.sleep(0)
        assert sent == [0, 100, 200, 1]
        turns.answered(0, 10_000)  # more than its budget: it waits
        turns.answered(1, 0)
        await asyncio.sleep(0)
        assert sent[4:] == []
        turns.ask(Asked(peers[1], 101, "trades", {}))
        await asyncio.sleep(0)
        assert sent[4:] == [101]
        now[0] += 8.0
        turns.wake(addresses[0])
        await asyncio.sleep(0)
        assert sent[5:] == [2]
        peers[0].is_slow = True  # what it has left unread holds its own back
        turns.answered(2, 0)
        await asyncio.sleep(0)
        assert sent[6:] == []
        turns.forget_all()
        assert len(turns) == 0

    asyncio.run(scenario())


class _Reader:
    """A connection, as turns see it."""

    is_slow = False
    is_gone = False
    in_flight = 0

    def __init__(self, address):
        self.address = address


def test_bucket__in_debt__is_out_of_it_in_time():
    now = [0.0]
    bucket = Bucket(100.0, lambda: now[0])
    bucket.spend(500.0)
    assert bucket.wait_s == 3.0
    assert not bucket.is_full
    now[0] = 5.0
    assert bucket.wait_s == 0.0
    now[0] = 6.0
    assert bucket.is_full


@given(st.ip_addresses())
def test_addresses__are_counted_by_what_one_client_has(address):
    name = group_of(str(address))
    assert name == group_of(f"{address}%eth0" if address.version == 6 else str(address))
    mapped = address.version == 6 and address.ipv4_mapped
    assert name.endswith("/64") is (address.version == 6 and not mapped)


def test_addresses__that_owe_nothing__are_forgotten():
    addresses = Addresses(Limits(), lambda: 0.0)
    for number in range(100):
        addresses.of(f"10.0.0.{number}")
    kept = addresses.of("10.0.0.7")
    kept.connections = 1
    addresses.of("10.0.0.8").answers.spend(10**9)
    addresses.forget_idle()
    assert len(addresses) == 2


# --- readers that do not read -------------------------------------------------------------------


def unread_bytes(running):
    def measured():
        peers = {peer for peers in running.gateway.events.by_channel.values() for peer in peers}
        return sum(peer._raw.get_write_buffer_size() for peer in peers)

    return running.do(measured)


def test_readers_that_never_read__leave_bounded_bytes__and_others_are_served(stand_in):
    stand_in.do(lambda: fill_trades(stand_in))
    limits = stand_in.gateway.limits
    lazy = []
    for _ in range(200):
        one = socket.create_connection(("127.0.0.1", stand_in.port))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        one.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        lazy.append(one)
    for one in lazy:
        with contextlib.suppress(OSError):
            for request in (call("subscribe", channels=["trades"]), call("trades", limit=1_000)):
                data = request.encode()
                one.sendall(bytes((0x81, 0xFE)) + len(data).to_bytes(2, "big") + bytes(4) + data) if len(
                    data
                ) > 125 else one.sendall(bytes((0x81, 0x80 | len(data))) + bytes(4) + data)
    body = b'{"much":"' + b"x" * 4_000 + b'"}'
    most = 0
    for _ in range(100):
        stand_in.do(lambda: [stand_in.gateway.events.publish("trades", body) for _ in range(20)])
        most = max(most, unread_bytes(stand_in))
    assert most <= limits.unread_bytes_per_address + 256 * 1024
    assert stand_in.do(lambda: stand_in.gateway.addresses.unread) <= limits.unread_bytes_per_address
    began = time.monotonic()
    assert "seq" in stand_in.result("status")
    assert time.monotonic() - began < 10
    for one in lazy:
        one.close()
    stand_in.until(lambda: stand_in.gateway.addresses.unread == 0, "what is unread to be forgotten")


def test_reader_that_stands_still__is_dropped_after_a_while():
    with Exchange(limits=Limits(stalled_s=0.3)) as running, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect(("127.0.0.1", running.port))
        running.do(lambda: fill_trades(running))
        request = call("trades", limit=1_000).encode()
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(request), request)
        raw.sendall(post * 100)
        running.until(lambda: running.gateway.connections == 0, "it to be dropped")


def test_pings__of_a_client_that_reads_nothing__gather_no_pongs(stand_in):
    with socket.create_connection(("127.0.0.1", stand_in.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        request = call("subscribe", channels=["trades"]).encode()
        raw.sendall(bytes((0x81, 0x80 | len(request))) + bytes(4) + request)
        stand_in.until(lambda: stand_in.gateway.events.by_channel.get("trades"), "the subscription")
        raw.settimeout(0.5)
        pings = (bytes((0x89, 0x80 | 125)) + bytes(4) + b"x" * 125) * 1_000
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(200):  # 26 MB
                raw.sendall(pings)
        assert unread_bytes(stand_in) < 1024 * 1024


# --- gateway and sequencer ----------------------------------------------------------------------


async def until(condition):
    """Returns once `condition()` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # both ends are on this loop
            await asyncio.sleep(0.001)


def test_events__beyond_what_a_gateway_reads__are_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(ipc, "EVENT_BYTES_MAX", 1024 * 1024)
    monkeypatch.setattr(ipc, "QUERY_BYTES_MAX", 512 * 1024)

    async def scenario():
        server = ipc_server.IpcServer(lambda *_: None, lambda *_: None)
        await server.start(str(tmp_path / "s"))
        messages = []
        link = await ipc.connect(str(tmp_path / "s"), lambda _, message: messages.append(message))
        await until(lambda: server.connections)
        link._transport.pause_reading()
        for number in range(400):
            server.broadcast([(f"trades.{number}", 0, b"x" * 16_384)])
            await asyncio.sleep(0)
        (held,) = server.connections
        assert held.dropped > 0
        dropped = held.dropped
        link._transport.resume_reading()
        link.send(ipc.Query(1, "status", {}))
        await until(lambda: any(isinstance(one, ipc.Gap) for one in messages))  # without a further event
        server.broadcast([("trades.end", 0, b"y")])
        await until(lambda: messages[-1] == ipc.Events([("trades.end", 0, b"y")]))
        assert [one.dropped for one in messages if isinstance(one, ipc.Gap)] == [dropped]
        assert sum(len(one.items) for one in messages if isinstance(one, ipc.Events)) == 401 - dropped
        link.close()
        await server.close()

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_gap__of_the_gateway__reaches_every_subscriber(stand_in):
    with connect(stand_in.ws_url, compression=None) as ws:
        ws.send(call("subscribe", channels=["trades", f"book.{INSTRUMENT}"]))
        ws.recv(PATIENCE_S)
        stand_in.do(lambda: [one.send(ipc.Gap(17)) for one in stand_in.sequencer.server.connections])
        params = json.loads(ws.recv(PATIENCE_S))["params"]
        assert params["channel"] == "gap"
        assert "17 events" in params["data"]["reason"]


def test_sequencer_that_falls_silent__is_noticed__and_every_request_ends(monkeypatch):
    monkeypatch.setattr(ipc, "PING_S", 0.05)
    monkeypatch.setattr(ipc, "SILENT_S", 0.6)
    monkeypatch.setattr("sequencer.api.link.SHOWN_SILENT_S", 0.2)
    with Exchange() as running:
        health = HttpGet(running)
        assert health()[0] == 200
        running.do(lambda: setattr(running.sequencer.server, "_received", lambda *_: None))
        for one in running.do(lambda: list(running.sequencer.server.connections)):
            one._on_message = lambda *_: None  # as a process that is stopped
        with connect(running.ws_url, compression=None) as ws:
            ws.send(call("submit", 1, record="0x" + place().hex()))
            ws.send(call("account", 2, account=MAKER))
            codes = {}
            for _ in range(2):
                answer = json.loads(ws.recv(PATIENCE_S))
                codes[answer["id"]] = answer["error"]["code"]
        assert codes == {1: 1103, 2: 1102}
        status, found = health()
        assert (status, found["accepts_orders"]) == (503, False)
        assert "sequencer" in found["reason"]


class HttpGet:
    """GET /health of a running exchange."""

    def __init__(self, running):
        self._port = running.port

    def __call__(self):
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        connection.request("GET", "/health")
        response = connection.getresponse()
        found = response.status, json.loads(response.read())
        connection.close()
        return found


def test_health__of_a_sequencer_that_takes_no_orders__says_why():
    with Exchange(RealService) as running:
        health = HttpGet(running)
        assert health()[0] == 200
        running.do(lambda: setattr(running.sequencer.service.gate, "deposed", "another leads"))
        deadline = time.monotonic() + PATIENCE_S
        while health()[0] == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        status, found = health()
        assert (status, found["ready"], found["reason"]) == (503, True, "another leads")


def test_gateway_that_falls_silent__is_given_up_by_the_sequencer(tmp_path, monkeypatch):
    monkeypatch.setattr(ipc, "PING_S", 0.05)
    monkeypatch.setattr(ipc, "SILENT_S", 0.3)

    async def scenario():
        server = ipc_server.IpcServer(lambda *_: None, lambda *_: None)
        await server.start(str(tmp_path / "s"))
        quiet = await ipc.connect(str(tmp_path / "s"), lambda *_: None)  # speaks no pings: an old one
        gone = await ipc.connect(str(tmp_path / "s"), lambda *_: None)
        gone.send(ipc.Ping())
        await gone.closed.wait()
        assert quiet.is_open
        quiet.close()
        await server.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


# --- pages --------------------------------------------------------------------------------------


def test_orders_and_instruments__come_in_pages(stand_in):
    for nonce in range(25):
        stand_in.submit(place(nonce=nonce, price=200_000 + nonce))
    whole = stand_in.result("orders", account=MAKER)
    assert len(whole) == 25
    first = stand_in.result("orders", account=MAKER, limit=10)
    second = stand_in.result("orders", account=MAKER, limit=10, after=first[-1]["seq"])
    assert first + second == whole[:20]
    assert stand_in.result("orders", account=MAKER, after=whole[-1]["seq"]) == []
    assert stand_in.call("orders", account=MAKER, limit=1_001)["error"]["data"]["field"] == "limit"
    listed = stand_in.result("instruments")
    assert [one["instrument"] for one in listed] == sorted(one["instrument"] for one in listed)
    assert stand_in.result("instruments", after=listed[1]["number"], limit=1) == listed[2:3]


@pytest.mark.parametrize("count", [0, 5, 1_000, 2_500])
def test_all_pages__are_asked_for_one_after_the_other(count):
    rows = [{"seq": number} for number in range(1, count + 1)]

    def page(method, *, after, limit, account):
        assert (method, account) == ("orders", 7)
        return [one for one in rows if one["seq"] > after][:limit]

    async def later(*arguments, **params):
        return page(*arguments, **params)

    assert all_of_blocking(page, "orders", account=7) == rows
    assert asyncio.run(all_of(later, "orders", account=7)) == rows


def test_http_client__of_a_gateway_without_a_sequencer__hears_1102(stand_in):
    stand_in.stop_sequencer()
    with HttpClient(stand_in.url) as client, pytest.raises(Exception, match="1102"):
        client.call("status")


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "requests", "field"),
    [
        (Limits(queries_per_s=1), 5, "queries_per_s"),
        (Limits(address_queries_per_s=1), 5, "address_queries_per_s"),
        (Limits(outstanding=1), 50, "outstanding"),
    ],
    ids=["rate", "address", "outstanding"],
)
def test_limit_that_is_met__names_field_limit_and_what_was_got(limits, requests, field):
    with Exchange(limits=limits) as running, connect(running.ws_url, compression=None) as ws:
        for number in range(requests):
            ws.send(call("account", number, account=MAKER))
        answers = [json.loads(ws.recv(PATIENCE_S)) for _ in range(requests)]
        refused = [one["error"] for one in answers if "error" in one]
        assert refused
        for one in refused:
            assert one["code"] == 1101
            assert one["data"]["field"] == field
            assert {"limit", "got"} < set(one["data"])
