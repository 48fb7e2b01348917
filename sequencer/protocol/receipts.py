"""Receipts: what the sequencer signs of a tick, and how a record's outcome hangs from it (docs/PROTOCOL.md section 21).

Twin of `contracts/lib/receipts.vy`. A tick has one header, signed once (EIP-712, under the domain of records). Its
`records_root` is a Merkle root over a leaf a record; nodes are the first NODE_BYTES of keccak-256. No receipt rests on
the tree's being the only one under its root: whoever opens a second leaf has signed that, too. What NODE_BYTES must
withstand is a stranger who wants to make an honest signer's root say what it did not, 2^96 hashes for a collision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

from sequencer.protocol.constants import Reason
from sequencer.protocol.hashing import keccak, recover
from sequencer.protocol.hashing import sign as sign_digest
from sequencer.protocol.outcome import Outcome

TICK_TYPE_HASH: Final = keccak(
    b"Tick(uint64 lead,uint40 tick,bytes31 parent,uint40 firstSeq,uint32 records,bytes24 recordsRoot,"
    b"bytes32 stateRoot,uint64 timeNs)"
)
NODE_BYTES: Final = 24
ID_BYTES: Final = 31  # of a header's hash, what a payload's element holds
NO_OUTCOME: Final = bytes(32)
DEPTH_MAX: Final = 20  # a tick has fewer than 2^20 records
_PADDING: Final = bytes(NODE_BYTES)

# epoch, term, roll-backs, tick, parent, first seq, records, state root, time; the path gives the records' root
_HEAD: Final = Struct(">IHH5s31s5s3s32sQ")
_INDEX_BYTES: Final = 3
SIGNATURE_BYTES: Final = 64
HEAD_BYTES: Final = _HEAD.size


@dataclass(frozen=True, slots=True)
class Header:
    """What is signed of a tick. `epoch` is of Sequencers, `term` of the member's own cluster, `roll_backs` of Rollup.

    `tick`: GLOBAL's after it; `parent`: `id` of the header before; `records_root`: 24 bytes; `state_root`: after the
    tick; `time_ns`: the signer's clock, nanoseconds since 1970.
    """

    epoch: int
    term: int
    roll_backs: int
    tick: int
    parent: bytes
    first_seq: int
    records: int
    records_root: bytes
    state_root: bytes
    time_ns: int

    @property
    def lead(self) -> int:
        """Epoch, term and roll-backs in one number."""
        return self.epoch << 32 | self.term << 16 | self.roll_backs

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the struct; 32 bytes."""
        return keccak(
            b"".join(
                (
                    TICK_TYPE_HASH,
                    self.lead.to_bytes(32, "big"),
                    self.tick.to_bytes(32, "big"),
                    self.parent.ljust(32, b"\0"),
                    self.first_seq.to_bytes(32, "big"),
                    self.records.to_bytes(32, "big"),
                    self.records_root.ljust(32, b"\0"),
                    self.state_root,
                    self.time_ns.to_bytes(32, "big"),
                )
            )
        )

    @property
    def id(self) -> bytes:
        """What the next header, and the batch's payload, name this one by: 31 bytes of its hash."""
        return self.struct_hash()[:ID_BYTES]

    def digest(self, domain: bytes) -> bytes:
        """What is signed under `domain`; 32 bytes."""
        return keccak(b"\x19\x01" + domain + self.struct_hash())

    def sign(self, domain: bytes, key: bytes) -> bytes:
        """Compact signature (64 bytes) by `key`; the same each time (RFC 6979)."""
        return sign_digest(self.digest(domain), key)

    def signer(self, domain: bytes, signature: bytes) -> bytes | None:
        """Address that has signed; None: nobody."""
        return recover(self.digest(domain), signature)


def outcome_hash(out: Outcome) -> bytes:
    """Hash of what an order paid, leaves resting and traded; NO_OUTCOME where no order was executed.

    paid: fees in 1e-6 USD; rests: lots of it in the book after the record; trades: `chain_trade` over them, in order.
    """
    if out.paid is None:
        return NO_OUTCOME
    trades = NO_OUTCOME
    for fill in out.fills:
        trades = chain_trade(trades, fill.quantity, fill.maker_price, fill.maker_seq)
    return hash_outcome(out.paid, out.rests, trades)


def chain_trade(trades: bytes, quantity: int, price: int, maker_seq: int) -> bytes:
    """Hash of the trades so far and one more: lots, ticks, sequence number of the maker's order."""
    return keccak(trades + (quantity | price << 40 | maker_seq << 72).to_bytes(32, "big"))


def hash_outcome(paid: int, rests: int, trades: bytes) -> bytes:
    """Outcome of an order that paid so many 1e-6 USD, rests with so many lots, and made `trades`."""
    return keccak(paid.to_bytes(32, "big") + rests.to_bytes(32, "big") + trades)


