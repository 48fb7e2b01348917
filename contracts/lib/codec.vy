# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Encoding of what L1 and L2 say to each other
@license MIT
@notice Twin of `sequencer/protocol/codec.py`: inbox records, the inbox's running hash, withdrawal leaves and the
        EIP-712 domain under which every record is signed.
@custom:security Callers bound every field before they encode it; where a field is narrowed, it reverts, never wraps.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants

DOMAIN_TYPEHASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
DOMAIN_NAME: constant(bytes32) = keccak256("Fairstrike")
DOMAIN_VERSION: constant(bytes32) = keccak256("1")


@internal
@pure
def _deposit(owner: address, account: uint256, amount: uint256) -> Bytes[31]:
    """
    @notice DEPOSIT record: kind, owner (20 bytes), account (4), amount (6; 1e-6 USD), big-endian.
    """
    return concat(
        constants.KIND_DEPOSIT,
        convert(owner, bytes20),
        convert(convert(account, uint32), bytes4),
        convert(convert(amount, uint48), bytes6),
    )


@internal
@pure
def _inbox_hash(previous: bytes32, record: Bytes[31]) -> bytes32:
    """
    @notice Running hash of the inbox after `record`, which has 31 bytes: keccak(hash || record || 0x00).
    """
    return keccak256(concat(previous, record, 0x00))


@internal
@pure
def _withdrawal_key(n: uint256) -> uint256:
    """
    @notice Map key of withdrawal `n`, which the caller has bounded below 2^252: beyond it, it would be another type.
    """
    return constants.KEY_WITHDRAWAL | n


@internal
@pure
def _withdrawal_value(owner: address, amount: uint256) -> uint256:
    """
    @notice Map value of a withdrawal: owner << 64 | amount; the caller has bounded `amount` (1e-6 USD) below 2^64.
    """
    return (convert(owner, uint256) << 64) | amount


@internal
@view
def _domain_separator(verifying_contract: address) -> bytes32:
    """
    @notice EIP-712 domain separator of the exchange on this chain; `verifying_contract` is the Rollup.
    """
    return keccak256(abi_encode(DOMAIN_TYPEHASH, DOMAIN_NAME, DOMAIN_VERSION, chain.id, verifying_contract))
