# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Rollup: batch headers, the sequencer's bond, the clock of finality
@license MIT
@notice The sequencer posts batches: a post-state root, and in calldata the records that lead to it with a root after
        each segment of them. The contract checks what can be checked without executing, computes the data root
        itself, and keeps one hash of the header. A batch is final when its challenge window has passed.
@dev `post` reads the payload from the transaction's own calldata, in the one canonical ABI form.
@custom:security No batch is re-executed here, and this contract has no way to roll one back: until a fraud proof is
        attached, whoever claims against a final root trusts the sequencer, or a watcher who would have shouted.
@custom:kill The sequencer can stop posting, and can take its bond back when all it posted is final; posting is then
        shut until a bond stands again. It cannot change or withdraw a posted batch, shorten the window, or touch
        collateral except through a root. Nobody else has any privilege; nothing can be upgraded.
"""

from lib import codec
from lib import constants


interface IInbox:
    def hash_at(i: uint256) -> bytes32: view


struct Batch:
    header_hash: bytes32
    post_root: bytes32
    posted_at: uint256  # seconds


# Calldata of a batch stays below 120 KiB, of the 128 KiB that nodes relay: 123 whole chunks and 292 bytes of ABI head.
PAYLOAD_BYTES_MAX: constant(uint256) = 122_016
PAYLOAD_HEAD: constant(uint256) = 260  # calldata position of the payload's length: selector and 8 words
PAYLOAD_START: constant(uint256) = 292
LEAVES_MAX: constant(uint256) = 128  # next power of two of 123 chunks
LEVELS: constant(uint256) = 7
WINDOW_MAX_S: constant(uint256) = 30 * 86_400

sequencer: public(immutable(address))
inbox: public(immutable(address))
challenge_window_s: public(immutable(uint256))
bond_min: public(immutable(uint256))  # wei
drift_max_s: public(immutable(uint256))


event Bonded:
    amount: uint256
    total: uint256


event Unbonded:
    amount: uint256


event BatchPosted:
    batch_id: indexed(uint256)
    post_root: bytes32
    data_root: bytes32
    header_hash: bytes32
    segments: uint256
    records: uint256
    first_seq: uint256
    time: uint256
    inbox_count: uint256


# Where the last batch ended: 0..39 next batch id, 40..79 next seq, 80..111 time (s), 112..151 inbox count.
# Written by post.
_tip: uint256
# What the sequencer stands to lose, wei. Written by bond and unbond; not self.balance, which anybody can raise.
bond_total: public(uint256)
# Header hash of a batch. Written by post.
_header_hashes: HashMap[uint256, bytes32]
# State root after a batch; [0] is genesis. Written by the constructor and post.
_roots: HashMap[uint256, bytes32]
# When a batch was posted: 8 times of 32 bits (s) a word, batch id at word id / 8, bits 32 * (id % 8). Written by post.
_posted: HashMap[uint256, uint256]


@deploy
def __init__(
    genesis_root: bytes32,
    sequencer_: address,
    inbox_: address,
    challenge_window_s_: uint256,
    bond_min_: uint256,
    drift_max_s_: uint256,
):
    """
    @param genesis_root State root before batch 1.
    @param sequencer_ The one address that posts.
    @param inbox_ The L1 queue that batches consume.
    @param challenge_window_s_ Seconds from posting to finality.
    @param bond_min_ Wei that must stand as bond for a batch to be accepted.
    @param drift_max_s_ Seconds that a batch's time may be ahead of the block's.
    """
    assert genesis_root != empty(bytes32), "rollup: genesis root is zero"
    assert sequencer_ != empty(address), "rollup: sequencer is zero"
    assert inbox_.is_contract, "rollup: inbox is not a contract"
    assert challenge_window_s_ > 0, "rollup: challenge window is zero"
    assert challenge_window_s_ <= WINDOW_MAX_S, "rollup: challenge window above 30 days"
    assert bond_min_ > 0, "rollup: bond minimum is zero"
    # Otherwise a batch could be final before the time it speaks of has come.
    assert drift_max_s_ <= challenge_window_s_, "rollup: drift above the challenge window"
    sequencer = sequencer_
    inbox = inbox_
    challenge_window_s = challenge_window_s_
    bond_min = bond_min_
    drift_max_s = drift_max_s_
    self._roots[0] = genesis_root
    self._posted[0] = block.timestamp
    self._tip = 1


@external
@payable
def bond():
    """
    @notice Adds to the sequencer's bond; anybody may, and it then is the sequencer's.
    """
    total: uint256 = self.bond_total + msg.value
    self.bond_total = total
    log Bonded(amount=msg.value, total=total)


@external
def unbond():
    """
    @notice Returns the whole bond to the sequencer once every batch is final.
    @custom:kill The sequencer alone; it cannot take the bond while a batch can still be challenged.
    """
    assert msg.sender == sequencer, "rollup: caller is not the sequencer"
    # Batches become final in order: the last one being final, all are.
    assert self._is_final(unsafe_sub(self._tip & constants.U40_MAX, 1)), "rollup: last batch is not final"
    amount: uint256 = self.bond_total
    assert amount > 0, "rollup: no bond"
    self.bond_total = 0
    log Unbonded(amount=amount)
    raw_call(sequencer, b"", value=amount)


@external
def post(
    batch_id: uint256,
    post_root: bytes32,
    segments: uint256,
    records: uint256,
    first_seq: uint256,
    time: uint256,
    inbox_count: uint256,
    payload: Bytes[PAYLOAD_BYTES_MAX],
):
    """
    @notice Posts the next batch.
    @dev Everything happens in `_post`, whose memory lies below the payload's, so that memory is paid for by the
         payload's length and not by its bound.
    @param batch_id The next one.
    @param post_root State root after the batch.
    @param segments How many roots the payload holds.
    @param records How many records the payload holds.
    @param first_seq Sequence number of the first record: where the previous batch ended.
    @param time GLOBAL time after the batch, seconds.
    @param inbox_count GLOBAL inbox count after the batch.
    @param payload Elements of 31 bytes: roots, one a segment; end offsets, ten an element; records.
    @custom:kill The sequencer alone; who else could post could fill the chain with garbage.
    """
    self._post(batch_id, post_root, segments, records, first_seq, time, inbox_count)


@external
@view
@reentrant
def next_batch() -> uint256:
    """
    @notice Id of the batch to be posted next; the first is 1.
    """
    return self._tip & constants.U40_MAX


@external
@view
@reentrant
def tip() -> (uint256, uint256, uint256):
    """
    @notice Where the last batch ended: next sequence number, time (seconds), inbox count.
    """
    packed: uint256 = self._tip
    return (
        (packed >> 40) & constants.U40_MAX,
        (packed >> 80) & constants.U32_MAX,
        (packed >> 112) & constants.U40_MAX,
    )


@external
@view
@reentrant
def batch(batch_id: uint256) -> Batch:
    """
    @notice What is kept of a batch. Batch 0 is genesis: its header hash is 0, its time that of the deployment.
    """
    self._check_known(batch_id)
    return Batch(
        header_hash=self._header_hashes[batch_id],
        post_root=self._roots[batch_id],
        posted_at=self._posted_at(batch_id),
    )


@external
@view
@reentrant
def final_root(batch_id: uint256) -> bytes32:
    """
    @notice State root after a final batch; of batch 0 the genesis root.
    """
    self._check_known(batch_id)
    assert self._is_final(batch_id), "rollup: not final"
    return self._roots[batch_id]


@external
@view
@reentrant
def is_final(batch_id: uint256) -> bool:
    """
    @notice Whether a batch is known and its challenge window has passed. Genesis is final from the start.
    """
    return batch_id < self._tip & constants.U40_MAX and self._is_final(batch_id)


@external
@view
@reentrant
def last_final() -> uint256:
    """
    @notice The highest final batch id, 0 (genesis) when no batch is final. Times ascend: a binary search finds it.
    """
    low: uint256 = 0
    high: uint256 = self._tip & constants.U40_MAX  # exclusive
    for _: uint256 in range(40):
        if high - low == 1:
            break
        middle: uint256 = (low + high) >> 1
        if self._is_final(middle):
            low = middle
        else:
            high = middle
    return low


@external
@view
@reentrant
def domain_separator() -> bytes32:
    """
    @notice EIP-712 domain separator under which L2 records are signed.
    """
    return codec._domain_separator(self)


@internal
def _post(
    batch_id: uint256,
    post_root: bytes32,
    segments: uint256,
    records: uint256,
    first_seq: uint256,
    time: uint256,
    inbox_count: uint256,
):
    """
    @notice Checks the header against the chain and the payload, and keeps its hash.
    """
    assert msg.sender == sequencer, "rollup: caller is not the sequencer"
    # Watchers read the payload from the transaction. Behind a contract (or an EIP-7702 delegation, which has code) it
    # could be made in memory, where only a tracing node would see it.
    assert msg.sender == tx.origin and msg.sender.codesize == 0, "rollup: payload is not transaction calldata"
    assert self.bond_total >= bond_min, "rollup: bond below the minimum"

    tip: uint256 = self._tip
    assert batch_id == tip & constants.U40_MAX, "rollup: not the next batch"
    assert first_seq == (tip >> 40) & constants.U40_MAX, "rollup: first seq is not the next"
    assert time >= (tip >> 80) & constants.U32_MAX, "rollup: time falls"
    assert time <= block.timestamp + drift_max_s, "rollup: time ahead of the block"
    assert inbox_count >= (tip >> 112) & constants.U40_MAX, "rollup: inbox count falls"
    inbox_hash: bytes32 = staticcall IInbox(inbox).hash_at(inbox_count)  # reverts beyond the inbox's count

    length: uint256 = self._word(PAYLOAD_HEAD)
    self._check_payload(length, post_root, segments, records)
    data_root: bytes32 = self._data_root(length)
    header_hash: bytes32 = keccak256(
        abi_encode(
            batch_id,
            self._roots[unsafe_sub(batch_id, 1)],  # batch_id >= 1
            post_root,
            data_root,
            segments,
            records,
            first_seq,
            time,
            inbox_count,
            inbox_hash,
        )
    )

    next_seq: uint256 = first_seq + records
    assert next_seq <= constants.U40_MAX, "rollup: sequence numbers exhausted"
    # Fits: an id below 2^40 batches of 2^15 gas, a time near the block's (32 bits until 2106), a count of paid deposits.
    self._tip = (batch_id + 1) | (next_seq << 40) | (time << 80) | (inbox_count << 112)
    self._roots[batch_id] = post_root
    self._header_hashes[batch_id] = header_hash
    self._posted[batch_id >> 3] |= block.timestamp << ((batch_id & 7) << 5)
    log BatchPosted(
        batch_id=batch_id,
        post_root=post_root,
        data_root=data_root,
        header_hash=header_hash,
        segments=segments,
        records=records,
        first_seq=first_seq,
        time=time,
        inbox_count=inbox_count,
    )


@internal
@view
def _check_payload(length: uint256, post_root: bytes32, segments: uint256, records: uint256):
    """
    @notice Checks the form of the calldata and the payload's tables against the header.
    @dev Vyper has checked length <= PAYLOAD_BYTES_MAX when it decoded the argument, wherever its offset points;
         the first line makes that the place that is read here.
    """
    assert (
        self._word(PAYLOAD_HEAD - 32) == PAYLOAD_HEAD - 4
        and len(msg.data) == PAYLOAD_START + ((length + 31) & ~convert(31, uint256))
    ), "rollup: calldata is not canonical"
    assert length % constants.ELEMENT_BYTES == 0, "rollup: payload is not whole elements"
    assert segments > 0, "rollup: no segment"
    elements: uint256 = length // constants.ELEMENT_BYTES  # <= 3936
    assert segments <= elements, "rollup: payload shorter than its tables"  # keeps what follows from overflow
    tables: uint256 = segments + (segments + constants.OFFSETS_PER_ELEMENT - 1) // constants.OFFSETS_PER_ELEMENT
    assert tables <= elements, "rollup: payload shorter than its tables"
    # A record has at least one element, a segment at least one record.
    assert segments <= records and records <= elements - tables, "rollup: record count does not fit"

    last: uint256 = segments - 1
    root_position: uint256 = PAYLOAD_START + last * constants.ELEMENT_BYTES
    assert self._word(root_position) >> 8 == convert(post_root, uint256) >> 8, "rollup: last root is not the post-root"
    # An offset beyond the payload would name records that nobody could open in a challenge.
    offset_position: uint256 = (
        PAYLOAD_START
        + (segments + last // constants.OFFSETS_PER_ELEMENT) * constants.ELEMENT_BYTES
        + (last % constants.OFFSETS_PER_ELEMENT) * constants.OFFSET_BYTES
    )
    assert self._word(offset_position) >> 232 == elements - tables, "rollup: last offset is not the end"


@internal
@view
def _data_root(length: uint256) -> bytes32:
    """
    @notice Merkle root over the payload's chunks of 992 bytes, the last one zero padded, with zero leaves up to the
            next power of two.
    @param length Bytes of the payload, which lies at PAYLOAD_START; 0 < length <= PAYLOAD_BYTES_MAX.
    """
    nodes: bytes32[LEAVES_MAX] = empty(bytes32[LEAVES_MAX])
    whole: uint256 = length // constants.CHUNK_BYTES
    position: uint256 = PAYLOAD_START
    for i: uint256 in range(whole, bound=LEAVES_MAX):
        nodes[i] = keccak256(slice(msg.data, position, constants.CHUNK_BYTES))
        position = unsafe_add(position, constants.CHUNK_BYTES)  # <= PAYLOAD_START + length
    count: uint256 = whole
    rest: uint256 = length % constants.CHUNK_BYTES
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
    @dev The canonical form pads the payload to a whole word; whatever stands in that padding is masked away, or one
         payload would have many data roots.
    """
    words: bytes32[constants.CHUNK_WORDS] = empty(bytes32[constants.CHUNK_WORDS])
    whole: uint256 = rest >> 5
    at: uint256 = position
    for i: uint256 in range(whole, bound=constants.CHUNK_WORDS):
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


@internal
@view
def _posted_at(batch_id: uint256) -> uint256:
    """
    @notice When a known batch was posted, seconds.
    """
    return (self._posted[batch_id >> 3] >> ((batch_id & 7) << 5)) & constants.U32_MAX


@internal
@view
def _is_final(batch_id: uint256) -> bool:
    """
    @notice Whether the window of a known batch has passed.
    """
    return batch_id == 0 or block.timestamp >= self._posted_at(batch_id) + challenge_window_s


@internal
@view
def _check_known(batch_id: uint256):
    """
    @notice Reverts unless the batch has been posted or is genesis.
    """
    assert batch_id < self._tip & constants.U40_MAX, "rollup: unknown batch"
