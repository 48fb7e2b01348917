"""A signed record that comes again has its first answer, byte for byte, whatever became of the process meanwhile."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from sequencer.api import ipc
from sequencer.clock import ManualClock
from sequencer.engine.snapshots import Snapshot, framed, unframed
from sequencer.errors import REFUSAL_BASE
from sequencer.node import service as service_module
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.queue import repeats
from sequencer.sdk.receipts import check_ack
from sequencer.wire.receipts import in_json, without_receipt
from tests.exchange_fixture import (
    CHAIN_ID,
    CONTRACT,
    DOMAIN,
    INSTRUMENT,
    KEYS,
    MAKER,
    NOW,
    OWNERS,
    PARAMS,
    TAKER,
    WATCHED,
    genesis_records,
)
from tests.simulation.desk import until
from tests.simulation.kill import nonce_of

RECEIPT_KEY, OTHER_KEY = b"\x31" * 32, b"\x32" * 32
IOC, FOK = c.TIF_IOC << c.FLAG_TIF_SHIFT, c.TIF_FOK << c.FLAG_TIF_SHIFT
SPENT = (Reason.NONCE_USED, Reason.NONCE_WINDOW)
Sent = tuple[bytes, bytes, str]  # record, signer, label


class Peer:
    """A gateway's place that keeps every answer as it came."""

    def __init__(self) -> None:
        self.connection: ipc.Connection
        self.answers: dict[int, tuple[bool, bytes]] = {}
        self._rid = 0

    def _on_message(self, _connection: ipc.Connection, message: ipc.Message) -> None:
        if isinstance(message, ipc.Acks):
            self.answers.update((rid, (ok, body)) for rid, ok, body in message.items)
        elif isinstance(message, ipc.Answer):
            self.answers[message.rid] = message.ok, message.body

    async def connect(self, path: str) -> None:
        self.connection = await ipc.connect(path, self._on_message)

    async def _answered(self, rids: list[int]) -> list[tuple[bool, bytes]]:
        await until(lambda: all(rid in self.answers for rid in rids), "answers")
        return [self.answers.pop(rid) for rid in rids]

    async def submit(self, items: list[Sent], step: Callable[[], Any]) -> list[tuple[bool, bytes]]:
        rids = list(range(self._rid + 1, self._rid + 1 + len(items)))
        self._rid += len(items)
        self.connection.send(ipc.Submit([(rid, *one) for rid, one in zip(rids, items, strict=True)]))
        ask = self._rid = self._rid + 1
        self.connection.send(ipc.Query(ask, "status", {}))  # comes back when the records have come
        await self._answered([ask])
        await step()
        return await self._answered(rids)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._rid += 1
        self.connection.send(ipc.Query(self._rid, method, params))
        ((ok, body),) = await self._answered([self._rid])
        assert ok, body
        answer: dict[str, Any] = json.loads(body)
        return answer


