# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Encoding of what L1 and L2 say to each other
@license MIT
@notice Twin of `sequencer/protocol/codec.py`: inbox records, the inbox's running hash, withdrawal leaves, the
        EIP-712 domain under which every record is signed, and the decoding of records.
@custom:security Callers bound every field before they encode it; where a field is narrowed, it reverts, never wraps.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import kind
from . import reason

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


# --- records ---------------------------------------------------------------------------------------------------------
# A verifier is called with (pre-root, length, four words of record): the record stands in calldata from RECORD_AT on, and
# fields are read from there. Layouts: docs/PROTOCOL.md section 4, by kind (all below 64), a bit or a byte each.

RECORD_AT: constant(uint256) = 68  # calldata offset of the record's first byte
BODY_93: constant(uint256) = 29  # bytes before the signature
BODY_124: constant(uint256) = 60

UNSIGNED: constant(uint256) = (
    (1 << kind.TICK)
    | (1 << kind.DEPOSIT)
    | (1 << kind.FORCED_WITHDRAW)
    | (1 << kind.FORCED_CANCEL_ALL)
    | (1 << kind.FORCED_ORDER)
    | (1 << kind.FORCED_LIQUIDATE)
    | (1 << kind.FORCED_BID)
    | (1 << kind.RISK)
    | (1 << kind.LIST)
    | (1 << kind.FIX)
    | (1 << kind.SETTLE)
    | (1 << kind.LIQUIDATE)
    | (1 << kind.COLLECT)
    | (1 << kind.SWEEP)
    | (1 << kind.PROCEED)
)  # 31 bytes
SIGNED: constant(uint256) = (
    (1 << kind.FEED)
    | (1 << kind.PLACE)
    | (1 << kind.CANCEL)
    | (1 << kind.CANCEL_ALL)
    | (1 << kind.TRANSFER)
    | (1 << kind.WITHDRAW)
    | (1 << kind.BID)
)  # 93 bytes
LONG: constant(uint256) = (
    (1 << kind.SURFACE) | (1 << kind.SET_SIGNER) | (1 << kind.AMEND) | (1 << kind.PLACE_IN_WORDS)
)  # 124 bytes, signed
OF_INBOX: constant(uint256) = (
    (1 << kind.DEPOSIT)
    | (1 << kind.FORCED_WITHDRAW)
    | (1 << kind.FORCED_CANCEL_ALL)
    | (1 << kind.FORCED_ORDER)
    | (1 << kind.FORCED_LIQUIDATE)
    | (1 << kind.FORCED_BID)
)
OF_CANCELS: constant(uint256) = (
    (1 << kind.SWEEP) | (1 << kind.CANCEL) | (1 << kind.CANCEL_ALL) | (1 << kind.SET_SIGNER)
)
OF_TAKERS: constant(uint256) = (
    (1 << kind.PLACE)
    | (1 << kind.PROCEED)
    | (1 << kind.TRANSFER)
    | (1 << kind.WITHDRAW)
    | (1 << kind.BID)
    | (1 << kind.AMEND)
    | (1 << kind.PLACE_IN_WORDS)
)

# bytes of kind and fields, one byte a kind: of kinds below 32, and of the others
USED_LOW: constant(uint256) = (
    (5 << 8 * kind.TICK)
    | (31 << 8 * kind.DEPOSIT)
    | (13 << 8 * kind.FORCED_WITHDRAW)
    | (5 << 8 * kind.FORCED_CANCEL_ALL)
    | (25 << 8 * kind.FORCED_ORDER)
    | (5 << 8 * kind.FORCED_LIQUIDATE)
    | (19 << 8 * kind.FORCED_BID)
    | (11 << 8 * kind.FEED)
    | (57 << 8 * kind.SURFACE)
    | (5 << 8 * kind.RISK)
    | (9 << 8 * kind.LIST)
    | (4 << 8 * kind.FIX)
    | (8 << 8 * kind.SETTLE)
    | (5 << 8 * kind.LIQUIDATE)
    | (1 << 8 * kind.COLLECT)
    | (15 << 8 * kind.SWEEP)
)
USED_HIGH: constant(uint256) = (
    (29 << 8 * (kind.PLACE - 32))
    | (1 << 8 * (kind.PROCEED - 32))
    | (27 << 8 * (kind.CANCEL - 32))
    | (17 << 8 * (kind.CANCEL_ALL - 32))
    | (38 << 8 * (kind.SET_SIGNER - 32))
    | (25 << 8 * (kind.TRANSFER - 32))
    | (21 << 8 * (kind.WITHDRAW - 32))
    | (27 << 8 * (kind.BID - 32))
    | (38 << 8 * (kind.AMEND - 32))
    | (33 << 8 * (kind.PLACE_IN_WORDS - 32))
)
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168


