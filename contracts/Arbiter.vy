# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Arbiter: judges what the sequencer has posted, in one transaction
@license MIT
@notice Four checks say whether a posted batch is wrong, and anybody may call them: `check_segment` executes the records
        of a segment again and compares the root that was committed after them, `check_form` looks at a segment's
        bounds, `check_header` compares the header with GLOBAL under the post-root, and `check_late` when it was posted
        with the deadlines of the Inbox's messages. `challenge` runs one of them for good: on a fraud, Rollup deletes
        the batch and all after it, and pays 3/8 of the poster's bond, which wait here.
        A challenger commits to the challenge a block or more before it makes it, so that nobody earns by copying it out
        of the pool: the copy has no commitment. Two thirds go to who reveals, whatever older commitment there is: a
        friend of the liar's knows the batch before anybody else, and would take all. A third goes to the oldest
        commitment, so that a builder who holds a challenge back to copy it leaves its maker that.
        A reward of a batch belongs to who has an earlier batch of the same poster taken back: a liar that challenges its
        second lie itself leaves the reward to who proves the first. Hence it waits until no earlier one can go.
@dev A challenge is the calldata of a check, whole, so that what was tried as a call is what is sent. Verifiers work in
     transient storage, which a static call may not write: hence the calls to them, and the check that makes them, are
     plain ones.
@custom:security A wrong witness or proof reverts, in the verifier, the data source or here. A right one never does, or
        a wrong root could stand: verifiers are total, and everything here is bounded. Roots inside a batch are
        committed by 248 bits; two states that share them cost 2^124 work to find.
@custom:kill It can delete batches that are not final, by proof only; nobody has a privilege over it, and nothing here
        can be changed. Rewards wait here for their challengers and for nobody else.
