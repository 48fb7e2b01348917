"""From a receipt to L1's word on it: honoured, pending or broken, and the transaction that proves it.

Whoever holds a receipt needs nothing but L1: the batches that it has, and the state that follows from them. Each proof
is the calldata of a check of `contracts/Receipts.vy`, tried as a call before anything is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sequencer.contracts import load
from sequencer.l1 import blobs
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcReverted
from sequencer.l1.follower import Follower, PostedBatch
from sequencer.l1.payload import chunk_proof
from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.l1.sequencers import ROLLUP
from sequencer.proof.challenge import CHUNK_ELEMENTS, message, proof
from sequencer.proof.witness import Tracer
from sequencer.protocol import batch as batches
from sequencer.protocol import constants as c
from sequencer.protocol import receipts as rules
from sequencer.protocol.hashing import keccak
from sequencer.protocol.receipts import Header
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.sdk.receipts import Item, Opened, ReceiptWrong
from sequencer.wire import headers
from sequencer.wire.headers import SignedHeader

EQUIVOCATION: Final = headers.EQUIVOCATION
CHAIN: Final = headers.CHAIN
TICK: Final = "tick"
RECORD: Final = "record"
STATE: Final = "state"
OUTCOME: Final = "outcome"
OVERDUE: Final = "overdue"
MISDEEDS: Final = {
    EQUIVOCATION: "two headers of one tick are signed",
    CHAIN: "a header does not follow from the one before",
    TICK: "L1 has another header for the tick",
    RECORD: "L1 has another record at the number",
    STATE: "the tick ends with another state",
    OUTCOME: "the record does something else",
    OVERDUE: "the tick is not on L1 although its time is over",
}


@cache
def judge() -> Contract:
    """The functions of `Receipts`."""
    return Contract(load("Receipts").abi)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check finds. `misdeed`: what a commitment is about; `holder`: the account to be compensated, 0: none."""

    broken: bool
    member: str
    misdeed: bytes
    holder: int


@dataclass(frozen=True, slots=True)
class Proof:
    """Calldata of a check, by the misdeed that it shows."""

    name: str
    call: bytes

    def commitment(self, finder: str, salt: bytes, verdict: Verdict) -> bytes:
        """What `Receipts.commit` takes a block before `slash`; `salt`: 32 bytes that nobody can guess."""
        return keccak(to_bytes(finder).rjust(32, b"\0") + verdict.misdeed + salt)

    def slash(self, salt: bytes) -> bytes:
        """Calldata that takes the bond: `Receipts.slash`, or `slash_headers`, which costs half."""
        if self.name in (EQUIVOCATION, CHAIN):
            return bytes(judge().function("slash_headers").selector) + salt + self.call[4:]
        return judge().encode("slash", salt, self.call)


def ask(rpc: Rpc, at: Deployment, shown: Proof) -> Verdict:
    """What the judge says of a proof. Raises RpcReverted when it is none."""
    function = judge().function("check_" + shown.name)
    broken, member, misdeed, holder, _ = function.decode_output(rpc.eth_call(at.receipts, shown.call))
    return Verdict(bool(broken), str(member), bytes(misdeed), int(holder))


# --- proofs -------------------------------------------------------------------------------------------


def equivocation(first: Opened | SignedHeader, second: Opened | SignedHeader) -> Proof:
    """Two headers of one tick."""
    return _proof(EQUIVOCATION, _signed(first), _signed(second))


def chain(first: Opened | SignedHeader, second: Opened | SignedHeader) -> Proof:
    """A header, and a later one that does not follow from it."""
    return _proof(CHAIN, _signed(first), _signed(second))


def overdue(opened: Opened, place: int = 0) -> Proof:
    """A tick that is not on L1; `place`: of the receipt's records, the one whose account is compensated."""
    return _proof(OVERDUE, _signed(opened), *_shown(opened, place))


def tick(opened: Opened, posted: PostedBatch, place: int = 0) -> Proof:
    """A batch that has another header for the tick."""
    index = opened.header.tick - (posted.tick - posted.ticks + 1)
    element = batches.ids_at(posted.segments) + index
    return _proof(TICK, _signed(opened), *_shown(opened, place), posted.header(), _element(posted, element))


def record(opened: Opened, posted: PostedBatch, index: int, before: State, place: int = 0) -> Proof:
    """A batch that has another record there; `before`: the state where its segment `index` begins."""
    return _proof(
        RECORD,
        _signed(opened),
        *_shown(opened, place),
        posted.header(),
        index,
        before.root(),
        proof(posted, index),
        _global(before),
    )


def state(opened: Opened, posted: PostedBatch, index: int, after: State) -> Proof:
    """A tick that ends with segment `index`, behind which the state is `after`, and not as its header says."""
    return _proof(
        STATE, _signed(opened), posted.header(), index, after.root(), proof(posted, index), _global(after)
    )


def outcome(
    opened: Opened, posted: PostedBatch, index: int, before: Tracer, records: Sequence[bytes], place: int = 0
) -> Proof:
    """Executes segment `index` up to the record, the last of `records`; `before`: where the segment begins."""
    pre_root = before.root()
    messages = b""
    for raw in records:
        one = message(before.witness(raw))
        messages += len(one).to_bytes(32, "big") + one
    return _proof(
        OUTCOME,
        _signed(opened),
        *_shown(opened, place),
        posted.header(),
        index,
        pre_root,
        proof(posted, index),
        messages,
    )


def _proof(name: str, *arguments: Any) -> Proof:
    return Proof(name, judge().encode("check_" + name, *arguments))