@internal
@view
def _field(start: uint256, width: uint256) -> uint256:
    """
    @notice Field of `width` bytes, 1..32, at byte `start` of the record, which has at least start + width bytes.
    """
    word: uint256 = convert(slice(msg.data, unsafe_add(RECORD_AT, start), 32), uint256)  # 68 + 96 + 32 stand in any call
    return word >> unsafe_sub(256, unsafe_mul(width, 8))


@internal
@view
def _signed_field(start: uint256) -> int256:
    """
    @notice int64 field at byte `start`.
    """
    word: bytes32 = convert(slice(msg.data, unsafe_add(RECORD_AT, start), 32), bytes32)
    return convert(word, int256) >> 192  # its shift keeps the sign


@internal
@view
def _decode(length: uint256) -> (uint256, uint256):
    """
    @notice Kind of the record, and OK or why it is none: MALFORMED, UNKNOWN_KIND. Total.
    """
    if length == 0:
        return 0, reason.MALFORMED
    of_kind: uint256 = self._field(0, 1)
    if (UNSIGNED | SIGNED | LONG) >> of_kind & 1 == 0:  # nothing from 64 on
        return of_kind, reason.UNKNOWN_KIND
    size: uint256 = 31
    body: uint256 = 31
    if SIGNED >> of_kind & 1 == 1:
        size = 93
        body = BODY_93
    elif LONG >> of_kind & 1 == 1:
        size = 124
        body = BODY_124
    if length != size:
        return of_kind, reason.MALFORMED
    used: uint256 = USED_LOW >> (of_kind << 3)
    if of_kind >= 32:
        used = USED_HIGH >> (unsafe_sub(of_kind, 32) << 3)
    used &= 255
    if used < body and self._field(used, unsafe_sub(body, used)) != 0:  # at most 31 bytes
        return of_kind, reason.MALFORMED
    return of_kind, reason.OK


@internal
@view
def _record_class(of_kind: uint256) -> uint256:
    """
    @notice Class of a well-formed record inside its tick: 0 system, 1 cancels, 2 orders that cannot take, 3 all that can.
    """
    if OF_CANCELS >> of_kind & 1 == 1:
        return constants.CLASS_CANCEL
    if of_kind == kind.PLACE or of_kind == kind.AMEND or of_kind == kind.PLACE_IN_WORDS:
        if self._field(9, 1) & constants.FLAG_POST_ONLY != 0:
            return constants.CLASS_POST_ONLY
    if of_kind == kind.AMEND and self._field(10, 4) == self._field(19, 4):  # no new price: it crosses nothing
        return constants.CLASS_POST_ONLY
    return constants.CLASS_TAKER if OF_TAKERS >> of_kind & 1 == 1 else constants.CLASS_SYSTEM


@internal
@view
def _signer(domain: bytes32, struct_hash: bytes32, body: uint256) -> uint256:
    """
    @notice Address that signed the record by EIP-712, with the compact signature after its `body`; 0 when nobody did:
            r or s of zero, r >= n, s > n/2, or an r that is the x of no point.
    """
    packed: uint256 = self._field(unsafe_add(body, 32), 32)
    s: uint256 = packed & (2**255 - 1)
    if s > HALF_ORDER:
        return 0
    digest: bytes32 = keccak256(concat(0x1901, domain, struct_hash))
    return convert(ecrecover(digest, unsafe_add(27, packed >> 255), self._field(body, 32), s), uint256)
