# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Sequencers: the bonded set, and who of it leads
@license MIT
@notice Whoever bonds is a member, and members stand in a queue. The first of it leads: it alone posts, in an epoch that
        no other has part in. When it has been silent for takeover_s the next in the queue may take over, after twice that
        the one behind, and so on, so that dead members do not stop it; who is passed over goes to
        the end of the queue. A leader can also hand over to the next at once. Whose lead ends before it has posted, or has
        served what was waiting when it began, leaves the set. The bond of the member who led when the first wrong batch
        was posted is slashed, and that of nobody else.
@dev Rollup keeps the epoch of each batch, this contract the leader of each epoch: posting writes nothing here. The rollup
     knows this contract's address and is named here after both are deployed, once, for the reasons given in `Inbox`;
     until then nobody can post or join.
@custom:security A batch that is not final was posted before its poster's lead ended, so that a bond which stays for a
        challenge window after that (led_until) is there for every challenge. A newcomer goes to the end of the queue, so
        that nobody can push in before those who wait. The clock of silence is Rollup's `unserved_since`: neither a change
        of the lead nor a batch that leaves the inbox waiting starts it anew, and the changes since it stood still are
        counted, so that a member at place p may lead after p * takeover_s of it, and any after MEMBERS_MAX. A new leader
        has takeover_s to post in any case, and is out of the set if it does not serve: the others, be they in front, behind
        or faster, can delay a member by that once each. So one whom all others of a full set work against leads in less
        than 2 * MEMBERS_MAX - 1 take-over times, and has one to post. That is rotation_s, at most half the Inbox's shortest
        delay, the other half being the leader's own: it serves any message in time, and nobody can freeze for one.
@custom:kill A leader that stops is taken over from; it keeps its bond, which it can withdraw a challenge window after its
        lead. Anybody with the bond can become a member, and leader when its turn comes: then it orders, and may delay, but
        a wrong root costs it the bond. Members cannot remove each other. The rollup slashes, when the arbiter rolls a batch
        back; the judge of receipts slashes who has broken one. The deployer names both, once. Nobody else has any
        privilege; nothing can be upgraded.
