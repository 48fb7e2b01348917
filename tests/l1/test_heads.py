"""New heads wake whoever waits for L1; where none are told of, and whatever else is told, looks come by the clock."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web3 import AsyncWeb3
from web3.providers import WebSocketProvider
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from sequencer.clock import ManualClock
from sequencer.genesis import genesis_root
from sequencer.l1 import heads as heads_module
from sequencer.l1 import pyevm_socket
from sequencer.l1.chains import Chain
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.heads import EVENTS_VARIABLE, NO_EVENTS, Heads, events_url
from sequencer.l1.inbox import INBOX
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_params
from sequencer.local.devnet import wait_for as until
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.rollup.l1_messages import L1Config
from tests.simulation import faulty_l1

from .conftest import Exchange

KEY = "v9K2sEcReTkEyOfAProvider"
HEAD = {"number": "0x7", "hash": "0x" + "33" * 32}


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    until_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.01)
    return condition()


class Listening:
    """A Heads that counts."""

    def __init__(self, l1_url: str, url: str | None = None) -> None:
        self.count = 0
        self.heads = Heads(l1_url, self._on_head, url)
        self.heads.start()

    def _on_head(self) -> None:
        self.count += 1


@contextlib.contextmanager
def listening(l1_url: str, url: str | None = None) -> Iterator[Listening]:
    made = Listening(l1_url, url)
    try:
        yield made
    finally:
        made.heads.stop()
        assert made.heads._thread is None or not made.heads._thread.is_alive()


# --- the three chains ---------------------------------------------------------------------------------


def test_head__on_every_chain__wakes_at_once(chain: Chain) -> None:
    with listening(chain.url) as on:
        assert wait_for(lambda: on.heads.is_live), on.heads.problem
        delays = []
        for _ in range(5):
            before = on.count
            chain.mine()
            began_s = time.monotonic()
            assert wait_for(lambda before=before: on.count > before)
            delays.append(time.monotonic() - began_s)
        assert sorted(delays)[2] < 0.25
        assert on.heads.look_s(0.5) == 2.0
        assert on.heads.look_s(30.0) == 30.0
    assert on.heads.look_s(0.5) == 0.5


def test_subscriptions__on_every_chain__tell_headers_and_the_logs_asked_for(exchange: Exchange) -> None:
    chain, at = exchange.chain, exchange.deployment
    message = INBOX.event("Message")

    async def play() -> tuple[list[Any], list[Any]]:
        async with AsyncWeb3(WebSocketProvider(chain.url.replace("http", "ws", 1))) as web3:
            new_heads = await web3.eth.subscribe("newHeads")
            await web3.eth.subscribe("logs", {"address": at.inbox, "topics": [message.topic]})
            deposit = asyncio.create_task(asyncio.to_thread(exchange.trader.deposit, 5_000_000))
            found: dict[bool, list[Any]] = {True: [], False: []}
            async with asyncio.timeout(20):
                async for one in web3.socket.process_subscriptions():
                    found[one["subscription"] == new_heads].append(one["result"])
                    if found[True] and found[False]:
                        break
            await deposit
            await web3.eth.unsubscribe(new_heads)
            return found[True], found[False]

    headers, logs = asyncio.run(play())
    (log,) = logs
    assert log["address"].lower() == at.inbox.lower()
    block = chain.rpc.block(int(log["blockNumber"]))
    assert block is not None
    assert block["hash"] in {"0x" + bytes(one["hash"]).hex() for one in headers}
    header = next(one for one in headers if one["number"] == log["blockNumber"])
    assert header["timestamp"] == int(block["timestamp"], 16)
    assert header["parentHash"].hex() == block["parentHash"].removeprefix("0x")


@pytest.mark.parametrize("events", [None, NO_EVENTS], ids=["by events", "by the clock"])
def test_deposit__is_credited_at_its_head_or_by_the_clock(
    chain: Chain, tmp_path: Path, events: str | None
) -> None:
    """A sequencer that polls every half minute: by the events it knows of the deposit when the block is there."""
    params = devnet_params()
    sequencer = chain.signer(1)
    at = deploy(
        chain.rpc,
        chain.signer(0),
        DeployConfig(genesis_root(params), sequencer.address, 3_600, 3_600, params=params),
    )
    trader = Wallet(chain.rpc, chain.signer(2), at)
    trader.mint(10**9)
    trader.approve(10**9)
    l1 = L1Config(confirmations=1, poll_s=30.0 if events is None else 0.2, events=events)
    config = ServiceConfig(tmp_path / "node", params, deployment=at, l1_url=chain.url, l1=l1)

    async def play() -> None:
        service = Service(config, ManualClock(chain.head_time_s()), sequencer)
        await service.start(str(tmp_path / "socket"))
        worker = service.worker
        assert worker is not None
        try:
            await until(lambda: worker.looks > 1 and worker.hears is (events is None), 20, "L1 to be heard")
            for number in range(3):
                await asyncio.to_thread(trader.deposit, 5_000_000 + number)
                await asyncio.to_thread(chain.mine)
                await until(lambda n=number: service.state.globals.inbox_count > n, 5, "the credit")
        finally:
            await service.stop()

    asyncio.run(play())


# --- bounds of the embedded node ----------------------------------------------------------------------


@pytest.fixture
def embedded(chain: Chain) -> str:
    if chain.name != "pyevm":
        pytest.skip("the bounds of the embedded node")
    return chain.url.replace("http", "ws", 1)


def ask(line: Any, method: str, *params: Any) -> Any:
    line.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    while "id" not in (answer := json.loads(line.recv(timeout=20))):
        pass
    return answer.get("result", answer.get("error"))


def test_node__takes_any_method_and_so_many_subscriptions_and_peers(embedded: str, chain: Chain) -> None:
    with connect(embedded) as line:
        assert ask(line, "eth_chainId") == hex(chain.chain_id)
        assert "newHeads and logs" in ask(line, "eth_subscribe", "newPendingTransactions")["message"]
        assert "newHeads and logs" in ask(line, "eth_subscribe")["message"]
        assert "invalid params" in ask(line, "eth_subscribe", "logs", {"topics": [5]})["message"]
        keys = [ask(line, "eth_subscribe", "newHeads") for _ in range(pyevm_socket.MAX_SUBSCRIPTIONS)]
        assert "at most" in ask(line, "eth_subscribe", "newHeads")["message"]
        assert ask(line, "eth_unsubscribe", keys[0]) is True
        assert "not found" in ask(line, "eth_unsubscribe", keys[0])["message"]
        assert ask(line, "eth_subscribe", "newHeads") not in keys
        with connect(embedded) as other:  # nobody ends another's
            assert "not found" in ask(other, "eth_unsubscribe", keys[1])["message"]
    with contextlib.ExitStack() as stack:
        for _ in range(pyevm_socket.MAX_PEERS):
            assert ask(stack.enter_context(connect(embedded)), "eth_chainId")
        with connect(embedded) as one_more, pytest.raises(ConnectionClosed, match="1013"):
            ask(one_more, "eth_chainId")
    with connect(embedded) as line:
        assert wait_for(lambda: ask(line, "eth_chainId") == hex(chain.chain_id))


def test_node__drops_who_sends_too_much_or_reads_nothing(embedded: str, chain: Chain) -> None:
    too_much = "x" * (pyevm_socket.MESSAGE_BYTES_MAX + 1)
    half = "x" * (pyevm_socket.MESSAGE_BYTES_MAX // 2)
    for message in (too_much, iter([half, half, half])):  # at once, and in parts
        with connect(embedded) as line:
            with contextlib.suppress(ConnectionClosed):
                line.send(message)
            with pytest.raises(ConnectionClosed):
                line.recv(timeout=20)
    host, _, port = embedded.removeprefix("ws://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"101" in sock.recv(100)
        body = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "x" * 1000, "params": []}] * 60).encode()
        frame = b"\x81\xfe" + len(body).to_bytes(2, "big") + bytes(4) + body
        assert len(body) < 65_536
        with pytest.raises(OSError):  # noqa: PT012  # it ends while we go on
            sock.settimeout(20)
            for _ in range(2_000):
                sock.sendall(frame)
    assert chain.rpc.block_number() >= 0


# --- where none come ----------------------------------------------------------------------------------


def test_events__where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    assert events_url("http://127.0.0.1:8545") == "ws://127.0.0.1:8545"
    assert (
        events_url("https://user:word@l1.example.org/v2/key?a=5")
        == "wss://user:word@l1.example.org/v2/key?a=5"
    )
    assert events_url("http://127.0.0.1:8545", NO_EVENTS) is None
    monkeypatch.setenv(EVENTS_VARIABLE, "/run/geth.ipc")
    assert events_url("http://127.0.0.1:8545") == "/run/geth.ipc"
    assert events_url("http://127.0.0.1:8545", "ws://127.0.0.1:8546") == "ws://127.0.0.1:8546"
    monkeypatch.setenv(EVENTS_VARIABLE, NO_EVENTS)
    assert events_url("http://127.0.0.1:8545") is None


def test_node__without_a_websocket__is_looked_at_by_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    with faulty_l1.faulty("http://127.0.0.1:9") as proxy, caplog.at_level(logging.DEBUG):
        url = f"{proxy.url}/v3/{KEY}"
        with listening(url) as on:
            assert wait_for(lambda: bool(on.heads.problem))
            assert not on.heads.is_live
            assert on.heads.look_s(0.5) == 0.5
            assert KEY not in on.heads.problem
    assert KEY not in "".join(one.getMessage() for one in caplog.records if one.name.startswith("sequencer"))
    assert KEY not in "".join(one.getMessage() for one in caplog.records if one.name.startswith("web3"))


Push = Callable[[ServerConnection, str], None]


@contextlib.contextmanager
def pushing(push: Push, lines: list[int] | None = None) -> Iterator[str]:
    """A node that grants every subscription, and then does as `push` says."""

    def handle(line: ServerConnection) -> None:
        if lines is not None:
            lines.append(1)
        with contextlib.suppress(ConnectionClosed, TimeoutError, OSError):
            asked = json.loads(line.recv(timeout=20))
            line.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"}))
            push(line, "0x1")

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


def event(result: Any, key: Any = "0x1") -> str:
    told = {"subscription": key, "result": result}
    return json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": told})


def test_subscription__that_has_gone_deaf__is_noticed_by_the_heads_that_looks_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads_module, "DEAF_S", 0.2)
    speaks = threading.Event()

    def push(line: ServerConnection, _key: str) -> None:
        speaks.wait(20)
        line.send(event(HEAD))
        line.recv(timeout=20)

    with pushing(push) as url, listening("http://127.0.0.1:9", url) as on:
        assert wait_for(lambda: on.heads.is_live), on.heads.problem
        on.heads.saw("0xa")
        on.heads.saw("0xa")
        time.sleep(0.3)
        assert on.heads.is_live  # there was nothing to tell
        on.heads.saw("0xb")
        assert on.heads.is_live  # the event may come in a moment
        time.sleep(0.3)
        assert not on.heads.is_live
        assert on.heads.look_s(0.5) == 0.5
        speaks.set()
        assert wait_for(lambda: on.heads.is_live)


def test_line__that_swallows_bytes__is_noticed(monkeypatch: pytest.MonkeyPatch, chain: Chain) -> None:
    monkeypatch.setattr(heads_module, "PING_S", 0.3)
    swallows = threading.Event()
    host, port = chain.url.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not swallows.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listening(chain.url, f"ws://127.0.0.1:{listener.getsockname()[1]}") as on:
        assert wait_for(lambda: on.heads.is_live), on.heads.problem
        before = on.count
        swallows.set()
        assert wait_for(lambda: not on.heads.is_live, 5.0)
        assert on.count > before  # whoever waits for events is woken, and waits by the clock
        swallows.clear()
        assert wait_for(lambda: on.heads.is_live, 15.0), on.heads.problem
    listener.close()


ODD: dict[str, str | bytes] = {
    "no JSON": "{",
    "bytes": b"\xff\xfe",
    "a number": "7",
    "null": "null",
    "a list": "[]",
    "a list of nulls": "[null]",
    "an answer to nothing": json.dumps({"jsonrpc": "2.0", "id": 99, "result": "0x5"}),
    "an error": json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": f"no {KEY}"}}),
    "an error that is a string": json.dumps({"error": "no"}),
    "a head of null": event(None),
    "a head that is a number": event(5),
    "a head that is a list": event([]),
    "a head of wrong types": event({"number": "x", "hash": [], "timestamp": None}),
    "a head of another subscription": event(HEAD, "0x77"),
    "a subscription of no text": event(HEAD, {"a": []}),
    "params that are a list": json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": []}),
    "nested for ever": "[" * 50_000,
    "too large": "5" * (heads_module.MESSAGE_BYTES_MAX + 1),
}


@pytest.mark.parametrize("odd", ODD, ids=list(ODD))
def test_whatever_a_node_pushes__harms_nothing_and_is_not_asked_for_in_a_rush(odd: str) -> None:
    lines: list[int] = []

    def push(line: ServerConnection, _key: str) -> None:
        line.send(ODD[odd])
        line.send(event(HEAD))
        line.recv(timeout=20)

    with pushing(push, lines) as url, listening("http://127.0.0.1:9", f"{url}/{KEY}") as on:
        assert wait_for(lambda: bool(lines))
        time.sleep(0.6)
        assert on.heads._thread is not None
        assert on.heads._thread.is_alive()
        assert len(lines) <= 2
        assert on.count >= 1
        assert KEY not in on.heads.problem


def test_refused_subscription__is_told_and_tried_again_later() -> None:
    lines: list[int] = []

    def handle(line: ServerConnection) -> None:
        lines.append(1)
        asked = json.loads(line.recv(timeout=20))
        said = {"code": -32601, "message": "notifications not supported"}
        line.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": said}))
        with contextlib.suppress(ConnectionClosed):
            line.recv(timeout=20)

    with serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with listening("http://127.0.0.1:9", f"ws://127.0.0.1:{server.socket.getsockname()[1]}") as on:
            assert wait_for(lambda: "notifications not supported" in on.heads.problem), on.heads.problem
            assert not on.heads.is_live
            assert wait_for(lambda: len(lines) == 2)
        server.shutdown()


def test_heads__by_ipc__wake_too(tmp_path: Path) -> None:
    path = tmp_path / "node.ipc"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def speak() -> None:
        with contextlib.suppress(OSError):
            line, _ = listener.accept()
            with line:
                asked = json.loads(line.recv(65_536))
                line.sendall(
                    json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"}).encode() + b"\n"
                )
                time.sleep(0.2)
                line.sendall(event(HEAD).encode() + b"\n")
                time.sleep(5)

    threading.Thread(target=speak, daemon=True).start()
    with listening("http://127.0.0.1:9", str(path)) as on:
        assert wait_for(lambda: on.heads.is_live), on.heads.problem
        assert wait_for(lambda: on.count == 2)
    listener.close()
