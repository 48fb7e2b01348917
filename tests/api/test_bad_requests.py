"""Wrong requests: each is answered with its code and with what is wrong, and none moves the state's root.

The table runs against whatever `exchange` gives; it needs `url`, `ws_url` and `state_root()` of it.

Long because it is one table of requests.
"""

import asyncio
import contextlib
import json
import socket
import time
from dataclasses import dataclass

import pytest
import websockets.exceptions
from exchange_fixture import (
    CHAIN_ID,
    CONTRACT,
    DAY,
    FEED_KEY,
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    NOW,
    PATIENCE_S,
    PLACE,
    POOR,
    STRANGER,
    TAKER,
    Exchange,
    RealService,
    StandIn,
    signed,
)
from websockets.sync.client import connect

from sequencer.api.gateway import Limits
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason


@pytest.fixture(scope="module", params=[StandIn, RealService], ids=["stand_in", "service"])
def exchange(request):
    with Exchange(request.param) as running:
        running.submit(place(nonce=0))  # an order rests, and nonce 0 is used
        running.submit(place(nonce=7))
        yield running


def place(key=KEYS[MAKER], domain=None, **changes):
    fields = PLACE | {"nonce": 1} | changes
    return signed(Kind.PLACE, key, domain, **fields) if domain else signed(Kind.PLACE, key, **fields)


def cancel(**changes):
    fields = {
        "account": MAKER,
        "instrument": INSTRUMENT,
        "side": 1,
        "price": 200_000,
        "seq": 13,
        "nonce": 1,
        "expires": 0,
    }
    return signed(Kind.CANCEL, KEYS[MAKER], **(fields | changes))


def withdraw(key=KEYS[MAKER], **changes):
    return signed(
        Kind.WITHDRAW, key, **({"account": MAKER, "amount": 10**6, "nonce": 1, "expires": 0} | changes)
    )


def of(method, /, **params):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def sent(record):
    return of("submit", record="0x" + record.hex())


def ordered(**changes):
    fields = {
        "account": MAKER,
        "instrument": NAMES[0],
        "side": "sell",
        "price": "2000.00",
        "quantity": "0.01",
        "nonce": 1,
        "signature": "0x" + place()[-64:].hex(),
    }
    return of("order_place", **(fields | changes))


def flip(record, at, bit=1):
    changed = bytearray(record)
    changed[at] ^= bit
    return bytes(changed)


def high_s(record):
    """s just above half of the group's order: the least that is refused."""
    half = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0
    return record[:-32] + (half + 1).to_bytes(32, "big")


def refused(reason):
    return 2000 + reason


OTHER_CHAIN = codec.domain_separator(CHAIN_ID + 1, bytes.fromhex(CONTRACT[2:]))
OTHER_CONTRACT = codec.domain_separator(CHAIN_ID, b"\x01" * 20)
BATCH_OF_101 = json.dumps([{"id": n, "method": "status"} for n in range(101)])
SESSION = {
    "account": MAKER,
    "signer": b"\x01" * 20,
    "scope": 4,
    "signer_expires": NOW + 60,
    "nonce": 1,
    "expires": 0,
}
FEED = {"underlying": 0, "feed": 0, "time": NOW, "price": 4_900_000}

