"""Constants that both twins of the state transition share; units stand in the names or beside them."""

from enum import IntEnum
from typing import Final

# --- words and bounds -------------------------------------------------------------------------
U24_MAX: Final = 2**24 - 1
U32_MAX: Final = 2**32 - 1
U40_MAX: Final = 2**40 - 1
U48_MAX: Final = 2**48 - 1
U64_MAX: Final = 2**64 - 1
U256_MAX: Final = 2**256 - 1
PPM: Final = 1_000_000

ELEMENT_BYTES: Final = 31
SIGNATURE_BYTES: Final = 64

# --- key types (top 4 bits of a map key) ------------------------------------------------------
TYPE_SHIFT: Final = 252
KEY_GLOBAL: Final = 0
KEY_ACCOUNT: Final = 1 << TYPE_SHIFT
KEY_INSTRUMENT: Final = 2 << TYPE_SHIFT
KEY_PAGE: Final = 3 << TYPE_SHIFT
KEY_ORDER: Final = 4 << TYPE_SHIFT
KEY_UNDERLYING: Final = 5 << TYPE_SHIFT
KEY_EXPIRY: Final = 6 << TYPE_SHIFT
KEY_WITHDRAWAL: Final = 8 << TYPE_SHIFT
KEY_PARAMS: Final = 9 << TYPE_SHIFT
UNDO: Final = 10 << TYPE_SHIFT  # on a key, in copies of a state: what stood there where its open plan began

# --- limits of the state ----------------------------------------------------------------------
POSITIONS_MAX: Final = 64
PAGES_MAX: Final = 12  # distinct pages of one account: a BID shows those of two (docs/GAS.md)
SIGNERS_MAX: Final = 4
POSITION_LOTS_MAX: Final = 2**44
QUANTITY_BIAS: Final = 2**63
NONCE_WINDOW: Final = 256
PAGE_ROWS: Final = 32
PAGES_PER_EXPIRY: Final = 128
UNDERLYINGS_MAX: Final = 16  # numbers of four bits
UNDERLYINGS: Final = 2  # that PARAMS has a word for: BTC, ETH
FEEDS_MAX: Final = 5
SNAPSHOT_DAYS: Final = 4
MARKED_FOR_GOOD: Final = U32_MAX  # a page's time once its expiry is fixed: these marks never age
SCENARIOS: Final = 16
STEPS_MAX: Final = 3  # fills or sweeps that one PLACE or CONTINUE may make (MAX_FILLS of the design)
PLAN_RECORDS_MAX: Final = 128  # of a FOK or post-only order: it meets 384 resting orders at most
SEGMENT_WEIGHT_MAX: Final = 32

# --- time -------------------------------------------------------------------------------------
DAY_S: Final = 86_400
EXPIRY_OF_DAY_S: Final = 28_800  # 08:00 UTC
TWAP_S: Final = 1_800

# --- sides, flags, scopes ---------------------------------------------------------------------
BUY: Final = 0
SELL: Final = 1
FLAG_SIDE: Final = 1
FLAG_TIF_SHIFT: Final = 1
TIF_GTC: Final = 0
TIF_IOC: Final = 1
TIF_FOK: Final = 2
FLAG_POST_ONLY: Final = 8
FLAG_REDUCE_ONLY: Final = 16
FLAG_STP_TAKER: Final = 32
FLAGS_UNUSED: Final = 0xC0
SCOPE_TRADE: Final = 1
SCOPE_WITHDRAW: Final = 2
SCOPE_OWNER: Final = 4  # not grantable: what only the owner may sign

# --- queue ------------------------------------------------------------------------------------
CLASS_SYSTEM: Final = 0
CLASS_CANCEL: Final = 1
CLASS_POST_ONLY: Final = 2
CLASS_TAKER: Final = 3
FEE_MAX_UNIT: Final = 100  # PLACE.fee_max counts 0.0001 USD
FEE_DOUBLINGS_MAX: Final = 20


class QueueState(IntEnum):
    """What the exchange takes now (DESIGN §8)."""

    NORMAL = 0
    CONGESTED = 1  # the sequencing fee rises
    RESTRICTED = 2  # only cancel, reduce-only, liquidate, withdraw
    HALTED = 3  # no order at all


class Kind(IntEnum):
    """First byte of a record."""

    TICK = 0x01
    DEPOSIT = 0x02
    FORCED_WITHDRAW = 0x03
    FORCED_CANCEL_ALL = 0x04
    FORCED_ORDER = 0x05
    FORCED_LIQUIDATE = 0x06
    SET_PARAMS = 0x07  # reserved
    FORCED_BID = 0x08
    FEED = 0x10
    SURFACE = 0x11
    RISK = 0x12
    LIST = 0x13
    FIX = 0x14
    SETTLE = 0x15
    LIQUIDATE = 0x16
    COLLECT = 0x17
    SWEEP = 0x18
    PLACE = 0x20
    CONTINUE = 0x21
    CANCEL = 0x22
    CANCEL_ALL = 0x23
    SET_SIGNER = 0x24
    TRANSFER = 0x25
    WITHDRAW = 0x26
    BID = 0x27
    QUOTE = 0x28  # 0x28-0x2c: reserved
    TRADE = 0x29
    SEAL = 0x2A
    OPEN = 0x2B
    VOID = 0x2C
    AMEND = 0x2D
    PLACE_IN_WORDS = 0x2E


