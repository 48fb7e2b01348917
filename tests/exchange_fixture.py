"""A small exchange in a thread, for tests of what stands in front of it: a sequencer and a gateway, on one loop.

`StandIn` is an honest sequencer in memory: the real engine, views and frames, no log and no L1. `RealService` is the
sequencer's own service. Both hold the same genesis: four accounts, one expiry, four options, fresh marks.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest
import uvloop

from sequencer import errors, refusals
from sequencer.api.gateway import Gateway, Limits, serve
from sequencer.api.ipc import Connection
from sequencer.api.ipc_server import IpcServer
from sequencer.engine.engine import Engine, Submission
from sequencer.engine.events import Events
from sequencer.engine.views import QueryError, Views
from sequencer.genesis import genesis_state
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params
from sequencer.queue.intake import Intake
from sequencer.queue.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

CHAIN_ID = 31_337
CONTRACT = "0x" + "5f" * 20
DOMAIN = codec.domain_separator(CHAIN_ID, bytes.fromhex(CONTRACT[2:]))
MAKER, TAKER, POOR, WATCHED = 1, 2, 3, 4
KEYS = {number: bytes([number]) * 32 for number in (MAKER, TAKER, POOR, WATCHED)}
OWNERS = {number: address_of(public_key_of(key)) for number, key in KEYS.items()}
STRANGER = b"\x77" * 32
FEED_KEY = b"\xfe" * 32
DAY = 20_000
NOW = DAY * 86_400 - 6 * 3_600  # fourteen hours before the expiry
NAMES = ("BTC-4OCT24-48000-C", "BTC-4OCT24-48000-P", "BTC-4OCT24-50000-C", "BTC-4OCT24-50000-P")
INSTRUMENT = DAY << 12  # the first row of the first page
PARAMS = Params(feed_keys=(address_of(public_key_of(FEED_KEY)),))
T = TypeVar("T")
PATIENCE_S = 60.0  # what comes, comes sooner; a busy machine takes its time


PLACE = {
    "account": MAKER,
    "instrument": INSTRUMENT,
    "flags": 1,
    "price": 200_000,
    "quantity": 100,
    "nonce": 0,
    "expires": 0,
    "fee_max": 100,
}


def signed(kind: Kind, key: bytes, domain: bytes = DOMAIN, /, **fields: int | bytes) -> bytes:
    """A record of a signed kind."""
    return codec.sign(codec.encode(kind, **fields), domain, key)


def genesis_records(now: int = NOW, day: int = DAY) -> list[bytes]:
    """What makes the empty exchange one to trade on."""
    records = [
        codec.encode(Kind.DEPOSIT, owner=OWNERS[number], account=number, amount=amount)
        for number, amount in ((MAKER, 10**12), (TAKER, 10**12), (POOR, 10 * 10**6), (WATCHED, 10**12))
    ]
    records.append(signed(Kind.FEED, FEED_KEY, underlying=0, feed=0, time=now, price=4_900_000))
    records += [
        codec.encode(Kind.LIST, underlying=0, day=day, put=put, strike=strike)
        for strike in (4_800_000, 5_000_000)
        for put in (0, 1)
    ]
    shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
    report = {"underlying": 0, "feed": 0, "day": day, "time": now, "forward": 4_900_000, "index": 4_900_000}
    records.append(signed(Kind.SURFACE, FEED_KEY, **report, **shape))
    records.append(codec.encode(Kind.RISK, underlying=0, day=day, page=0))
    return records


class StandIn:
    """A sequencer in memory. `silent`: it takes submissions and never answers."""

    def __init__(self, _folder: Path) -> None:
        self.engine = Engine(genesis_state(DOMAIN, PARAMS))
        self.engine.explain = refusals.explain
        self.now = NOW
        tick = self.engine.run(NOW, genesis_records(), [])
        assert [one.reason for one in tick.system] == [Reason.OK] * len(tick.system)
        self.views = Views(self.engine.state, dict)
        self.events = Events(self.views)
        self.intake = Intake()
        self.outcomes = Outcomes()
        self.silent = False
        self.server = IpcServer(self._on_submit, self._on_query)
        self._due = False

    async def start(self, address: str) -> None:
        await self.server.start(address)

    async def stop(self) -> None:
        await self.server.close()
        await asyncio.sleep(0.01)

    def root(self) -> bytes:
        return self.engine.state.root()

    def _on_submit(self, connection: Connection, items: list[tuple[int, bytes, bytes, str]]) -> None:
        if self.silent:
            return
        for rid, raw, signer, label in items:
            if (again := self.outcomes.answer(raw)) is not None:
                connection.send_acks([(rid, True, again[1])])
                continue
            code = self.intake.offer(
                Submission(raw, signer, (connection, rid), time.monotonic_ns(), label=label)
            )
            if code:
                connection.send_acks([(rid, False, errors.error_body(code, "not accepted: busy"))])
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(0.001, self._tick)

    def _tick(self) -> None:
        self._due = False
        tick = self.engine.run(self.now, [], self.intake.take(512))
        self.events.observe(tick.system + tick.results)
        replies: dict[Connection, list[tuple[int, bool, bytes]]] = {}
        for result in tick.results:
            connection, rid = result.submission.reply  # type: ignore[misc]  # set above
            ok = result.reason is Reason.OK
            body = self.events.ack(result, tick.number) if ok else result.why
            if ok:
                self.outcomes.note(result.submission.raw, result.outcomes[0].seq, body)
            replies.setdefault(connection, []).append((rid, ok, body))
        for connection, items in replies.items():
            connection.send_acks(items)
        held = [one for one in tick.results if one.reason is Reason.OK]
        self.server.broadcast(self.events.events(held, self.server.is_heard))
        if len(self.intake):
            self._due = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _on_query(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        if method == "system_info":
            answer: Any = {"chain_id": CHAIN_ID, "verifying_contract": CONTRACT}
        else:
            try:
                answer = self.views.methods[method](params)
            except QueryError as error:
                connection.send_answer(rid, False, error.body())
                return
        connection.send_answer(rid, True, msgspec.json.encode(answer))


class RealService:
    """The sequencer's own service, with its log in `folder`, without L1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service: Any = None

    async def start(self, address: str) -> None:
        from sequencer.clock import ManualClock
        from sequencer.node.service import Service
        from sequencer.node.settings import ServiceConfig

        contract = bytes.fromhex(CONTRACT[2:])
        config = ServiceConfig(self.folder, PARAMS, verifying_contract=contract, chain_id=CHAIN_ID)
        self.service = Service(config, clock=ManualClock(NOW))
        if not self.service.state.accounts:
            self.service.driver.offer_system(genesis_records())
        await self.service.start(address)
        await self.service.driver.tick()
        await self.service.driver.flush()
        assert INSTRUMENT >> 5 in self.service.state.pages

    async def stop(self) -> None:
        await self.service.stop()

    def root(self) -> bytes:
        root: bytes = self.service.state.root()
        return root


