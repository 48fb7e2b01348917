# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Constants of the state transition that contracts need
@license MIT
@notice Twin of `sequencer/protocol/constants.py`: same names, same values.
@custom:security Consensus: a change here is a change of the protocol.
@custom:kill Nothing: it holds no state and no privilege.
"""

# --- words and bounds ---
U16_MAX: constant(uint256) = 2**16 - 1
U32_MAX: constant(uint256) = 2**32 - 1
U40_MAX: constant(uint256) = 2**40 - 1
U48_MAX: constant(uint256) = 2**48 - 1
U64_MAX: constant(uint256) = 2**64 - 1
PPM: constant(uint256) = 1_000_000
ELEMENT_BYTES: constant(uint256) = 31

# --- key types (top 4 bits of a map key) ---
TYPE_SHIFT: constant(uint256) = 252
KEY_GLOBAL: constant(uint256) = 0
KEY_ACCOUNT: constant(uint256) = 1 << TYPE_SHIFT
KEY_INSTRUMENT: constant(uint256) = 2 << TYPE_SHIFT
KEY_PAGE: constant(uint256) = 3 << TYPE_SHIFT
KEY_ORDER: constant(uint256) = 4 << TYPE_SHIFT
KEY_UNDERLYING: constant(uint256) = 5 << TYPE_SHIFT
KEY_EXPIRY: constant(uint256) = 6 << TYPE_SHIFT
KEY_WITHDRAWAL: constant(uint256) = 8 << TYPE_SHIFT
KEY_PARAMS: constant(uint256) = 9 << TYPE_SHIFT

# --- limits of the state ---
POSITIONS_MAX: constant(uint256) = 64
PAGES_MAX: constant(uint256) = 12  # distinct pages of one account
SIGNERS_MAX: constant(uint256) = 4
POSITION_LOTS_MAX: constant(uint256) = 2**44
QUANTITY_BIAS: constant(uint256) = 2**63
NONCE_WINDOW: constant(uint256) = 256
PAGE_ROWS: constant(uint256) = 32
PAGES_PER_EXPIRY: constant(uint256) = 128
FEEDS_MAX: constant(uint256) = 5
SNAPSHOT_DAYS: constant(uint256) = 4
UNDERLYINGS_MAX: constant(uint256) = 16  # numbers of four bits
SCENARIOS: constant(uint256) = 16
STEPS_MAX: constant(uint256) = 3  # fills or sweeps that one PLACE or CONTINUE may make
PLAN_RECORDS_MAX: constant(uint256) = 128  # of a FOK or post-only order: it meets 384 resting orders at most

# --- time ---
DAY_S: constant(uint256) = 86_400
EXPIRY_OF_DAY_S: constant(uint256) = 28_800  # 08:00 UTC
TWAP_S: constant(uint256) = 1_800

# --- sides, flags, scopes ---
BUY: constant(uint256) = 0
SELL: constant(uint256) = 1
FLAG_SIDE: constant(uint256) = 1
FLAG_TIF_SHIFT: constant(uint256) = 1
TIF_GTC: constant(uint256) = 0
TIF_IOC: constant(uint256) = 1
TIF_FOK: constant(uint256) = 2
FLAG_POST_ONLY: constant(uint256) = 8
FLAG_REDUCE_ONLY: constant(uint256) = 16
FLAG_STP_TAKER: constant(uint256) = 32
FLAGS_UNUSED: constant(uint256) = 192
SCOPE_TRADE: constant(uint256) = 1
SCOPE_WITHDRAW: constant(uint256) = 2
SCOPE_OWNER: constant(uint256) = 4  # not grantable: what only the owner may sign

# --- queue ---
CLASS_SYSTEM: constant(uint256) = 0
CLASS_CANCEL: constant(uint256) = 1
CLASS_POST_ONLY: constant(uint256) = 2
CLASS_TAKER: constant(uint256) = 3
FEE_MAX_UNIT: constant(uint256) = 100  # PLACE.fee_max counts 0.0001 USD
FEE_DOUBLINGS_MAX: constant(uint256) = 20
QUEUE_NORMAL: constant(uint256) = 0
QUEUE_CONGESTED: constant(uint256) = 1
QUEUE_RESTRICTED: constant(uint256) = 2
QUEUE_HALTED: constant(uint256) = 3

# --- record kinds (first byte of a record) ---
KIND_DEPOSIT: constant(bytes1) = 0x02

# --- payload of a batch ---
OFFSET_BYTES: constant(uint256) = 3  # a segment's end, in elements of the record area
OFFSETS_PER_ELEMENT: constant(uint256) = 10
CHUNK_BYTES: constant(uint256) = 992  # one leaf of the data root: 32 elements, 31 words
CHUNK_WORDS: constant(uint256) = 31
