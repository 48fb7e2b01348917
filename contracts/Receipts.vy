# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Receipts: judges what the sequencer has signed
@license MIT
@notice Whoever holds a receipt can show, in one transaction, that it was not kept: `check_equivocation` (two headers of one
        tick), `check_chain` (a header that does not follow from the one before, or goes back in time), `check_tick` (a batch
        has another header for that tick), `check_record` (a batch has another record at that number), `check_state` (the
        tick does not end as the header says), `check_outcome` (the record, executed again, does something else), and
        `check_overdue` (the tick is not on L1 although its time is over). Each says who has broken what, and can be called;
        `slash` runs one of them for good: the signer loses its whole bond, 5/8 of it are burned. Of the rest the finder has
        two thirds, and one third is for those whose records the broken receipts were about, so much each
        (`compensate`).
@dev Finder and holders are paid when every batch of the member is final (`settle`): until then a challenger of a wrong batch
     of its takes what there is (`Sequencers.slash_member`). A finder commits a block or more before, as at the Arbiter: a
     copy out of the pool has no commitment.
@custom:security A receipt binds the member whose key has signed it, whatever became of the member's lead. What L1 itself did
        excuses it: a roll-back of its tick (Rollup keeps which tick each left standing), and a base fee above the
        limit, which anybody can have noted while it lasts (`excuse`). Another member's batch counts against it only when it
        is final: until then the batch may be wrong itself.
