"""Outcomes of the latest signed records by account and nonce, for clients that lost an acknowledgement."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from sequencer.log.interface import Entry
from sequencer.protocol.codec import LAYOUTS
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Account
from sequencer.wire.receipts import in_json, with_receipt

KEPT: Final = 65_536  # records; with their acknowledgements some 40 MB
TICKS_READ: Final = 8_192  # of the log, at the start
_WIDTHS: Final = {"address": 20, "bool": 1}


def _nonce_place(kind: Kind) -> int | None:
    """Offset of the nonce (uint32) in a record of `kind`; None for kinds without account and nonce."""
    fields = LAYOUTS[kind].fields
    names = [name for name, _ in fields]
    if "nonce" not in names or names[0] != "account":
        return None
    before = fields[: names.index("nonce")]
    return 1 + sum(_WIDTHS.get(of) or int(of.lstrip("uint").lstrip("int")) // 8 for _, of in before)


_NONCE_AT: Final[dict[int, int | None]] = {kind: _nonce_place(Kind(kind)) for kind in LAYOUTS}


def key_of(raw: bytes) -> bytes | None:
    """Account and nonce of a signed record as one key; None for records without them."""
    at = _NONCE_AT.get(raw[0])
    return None if at is None else raw[1:5] + raw[at : at + 4]


class Outcomes:
    """The latest applied records and their acknowledgements, which a start from the log does not restore."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_key: dict[bytes, tuple[bytes, int, bytes | None]] = {}

    def load(self, entries: Iterable[Entry]) -> None:
        """Loads the records of the log."""
        self._by_key.clear()
        for entry in entries:
            for place, raw in enumerate(entry.raws()):
                self.note(raw, entry.first_seq + place, None)

    def note(self, raw: bytes, seq: int, ack: bytes | None) -> None:
        """Notes that `raw` was applied as record `seq`."""
        key = key_of(raw)
        if key is None:
            return
        held = self._by_key
        held.pop(key, None)  # the newest last, also when a nonce comes again after a roll-back
        held[key] = raw, seq, ack
        if len(held) > self._kept:
            del held[next(iter(held))]

    def seal(self, raw: bytes, receipt: bytes) -> None:
        """The receipt of the record that was noted last under its account and nonce."""
        key = key_of(raw)
        if key is not None and (held := self._by_key.get(key)) is not None and held[2] is not None:
            self._by_key[key] = held[0], held[1], with_receipt(held[2], receipt)

    def answer(self, raw: bytes) -> tuple[int, bytes] | None:
        """Sequence number and acknowledgement, with its receipt, that this very record has had; None: not known."""
        key = key_of(raw) if raw else None
        held = None if key is None else self._by_key.get(key)
        if held is None or held[0] != raw or held[2] is None:
            return None
        return held[1], held[2]

    def drop_from(self, seq: int) -> None:
        """Drops records from `seq` on, which no longer count as applied."""
        while self._by_key and self._by_key[last := next(reversed(self._by_key))][1] >= seq:
            del self._by_key[last]

    def find(
        self, account: Account, number: int, nonce: int, is_waiting: Callable[[int, int], bool]
    ) -> dict[str, Any]:
        """Answer to the query `outcome` about account `number`; `is_waiting`: whether such a record is in the queue."""
        held = self._by_key.get(number.to_bytes(4, "big") + nonce.to_bytes(4, "big"))
        if held is not None:
            raw, seq, ack = held
            return {
                "status": "applied",
                "kind": Kind(raw[0]).name,
                "seq": seq,
                "record": "0x" + raw.hex(),
                "ack": None if ack is None else msgspec.Raw(in_json(ack)),
            }
        offset = nonce - account.nonce_floor
        if offset < 0 or account.nonce_bitmap >> offset & 1:
            return {"status": "forgotten"}
        return {"status": "waiting" if is_waiting(number, nonce) else "unused"}
