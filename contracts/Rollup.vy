# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Rollup: batch headers, the clock of finality
@license MIT
@notice The leader of the `Sequencers` posts batches: a post-state root, and in calldata or blobs the records that lead to it with a root
        after each segment of them. The contract checks what can be checked without executing, computes the data root
        itself, and keeps one hash of the header. A batch is final when its challenge window has passed.
@dev `post` reads the payload from the transaction's own calldata, in the one canonical ABI form. The arbiter knows this
     contract's address and is named here after both are deployed, once, for the reasons given in `Inbox`; until then
     nothing can be posted, so that no batch exists that nobody could challenge. The arbiter's data source says whether
     payloads lie in calldata or in blobs; a batch of the other sort could not be opened, and is not taken. What calldata
     lets `post` check of a payload (its last root and offset) is left to a challenge in blobs.
@custom:security A root is what the sequencer says until the window has passed. The `Arbiter`, and nobody else, takes a
        batch back, with all that follow, and only before it is final.
@custom:kill The leader can stop posting; another member of the set takes over then. It cannot change or withdraw a posted
        batch, shorten the window, or touch collateral except through a root. The arbiter can delete batches that are not
        final and have their poster's bond slashed; it can neither write a root nor touch a final batch or collateral.
        Anybody can freeze the rollup, for good, once a message of the inbox was left unserved past its deadline, or all
        have been silent too long: nothing is posted then, and `Exit` pays from the last batch. The deployer names the
        arbiter, once. Nobody else has any privilege; nothing can be upgraded.
