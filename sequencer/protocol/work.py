"""What a record costs who executes it: GLOBAL counts it, and Rollup lets no more of it in than a watcher can do.

Twin: `contracts/lib/work.vy`. A unit is 10 microseconds of a reference watcher: one core on which a signer's recovery
takes 45 microseconds. The table holds, with the margin that docs/OPERATIONS.md states, the worst of each kind that
`benchmarks/watcher.py` finds: decoding, recovery, the handler on the largest accounts and pages with nothing in any
cache, a root of its own, and the record's and the root's share of a blob's commitment. What is no record costs its
element all the same. Refused records cost what their kind costs.
"""

from typing import Final

from sequencer.protocol.constants import Kind

UNIT_US: Final = 10
NO_KIND: Final = 4  # what is no known kind
RISK_ROW: Final = 24  # each row that a RISK tries to mark, beside the record's own
MAKER: Final = 8  # each account that an order meets in the book, likewise
UNDO: Final = 8  # each record of an atomic order that is undone
POSITION: Final = 1  # each position of an order's own account, whose margin is computed

# What a batch costs beside its records: questions to L1 and the archive; each blob's commitment, which names it.
BATCH: Final = 2_000
BLOB: Final = 6_000
# A slot of L1 and what Rollup may let in by its end: by the table two thirds of half of it.
SLOT_S: Final = 12
SLOT_MAX: Final = 400_000
# No segment costs more: a TICK and a RISK of 32 rows.
SEGMENT_MAX: Final = 1_000

WORK: Final[dict[int, int]] = {
    Kind.TICK: 4,
    Kind.DEPOSIT: 9,
    Kind.FORCED_WITHDRAW: 60,
    Kind.FORCED_CANCEL_ALL: 10,
    Kind.FORCED_ORDER: 14,
    Kind.FORCED_LIQUIDATE: 62,
    Kind.FORCED_BID: 250,
    Kind.FEED: 20,
    Kind.SURFACE: 20,
    Kind.RISK: 25,
    Kind.LIST: 26,
    Kind.FIX: 6,
    Kind.SETTLE: 18,
    Kind.LIQUIDATE: 56,
    Kind.COLLECT: 10,
    Kind.SWEEP: 10,
    Kind.PLACE: 33,
    Kind.CONTINUE: 14,
    Kind.CANCEL: 17,
    Kind.CANCEL_ALL: 20,
    Kind.SET_SIGNER: 20,
    Kind.TRANSFER: 75,
    Kind.WITHDRAW: 72,
    Kind.BID: 255,
    Kind.AMEND: 38,
    Kind.PLACE_IN_WORDS: 36,
}


def of(raw: bytes) -> int:
    """Units that a record costs for its kind, by its first byte; the handler adds what it finds."""
    return WORK.get(raw[0], NO_KIND) if raw else NO_KIND


def of_risk(rows: int) -> int:
    """What a RISK costs that marks so many rows."""
    return WORK[Kind.RISK] + RISK_ROW * rows


def of_batch(units: int, blobs: int) -> int:
    """What Rollup takes from its budget for a batch whose records cost `units`."""
    return units + BATCH + blobs * BLOB
