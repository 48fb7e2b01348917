"""The service and a log that refuses now and then: code 1102, nothing of it kept, and it goes on."""

import asyncio
import itertools
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from sequencer.api.ipc import connect
from sequencer.clock import ManualClock
from sequencer.engine.snapshots import recover
from sequencer.errors import Code
from sequencer.l1.follower import InboxMessage
from sequencer.local.bench import key_of, owner_of
from sequencer.log.interface import Entry, LogError, LogLost
from sequencer.log.sqlite import SqliteLog
from sequencer.node import service as service_module
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from tests.history.compare import assert_is_of_log
from tests.simulation.desk import until
from tests.simulation.little import PARAMS, Little, deposit, genesis
from tests.simulation.world import Client, order

CONTRACT = b"\x22" * 20  # of little's domain


class FaultyLog(SqliteLog):
    """Asks `fault(offset)` before each append; waits for `gate` first, so that a tick gets in behind."""

    fault: Any = staticmethod(lambda _offset: None)
    gate: threading.Event
    tried = 0

    def append(self, entry: Entry, expected_offset: int) -> bytes:
        type(self).tried += 1
        assert self.gate.wait(60)
        error = self.fault(expected_offset)
        if error is not None:
            raise error
        return super().append(entry, expected_offset)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[FaultyLog]:
    class Own(FaultyLog):
        gate = threading.Event()

    Own.gate.set()
    monkeypatch.setattr(service_module, "SqliteLog", Own)
    return Own


def start(folder: Path, batch_interval_s: float = 0.05) -> Service:
    """A service on a folder that holds the little exchange already."""
    if not (folder / "log.sqlite").exists():
        log = SqliteLog(folder / "log.sqlite")
        for entry in Little().entries:
            log.append(entry, log.end)
        log.close()
    config = ServiceConfig(
        folder, PARAMS, chain_id=31_337, verifying_contract=CONTRACT, batch_interval_s=batch_interval_s
    )
    return Service(config, ManualClock(0))


async def client_of(service: Service, path: str) -> Client:
    await service.start(path)
    client = Client()
    client.connection = await connect(path, client.on_message, client.on_lost)
    return client


