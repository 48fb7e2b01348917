# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Receipts: what is signed of a tick, and how a record's outcome hangs from it
@license MIT
@notice Twin of `sequencer/protocol/receipts.py` (docs/PROTOCOL.md section 21).
@custom:security Consensus: a change here is a change of the protocol. Nodes are 24 bytes: two openings of one root are
        two promises of who has signed it, and a stranger needs 2^96 hashes to make a root say what its signer did not.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants

TICK_TYPE: constant(bytes32) = keccak256(
    "Tick(uint64 lead,uint40 tick,bytes31 parent,uint40 firstSeq,uint32 records,bytes24 recordsRoot,bytes32 stateRoot,uint64 timeNs)"
)
DEPTH_MAX: constant(uint256) = 20  # a tick has fewer than 2^20 records
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
LOW_255: constant(uint256) = 2**255 - 1


# What is signed of a tick.
struct Header:
    lead: uint256  # epoch of Sequencers << 32 | term of the member's cluster << 16 | roll-backs of Rollup
    tick: uint256  # of GLOBAL after it
    parent: bytes31  # of the hash of the header before
    first_seq: uint256
    records: uint256
    records_root: bytes24
    state_root: bytes32
    time_ns: uint256


struct Signed:
    header: Header
    r: bytes32
    vs: bytes32  # yParity << 255 | s (EIP-2098)


# A record of a tick, and what it did.
struct Item:
    index: uint256  # in the tick
    record_hash: bytes32
    reason: uint256
    outcome: bytes32
    path: DynArray[bytes24, DEPTH_MAX]


@internal
@pure
def _hash(header: Header) -> bytes32:
    """
    @notice EIP-712 hash of the struct.
    """
    return keccak256(abi_encode(TICK_TYPE, header))


@internal
@view
def _signer(domain: bytes32, signed: Signed) -> address:
    """
    @notice Who has signed a header; the zero address: nobody.
    """
    return self._recover(keccak256(concat(b"\x19\x01", domain, self._hash(signed.header))), signed.r, signed.vs)


@internal
@view
def _recover(digest: bytes32, r: bytes32, vs: bytes32) -> address:
    """
    @notice Who has signed a digest (EIP-2098); the zero address: nobody.
    """
    s: uint256 = convert(vs, uint256) & LOW_255
    if s > HALF_ORDER:
        return empty(address)
    return ecrecover(digest, 27 + (convert(vs, uint256) >> 255), convert(r, uint256), s)


@internal
@pure
def _check_item(header: Header, item: Item):
    """
    @notice Reverts unless the item is under the header's root.
    """
    assert item.index < header.records, "receipts: no such record"
    seq: uint256 = unsafe_add(header.first_seq, item.index)  # a uint40 and a uint32
    node: bytes24 = self._short(keccak256(abi_encode(seq, item.record_hash, item.reason, item.outcome)))
    place: uint256 = item.index
    width: uint256 = 1
    for sibling: bytes24 in item.path:
        if place & 1 == 0:
            node = self._short(keccak256(concat(node, sibling)))
        else:
            node = self._short(keccak256(concat(sibling, node)))
        place = place >> 1
        width = width << 1
    # a path of another length would put the record at another place
    assert width >= header.records and width >> 1 < header.records, "receipts: path has another length"
    assert node == header.records_root, "receipts: record is not in the tick"


@internal
@pure
def _short(digest: bytes32) -> bytes24:
    """
    @notice The first 24 bytes.
    """
    return convert(slice(digest, 0, 24), bytes24)
