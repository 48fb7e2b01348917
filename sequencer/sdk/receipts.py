"""What a trader holds in its hand: the receipt of an acknowledged record, checked as it comes, and kept in a file.

A receipt says which place the record has and what it did there, under the sequencer's signature (docs/PROTOCOL.md
section 21). It is checked against the acknowledgement that it came with: what was said must be what was signed.
"""

import os
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.protocol import codec, receipts
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.receipts import Header
from sequencer.wire.jsonrpc import PRICE_DECIMALS, QUANTITY_DECIMALS, RequestError, to_units

Trades = list[tuple[int, int, int]]
CONTINUE: Final = codec.encode(Kind.CONTINUE)
EXECUTED: Final = frozenset({Kind.PLACE, Kind.PLACE_IN_WORDS, Kind.AMEND, Kind.CONTINUE, Kind.FORCED_ORDER})
PENDING_MAX: Final = 65_536  # receipts that L1 is not known to have
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
LEAD_PATIENCE_S: Final = 600.0  # in which a signer must have heard of a roll-back or of another leader
TIME_SLACK_S: Final = 3_600.0  # between a header's time and L1's
FLOORS_KEPT: Final = 16


class ReceiptWrong(Exception):
    """A receipt that does not say what the acknowledgement says, or that nobody's key has signed.

    `ack`: the acknowledgement that it came with, if it came with one: the record was taken all the same.
    """

    def __init__(self, why: str, ack: dict[str, Any] | None = None) -> None:
        super().__init__(why)
        self.ack = ack


class Item(msgspec.Struct, frozen=True):
    """A record and what it did. `paid`: fees, 1e-6 USD; `rests`: lots; `trades`: (lots, ticks, maker's seq) each.

    `paid` None: the record has executed no order.
    """

    record: str
    reason: int = 0
    paid: int | None = None
    rests: int = 0
    trades: list[tuple[int, int, int]] = []

    @property
    def raw(self) -> bytes:
        """The record."""
        return bytes.fromhex(self.record.removeprefix("0x"))

    def outcome(self) -> bytes:
        """Hash of what it did."""
        if self.paid is None:
            return receipts.NO_OUTCOME
        chained = receipts.NO_OUTCOME
        for quantity, price, maker_seq in self.trades:
            chained = receipts.chain_trade(chained, quantity, price, maker_seq)
        return receipts.hash_outcome(self.paid, self.rests, chained)


class Receipt(msgspec.Struct, frozen=True):
    """A receipt as it is kept: of one acknowledgement, which may be of several records (an order and its CONTINUEs).

    `data`: the bytes that came, hex. `chain_id`, `rollup`: under which it is signed.
    """

    chain_id: int
    rollup: str
    data: str
    items: list[Item]

    def domain(self) -> bytes:
        """EIP-712 domain separator."""
        return codec.domain_separator(self.chain_id, bytes.fromhex(self.rollup.removeprefix("0x")))

    def parts(self) -> list[bytes]:
        """The receipt of each record. Raises ReceiptWrong."""
        try:
            parts = receipts.split(bytes.fromhex(self.data.removeprefix("0x")))
        except ValueError as error:
            raise ReceiptWrong(str(error)) from error
        if len(parts) != len(self.items):
            raise ReceiptWrong(f"receipt: of {len(parts)} records, {len(self.items)} are named")
        return parts

    def open(self) -> "Opened":
        """Checks form and signature. Raises ReceiptWrong."""
        found: Header | None = None
        signature = b""
        seqs: list[int] = []
        for part, item in zip(self.parts(), self.items, strict=True):
            try:
                header, signature, seq = receipts.unpack(part, item.raw, item.reason, item.outcome())
            except ValueError as error:
                raise ReceiptWrong(str(error)) from error
            if found is not None and header != found:
                raise ReceiptWrong(f"receipt: record {seq} is not in the tick that record {seqs[0]} is in")
            found = header
            seqs.append(seq)
        assert found is not None  # `split` gives one or more
        signer = found.signer(self.domain(), signature)
        if signer is None:
            raise ReceiptWrong("receipt: nobody has signed it")
        return Opened(self, found, signature, seqs, signer)