def make_orders(service: Service, count: int) -> list[tuple[bytes, bytes]]:
    instrument = min(service.state.instruments.values())
    return [
        order(service.domain, number % 4, number % 4 + 1, number // 4, instrument, number)
        for number in range(count)
    ]


def assert_history(folder: Path, service: Service) -> None:
    """It holds what the log does, and the ledger that was taken back stands where the state does."""
    log = SqliteLog(folder / "log.sqlite")
    assert_is_of_log(folder, log, genesis())
    log.close()
    ledger = service.history.ledger
    for number, account in service.state.accounts.items():
        held = {one: basis.lots for one, basis in ledger.positions.get(number, {}).items()}
        assert held == dict(account.positions)
        assert ledger.total(number).cash == account.cash


def logged(folder: Path) -> tuple[list[bytes], bytes]:
    """(records, root) of the log, by a replay of its own."""
    log = SqliteLog(folder / "log.sqlite")
    state, _ = recover(folder / "none", log, genesis())
    raws = [raw for entry in log.read(0) for raw in entry.raws()]
    log.close()
    return raws, state.root()


def test_log_error__refuses_its_tick_and_the_one_behind_it_with_1102(
    tmp_path: Path, faulty: type[FaultyLog]
) -> None:
    async def play() -> None:
        service = start(tmp_path, 60.0)  # a batch between the two would wait for the first
        client = await client_of(service, str(tmp_path / "s"))
        first, second, third, fourth = make_orders(service, 4)
        client.submit([first])
        assert (await client.answer())[1]
        fail_at = service.log.end
        faulty.fault = staticmethod(lambda at: LogError("disk is full") if at == fail_at else None)
        root, seq, tried = service.state.root(), service.state.globals.seq, faulty.tried
        faulty.gate.clear()
        client.submit([second])
        await until(lambda: faulty.tried > tried, "the append")
        client.submit([third])  # applied while the append of `second` is on its way
        await until(lambda: service.state.globals.seq >= seq + 4, "both orders and their TICKs to be applied")
        faulty.gate.set()
        for expected in (second, third):
            raw, ok, body = await client.answer()
            assert (raw, ok, body["code"]) == (expected[0], False, Code.NOT_READY)
            assert "disk is full" in body["message"]
        assert service.state.root() == root
        assert service.driver.metrics.log_errors == 1

        faulty.fault = staticmethod(lambda _at: None)
        client.submit([second, third, fourth])
        assert [(await client.answer())[1] for _ in range(3)] == [True] * 3
        await service.stop()
        raws, at_end = logged(tmp_path)
        assert [raws.count(one[0]) for one in (first, second, third, fourth)] == [1] * 4
        assert at_end == service.state.root()
        assert_history(tmp_path, service)

    asyncio.run(play())


@pytest.mark.parametrize("seed", range(4))
def test_log_that_fails_at_random__acknowledges_what_it_holds_and_nothing_else(
    tmp_path: Path, faulty: type[FaultyLog], seed: int
) -> None:
    dice = random.Random(seed)

    async def play() -> None:
        service = start(tmp_path)
        service_module.asyncio.sleep = _short_sleep  # type: ignore[attr-defined]
        client = await client_of(service, str(tmp_path / "s"))
        appends = itertools.count()  # the second always fails: a slow machine may need few ticks for it all
        faulty.fault = staticmethod(
            lambda _at: LogError("no room") if next(appends) == 1 or dice.random() < 0.3 else None
        )
        open_ = make_orders(service, 120)
        acked: dict[int, bytes] = {}
        signers = dict(open_)
        waiting = list(open_)
        while waiting or client.waiting or client.answers:
            if waiting:
                client.submit([waiting.pop(0) for _ in range(min(len(waiting), dice.randint(1, 9)))])
            await asyncio.sleep(0.002)
            while client.answers:
                raw, ok, body = client.answers.popleft()
                if ok:
                    assert body["seq"] not in acked
                    acked[body["seq"]] = raw
                else:
                    assert body["code"] == Code.NOT_READY, body
                    waiting.append((raw, signers[raw]))
        assert service.driver.metrics.log_errors > 0
        await service.stop()
        raws, root = logged(tmp_path)
        assert len(acked) == 120
        assert all(raws[seq] == raw for seq, raw in acked.items())
        assert all(raws.count(raw) == 1 for raw in signers)
        assert root == service.state.root()
        assert_history(tmp_path, service)

    real_sleep = asyncio.sleep

    async def _short_sleep(delay: float, result: object = None) -> object:
        return await real_sleep(min(delay, 0.01), result)

    try:
        asyncio.run(play())
    finally:
        service_module.asyncio.sleep = real_sleep  # type: ignore[attr-defined]


def test_deposit__in_a_tick_that_is_lost__is_brought_again_and_credited_once(
    tmp_path: Path, faulty: type[FaultyLog]
) -> None:
    async def play() -> None:
        service = start(tmp_path)
        await service.start(str(tmp_path / "s"), run=False)
        count, running = service.inbox.position()
        cash = service.state.accounts[1].cash
        records = [deposit(0, amount=10**6 * (number + 1)) for number in range(3)]
        messages = []
        for number, raw in enumerate(records):
            running = codec.inbox_hash(running, raw)
            messages.append(InboxMessage(count + number, raw, running, 1, "0x"))
        faulty.fault = staticmethod(lambda _at: LogError("disk is full"))
        service.inbox.queue(messages[:2])
        await service.driver.tick()
        service.inbox.queue(messages)  # the third has come, and the first two are looked at again
        await service.driver.tick()
        await service.driver.flush()
        assert service.inbox.position() == (count, service.state.globals.inbox_hash)
        assert service.state.accounts[1].cash == cash

        faulty.fault = staticmethod(lambda _at: None)
        for _ in range(3):  # however often the L1 process brings them
            at = service.inbox.position()[0] - count
            service.inbox.queue(messages[at:])
            service.inbox.queue(messages[at:])
            await service.driver.tick()
            await service.driver.flush()
        assert service.inbox.position() == (count + 3, running)
        assert service.state.globals.inbox_hash == running
        assert service.state.accounts[1].cash == cash + 6 * 10**6
        await service.stop()

    asyncio.run(play())


def test_deposit__that_credits_nothing__moves_the_position_and_the_next_one_follows(
    tmp_path: Path, faulty: type[FaultyLog]
) -> None:
    async def play() -> None:
        service = start(tmp_path)
        await service.start(str(tmp_path / "s"), run=False)
        count, running = service.inbox.position()
        for number, raw in enumerate((deposit(0, account=0), deposit(0, amount=10**6))):
            running = codec.inbox_hash(running, raw)
            service.inbox.queue([InboxMessage(count + number, raw, running, 1, "0x")])
            await service.driver.tick()
            await service.driver.flush()
            assert service.inbox.position() == (count + number + 1, running)
            assert service.state.globals.inbox_hash == running
        service.pace.make_batches()
        await service.stop()

    asyncio.run(play())


def test_log_that_is_lost__lets_its_gateways_go_and_says_why(tmp_path: Path, faulty: type[FaultyLog]) -> None:
    async def play() -> None:
        service = start(tmp_path)
        client = await client_of(service, str(tmp_path / "s"))
        faulty.fault = staticmethod(lambda _at: LogLost("another writer has appended"))
        client.submit(make_orders(service, 1))
        await asyncio.wait_for(client.lost.wait(), 60)
        assert not client.answers
        await asyncio.wait_for(service.ended.wait(), 60)
        assert isinstance(service.failure, LogLost)
        await service.stop()

    asyncio.run(play())


def test_listing__lost_with_its_tick__is_wanted_again(tmp_path: Path, faulty: type[FaultyLog]) -> None:
    async def play() -> None:
        service = start(tmp_path)
        terms = (0, 20_009, 4_600_000, False)
        service.keeper.wanted = [terms]
        service.wanted = [terms]
        await service.start(str(tmp_path / "s"), run=False)
        faulty.fault = staticmethod(lambda _at: LogError("disk is full"))
        now = service.state.globals.time
        service.driver.offer_system(service.keeper.pass_one(now))
        await service.driver.tick()
        service.keeper.pass_one(now)  # it looks at a state that holds the listing
        await service.driver.flush()
        assert service.keeper.wanted == [terms]
        faulty.fault = staticmethod(lambda _at: None)
        service.driver.offer_system(service.keeper.pass_one(now))
        await service.driver.tick()
        await service.driver.flush()
        assert any(one >> 32 & 0xFFFF == 20_009 for one in service.state.instruments)
        await service.stop()

    asyncio.run(play())


def test_stop__answers_what_waits_and_refuses_what_comes_later(
    tmp_path: Path, faulty: type[FaultyLog]
) -> None:
    async def play() -> None:
        service = start(tmp_path)
        client = await client_of(service, str(tmp_path / "s"))
        faulty.gate.clear()
        orders = make_orders(service, 12)
        client.submit(orders[:8])
        await until(lambda: service.intake.accepted == 8, "the first eight")
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0)
        client.submit(orders[8:])
        await until(lambda: len(client.answers) == 4, "the refusals")
        faulty.gate.set()
        await stopping
        await asyncio.wait_for(client.lost.wait(), 60)
        answers = {raw: (ok, body) for raw, ok, body in client.answers}
        assert [answers[raw][0] for raw, _ in orders] == [True] * 8 + [False] * 4
        assert {answers[raw][1]["code"] for raw, _ in orders[8:]} == {Code.NOT_READY}
        raws, root = logged(tmp_path)
        assert root == service.state.root()
        assert [raws.count(raw) for raw, _ in orders] == [1] * 8 + [0] * 4

    asyncio.run(play())