class Exchange:
    """A running exchange: `url`, `ws_url`, `state_root()`. Stops and restarts its sequencer on demand."""

    def __init__(self, kind: Callable[[Path], Any] = StandIn, limits: Limits | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fairstrike-"))
        self.address = str(self.folder / "s.sock")
        self._kind = kind
        self._limits = limits
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.sequencer: Any = None
        self.gateway: Gateway
        self._serving: asyncio.Task[None]
        self.port = 0

    def __enter__(self) -> Exchange:
        self._thread.start()
        self.run(self._start())
        self.until(lambda: self.gateway.ready, "the gateway")
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def post(self, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """(HTTP status, decoded answer) of a POST; what is neither text nor bytes goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            raw = body if isinstance(body, str | bytes) else json.dumps(body)
            connection.request("POST", "/", raw, headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def call(self, method: str, /, **params: object) -> Any:
        """The answer to a request."""
        return self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})[1]

    def result(self, method: str, /, **params: object) -> Any:
        """The result of a request that must have one."""
        answer = self.call(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    def submit(self, record: bytes) -> Any:
        """The ack of a record."""
        return self.result("submit", record="0x" + record.hex())

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Returns once `condition()`, asked on the exchange's thread, holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.do(condition):
            assert time.monotonic() < deadline, f"waited for {what}"
            time.sleep(0.005)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the exchange's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * PATIENCE_S)

    def do(self, function: Callable[[], T]) -> T:
        """Calls a function on the exchange's thread."""

        async def call() -> T:
            return function()

        return self.run(call())

    def state_root(self) -> bytes:
        """Root of the state as the sequencer has it now."""
        return self.do(lambda: self.sequencer.root())

    def stop_sequencer(self) -> None:
        self.run(self.sequencer.stop())
        self.until(lambda: not self.gateway.ready, "the gateway to miss it")

    def start_sequencer(self) -> None:
        self.run(self._start_sequencer())

    async def _start_sequencer(self) -> None:
        self.sequencer = self._kind(self.folder / "data")
        await self.sequencer.start(self.address)

    async def _start(self) -> None:
        await self._start_sequencer()
        self.gateway = Gateway(self.address, limits=self._limits)
        bound: asyncio.Future[int] = self._loop.create_future()
        self._serving = self._loop.create_task(serve(self.gateway, "127.0.0.1", 0, bound.set_result))
        self.port = await bound

    async def _stop(self) -> None:
        self._serving.cancel()
        await asyncio.wait([self._serving])
        with contextlib.suppress(Exception):
            await self.sequencer.stop()
        await asyncio.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=[StandIn, RealService], ids=["stand_in", "service"])
def exchange(request: pytest.FixtureRequest) -> Iterator[Exchange]:
    """Before the stand-in, or before the sequencer's own service too."""
    with Exchange(request.param) as running:
        yield running


@pytest.fixture
def stand_in() -> Iterator[Exchange]:
    """Before the stand-in alone."""
    with Exchange() as running:
        yield running
