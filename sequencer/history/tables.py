"""Tables of the history, and how rows get into them: shared by the store and by the process that writes beside.

Imports nothing of the exchange, so that this process starts quickly and stays small.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from sequencer.checksums import CHECKSUM_BYTES, row_sums
from sequencer.wire.rows import Batch

COLUMNS: Final[dict[str, str]] = {
    # `fee`: of placing it; `cash`: the account's after that
    "orders": (
        "id INTEGER PRIMARY KEY, account INT, nonce INT, label TEXT, instrument INT, flags INT, price INT, lots INT, "
        "expires INT, created INT, fee INT, cash INT"
    ),
    # one a side; `cost`: of the position after it; `underlying`: the index
    "trades": (
        "key INTEGER PRIMARY KEY, kind INT, account INT, instrument INT, order_id INT, order_seq INT, label TEXT, "
        "side INT, price INT, lots INT, fee INT, position INT, cost INT, realised INT, position_realised INT, "
        "cash INT, time INT, mark INT, underlying INT"
    ),
    # an order's number, price and total change
    "amends": (
        "key INTEGER PRIMARY KEY, id INT, account INT, seq_before INT, seq_after INT, price_before INT, "
        "price_after INT, lots_before INT, lots_after INT, nonce INT, fee INT, time INT, cash INT"
    ),
    "closes": "id INTEGER PRIMARY KEY, state INT, why INT, time INT, seq INT",
    # all of an account's orders before `seq` have ended, those that had not
    "floors": "seq INTEGER PRIMARY KEY, account INT, why INT, time INT",
    "moves": (
        "key INTEGER PRIMARY KEY, account INT, kind INT, amount INT, number INT, earned INT, discount INT, fee INT, "
        "paid INT, cash INT, time INT"
    ),
    # the first record of a second
    "times": "time INTEGER PRIMARY KEY, seq INT",
    "positions": "account INT, instrument INT, lots INT, cost INT, realised INT",
    "totals": "account INTEGER PRIMARY KEY, cash INT, net INT, realised INT, fees INT, covered INT",
    # records before `next_seq`, log entries before `next_offset` are in; rows before `pruned_seq` have been let go
    "meta": (
        "one INTEGER PRIMARY KEY, next_seq INT, next_offset INT, log_hash TEXT, epoch INT, pruned_seq INT, damaged INT"
    ),
}
INDEXES: Final = (
    "orders_of ON orders (account, id)",
    "orders_in ON orders (account, instrument, id)",
    "orders_named ON orders (account, label, id) WHERE label != ''",
    "trades_of ON trades (account, key) WHERE kind != 1",
    "trades_in ON trades (account, instrument, key)",
    "trades_by ON trades (order_id) WHERE order_id >= 0",
    "trades_settled ON trades (account, key) WHERE kind = 1",
    "moves_of ON moves (account, kind, key)",
    "moves_all ON moves (account, key)",
    "amends_of ON amends (id)",
    "amends_to ON amends (seq_after)",
    "amends_by ON amends (account, key)",
    "floors_of ON floors (account, seq)",
)
ADDED: Final = ("orders", "trades", "amends", "closes", "floors", "moves", "times")
HOW: Final = {"closes": "INSERT OR IGNORE", "times": "INSERT OR IGNORE", "totals": "INSERT OR REPLACE"}


def columns(table: str) -> list[str]:
    """Names of a table's columns, its checksum left out."""
    return [part.split()[0] for part in COLUMNS[table].split(", ")]


def _insert(table: str) -> str:
    names = [*columns(table), "checksum"]
    marks = ", ".join("?" * len(names))
    return f"{HOW.get(table, 'INSERT')} INTO {table} ({', '.join(names)}) VALUES ({marks})"


_INSERTS: Final = {table: _insert(table) for table in COLUMNS}


class Rows(msgspec.Struct, array_like=True, gc=False):
    """What goes in together: rows to add by table, positions and totals as they are now, and where the file stands
    then: records before `next_seq` and log entries before `offset` are in, the last of which has `log_hash`.
    """

    added: dict[str, list[list[int | str]]]
    positions: list[list[int]]
    totals: list[list[int]]
    next_seq: int
    offset: int
    log_hash: str
    epoch: int


def rows_of(batches: Sequence[Batch], next_seq: int, offset: int, log_hash: bytes, epoch: int) -> Rows:
    """The rows of `batches`; of what is stated anew the last word counts. `next_seq`: of the file as it is."""
    added = {table: [row for batch in batches for row in getattr(batch, table)] for table in ADDED}
    return Rows(
        {table: rows for table, rows in added.items() if rows},
        list({(row[0], row[1]): row for one in batches for row in one.positions}.values()),
        list({row[0]: row for one in batches for row in one.totals}.values()),
        max([next_seq, *(batch.next_seq for batch in batches)]),
        offset,
        log_hash.hex(),
        epoch,
    )


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def put(db: sqlite3.Connection, table: str, rows: Sequence[Sequence[int | str]]) -> None:
    """Adds rows with their checksums."""
    if rows:
        sums, size = row_sums(table, rows), CHECKSUM_BYTES
        db.executemany(
            _INSERTS[table], [(*row, sums[size * at : size * at + size]) for at, row in enumerate(rows)]
        )


def put_positions(db: sqlite3.Connection, rows: Iterable[Sequence[int]]) -> None:
    """Positions as they are now; those without lots go."""
    listed = list(rows)
    db.executemany("DELETE FROM positions WHERE account = ? AND instrument = ?", [row[:2] for row in listed])
    put(db, "positions", [row for row in listed if row[2]])


def put_meta(
    db: sqlite3.Connection, next_seq: int, offset: int, log_hash: str, epoch: int, pruned_seq: int
) -> None:
    """Where the file stands, within a transaction."""
    db.execute("DELETE FROM meta")
    put(db, "meta", [[1, next_seq, offset, log_hash, epoch, pruned_seq, 0]])


def add(db: sqlite3.Connection, rows: Rows, pruned_seq: int) -> None:
    """Adds rows, within a transaction."""
    for table, of_table in rows.added.items():
        put(db, table, of_table)
    put_positions(db, rows.positions)
    put(db, "totals", rows.totals)
    put_meta(db, rows.next_seq, rows.offset, rows.log_hash, rows.epoch, pruned_seq)
