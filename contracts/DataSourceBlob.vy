# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title DataSource of batches posted in blobs (EIP-4844)
@license MIT
@notice Shows what a batch's blobs say about one segment, as `DataSourceCalldata` does of calldata. Element i of the payload
        is field element i % 4096 of blob i // 4096; the data root is a chain over the blobs' versioned hashes:
        root = keccak(root || hash), from 0. A proof is these hashes; then, in the order in which they are needed (root
        before, root after, offset before, offset after, records), each element with its KZG opening, and before the
        first of a blob that blob's commitment.
@dev Field element i of a blob is the polynomial's value at w^(i with its 12 bits reversed). The proof is read where it
     stands in calldata. An opening costs about 53,000 gas.
@custom:security A field element can be above 2^248, which no honest payload holds: its low 248 bits are the element, so
        that every blob has one meaning. A wrong opening reverts; a payload with bad tables does not.
@custom:kill Nothing: it holds no state and no privilege.
"""

from lib import batch


# Where a Rollup takes the payloads that this source shows.
in_blobs: public(constant(bool)) = True

BLOBS_MAX: constant(uint256) = 32
ROOT_OF_UNITY: constant(uint256) = 39033254847818212395286706435128746857159659164139250548781411570340225835782
MODULUS: constant(uint256) = 52435875175126190479447740508185965837690552500527637822603658699938581184513
MODEXP: constant(address) = 0x0000000000000000000000000000000000000005
POINT_EVALUATION: constant(address) = 0x000000000000000000000000000000000000000A
POINT_EVALUATION_GAS: constant(uint256) = 50_000
PROOF_HEAD: constant(uint256) = 196  # calldata position of the proof's length: selector and 6 words
PROOF_START: constant(uint256) = 228


# Where the reader stands: the open blob (its number + 1; 0 = none), where in calldata its commitment and the next part of
# the proof begin, and where the proof ends.
struct Reader:
    blob: uint256
    commitment: uint256
    next: uint256
    end: uint256


@external
@view
@reentrant
def segment(
    data_root: bytes32,
    elements: uint256,
    segments: uint256,
    ticks: uint256,
    index: uint256,
    proof: Bytes[batch.PROOF_BYTES_MAX],
) -> batch.Segment:
    """
    @notice What the payload of `elements` elements under `data_root`, with so many ticks, says about segment `index` of
            `segments`.
    @dev Records are opened only where the tables give a segment some, inside the payload and at most as many as its
         weight can let in; otherwise the list is empty, and the offsets alone are the fraud.
    """
    # The compiler has checked the length, wherever the offset points; this makes that the place that is read here.
    assert convert(slice(msg.data, PROOF_HEAD - 32, 32), uint256) == PROOF_HEAD - 4, "data: calldata is not canonical"
    assert index < segments, "data: no such segment"
    tables: uint256 = batch._tables(segments, ticks)
    assert tables <= elements, "data: tables exceed the payload"
    reader: Reader = self._hashes(data_root, elements, PROOF_START + len(proof))
    found: batch.Segment = empty(batch.Segment)
    word: uint256 = 0

    if index > 0:
        reader, found.before = self._element(reader, unsafe_sub(index, 1))
    reader, found.root = self._element(reader, index)

    # One element holds ten offsets: it is opened once when it holds both.
    holder: uint256 = segments + index // batch.OFFSETS_PER_ELEMENT
    if index > 0:
        earlier: uint256 = segments + unsafe_sub(index, 1) // batch.OFFSETS_PER_ELEMENT
        reader, word = self._element(reader, earlier)
        found.start = self._offset(word, unsafe_sub(index, 1))
        if earlier != holder:
            reader, word = self._element(reader, holder)
    else:
        reader, word = self._element(reader, holder)
    found.end = self._offset(word, index)

    if (
        found.start < found.end
        and found.end <= unsafe_sub(elements, tables)
        and unsafe_sub(found.end, found.start) <= batch.SEGMENT_ELEMENTS_MAX
    ):
        element: uint256 = tables + found.start
        for _: uint256 in range(unsafe_sub(found.end, found.start), bound=batch.SEGMENT_ELEMENTS_MAX):
            reader, word = self._element(reader, element)
            found.records.append(word)
            element = unsafe_add(element, 1)  # <= elements
    assert reader.next == reader.end, "data: surplus proof"
    return found


@external
@view
@reentrant
def tick_id(
    data_root: bytes32,
    elements: uint256,
    segments: uint256,
    ticks: uint256,
    index: uint256,
    proof: Bytes[batch.PROOF_BYTES_MAX],
) -> uint256:
    """
    @notice What the payload says of the header of its tick `index`: 31 bytes, right-aligned.
    @param proof The versioned hashes, and the element with its opening.
    """
    assert convert(slice(msg.data, PROOF_HEAD - 32, 32), uint256) == PROOF_HEAD - 4, "data: calldata is not canonical"
    assert index < ticks, "data: no such tick"
    assert batch._tables(segments, ticks) <= elements, "data: tables exceed the payload"
    reader: Reader = self._hashes(data_root, elements, PROOF_START + len(proof))
    word: uint256 = 0
    reader, word = self._element(reader, batch._ids(segments) + index)
    assert reader.next == reader.end, "data: surplus proof"
    return word


@internal
@view
def _hashes(data_root: bytes32, elements: uint256, end: uint256) -> Reader:
    """
    @notice A reader that has checked the versioned hashes at the head of the proof, one a blob.
    """
    blobs: uint256 = (elements + batch.BLOB_ELEMENTS - 1) // batch.BLOB_ELEMENTS
    assert blobs <= BLOBS_MAX, "data: payload too large"
    assert PROOF_START + (blobs << 5) <= end, "data: proof too short"
    root: bytes32 = empty(bytes32)
    at: uint256 = PROOF_START
    for _: uint256 in range(blobs, bound=BLOBS_MAX):
        root = keccak256(concat(root, slice(msg.data, at, 32)))
        at = unsafe_add(at, 32)  # <= end
    assert root == data_root, "data: blobs are not the payload's"
    return Reader(blob=0, commitment=0, next=at, end=end)


@internal
@view
def _element(reader: Reader, element: uint256) -> (Reader, uint256):
    """
    @notice The next element of the proof, which must be that of `element`, and the reader after it.
    """
    here: Reader = reader
    blob: uint256 = element // batch.BLOB_ELEMENTS
    if here.blob != unsafe_add(blob, 1):
        here.blob = unsafe_add(blob, 1)
        here.commitment = here.next
        here.next = unsafe_add(here.next, 48)  # far from 2^256, like all positions here
    assert unsafe_add(here.next, 80) <= here.end, "data: proof too short"
    opened: bool = raw_call(
        POINT_EVALUATION,
        concat(
            slice(msg.data, PROOF_START + (blob << 5), 32),
            self._point(element % batch.BLOB_ELEMENTS),
            slice(msg.data, here.next, 32),
            slice(msg.data, here.commitment, 48),
            slice(msg.data, unsafe_add(here.next, 32), 48),
        ),
        gas=POINT_EVALUATION_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    assert opened, "data: element is not in the blob"
    word: uint256 = convert(slice(msg.data, here.next, 32), uint256) & (2**248 - 1)
    here.next = unsafe_add(here.next, 80)
    return here, word


@internal
@view
def _point(place: uint256) -> bytes32:
    """
    @notice Where a blob's polynomial takes the value of its field element `place`: w^reversed(place).
    """
    bits: uint256 = ((place & 1_365) << 1) | ((place >> 1) & 1_365)  # pairs
    bits = ((bits & 819) << 2) | ((bits >> 2) & 819)  # nibbles
    bits = ((bits & 15) << 8) | (bits & 240) | (bits >> 8)  # 12 bits
    size: uint256 = 32
    return convert(
        raw_call(
            MODEXP, abi_encode(size, size, size, ROOT_OF_UNITY, bits, MODULUS), max_outsize=32, is_static_call=True
        ),
        bytes32,
    )


@internal
@pure
def _offset(word: uint256, index: uint256) -> uint256:
    """
    @notice End of segment `index`, in elements of the record area, from the element that holds it.
    """
    return (word >> (224 - 24 * (index % batch.OFFSETS_PER_ELEMENT))) & (2**24 - 1)