@dataclass(frozen=True, slots=True)
class Opened:
    """A receipt whose form is right: header, signature, the records' sequence numbers, and who has signed."""

    receipt: Receipt
    header: Header
    signature: bytes
    seqs: list[int]
    signer: bytes

    @property
    def time_s(self) -> float:
        """When the tick was, by the signer's clock."""
        return self.header.time_ns * 1e-9


def of_ack(record: bytes, ack: dict[str, Any], chain_id: int, rollup: str) -> Receipt:
    """The receipt that came with the acknowledgement of a record. Raises ReceiptWrong when there is none."""
    data = ack.get("receipt")
    if not isinstance(data, str):
        raise ReceiptWrong("the acknowledgement has no receipt")
    raw = b64decode(data)
    items: list[Item] = []
    fills = iter(ack.get("fills") or ())
    outcomes = ack.get("outcomes")
    if outcomes is None:
        items.append(Item("0x" + record.hex()))
    for place, (paid, rests, count) in enumerate(outcomes or ()):
        trades = [_trade(next(fills)) for _ in range(count)]
        items.append(Item("0x" + (record if place == 0 else CONTINUE).hex(), Reason.OK, paid, rests, trades))
    return Receipt(chain_id, rollup.lower(), "0x" + raw.hex(), items)


def check_ack(
    record: bytes, ack: dict[str, Any], chain_id: int, rollup: str, keys: frozenset[bytes]
) -> Opened:
    """Checks that what an acknowledgement says is what one of `keys` (addresses) has signed. Raises ReceiptWrong."""
    opened = of_ack(record, ack, chain_id, rollup).open()
    if opened.signer not in keys:
        known = ", ".join("0x" + key.hex() for key in sorted(keys)) or "none is known"
        raise ReceiptWrong(
            f"receipt: it is not signed by a sequencer's receipt key ({known}), or what the acknowledgement says is "
            f"not what was signed"
        )
    if opened.seqs[0] != ack["seq"] or opened.header.tick != ack["tick"]:
        raise ReceiptWrong(
            f"receipt: of record {opened.seqs[0]} in tick {opened.header.tick}, the acknowledgement says record "
            f"{ack['seq']} in tick {ack['tick']}"
        )
    order, rests = ack.get("order"), opened.receipt.items[-1].rests
    left = to_units(str(order["quantity"]), QUANTITY_DECIMALS) if order else 0
    if Kind(record[0]) in EXECUTED and left > rests:  # less: a later record of the tick has traded with it
        raise ReceiptWrong(f"receipt: {rests} lots rest, the acknowledgement says {left}")
    return opened


def _trade(fill: dict[str, Any]) -> tuple[int, int, int]:
    lots = to_units(str(fill["quantity"]), QUANTITY_DECIMALS)
    return lots, to_units(str(fill["price"]), PRICE_DECIMALS), int(fill["maker_seq"])


class ReceiptFile:
    """Receipts kept on disk, one JSON object a line, appended and flushed: what is in it survives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def add(self, receipt: Receipt) -> None:
        """Keeps one. It is with the operating system when this returns."""
        self._file.write(msgspec.json.encode(receipt) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Makes all durable."""
        os.fsync(self._file.fileno())
        self._file.close()