class Day:
    """An exchange that is stepped, and all that was answered on it."""

    def __init__(self, folder: Path, receipt_key: bytes | None = RECEIPT_KEY) -> None:
        self.home = folder
        self.folder = folder / "life-0"
        self.lives = 0
        self.receipt_key = receipt_key
        self.now = NOW
        self.nonces = dict.fromkeys(KEYS, 0)
        self.first: dict[Sent, tuple[int, bytes]] = {}  # number and answer
        self.service: Service
        self.peer: Peer

    async def begin(self) -> None:
        config = ServiceConfig(
            self.folder,
            PARAMS,
            verifying_contract=bytes.fromhex(CONTRACT[2:]),
            chain_id=CHAIN_ID,
            snapshot_ticks=1_000_000,
            batch_interval_s=3_600.0,
            receipt_key=self.receipt_key,
        )
        self.service = Service(config, ManualClock(self.now))
        if not self.service.state.accounts:
            self.service.driver.offer_system(genesis_records())
        socket = str(self.home / f"{self.lives}.sock")
        await self.service.start(socket, run=False)
        self.peer = Peer()
        await self.peer.connect(socket)
        await self.step()

    async def step(self) -> None:
        await self.service.driver.tick()
        await self.service.driver.flush()

    async def end(self) -> None:
        self.peer.connection.close()
        await self.service.stop()

    async def stop_and_start(self) -> None:
        await self.end()
        await self.begin()

    async def die_and_start(self) -> None:
        """What is on the disk at this moment, as after a SIGKILL."""
        self.lives += 1
        folder = self.home / f"life-{self.lives}"
        shutil.copytree(self.folder, folder)
        await self.end()
        self.folder = folder
        await self.begin()

    async def snapshot(self) -> int:
        """Writes one, from which the next start goes on; its offset."""
        service, offset = self.service, self.service.log.end
        before = service.pace.snapshots.written
        service.pace.snapshot()
        await until(lambda: service.pace.snapshots.written > before, "a snapshot")
        await until(lambda: service.vouched.offset == offset, "the check of all signatures")
        service.driver.beat_when(lambda: True)
        await self.step()  # an entry says how far they are checked
        service.driver.beat_when(lambda: False)
        return offset

    # --- records ----------------------------------------------------------------------------------

    def signed(self, kind: Kind, account: int, label: str = "", **fields: Any) -> Sent:
        fields |= {"nonce": self.nonces[account], "expires": fields.get("expires", 0)}
        self.nonces[account] += 1
        raw = codec.encode(kind, account=account, **fields)
        return codec.sign(raw, DOMAIN, KEYS[account]), OWNERS[account], label

    def place(self, account: int, side: int, price: int, lots: int, flags: int = 0, label: str = "") -> Sent:
        fields = {"price": price, "quantity": lots, "flags": flags | side, "fee_max": 65_535}
        return self.signed(Kind.PLACE, account, label, instrument=INSTRUMENT, **fields)

    def amend(self, one: Sent, price: int, new_price: int, lots: int) -> Sent:
        fields = {"instrument": INSTRUMENT, "flags": one[0][9] & ~6, "price": price, "fee_max": 65_535}
        more = {"seq": self.first[one][0], "new_price": new_price, "quantity": lots}
        return self.signed(Kind.AMEND, int.from_bytes(one[0][1:5], "big"), **fields, **more)

    async def tick(self, *items: Sent) -> list[dict[str, Any]]:
        """Sends the records as one tick, a second later; what each is told."""
        self.now += 1
        self.service.clock.set(self.now)  # type: ignore[attr-defined]  # a ManualClock
        out = []
        for one, (ok, body) in zip(items, await self.peer.submit(list(items), self.step), strict=True):
            text, receipt = without_receipt(body)
            assert ok, text
            assert bool(receipt) == (self.receipt_key is not None)
            ack = json.loads(text)
            self.first[one] = ack["seq"], body
            out.append(ack)
        return out

    async def again(self) -> list[bytes]:
        """Every record so far comes again; the answers."""
        end = self.service.log.end
        answers = await self.peer.submit(list(self.first), self.step)
        assert self.service.log.end == end
        assert all(ok for ok, _ in answers), [body for ok, body in answers if not ok]
        return [body for _, body in answers]

    async def compare(self) -> None:
        """Every record so far has its first answer, also when somebody asks what became of it."""
        assert await self.again() == [body for _, body in self.first.values()]
        for (raw, *_), (seq, body) in self.first.items():
            account, nonce = int.from_bytes(raw[1:5], "big"), nonce_of(raw)
            found = await self.peer.ask("outcome", account=account, nonce=nonce)
            assert (found["status"], found["seq"]) == ("applied", seq)
            assert found["ack"] == json.loads(in_json(body))