@custom:kill Nobody has any privilege here, and nothing can be changed. It can take a bond by proof only.
"""

from lib import batch
from lib import cmap
from lib import constants
from lib import receipts


struct Batch:
    header_hash: bytes32
    post_root: bytes32
    posted_at: uint256


interface IRollup:
    def sequencers() -> address: view
    def domain_separator() -> bytes32: view
    def challenge_window_s() -> uint256: view
    def batch(batch_id: uint256) -> Batch: view
    def is_final(batch_id: uint256) -> bool: view
    def epoch_of(batch_id: uint256) -> uint256: view
    def tip_tick() -> uint256: view
    def roll_backs() -> uint256: view
    def roll_back_at(i: uint256) -> (uint256, uint256): view


interface ISequencers:
    def member_of_key(key: address) -> address: view
    def leader_of(epoch: uint256) -> address: view
    def slash_member(member: address) -> uint256: nonpayable
    def release(member: address) -> uint256: nonpayable


interface IArbiter:
    def rollup() -> address: view
    def data_source() -> address: view
    def verifier_of(kind: uint256) -> address: view


interface IVault:
    def rollup() -> address: view
    def owner_of(account: uint256) -> address: view


interface IDataSource:
    def segment(
        data_root: bytes32,
        elements: uint256,
        segments: uint256,
        ticks: uint256,
        index: uint256,
        proof: Bytes[batch.PROOF_BYTES_MAX],
    ) -> batch.Segment: view
    def tick_id(
        data_root: bytes32,
        elements: uint256,
        segments: uint256,
        ticks: uint256,
        index: uint256,
        proof: Bytes[batch.PROOF_BYTES_MAX],
    ) -> uint256: view


# What a check finds.
struct Verdict:
    broken: bool
    member: address
    misdeed: bytes32  # what a commitment is about
    holder: uint256  # account whose record the receipt is about; 0: none was shown
    record_hash: bytes32  # of that record


# GLOBAL in a root.
struct GlobalProof:
    words: uint256[6]
    bitmap: uint256
    siblings: DynArray[bytes32, cmap.PATH_MAX]


# What becomes of a member's bond.
struct Case:
    finder: address
    until: uint256  # seconds until when holders can come; 0: it is not settled
    pot: uint256  # wei that are left for them


CALL_BYTES_MAX: constant(uint256) = 112_000
WITNESS_BYTES_MAX: constant(uint256) = 100_000
HEAD_BYTES: constant(uint256) = 196  # of a message to a verifier, before the witness words
KEY_GLOBAL: constant(uint256) = 0
ROLL_BACKS_MAX: constant(uint256) = 256  # between a receipt and now, beyond which it binds nobody
DUE_MAX_S: constant(uint256) = 7 * 86_400
RECORD_BYTES_MAX: constant(uint256) = 124
BURN: constant(address) = 0x000000000000000000000000000000000000dEaD
APPLY: constant(bytes4) = method_id("apply(bytes32,uint256,bytes32,bytes32,bytes32,bytes32)", output_type=bytes4)
CHECK_EQUIVOCATION: constant(bytes4) = method_id("check_equivocation(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32))", output_type=bytes4)
CHECK_CHAIN: constant(bytes4) = method_id("check_chain(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32))", output_type=bytes4)
CHECK_TICK: constant(bytes4) = method_id("check_tick(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),(uint256,bytes32,uint256,bytes32,bytes24[]),bytes,(uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),bytes)", output_type=bytes4)
CHECK_RECORD: constant(bytes4) = method_id(
    "check_record(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),(uint256,bytes32,uint256,bytes32,bytes24[]),bytes,(uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256,bytes32,bytes,(uint256[6],uint256,bytes32[]))", output_type=bytes4
)
CHECK_STATE: constant(bytes4) = method_id(
    "check_state(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),(uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256,bytes32,bytes,(uint256[6],uint256,bytes32[]))", output_type=bytes4
)
CHECK_OUTCOME: constant(bytes4) = method_id(
    "check_outcome(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),(uint256,bytes32,uint256,bytes32,bytes24[]),bytes,(uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256,bytes32,bytes,bytes)", output_type=bytes4
)
CHECK_OVERDUE: constant(bytes4) = method_id("check_overdue(((uint256,uint256,bytes31,uint256,uint256,bytes24,bytes32,uint256),bytes32,bytes32),(uint256,bytes32,uint256,bytes32,bytes24[]),bytes)", output_type=bytes4)

rollup: public(immutable(address))
sequencers: public(immutable(address))
arbiter: public(immutable(address))
vault: public(immutable(address))
data_source: immutable(address)
domain: immutable(bytes32)
due_s: public(immutable(uint256))
notice_s: public(immutable(uint256))
base_fee_max: public(immutable(uint256))
blob_base_fee_max: public(immutable(uint256))
compensation: public(immutable(uint256))
reveal_blocks: public(immutable(uint256))


event Committed:
    commitment: indexed(bytes32)


event Slashed:
    member: indexed(address)
    finder: indexed(address)
    misdeed: indexed(bytes32)
    amount: uint256


event Settled:
    member: indexed(address)
    finder: indexed(address)
    amount: uint256
    pot: uint256


event Compensated:
    member: indexed(address)
    account: indexed(uint256)
    amount: uint256


event Excused:
    since: uint256
    until: uint256


# Block in which a commitment was made. Written by commit and slash.
committed_at: public(HashMap[bytes32, uint256])
# What became of a member's bond: 0..159 its finder, 160..223 until when holders can come, seconds, 0 before it is settled;
# and wei that are left for them. Written by slash, settle, compensate and close; one at a time (Sequencers.join).
_cases: HashMap[address, uint256]
_pots: HashMap[address, uint256]
# What has been compensated: hash of member and record. Written by compensate.
_compensated: HashMap[bytes32, bool]
# An unbroken time in which L1 was too dear: when it began, and when it was last noted, seconds. Written by excuse.
congested_since: public(uint256)
congested_at: public(uint256)


@deploy
def __init__(
    rollup_: address,
    arbiter_: address,
    vault_: address,
    due_s_: uint256,
    notice_s_: uint256,
    base_fee_max_: uint256,
    blob_base_fee_max_: uint256,
    compensation_: uint256,
    reveal_blocks_: uint256,
):
    """
    @param rollup_ Whose records the receipts are about.
    @param arbiter_ Names data source and verifiers.
    @param vault_ Names the owners of accounts.
    @param due_s_ Seconds after its time by which a receipted tick must be on L1.
    @param notice_s_ Seconds in which a signer must have heard of a roll-back.
    @param base_fee_max_ Wei per gas above which nobody is held to post.
    @param blob_base_fee_max_ Wei per blob gas, likewise.
    @param compensation_ Wei for each record of a broken receipt, as long as the pot lasts.
    @param reveal_blocks_ Blocks for which a commitment is good.
    """
    assert rollup_.is_contract, "receipts: rollup is not a contract"
    assert arbiter_.is_contract and staticcall IArbiter(arbiter_).rollup() == rollup_, "receipts: arbiter has another rollup"
    assert vault_.is_contract and staticcall IVault(vault_).rollup() == rollup_, "receipts: vault has another rollup"
    assert due_s_ > 0 and due_s_ <= DUE_MAX_S, "receipts: due time is zero or above 7 days"
    assert notice_s_ <= due_s_, "receipts: notice above the due time"
    # A bond stays two windows after a lead: the last receipt of it must be overdue, and shown, by then.
    assert due_s_ <= staticcall IRollup(rollup_).challenge_window_s(), "receipts: due time above the challenge window"
    assert reveal_blocks_ > 0, "receipts: no block to reveal in"
    rollup = rollup_
    sequencers = staticcall IRollup(rollup_).sequencers()
    arbiter = arbiter_
    vault = vault_
    data_source = staticcall IArbiter(arbiter_).data_source()
    domain = staticcall IRollup(rollup_).domain_separator()
    due_s = due_s_
    notice_s = notice_s_
    base_fee_max = base_fee_max_
    blob_base_fee_max = blob_base_fee_max_
    compensation = compensation_
    reveal_blocks = reveal_blocks_


@external
@payable
@reentrant
def __default__():
    """
    @notice Takes what a bond pays, in the middle of `settle`.
    """
    assert msg.sender == sequencers, "receipts: caller is not the sequencers"


@external
def commit(commitment: bytes32):
    """
    @notice Announces a proof without showing it.
    @param commitment keccak256(abi_encode(finder, misdeed, salt)), salt being 32 bytes that nobody can guess.
    """
    committed: uint256 = self.committed_at[commitment]
    assert committed == 0 or block.number > committed + reveal_blocks, "receipts: committed already"
    self.committed_at[commitment] = block.number
    log Committed(commitment=commitment)


@external
def slash(salt: bytes32, check: Bytes[CALL_BYTES_MAX]) -> uint256:
    """
    @notice Takes the bond of who has broken a receipt.
    @param salt That of the caller's commitment, one block old or more.
    @param check Calldata of one of the checks.
    @return The bond, wei.
    """
    return self._slash(self._judge(check), salt)


@external
def slash_headers(salt: bytes32, first: receipts.Signed, second: receipts.Signed) -> uint256:
    """
    @notice As `slash`, by two headers alone: `check_equivocation` or `check_chain`, at half the price.
    @param salt That of the caller's commitment, one block old or more, to the misdeed of the check that finds something.
    @return The bond, wei: 3/8 of it wait for finder and holders.
    """
    verdict: Verdict = self._equivocation(first, second)
    if not verdict.broken:
        verdict = self._chain(first, second)
    assert verdict.broken, "receipts: kept"
    return self._slash(verdict, salt)


@external
def settle(member: address):
    """
    @notice Pays the finder, once every batch of the member's is final, and opens the pot for the holders, for a challenge
            window. Anybody may ask for it.
    """
    case: uint256 = self._cases[member]
    assert case != 0 and case >> 160 == 0, "receipts: nothing to settle"
    amount: uint256 = extcall ISequencers(sequencers).release(member)  # reverts before its time
    pot: uint256 = amount // 3
    until: uint256 = block.timestamp + staticcall IRollup(rollup).challenge_window_s()
    self._cases[member] = case | (until << 160)
    self._pots[member] = pot
    finder: address = convert(case & (2**160 - 1), address)
    log Settled(member=member, finder=finder, amount=unsafe_sub(amount, pot), pot=pot)
    raw_call(finder, b"", value=unsafe_sub(amount, pot))  # pot <= amount


@external
def compensate(check: Bytes[CALL_BYTES_MAX]):
    """
    @notice Pays the owner of the account whose record a broken receipt was about, out of the pot.
    @param check Calldata of a check that shows the record.
    """
    verdict: Verdict = self._judge(check)
    until: uint256 = self._cases[verdict.member] >> 160
    assert until != 0, "receipts: not settled"
    assert block.timestamp <= until, "receipts: pot is closed"
    assert verdict.holder != 0, "receipts: no holder"
    claim: bytes32 = keccak256(abi_encode(verdict.member, verdict.record_hash))
    assert not self._compensated[claim], "receipts: compensated already"
    owner: address = staticcall IVault(vault).owner_of(verdict.holder)
    assert owner != empty(address), "receipts: no such account"
    pot: uint256 = self._pots[verdict.member]
    amount: uint256 = min(compensation, pot)
    assert amount > 0, "receipts: pot is empty"
    self._compensated[claim] = True
    self._pots[verdict.member] = unsafe_sub(pot, amount)  # amount <= pot
    log Compensated(member=verdict.member, account=verdict.holder, amount=amount)
    raw_call(owner, b"", value=amount)


@external
def close(member: address):
    """
    @notice Burns what is left of a pot whose time is over.
    """
    until: uint256 = self._cases[member] >> 160
    assert until != 0 and block.timestamp > until, "receipts: pot is open"
    pot: uint256 = self._pots[member]
    self._cases[member] = 0
    self._pots[member] = 0
    raw_call(BURN, b"", value=pot)


@external
@view
@reentrant
def case_of(member: address) -> Case:
    """
    @notice What became of a member's bond; a finder of 0: nothing.
    """
    word: uint256 = self._cases[member]
    return Case(finder=convert(word & (2**160 - 1), address), until=word >> 160, pot=self._pots[member])


@external
def excuse():
    """
    @notice Notes that L1 is too dear now. A tick that was to be posted meanwhile is due `due_s` after the last such note,
            as long as notes follow each other within `due_s`. Costs a hundredth of a batch.
    """
    assert block.basefee > base_fee_max or block.blobbasefee > blob_base_fee_max, "receipts: L1 is not too dear"
    if block.timestamp > self.congested_at + due_s:
        self.congested_since = block.timestamp
    self.congested_at = block.timestamp
    log Excused(since=self.congested_since, until=block.timestamp + due_s)


@external
@view
@reentrant
def check_equivocation(first: receipts.Signed, second: receipts.Signed) -> Verdict:
    """
    @notice Two headers of one member for one tick, between the same roll-backs.
    """
    return self._equivocation(first, second)


@external
@view
@reentrant
def check_chain(first: receipts.Signed, second: receipts.Signed) -> Verdict:
    """
    @notice Two headers of one member, between the same roll-backs, of which the second is later: it goes back in time or in
            numbers, or follows at once and does not name the first, or does not begin where it ends.
    """
    return self._chain(first, second)


@external
@view
@reentrant
def check_tick(
    signed: receipts.Signed,
    item: receipts.Item,
    record: Bytes[RECORD_BYTES_MAX],
    header: batch.Header,
    proof: Bytes[batch.PROOF_BYTES_MAX],
) -> Verdict:
    """
    @notice A batch that has another header for a receipted tick.
    @param item A record of the tick, whose account is to be compensated.
    @param header Of the batch.
    @param proof For the data source.
    """
    member: address = self._bound(signed)
    self._check_batch(member, header)
    index: uint256 = self._place(signed.header, header)
    found: uint256 = staticcall IDataSource(data_source).tick_id(
        header.data_root, header.elements, header.segments, header.ticks, index, proof
    )
    return Verdict(
        broken=found != convert(receipts._hash(signed.header), uint256) >> 8,
        member=member,
        misdeed=self._misdeed(CHECK_TICK, signed.header, item.index),
        holder=self._holder(signed.header, item, record),
        record_hash=item.record_hash,
    )


@external
@view
@reentrant
def check_record(
    signed: receipts.Signed,
    item: receipts.Item,
    record: Bytes[RECORD_BYTES_MAX],
    header: batch.Header,
    index: uint256,
    pre_root: bytes32,
    proof: Bytes[batch.PROOF_BYTES_MAX],
    before: GlobalProof,
) -> Verdict:
    """
    @notice A batch that has another record at a receipted sequence number.
    @param record The receipted one.
    @param header Of the batch.
    @param index Of the segment that holds the number.
    @param pre_root State root before the segment.
    @param before GLOBAL under it, which says where the segment's numbers begin.
    """
    member: address = self._bound(signed)
    self._check_batch(member, header)
    segment: batch.Segment = self._segment(header, index, pre_root, proof)
    self._check_global(pre_root, before)
    at: uint256 = 0
    size: uint256 = 0
    at, size = self._find(segment, signed.header.first_seq + item.index, before.words[0] & constants.U40_MAX)
    return Verdict(
        broken=batch._record_hash(segment, at, size) != item.record_hash,
        member=member,
        misdeed=self._misdeed(CHECK_RECORD, signed.header, item.index),
        holder=self._holder(signed.header, item, record),
        record_hash=item.record_hash,
    )


@external
@view
@reentrant
def check_state(
    signed: receipts.Signed,
    header: batch.Header,
    index: uint256,
    post_root: bytes32,
    proof: Bytes[batch.PROOF_BYTES_MAX],
    after: GlobalProof,
) -> Verdict:
    """
    @notice A tick that ends with another state, or is another tick, than its header says.
    @param index Of the segment after which the tick's numbers end.
    @param post_root State root after the segment, of which the payload has 31 bytes.
    @param after GLOBAL under it.
    """
    member: address = self._bound(signed)
    self._check_batch(member, header)
    segment: batch.Segment = staticcall IDataSource(data_source).segment(
        header.data_root, header.elements, header.segments, header.ticks, index, proof
    )
    assert convert(post_root, uint256) >> 8 == segment.root, "receipts: root is not the committed one"
    self._check_global(post_root, after)
    word: uint256 = after.words[0]
    assert word & constants.U40_MAX == signed.header.first_seq + signed.header.records, "receipts: tick does not end here"
    return Verdict(
        broken=convert(signed.header.state_root, uint256) >> 8 != segment.root
        or (word >> 72) & constants.U40_MAX != signed.header.tick,
        member=member,
        misdeed=self._misdeed(CHECK_STATE, signed.header, 0),
        holder=0,
        record_hash=empty(bytes32),
    )


@external
@reentrant
def check_outcome(
    signed: receipts.Signed,
    item: receipts.Item,
    record: Bytes[RECORD_BYTES_MAX],
    header: batch.Header,
    index: uint256,
    pre_root: bytes32,
    proof: Bytes[batch.PROOF_BYTES_MAX],
    witness: Bytes[WITNESS_BYTES_MAX],
) -> Verdict:
    """
    @notice Executes a receipted record again, which the batch has at its number. Broken is another reason or outcome.
    @param witness As for `Arbiter.check_segment`, up to the record.
    """
    member: address = self._bound(signed)
    self._check_batch(member, header)
    segment: batch.Segment = self._segment(header, index, pre_root, proof)
    wanted: uint256 = signed.header.first_seq + item.index
    root: bytes32 = pre_root
    element: uint256 = 0
    at: uint256 = 0
    broken: bool = False
    is_found: bool = False
    for _: uint256 in range(batch.SEGMENT_RECORDS_MAX):
        assert element < len(segment.records), "receipts: record is not in the segment"
        assert at + 32 + HEAD_BYTES + 32 <= len(witness), "receipts: witness too short"
        length: uint256 = convert(extract32(witness, at), uint256)
        at = unsafe_add(at, 32)  # <= len(witness)
        assert length <= len(witness) - at, "receipts: witness too short"
        size: uint256 = batch._layout(batch._kind(segment.records[element]))[0]
        assert element + size <= len(segment.records), "receipts: record is cut off"
        assert (
            keccak256(slice(witness, at, HEAD_BYTES)) == batch._head_hash(APPLY, root, segment, element, size)
        ), "receipts: message is not about this record"
        # GLOBAL's words come first in a witness; the verifier proves them.
        seq: uint256 = convert(extract32(witness, unsafe_add(at, HEAD_BYTES)), uint256) & constants.U40_MAX
        result: Bytes[96] = raw_call(
            staticcall IArbiter(arbiter).verifier_of(batch._kind(segment.records[element])),
            slice(witness, at, length),
            max_outsize=96,
        )
        assert seq <= wanted, "receipts: record is not in the segment"
        if seq == wanted:
            assert batch._record_hash(segment, element, size) == item.record_hash, "receipts: another record"
            broken = (
                convert(extract32(result, 32), uint256) != item.reason or extract32(result, 64) != item.outcome
            )
            is_found = True
            at = unsafe_add(at, length)
            break
        root = extract32(result, 0)
        at = unsafe_add(at, length)
        element = unsafe_add(element, size)
    assert is_found, "receipts: record is not in the segment"
    assert at == len(witness), "receipts: surplus witness"
    return Verdict(
        broken=broken,
        member=member,
        misdeed=self._misdeed(CHECK_OUTCOME, signed.header, item.index),
        holder=self._holder(signed.header, item, record),
        record_hash=item.record_hash,
    )


@external
@view
@reentrant
def check_overdue(signed: receipts.Signed, item: receipts.Item, record: Bytes[RECORD_BYTES_MAX]) -> Verdict:
    """
    @notice A tick that is not on L1 although its time, and all that excuses it, is over.
    """
    member: address = self._bound(signed)
    return Verdict(
        broken=staticcall IRollup(rollup).tip_tick() < signed.header.tick
        and block.timestamp > self._due_at(signed.header),
        member=member,
        misdeed=self._misdeed(CHECK_OVERDUE, signed.header, item.index),
        holder=self._holder(signed.header, item, record),
        record_hash=item.record_hash,
    )


@external
@view
@reentrant
def due_at(header: receipts.Header) -> uint256:
    """
    @notice When a tick must be on L1, seconds, as far as is known now.
    """
    return self._due_at(header)


@internal
def _judge(check: Bytes[CALL_BYTES_MAX]) -> Verdict:
    """
    @notice What a check finds; reverts unless something is broken.
    """
    selector: bytes4 = convert(slice(check, 0, 4), bytes4)
    # Any other function would let the caller write the verdict.
    assert (
        selector == CHECK_EQUIVOCATION
        or selector == CHECK_CHAIN
        or selector == CHECK_TICK
        or selector == CHECK_RECORD
        or selector == CHECK_STATE
        or selector == CHECK_OUTCOME
        or selector == CHECK_OVERDUE
    ), "receipts: not a check"
    verdict: Verdict = abi_decode(raw_call(self, check, max_outsize=160), Verdict)
    assert verdict.broken, "receipts: kept"
    return verdict


@internal
def _slash(verdict: Verdict, salt: bytes32) -> uint256:
    """
    @notice Takes the bond of whom a check has found, for the caller, who has committed to it.
    """
    commitment: bytes32 = keccak256(abi_encode(msg.sender, verdict.misdeed, salt))
    committed: uint256 = self.committed_at[commitment]
    assert committed != 0, "receipts: no commitment"
    assert block.number > committed, "receipts: commitment is of this block"
    assert block.number <= committed + reveal_blocks, "receipts: commitment has expired"
    self.committed_at[commitment] = 0
    amount: uint256 = extcall ISequencers(sequencers).slash_member(verdict.member)
    assert amount > 0, "receipts: member has no bond"
    before: uint256 = self._cases[verdict.member]
    self._cases[verdict.member] = convert(msg.sender, uint256)
    log Slashed(member=verdict.member, finder=msg.sender, misdeed=verdict.misdeed, amount=amount)
    if before != 0:  # settled, or the member would have no bond: what holders have left
        left: uint256 = self._pots[verdict.member]
        self._pots[verdict.member] = 0
        raw_call(BURN, b"", value=left)
    return amount


@internal
@view
def _equivocation(first: receipts.Signed, second: receipts.Signed) -> Verdict:
    """
    @notice See `check_equivocation`.
    """
    member: address = self._member(first)
    assert member == self._member(second), "receipts: signed by two members"
    return Verdict(
        broken=first.header.tick == second.header.tick
        and self._same_lead(first.header, second.header)
        and receipts._hash(first.header) != receipts._hash(second.header),
        member=member,
        misdeed=keccak256(abi_encode(CHECK_EQUIVOCATION, member, first.header.lead, first.header.tick)),
        holder=0,
        record_hash=empty(bytes32),
    )


@internal
@view
def _chain(first: receipts.Signed, second: receipts.Signed) -> Verdict:
    """
    @notice See `check_chain`.
    """
    member: address = self._member(first)
    assert member == self._member(second), "receipts: signed by two members"
    a: receipts.Header = first.header
    b: receipts.Header = second.header
    next_seq: uint256 = a.first_seq + a.records
    is_next: bool = b.tick == a.tick + 1
    return Verdict(
        broken=self._same_lead(a, b)
        and b.tick > a.tick
        and (
            b.time_ns < a.time_ns
            or b.first_seq < next_seq
            or (is_next and b.first_seq != next_seq)
            or (is_next and b.parent != convert(slice(receipts._hash(a), 0, 31), bytes31))
        ),
        member=member,
        misdeed=keccak256(abi_encode(CHECK_CHAIN, member, receipts._hash(a), receipts._hash(b))),
        holder=0,
        record_hash=empty(bytes32),
    )


@internal
@view
def _member(signed: receipts.Signed) -> address:
    """
    @notice Whose receipt it is; reverts when it is nobody's.
    """
    member: address = staticcall ISequencers(sequencers).member_of_key(receipts._signer(domain, signed))
    assert member != empty(address), "receipts: signed by no member's key"
    return member


@internal
@view
def _bound(signed: receipts.Signed) -> address:
    """
    @notice Whose receipt it is; reverts when a roll-back has excused it: one after those that it names, which took its
            tick back, or a part of it (the last tick that stands may be cut), of which the signer cannot have known for
            `notice_s`.
    """
    member: address = self._member(signed)
    since: uint256 = signed.header.lead & 65_535
    count: uint256 = staticcall IRollup(rollup).roll_backs()
    assert count <= since + ROLL_BACKS_MAX, "receipts: too many roll-backs since"
    for i: uint256 in range(since, max(since, count), bound=ROLL_BACKS_MAX):
        at: uint256 = 0
        standing: uint256 = 0
        at, standing = staticcall IRollup(rollup).roll_back_at(i)
        assert (
            signed.header.tick < standing or signed.header.time_ns // 10**9 > at + notice_s
        ), "receipts: rolled back since"
    return member


@internal
@pure
def _same_lead(a: receipts.Header, b: receipts.Header) -> bool:
    """
    @notice Whether two headers are of one epoch, between the same roll-backs. The term does not count: two processes of one
            member are one signer.
    """
    return a.lead >> 32 == b.lead >> 32 and a.lead & 65_535 == b.lead & 65_535


@internal
@view
def _check_batch(member: address, header: batch.Header):
    """
    @notice Reverts unless `header` is that of a batch which stands, and which the member has posted itself, or which is
            final: another's may be wrong.
    """
    posted: Batch = staticcall IRollup(rollup).batch(header.batch_id)
    assert batch._header_hash(header) == posted.header_hash, "receipts: header is not the posted one"
    poster: address = staticcall ISequencers(sequencers).leader_of(staticcall IRollup(rollup).epoch_of(header.batch_id))
    assert poster == member or staticcall IRollup(rollup).is_final(header.batch_id), "receipts: batch is not final"


@internal
@pure
def _place(tick: receipts.Header, header: batch.Header) -> uint256:
    """
    @notice Where in a batch the id of a tick stands; reverts when the tick is not in it.
    """
    first: uint256 = header.tick - header.ticks + 1
    assert tick.tick >= first and tick.tick <= header.tick, "receipts: tick is not in the batch"
    return unsafe_sub(tick.tick, first)


@internal
@view
def _segment(
    header: batch.Header, index: uint256, pre_root: bytes32, proof: Bytes[batch.PROOF_BYTES_MAX]
) -> batch.Segment:
    """
    @notice A segment of a posted batch, before which the state has the root `pre_root`.
    """
    segment: batch.Segment = staticcall IDataSource(data_source).segment(
        header.data_root, header.elements, header.segments, header.ticks, index, proof
    )
    if index == 0:
        assert pre_root == header.pre_root, "receipts: pre-root is not the committed one"
    else:
        assert convert(pre_root, uint256) >> 8 == segment.before, "receipts: pre-root is not the committed one"
    return segment


@internal
@pure
def _check_global(root: bytes32, shown: GlobalProof):
    """
    @notice Reverts unless these are GLOBAL's words in the state.
    """
    entry: uint256 = convert(keccak256(abi_encode(shown.words)), uint256)
    assert cmap._read(root, KEY_GLOBAL, entry, shown.bitmap, shown.siblings), "receipts: wrong path of GLOBAL"


@internal
@pure
def _find(segment: batch.Segment, seq: uint256, first_seq: uint256) -> (uint256, uint256):
    """
    @notice First element, and elements, of the record with a sequence number, in a segment that begins with `first_seq`.
    """
    assert seq >= first_seq, "receipts: record is not in the segment"
    element: uint256 = 0
    at: uint256 = first_seq
    for _: uint256 in range(batch.SEGMENT_RECORDS_MAX):
        assert element < len(segment.records), "receipts: record is not in the segment"
        size: uint256 = batch._layout(batch._kind(segment.records[element]))[0]
        assert element + size <= len(segment.records), "receipts: record is cut off"
        if at == seq:
            return element, size
        at = unsafe_add(at, 1)
        element = unsafe_add(element, size)
    raise "receipts: record is not in the segment"


@internal
@pure
def _holder(header: receipts.Header, item: receipts.Item, record: Bytes[RECORD_BYTES_MAX]) -> uint256:
    """
    @notice Account of a receipted record, which it says itself; 0 for one without. Reverts unless the record is the item's,
            and the item in the tick.
    """
    receipts._check_item(header, item)
    assert keccak256(record) == item.record_hash, "receipts: record is not the item's"
    if len(record) < 62:  # no signature
        return 0
    kind: uint256 = convert(slice(record, 0, 1), uint256)
    return 0 if kind < 32 else convert(slice(record, 1, 4), uint256)


@internal
@pure
def _misdeed(check: bytes4, header: receipts.Header, index: uint256) -> bytes32:
    """
    @notice What a commitment to this proof is about.
    """
    return keccak256(abi_encode(check, receipts._hash(header), index))


@internal
@view
def _due_at(header: receipts.Header) -> uint256:
    """
    @notice When a tick must be on L1, seconds.
    """
    time: uint256 = header.time_ns // 10**9
    due: uint256 = time + due_s
    if self.congested_since <= due and self.congested_at >= time:
        due = max(due, self.congested_at + due_s)
    return due