def leaf(seq: int, record: bytes, reason: Reason | int, outcome: bytes) -> bytes:
    """Of the record (bytes) with sequence number `seq`; NODE_BYTES."""
    return keccak(seq.to_bytes(32, "big") + keccak(record) + int(reason).to_bytes(32, "big") + outcome)[
        :NODE_BYTES
    ]


def depth(records: int) -> int:
    """Nodes of a path among so many leaves."""
    return (records - 1).bit_length()


def tree(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Levels from the leaves (at least one), filled up to a power of two, to the root."""
    level = list(leaves) + [_PADDING] * ((1 << depth(len(leaves))) - len(leaves))
    levels = [level]
    while len(level) > 1:
        level = [keccak(level[i] + level[i + 1])[:NODE_BYTES] for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def path(levels: Sequence[Sequence[bytes]], index: int) -> bytes:
    """Siblings on the way from leaf `index` to the root, one after the other."""
    return b"".join(level[index >> height ^ 1] for height, level in enumerate(levels[:-1]))


def fold(of_leaf: bytes, index: int, siblings: bytes) -> bytes:
    """Root above leaf `index` with these siblings; NODE_BYTES."""
    node = of_leaf
    for start in range(0, len(siblings), NODE_BYTES):
        sibling = siblings[start : start + NODE_BYTES]
        node = keccak(sibling + node if index & 1 else node + sibling)[:NODE_BYTES]
        index >>= 1
    return node


def pack(header: Header, signature: bytes) -> bytes:
    """Header without its records' root, and signature, as a receipt carries them; HEAD_BYTES + SIGNATURE_BYTES."""
    return (
        _HEAD.pack(
            header.epoch,
            header.term,
            header.roll_backs,
            header.tick.to_bytes(5, "big"),
            header.parent,
            header.first_seq.to_bytes(5, "big"),
            header.records.to_bytes(3, "big"),
            header.state_root,
            header.time_ns,
        )
        + signature
    )


def stored(header: Header) -> bytes:
    """What a log keeps of a header: as `pack` without the signature, and the records' root."""
    return pack(header, header.records_root)


def load(head: bytes) -> Header:
    """The header of what `stored` gave."""
    return _header(head, head[HEAD_BYTES:])


def id_of(head: bytes) -> bytes:
    """Id of what a log keeps: of a stored header, or the id itself."""
    return head if len(head) == ID_BYTES else load(head).id


def _header(head: bytes, root: bytes) -> Header:
    epoch, term, roll_backs, tick, parent, first, count, state_root, time_ns = _HEAD.unpack(head[:HEAD_BYTES])
    return Header(
        epoch,
        term,
        roll_backs,
        int.from_bytes(tick, "big"),
        parent,
        int.from_bytes(first, "big"),
        int.from_bytes(count, "big"),
        root,
        state_root,
        time_ns,
    )


def item(index: int, levels: Sequence[Sequence[bytes]]) -> bytes:
    """What a receipt has, behind what `pack` gave, for each record: its place in the tick, its path."""
    return index.to_bytes(_INDEX_BYTES, "big") + path(levels, index)


def split(data: bytes) -> list[bytes]:
    """The receipt of each record in one of several. Raises ValueError."""
    start = HEAD_BYTES + SIGNATURE_BYTES
    head, rest = data[:start], data[start:]
    if len(head) < start:
        raise ValueError(f"receipt: {len(data)} bytes, at least {start} are needed")
    size = _INDEX_BYTES + depth(_header(head[:HEAD_BYTES], b"").records) * NODE_BYTES
    if not rest or len(rest) % size:
        raise ValueError(f"receipt: {len(rest)} bytes behind the header, {size} for each record are needed")
    return [head + rest[at : at + size] for at in range(0, len(rest), size)]


def unpack(data: bytes, record: bytes, reason: int, outcome: bytes) -> tuple[Header, bytes, int]:
    """Header, signature and sequence number that a receipt of `record` speaks of. Raises ValueError.

    The root is the one above the record's leaf: whether anybody has signed it is for `Header.signer` to say.
    """
    start = HEAD_BYTES + SIGNATURE_BYTES
    if len(data) < start + _INDEX_BYTES:
        raise ValueError(f"receipt: {len(data)} bytes, at least {start + _INDEX_BYTES} are needed")
    header = _header(data[:HEAD_BYTES], b"")
    first_seq, records = header.first_seq, header.records
    index = int.from_bytes(data[start : start + _INDEX_BYTES], "big")
    siblings = data[start + _INDEX_BYTES :]
    if depth(records) > DEPTH_MAX:
        raise ValueError(f"receipt: a tick of {records} records, at most {1 << DEPTH_MAX} can be judged")
    if not index < records:
        raise ValueError(f"receipt: record {index} of a tick of {records}")
    if len(siblings) != depth(records) * NODE_BYTES:
        raise ValueError(
            f"receipt: a path of {len(siblings)} bytes, {depth(records) * NODE_BYTES} are needed"
        )
    seq = first_seq + index
    root = fold(leaf(seq, record, reason, outcome), index, siblings)
    return replace(header, records_root=root), data[HEAD_BYTES:start], seq
