# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title DataSource of batches posted as calldata
@license MIT
@notice Shows what a posted payload says about one segment: the roots committed before and after it, where the tables
        put its records, and the records. A proof is the chunks of 992 bytes in which these stand, in the order in which
        they stand, each once and each followed by its Merkle path: a bare string, canonical to the byte.
@dev Everything it reads lies in ascending order: root before, root after, offset before, offset after, records. One
     cursor over the proof is enough, and no chunk needs to say which one it is. The proof is read where it stands in
     calldata.
@custom:security An index below the number of elements is below 2^depth, so that the path binds the chunk to its place.
        A wrong proof reverts; a payload with bad tables does not, for that is a fraud to be shown.
@custom:kill Nothing: it holds no state and no privilege.
"""

from lib import batch


# Where a Rollup takes the payloads that this source shows.
in_blobs: public(constant(bool)) = False

PROOF_HEAD: constant(uint256) = 196  # calldata position of the proof's length: selector and 6 words
PROOF_START: constant(uint256) = 228


# Where the reader stands: the open chunk (its number + 1; 0 = none), where in calldata it and the next begin, and where
# the proof ends.
struct Reader:
    chunk: uint256
    at: uint256
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
    # Rollup has bounded elements by 3,936 and the tables by elements; a header of its making passes.
    assert index < segments, "data: no such segment"
    tables: uint256 = batch._tables(segments, ticks)
    assert tables <= elements, "data: tables exceed the payload"
    depth: uint256 = self._depth(elements)
    reader: Reader = Reader(chunk=0, at=0, next=PROOF_START, end=PROOF_START + len(proof))
    found: batch.Segment = empty(batch.Segment)

    if index > 0:
        reader = self._open(reader, unsafe_sub(index, 1), data_root, depth)
        found.before = self._element(reader, unsafe_sub(index, 1))
    reader = self._open(reader, index, data_root, depth)
    found.root = self._element(reader, index)

    if index > 0:
        reader = self._open(reader, self._offset_element(segments, unsafe_sub(index, 1)), data_root, depth)
        found.start = self._offset(reader, segments, unsafe_sub(index, 1))
    reader = self._open(reader, self._offset_element(segments, index), data_root, depth)
    found.end = self._offset(reader, segments, index)

    if (
        found.start < found.end
        and found.end <= unsafe_sub(elements, tables)
        and unsafe_sub(found.end, found.start) <= batch.SEGMENT_ELEMENTS_MAX
    ):
        element: uint256 = tables + found.start
        for _: uint256 in range(unsafe_sub(found.end, found.start), bound=batch.SEGMENT_ELEMENTS_MAX):
            reader = self._open(reader, element, data_root, depth)
            found.records.append(self._element(reader, element))
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
    @param proof The chunk that holds it, and its path.
    """
    assert convert(slice(msg.data, PROOF_HEAD - 32, 32), uint256) == PROOF_HEAD - 4, "data: calldata is not canonical"
    assert index < ticks, "data: no such tick"
    assert batch._tables(segments, ticks) <= elements, "data: tables exceed the payload"
    reader: Reader = Reader(chunk=0, at=0, next=PROOF_START, end=PROOF_START + len(proof))
    element: uint256 = batch._ids(segments) + index
    reader = self._open(reader, element, data_root, self._depth(elements))
    assert reader.next == reader.end, "data: surplus proof"
    return self._element(reader, element)


@internal
@pure
def _depth(elements: uint256) -> uint256:
    """
    @notice Levels above the chunks of a payload.
    """
    chunks: uint256 = (elements + batch.CHUNK_ELEMENTS - 1) // batch.CHUNK_ELEMENTS
    depth: uint256 = 0
    for _: uint256 in range(batch.LEVELS):
        if 1 << depth >= chunks:
            break
        depth = unsafe_add(depth, 1)  # <= LEVELS
    assert 1 << depth >= chunks, "data: payload too large"
    return depth


@internal
@view
def _open(reader: Reader, element: uint256, data_root: bytes32, depth: uint256) -> Reader:
    """
    @notice The reader with the chunk of `element` open: the one that is, or the next of the proof.
    """
    chunk: uint256 = element // batch.CHUNK_ELEMENTS
    if reader.chunk == unsafe_add(chunk, 1):
        return reader
    at: uint256 = reader.next
    next: uint256 = at + batch.CHUNK_BYTES + (depth << 5)
    assert next <= reader.end, "data: proof too short"
    node: bytes32 = keccak256(slice(msg.data, at, batch.CHUNK_BYTES))
    place: uint256 = chunk
    offset: uint256 = at + batch.CHUNK_BYTES
    for _: uint256 in range(depth, bound=batch.LEVELS):
        sibling: bytes32 = convert(slice(msg.data, offset, 32), bytes32)
        node = keccak256(abi_encode(node, sibling) if place & 1 == 0 else abi_encode(sibling, node))
        place = place >> 1
        offset = unsafe_add(offset, 32)
    assert node == data_root, "data: chunk is not in the payload"
    return Reader(chunk=unsafe_add(chunk, 1), at=at, next=next, end=reader.end)


@internal
@view
def _element(reader: Reader, element: uint256) -> uint256:
    """
    @notice An element of the open chunk, from the word that ends with it; the byte before it is masked away.
    """
    position: uint256 = reader.at + (element % batch.CHUNK_ELEMENTS) * batch.ELEMENT_BYTES
    return convert(slice(msg.data, position - 1, 32), uint256) & (2**248 - 1)


@internal
@pure
def _offset_element(segments: uint256, index: uint256) -> uint256:
    """
    @notice Element in which the end of segment `index` stands.
    """
    return segments + index // batch.OFFSETS_PER_ELEMENT


@internal
@view
def _offset(reader: Reader, segments: uint256, index: uint256) -> uint256:
    """
    @notice End of segment `index`, in elements of the record area.
    """
    element: uint256 = self._element(reader, self._offset_element(segments, index))
    return (element >> (224 - 24 * (index % batch.OFFSETS_PER_ELEMENT))) & (2**24 - 1)