def all_kinds(day: Day) -> list[Callable[[], Any]]:
    """Ticks, in order, with every shape of acknowledgement."""
    kept: dict[str, Sent] = {}

    async def resting() -> None:
        asks = [day.place(MAKER, c.SELL, 150_000 + 10 * at, 1_000, label=f"ask-{at}") for at in range(9)]
        kept.update((f"ask-{at}", one) for at, one in enumerate(asks))
        told = await day.tick(*asks, day.signed(Kind.WITHDRAW, WATCHED, amount=12_500_000))
        assert [one["order"]["label"] for one in told[:-1]] == [f"ask-{at}" for at in range(9)]

    async def swept() -> None:
        (told,) = await day.tick(day.place(TAKER, c.BUY, 150_030, 3_500, IOC))
        assert (len(told["fills"]), len(told["outcomes"])) == (4, 2)

    async def whole() -> None:
        (told,) = await day.tick(day.place(TAKER, c.BUY, 150_060, 3_300, FOK, "whole"))
        assert (len(told["fills"]), len(told["outcomes"])) == (4, 2)
        assert {one["label"] for one in told["fills"]} == {"whole"}

    async def partly() -> None:
        kept["bid"] = day.place(TAKER, c.BUY, 150_060, 500, label="rests")
        (told,) = await day.tick(kept["bid"])
        assert (len(told["fills"]), told["order"]["filled"], told["order"]["label"]) == (1, "0.0200", "rests")

    async def in_one_tick() -> None:
        """The order is told as the tick leaves it: one of the same tick has filled a part of it."""
        bid, ask = (
            day.place(TAKER, c.BUY, 140_000, 900, c.FLAG_POST_ONLY),
            day.place(WATCHED, c.SELL, 140_000, 600),
        )
        told = await day.tick(bid, ask)
        rested = next(one["order"] for one in told if one["order"] and not one["fills"])
        assert rested["filled"] != "0.0000"

    async def amended() -> None:
        seven, eight = kept["ask-7"], kept["ask-8"]
        kept["moved"] = day.amend(eight, 150_080, 150_200, 800)
        told = await day.tick(day.amend(seven, 150_070, 150_070, 400), kept["moved"])
        assert [one["order"]["label"] for one in told] == ["ask-7", "ask-8"]
        assert told[0]["order"]["seq"] != told[1]["order"]["seq"] == told[1]["seq"]

    async def again_amended() -> None:
        (told,) = await day.tick(day.amend(kept["moved"], 150_200, 150_210, 700))
        assert told["order"]["label"] == "ask-8"

    async def ended() -> None:
        cancel = day.signed(
            Kind.CANCEL,
            MAKER,
            instrument=INSTRUMENT,
            side=c.SELL,
            price=150_070,
            seq=day.first[kept["ask-7"]][0],
        )
        other = day.signed(
            Kind.SET_SIGNER, WATCHED, signer=b"\x44" * 20, scope=1, signer_expires=NOW + 86_400
        )
        await day.tick(cancel, other, day.signed(Kind.TRANSFER, WATCHED, to=TAKER, amount=1_000_000))

    async def all_ended() -> None:
        await day.tick(day.signed(Kind.CANCEL_ALL, MAKER, nonce_floor=0), day.place(WATCHED, c.BUY, 100, 1))

    return [resting, swept, whole, partly, in_one_tick, amended, again_amended, ended, all_ended]


TICKS = 9


@pytest.mark.parametrize("snapshot_after", [None, *range(TICKS)])
def test_repeat__after_a_stop_or_a_crash__has_its_first_answer(
    tmp_path: Path, snapshot_after: int | None
) -> None:
    async def play() -> None:
        day = Day(tmp_path)
        await day.begin()
        offset = 0
        for place, tick in enumerate(all_kinds(day)):
            await tick()
            if place == snapshot_after:
                offset = await day.snapshot()
        await day.compare()
        await day.die_and_start()  # not all of the history's rows were written: they are made again
        await day.compare()
        await day.stop_and_start()  # they are there
        assert day.service.replayed == day.service.log.end - offset
        await day.compare()
        await day.snapshot()
        await day.stop_and_start()
        assert day.service.replayed == 1
        await day.compare()
        await day.die_and_start()
        await day.compare()
        await day.end()

    asyncio.run(play())


def test_repeat__of_a_record_whose_acknowledgement_a_crash_took__has_the_answer_that_it_would_have_had(
    tmp_path: Path,
) -> None:
    """The same records on another exchange, which nobody stops, are answered so."""

    async def play(folder: Path, is_killed: bool) -> list[bytes]:
        day = Day(folder)
        await day.begin()
        bid = day.place(TAKER, c.BUY, 100_000, 700, label="mine")
        first = await day.peer.submit([bid], day.step)
        if is_killed:
            sell = day.place(MAKER, c.SELL, 100_000, 300)
            # In the log, and then it dies.
            service = day.service
            service.driver.on_tick = lambda _tick: None
            service.driver.offer_system([])
            day.peer.connection.send(ipc.Submit([(1_000, *sell)]))
            await day.peer.ask("status")
            await day.step()
            assert 1_000 not in day.peer.answers
            await day.die_and_start()
        else:
            sell = day.place(MAKER, c.SELL, 100_000, 300)
        again = await day.peer.submit([bid, sell], day.step)
        await day.end()
        assert again[0] == first[0]
        return [without_receipt(body)[0] for _, body in again]

    async def both() -> None:
        for name in ("killed", "not"):
            (tmp_path / name).mkdir()
        killed = await play(tmp_path / "killed", True)
        assert killed == await play(tmp_path / "not", False)
        assert json.loads(killed[1])["fills"][0]["quantity"] == "0.0300"

    asyncio.run(both())


