"""Outcomes of the latest signed records by account and nonce, for clients that lost an acknowledgement."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
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
    at = _NONCE_AT.get(raw[0]) if raw else None
    return None if at is None else raw[1:5] + raw[at : at + 4]


Ack = bytes | Callable[[], bytes]
"""An acknowledgement with its receipt, or what gives it: a start signs a receipt when it is asked for."""


class Outcomes:
    """The latest applied records and their acknowledgements."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_key: dict[bytes, tuple[bytes, int, Ack | None]] = {}

    def load(
        self,
        entries: Iterable[Entry],
        made: Mapping[int, tuple[bytes, Ack | None]],
        stands: int = 0,
        is_void: Callable[[int], bool] = lambda _seq: False,
    ) -> None:
        """Loads the records of the log's end, with the acknowledgements that were `made` again, by sequence number.

        A record whose acknowledgement is None there has not held, and `is_void` says which others have not. What is
        known of records before `stands` is kept.
        """
        known = dict(made)
        known.update((seq, (raw, ack)) for raw, seq, ack in self._by_key.values() if seq < stands)
        self._by_key.clear()
        rest = iter(entries)
        first = list(islice(rest, 1))
        begin = first[0].first_seq if first else None
        for seq in sorted(known):
            raw, ack = known[seq]
            if ack is not None and (begin is None or seq < begin):
                self.note(raw, seq, ack)
        for entry in chain(first, rest):
            for seq, raw in enumerate(entry.raws(), entry.first_seq):
                if (found := known.get(seq)) is None or found[0] != raw:
                    if entry.holds or not is_void(seq):
                        self.note(raw, seq, None)
                elif found[1] is not None:
                    self.note(raw, seq, found[1])

    def note(self, raw: bytes, seq: int, ack: Ack | None) -> None:
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
        if key is not None and (held := self._by_key.get(key)) is not None and isinstance(held[2], bytes):
            self._by_key[key] = held[0], held[1], with_receipt(held[2], receipt)

    def answer(self, raw: bytes) -> tuple[int, bytes] | None:
        """Sequence number and acknowledgement, with its receipt, that this very record has had; None: not known."""
        key = key_of(raw) if raw else None
        held = None if key is None else self._by_key.get(key)
        if key is None or held is None or held[0] != raw or (ack := self._ack(key)) is None:
            return None
        return held[1], ack

    def _ack(self, key: bytes) -> bytes | None:
        raw, seq, ack = self._by_key[key]
        if ack is None or isinstance(ack, bytes):
            return ack
        made = ack()
        self._by_key[key] = raw, seq, made
        return made

    def newest(self, count: int) -> list[tuple[bytes, int, bytes]]:
        """(record, sequence number, acknowledgement with its receipt) of the last `count` records, oldest first; those
        whose acknowledgements are not known are left out.
        """
        keys = list(islice(reversed(self._by_key), count))
        found = [(*self._by_key[key][:2], self._ack(key)) for key in reversed(keys)]
        return [(raw, seq, ack) for raw, seq, ack in found if ack is not None]

    def drop_from(self, seq: int) -> None:
        """Drops records from `seq` on, which no longer count as applied."""
        while self._by_key and self._by_key[last := next(reversed(self._by_key))][1] >= seq:
            del self._by_key[last]

    def find(
        self, account: Account, number: int, nonce: int, is_waiting: Callable[[int, int], bool]
    ) -> dict[str, Any]:
        """Answer to the query `outcome` about account `number`; `is_waiting`: whether such a record is in the queue."""
        key = number.to_bytes(4, "big") + nonce.to_bytes(4, "big")
        if (held := self._by_key.get(key)) is not None:
            raw, seq, ack = *held[:2], self._ack(key)
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
