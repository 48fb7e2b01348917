# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Batches: the header, the payload's layout, and what a segment may hold
@license MIT
@notice Twin of `sequencer/protocol/batch.py` (docs/PROTOCOL.md section 5). A payload is a string of elements of 31
        bytes: roots, one a segment; end offsets, ten an element; records. In a word, an element stands right-aligned.
@custom:security Consensus: a change here is a change of the protocol. Sizes and weights are those of `LAYOUT` in
        `sequencer/protocol/constants.py`; a test compares them kind by kind.
@custom:kill Nothing: it holds no state and no privilege.
"""

struct Header:
    batch_id: uint256
    pre_root: bytes32  # post-root of the batch before
    post_root: bytes32
    data_root: bytes32
    elements: uint256  # of the payload
    segments: uint256
    records: uint256
    first_seq: uint256
    time: uint256  # of GLOBAL after the batch, seconds
    inbox_count: uint256  # of GLOBAL after the batch
    inbox_hash: bytes32  # of the Inbox, after that many messages


# What a DataSource has proved about a segment of a payload.
struct Segment:
    before: uint256  # root committed before it, top 248 bits, right-aligned; 0 for the first segment
    root: uint256  # root committed after it, likewise
    start: uint256  # where its records start and end, in elements of the record area, as the tables say
    end: uint256
    records: DynArray[uint256, SEGMENT_ELEMENTS_MAX]  # their elements; empty unless start < end, within the bounds


# Calldata of a batch stays below 120 KiB, of the 128 KiB that nodes relay: 123 whole chunks and 292 bytes of ABI head.
PAYLOAD_BYTES_MAX: constant(uint256) = 122_016
ELEMENT_BYTES: constant(uint256) = 31
OFFSET_BYTES: constant(uint256) = 3  # a segment's end, in elements of the record area
OFFSETS_PER_ELEMENT: constant(uint256) = 10
CHUNK_ELEMENTS: constant(uint256) = 32
CHUNK_BYTES: constant(uint256) = 992  # one leaf of the data root: 32 elements, 31 words
CHUNK_WORDS: constant(uint256) = 31
LEAVES_MAX: constant(uint256) = 128  # next power of two of 123 chunks
LEVELS: constant(uint256) = 7
BLOB_ELEMENTS: constant(uint256) = 4_096  # field elements of a blob

# Bytes of a DataSource's proof: 7 chunks of 31 words with 7 siblings each.
PROOF_BYTES_MAX: constant(uint256) = 8_512

SEGMENT_WEIGHT_MAX: constant(uint256) = 32
# The most that the weight lets in: ten records of 4 elements that weigh 3, and two of one that weigh 1.
SEGMENT_ELEMENTS_MAX: constant(uint256) = 42
# A kind weighs at least 1.
SEGMENT_RECORDS_MAX: constant(uint256) = SEGMENT_WEIGHT_MAX
RECORD_ELEMENTS_MAX: constant(uint256) = 4

# By kind: elements (4 bits each) and weight (5 bits each); 0 for what is no kind.
KINDS: constant(uint256) = 48
SIZES: constant(uint256) = (
    (1 << 4) | (1 << 8) | (3 << 64) | (4 << 68)  # TICK, DEPOSIT, FEED, SURFACE
    | (1 << 12) | (1 << 16) | (1 << 20) | (1 << 24)  # FORCED_WITHDRAW, _CANCEL_ALL, _ORDER, _LIQUIDATE
    | (1 << 72) | (1 << 76) | (1 << 80) | (1 << 84)  # RISK, LIST, FIX, SETTLE
    | (1 << 88) | (1 << 92) | (1 << 96) | (3 << 128)  # LIQUIDATE, COLLECT, SWEEP, PLACE
    | (1 << 132) | (3 << 136) | (3 << 140) | (4 << 144)  # CONTINUE, CANCEL, CANCEL_ALL, SET_SIGNER
    | (3 << 148) | (3 << 152) | (3 << 156)  # TRANSFER, WITHDRAW, BID
)
WEIGHTS: constant(uint256) = (
    (1 << 5) | (2 << 10) | (3 << 80) | (3 << 85)  # TICK, DEPOSIT, FEED, SURFACE
    | (31 << 15) | (3 << 20) | (31 << 25) | (31 << 30)  # FORCED_WITHDRAW, _CANCEL_ALL, _ORDER, _LIQUIDATE
    | (31 << 90) | (4 << 95) | (2 << 100) | (31 << 105)  # RISK, LIST, FIX, SETTLE
    | (31 << 110) | (2 << 115) | (3 << 120) | (31 << 160)  # LIQUIDATE, COLLECT, SWEEP, PLACE
    | (31 << 165) | (4 << 170) | (3 << 175) | (3 << 180)  # CONTINUE, CANCEL, CANCEL_ALL, SET_SIGNER
    | (31 << 185) | (31 << 190) | (31 << 195)  # TRANSFER, WITHDRAW, BID
)


@internal
@pure
def _header_hash(header: Header) -> bytes32:
    """
    @notice What Rollup keeps of a header.
    """
    return keccak256(abi_encode(header))


@internal
@pure
def _tables(segments: uint256) -> uint256:
    """
    @notice Elements before the record area: roots and offsets. The caller has bounded `segments`.
    """
    return segments + (segments + OFFSETS_PER_ELEMENT - 1) // OFFSETS_PER_ELEMENT


@internal
@pure
def _layout(kind: uint256) -> (uint256, uint256):
    """
    @notice Elements and weight of a record of `kind` (one byte); what is no kind has one element and weighs 1.
    """
    if kind >= KINDS:
        return 1, 1
    size: uint256 = (SIZES >> (kind << 2)) & 15
    if size == 0:
        return 1, 1
    return size, (WEIGHTS >> (kind * 5)) & 31


@internal
@pure
def _kind(element: uint256) -> uint256:
    """
    @notice First byte of an element.
    """
    return element >> 240
