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
NO_KIND: Final = 7  # what is no known kind
RISK_ROW: Final = 24  # each row that a RISK tries to mark, beside the record's own
MAKER: Final = 12  # each account that an order meets in the book, likewise
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
    Kind.TICK: 7,
    Kind.DEPOSIT: 13,
    Kind.FORCED_WITHDRAW: 45,
    Kind.FORCED_CANCEL_ALL: 13,
    Kind.FORCED_ORDER: 20,
    Kind.FORCED_LIQUIDATE: 45,
    Kind.FORCED_BID: 145,
    Kind.FEED: 24,
    Kind.SURFACE: 28,
    Kind.RISK: 25,
    Kind.LIST: 25,
    Kind.FIX: 10,
    Kind.SETTLE: 25,
    Kind.LIQUIDATE: 45,
    Kind.COLLECT: 13,
    Kind.SWEEP: 13,
    Kind.PLACE: 30,
    Kind.CONTINUE: 20,
    Kind.CANCEL: 24,
    Kind.CANCEL_ALL: 24,
    Kind.SET_SIGNER: 28,
    Kind.TRANSFER: 60,
    Kind.WITHDRAW: 50,
    Kind.BID: 150,
}


def of(raw: bytes) -> int:
    """Units that a record costs for its kind, by its first byte; the handler adds what it finds."""
    return WORK.get(raw[0], NO_KIND) if raw else NO_KIND


def of_batch(units: int, blobs: int) -> int:
    """What Rollup takes from its budget for a batch whose records cost `units`."""
    return units + BATCH + blobs * BLOB