# What L1 sends through its Inbox. They belong at a tick's head, and count there whatever becomes of them.
INBOX_KINDS: Final = frozenset(
    (
        *(Kind.DEPOSIT, Kind.FORCED_WITHDRAW, Kind.FORCED_CANCEL_ALL),
        *(Kind.FORCED_ORDER, Kind.FORCED_LIQUIDATE, Kind.FORCED_BID),
    )
)


class Reason(IntEnum):
    """Why a record was a no-op; OK when it was not."""

    OK = 0
    MALFORMED = 1  # length, padding or a field outside its range
    UNKNOWN_KIND = 2
    CLASS_ORDER = 3  # lower class after a higher one in the same tick
    TAKER_PENDING = 4  # only CONTINUE may follow
    NO_TAKER = 5  # CONTINUE without a pending taker
    TIME_BACKWARDS = 6
    UNKNOWN_ACCOUNT = 10
    BAD_SIGNATURE = 11
    SIGNER_EXPIRED = 12
    EXPIRED = 13
    NONCE_USED = 14
    NONCE_WINDOW = 15
    UNKNOWN_INSTRUMENT = 20
    INSTRUMENT_EXPIRED = 21
    QUANTITY = 22
    PRICE = 23
    FLAGS = 24
    FEE_ABOVE_MAX = 25
    RESTRICTED = 26
    HALTED = 27
    RISK_STALE = 28
    MARGIN = 29
    POST_ONLY_CROSSES = 30
    FOK_UNFILLED = 31
    REDUCE_ONLY = 32
    POSITION_LIMIT = 33
    SELF_TRADE = 34
    UNKNOWN_ORDER = 35
    NOT_OWNER_OF_ORDER = 36
    ORDER_ALIVE = 37
    ORDER_DEAD = 38  # what is dead can only be cancelled or swept
    TERMS = 39  # of an order in words: not those of its instrument
    AMOUNT = 40
    POOL = 41  # the pool of all accounts cannot pay this out
    SIGNERS_FULL = 42
    SCOPE = 43
    UNKNOWN_FEED = 50
    FEED_TIME = 51  # not newer than the last report, or ahead of the tick's time
    SURFACE = 52  # parameters out of range, a forward too far from its index, or static arbitrage
    NO_INDEX = 53
    NO_SURFACE = 54  # fewer fresh surfaces than the quorum
    ALREADY_LISTED = 55
    LISTING_RULE = 56
    EXPIRY_FULL = 57
    NOT_EXPIRED = 58
    NO_SNAPSHOT = 59
    ALREADY_SETTLED = 60
    NOT_SETTLED = 61
    NOTHING_TO_SETTLE = 62
    FEEDS_DISAGREE = 63  # surfaces, where some are missing
    HEALTHY = 70
    UNHEALTHY = 71
    NO_AUCTION = 72
    FRACTION = 73
    CASH_MAX = 74
    NOTHING_TO_COLLECT = 75
    INBOX_ACCOUNT = 80  # deposit to account 0
    RISK_DUE = 81  # of a forced record: its marks are old and RISK can renew them; it has not counted, and comes again


# kind -> (bytes, class, weight); the class of orders depends on their fields (codec.class_of)
LAYOUT: Final[dict[int, tuple[int, int, int]]] = {
    Kind.TICK: (31, 0, 1),
    Kind.DEPOSIT: (31, 0, 2),
    Kind.FORCED_WITHDRAW: (31, 0, 31),
    Kind.FORCED_CANCEL_ALL: (31, 0, 3),
    Kind.FORCED_ORDER: (31, 0, 31),
    Kind.FORCED_LIQUIDATE: (31, 0, 31),
    Kind.FORCED_BID: (31, 0, 31),
    Kind.FEED: (93, 0, 3),
    Kind.SURFACE: (124, 0, 3),
    Kind.RISK: (31, 0, 31),
    Kind.LIST: (31, 0, 4),
    Kind.FIX: (31, 0, 2),
    Kind.SETTLE: (31, 0, 31),
    Kind.LIQUIDATE: (31, 0, 31),
    Kind.COLLECT: (31, 0, 2),
    Kind.SWEEP: (31, 1, 5),
    Kind.PLACE: (93, 3, 31),
    Kind.CONTINUE: (31, 3, 31),
    Kind.CANCEL: (93, 1, 4),
    Kind.CANCEL_ALL: (93, 1, 3),
    Kind.SET_SIGNER: (124, 1, 3),
    Kind.TRANSFER: (93, 3, 31),
    Kind.WITHDRAW: (93, 3, 31),
    Kind.BID: (93, 3, 31),
    Kind.AMEND: (124, 3, 31),
    Kind.PLACE_IN_WORDS: (124, 3, 31),
}