def test_record__signed_by_another_key__is_no_order(tmp_path: Path, faulty: type[FaultyLog]) -> None:
    """The gateway vouches for the signer; the account's owner is the engine's to compare."""

    async def play() -> None:
        service = start(tmp_path)
        client = await client_of(service, str(tmp_path / "s"))
        raw = codec.encode(Kind.CANCEL_ALL, account=1, nonce_floor=0, nonce=0, expires=0)
        client.submit([(codec.sign(raw, service.domain, key_of(3)), owner_of(3))])
        _, ok, body = await client.answer()
        assert (ok, body["data"]["reason"]) == (False, "BAD_SIGNATURE")
        await service.stop()

    asyncio.run(play())


async def held(service: Service, client: Client, faulty: type[FaultyLog]) -> tuple[list[bytes], Any]:
    """An order that waits for its append, another that is applied on top, and the maker's orders as asked for then."""
    await client.hear_books()
    orders = make_orders(service, 2)  # both rest
    before = service.state.globals.seq
    tried = faulty.tried
    faulty.gate.clear()
    client.submit(orders[:1])
    await until(lambda: faulty.tried > tried, "the append")
    client.submit(orders[1:])
    await until(lambda: service.state.globals.seq >= before + 4, "the tick on top")
    asked = asyncio.create_task(client.ask("status"))
    await until(lambda: len(service.answers) == 1, "the query")
    assert (await asyncio.to_thread(sorted, [2, 1])) == [1, 2]  # turns of the loop
    assert not asked.done()
    assert not client.events
    return [raw for raw, _ in orders], asked


