"""Signers are recovered on threads: what is sent keeps its order, what is lost is told, and each record is answered."""

import asyncio
import threading

from sequencer.api import ipc
from sequencer.api.recovery import Recovery
from sequencer.keyring import KeyRing
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.signers import signers

DOMAIN = bytes(range(32))
KEYS = [bytes([number]) * 32 for number in range(1, 9)]
OWNERS = [address_of(public_key_of(key)) for key in KEYS]


def record(number: int) -> bytes:
    raw = codec.encode(Kind.TRANSFER, account=1, to=2, amount=1, nonce=number, expires=0)
    return codec.sign(raw, DOMAIN, KEYS[number % len(KEYS)])


RECORDS = [record(number) for number in range(300)]
UNSIGNED = RECORDS[0][:-64] + bytes(64)


class Outside:
    """What a `Recovery` sends, refuses and loses, in order."""

    def __init__(self, threads: int = 3) -> None:
        self.messages: list[ipc.Message] = []
        self.refused: list[int] = []
        self.lost: list[int] = []
        self.is_connected = True
        self.recovery = Recovery(
            self.send, lambda rid, _raw: self.refused.append(rid), self.lost.append, threads
        )
        self.recovery.domain = DOMAIN

    def send(self, message: ipc.Message) -> bool:
        if self.is_connected:
            self.messages.append(message)
        return self.is_connected

    @property
    def sent(self) -> list[int]:
        """Request ids, those of queries negative."""
        out: list[int] = []
        for message in self.messages:
            if isinstance(message, ipc.Submit):
                out += [rid for rid, *_ in message.items]
            else:
                assert isinstance(message, ipc.Query)
                out.append(-message.rid)
        return out

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.sent) + len(self.refused) + len(self.lost) < count:  # noqa: ASYNC110  # counted, not told
                await asyncio.sleep(0.001)


def run(body) -> Outside:
    async def main() -> Outside:
        outside = Outside()
        try:
            await body(outside)
        finally:
            outside.recovery.close()
        return outside

    return asyncio.run(main())


def test_records_and_queries__leave_in_the_order_in_which_they_came():
    async def body(outside: Outside) -> None:
        for number, raw in enumerate(RECORDS):
            outside.recovery.submit(number, raw, f"l{number}")
            if number % 7 == 3:
                outside.recovery.query(ipc.Query(1_000 + number, "status", {}))
            if number % 50 == 49:
                await asyncio.sleep(0)
        await outside.until(len(RECORDS) + len(range(3, 300, 7)))

    outside = run(body)
    wanted: list[int] = []
    for number in range(300):
        wanted += [number, -1_000 - number] if number % 7 == 3 else [number]
    assert outside.sent == wanted
    items = [item for one in outside.messages if isinstance(one, ipc.Submit) for item in one.items]
    assert items == [(n, RECORDS[n], OWNERS[n % len(KEYS)], f"l{n}") for n in range(300)]


def test_one_record__goes_at_once_without_a_thread():
    async def body(outside: Outside) -> None:
        outside.recovery.submit(1, RECORDS[1], "")
        await asyncio.sleep(0)
        assert outside.sent == [1]
        assert not outside.recovery._threads

    run(body)


def test_record_that_nobody_signed__is_refused_and_the_others_go():
    async def body(outside: Outside) -> None:
        for number in range(100):
            outside.recovery.submit(number, UNSIGNED if number in (0, 50, 99) else RECORDS[number], "")
        await outside.until(100)

    outside = run(body)
    assert outside.refused == [0, 50, 99]
    assert outside.sent == [n for n in range(100) if n not in (0, 50, 99)]


def test_connection_that_is_lost__loses_what_is_under_way_and_sends_nothing_of_it_later():
    async def body(outside: Outside) -> None:
        for number in range(200):
            outside.recovery.submit(number, RECORDS[number], "")
        await asyncio.sleep(0)  # it is with the threads
        outside.recovery.submit(200, RECORDS[200], "")  # this one is not
        outside.recovery.clear()
        assert sorted(outside.lost) == list(range(201))
        outside.recovery.submit(201, RECORDS[201], "")  # on the next connection
        await outside.until(202)
        await asyncio.sleep(0.05)

    outside = run(body)
    assert outside.sent == [201]
    assert len(outside.lost) == 201


def test_no_connection__every_record_is_told_so():
    async def body(outside: Outside) -> None:
        outside.is_connected = False
        for number in range(100):
            outside.recovery.submit(number, RECORDS[number], "")
        await outside.until(100)

    outside = run(body)
    assert (outside.sent, outside.lost) == ([], list(range(100)))


def test_recovery_that_fails__is_told_and_nothing_waits_behind_it(monkeypatch, caplog):
    async def body(outside: Outside) -> None:
        def fails(self: KeyRing, raws: list[bytes], domain: bytes, hints: list[bytes]) -> list[bytes | None]:
            raise MemoryError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(KeyRing, "signers", fails)
            for number in range(100):
                outside.recovery.submit(number, RECORDS[number], "")
            await outside.until(100)
        outside.recovery.submit(100, RECORDS[100], "")
        await outside.until(101)

    outside = run(body)
    assert sorted(outside.lost) == list(range(100))
    assert outside.sent == [100]
    assert "no room" in caplog.text


def test_batches__grow_while_the_threads_are_busy(monkeypatch):
    may_go = threading.Event()

    def waits(self: KeyRing, raws: list[bytes], domain: bytes, hints: list[bytes]) -> list[bytes | None]:
        assert may_go.wait(20)
        return signers(raws, domain)

    async def main() -> Outside:
        outside = Outside(threads=1)
        for number in range(0, 300, 10):  # ten a turn
            for one in range(number, number + 10):
                outside.recovery.submit(one, RECORDS[one], "")
            await asyncio.sleep(0)
        may_go.set()
        await outside.until(300)
        outside.recovery.close()
        return outside

    monkeypatch.setattr(KeyRing, "signers", waits)
    outside = asyncio.run(main())
    assert outside.sent == list(range(300))
    # Two batches for the thread to go on with; all that came while it had them left as one.
    assert [len(one.items) for one in outside.messages if isinstance(one, ipc.Submit)] == [10, 10, 280]
