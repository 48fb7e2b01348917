# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Inbox: what L1 tells L2
@license MIT
@notice An append-only queue of 31-byte records: deposits, and what an owner forces past the sequencer. L2 must take
        them in this order: every batch names how many it has taken and `Rollup` puts the running hash of that many into
        the batch's header. Each has a deadline; when a batch that takes it has not come by then, anybody may freeze the
        `Rollup`.
@dev Vault, Rollup and Inbox know each other, so that one of the three addresses must be set after deployment. It is
     this one, once, by the deployer, because predicting a CREATE address ties the deployment to the deployer's nonce
     and fails with a half-wired exchange when a transaction in between fails. `set_vault` checks that the vault
     points back here. Until it is called, nothing can be pushed, hence no account can exist.
@custom:security The hash of every prefix is kept: a batch may lag behind the queue by any number of messages. Deadlines
        are not monotone; who calls one overdue names it, so that no loop over messages is ever needed, which others could
        make long. The nearest expiry is the caller's word: it moves a deadline between delay_min_s and delay_max_s, and
        nowhere else, so that delay_min_s must be enough for any honest sequencer. A message takes 31 bytes of a batch,
        some 2,500 gas of calldata; to send it costs twenty times that, and the fee: flooding costs more than serving.
        The fee goes to nobody. The sequencer must not earn by censoring.
@custom:kill The deployer chooses the vault, once; after that nobody has any privilege here. Nobody can stop, drop,
        alter or reorder messages.
