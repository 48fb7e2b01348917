"""HTTP/1.1 and WebSocket as clients speak them: whole forms of both, byte by byte, and real clients."""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time

import aiohttp
import pytest
import websockets
from exchange_fixture import KEYS, MAKER, PATIENCE_S, PLACE, Exchange, signed

from sequencer.api import http_peer
from sequencer.api.gateway import Limits
from sequencer.protocol.constants import Kind

STATUS = b'{"id":1,"method":"status"}'


@pytest.fixture(scope="module")
def exchange():
    with Exchange() as running:
        yield running


def spoken(exchange, *parts, until=None, pause_s=0.05):
    """What comes back when `parts` are sent one after the other, up to the end of the connection or `until`."""
    with socket.create_connection(("127.0.0.1", exchange.port), PATIENCE_S) as raw:
        raw.settimeout(PATIENCE_S)
        for number, part in enumerate(parts):
            if number:
                time.sleep(pause_s)
            raw.sendall(part)
        seen = b""
        while until is None or until not in seen:
            data = raw.recv(65_536)
            if not data:
                break
            seen += data
    return seen


def statuses(answer):
    """Status codes of the answers in a stream."""
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def post(body, *headers, path=b"/"):
    lines = [b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (
            CHUNKED
            + b"5;a=b\r\n"
            + STATUS[:5]
            + b"\r\n%x\r\n" % len(STATUS[5:])
            + STATUS[5:]
            + b"\r\n0\r\n\r\n",
            200,
        ),
        (CHUNKED + b"%x\r\n" % len(STATUS) + STATUS + b"\r\n0\r\nTrailer: x\r\nX-Sum: y\r\n\r\n", 200),
        (post(STATUS, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM"), 200),
        (post(STATUS, b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: TLS/1.0, HTTP/2"), 200),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n" % len(STATUS) + STATUS + b"\r\n0\r\n\r\n",
            200,
        ),
        (post(STATUS, b"content-TYPE: application/json", b"accept:", b"X-Empty:   "), 200),
        (post(STATUS) + b"\r\n", 200),
        (b"\r\n" + post(STATUS), 200),
        (b"GET http://x/health?deep=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 204),
        (b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ],
)
def test_request__as_clients_may_write_it__is_answered_and_the_connection_goes_on(
    exchange, request_bytes, expected
):
    assert statuses(spoken(exchange, request_bytes + LAST)) == [expected, 200]
    pieces = [request_bytes[at : at + 7] for at in range(0, len(request_bytes), 7)]
    assert statuses(spoken(exchange, *pieces, LAST, pause_s=0.001)) == [expected, 200]


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),  # no Host
        (b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (CHUNKED + b"zz\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (post(STATUS, b"Expect: a-miracle"), 417),
        (post(b"", b"Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 70000"), 413),
    ],
)
def test_request__that_cannot_be_read_on_after__is_refused_and_closed(exchange, request_bytes, expected):
    answer = spoken(exchange, request_bytes + LAST)
    assert statuses(answer) == [expected]
    assert b"Connection: close" in answer


def test_answers__have_what_http_asks_for(exchange):
    head = spoken(exchange, b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")  # no body
    assert b"Date: " in head
    options = spoken(exchange, b"OPTIONS / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Content-Length" not in options
    assert b"Allow: POST, OPTIONS" in options
    assert b"Allow: POST" in spoken(exchange, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    old = spoken(exchange, b"GET /health HTTP/1.0\r\n\r\n")
    assert b"Connection: close" in old
    kept = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert spoken(exchange, kept, b"GET /health HTTP/1.0\r\n\r\n").count(b"Connection: keep-alive") == 1


def test_expect_continue__is_asked_for_its_body_in_its_turn(exchange):
    head, _, body = post(STATUS, b"Expect: 100-Continue").partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", exchange.port), PATIENCE_S) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendall(head + b"\r\n\r\n")
        assert raw.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(body + LAST)
        seen = b""
        while data := raw.recv(65_536):
            seen += data
    assert statuses(seen) == [200, 200]


def test_garbage_after_a_whole_request__is_refused_after_that_one_is_answered(exchange):
    """Its answer came first, as a 400, while the order was placed."""
    record = signed(Kind.PLACE, KEYS[MAKER], **(PLACE | {"nonce": 3}))
    order = json.dumps({"id": 5, "method": "submit", "params": {"record": "0x" + record.hex()}}).encode()
    for parts in ((post(order) + b"@@@@\r\n\r\n",), (post(order), b"@@@@\r\n\r\n")):
        answer = spoken(exchange, *parts)
        assert statuses(answer) == [200, 400]
        assert b'"id":5' in answer.partition(b"HTTP/1.1 400")[0]


def test_order__in_a_request_that_is_answered_400__was_not_placed(exchange):
    record = signed(Kind.PLACE, KEYS[MAKER], **(PLACE | {"nonce": 9}))
    order = json.dumps({"id": 5, "method": "submit", "params": {"record": "0x" + record.hex()}}).encode()
    before = exchange.state_root()
    for broken in (
        CHUNKED + b"%x\r\n" % len(order) + order + b"\r\nnonsense\r\n\r\n",
        post(order, b"Transfer-Encoding: chunked"),
        post(order).replace(b"Host: x", b"Host : x"),
    ):
        assert statuses(spoken(exchange, broken)) == [400]
    assert exchange.state_root() == before


def test_request__that_does_not_end__is_given_up(monkeypatch):
    monkeypatch.setattr(http_peer, "REQUEST_S", 0.2)
    with Exchange() as running:
        assert statuses(spoken(running, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le")) == [408]
        assert statuses(spoken(running, post(STATUS)[:-3])) == [408]


# --- WebSocket ----------------------------------------------------------------------------------


class Raw:
    """A WebSocket client by hand."""

    def __init__(self, exchange, *headers, before=b"", host=b"Host: x"):
        self.key = base64.b64encode(os.urandom(16))
        self.socket = socket.create_connection(("127.0.0.1", exchange.port), PATIENCE_S)
        self.socket.settimeout(PATIENCE_S)
        headers = headers or (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
        lines = [b"GET /ws HTTP/1.1", host, *headers, b"Sec-WebSocket-Key: " + self.key]
        self.socket.sendall(before + b"\r\n".join(lines) + b"\r\n\r\n")
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def head(self):
        while b"\r\n\r\n" not in self.data:
            self.more()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        return head

    def more(self):
        data = self.socket.recv(65_536)
        assert data, "closed"
        self.data += data

    def send(self, first, payload, masked=True):
        mask = os.urandom(4) if masked else b""
        size = len(payload)
        head = bytes((first, (0x80 if masked else 0) | (min(126, size))))
        if size >= 126:
            head += struct.pack(">H", size)
        if masked:
            payload = bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
        self.socket.sendall(head + mask + payload)

    def frame(self):
        """(first byte, payload) of the next frame."""
        while len(self.data) < 2:
            self.more()
        size, start = self.data[1], 2
        if size == 126:
            while len(self.data) < 4:
                self.more()
            size, start = struct.unpack(">H", self.data[2:4])[0], 4
        while len(self.data) < start + size:
            self.more()
        first, payload = self.data[0], self.data[start : start + size]
        self.data = self.data[start + size :]
        return first, payload

    def accepted(self):
        """Whether the handshake was answered as RFC 6455 says."""
        head = self.head()
        digest = hashlib.sha1(self.key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        return head.startswith(b"HTTP/1.1 101 ") and base64.b64encode(digest) in head


FIREFOX = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    b"Accept: */*",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Sec-WebSocket-Version: 13",
    b"Origin: https://x",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Connection: keep-alive, Upgrade",
    b"Pragma: no-cache",
    b"Upgrade: websocket",
)


@pytest.mark.parametrize(
    "headers",
    [
        FIREFOX,
        (b"connection: UPGRADE", b"UPGRADE: WebSocket", b"sec-websocket-version: 13"),
        (
            b"Connection: keep-alive",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version:13",
        ),
        (b"Connection: Upgrade", b"Upgrade: h2c, websocket", b"Sec-WebSocket-Version: 13"),
        (b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Content-Length: 0"),
    ],
    ids=["Firefox", "case", "two Connections", "h2c too", "two Upgrades", "no body"],
)
def test_handshake__as_clients_may_write_it__is_accepted(exchange, headers):
    with Raw(exchange, *headers) as ws:
        assert ws.accepted()
        ws.send(0x81, STATUS)
        assert b'"result"' in ws.frame()[1]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 8"), b"426"),
        (
            (
                b"Connection: Upgrade",
                b"Upgrade: websocket",
                b"Sec-WebSocket-Version: 13",
                b"Content-Length: 5",
            ),
            b"400",
        ),
        ((b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Host: y"), b"400"),
        ((b"Connection: keep-alive", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"), b"426"),
    ],
)
def test_handshake__that_is_none__is_refused(exchange, headers, expected):
    with Raw(exchange, *headers) as ws:
        head = ws.head()
        assert head.startswith(b"HTTP/1.1 " + expected)
        assert expected != b"426" or b"Upgrade: websocket" in head


def test_handshake__after_other_requests_of_the_connection__is_accepted(exchange):
    with Raw(exchange, before=post(STATUS) + post(STATUS)) as ws:
        heads = [ws.head() for _ in range(1)]
        assert heads[0].startswith(b"HTTP/1.1 200")
        while b"HTTP/1.1 101" not in ws.data:
            ws.more()
        ws.data = ws.data[ws.data.index(b"HTTP/1.1 101") :]
        assert ws.accepted()
        ws.send(0x81, STATUS)
        assert b'"result"' in ws.frame()[1]


def test_pings_between_fragments__are_answered_and_the_message_is_whole(exchange):
    with Raw(exchange) as ws:
        assert ws.accepted()
        ws.send(0x01, STATUS[:5])
        ws.send(0x89, b"are you there")
        ws.send(0x00, b"")
        ws.send(0x8A, b"nobody asked")
        ws.send(0x80, STATUS[5:])
        assert ws.frame() == (0x8A, b"are you there")
        assert b'"result"' in ws.frame()[1]


@pytest.mark.parametrize(
    "payload", [b"", struct.pack(">H", 1000), struct.pack(">H", 4321) + b"my own reason"]
)
def test_close__is_answered_by_the_same_code(exchange, payload):
    with Raw(exchange) as ws:
        assert ws.accepted()
        ws.send(0x88, payload)
        first, answer = ws.frame()
        assert (first, answer[:2]) == (0x88, payload[:2] or struct.pack(">H", 1000))
        assert ws.socket.recv(10) == b""


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(0x81, STATUS, False)], 1002),
        ([(0xC1, STATUS, True)], 1002),
        ([(0x83, b"x", True)], 1002),
        ([(0x8B, b"x", True)], 1002),
        ([(0x09, b"x", True)], 1002),
        ([(0x89, b"x" * 126, True)], 1002),
        ([(0x80, b"x", True)], 1002),
        ([(0x01, b"x", True), (0x81, b"y", True)], 1002),
        ([(0x81, b'{"id":"\xff"}', True)], 1007),
        ([(0x01, b'"\xe2\x82', True), (0x80, b'"', True)], 1007),
        ([(0x88, b"\x03", True)], 1002),
        ([(0x88, struct.pack(">H", 1005), True)], 1002),
        ([(0x88, struct.pack(">H", 1000) + b"\xff", True)], 1007),
        ([(0x01, b"x" * 60_000, True), (0x80, b"x" * 6_000, True)], 1009),
    ],
)
def test_frame__that_breaks_rfc_6455__ends_the_connection_with_its_code(exchange, frames, code):
    with Raw(exchange) as ws:
        assert ws.accepted()
        for first, payload, masked in frames:
            ws.send(first, payload, masked)
        opcode, payload = ws.frame()
        assert (opcode, struct.unpack(">H", payload[:2])[0]) == (0x88, code)


# --- real clients -------------------------------------------------------------------------------


def test_aiohttp_and_websockets__speak_with_it(exchange):
    async def scenario():
        async with aiohttp.ClientSession() as session:
            async with session.post(exchange.url, json=json.loads(STATUS)) as answer:
                assert "result" in await answer.json(content_type=None)
            async with session.post(exchange.url, data=_pieces(), expect100=True) as answer:
                assert "result" in await answer.json(content_type=None)
            async with session.options(exchange.url) as answer:
                assert answer.status == 204
            async with session.ws_connect(exchange.ws_url, compress=15) as ws:
                await ws.send_str(STATUS.decode())
                assert "result" in await ws.receive_json(timeout=PATIENCE_S)
                await ws.ping()
        async with websockets.connect(exchange.ws_url) as ws:
            await ws.send([STATUS[:9].decode(), STATUS[9:].decode()])
            assert "result" in json.loads(await ws.recv())
            await (await ws.ping())

    async def _pieces():
        yield STATUS[:7]
        yield STATUS[7:]

    asyncio.run(scenario())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--http2"],
        ["--http1.0"],
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Expect: 100-continue"],
        ["-H", "Connection: keep-alive, Upgrade", "-H", "Upgrade: h2c"],
    ],
    ids=["h2c offered", "1.0", "chunked", "expect", "upgrade"],
)
def test_curl__speaks_with_it(exchange, arguments):
    command = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        *arguments,
        "-d",
        STATUS.decode(),
        exchange.url,
        exchange.url,
    ]
    out = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True)
    assert out.stdout.count(b'"result"') == 2, out


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_node__by_fetch_and_websocket__speaks_with_it(exchange):
    script = """
    const [url, ws] = process.argv.slice(1);
    const ask = JSON.stringify({id: 1, method: "status"});
    const first = await (await fetch(url, {method: "POST", body: ask})).json();
    const health = await (await fetch(url + "/health")).json();
    let second = {result: "this node has no WebSocket"};
    if (typeof WebSocket !== "undefined") second = await new Promise((resolve, reject) => {
        const socket = new WebSocket(ws);
        socket.onopen = () => socket.send(ask);
        socket.onmessage = (event) => { socket.close(); resolve(JSON.parse(event.data)); };
        socket.onerror = () => reject(new Error("WebSocket"));
    });
    console.log(JSON.stringify({ok: Boolean(first.result && second.result && health.ready)}));
    """
    out = subprocess.run(
        ["node", "--input-type=module", "-e", script, exchange.url, exchange.ws_url],
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert json.loads(out.stdout) == {"ok": True}


# --- addresses ----------------------------------------------------------------------------------


def test_connections_of_one_address__beyond_its_limit__are_told_so_and_others_come_in():
    limits = Limits(connections_per_address=5, trusted_proxies=frozenset({"127.0.0.2"}))
    with Exchange(limits=limits) as running:
        held = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(5)]
        for one in held:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in one.recv(1_000)
        assert statuses(spoken(running, LAST)) == [503]
        with socket.create_connection(
            ("127.0.0.1", running.port), PATIENCE_S, source_address=("127.0.0.3", 0)
        ) as other:
            other.sendall(LAST)
            assert b"200 OK" in other.recv(1_000)
        held[0].close()
        running.until(lambda: running.gateway.connections == 4, "one to be gone")
        assert statuses(spoken(running, LAST)) == [200]
        for one in held:
            one.close()


def test_trusted_proxy__brings_clients_who_count_by_themselves():
    limits = Limits(connections_per_address=2, trusted_proxies=frozenset({"127.0.0.1"}))
    with Exchange(limits=limits) as running:

        def forwarded(client):
            one = socket.create_connection(("127.0.0.1", running.port), PATIENCE_S)
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9, %b\r\n\r\n" % client)
            return one, int(one.recv(1_000)[9:12])

        held = [
            forwarded(b"10.0.0.1"),
            forwarded(b"10.0.0.1"),
            forwarded(b"10.0.0.1"),
            forwarded(b"10.0.0.2"),
        ]
        assert [status for _, status in held] == [200, 200, 503, 200]
        for one, _ in held:
            one.close()