"""

from lib import batch as payloads
from lib import codec
from lib import constants
from lib import work as units


interface IInbox:
    def hash_at(i: uint256) -> bytes32: view
    def unserved_since(i: uint256) -> uint256: view
    def overdue(inbox_count: uint256, i: uint256) -> bool: view
    def delay_min_s() -> uint256: view
    def delay_max_s() -> uint256: view


interface ISequencers:
    def epoch_led_by(poster: address) -> uint256: view
    def rotation_s() -> uint256: view
    def slash(epoch: uint256, receiver: address) -> (address, uint256, uint256): nonpayable


interface IArbiter:
    def rollup() -> address: view
    def data_source() -> address: view


interface IDataSource:
    def in_blobs() -> bool: view


struct Batch:
    header_hash: bytes32
    post_root: bytes32
    posted_at: uint256  # seconds


# Where a batch ended, and what stood when it was posted.
struct End:
    next_seq: uint256
    time: uint256  # GLOBAL time, seconds
    inbox_count: uint256
    posted_at: uint256  # seconds
    rolled_back_at: uint256  # when a batch had last been rolled back by then, seconds; 0: none had
    work: uint256  # of GLOBAL
    tick: uint256  # of GLOBAL


ARGUMENTS: constant(uint256) = 12  # of post and of post_blobs
PAYLOAD_HEAD: constant(uint256) = 4 + 32 * ARGUMENTS  # calldata position of the payload's length
PAYLOAD_START: constant(uint256) = PAYLOAD_HEAD + 32
BLOBS_MAX: constant(uint256) = 6  # of one transaction (EIP-7594)
WINDOW_MAX_S: constant(uint256) = 30 * 86_400
SILENCE_LIMIT_S: constant(uint256) = 30 * 86_400
# Reasons of a freeze.
OVERDUE: constant(uint256) = 1  # a message of the inbox waits past its deadline
SILENCE: constant(uint256) = 2  # nothing was posted for silence_max_s

sequencers: public(immutable(address))
inbox: public(immutable(address))
arbiter_setter: public(immutable(address))
challenge_window_s: public(immutable(uint256))
drift_max_s: public(immutable(uint256))
silence_max_s: public(immutable(uint256))
work_per_s: public(immutable(uint256))
work_max: public(immutable(uint256))


event ArbiterSet:
    arbiter: indexed(address)


event BatchPosted:
    batch_id: indexed(uint256)
    pre_root: bytes32
    post_root: bytes32
    data_root: bytes32
    elements: uint256
    segments: uint256
    records: uint256
    first_seq: uint256
    time: uint256
    inbox_count: uint256
    inbox_hash: bytes32
    work: uint256
    tick: uint256
    ticks: uint256
    header_hash: bytes32


event RolledBack:
    batch_id: indexed(uint256)
    challenger: indexed(address)
    slashed: uint256


event Frozen:
    reason: indexed(uint256)
    index: uint256  # of the overdue message; without meaning after a silence


# Id of the batch to be posted next; what the maps below hold from it on is void. Written by the constructor, post and
# roll_back.
next_batch: public(uint256)
# Header hash of a batch. Written by post.
_header_hashes: HashMap[uint256, bytes32]
# State root after a batch; [0] is genesis. Written by the constructor and post.
_roots: HashMap[uint256, bytes32]
# Where a batch ended: 0..39 next seq, 40..71 time (s), 72..111 inbox count, 112..143 when it was posted (s), 144..175 when
# a batch had last been rolled back by then (s): an excuse for messages that it takes late, which a later roll-back must
# neither give nor take; 176..207 in what epoch of the Sequencers; 208..255 GLOBAL's work. One word a batch, so that a
# roll-back restores the end before it without being told. Written by the constructor and post.
_ends: HashMap[uint256, uint256]
# Since when there is silence behind a batch (see unserved_since), seconds, 32 bits each, 8 batches a word, the first lowest.
# Written by the constructor and post.
_unserved: HashMap[uint256, uint256]
# Tick of GLOBAL after a batch, 64 bits each, 4 batches a word, the first lowest. Written by the constructor and post.
_ticks: HashMap[uint256, uint256]
# The last roll-back: 0..63 when, seconds; 64..127 the last tick that it left standing; 128..255 how many there were with it.
# 0: none. One word, for a challenge pays for each. Written by roll_back: what it has untaken gets a new time to be taken.
_last_roll_back: uint256
# Those before it, likewise; [0] is the first. Written by roll_back.
_roll_backs: HashMap[uint256, uint256]
# What the next batch may cost a watcher: 0..63 units that were left by the last one, 64..95 when it was posted (s). A
# roll-back gives nothing back, because watchers have done the work: a liar could post the heaviest batch again and again
# in one block. Written by the constructor and post.
_budget: uint256
# The only caller of roll_back. Written once by set_arbiter; without the "once", the deployer could take the bonds.
arbiter: public(address)
# Whether payloads lie in blobs: where the arbiter's data source looks. Written with the arbiter.
in_blobs: public(bool)
# When freeze ended posting, seconds; 0: it has not. Written once by freeze.
frozen_at: public(uint256)


@deploy
def __init__(
    genesis_root: bytes32,
    sequencers_: address,
    inbox_: address,
    challenge_window_s_: uint256,
    drift_max_s_: uint256,
    silence_max_s_: uint256,
    work_per_s_: uint256,
    work_max_: uint256,
):
    """
    @param genesis_root State root before batch 1.
    @param sequencers_ The set whose leader posts.
    @param inbox_ The L1 queue that batches consume.
    @param challenge_window_s_ Seconds from posting to finality.
    @param drift_max_s_ Seconds that a batch's time may be ahead of the block's.
    @param silence_max_s_ Seconds without a batch after which anybody may freeze.
    @param work_per_s_ Units of work (`lib/work.vy`) by which the budget of batches grows, a second.
    @param work_max_ Units that it holds at most: what batches of one block may cost together.
    """
    assert genesis_root != empty(bytes32), "rollup: genesis root is zero"
    assert sequencers_.is_contract, "rollup: sequencers are not a contract"
    assert inbox_.is_contract, "rollup: inbox is not a contract"
    assert challenge_window_s_ > 0, "rollup: challenge window is zero"
    assert challenge_window_s_ <= WINDOW_MAX_S, "rollup: challenge window above 30 days"
    # Otherwise a batch could be final before the time it speaks of has come.
    assert drift_max_s_ <= challenge_window_s_, "rollup: drift above the challenge window"
    assert silence_max_s_ <= SILENCE_LIMIT_S, "rollup: silence above 30 days"
    # Silence is the last resort: it must not come before what a message can wait for.
    assert staticcall IInbox(inbox_).delay_max_s() <= silence_max_s_, "rollup: silence below the inbox's delay"
    # If all members but one of a full set collude, it still leads in time to serve any message: in the second half of its
    # shortest delay (see Inbox.unserved_since).
    assert (
        staticcall ISequencers(sequencers_).rotation_s() <= staticcall IInbox(inbox_).delay_min_s() >> 1
    ), "rollup: last take-over after a deadline"
    assert work_max_ >= units.BATCH + units.BLOB + units.SEGMENT_MAX, "rollup: work below a segment's"
    assert work_per_s_ > 0, "rollup: no work"
    # What a watcher has to do for a slot of L1 must leave it time to spare, whether it comes at once or spread out.
    assert work_max_ <= units.SLOT_MAX and work_per_s_ <= units.SLOT_MAX // units.SLOT_S, "rollup: work above a slot's"
    sequencers = sequencers_
    inbox = inbox_
    challenge_window_s = challenge_window_s_
    drift_max_s = drift_max_s_
    silence_max_s = silence_max_s_
    work_per_s = work_per_s_
    work_max = work_max_
    self._budget = work_max_ | (block.timestamp << 64)
    self._roots[0] = genesis_root
    arbiter_setter = msg.sender
    self._ends[0] = block.timestamp << 112
    self._unserved[0] = block.timestamp
    self.next_batch = 1


@external
def set_arbiter(arbiter: address):
    """
    @notice Names the contract that judges batches.
    @custom:kill Once only, by the deployer; it cannot be changed or revoked.
    """
    assert msg.sender == arbiter_setter, "rollup: caller is not the deployer"
    assert self.arbiter == empty(address), "rollup: arbiter is set already"
    assert arbiter.is_contract and staticcall IArbiter(arbiter).rollup() == self, "rollup: arbiter has another rollup"
    self.arbiter = arbiter
    self.in_blobs = staticcall IDataSource(staticcall IArbiter(arbiter).data_source()).in_blobs()
    log ArbiterSet(arbiter=arbiter)


@external
def post(
    batch_id: uint256,
    pre_root: bytes32,
    post_root: bytes32,
    segments: uint256,
    records: uint256,
    first_seq: uint256,
    time: uint256,
    inbox_count: uint256,
    inbox_hash: bytes32,
    work: uint256,
    tick: uint256,
    payload: Bytes[payloads.PAYLOAD_BYTES_MAX],
):
    """
    @notice Posts the next batch.
    @dev Everything happens in `_post`, whose memory lies below the payload's, so that memory is paid for by the
         payload's length and not by its bound.
    @param batch_id The next one.
    @param pre_root State root before the batch: the post-root of the one before. With `inbox_hash` it names all that the
           batch was made from: mined on another branch of L1, where that is not so, it reverts, and is no fraud.
    @param post_root State root after the batch.
    @param segments How many roots the payload holds.
    @param records How many records the payload holds.
    @param first_seq Sequence number of the first record: where the previous batch ended.
    @param time GLOBAL time after the batch, seconds.
    @param inbox_count GLOBAL inbox count after the batch.
    @param inbox_hash GLOBAL inbox hash after the batch: the Inbox's own after that many messages.
    @param work GLOBAL work after the batch; what it has grown by must be in the budget.
    @param tick GLOBAL tick after the batch; the payload has an id of a header for each that has begun in it.
    @param payload Elements of 31 bytes: roots, one a segment; end offsets, ten an element; ids of ticks' headers; records.
    @custom:kill The leader alone; who else could post could fill the chain with garbage.
    """
    self._post(
        batch_id, pre_root, post_root, segments, records, first_seq, time, inbox_count, inbox_hash, work, tick, 0
    )


@external
def post_blobs(
    batch_id: uint256,
    pre_root: bytes32,
    post_root: bytes32,
    segments: uint256,
    records: uint256,
    first_seq: uint256,
    time: uint256,
    inbox_count: uint256,
    inbox_hash: bytes32,
    work: uint256,
    tick: uint256,
    elements: uint256,
):
    """
    @notice Posts the next batch with its payload in the transaction's blobs: element i in field element i % 4096 of blob
            i // 4096 (see `DataSourceBlob`). The other arguments are those of `post`.
    @param elements How many elements the payload has.
    @custom:kill The leader alone, as `post`.
    """
    assert len(msg.data) == PAYLOAD_HEAD, "rollup: calldata is not canonical"
    assert elements > 0, "rollup: payload shorter than its tables"
    self._post(
        batch_id, pre_root, post_root, segments, records, first_seq, time, inbox_count, inbox_hash, work, tick, elements
    )


@external
def roll_back(batch_id: uint256, challenger: address) -> (address, uint256):
    """
    @notice Deletes `batch_id` and every batch after it, and has the bond of who posted `batch_id` slashed: a part is paid
            to the caller, for the challengers, the rest is burned. Who posted those after it loses nothing.
    @return Who posted it, and what the caller was paid, wei.
    @custom:kill The arbiter alone, on proof; final batches are out of its reach.
    """
    # An unset arbiter is the zero address, which cannot call.
    assert msg.sender == self.arbiter, "rollup: caller is not the arbiter"
    self._check_known(batch_id)
    assert not self._is_final(batch_id), "rollup: batch is final"  # genesis is
    self.next_batch = batch_id
    last: uint256 = self._last_roll_back
    count: uint256 = last >> 128
    if count > 0:
        self._roll_backs[unsafe_sub(count, 1)] = last
    tick: uint256 = self._tick(unsafe_sub(batch_id, 1))  # batch_id >= 1
    self._last_roll_back = block.timestamp | (tick << 64) | (unsafe_add(count, 1) << 128)
    poster: address = empty(address)
    slashed: uint256 = 0
    paid: uint256 = 0
    poster, slashed, paid = extcall ISequencers(sequencers).slash(self._epoch(batch_id), msg.sender)
    log RolledBack(batch_id=batch_id, challenger=challenger, slashed=slashed)
    return poster, paid


@external
def freeze(index: uint256):
    """
    @notice Ends posting for good: the Inbox's message `index` waits past its deadline, or no batch has been posted for
            silence_max_s, whether anything waits or not. Batches that are not final can still be rolled back.
    @dev A roll-back puts the inbox count back, to messages whose deadlines may be long over; whoever is to post the
         honest records again has the inbox's longest delay for it. To buy that time by lying costs most of the bond.
    @param index Of the overdue message; any after a silence.
    @custom:kill Anybody, once the sequencer has failed; it cannot be undone.
    """
    assert self.frozen_at == 0, "rollup: frozen"
    why: uint256 = SILENCE
    if block.timestamp <= self._last_sign() + silence_max_s:
        assert block.timestamp > self._rolled_back_at() + staticcall IInbox(inbox).delay_max_s(), "rollup: time to post again"
        assert staticcall IInbox(inbox).overdue(self._tip_inbox_count(), index), "rollup: nothing is overdue"
        why = OVERDUE
    self.frozen_at = block.timestamp
    log Frozen(reason=why, index=index)


@external
@view
@reentrant
def exit_batch() -> uint256:
    """
    @notice After a freeze, the batch from whose state everybody leaves: the last one, once no roll-back can reach it.
    """
    assert self.frozen_at != 0, "rollup: not frozen"
    last: uint256 = unsafe_sub(self.next_batch, 1)  # next_batch >= 1
    assert self._is_final(last), "rollup: last batch is not final"
    return last


@external
@view
@reentrant
def tip() -> (uint256, uint256, uint256):
    """
    @notice Where the last batch ended: next sequence number, time (seconds), inbox count.
    """
    end: uint256 = self._ends[unsafe_sub(self.next_batch, 1)]  # next_batch >= 1
    return end & constants.U40_MAX, (end >> 40) & constants.U32_MAX, (end >> 72) & constants.U40_MAX


@external
@view
@reentrant
def budget() -> (uint256, uint256, uint256):
    """
    @notice What batches may cost: units that the last one left, since when they grow (seconds), and GLOBAL's work after
            the last batch, from which the next one's is counted.
    """
    budget: uint256 = self._budget
    return budget & constants.U64_MAX, budget >> 64, self._ends[unsafe_sub(self.next_batch, 1)] >> 208  # next_batch >= 1


@external
@view
@reentrant
def unserved_since() -> (uint256, uint256):
    """
    @notice Since when the leader has been silent, seconds: when the last batch was posted, or the half of the shortest
            delay had passed for the first message that it left; not before the last roll-back. And the epoch of the last
            batch, 0 of genesis.
    @dev It never falls, and no message that waits now was pushed half the shortest delay or more before it.
    """
    last: uint256 = unsafe_sub(self.next_batch, 1)  # next_batch >= 1
    since: uint256 = (self._unserved[last >> 3] >> ((last & 7) << 5)) & constants.U32_MAX
    return max(since, self._rolled_back_at()), self._epoch(last)


@external
@view
@reentrant
def epoch_of(batch_id: uint256) -> uint256:
    """
    @notice In what epoch of the Sequencers a known batch was posted: by whom. 0 of genesis.
    """
    self._check_known(batch_id)
    return self._epoch(batch_id)


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
def end(batch_id: uint256) -> End:
    """
    @notice Where a batch ended, and when it was posted. Batch 0 is genesis, posted at the deployment.
    """
    self._check_known(batch_id)
    word: uint256 = self._ends[batch_id]
    return End(
        next_seq=word & constants.U40_MAX,
        time=(word >> 40) & constants.U32_MAX,
        inbox_count=(word >> 72) & constants.U40_MAX,
        posted_at=(word >> 112) & constants.U32_MAX,
        rolled_back_at=(word >> 144) & constants.U32_MAX,
        work=word >> 208,
        tick=self._tick(batch_id),
    )


@external
@view
@reentrant
def tip_tick() -> uint256:
    """
    @notice The last tick that has begun in a batch.
    """
    return self._tick(unsafe_sub(self.next_batch, 1))  # next_batch >= 1


@external
@view
@reentrant
def roll_back_at(i: uint256) -> (uint256, uint256):
    """
    @notice When roll-back `i` of `roll_backs` was, seconds, and the last tick that it left standing.
    """
    word: uint256 = self._last_roll_back
    count: uint256 = word >> 128
    assert i < count, "rollup: no such roll-back"
    if unsafe_add(i, 1) < count:
        word = self._roll_backs[i]
    return word & constants.U64_MAX, (word >> 64) & constants.U64_MAX


@external
@view
@reentrant
def roll_backs() -> uint256:
    """
    @notice How many roll-backs there have been.
    """
    return self._last_roll_back >> 128


@external
@view
@reentrant
def rolled_back_at() -> uint256:
    """
    @notice When a batch was last rolled back, seconds; 0: none was.
    """
    return self._rolled_back_at()


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
    return batch_id < self.next_batch and self._is_final(batch_id)


@external
@view
@reentrant
def last_final() -> uint256:
    """
    @notice The highest final batch id, 0 (genesis) when no batch is final. Times ascend: a binary search finds it.
    """
    low: uint256 = 0
    high: uint256 = self.next_batch  # exclusive
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
    pre_root: bytes32,
    post_root: bytes32,
    segments: uint256,
    records: uint256,
    first_seq: uint256,
    time: uint256,
    inbox_count: uint256,
    inbox_hash: bytes32,
    work: uint256,
    tick: uint256,
    blob_elements: uint256,
):
    """
    @notice Checks the header against the chain and the payload, and keeps its hash.
    @param blob_elements Of the payload when it lies in blobs; 0 when it lies in calldata.
    """
    epoch: uint256 = staticcall ISequencers(sequencers).epoch_led_by(msg.sender)  # reverts unless it leads
    assert self.frozen_at == 0, "rollup: frozen"
    # Watchers read the payload from the transaction. Behind a contract (or an EIP-7702 delegation, which has code) it
    # could be made in memory, where only a tracing node would see it.
    assert msg.sender == tx.origin and msg.sender.codesize == 0, "rollup: payload is not transaction calldata"
    assert self.arbiter != empty(address), "rollup: no arbiter"

    assert batch_id == self.next_batch, "rollup: not the next batch"
    # The sender means one past, and signs it: on another branch of L1 an honest batch would be a fraud.
    assert pre_root == self._roots[unsafe_sub(batch_id, 1)], "rollup: pre-root is not the last root"  # batch_id >= 1
    end: uint256 = self._ends[unsafe_sub(batch_id, 1)]
    assert first_seq == end & constants.U40_MAX, "rollup: first seq is not the next"
    assert time >= (end >> 40) & constants.U32_MAX, "rollup: time falls"
    assert time <= block.timestamp + drift_max_s, "rollup: time ahead of the block"
    assert inbox_count >= (end >> 72) & constants.U40_MAX, "rollup: inbox count falls"
    # hash_at reverts beyond the inbox's count.
    assert inbox_hash == staticcall IInbox(inbox).hash_at(inbox_count), "rollup: inbox hash is not the inbox's"

    assert self.in_blobs == (blob_elements > 0), "rollup: payload is not where the arbiter looks"
    last_tick: uint256 = self._tick(unsafe_sub(batch_id, 1))
    assert tick >= last_tick, "rollup: tick falls"
    ticks: uint256 = unsafe_sub(tick, last_tick)
    elements: uint256 = blob_elements
    data_root: bytes32 = empty(bytes32)
    if blob_elements > 0:
        self._check_counts(elements, segments, records, ticks)
        data_root = self._blob_root(elements)
    else:
        length: uint256 = payloads._word(PAYLOAD_HEAD)
        self._check_payload(length, post_root, segments, records, ticks)
        elements = length // payloads.ELEMENT_BYTES
        data_root = payloads._data_root(PAYLOAD_START, length)
    header: payloads.Header = payloads.Header(
        batch_id=batch_id,
        pre_root=pre_root,
        post_root=post_root,
        data_root=data_root,
        elements=elements,
        segments=segments,
        records=records,
        first_seq=first_seq,
        time=time,
        inbox_count=inbox_count,
        inbox_hash=inbox_hash,
        work=work,
        tick=tick,
        ticks=ticks,
    )
    header_hash: bytes32 = payloads._header_hash(header)
    self._spend(work, end >> 208, blob_elements)

    next_seq: uint256 = first_seq + records
    assert next_seq <= constants.U40_MAX, "rollup: sequence numbers exhausted"
    # Fits: times near the block's (32 bits until 2106), a count of messages, 2^32 epochs of a transaction each.
    self._ends[batch_id] = (
        next_seq
        | (time << 40)
        | (inbox_count << 72)
        | (block.timestamp << 112)
        | (self._rolled_back_at() << 144)
        | (epoch << 176)
        | (work << 208)
    )
    place: uint256 = (batch_id & 7) << 5
    times: uint256 = self._unserved[batch_id >> 3] & ~(constants.U32_MAX << place)  # what is there was rolled back
    self._unserved[batch_id >> 3] = times | (staticcall IInbox(inbox).unserved_since(inbox_count) << place)
    place = (batch_id & 3) << 6
    self._ticks[batch_id >> 2] = (self._ticks[batch_id >> 2] & ~(constants.U64_MAX << place)) | (tick << place)
    self._roots[batch_id] = post_root
    self._header_hashes[batch_id] = header_hash
    self.next_batch = unsafe_add(batch_id, 1)  # one a transaction: cannot reach 2^256
    log BatchPosted(
        batch_id=batch_id,
        pre_root=pre_root,
        post_root=post_root,
        data_root=header.data_root,
        elements=header.elements,
        segments=segments,
        records=records,
        first_seq=first_seq,
        time=time,
        inbox_count=inbox_count,
        inbox_hash=inbox_hash,
        work=work,
        tick=tick,
        ticks=ticks,
        header_hash=header_hash,
    )


@internal
def _spend(work: uint256, before: uint256, blob_elements: uint256):
    """
    @notice Takes from the budget what a batch costs a watcher: its records' work, and the batch's and the blobs' own.
    @param work Of GLOBAL after the batch.
    @param before Of GLOBAL after the batch before.
    """
    assert work >= before, "rollup: work falls"
    assert work <= constants.U48_MAX, "rollup: work exhausted"
    blobs: uint256 = (blob_elements + payloads.BLOB_ELEMENTS - 1) // payloads.BLOB_ELEMENTS
    cost: uint256 = work - before + units.BATCH + blobs * units.BLOB
    allowed: uint256 = self._allowed()
    assert cost <= allowed, "rollup: work"
    self._budget = (allowed - cost) | (block.timestamp << 64)


@internal
@view
def _allowed() -> uint256:
    """
    @notice Units that the next batch may cost in this block.
    """
    budget: uint256 = self._budget
    return min(work_max, (budget & constants.U64_MAX) + work_per_s * (block.timestamp - (budget >> 64)))


@internal
@view
def _check_payload(length: uint256, post_root: bytes32, segments: uint256, records: uint256, ticks: uint256):
    """
    @notice Checks the form of the calldata and the payload's tables against the header.
    @dev Vyper has checked length <= PAYLOAD_BYTES_MAX when it decoded the argument, wherever its offset points; the
         first line makes that the place that is read here. With the padding zero and nothing behind it, one batch has one
         calldata: a strict decoder and one that reads by place see the same.
    """
    whole: uint256 = length & ~convert(31, uint256)
    rest: uint256 = length & 31
    assert (
        payloads._word(PAYLOAD_HEAD - 32) == PAYLOAD_HEAD - 4
        and len(msg.data) == PAYLOAD_START + whole + (32 if rest > 0 else 0)
    ), "rollup: calldata is not canonical"
    if rest > 0:
        last_word: uint256 = payloads._word(PAYLOAD_START + whole)
        assert last_word & (max_value(uint256) >> (rest << 3)) == 0, "rollup: padding is not zero"
    assert length % payloads.ELEMENT_BYTES == 0, "rollup: payload is not whole elements"
    elements: uint256 = length // payloads.ELEMENT_BYTES  # <= 3936
    tables: uint256 = self._check_counts(elements, segments, records, ticks)

    last: uint256 = segments - 1
    root_position: uint256 = PAYLOAD_START + last * payloads.ELEMENT_BYTES
    assert payloads._word(root_position) >> 8 == convert(post_root, uint256) >> 8, "rollup: last root is not the post-root"
    # An offset beyond the payload would name records that nobody could open in a challenge.
    offset_position: uint256 = (
        PAYLOAD_START
        + (segments + last // payloads.OFFSETS_PER_ELEMENT) * payloads.ELEMENT_BYTES
        + (last % payloads.OFFSETS_PER_ELEMENT) * payloads.OFFSET_BYTES
    )
    assert payloads._word(offset_position) >> 232 == elements - tables, "rollup: last offset is not the end"


@internal
@pure
def _check_counts(elements: uint256, segments: uint256, records: uint256, ticks: uint256) -> uint256:
    """
    @notice Checks that a payload of so many elements can hold so many segments, records and ticks; elements of its tables.
    """
    assert segments > 0, "rollup: no segment"
    assert segments <= elements, "rollup: payload shorter than its tables"  # keeps what follows from overflow
    assert ticks <= records, "rollup: more ticks than records"
    tables: uint256 = payloads._tables(segments, min(ticks, elements))
    assert tables <= elements, "rollup: payload shorter than its tables"
    # A record has at least one element, a segment at least one record.
    assert segments <= records and records <= elements - tables, "rollup: record count does not fit"
    return tables


@internal
@view
def _blob_root(elements: uint256) -> bytes32:
    """
    @notice The chain over the versioned hashes of the transaction's blobs, which are as many as the elements need.
    """
    assert elements <= BLOBS_MAX * payloads.BLOB_ELEMENTS, "rollup: payload too large"
    root: bytes32 = empty(bytes32)
    place: uint256 = 0
    for _: uint256 in range(BLOBS_MAX):
        if place * payloads.BLOB_ELEMENTS >= elements:
            break
        versioned_hash: bytes32 = blobhash(place)
        assert versioned_hash != empty(bytes32), "rollup: blob is missing"
        root = keccak256(concat(root, versioned_hash))
        place = unsafe_add(place, 1)  # <= BLOBS_MAX
    assert blobhash(place) == empty(bytes32), "rollup: surplus blob"
    return root


@internal
@view
def _tip_inbox_count() -> uint256:
    """
    @notice Inbox count after the last batch.
    """
    return (self._ends[unsafe_sub(self.next_batch, 1)] >> 72) & constants.U40_MAX  # next_batch >= 1


@internal
@view
def _rolled_back_at() -> uint256:
    """
    @notice When a batch was last rolled back, seconds; 0: none was.
    """
    return self._last_roll_back & constants.U64_MAX


@internal
@view
def _tick(batch_id: uint256) -> uint256:
    """
    @notice Tick of GLOBAL after a known batch.
    """
    return (self._ticks[batch_id >> 2] >> ((batch_id & 3) << 6)) & constants.U64_MAX


@internal
@view
def _posted_at(batch_id: uint256) -> uint256:
    """
    @notice When a known batch was posted, seconds.
    """
    return (self._ends[batch_id] >> 112) & constants.U32_MAX


@internal
@view
def _epoch(batch_id: uint256) -> uint256:
    """
    @notice In what epoch of the Sequencers a known batch was posted.
    """
    return (self._ends[batch_id] >> 176) & constants.U32_MAX


@internal
@view
def _last_sign() -> uint256:
    """
    @notice When a batch was last posted or rolled back, seconds.
    """
    return max(self._posted_at(unsafe_sub(self.next_batch, 1)), self._rolled_back_at())  # next_batch >= 1


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
    assert batch_id < self.next_batch, "rollup: unknown batch"