def test_repeat__when_the_history_is_made_again__has_its_first_answer(tmp_path: Path) -> None:
    async def play() -> None:
        day = Day(tmp_path)
        await day.begin()
        for place, tick in enumerate(all_kinds(day)):
            await tick()
            if place == 4:
                await day.snapshot()
        await day.end()
        for path in day.folder.glob("history.sqlite*"):
            path.unlink()
        await day.begin()
        await day.compare()
        await day.end()

    asyncio.run(play())


def test_repeat__of_a_trade_whose_row_is_damaged__is_refused_until_the_history_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        day = Day(tmp_path)
        await day.begin()
        await day.snapshot()
        ticks = all_kinds(day)
        for tick in ticks[:2]:
            await tick()
        await day.end()
        with sqlite3.connect(day.folder / "history.sqlite") as db:
            db.execute("UPDATE trades SET cost = cost + 1")
        db.close()
        await day.begin()
        sweep = list(day.first)[-1]
        ((ok, body),) = await day.peer.submit([sweep], day.step)
        assert (ok, json.loads(body)["code"]) in [(False, REFUSAL_BASE + one) for one in SPENT]
        first = day.first.pop(sweep)
        await day.compare()
        await day.stop_and_start()  # the history is made again
        day.first[sweep] = first
        await day.compare()
        await day.end()

    asyncio.run(play())
    assert "is not what was written; the next start makes it again" in caplog.text


@pytest.mark.parametrize("is_in_snapshot", [False, True])
def test_repeat__under_another_receipt_key__is_signed_by_that_and_else_the_same(
    tmp_path: Path, is_in_snapshot: bool
) -> None:
    async def play() -> None:
        day = Day(tmp_path)
        await day.begin()
        for tick in all_kinds(day):
            await tick()
        if is_in_snapshot:
            await day.snapshot()
        await day.end()
        day.receipt_key = OTHER_KEY
        await day.begin()
        keys = frozenset({address_of(public_key_of(OTHER_KEY))})
        answers = await day.again()
        for ((raw, *_), (_, first)), now in zip(day.first.items(), answers, strict=True):
            assert without_receipt(now)[0] == without_receipt(first)[0]
            check_ack(raw, json.loads(in_json(now)), CHAIN_ID, CONTRACT, keys)
        await day.snapshot()  # it holds what was signed now
        await day.stop_and_start()
        assert await day.again() == answers
        await day.end()
        day.receipt_key = None
        await day.begin()
        assert await day.again() == [without_receipt(body)[0] for body in answers]
        await day.end()

    asyncio.run(play())


@pytest.mark.parametrize("changes", [None, {"log_hash": bytes(32)}, {}])
def test_answers__in_a_snapshot__are_bounded_and_only_of_this_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any] | None
) -> None:
    """None: the snapshot is as it was written; {}: it has none, as it was before they were kept there."""
    monkeypatch.setattr(service_module, "TOLD", 3)

    async def play() -> None:
        day = Day(tmp_path)
        await day.begin()
        for tick in all_kinds(day)[:2]:
            await tick()
        await day.snapshot()
        await day.end()
        if changes is not None:
            (path,) = (day.folder / "snapshots").glob("state-*.zst")
            data = zstandard.decompress(unframed(path.read_bytes()))
            content = msgspec.msgpack.decode(data, type=Snapshot)
            assert content.told is not None
            assert len(content.told.answers) == 3
            told = msgspec.structs.replace(content.told, **changes)
            parts = list(msgspec.structs.astuple(content)[:3]) + ([told] if changes else [])
            path.write_bytes(framed(zstandard.compress(msgspec.msgpack.encode(parts))))
        await day.begin()
        assert day.service.replayed == 1
        answers = await day.peer.submit(list(day.first), day.step)
        known = 3 if changes is None else 0
        assert [ok for ok, _ in answers] == [False] * (len(answers) - known) + [True] * known
        assert [body for ok, body in answers if ok] == [body for _, body in day.first.values()][-3:][:known]
        await day.end()

    asyncio.run(play())


def test_start__makes_no_more_answers_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "KEPT", 6)

    async def play() -> None:
        day = Day(tmp_path)
        await day.begin()
        placed = [day.place(MAKER, c.SELL, 200_000 + 10 * at, 10) for at in range(8)]
        for one in placed:
            await day.tick(one)
        await day.stop_and_start()
        answers = await day.peer.submit(placed, day.step)
        assert [ok for ok, _ in answers] == [False] * 5 + [True] * 3  # each has a TICK before it
        assert [body for ok, body in answers if ok] == [body for _, body in list(day.first.values())[5:]]
        await day.end()

    asyncio.run(play())