def test_query__of_what_is_not_durable_yet__is_answered_once_it_is(
    tmp_path: Path, faulty: type[FaultyLog]
) -> None:
    async def play() -> None:
        service = start(tmp_path, 60.0)
        client = await client_of(service, str(tmp_path / "s"))
        _, asked = await held(service, client, faulty)
        root = service.state.root()
        faulty.gate.set()
        status = await asked
        assert status["root"] == "0x" + root.hex()
        end = SqliteLog(tmp_path / "log.sqlite")
        assert next(iter(end.read(end.end - 1))).root == root  # and it was in the log before it was said
        end.close()
        books = [
            (body["seq"], len(body["bids"]), len(body["asks"]))
            for name, body in client.events
            if "book." in name
        ]
        assert books == [(status["seq"] - 2, 1, 0), (status["seq"], 1, 1)]  # each as its own tick left it
        assert not len(service.answers)
        assert service.answers.held_bytes == 0
        await service.stop()

    asyncio.run(play())


def test_query__of_what_never_became_durable__is_answered_by_what_is(
    tmp_path: Path, faulty: type[FaultyLog]
) -> None:
    async def play() -> None:
        service = start(tmp_path, 60.0)
        client = await client_of(service, str(tmp_path / "s"))
        before = await client.ask("status")
        _, asked = await held(service, client, faulty)
        faulty.fault = staticmethod(lambda _at: LogError("disk is full"))
        faulty.gate.set()
        status = await asked
        assert (status["seq"], status["root"], status["orders"]) == (before["seq"], before["root"], 0)
        assert not client.events
        await service.stop()

    asyncio.run(play())


def test_trade__of_a_tick_that_is_lost__was_never_made(tmp_path: Path, faulty: type[FaultyLog]) -> None:
    async def play() -> None:
        service = start(tmp_path, 60.0)
        client = await client_of(service, str(tmp_path / "s"))
        orders = make_orders(service, 8)
        client.submit(orders[:2])
        assert [(await client.answer())[1] for _ in range(2)] == [True] * 2
        faulty.fault = staticmethod(lambda _at: LogError("disk is full"))
        client.submit(orders[2:3])  # crosses
        assert not (await client.answer())[1]
        assert await client.ask("trades") == []
        faulty.fault = staticmethod(lambda _at: None)
        client.submit(orders[2:3])
        assert (await client.answer())[1]
        assert len(await client.ask("trades")) == 1
        await service.stop()

    asyncio.run(play())