"""

from lib import batch
from lib import cmap
from lib import constants


struct Batch:
    header_hash: bytes32
    post_root: bytes32
    posted_at: uint256


struct End:
    next_seq: uint256
    time: uint256
    inbox_count: uint256
    posted_at: uint256
    rolled_back_at: uint256
    work: uint256
    tick: uint256


interface IRollup:
    def inbox() -> address: view
    def batch(batch_id: uint256) -> Batch: view
    def end(batch_id: uint256) -> End: view
    def is_final(batch_id: uint256) -> bool: view
    def roll_back(batch_id: uint256, challenger: address) -> (address, uint256): nonpayable
    def challenge_window_s() -> uint256: view
    def sequencers() -> address: view


interface IInbox:
    def deadline_at(i: uint256) -> uint256: view
    def delay_min_s() -> uint256: view
    def delay_max_s() -> uint256: view


interface IDataSource:
    def segment(
        data_root: bytes32,
        elements: uint256,
        segments: uint256,
        ticks: uint256,
        index: uint256,
        proof: Bytes[batch.PROOF_BYTES_MAX],
    ) -> batch.Segment: view


# What a check finds. `root`: after the records, for a segment; otherwise 0.
struct Verdict:
    fraud: bool
    batch_id: uint256
    challenge_id: bytes32  # what a commitment is about: hash of header hash, check and segment
    root: bytes32


struct Reward:
    challenge_id: bytes32
    batch_id: uint256
    revealer: address
    amount: uint256  # of the revealer, wei; 0 once it is collected, or another's
    contester: address  # who had the oldest commitment; 0: the revealer, as far as is known
    contested: uint256  # of the contester, wei; likewise
    committed_at: uint256  # block of the oldest commitment
    challenged_at: uint256  # block
    collect_from: uint256  # seconds: when no earlier batch can be rolled back any more


# Of 110 KiB of calldata, what is not proof, header and heads.
WITNESS_BYTES_MAX: constant(uint256) = 100_000
CALL_BYTES_MAX: constant(uint256) = 112_000
KEY_GLOBAL: constant(uint256) = 0
HEAD_BYTES: constant(uint256) = 196  # of a message to a verifier, before the witness words

CHECK_SEGMENT: constant(bytes4) = method_id(
    "check_segment((uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256,bytes32,bytes,bytes)",
    output_type=bytes4,
)
CHECK_FORM: constant(bytes4) = method_id(
    "check_form((uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256,bytes)",
    output_type=bytes4,
)
CHECK_HEADER: constant(bytes4) = method_id(
    "check_header((uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256[6],uint256,bytes32[])",
    output_type=bytes4,
)
CHECK_LATE: constant(bytes4) = method_id(
    "check_late((uint256,bytes32,bytes32,bytes32,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,uint256),uint256)",
    output_type=bytes4,
)
APPLY: constant(bytes4) = method_id("apply(bytes32,uint256,bytes32,bytes32,bytes32,bytes32)", output_type=bytes4)

# Kinds by verifier, a bit a kind; what is in none goes to VerifierRisk, unknown kinds included.
TRADE_KINDS: constant(uint256) = (1 << 32) | (1 << 33)  # PLACE, CONTINUE
AMEND_KINDS: constant(uint256) = 1 << 45  # AMEND
WORDS_KINDS: constant(uint256) = 1 << 46  # PLACE_IN_WORDS
FORCED_KINDS: constant(uint256) = 1 << 5  # FORCED_ORDER
ACCOUNT_KINDS: constant(uint256) = (
    (1 << 3) | (1 << 21) | (1 << 37) | (1 << 38)  # FORCED_WITHDRAW, SETTLE, TRANSFER, WITHDRAW
)
AUCTION_KINDS: constant(uint256) = (
    (1 << 6) | (1 << 8) | (1 << 22) | (1 << 39)  # FORCED_LIQUIDATE, FORCED_BID, LIQUIDATE, BID
)
LEDGER_KINDS: constant(uint256) = (
    (1 << 2) | (1 << 4) | (1 << 23) | (1 << 24)  # DEPOSIT, FORCED_CANCEL_ALL, COLLECT, SWEEP
    | (1 << 34) | (1 << 35) | (1 << 36)  # CANCEL, CANCEL_ALL, SET_SIGNER
)

rollup: public(immutable(address))
sequencers: public(immutable(address))  # of the rollup: they pay
data_source: public(immutable(address))
verifier_trade: public(immutable(address))
verifier_amend: public(immutable(address))
verifier_words: public(immutable(address))
verifier_forced: public(immutable(address))
verifier_account: public(immutable(address))
verifier_auction: public(immutable(address))
verifier_ledger: public(immutable(address))
verifier_risk: public(immutable(address))
reveal_blocks: public(immutable(uint256))


event Committed:
    commitment: indexed(bytes32)


event Challenged:
    batch_id: indexed(uint256)
    challenger: indexed(address)
    reward: indexed(uint256)
    challenge_id: bytes32
    amount: uint256


event Contested:
    reward: indexed(uint256)
    challenger: indexed(address)


event Moved:
    reward: indexed(uint256)
    to: indexed(uint256)
    amount: uint256


event Collected:
    reward: indexed(uint256)
    challenger: indexed(address)
    amount: uint256


# Block of a commitment; 0 = none. Written by commit, challenge and contest.
committed_at: public(HashMap[bytes32, uint256])
# Rewards by number, from 0. A batch posted again after a roll-back can be challenged under the same id: hence a number.
# Written by challenge, contest, collect and collect_contest.
rewards: public(HashMap[uint256, Reward])
# Number of the last reward out of a poster's bond, plus 1; 0: none. Written by challenge.
_last_of: HashMap[address, uint256]
# How many there are. Written by challenge.
rewards_count: public(uint256)


@deploy
def __init__(
    rollup_: address,
    data_source_: address,
    verifier_trade_: address,
    verifier_amend_: address,
    verifier_words_: address,
    verifier_forced_: address,
    verifier_account_: address,
    verifier_auction_: address,
    verifier_ledger_: address,
    verifier_risk_: address,
    reveal_blocks_: uint256,
):
    """
    @param rollup_ Whose batches are judged.
    @param data_source_ Proves what their payloads say.
    @param verifier_trade_ Executes PLACE and CONTINUE.
    @param verifier_amend_ Executes AMEND.
    @param verifier_words_ Executes PLACE_IN_WORDS.
    @param verifier_forced_ Executes FORCED_ORDER.
    @param verifier_account_ Executes FORCED_WITHDRAW, WITHDRAW, TRANSFER and SETTLE.
    @param verifier_auction_ Executes FORCED_LIQUIDATE, FORCED_BID, LIQUIDATE and BID.
    @param verifier_ledger_ Executes DEPOSIT, FORCED_CANCEL_ALL, COLLECT, SWEEP, CANCEL, CANCEL_ALL and SET_SIGNER.
    @param verifier_risk_ Executes every other record.
    @param reveal_blocks_ Blocks for which a commitment is good, and for which a reward can be contested.
    """
    # A call to an address without code succeeds and says nothing.
    assert rollup_.is_contract, "arbiter: rollup is not a contract"
    assert data_source_.is_contract, "arbiter: data source is not a contract"
    assert (
        verifier_trade_.is_contract
        and verifier_amend_.is_contract
        and verifier_words_.is_contract
        and verifier_forced_.is_contract
        and verifier_account_.is_contract
        and verifier_auction_.is_contract
        and verifier_ledger_.is_contract
        and verifier_risk_.is_contract
    ), "arbiter: verifier is not a contract"
    assert reveal_blocks_ > 0, "arbiter: no block to reveal in"
    rollup = rollup_
    sequencers = staticcall IRollup(rollup_).sequencers()
    data_source = data_source_
    verifier_trade = verifier_trade_
    verifier_amend = verifier_amend_
    verifier_words = verifier_words_
    verifier_forced = verifier_forced_
    verifier_account = verifier_account_
    verifier_auction = verifier_auction_
    verifier_ledger = verifier_ledger_
    verifier_risk = verifier_risk_
    reveal_blocks = reveal_blocks_


@external
@payable
@reentrant
def __default__():
    """
    @notice Takes what a liar's bond pays for a challenge, in the middle of it.
    """
    assert msg.sender == sequencers, "arbiter: caller is not the sequencers"


@external
def commit(commitment: bytes32):
    """
    @notice Announces a challenge without showing it.
    @param commitment keccak256(abi_encode(challenger, challenge id, salt)), salt being 32 bytes that nobody can guess.
    """
    # Whoever copies a commitment gains nothing, the challenger's address being in it, and must not make it younger.
    committed: uint256 = self.committed_at[commitment]
    assert committed == 0 or block.number > committed + reveal_blocks, "arbiter: committed already"
    self.committed_at[commitment] = block.number
    log Committed(commitment=commitment)


@external
def challenge(salt: bytes32, check: Bytes[CALL_BYTES_MAX]) -> uint256:
    """
    @notice Rolls a wrong batch back.
    @param salt That of the caller's commitment, one block old or more.
    @param check Calldata of `check_segment`, `check_form`, `check_header` or `check_late`.
    @return Number of the reward, to be collected when neither a contest nor an earlier batch can take it.
    """
    # Any other function would let the caller write the verdict.
    selector: bytes4 = convert(slice(check, 0, 4), bytes4)
    assert (
        selector == CHECK_SEGMENT or selector == CHECK_FORM or selector == CHECK_HEADER or selector == CHECK_LATE
    ), "arbiter: not a check"
    verdict: Verdict = abi_decode(raw_call(self, check, max_outsize=128), Verdict)
    assert verdict.fraud, "arbiter: no fraud"

    commitment: bytes32 = keccak256(abi_encode(msg.sender, verdict.challenge_id, salt))
    committed: uint256 = self.committed_at[commitment]
    assert committed != 0, "arbiter: no commitment"
    assert block.number > committed, "arbiter: commitment is of this block"
    assert block.number <= committed + reveal_blocks, "arbiter: commitment has expired"
    self.committed_at[commitment] = 0

    number: uint256 = self.rewards_count
    self.rewards_count = unsafe_add(number, 1)  # one a transaction: cannot reach 2^256
    # The rollup is ours, and the lock is held.
    poster: address = empty(address)
    amount: uint256 = 0
    poster, amount = extcall IRollup(rollup).roll_back(verdict.batch_id, msg.sender)
    amount += self._moved(self._last_of[poster], verdict.batch_id, number)
    self._last_of[poster] = unsafe_add(number, 1)
    collect_from: uint256 = 0  # of batch 1: genesis stays
    if verdict.batch_id > 1:
        before: Batch = staticcall IRollup(rollup).batch(unsafe_sub(verdict.batch_id, 1))
        collect_from = before.posted_at + staticcall IRollup(rollup).challenge_window_s()
    self.rewards[number] = Reward(
        challenge_id=verdict.challenge_id,
        batch_id=verdict.batch_id,
        revealer=msg.sender,
        amount=amount,
        contester=empty(address),
        contested=0,
        committed_at=committed,
        challenged_at=block.number,
        collect_from=collect_from,
    )
    log Challenged(
        batch_id=verdict.batch_id,
        challenger=msg.sender,
        reward=number,
        challenge_id=verdict.challenge_id,
        amount=amount,
    )
    return number


@external
def contest(number: uint256, salt: bytes32):
    """
    @notice Takes a third of a reward by an older commitment to the same challenge, good when the challenge was made; the
            oldest has it.
    @param number The reward.
    @param salt That of the caller's commitment.
    """
    reward: Reward = self.rewards[number]
    assert reward.amount > 0, "arbiter: no such reward"
    assert block.number <= reward.challenged_at + reveal_blocks, "arbiter: contest is over"
    commitment: bytes32 = keccak256(abi_encode(msg.sender, reward.challenge_id, salt))
    committed: uint256 = self.committed_at[commitment]
    assert committed != 0, "arbiter: no commitment"
    assert committed < reward.committed_at, "arbiter: commitment is not older"
    assert reward.challenged_at <= committed + reveal_blocks, "arbiter: commitment had expired"
    self.committed_at[commitment] = 0
    if reward.contester == empty(address):
        share: uint256 = reward.amount // 3
        self.rewards[number].amount = unsafe_sub(reward.amount, share)  # share <= amount
        self.rewards[number].contested = share
    self.rewards[number].contester = msg.sender
    self.rewards[number].committed_at = committed
    log Contested(reward=number, challenger=msg.sender)


@external
def collect(number: uint256):
    """
    @notice Pays the revealer's part of a reward, all of it when nobody has contested it; anybody may ask for it.
    @param number The reward.
    """
    reward: Reward = self.rewards[number]
    assert reward.amount > 0, "arbiter: no such reward"
    self._check_open(reward)
    self.rewards[number].amount = 0
    self._pay(number, reward.revealer, reward.amount)


@external
def collect_contest(number: uint256):
    """
    @notice Pays the contester's part of a reward; anybody may ask for it. Apart from the revealer's, so that neither can
            keep the other's back by refusing its own.
    @param number The reward.
    """
    reward: Reward = self.rewards[number]
    assert reward.contested > 0, "arbiter: no such reward"
    self._check_open(reward)
    self.rewards[number].contested = 0
    self._pay(number, reward.contester, reward.contested)


@external
@reentrant
def check_segment(
    header: batch.Header,
    index: uint256,
    pre_root: bytes32,
    proof: Bytes[batch.PROOF_BYTES_MAX],
    witness: Bytes[WITNESS_BYTES_MAX],
) -> Verdict:
    """
    @notice Executes segment `index` again. Fraud is another root than the one committed after it, of which the segment
            has the top 248 bits and, after the last segment, the header all 256.
    @param header Of a posted batch that is not final.
    @param pre_root State root before the segment; its top 248 bits are committed, or all 256 in the header.
    @param proof For the data source.
    @param witness For each record 32 bytes of length and the message to its verifier: selector, pre-root, length of the
           record, the record in four words, witness words.
    """
    segment: batch.Segment = self._segment(header, index, proof)
    assert self._is_well_formed(segment), "arbiter: segment is malformed"
    if index == 0:
        assert pre_root == header.pre_root, "arbiter: pre-root is not the committed one"
    else:
        assert convert(pre_root, uint256) >> 8 == segment.before, "arbiter: pre-root is not the committed one"

    root: bytes32 = pre_root
    element: uint256 = 0
    at: uint256 = 0
    for _: uint256 in range(batch.SEGMENT_RECORDS_MAX):
        if element == len(segment.records):
            break
        assert at + 32 + HEAD_BYTES <= len(witness), "arbiter: witness too short"
        length: uint256 = convert(extract32(witness, at), uint256)
        at = unsafe_add(at, 32)  # <= len(witness)
        assert length <= len(witness) - at, "arbiter: witness too short"
        size: uint256 = batch._layout(batch._kind(segment.records[element]))[0]
        # The message is sent as it stands in the witness: writing it anew would cost the memory once more.
        assert (
            keccak256(slice(witness, at, HEAD_BYTES)) == batch._head_hash(APPLY, root, segment, element, size)
        ), "arbiter: message is not about this record"
        result: Bytes[64] = raw_call(
            self._verifier(batch._kind(segment.records[element])), slice(witness, at, length), max_outsize=64
        )
        root = extract32(result, 0)
        at = unsafe_add(at, length)
        element = unsafe_add(element, size)  # <= len(records): no record is cut off
    assert at == len(witness), "arbiter: surplus witness"

    fraud: bool = convert(root, uint256) >> 8 != segment.root or (
        unsafe_add(index, 1) == header.segments and root != header.post_root
    )
    return Verdict(
        fraud=fraud, batch_id=header.batch_id, challenge_id=self._id(header, CHECK_SEGMENT, index), root=root
    )


@external
@view
@reentrant
def check_form(header: batch.Header, index: uint256, proof: Bytes[batch.PROOF_BYTES_MAX]) -> Verdict:
    """
    @notice Looks at the bounds of segment `index`. Fraud is a segment that is empty, ends before it starts or past the
            payload, weighs too much, or whose last record is cut off; and a last segment that ends before the payload.
            Rollup checks that of calldata by itself.
    @param header Of a posted batch that is not final.
    @param proof For the data source.
    """
    segment: batch.Segment = self._segment(header, index, proof)
    area: uint256 = header.elements - batch._tables(header.segments, header.ticks)
    return Verdict(
        fraud=not self._is_well_formed(segment)
        or (unsafe_add(index, 1) == header.segments and segment.end != area),
        batch_id=header.batch_id,
        challenge_id=self._id(header, CHECK_FORM, index),
        root=empty(bytes32),
    )


@external
@view
@reentrant
def check_header(
    header: batch.Header, words: uint256[6], bitmap: uint256, siblings: DynArray[bytes32, cmap.PATH_MAX]
) -> Verdict:
    """
    @notice Compares a header with GLOBAL under its post-root. Fraud is another time, tick, inbox count, inbox hash, work
            or next sequence number. The header's inbox hash is the Inbox's own: Rollup has put it there.
    @param header Of a posted batch that is not final.
    @param words Of GLOBAL.
    @param bitmap Branch bits of GLOBAL's path.
    @param siblings Hash beside the path at each of those bits, the lowest bit first.
    """
    self._check_posted(header)
    entry: uint256 = convert(keccak256(abi_encode(words)), uint256)
    assert cmap._read(header.post_root, KEY_GLOBAL, entry, bitmap, siblings), "arbiter: wrong path of GLOBAL"
    fraud: bool = (
        words[0] & constants.U40_MAX != header.first_seq + header.records
        or (words[0] >> 40) & constants.U32_MAX != header.time
        or words[2] & constants.U40_MAX != header.inbox_count
        or convert(words[1], bytes32) != header.inbox_hash
        or (words[2] >> 168) & constants.U48_MAX != header.work
        or (words[0] >> 72) & constants.U40_MAX != header.tick
    )
    return Verdict(
        fraud=fraud,
        batch_id=header.batch_id,
        challenge_id=self._id(header, CHECK_HEADER, 0),
        root=empty(bytes32),
    )


@external
@view
@reentrant
def check_late(header: batch.Header, index: uint256) -> Verdict:
    """
    @notice Compares when a batch was posted with the deadline of the Inbox's message `index`. Fraud is a batch, whether
            it takes the message or not, that was posted past that deadline by more than the Inbox's delay_min_s, while
            no batch before it had taken the message. After a roll-back messages have the Inbox's longest delay again.
    @dev The rollup can be frozen as soon as the deadline is over; delay_min_s more is what a batch that was sent in good
         time may need to be mined. One id for all messages of a batch: who shows another message contests no reward.
    @param header Of a posted batch that is not final.
    @param index Of the message.
    """
    self._check_posted(header)
    # Genesis has no header that could be shown.
    taken: uint256 = (staticcall IRollup(rollup).end(unsafe_sub(header.batch_id, 1))).inbox_count
    end: End = staticcall IRollup(rollup).end(header.batch_id)
    inbox: address = staticcall IRollup(rollup).inbox()
    deadline: uint256 = max(
        staticcall IInbox(inbox).deadline_at(index),  # reverts beyond the inbox's count
        end.rolled_back_at + staticcall IInbox(inbox).delay_max_s(),
    )
    return Verdict(
        fraud=index >= taken and end.posted_at > deadline + staticcall IInbox(inbox).delay_min_s(),
        batch_id=header.batch_id,
        challenge_id=self._id(header, CHECK_LATE, 0),
        root=empty(bytes32),
    )


@external
@view
@reentrant
def verifier_of(kind: uint256) -> address:
    """
    @notice Who executes records of a kind (one byte).
    """
    return self._verifier(kind)


@internal
def _moved(last: uint256, batch_id: uint256, to: uint256) -> uint256:
    """
    @notice Takes what waits of reward `last` - 1 for reward `to`, if it is of a batch after `batch_id`; what it was, wei.
    """
    if last == 0:
        return 0
    number: uint256 = unsafe_sub(last, 1)
    reward: Reward = self.rewards[number]
    amount: uint256 = reward.amount + reward.contested
    if amount == 0 or reward.batch_id <= batch_id:
        return 0
    self.rewards[number].amount = 0
    self.rewards[number].contested = 0
    log Moved(reward=number, to=to, amount=amount)
    return amount


@internal
@view
def _check_open(reward: Reward):
    """
    @notice Reverts while a reward can become another's.
    """
    assert block.number > reward.challenged_at + reveal_blocks, "arbiter: contest is open"
    assert block.timestamp >= reward.collect_from, "arbiter: an earlier batch can be challenged"


@internal
def _pay(number: uint256, to: address, amount: uint256):
    """
    @notice Pays what has been written off.
    """
    log Collected(reward=number, challenger=to, amount=amount)
    raw_call(to, b"", value=amount)


@internal
@view
def _check_posted(header: batch.Header):
    """
    @notice Reverts unless `header` is that of a batch which stands and is not final.
    """
    posted: Batch = staticcall IRollup(rollup).batch(header.batch_id)
    assert batch._header_hash(header) == posted.header_hash, "arbiter: header is not the posted one"
    assert not staticcall IRollup(rollup).is_final(header.batch_id), "arbiter: batch is final"


@internal
@view
def _segment(header: batch.Header, index: uint256, proof: Bytes[batch.PROOF_BYTES_MAX]) -> batch.Segment:
    """
    @notice A segment of a posted batch.
    """
    self._check_posted(header)
    return staticcall IDataSource(data_source).segment(
        header.data_root, header.elements, header.segments, header.ticks, index, proof
    )


@internal
@pure
def _is_well_formed(segment: batch.Segment) -> bool:
    """
    @notice Whether a segment is what an honest sequencer makes: not empty, inside the payload, whole records, within
            the weight. The data source opens records exactly where the bounds hold.
    """
    if len(segment.records) == 0:
        return False
    elements: uint256 = len(segment.records)
    element: uint256 = 0
    weights: uint256 = 0
    for _: uint256 in range(batch.SEGMENT_ELEMENTS_MAX):
        if element >= elements:
            break
        size: uint256 = 0
        weight: uint256 = 0
        size, weight = batch._layout(batch._kind(segment.records[element]))
        element = unsafe_add(element, size)  # <= 42 * 4
        weights = unsafe_add(weights, weight)  # <= 42 * 31
    return element == elements and weights <= batch.SEGMENT_WEIGHT_MAX


@internal
@view
def _verifier(kind: uint256) -> address:
    """
    @notice Who executes records of a kind (one byte).
    """
    if (TRADE_KINDS >> kind) & 1 == 1:
        return verifier_trade
    if (AMEND_KINDS >> kind) & 1 == 1:
        return verifier_amend
    if (WORDS_KINDS >> kind) & 1 == 1:
        return verifier_words
    if (FORCED_KINDS >> kind) & 1 == 1:
        return verifier_forced
    if (ACCOUNT_KINDS >> kind) & 1 == 1:
        return verifier_account
    if (AUCTION_KINDS >> kind) & 1 == 1:
        return verifier_auction
    if (LEDGER_KINDS >> kind) & 1 == 1:
        return verifier_ledger
    return verifier_risk


@internal
@pure
def _id(header: batch.Header, check: bytes4, index: uint256) -> bytes32:
    """
    @notice What a commitment to this check is about.
    """
    return keccak256(abi_encode(batch._header_hash(header), check, index))
