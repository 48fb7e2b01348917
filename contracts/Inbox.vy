# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Inbox: what L1 tells L2
@license MIT
@notice An append-only queue of 31-byte records. L2 must take them in this order: every batch names how many it has
        taken and `Rollup` puts the running hash of that many into the batch's header.
@dev Vault, Rollup and Inbox know each other, so that one of the three addresses must be set after deployment. It is
     this one, once, by the deployer, because predicting a CREATE address ties the deployment to the deployer's nonce
     and fails with a half-wired exchange when a transaction in between fails. `set_vault` checks that the vault
     points back here. Until it is called, nothing can be pushed, hence no account can exist.
@custom:security The hash of every prefix is kept: a batch may lag behind the queue by any number of messages.
@custom:kill The deployer chooses the vault, once; after that nobody has any privilege here. Nobody can stop, drop,
        alter or reorder messages.
"""

from lib import codec


interface IVault:
    def inbox() -> address: view


event VaultSet:
    vault: indexed(address)


event Message:
    index: indexed(uint256)
    record: Bytes[31]
    hash: bytes32


vault_setter: public(immutable(address))

# The only caller of push_deposit. Written once by set_vault; without the "once", the deployer could mint collateral.
vault: public(address)
# Messages so far. Written by _push.
_count: uint256
# Running hash after the first i messages; 0 for i = 0. Written by _push.
_hashes: HashMap[uint256, bytes32]


@deploy
def __init__():
    """
    @notice The deployer gets the right to name the vault, once.
    """
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
    return self._push(codec._deposit(owner, account, amount))


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


@internal
def _push(record: Bytes[31]) -> uint256:
    """
    @notice Appends `record` and returns its index.
    """
    index: uint256 = self._count
    running: bytes32 = codec._inbox_hash(self._hashes[index], record)
    self._count = unsafe_add(index, 1)  # one message per call: cannot reach 2^256
    self._hashes[unsafe_add(index, 1)] = running
    log Message(index=index, record=record, hash=running)
    return index