# name: (request, code, part of the message)
TABLE = {
    # --- documents
    "nothing": ("", -32700, "not JSON"),
    "no JSON": ("hello", -32700, "not JSON"),
    "JSON cut short": ('{"id":1,"method":"sta', -32700, "not JSON"),
    "something after the JSON": ('{"id":1,"method":"status"} x', -32700, "not JSON"),
    "no UTF-8": (b'{"id":1,"method":"\xff\xfe"}', -32700, "not JSON"),
    "nesting without end": (
        '{"id":1,"method":"status","params":' + "[" * 30_000 + "]" * 30_000 + "}",
        -32700,
        "brackets",
    ),
    "a broken batch": ('[{"id":1,"method":"status"},', -32700, "not JSON"),
    "a number": ("7", -32600, "must be a JSON object"),
    "a string": ('"status"', -32600, "must be a JSON object"),
    "null": ("null", -32600, "must be a JSON object"),
    "an empty batch": ("[]", -32600, "at least one request"),
    "a batch too large": (BATCH_OF_101, -32600, "at most 100 requests"),
    "another version": ('{"jsonrpc":"1.0","id":1,"method":"status"}', -32600, 'jsonrpc: must be "2.0"'),
    "no method": ('{"jsonrpc":"2.0","id":1}', -32600, "method: must be a string"),
    "a method that is a number": ('{"id":1,"method":5}', -32600, "method: must be a string"),
    "id null": ('{"id":null,"method":"status"}', -32600, "id: must be"),
    "id true": ('{"id":true,"method":"status"}', -32600, "id: must be"),
    "id with a fraction": ('{"id":1.5,"method":"status"}', -32600, "id: must be"),
    "id an object": ('{"id":{},"method":"status"}', -32600, "id: must be"),
    "id beyond 64 bits": (
        '{"id":99999999999999999999,"method":"status"}',
        -32600,
        "id: must be a 64-bit integer",
    ),
    "id too long": ('{"id":"' + "x" * 65 + '","method":"status"}', -32600, "at most 64 characters"),
    "a notification": (
        '{"jsonrpc":"2.0","method":"submit","params":{"record":"0x00"}}',
        -32600,
        "an id is required",
    ),
    "unknown method": (of("order_plaze"), -32601, "unknown method 'order_plaze'"),
    "method of the wrong case": (of("Status"), -32601, "unknown method"),
    "params by position": (
        '{"id":1,"method":"order_place","params":[1,2]}',
        -32602,
        "parameters are passed by name",
    ),
    "params null": ('{"id":1,"method":"account","params":null}', -32602, "parameters are passed by name"),
    # --- submit
    "submit without record": (of("submit"), -32602, "record: must be 0x"),
    "record not a string": (of("submit", record=7), -32602, "record: must be 0x"),
    "record without 0x": (of("submit", record=place().hex()), -32602, "record: must be 0x"),
    "record with a bad digit": (of("submit", record="0xzz"), -32602, "record: must be 0x"),
    "record of half a byte": (of("submit", record="0x123"), -32602, "record: must be 0x"),
    "record far too long": (of("submit", record="0x" + "20" * 5_000), -32602, "at most 124"),
    "record with company": (of("submit", record="0x20", more=1), -32602, "more: must be absent"),
    "empty record": (of("submit", record="0x"), 1001, "length"),
    "record a byte short": (sent(place()[:-1]), 1001, "a PLACE has 93 bytes"),
    "record a byte long": (sent(place() + b"\0"), 1001, "a PLACE has 93 bytes"),
    "record with padding set": (sent(flip(withdraw(), 28)), 1001, "zero padding"),
    "unknown kind": (sent(b"\x99" + place()[1:]), 1001, "names no kind"),
    "reserved kind": (sent(b"\x28" + place()[1:]), 1001, "names no kind"),
    "forged TICK": (
        sent(codec.encode(Kind.TICK, time=NOW + 1)),
        1003,
        "TICK records are created by the sequencer",
    ),
    "forged DEPOSIT": (
        sent(codec.encode(Kind.DEPOSIT, owner=b"\x01" * 20, account=9, amount=10**9)),
        1003,
        "DEPOSIT records are created",
    ),
    "forged CONTINUE": (sent(codec.encode(Kind.CONTINUE)), 1003, "CONTINUE records are created"),
    "forged LIQUIDATE": (
        sent(codec.encode(Kind.LIQUIDATE, account=TAKER)),
        1003,
        "LIQUIDATE records are created",
    ),
    "forged SETTLE": (
        sent(codec.encode(Kind.SETTLE, underlying=0, day=DAY, account=1)),
        1003,
        "SETTLE records",
    ),
    "forged RISK": (
        sent(codec.encode(Kind.RISK, underlying=0, day=DAY, page=0)),
        1003,
        "RISK records are created",
    ),
    # --- signatures
    "no signature": (sent(codec.encode(Kind.PLACE, **PLACE)), 1002, "no signer can be recovered"),
    "r beyond the curve": (
        sent(place()[:-64] + b"\xff" * 32 + place()[-32:]),
        1002,
        "no signer can be recovered",
    ),
    "s in the upper half": (sent(high_s(place())), 1002, "no signer can be recovered"),
    "another chain's signature": (sent(place(domain=OTHER_CHAIN)), refused(Reason.BAD_SIGNATURE), "chain id"),
    "another contract's signature": (
        sent(place(domain=OTHER_CONTRACT)),
        refused(Reason.BAD_SIGNATURE),
        "signer is neither",
    ),
    "a stranger's signature": (sent(place(key=STRANGER)), refused(Reason.BAD_SIGNATURE), "signer is neither"),
    "another account's owner": (
        sent(place(key=KEYS[TAKER])),
        refused(Reason.BAD_SIGNATURE),
        "signer is neither",
    ),
    "a field changed after signing": (
        sent(flip(place(), 17)),
        refused(Reason.BAD_SIGNATURE),
        "signer is neither",
    ),
    "a withdrawal that the owner did not sign": (
        sent(withdraw(key=STRANGER)),
        refused(Reason.BAD_SIGNATURE),
        "neither",
    ),
    "a feed that is none": (
        sent(signed(Kind.FEED, STRANGER, **FEED)),
        refused(Reason.UNKNOWN_FEED),
        "signed by a feed",
    ),
    "a feed's report from before": (
        sent(signed(Kind.FEED, FEED_KEY, **FEED)),
        refused(Reason.FEED_TIME),
        "not newer",
    ),
    # --- rules
    "a nonce that is used": (sent(place(nonce=7, quantity=77)), refused(Reason.NONCE_USED), "has been used"),
    "a nonce of the past": (
        sent(place(nonce=0, quantity=77)),
        refused(Reason.NONCE_WINDOW),
        "below the account's floor",
    ),
    "a nonce beyond the window": (sent(place(nonce=257)), refused(Reason.NONCE_WINDOW), "256 or more above"),
    "expired": (sent(place(expires=NOW - 1)), refused(Reason.EXPIRED), "`expires` has passed"),
    "unknown account": (sent(place(account=99)), refused(Reason.UNKNOWN_ACCOUNT), "first deposit"),
    "unknown instrument": (
        sent(place(instrument=INSTRUMENT + 31)),
        refused(Reason.UNKNOWN_INSTRUMENT),
        "No such instrument",
    ),
    "zero quantity": (sent(place(quantity=0)), refused(Reason.QUANTITY), "at least one lot"),
    "zero price": (sent(place(price=0)), refused(Reason.PRICE), "at least one tick"),
    "unused flags": (sent(place(flags=0x41)), refused(Reason.FLAGS), "flags contradict"),
    "post-only and IOC": (sent(place(flags=1 | 2 | 8)), refused(Reason.FLAGS), "post-only goes with GTC"),
    "fee_max zero": (sent(place(fee_max=0)), refused(Reason.FEE_ABOVE_MAX), "fee_max"),
    "margin": (
        sent(place(key=KEYS[POOR], account=POOR, nonce=0, quantity=10**6)),
        refused(Reason.MARGIN),
        "free margin is insufficient",
    ),
    "reduce-only without a position": (sent(place(flags=1 | 16)), refused(Reason.REDUCE_ONLY), "no position"),
    "fill-or-kill with nobody there": (
        sent(place(key=KEYS[TAKER], account=TAKER, nonce=0, flags=4, price=100)),
        refused(Reason.FOK_UNFILLED),
        "filled completely",
    ),
    "post-only that crosses": (
        sent(place(key=KEYS[TAKER], account=TAKER, nonce=0, flags=8)),
        refused(Reason.POST_ONLY_CROSSES),
        "traded at once",
    ),
    "cancel of nothing": (sent(cancel(seq=999)), refused(Reason.UNKNOWN_ORDER), "No such order rests"),
    "withdraw zero": (sent(withdraw(amount=0)), refused(Reason.AMOUNT), "amount is zero"),
    "withdraw too much": (sent(withdraw(amount=10**15)), refused(Reason.MARGIN), "free margin"),
    "scope that cannot be granted": (
        sent(signed(Kind.SET_SIGNER, KEYS[MAKER], **SESSION)),
        refused(Reason.SCOPE),
        "scope",
    ),
    # --- fields by name
    "order_place without a signature": (
        ordered(signature="0x"),
        -32602,
        "signature: must be 0x and 64 bytes",
    ),
    "order_place, v out of range": (ordered(signature="0x" + "11" * 64 + "05"), -32602, "signature: must be"),
    "order_place, a field missing": (of("order_place", account=1), -32602, "instrument: is missing"),
    "order_place, an unknown field": (ordered(quantiti="1"), -32602, "quantiti: must be absent"),
    "order_place, price a number": (
        ordered(price=2000.0),
        -32602,
        "price: must be a decimal string from 0.01",
    ),
    "order_place, price too fine": (ordered(price="2000.001"), -32602, "at most 2 decimals"),
    "order_place, price negative": (ordered(price="-1"), -32602, "price: must be a decimal string from 0.01"),
    "order_place, price too large": (ordered(price="42949672.96"), -32602, "to 42949672.95"),
    "order_place, price in exponents": (ordered(price="2e3"), -32602, "price: must be a decimal string"),
    "order_place, price in other digits": (ordered(price="٢٠٠٠"), -32602, "price: must be a decimal string"),
    "order_place, quantity zero": (
        ordered(quantity="0"),
        -32602,
        "quantity: must be a decimal string from 0.0001",
    ),
    "order_place, quantity too large": (ordered(quantity="109951162.7776"), -32602, "to 109951162.7775"),
    "order_place, side": (ordered(side="BUY"), -32602, "side: must be one of buy, sell"),
    "order_place, tif": (ordered(tif="DAY"), -32602, "tif: must be one of GTC, IOC, FOK"),
    "order_place, post_only and IOC": (
        ordered(tif="IOC", post_only=True),
        -32602,
        "post_only: must be false unless",
    ),
    "order_place, post_only a word": (ordered(post_only="yes"), -32602, "post_only: must be true or false"),
    "order_place, account true": (
        ordered(account=True),
        -32602,
        "account: must be an integer from 0 to 4294967295",
    ),
    "order_place, nonce beyond uint32": (ordered(nonce=2**32), -32602, "nonce: must be an integer"),
    "order_place, fee_max too large": (
        ordered(fee_max="6.5536"),
        -32602,
        "fee_max: must be a decimal string",
    ),
    "order_place, no such name": (
        ordered(instrument="BTC-1JAN30-1-C"),
        -32602,
        "name of an instrument that is listed",
    ),
    "order_place, what was not signed": (
        ordered(price="2001.00"),
        refused(Reason.BAD_SIGNATURE),
        "signer is neither",
    ),
    "transfer, amount empty": (
        of("transfer", account=1, to=2, amount="", nonce=1, signature="0x" + "11" * 64),
        -32602,
        "amount: must be a decimal string",
    ),
    "set_signer, half an address": (
        of(
            "set_signer",
            account=1,
            signer="0x11",
            scope=1,
            signer_expires=1,
            nonce=1,
            signature="0x" + "11" * 64,
        ),
        -32602,
        "signer: must be 0x and 40 hex digits",
    ),
    "typed_data of no method": (
        of("typed_data", method="steal"),
        -32602,
        "method: must be one of order_place",
    ),
    "book, depth": (
        of("book", instrument=INSTRUMENT, depth=101),
        -32602,
        "depth: must be an integer from 1 to 100",
    ),
    "book, no such instrument": (of("book", instrument=5), -32602, "instrument"),
    "account of nobody": (of("account"), -32602, "account: must be given, or owner"),
    "account and owner": (of("account", account=1, owner="0x" + "11" * 20), -32602, "but not both"),
    "subscribe over HTTP": (of("subscribe", channels=["trades"]), -32600, "need a WebSocket"),
    "subscribe to nothing": (of("subscribe", channels=[]), -32602, "channels: must be an array of 1 to 256"),
    "subscribe to what is no channel": (
        of("subscribe", channels=["weather"]),
        -32602,
        "channels: must be book.",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_request__is_refused_with_its_reason__and_changes_nothing(exchange, name):
    request, code, message = TABLE[name]
    before = exchange.state_root()
    _, answer = exchange.post(request)
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"]["code"] == code, answer
    assert message in answer["error"]["message"]
    if code == -32602 and name != "book, no such instrument":
        assert {"field", "limit", "got"} <= set(answer["error"]["data"])
    if code > 2000:
        assert answer["error"]["data"]["reason"] == Reason(code - 2000).name
    assert exchange.state_root() == before


@pytest.mark.parametrize("name", TABLE)
def test_bad_request__on_a_websocket__is_refused_and_the_connection_lives(exchange, name):
    request, code, message = TABLE[name]
    if name == "subscribe over HTTP":
        request, code, message = of("subscribe", channels=[7, "weather"]), -32602, "channels"
    if isinstance(request, bytes):
        request = request.decode("latin-1")
    if name == "no UTF-8":
        code, message = -32601, "unknown method"
    with connect(exchange.ws_url, compression=None) as ws:
        ws.send(request)
        answer = json.loads(ws.recv(PATIENCE_S))
        assert (answer["error"]["code"], message in answer["error"]["message"]) == (code, True), answer
        ws.send(of("status"))
        assert "result" in json.loads(ws.recv(PATIENCE_S))


@dataclass
class Binary:
    frame: bytes
    code: int
    message: str


@pytest.mark.parametrize(
    "case",
    [
        Binary(b"", -32600, "8 bytes of id"),
        Binary(b"12345678", -32600, "8 bytes of id"),
        Binary(b"12345678" + place()[:-1], 1001, "93 bytes"),
        Binary(b"12345678" + codec.encode(Kind.TICK, time=NOW), 1003, "TICK"),
        Binary(b"12345678" + codec.encode(Kind.PLACE, **PLACE), 1002, "no signer"),
        Binary(b"12345678" + place(nonce=7, quantity=77), refused(Reason.NONCE_USED), "used"),
    ],
    ids=lambda case: case.message,
)
def test_binary_frame__that_is_wrong__gets_its_id_and_reason_back(exchange, case):
    before = exchange.state_root()
    with connect(exchange.ws_url, compression=None) as ws:
        ws.send(case.frame)
        answer = ws.recv(PATIENCE_S)
        assert answer[:8] == case.frame[:8].ljust(8, b"\0")
        error = json.loads(answer[8:])["error"]
        assert (error["code"], case.message in error["message"]) == (case.code, True), error
    assert exchange.state_root() == before


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b" " * 70_000, b"413"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"404"),
        (b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"400"),
    ],
    ids=["no POST", "elsewhere", "body", "no HTTP", "negative length", "headers", "no /ws", "no key"],
)
def test_http__that_is_wrong__gets_a_status_and_the_port_lives(exchange, data, status):
    with socket.create_connection(("127.0.0.1", exchange.port), PATIENCE_S) as raw:
        raw.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionError):
            raw.sendall(data)
        assert raw.recv(65_536).split(b" ")[1] == status
    assert "result" in exchange.call("status")