"""

from lib import codec
from lib import constants


interface IVault:
    def inbox() -> address: view
    def account_of(owner: address) -> uint256: view
    def owner_of(account: uint256) -> address: view


event VaultSet:
    vault: indexed(address)


event Message:
    index: indexed(uint256)
    record: Bytes[31]
    hash: bytes32


FORCED_WITHDRAW: constant(bytes1) = 0x03
FORCED_CANCEL_ALL: constant(bytes1) = 0x04
FORCED_ORDER: constant(bytes1) = 0x05
FORCED_LIQUIDATE: constant(bytes1) = 0x06
FORCED_BID: constant(bytes1) = 0x08
DELAY_MAX_LIMIT_S: constant(uint256) = 30 * 86_400
TIMES_PER_WORD: constant(uint256) = 4

delay_min_s: public(immutable(uint256))
delay_max_s: public(immutable(uint256))
message_fee: public(immutable(uint256))  # wei, of what is not a deposit
vault_setter: public(immutable(address))

# The only caller of push_deposit. Written once by set_vault; without the "once", the deployer could mint collateral.
vault: public(address)
# Messages so far. Written by _push.
_count: uint256
# Running hash after the first i messages; 0 for i = 0. Written by _push.
_hashes: HashMap[uint256, bytes32]
# Of each message 64 bits, 4 a word, the first lowest: 0..31 its deadline, 32..63 when it was pushed, seconds. Written by
# _push.
_times: HashMap[uint256, uint256]


@deploy
def __init__(delay_min_s_: uint256, delay_max_s_: uint256, message_fee_: uint256):
    """
    @notice The deployer gets the right to name the vault, once.
    @param delay_min_s_ Seconds that the sequencer has for any message, however near an expiry is.
    @param delay_max_s_ Seconds that it has for a message without an expiry near; at most the rollup's silence_max_s.
    @param message_fee_ Wei that a forced message costs beside its gas: what makes filling the inbox expensive.
    """
    assert delay_min_s_ > 0, "inbox: delay minimum is zero"
    assert delay_min_s_ < delay_max_s_, "inbox: delay minimum is not below the maximum"
    assert delay_max_s_ <= DELAY_MAX_LIMIT_S, "inbox: delay above 30 days"
    delay_min_s = delay_min_s_
    delay_max_s = delay_max_s_
    message_fee = message_fee_
    vault_setter = msg.sender


@external
def set_vault(vault: address):
    """
    @notice Names the vault whose deposits count.
    @custom:kill Once only, by the deployer; it cannot be changed or revoked.
    """
    assert msg.sender == vault_setter, "inbox: caller is not the deployer"
    assert self.vault == empty(address), "inbox: vault is set already"
    assert vault.is_contract and staticcall IVault(vault).inbox() == self, "inbox: vault has another inbox"
    self.vault = vault
    log VaultSet(vault=vault)


@external
def push_deposit(owner: address, account: uint256, amount: uint256) -> uint256:
    """
    @notice Appends a DEPOSIT of `amount` (1e-6 USD, below 2^48) for `account` (below 2^32) of `owner`.
    @return Index of the message.
    @custom:kill Only the vault calls it, which has taken the money; there is no way to refuse it.
    """
    # An unset vault is the zero address, which cannot call.
    assert msg.sender == self.vault, "inbox: caller is not the vault"
    return self._push(codec._deposit(owner, account, amount), delay_max_s)


@external
@payable
def force_withdraw(amount: uint64) -> uint256:
    """
    @notice Forces a withdrawal from the caller's account; it is claimed from the Vault like any other.
    @param amount 1e-6 USD; 0 = all that is free when L2 takes the message.
    @return Index of the message.
    """
    account: bytes4 = self._account_of_caller()
    record: Bytes[31] = concat(FORCED_WITHDRAW, account, convert(amount, bytes8), empty(bytes18))
    return self._push_forced(record, 0)


@external
@payable
def force_cancel_all() -> uint256:
    """
    @notice Forces the end of all resting orders of the caller's account.
    @return Index of the message.
    """
    return self._push_forced(concat(FORCED_CANCEL_ALL, self._account_of_caller(), empty(bytes26)), 0)


@external
@payable
def force_order(
    instrument: uint32,
    flags: uint8,
    price: uint32,
    quantity: uint40,
    expires: uint32,
    fee_max: uint16,
    nearest_expiry: uint256,
) -> uint256:
    """
    @notice Forces an order of the caller's account; the fields are those of PLACE, and L2 judges them by its rules.
    @param nearest_expiry 08:00 UTC of the nearest expiry that matters to the caller, seconds; 0: none.
    @return Index of the message.
    """
    record: Bytes[31] = concat(
        FORCED_ORDER,
        self._account_of_caller(),
        convert(instrument, bytes4),
        convert(flags, bytes1),
        convert(price, bytes4),
        convert(quantity, bytes5),
        convert(expires, bytes4),
        convert(fee_max, bytes2),
        empty(bytes6),
    )
    return self._push_forced(record, nearest_expiry)


@external
@payable
def force_liquidate(account: uint32, nearest_expiry: uint256) -> uint256:
    """
    @notice Forces a LIQUIDATE of anybody's account, which L2 refuses when it is healthy.
    @param account Of whomever.
    @param nearest_expiry 08:00 UTC of the nearest expiry that matters, seconds; 0: none.
    @return Index of the message.
    """
    self._check_known(account)
    return self._push_forced(concat(FORCED_LIQUIDATE, convert(account, bytes4), empty(bytes26)), nearest_expiry)


@external
@payable
def force_bid(target: uint32, fraction: uint16, cash_max: int64, nearest_expiry: uint256) -> uint256:
    """
    @notice Forces a bid of the caller's account in the auction of another; the fields are those of BID, and L2 judges them
            by its rules.
    @param target Account that is on auction.
    @param nearest_expiry 08:00 UTC of the nearest expiry that matters, seconds; 0: none.
    @return Index of the message.
    """
    account: bytes4 = self._account_of_caller()
    self._check_known(target)
    record: Bytes[31] = concat(
        FORCED_BID,
        account,
        convert(target, bytes4),
        convert(fraction, bytes2),
        convert(cash_max, bytes8),
        empty(bytes12),
    )
    return self._push_forced(record, nearest_expiry)


@external
@view
@reentrant
def count() -> uint256:
    """
    @notice How many messages there are.
    """
    return self._count


@external
@view
@reentrant
def hash_at(i: uint256) -> bytes32:
    """
    @notice Running hash after the first `i` messages (0 when `i` is 0).
    """
    assert i <= self._count, "inbox: unknown message"
    return self._hashes[i]


@external
@view
@reentrant
def deadline_at(i: uint256) -> uint256:
    """
    @notice Until when a batch must have taken message `i`, seconds.
    """
    assert i < self._count, "inbox: unknown message"
    return self._deadline(i)


@external
@view
@reentrant
def unserved_since(i: uint256) -> uint256:
    """
    @notice Now; or, when message `i` has waited for half the shortest delay by then, the end of that half, seconds. The
            first half is the leader's own, who may have to wait for marks; the other is for those who take over from it.
            Messages ascend in time: none behind `i` has waited longer.
    """
    if i >= self._count:
        return block.timestamp
    return min(block.timestamp, (self._of_message(i) >> 32) + (delay_min_s >> 1))


@external
@view
@reentrant
def overdue(inbox_count: uint256, i: uint256) -> bool:
    """
    @notice Whether message `i` waits behind the first `inbox_count`, which have been taken, past its deadline.
    """
    return inbox_count <= i and i < self._count and block.timestamp > self._deadline(i)


@internal
@view
def _vault() -> address:
    """
    @notice The vault; there is none before set_vault, hence no account.
    """
    vault: address = self.vault
    assert vault != empty(address), "inbox: no vault"
    return vault


@internal
@view
def _account_of_caller() -> bytes4:
    """
    @notice Number of the caller's account.
    """
    account: uint256 = staticcall IVault(self._vault()).account_of(msg.sender)
    assert account != 0, "inbox: caller has no account"
    return convert(convert(account, uint32), bytes4)


@internal
@view
def _check_known(account: uint32):
    """
    @notice Reverts when nobody has this account: such messages would cost L2 a lookup and nobody a deposit.
    """
    known: bool = staticcall IVault(self._vault()).owner_of(convert(account, uint256)) != empty(address)
    assert known, "inbox: unknown account"


@internal
@view
def _deadline(i: uint256) -> uint256:
    """
    @notice Deadline of message `i`, which exists.
    """
    return self._of_message(i) & constants.U32_MAX


@internal
@view
def _of_message(i: uint256) -> uint256:
    """
    @notice Times of message `i`: 64 bits.
    """
    return (self._times[i // TIMES_PER_WORD] >> (64 * (i % TIMES_PER_WORD))) & constants.U64_MAX


@internal
@payable
def _push_forced(record: Bytes[31], nearest_expiry: uint256) -> uint256:
    """
    @notice Appends a record that has paid the fee, with half the time to `nearest_expiry` as delay, within the bounds.
    """
    assert msg.value == message_fee, "inbox: wrong fee"
    delay: uint256 = delay_max_s
    if nearest_expiry != 0:
        assert nearest_expiry % constants.DAY_S == constants.EXPIRY_OF_DAY_S, "inbox: expiry is not 08:00 UTC"
        assert nearest_expiry > block.timestamp, "inbox: expiry is not in the future"
        delay = min(max((nearest_expiry - block.timestamp) >> 1, delay_min_s), delay_max_s)
    return self._push(record, delay)


@internal
def _push(record: Bytes[31], delay: uint256) -> uint256:
    """
    @notice Appends `record`, to be taken within `delay` seconds, and returns its index.
    """
    index: uint256 = self._count
    running: bytes32 = codec._inbox_hash(self._hashes[index], record)
    self._count = unsafe_add(index, 1)  # one message per call: cannot reach 2^256
    self._hashes[unsafe_add(index, 1)] = running
    # The bits of a new message are zero; from 2106 on a deadline is the last second of 32 bits, and nobody else's bits.
    deadline: uint256 = min(block.timestamp + delay, constants.U32_MAX)
    times: uint256 = deadline | (block.timestamp << 32)
    self._times[index // TIMES_PER_WORD] |= times << (64 * (index % TIMES_PER_WORD))
    log Message(index=index, record=record, hash=running)
    return index