class ReceiptKeeper:
    """Checks a trader's receipts as they come, keeps them, and knows which of them L1 does not have yet.

    `keep` is called with each that is good (receipt_post.py leaves them with watchers).
    """

    def __init__(
        self,
        chain_id: int,
        rollup: str,
        keys: frozenset[bytes],
        path: Path | None = None,
        keep: Sequence[Callable[[Receipt], None]] = (),
    ) -> None:
        self.keys = keys
        self._signed_under = chain_id, rollup
        self._file = ReceiptFile(path) if path is not None else None
        self._keep = list(keep)
        self._pending: deque[Opened] = deque(maxlen=PENDING_MAX)
        self._lead = (0, 0)  # epoch and roll-backs of the newest receipt
        self._floors: deque[tuple[float, int, int]] = deque(maxlen=FLOORS_KEPT)
        self._l1_time: tuple[int, float] | None = (
            None  # of L1's newest block, and when it was seen, monotonic
        )

    @property
    def expects(self) -> bool:
        """Whether acknowledgements must carry receipts."""
        return bool(self.keys)

    @property
    def waits(self) -> bool:
        """Whether there are receipts that L1 is not known to have."""
        return bool(self._pending)

    def take(self, record: bytes, ack: dict[str, Any]) -> Opened | None:
        """Checks and keeps the receipt of an acknowledgement; None: none is expected. Raises ReceiptWrong.

        One that is signed and stale is kept, too: it may be the proof of something.
        """
        if not self.expects:
            return None
        try:
            opened = check_ack(record, ack, *self._signed_under, self.keys)
        except ReceiptWrong as error:
            raise ReceiptWrong(str(error), ack) from None
        except (LookupError, TypeError, ValueError, StopIteration, RequestError) as error:
            raise ReceiptWrong(
                f"the acknowledgement cannot be compared with a receipt: {error!r}", ack
            ) from None
        if self._file is not None:
            self._file.add(opened.receipt)
        for keep in self._keep:
            keep(opened.receipt)
        self._pending.append(opened)
        if why := self._stale(opened.header):
            raise ReceiptWrong(f"receipt: {why}; it may bind nobody", ack)
        self._lead = max(self._lead, (opened.header.epoch, opened.header.roll_backs))
        return opened

    def saw_l1(self, epoch: int, roll_backs: int, time_s: int) -> None:
        """What L1 says now. A signer has LEAD_PATIENCE_S to hear of a new epoch or roll-back."""
        now = time.monotonic()
        self._l1_time = time_s, now
        if not self._floors or self._floors[-1][1:] != (epoch, roll_backs):
            is_first = not self._floors
            self._floors.append((now if is_first else now + LEAD_PATIENCE_S, epoch, roll_backs))

    def _stale(self, header: Header) -> str:
        """Why a header is not of now; empty: nothing is known against it."""
        now = time.monotonic()
        floors = [(epoch, roll_backs) for since, epoch, roll_backs in self._floors if since <= now]
        for epoch, roll_backs in (self._lead, *floors):
            if header.epoch < epoch or header.roll_backs < roll_backs:
                return (
                    f"signed in epoch {header.epoch} after {header.roll_backs} roll-backs, it is epoch {epoch} after "
                    f"{roll_backs}"
                )
        if self._l1_time is None:
            return ""
        l1_s, seen = self._l1_time
        earliest, latest = l1_s - TIME_SLACK_S, max(l1_s + now - seen, time.time()) + TIME_SLACK_S
        time_s = header.time_ns * 1e-9
        if not earliest <= time_s <= latest:
            return f"of the time {time_s:.0f}, on L1 it is {l1_s}"
        return ""

    def posted(self, tick: int) -> None:
        """L1 has all ticks up to this one."""
        while self._pending and self._pending[0].header.tick <= tick:
            self._pending.popleft()

    def overdue(self, now_s: float, due_s: float) -> list[Opened]:
        """Receipts that L1 does not have although so many seconds have passed: see `fairstrike receipt verify`."""
        return [one for one in self._pending if now_s > one.time_s + due_s]

    def close(self) -> None:
        """Makes the file durable."""
        if self._file is not None:
            self._file.close()


def load(path: Path) -> list[Receipt]:
    """The receipts of a file: one object, or one a line. Raises ReceiptWrong, which names file and line."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ReceiptWrong(f"{path}: {size} bytes, at most {FILE_BYTES_MAX} are read")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ReceiptWrong(f"{path}: {error.strerror}") from error
    out = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            out.append(msgspec.json.decode(line, type=Receipt))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ReceiptWrong(f"{path}, line {number}: not a receipt: {error}") from error
    if not out:
        raise ReceiptWrong(f"{path}: no receipt in it")
    return out
