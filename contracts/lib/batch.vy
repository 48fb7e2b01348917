# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Batches: the header, the payload's layout, and what a segment may hold
@license MIT
@notice Twin of `sequencer/protocol/batch.py` (docs/PROTOCOL.md section 5). A payload is a string of elements of 31
        bytes: roots, one a segment; end offsets, ten an element; ids of ticks' headers (`receipts.vy`), one a tick that
        has begun in it; records. In a word, an element stands right-aligned.
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
    work: uint256  # of GLOBAL after the batch (`work.vy`)
    tick: uint256  # of GLOBAL after the batch
    ticks: uint256  # that have begun in it


# What a DataSource has proved about a segment of a payload.
struct Segment:
    before: uint256  # root committed before it, top 248 bits, right-aligned; 0 for the first segment
    root: uint256  # root committed after it, likewise
    start: uint256  # where its records start and end, in elements of the record area, as the tables say
    end: uint256
    records: DynArray[uint256, SEGMENT_ELEMENTS_MAX]  # their elements; empty unless start < end, within the bounds


# Calldata of a batch stays below 120 KiB, of the 128 KiB that nodes relay: 123 whole chunks and 388 bytes of ABI head.
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
    | (1 << 12) | (1 << 16) | (1 << 20) | (1 << 24) | (1 << 32)  # FORCED_WITHDRAW, _CANCEL_ALL, _ORDER, _LIQUIDATE, _BID
    | (1 << 72) | (1 << 76) | (1 << 80) | (1 << 84)  # RISK, LIST, FIX, SETTLE
    | (1 << 88) | (1 << 92) | (1 << 96) | (3 << 128)  # LIQUIDATE, COLLECT, SWEEP, PLACE
    | (1 << 132) | (3 << 136) | (3 << 140) | (4 << 144)  # CONTINUE, CANCEL, CANCEL_ALL, SET_SIGNER
    | (3 << 148) | (3 << 152) | (3 << 156) | (4 << 180)  # TRANSFER, WITHDRAW, BID, AMEND
    | (4 << 184)  # PLACE_IN_WORDS
)
WEIGHTS: constant(uint256) = (
    (1 << 5) | (2 << 10) | (3 << 80) | (3 << 85)  # TICK, DEPOSIT, FEED, SURFACE
    | (31 << 15) | (3 << 20) | (31 << 25) | (31 << 30) | (31 << 40)  # FORCED_WITHDRAW, _CANCEL_ALL, _ORDER, _LIQUIDATE, _BID
    | (31 << 90) | (4 << 95) | (2 << 100) | (31 << 105)  # RISK, LIST, FIX, SETTLE
    | (31 << 110) | (2 << 115) | (5 << 120) | (31 << 160)  # LIQUIDATE, COLLECT, SWEEP, PLACE
    | (31 << 165) | (4 << 170) | (3 << 175) | (3 << 180)  # CONTINUE, CANCEL, CANCEL_ALL, SET_SIGNER
    | (31 << 185) | (31 << 190) | (31 << 195) | (31 << 225)  # TRANSFER, WITHDRAW, BID, AMEND
    | (31 << 230)  # PLACE_IN_WORDS
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
def _tables(segments: uint256, ticks: uint256) -> uint256:
    """
    @notice Elements before the record area: roots, offsets and ids of ticks. The caller has bounded both.
    """
    return self._ids(segments) + ticks


@internal
@pure
def _ids(segments: uint256) -> uint256:
    """
    @notice Element at which the ids of ticks begin. The caller has bounded `segments`.
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


@internal
@pure
def _words(segment: Segment, first: uint256, size: uint256) -> uint256[RECORD_ELEMENTS_MAX]:
    """
    @notice The record of `size` elements that begins at element `first`: its bytes from the first word's front on.
    """
    words: uint256[RECORD_ELEMENTS_MAX] = empty(uint256[RECORD_ELEMENTS_MAX])
    for i: uint256 in range(size, bound=RECORD_ELEMENTS_MAX):
        element: uint256 = segment.records[unsafe_add(first, i)]
        # 31 bytes at byte 31 * i of the four words: the rest of word i, and the front of the word before.
        words[i] = element << (8 * (i + 1))
        if i > 0:
            words[unsafe_sub(i, 1)] |= element >> (248 - 8 * i)
    return words


@internal
@pure
def _head_hash(selector: bytes4, root: bytes32, segment: Segment, first: uint256, size: uint256) -> bytes32:
    """
    @notice Hash of the head of the message to a verifier about the record of `size` elements that begins at element `first`.
    """
    words: uint256[RECORD_ELEMENTS_MAX] = self._words(segment, first, size)
    return keccak256(
        concat(selector, abi_encode(root, size * ELEMENT_BYTES, words[0], words[1], words[2], words[3]))
    )


@internal
@pure
def _record_hash(segment: Segment, first: uint256, size: uint256) -> bytes32:
    """
    @notice keccak of the record of `size` elements, at most RECORD_ELEMENTS_MAX, that begins at element `first`.
    """
    words: uint256[RECORD_ELEMENTS_MAX] = self._words(segment, first, size)
    return keccak256(slice(abi_encode(words), 0, size * ELEMENT_BYTES))


@internal
@view
def _data_root(start: uint256, length: uint256) -> bytes32:
    """
    @notice Merkle root over the payload's chunks of 992 bytes, the last one zero padded, with zero leaves up to the
            next power of two.
    @param start Where the payload lies in calldata.
    @param length Its bytes; 0 < length <= PAYLOAD_BYTES_MAX.
    """
    nodes: bytes32[LEAVES_MAX] = empty(bytes32[LEAVES_MAX])
    whole: uint256 = length // CHUNK_BYTES
    position: uint256 = start
    for i: uint256 in range(whole, bound=LEAVES_MAX):
        nodes[i] = keccak256(slice(msg.data, position, CHUNK_BYTES))
        position = unsafe_add(position, CHUNK_BYTES)  # <= start + length
    count: uint256 = whole
    rest: uint256 = length % CHUNK_BYTES
    if rest > 0:
        nodes[whole] = self._last_leaf(position, rest)
        count = unsafe_add(whole, 1)  # <= 123

    width: uint256 = 1
    for _: uint256 in range(LEVELS):
        if width >= count:
            break
        width = width << 1
    for _: uint256 in range(LEVELS):
        if width == 1:
            break
        width = width >> 1
        for i: uint256 in range(width, bound=LEAVES_MAX):
            j: uint256 = i << 1
            nodes[i] = keccak256(abi_encode(nodes[j], nodes[unsafe_add(j, 1)]))
    return nodes[0]


@internal
@view
def _last_leaf(position: uint256, rest: uint256) -> bytes32:
    """
    @notice Leaf of the last chunk, of which only `rest` bytes at `position` are in the payload.
    @dev The word in which the payload ends is masked behind it: one payload has one data root, whatever stands there.
    """
    words: bytes32[CHUNK_WORDS] = empty(bytes32[CHUNK_WORDS])
    whole: uint256 = rest >> 5
    at: uint256 = position
    for i: uint256 in range(whole, bound=CHUNK_WORDS):
        words[i] = convert(self._word(at), bytes32)
        at = unsafe_add(at, 32)  # <= position + rest
    bits: uint256 = (rest & 31) << 3
    if bits > 0:
        words[whole] = convert(self._word(at) & ~(max_value(uint256) >> bits), bytes32)
    return keccak256(abi_encode(words))


@internal
@view
def _word(position: uint256) -> uint256:
    """
    @notice 32 bytes of calldata; reverts beyond its end.
    """
    return convert(slice(msg.data, position, 32), uint256)