"""


from lib import receipts


interface IRollup:
    def sequencers() -> address: view
    def challenge_window_s() -> uint256: view
    def frozen_at() -> uint256: view
    def unserved_since() -> (uint256, uint256): view


interface IJudge:
    def sequencers() -> address: view


MEMBERS_MAX: constant(uint256) = 16
PAID_EIGHTHS: constant(uint256) = 3  # of a slashed bond: two go to who reveals, one to the oldest commitment (Arbiter)
# The least bond: the dearest challenge has 8,000,000 gas, of a bond's quarter; a copied one costs its maker 5,000,000 at
# most, of an eighth. Both are paid for up to 25 gwei; docs/SECURITY.md has the table.
CHALLENGES_GAS: constant(uint256) = 40_000_000
CHALLENGES_GAS_PRICE: constant(uint256) = 25 * 10**9  # wei
U128_MAX: constant(uint256) = 2**128 - 1
KEY_TYPE: constant(bytes32) = keccak256("fairstrike receipt key")
BURN: constant(address) = 0x000000000000000000000000000000000000dEaD

bond_min: public(immutable(uint256))  # wei
takeover_s: public(immutable(uint256))
rollup_setter: public(immutable(address))


event RollupSet:
    rollup: indexed(address)


event JudgeSet:
    judge: indexed(address)


event ReceiptKeySet:
    member: indexed(address)
    key: indexed(address)


event Held:
    member: indexed(address)
    amount: uint256
    until: uint256


event Joined:
    member: indexed(address)
    bond: uint256


event Left:
    member: indexed(address)


event Withdrawn:
    member: indexed(address)
    amount: uint256


event EpochStarted:
    epoch: indexed(uint256)
    leader: indexed(address)


event Slashed:
    epoch: indexed(uint256)
    member: indexed(address)
    amount: uint256


# Whose batches these are. Written once by set_rollup; without the "once", the deployer could take the bonds.
rollup: public(address)
# Who judges receipts. Written once by set_judge; without the "once", the deployer could take the bonds.
judge: public(address)
# Whose receipt key an address is, for good: what it has signed binds that member. Written by set_receipt_key.
member_of_key: public(HashMap[address, address])
# The key under which a member signs its receipts now. Written by set_receipt_key.
receipt_key_of: public(HashMap[address, address])
# What the judge has taken of a member's bond: 0..127 wei, 128..191 until when it waits, seconds: a wrong
# batch of the same member's, shown by then, has it. Written by slash_member, release and slash.
_held: HashMap[address, uint256]
# The queue; [0] leads, if anybody does. Each has bonded bond_min or more. Written by the constructor, join, leave, _lead
# and slash.
_members: DynArray[address, MEMBERS_MAX]
# Who may post, apart from the queue because `post` reads it; 0: nobody, the leader was slashed, or has left after a freeze.
# Written by _lead and _end_lead.
leader: public(address)
# Number of the present epoch, or of the last one while nobody leads; the first is 1. Written by _lead.
epoch: public(uint256)
# When the epoch started, seconds. Written by _lead.
epoch_started_at: public(uint256)
# Since when there had been silence as the lead changed last, seconds; how many places the queue has been turned in it.
# Without the turns each change of the lead would give colluding members the others' waiting time once more.
# Written by _lead.
_turned_since: uint256
_turn: uint256
# When a member has last joined an empty set, seconds: nobody was there to serve anything before. Written by join.
_founded_at: uint256
# Who led in an epoch; kept for ever, as whom to slash. Written by _lead.
leader_of: public(HashMap[uint256, address])
# What stands for somebody, wei, in the set or not; not self.balance, which anybody can raise. Written by the constructor,
# join, withdraw_bond and slash.
bond_of: public(HashMap[address, uint256])
# When somebody's last lead ended, seconds: its bond stays a challenge window longer. Written by _end_lead.
led_until: public(HashMap[address, uint256])


@deploy
@payable
def __init__(leader_: address, bond_min_: uint256, takeover_s_: uint256):
    """
    @notice The value sent is the bond of the first leader.
    @param leader_ Who leads first.
    @param bond_min_ Wei that a member must bond.
    @param takeover_s_ Seconds of a leader's silence after which the next may take over, and that a new leader has to post.
    """
    assert leader_ != empty(address), "sequencers: leader is zero"
    assert bond_min_ >= CHALLENGES_GAS * CHALLENGES_GAS_PRICE, "sequencers: bond does not pay a challenge"
    assert takeover_s_ > 0, "sequencers: take-over time is zero"
    assert msg.value >= bond_min_, "sequencers: bond below the minimum"
    bond_min = bond_min_
    takeover_s = takeover_s_
    rollup_setter = msg.sender
    self.bond_of[leader_] = msg.value
    log Joined(member=leader_, bond=msg.value)
    self._lead([leader_], block.timestamp, 0)


@external
def set_rollup(rollup: address):
    """
    @notice Names the rollup whose batches the members post. It has compared takeover_s with its own times.
    @custom:kill Once only, by the deployer; it cannot be changed or revoked.
    """
    assert msg.sender == rollup_setter, "sequencers: caller is not the deployer"
    assert self.rollup == empty(address), "sequencers: rollup is set already"
    assert (
        rollup.is_contract and staticcall IRollup(rollup).sequencers() == self
    ), "sequencers: rollup has another set"
    self.rollup = rollup
    log RollupSet(rollup=rollup)


@external
def set_judge(judge: address):
    """
    @notice Names the contract that judges receipts.
    @custom:kill Once only, by the deployer; it cannot be changed or revoked.
    """
    assert msg.sender == rollup_setter, "sequencers: caller is not the deployer"
    assert self.judge == empty(address), "sequencers: judge is set already"
    assert judge.is_contract and staticcall IJudge(judge).sequencers() == self, "sequencers: judge has another set"
    self.judge = judge
    log JudgeSet(judge=judge)


@external
def set_receipt_key(key: address, r: bytes32, vs: bytes32):
    """
    @notice From now on the caller's receipts are signed by `key`; those of its earlier keys bind it as before.
    @param r Of the key's signature (EIP-2098) of keccak256(abi_encode(KEY_TYPE, chain id, this contract, caller)): nobody
             can take another's key for its own.
    @param vs Likewise.
    @custom:kill A member alone, for itself.
    """
    assert self._place(msg.sender) < MEMBERS_MAX, "sequencers: caller is not a member"
    owner: address = self.member_of_key[key]
    assert owner == empty(address) or owner == msg.sender, "sequencers: another member's key"
    digest: bytes32 = keccak256(abi_encode(KEY_TYPE, chain.id, self, msg.sender))
    assert key != empty(address) and receipts._recover(digest, r, vs) == key, "sequencers: key has not signed"
    self.member_of_key[key] = msg.sender
    self.receipt_key_of[msg.sender] = key
    log ReceiptKeySet(member=msg.sender, key=key)


@external
@payable
def join():
    """
    @notice Makes the caller the last of the queue. What is left of an earlier bond counts. Who joins an empty set leads.
    """
    assert self.rollup != empty(address), "sequencers: no rollup"
    # It could not post: see Rollup.
    assert msg.sender == tx.origin and msg.sender.codesize == 0, "sequencers: member has code"
    assert self._place(msg.sender) == MEMBERS_MAX, "sequencers: member already"
    assert len(self._members) < MEMBERS_MAX, "sequencers: set is full"
    bond: uint256 = self.bond_of[msg.sender] + msg.value
    assert bond >= bond_min, "sequencers: bond below the minimum"
    # One case at a time: the next receipt that it breaks must cost it a bond again.
    assert self._held[msg.sender] == 0, "sequencers: slashed, and not released"
    self.bond_of[msg.sender] = bond
    log Joined(member=msg.sender, bond=bond)
    if len(self._members) == 0:
        self._check_not_frozen()
        self._founded_at = block.timestamp
        self._lead([msg.sender], block.timestamp, 0)
    else:
        self._members.append(msg.sender)


@external
def leave():
    """
    @notice Takes the caller out of the queue; the bond stays until withdraw_bond.
    @custom:kill The leader must hand over first; when nobody else is there, it can leave when the rollup is frozen.
    """
    place: uint256 = self._place(msg.sender)
    assert place < MEMBERS_MAX, "sequencers: caller is not a member"
    if msg.sender == self.leader:
        assert staticcall IRollup(self.rollup).frozen_at() != 0, "sequencers: leader cannot leave"
        self._end_lead(msg.sender)
    self._remove(place)
    log Left(member=msg.sender)


@external
def withdraw_bond():
    """
    @notice Pays the caller's bond back, once it has left and every batch that it posted is final.
    """
    assert self._place(msg.sender) == MEMBERS_MAX, "sequencers: caller is a member"
    amount: uint256 = self.bond_of[msg.sender]
    assert amount > 0, "sequencers: no bond"
    # It has posted nothing after its lead, and what others have posted of its receipts is final a window later.
    assert (
        block.timestamp >= self.led_until[msg.sender] + 2 * staticcall IRollup(self.rollup).challenge_window_s()
    ), "sequencers: batches are not final"
    self.bond_of[msg.sender] = 0
    log Withdrawn(member=msg.sender, amount=amount)
    raw_call(msg.sender, b"", value=amount)


@external
def hand_over():
    """
    @notice The next in the queue leads from now on, and the caller becomes the last; it is out of the set, with its bond,
            when it has served nothing in its epoch: it would have led for nothing but to stop others.
    @custom:kill The leader alone.
    """
    assert msg.sender == self.leader, "sequencers: caller is not the leader"
    assert len(self._members) > 1, "sequencers: nobody to hand over to"
    self._check_not_frozen()
    self._change(1)


@external
def take_over():
    """
    @notice The caller leads from now on: the leader has been silent, or nobody leads.
    @dev Those before the caller go behind everybody else. A leader that has served nothing in its epoch leaves the set.
    @custom:kill A member at place k, after k * takeover_s of silence, less the places that the queue was turned by in it;
         at once at place 0, when nobody leads.
    """
    place: uint256 = self._place(msg.sender)
    assert place < MEMBERS_MAX, "sequencers: caller is not a member"
    assert msg.sender != self.leader, "sequencers: caller is the leader"
    self._check_not_frozen()
    assert block.timestamp >= self._takes_over_at(place), "sequencers: not silent for long enough"
    self._change(place)


@external
def slash(epoch: uint256, receiver: address) -> (address, uint256, uint256):
    """
    @notice Takes the whole bond of the leader of an epoch, and takes it out of the set: 3/8 are paid to `receiver`, the
            rest is burned. Those 5/8 a lie costs whoever its challengers are: a sequencer can challenge itself.
    @dev It does not fail for want of a bond: a wrong batch goes even when one after it has cost the bond already.
    @return Whose bond it was; what was taken, and what was paid of it, wei.
    @custom:kill The rollup alone, as it rolls back.
    """
    # An unset rollup is the zero address, which cannot call.
    assert msg.sender == self.rollup, "sequencers: caller is not the rollup"
    member: address = self.leader_of[epoch]
    amount: uint256 = self.bond_of[member]
    held: uint256 = self._held[member]
    if held != 0:
        self._held[member] = held >> 128 << 128  # it stays held, of nothing: see join
        amount += held & U128_MAX
    paid: uint256 = amount * PAID_EIGHTHS // 8
    self.bond_of[member] = 0
    self._expel(member)
    log Slashed(epoch=epoch, member=member, amount=amount)
    raw_call(BURN, b"", value=unsafe_sub(amount, paid))  # paid <= amount
    raw_call(receiver, b"", value=paid)
    return member, amount, paid


@external
def slash_member(member: address) -> uint256:
    """
    @notice Takes the whole bond of a member that has broken a receipt, and takes it out of the set. It waits a challenge
            window for `release`, which burns 5/8; if a batch of the member's is proved wrong by then, its challenger has the
            3/8. Without that a liar could show a broken receipt of its own to leave the challengers nothing.
    @return What waits, wei; 0: it has no bond.
    @custom:kill The judge alone, on proof.
    """
    # An unset judge is the zero address, which cannot call.
    assert msg.sender == self.judge, "sequencers: caller is not the judge"
    amount: uint256 = self.bond_of[member]
    if amount == 0:
        return 0
    self.bond_of[member] = 0
    self._expel(member)
    until: uint256 = block.timestamp + staticcall IRollup(self.rollup).challenge_window_s()
    self._held[member] = amount | (until << 128)  # wei of a bond are below 2^128
    log Held(member=member, amount=amount, until=until)
    return amount


@external
def release(member: address) -> uint256:
    """
    @notice Pays the judge 3/8 of a bond that has waited, and burns the rest; what was paid, wei, 0: a challenger has had it.
    @custom:kill The judge alone, when every batch of the member's is final.
    """
    assert msg.sender == self.judge, "sequencers: caller is not the judge"
    held: uint256 = self._held[member]
    assert block.timestamp >= held >> 128, "sequencers: batches are not final"
    self._held[member] = 0
    amount: uint256 = held & U128_MAX
    paid: uint256 = amount * PAID_EIGHTHS // 8
    if amount > 0:
        raw_call(BURN, b"", value=unsafe_sub(amount, paid))  # paid <= amount
        raw_call(self.judge, b"", value=paid)
    return paid


@external
@view
@reentrant
def held(member: address) -> (uint256, uint256):
    """
    @notice What waits of a slashed member's bond, wei, and until when, seconds.
    """
    word: uint256 = self._held[member]
    return word & U128_MAX, word >> 128


@external
@view
@reentrant
def epoch_led_by(poster: address) -> uint256:
    """
    @notice The present epoch; reverts unless `poster` leads in it.
    """
    assert poster == self.leader, "sequencers: caller is not the leader"
    return self.epoch


@external
@view
@reentrant
def members() -> DynArray[address, MEMBERS_MAX]:
    """
    @notice The queue. The first leads, unless nobody does.
    """
    return self._members


@external
@view
@reentrant
def rotation_s() -> uint256:
    """
    @notice Seconds of silence in which the last of a full set leads, and has a turn to post, whatever the others do.
    """
    return 2 * MEMBERS_MAX * takeover_s


@external
@view
@reentrant
def takes_over_at(member: address) -> uint256:
    """
    @notice From when on a member may take over, seconds, if nothing is posted before; 2^256 - 1: it leads, or is none.
    """
    place: uint256 = self._place(member)
    if place == MEMBERS_MAX or member == self.leader:
        return max_value(uint256)
    return self._takes_over_at(place)


@external
@view
@reentrant
def silent_since() -> uint256:
    """
    @notice Since when the leader has been silent, seconds: what take-overs count from.
    """
    return self._unserved()[0]


@internal
@view
def _unserved() -> (uint256, uint256):
    """
    @notice Since when there is silence, and the epoch of the last batch. A set that was empty starts anew.
    """
    since: uint256 = 0
    epoch: uint256 = 0
    since, epoch = staticcall IRollup(self.rollup).unserved_since()
    return max(since, self._founded_at), epoch


@internal
@view
def _takes_over_at(place: uint256) -> uint256:
    """
    @notice From when on the member at `place` may take over, seconds.
    """
    since: uint256 = self._unserved()[0]
    # Beyond MEMBERS_MAX a member has been passed over, or has led, in the same silence: it waits no longer for that.
    turns: uint256 = min(self._turns(since) + place, MEMBERS_MAX)
    at: uint256 = since + turns * takeover_s
    return at if self.leader == empty(address) else max(at, self.epoch_started_at + takeover_s)


@internal
@view
def _turns(since: uint256) -> uint256:
    """
    @notice How many places the queue was turned by in the silence since `since`.
    """
    return self._turn if since == self._turned_since else 0


@internal
def _change(place: uint256):
    """
    @notice The member at `place` leads; who led before is out of the set if it has posted nothing in its epoch, or has
            left undone what was waiting when it began: nobody leads twice in one silence.
    """
    since: uint256 = 0
    epoch: uint256 = 0
    since, epoch = self._unserved()
    queue: DynArray[address, MEMBERS_MAX] = self._turned(place)
    leader: address = self.leader
    if leader != empty(address):
        self._end_lead(leader)
        if epoch != self.epoch or since < self.epoch_started_at:
            queue = self._without(queue, leader)
            log Left(member=leader)
    self._lead(queue, since, self._turns(since) + place)


@internal
def _lead(queue: DynArray[address, MEMBERS_MAX], since: uint256, turn: uint256):
    """
    @notice Starts an epoch of the first of `queue`.
    """
    self._turned_since = since
    self._turn = turn
    epoch: uint256 = self.epoch + 1
    self._members = queue
    self.leader = queue[0]
    self.epoch = epoch
    self.epoch_started_at = block.timestamp
    self.leader_of[epoch] = queue[0]
    log EpochStarted(epoch=epoch, leader=queue[0])


@internal
def _end_lead(member: address):
    """
    @notice Nobody leads, until somebody does. The leader of before posts nothing any more.
    """
    self.leader = empty(address)
    self.led_until[member] = block.timestamp


@internal
def _expel(member: address):
    """
    @notice Takes somebody out of the queue, and of the lead, if it is there.
    """
    place: uint256 = self._place(member)
    if place < MEMBERS_MAX:
        if member == self.leader:
            self._end_lead(member)
        self._remove(place)


@internal
def _remove(place: uint256):
    """
    @notice Takes a member out of the queue.
    """
    self._members = self._without(self._members, self._members[place])


@internal
@view
def _check_not_frozen():
    """
    @notice Reverts when nothing can be posted any more.
    """
    assert staticcall IRollup(self.rollup).frozen_at() == 0, "sequencers: rollup is frozen"


@internal
@view
def _place(member: address) -> uint256:
    """
    @notice Where somebody stands in the queue; MEMBERS_MAX: nowhere.
    """
    place: uint256 = 0
    for one: address in self._members:
        if one == member:
            return place
        place = unsafe_add(place, 1)  # <= MEMBERS_MAX
    return MEMBERS_MAX


@internal
@view
def _turned(place: uint256) -> DynArray[address, MEMBERS_MAX]:
    """
    @notice The queue from `place` on, and those before it behind them, in their order.
    """
    queue: DynArray[address, MEMBERS_MAX] = self._members
    turned: DynArray[address, MEMBERS_MAX] = []
    for i: uint256 in range(len(queue), bound=MEMBERS_MAX):
        turned.append(queue[(i + place) % len(queue)])
    return turned


@internal
@pure
def _without(queue: DynArray[address, MEMBERS_MAX], member: address) -> DynArray[address, MEMBERS_MAX]:
    """
    @notice The queue without a member.
    """
    rest: DynArray[address, MEMBERS_MAX] = []
    for one: address in queue:
        if one != member:
            rest.append(one)
    return rest
