# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What a record costs who executes it
@license MIT
@notice Twin of `sequencer/protocol/work.py`: units of 10 microseconds of a reference watcher. GLOBAL counts them, and
        Rollup lets no more of them in than a watcher can do.
@custom:security Consensus: a change here is a change of the protocol. A kind that costs more than its entry lets a leader
        post what no watcher keeps up with.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import kind

NO_KIND: constant(uint256) = 4  # what is no known kind
RISK_ROW: constant(uint256) = 24  # each row that a RISK tries to mark, beside the record's own
MAKER: constant(uint256) = 8  # each account that an order meets in the book, likewise
UNDO: constant(uint256) = 8  # each record of an atomic order that is undone
POSITION: constant(uint256) = 1  # each position of an order's own account, whose margin is computed

# What a batch costs beside its records: questions to L1 and the archive; each blob's commitment, which names it.
BATCH: constant(uint256) = 2_000
BLOB: constant(uint256) = 6_000
# A slot of L1 and what Rollup may let in by its end: by the table two thirds of half of it.
SLOT_S: constant(uint256) = 12
SLOT_MAX: constant(uint256) = 400_000
# No segment costs more: a TICK and a RISK of 32 rows.
SEGMENT_MAX: constant(uint256) = 1_000

# units, one byte a kind: of kinds below 32, and of the others
LOW: constant(uint256) = (
    (4 << 8 * kind.TICK)
    | (9 << 8 * kind.DEPOSIT)
    | (60 << 8 * kind.FORCED_WITHDRAW)
    | (10 << 8 * kind.FORCED_CANCEL_ALL)
    | (14 << 8 * kind.FORCED_ORDER)
    | (62 << 8 * kind.FORCED_LIQUIDATE)
    | (250 << 8 * kind.FORCED_BID)
    | (20 << 8 * kind.FEED)
    | (20 << 8 * kind.SURFACE)
    | (25 << 8 * kind.RISK)
    | (26 << 8 * kind.LIST)
    | (6 << 8 * kind.FIX)
    | (18 << 8 * kind.SETTLE)
    | (56 << 8 * kind.LIQUIDATE)
    | (10 << 8 * kind.COLLECT)
    | (10 << 8 * kind.SWEEP)
)
HIGH: constant(uint256) = (
    (33 << 8 * (kind.PLACE - 32))
    | (14 << 8 * (kind.PROCEED - 32))
    | (17 << 8 * (kind.CANCEL - 32))
    | (20 << 8 * (kind.CANCEL_ALL - 32))
    | (20 << 8 * (kind.SET_SIGNER - 32))
    | (75 << 8 * (kind.TRANSFER - 32))
    | (72 << 8 * (kind.WITHDRAW - 32))
    | (255 << 8 * (kind.BID - 32))
    | (38 << 8 * (kind.AMEND - 32))
    | (36 << 8 * (kind.PLACE_IN_WORDS - 32))
)


@internal
@pure
def _of(of_kind: uint256) -> uint256:
    """
    @notice Units that a record costs for its kind (one byte); the handler adds what it finds.
    """
    units: uint256 = 0
    if of_kind < 32:
        units = (LOW >> (of_kind << 3)) & 255
    elif of_kind < 64:
        units = (HIGH >> (unsafe_sub(of_kind, 32) << 3)) & 255
    return units if units != 0 else NO_KIND
