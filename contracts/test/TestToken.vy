# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title TestToken: a stand-in for a dollar stablecoin
@license MIT
@notice ERC-20 with 6 decimals and EIP-2612 permits. ANYBODY MAY MINT: for development networks and tests only.
@custom:security Worthless by construction.
@custom:kill Nobody has any privilege here.
"""

from ethereum.ercs import IERC20

implements: IERC20

PERMIT_TYPEHASH: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
DOMAIN_TYPEHASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
S_MAX: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168  # (order - 1) / 2

name: public(constant(String[19])) = "Fairstrike Test USD"
symbol: public(constant(String[5])) = "tfUSD"
decimals: public(constant(uint8)) = 6

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


# 1e-6 USD an owner. Written by mint and _transfer.
balanceOf: public(HashMap[address, uint256])
# 1e-6 USD an owner and spender. Written by _approve.
allowance: public(HashMap[address, HashMap[address, uint256]])
# Sum of all balances. Written by mint.
totalSupply: public(uint256)
# Next permit of an owner; without it a permit could be used twice. Written by permit.
nonces: public(HashMap[address, uint256])


@deploy
def __init__():
    """
    @notice Starts with no supply.
    """
    pass


@external
def mint(receiver: address, amount: uint256):
    """
    @notice Gives `amount` to `receiver`, whoever calls.
    """
    self.totalSupply += amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=empty(address), receiver=receiver, value=amount)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    """
    @notice ERC-20.
    """
    self._transfer(msg.sender, receiver, amount)
    return True


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    """
    @notice ERC-20. An allowance of 2^256 - 1 is not used up.
    """
    allowed: uint256 = self.allowance[sender][msg.sender]
    assert allowed >= amount, "token: allowance too small"
    if allowed != max_value(uint256):
        self._approve(sender, msg.sender, allowed - amount)
    self._transfer(sender, receiver, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice ERC-20.
    """
    self._approve(msg.sender, spender, amount)
    return True


@external
def permit(owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    """
    @notice EIP-2612: `approve` by signature.
    """
    assert block.timestamp <= deadline, "token: permit expired"
    assert convert(s, uint256) <= S_MAX, "token: malleable signature"
    nonce: uint256 = self.nonces[owner]
    self.nonces[owner] = nonce + 1
    digest: bytes32 = keccak256(
        concat(
            0x1901,
            self._domain_separator(),
            keccak256(abi_encode(PERMIT_TYPEHASH, owner, spender, amount, nonce, deadline)),
        )
    )
    signer: address = ecrecover(digest, v, r, s)
    assert signer != empty(address) and signer == owner, "token: wrong signature"
    self._approve(owner, spender, amount)


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice EIP-2612.
    """
    return self._domain_separator()


@internal
def _transfer(sender: address, receiver: address, amount: uint256):
    """
    @notice Moves `amount`.
    """
    assert receiver != empty(address), "token: receiver is zero"
    assert self.balanceOf[sender] >= amount, "token: balance too small"
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=sender, receiver=receiver, value=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    """
    @notice Sets an allowance.
    """
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, value=amount)


@internal
@view
def _domain_separator() -> bytes32:
    """
    @notice EIP-712 domain separator of this token on this chain.
    """
    return keccak256(abi_encode(DOMAIN_TYPEHASH, keccak256(name), keccak256("1"), chain.id, self))