def test_oversize_frame__is_told_so_and_disconnected(exchange):
    with connect(exchange.ws_url, compression=None) as ws:
        ws.send("x" * 65_537)
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            ws.recv(PATIENCE_S)
        assert closed.value.rcvd.code == 1009
        assert "65536" in closed.value.rcvd.reason


def test_fragments_beyond_the_limit__are_told_so_and_disconnected(exchange):
    with connect(exchange.ws_url, compression=None) as ws:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            ws.send("x" * 1_000 for _ in range(70))
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            ws.recv(PATIENCE_S)
        assert ws.close_code == 1009


def test_subscriptions__beyond_256__are_refused(exchange):
    with connect(exchange.ws_url, compression=None) as ws:
        ws.send(of("subscribe", channels=[f"account.{n}" for n in range(256)]))
        assert "result" in json.loads(ws.recv(PATIENCE_S))
        ws.send(of("subscribe", channels=["account.256"]))
        error = json.loads(ws.recv(PATIENCE_S))["error"]
        assert error["code"] == -32602
        assert "at most 256" in error["message"]


def test_batch__with_wrong_and_right_requests__answers_each(exchange):
    batch = [
        {"id": 1, "method": "status"},
        7,
        {"method": "status"},
        {"id": "b", "method": "nothing"},
        {"id": "c", "method": "submit", "params": {"record": "0x" + place(nonce=7, quantity=77).hex()}},
    ]
    _, answers = exchange.post(batch)
    by_id = {json.dumps(one["id"]): one for one in answers}
    assert len(answers) == len(batch)
    assert "result" in by_id["1"]
    assert by_id["null"]["error"]["code"] == -32600
    assert by_id['"b"']["error"]["code"] == -32601
    assert by_id['"c"']["error"]["code"] == refused(Reason.NONCE_USED)


