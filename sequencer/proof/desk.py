"""Receipts that traders have left with a watcher: held against each other, and against what L1 has.

A trader puts its receipts (lines of JSON, as `sdk/receipts.py` keeps them) into the folder. Each is compared with all
others, so that two headers of one tick are found although neither trader has both; then with the batches, as the
watcher executes them; and with the time by which its tick must be on L1. A receipt of a tick that the watcher has
executed before it came is held against the batch's header id and record, not executed again: `fairstrike receipt
verify --l1` does that. Headers that peers have seen (gossip.py) come in pairs that contradict each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcReverted
from sequencer.l1.follower import PostedBatch
from sequencer.l1.members import MemberKeys
from sequencer.l1.rpc import Rpc, to_hex
from sequencer.proof.alarms import Alarms
from sequencer.proof.headers import Pair
from sequencer.proof.receipt_box import ReceiptBox
from sequencer.proof.receipts import (
    BROKEN,
    CHAIN,
    EQUIVOCATION,
    HONOURED,
    MISDEEDS,
    OUTCOME,
    OVERDUE,
    PENDING,
    RECORD,
    TICK,
    Proof,
    ask,
    chain,
    equivocation,
    judge,
    overdue,
)
from sequencer.proof.slasher import Slashed, Slasher
from sequencer.protocol import batch as batches
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.receipts import outcome_hash
from sequencer.sdk.receipts import Opened, Receipt, ReceiptWrong
from sequencer.wire.headers import SignedHeader

HELD_MAX: Final = 100_000  # receipts; the oldest that are settled go first
LINE_BYTES_MAX: Final = 1_000_000
LATE_PER_LOOK: Final = 16
PER_LOOK: Final = 64  # of those that may be overdue, asked of L1
PROOFS_KEPT: Final = 256  # one takes a member's whole bond
SLASHES_PER_LOOK: Final = 8
MISDEEDS_SHOWN: Final = 16

_Lead = tuple[int, int, int]  # epoch, roll-backs, tick


@dataclass(slots=True)
class _Held:
    """A receipt, and how it stands. `seen`: its records that a right batch has, by sequence number."""

    opened: Opened
    member: str
    state: str = PENDING
    misdeed: str = ""
    seen: dict[int, str] = field(default_factory=dict)  # what is wrong with it; empty: nothing
    name: str = ""  # in the box, its hash


class Desk:
    """One deployment's receipts in `folder`, and pairs of headers that peers have found.

    `read` first, `observe` while a batch is executed, `settle` when it is right, `look` after all, `slash` with a key
    for L1. `tell` gets the header of each good receipt. `folder` None: no receipts.
    """

    def __init__(
        self,
        rpc: Rpc,
        at: Deployment,
        domain: bytes,
        folder: Path | None,
        alarms: Alarms,
        keys: MemberKeys,
        tell: Callable[[SignedHeader], None] = lambda _signed: None,
        box: ReceiptBox | None = None,
    ) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._keys = keys
        self._tell = tell
        self._box = box
        self._is_box_read = False
        self._by_name: dict[str, _Held] = {}
        self._rpc = rpc
        self._at = at
        self._domain = domain
        self._folder = folder
        self._alarms = alarms
        self._read_to: dict[Path, int] = {}
        self._held: list[_Held] = []
        self._wanted: dict[int, list[tuple[_Held, int]]] = {}  # by sequence number: a receipt, and its item
        self._headers: dict[_Lead, _Held] = {}  # the first that was seen of each tick
        self._pairs: list[dict[str, Any]] = []  # what was found between headers, the newest
        self._slashed: dict[str, Slashed] = {}
        self._due_s = 0  # of the judge, once it is known
        self.proofs: dict[str, Proof] = {}  # of what is broken, by the alarm's key

    # --- what traders bring -----------------------------------------------------------------------

    def read(self) -> None:
        """Takes the lines that have come since, and what has been left over HTTP."""
        if self._box is not None:
            if not self._is_box_read:
                self._is_box_read = True
                for name, opened in self._box.kept():
                    self._take(Path(name), opened, name)
            for name, opened in self._box.taken():
                self._take(Path(name), opened, name)
            self._make_room(self._box)
        if self._folder is None:
            return
        for path in sorted((*self._folder.glob("*.jsonl"), *self._folder.glob("*.json"))):
            for line in self._new_lines(path):
                try:
                    opened = msgspec.json.decode(line, type=Receipt).open()
                except (msgspec.DecodeError, UnicodeDecodeError, ReceiptWrong, ValueError) as error:
                    self._alarms.once(f"receipt {path} {error}", f"{path.name}: no receipt: {error}")
                    continue
                self._take(path, opened)

    def _new_lines(self, path: Path) -> Iterator[bytes]:
        """Whole lines behind those that were read."""
        start = self._read_to.get(path, 0)
        with path.open("rb") as file:
            file.seek(start)
            while (line := file.readline(LINE_BYTES_MAX)).endswith(b"\n") or len(line) == LINE_BYTES_MAX:
                start += len(line)
                self._read_to[path] = start
                if line.strip():
                    yield line

    def _make_room(self, box: ReceiptBox) -> None:
        """Lets go of the oldest that are honoured when the box is nearly full."""
        for held in (
            [one for one in self._held if one.name and one.state == HONOURED] if box.is_nearly_full else ()
        ):
            if not box.is_nearly_full:
                break
            self._forget(held)

    def state_of(self, name: str) -> dict[str, Any] | None:
        """How a receipt of the box stands, from any thread: state, misdeed, and the transaction that took the bond."""
        held = self._by_name.get(name)
        if held is None:
            return None
        taken = [
            one for one in list(self._slashed.values()) if one.tx_hash and one.member.lower() == held.member
        ]
        broken = held.state == BROKEN
        tx = taken[0].tx_hash if broken and taken else None
        return {"state": held.state, "misdeed": held.misdeed or None, "tx": tx}

    def _take(self, path: Path, opened: Opened, name: str = "") -> None:
        if name in self._by_name:
            return
        if opened.receipt.domain() != self._domain:
            self._alarms.once(f"receipt of {opened.receipt.rollup}", f"{path.name}: of another exchange")
            return
        member = self._keys.member_of(opened.signer)
        if member is None:
            signer = to_hex(opened.signer)
            self._alarms.once(f"receipt by {signer}", f"{path.name}: {signer} is no member's receipt key")
            return
        self._tell(SignedHeader(opened.header, opened.signature, opened.signer))
        held = _Held(opened, member, name=name)
        if name:
            self._by_name[name] = held
        self._held.append(held)
        for place, seq in enumerate(opened.seqs):
            self._wanted.setdefault(seq, []).append((held, place))
        self._compare(held)
        while len(self._held) > HELD_MAX:
            self._forget(next((one for one in self._held if one.state != PENDING), self._held[0]))

    def take_pair(self, pair: Pair) -> None:
        """Two headers that contradict each other."""
        tick = pair.second.header.tick
        key = f"headers {pair.misdeed} {pair.member} {tick}"
        shown = equivocation if pair.misdeed == EQUIVOCATION else chain
        self._prove(key, shown(pair.first, pair.second))
        self._pairs = [
            *self._pairs[1 - MISDEEDS_SHOWN :],
            {"misdeed": pair.misdeed, "tick": tick, "member": pair.member},
        ]
        what = f"tick {tick}, signed for {pair.member}"
        self._alarms.once(key, f"BROKEN RECEIPT of {what}: {MISDEEDS[pair.misdeed]}: the bond is at stake")

    def _prove(self, key: str, shown: Proof) -> None:
        if len(self.proofs) < PROOFS_KEPT:
            self.proofs.setdefault(key, shown)

    def slash(self, slasher: Slasher) -> None:
        """The next step of the first proofs that have not ended. Raises RpcError when L1 does not answer."""
        open_ones = [key for key in self.proofs if key not in self._slashed or not self._slashed[key].is_done]
        for key in open_ones[:SLASHES_PER_LOOK]:
            told = self._slashed[key] = slasher.step(key, self.proofs[key])
            if told.is_done:
                self._alarms.once(
                    f"slashed {key}", f"{key}: {told.state} {told.member} {told.tx_hash}".rstrip()
                )
        slasher.tend()

    def _compare(self, held: _Held) -> None:
        """Against the other headers of the tick, of the one before and of the one after."""
        header = held.opened.header
        lead = (header.epoch, header.roll_backs, header.tick)
        first = self._headers.setdefault(lead, held)
        if first.member == held.member and first.opened.header.id != header.id:
            self._break(held, EQUIVOCATION, equivocation(first.opened, held.opened))
        for other, is_before in ((-1, True), (1, False)):
            near = self._headers.get((*lead[:2], header.tick + other))
            if near is None or near.member != held.member:
                continue
            a, b = (near.opened, held.opened) if is_before else (held.opened, near.opened)
            if (
                b.header.parent != a.header.id
                or b.header.time_ns < a.header.time_ns
                or b.header.first_seq != a.header.first_seq + a.header.records
            ):
                self._break(held, CHAIN, chain(a, b))

    def _forget(self, held: _Held) -> None:
        self._held.remove(held)
        header = held.opened.header
        lead = (header.epoch, header.roll_backs, header.tick)
        if self._headers.get(lead) is held:
            del self._headers[lead]
        if held.name and self._box is not None:
            del self._by_name[held.name]
            self._box.remove(held.name)
        for seq in held.opened.seqs:
            left = [one for one in self._wanted.get(seq, ()) if one[0] is not held]
            self._wanted[seq] = left
            if not left:
                del self._wanted[seq]

    # --- what L1 has ------------------------------------------------------------------------------

    def observe(self, raw: bytes, out: Outcome) -> None:
        """A record of the batch that is being executed."""
        for held, place in self._wanted.get(out.seq, ()):
            item = held.opened.receipt.items[place]
            if item.raw != raw:
                held.seen[out.seq] = RECORD
            elif (item.reason, item.outcome()) != (int(out.reason), outcome_hash(out)):
                held.seen[out.seq] = OUTCOME
            else:
                held.seen[out.seq] = ""

    def settle(self, batch: PostedBatch) -> None:
        """A batch is right: what its ticks' receipts say must be so."""
        first = batch.tick - batch.ticks + 1
        ids: list[bytes] | None = None
        for held in self._held:
            header = held.opened.header
            if held.state != PENDING or not first <= header.tick <= batch.tick:
                continue
            ids = ids or batches.ids_in(batch.payload, batch.segments, batch.ticks)
            wrong = next((found for found in held.seen.values() if found), "")
            if ids[header.tick - first] != header.id:
                self._break(held, TICK, None)
            elif wrong:
                self._break(held, wrong, None)
            elif held.seen.keys() >= set(held.opened.seqs):
                held.state = HONOURED

    def rewind(self, seq: int) -> None:
        """The state was taken back to before record `seq`."""
        for held in self._held:
            if held.opened.seqs[-1] >= seq and held.state == HONOURED:
                held.state = PENDING
            held.seen = {number: found for number, found in held.seen.items() if number < seq}

    def look(self, executed: list[PostedBatch], head_s: int) -> None:
        """Holds receipts that came late against batches that are executed already, and asks which are overdue."""
        for batch in executed:
            self._hold_against(batch)
        if not self._due_s and self._held:
            self._due_s = int(judge().read(self._rpc, self._at.receipts, "due_s"))
        # L1's fees may excuse one for longer: then the judge says so, and it is asked again
        late = [
            one for one in self._held if one.state == PENDING and one.opened.time_s + self._due_s < head_s
        ]
        for held in late[:PER_LOOK]:
            shown = overdue(held.opened)
            try:
                if ask(self._rpc, self._at, shown).broken:
                    self._break(held, OVERDUE, shown)
            except RpcReverted:  # a roll-back has excused it
                held.state = "excused"

    def _hold_against(self, batch: PostedBatch) -> None:
        late = [one for one in self._held if one.state == PENDING and self._is_in(one, batch)]
        if not late:
            return
        wanted = {seq for held in late for seq in held.opened.seqs}
        seq = batch.first_seq
        found: dict[int, bytes] = {}
        for segment in batches.decode(batch.payload, batch.segments, batch.ticks):
            for raw in segment.records:
                if seq in wanted:
                    found[seq] = raw
                seq += 1
        for held in late:
            for item, number in zip(held.opened.receipt.items, held.opened.seqs, strict=True):
                if number in found and number not in held.seen:
                    held.seen[number] = "" if found[number] == item.raw else RECORD
        self.settle(batch)

    @staticmethod
    def _is_in(held: _Held, batch: PostedBatch) -> bool:
        return batch.tick - batch.ticks < held.opened.header.tick <= batch.tick

    def late_ticks(self, tick: int) -> list[int]:
        """Ticks up to `tick`, which the watcher has executed, of receipts that are not settled; a few."""
        late = {one.opened.header.tick for one in self._held if one.state == PENDING}
        return sorted(one for one in late if one <= tick)[:LATE_PER_LOOK]

    def _break(self, held: _Held, misdeed: str, shown: Proof | None) -> None:
        held.state, held.misdeed = BROKEN, misdeed
        header = held.opened.header
        key = f"receipt {misdeed} {header.tick} {held.opened.seqs[0]}"
        if shown is not None:
            self._prove(key, shown)
        what = f"record {held.opened.seqs[0]} in tick {header.tick}, signed for {held.member}"
        how = (
            "`fairstrike receipt verify --slash` proves it"
            if misdeed != EQUIVOCATION
            else "the bond is at stake"
        )
        self._alarms.once(key, f"BROKEN RECEIPT of {what}: {MISDEEDS[misdeed]}: {how}")

    def status(self) -> dict[str, Any]:
        """Numbers of receipts by how they stand."""
        counts = dict.fromkeys((HONOURED, PENDING, BROKEN), 0)
        for held in self._held:
            counts[held.state] = counts.get(held.state, 0) + 1
        broken = [one for one in self._held if one.state == BROKEN]
        return {
            **counts,
            "misdeeds": [
                {"misdeed": one.misdeed, "tick": one.opened.header.tick, "seqs": one.opened.seqs}
                for one in broken[-MISDEEDS_SHOWN:]
            ],
            "headers": list(self._pairs),
            "slashed": {key: asdict(one) for key, one in self._slashed.items()},
        }