def header_words(header: Header) -> tuple[Any, ...]:
    """A tick's header as the contracts take it."""
    return (
        header.lead,
        header.tick,
        header.parent,
        header.first_seq,
        header.records,
        header.records_root,
        header.state_root,
        header.time_ns,
    )


def _signed(opened: Opened | SignedHeader) -> tuple[Any, ...]:
    return header_words(opened.header), opened.signature[:32], opened.signature[32:]


def _shown(opened: Opened, place: int) -> tuple[tuple[Any, ...], bytes]:
    """An item as the contracts take it, and its record."""
    item: Item = opened.receipt.items[place]
    part = opened.receipt.parts()[place]
    path = part[len(part) - rules.depth(opened.header.records) * rules.NODE_BYTES :]
    nodes = [path[at : at + rules.NODE_BYTES] for at in range(0, len(path), rules.NODE_BYTES)]
    index = opened.seqs[place] - opened.header.first_seq
    return (index, keccak(item.raw), item.reason, item.outcome(), nodes), item.raw


def _element(posted: PostedBatch, element: int) -> bytes:
    if posted.blob_hashes:
        return blobs.element_proof(posted.blobs(), [element], posted.blob_hashes)
    return chunk_proof(posted.payload, [element // CHUNK_ELEMENTS])


def _global(at: State) -> tuple[Any, ...]:
    at.flush()
    path = at.map.path(c.KEY_GLOBAL)
    data = at.globals.words()
    words = [int.from_bytes(data[start : start + 32], "big") for start in range(0, len(data), 32)]
    return words, path.bitmap, list(path.siblings)


# --- what L1 says of a receipt ------------------------------------------------------------------------

HONOURED: Final = "honoured"
PENDING: Final = "pending"
BROKEN: Final = "broken"


@dataclass(frozen=True, slots=True)
class Answer:
    """`state`: honoured, pending or broken; then `misdeed`, and the `proof` of it. `due_s`: when it must be on L1.

    `why`: in words. `batch_id`: of the batch that has the tick, 0: none has.
    """

    state: str
    why: str
    misdeed: str = ""
    proof: Proof | None = None
    due_s: int = 0
    batch_id: int = 0


def inquire(rpc: Rpc, at: Deployment, opened: Opened, genesis: State, confirmations: int = 0) -> Answer:
    """What L1 says of a receipt, its outcome executed again from L1's own data; `genesis` is used up.

    Raises ReceiptWrong for one that no member's key has signed, or that a roll-back has excused; RpcError.
    """
    due_s = int(judge().read(rpc, at.receipts, "due_at", header_words(opened.header)))
    late = overdue(opened)
    try:
        is_late = ask(rpc, at, late).broken
    except RpcReverted as error:
        raise ReceiptWrong(f"L1 does not take it for a receipt: {error.reason}") from error
    if is_late:
        return Answer(BROKEN, MISDEEDS[OVERDUE], OVERDUE, late, due_s)
    tip = int(ROLLUP.read(rpc, at.rollup, "tip_tick"))
    if tip < opened.header.tick:
        block = rpc.block("latest")
        left_s = due_s - (to_int(block["timestamp"]) if block else 0)
        return Answer(
            PENDING, f"L1 has ticks up to {tip}; it must have this one within {left_s} s", due_s=due_s
        )
    follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, confirmations)
    for posted in follower.batches(at.deploy_block):
        if posted.tick < opened.header.tick and posted.first_seq + posted.records <= min(opened.seqs):
            for segment in batches.decode(posted.payload, posted.segments, posted.ticks):
                for raw in segment.records:
                    apply(genesis, raw)
            continue
        found = _compare(opened, posted, genesis)
        if found is not None:
            return Answer(BROKEN, MISDEEDS[found.name], found.name, found, due_s, posted.batch_id)
        if posted.first_seq + posted.records > max(opened.seqs):
            return Answer(
                HONOURED, "L1 has the tick, the record and its outcome", "", None, due_s, posted.batch_id
            )
    return Answer(PENDING, "L1's batches are not confirmed yet", due_s=due_s)


def _compare(opened: Opened, posted: PostedBatch, at: State) -> Proof | None:
    """The first thing that a batch has otherwise than the receipt says; `at` moves on to the batch's end."""
    if posted.tick - posted.ticks < opened.header.tick <= posted.tick:
        ids = batches.ids_in(posted.payload, posted.segments, posted.ticks)
        if ids[opened.header.tick - (posted.tick - posted.ticks + 1)] != opened.header.id:
            return tick(opened, posted)
    end_seq = opened.header.first_seq + opened.header.records
    for index, segment in enumerate(batches.decode(posted.payload, posted.segments, posted.ticks)):
        first = at.globals.seq
        wanted = [seq for seq in opened.seqs if first <= seq < first + len(segment.records)]
        tracer = Tracer.of(at) if wanted else None
        for place, seq in ((opened.seqs.index(seq), seq) for seq in wanted):
            item = opened.receipt.items[place]
            if segment.records[seq - first] != item.raw:
                return record(opened, posted, index, at, place)
        for seq, raw in enumerate(segment.records, start=first):
            out = apply(at, raw)
            if seq not in wanted:
                continue
            place = opened.seqs.index(seq)
            item = opened.receipt.items[place]
            if (int(out.reason), rules.outcome_hash(out)) != (item.reason, item.outcome()):
                assert tracer is not None
                return outcome(opened, posted, index, tracer, segment.records[: seq - first + 1], place)
        if at.globals.seq == end_seq and at.root() != opened.header.state_root:
            return state(opened, posted, index, at)
    return None