def test_record__that_comes_again__is_answered_as_the_first_time(exchange):
    before = exchange.state_root()
    record = "0x" + place(nonce=7).hex()
    answers = [exchange.post(of("submit", record=record))[1] for _ in range(2)]
    assert "seq" in answers[0]["result"]
    assert answers[0]["result"] == answers[1]["result"]
    assert exchange.state_root() == before


# --- floods and disconnects ---------------------------------------------------------------------


def test_flood__beyond_the_outstanding_limit__is_refused_and_the_rest_is_answered():
    with Exchange(limits=Limits(outstanding=50)) as running, connect(running.ws_url, compression=None) as ws:
        records = [place(nonce=n) for n in range(200)]
        ws.send(
            json.dumps(
                [
                    {"id": n, "method": "submit", "params": {"record": "0x" + r.hex()}}
                    for n, r in enumerate(records[:100])
                ]
            )
        )
        answers = json.loads(ws.recv(PATIENCE_S))
        codes = [one["error"]["code"] for one in answers if "error" in one]
        assert codes == [1101] * 50
        assert sum("result" in one for one in answers) == 50
        ws.send(of("status"))
        assert json.loads(ws.recv(PATIENCE_S))["result"]["orders"] == 50


def test_flood__of_queries__is_rate_limited():
    with Exchange(limits=Limits(queries_per_s=5)) as running, connect(running.ws_url, compression=None) as ws:
        for _ in range(40):
            ws.send(of("status"))
        answers = [json.loads(ws.recv(PATIENCE_S)) for _ in range(40)]
        assert {one["error"]["code"] for one in answers if "error" in one} == {1101}
        assert sum("result" in one for one in answers) <= 15


def test_flood__of_garbage_from_many__leaves_the_others_served():
    async def pour(port):
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x00\xff" * 5_000)
            await writer.drain()
            writer.close()

    async def pour_all(port):
        await asyncio.gather(*(pour(port) for _ in range(100)))

    with Exchange() as running:
        before = running.state_root()
        asyncio.run(pour_all(running.port))
        assert running.state_root() == before
        assert "result" in running.call("status")


def test_connections__beyond_the_limit__are_refused():
    with Exchange(limits=Limits(connections=2)) as running, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), PATIENCE_S))
        extra = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), PATIENCE_S))
        extra.settimeout(PATIENCE_S)
        assert b"503" in extra.recv(1_000)


def test_handshakes__that_fail__leave_nothing_behind():
    with Exchange(limits=Limits(connections=3)) as running:
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as raw:
                raw.sendall(
                    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                assert b" 400 " in raw.recv(1_000)
                assert raw.recv(1_000) == b""
        assert "result" in running.call("status")


def test_slow_consumer__is_disconnected_and_the_others_are_served():
    with Exchange(limits=Limits(unread_bytes=20_000, queries_per_s=0)) as running:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            slow.connect(("127.0.0.1", running.port))
            slow.sendall(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            document = of("instruments").encode()
            frame = bytes((0x81, 0x80 | len(document))) + b"\0\0\0\0" + document
            slow.settimeout(PATIENCE_S)
            with contextlib.suppress(OSError):  # it is cut off somewhere on the way
                for _ in range(100_000):
                    slow.sendall(frame)
            deadline = time.monotonic() + PATIENCE_S
            while running.do(lambda: running.gateway.connections):
                assert time.monotonic() < deadline, "it was not cut off"
                time.sleep(0.05)
        assert "result" in running.call("status")


def test_disconnect__with_submissions_on_their_way__loses_nothing_that_was_accepted(exchange):
    records = [
        signed(Kind.PLACE, KEYS[4], **(PLACE | {"account": 4, "nonce": n, "price": 300_000}))
        for n in range(20)
    ]
    ws = connect(exchange.ws_url, compression=None)
    for number, record in enumerate(records):
        ws.send(number.to_bytes(8, "big") + record)
    ws.close()
    deadline = time.monotonic() + PATIENCE_S
    orders: list[object] = []
    while len(orders) < 20 and time.monotonic() < deadline:  # an order shows once it is durable
        time.sleep(0.02)
        orders = exchange.call("orders", account=4)["result"]
    assert len(orders) == 20
