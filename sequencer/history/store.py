"""The history in an SQLite file beside the log: rows of orders, trades and cash, positions and totals as they stand.

Everything here follows from the log, so it is written without an fsync of its own: what a crash has lost is made again
from `offset` on. Rows are added, replaced as a whole, or deleted, never changed, so that each has one checksum, made
where it is made. They go in as one JSON value a table, which SQLite takes apart by itself: the writer holds Python's
lock for a few statements a batch, however many rows there are.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sequencer.checksums import CHECKSUM_BYTES, declare, row_sum, row_sums
from sequencer.engine.basis import Basis
from sequencer.engine.ledger import Ledger, Totals
from sequencer.protocol.state import State
from sequencer.wire.rows import Batch, Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 1
FILE: Final = "history.sqlite"
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
_INDEXES: Final = (
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
_encode: Final = msgspec.json.Encoder().encode


def columns(table: str) -> list[str]:
    """Names of a table's columns, its checksum left out."""
    return [part.split()[0] for part in COLUMNS[table].split(", ")]


def _insert(table: str) -> str:
    names = columns(table)
    picks = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(names)))
    cut = f"substr(?2, key * {CHECKSUM_BYTES} + 1, {CHECKSUM_BYTES})"
    head = f"{HOW.get(table, 'INSERT')} INTO {table} ({', '.join(names)}, checksum)"
    return f"{head} SELECT {picks}, {cut} FROM json_each(?1)"  # noqa: S608  # names of this file


_INSERTS: Final = {table: _insert(table) for table in COLUMNS}


class HistoryDamaged(Exception):
    """A row is not what was written: the history is made again from the log at the next start."""


class Store:
    """One file, one writer; not to be used by two threads at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._open()
        except (
            sqlite3.DatabaseError,
            HistoryDamaged,
        ):  # or of another version: it is made again from the log
            self.clear()

    def _open(self) -> None:
        self.db = db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.create_function("row_sum", -1, row_sum, deterministic=True)
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"version {version}")
        with self.transaction():
            for table, definition in COLUMNS.items():
                db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({definition}, checksum BLOB)")
                declare(db, table, columns(table))
            db.execute("CREATE UNIQUE INDEX IF NOT EXISTS position ON positions (account, instrument)")
            for index in _INDEXES:
                db.execute(f"CREATE INDEX IF NOT EXISTS {index}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            if db.execute("SELECT 1 FROM meta").fetchone() is None:
                self.put_meta(0, 0, "", 0, 0)
        ((_, *numbers, is_damaged),) = self.checked("meta", "SELECT * FROM meta")
        if is_damaged:
            raise HistoryDamaged("a row")
        self.stands_at(*numbers)
        for table in ("positions", "totals", "floors"):  # what a start goes on from
            for _ in self.checked(table, f"SELECT * FROM {table}"):  # noqa: S608  # names of this file
                pass

    def put_meta(self, next_seq: int, offset: int, log_hash: str, epoch: int, pruned_seq: int) -> None:
        """Where the file stands, within a transaction; the attributes follow it (`stands_at`)."""
        row: list[int | str] = [1, next_seq, offset, log_hash, epoch, pruned_seq, 0]
        self.db.execute("DELETE FROM meta")
        self.put("meta", [row])

    def stands_at(self, next_seq: int, offset: int, log_hash: str, epoch: int, pruned_seq: int) -> None:
        """After the transaction of `put_meta`."""
        self.next_seq, self.offset, self.log_hash, self.epoch = next_seq, offset, log_hash, epoch
        self.pruned_seq = pruned_seq

    def put(self, table: str, rows: Sequence[Sequence[int | str]]) -> None:
        """Adds rows with their checksums."""
        if rows:
            self.db.execute(_INSERTS[table], (_encode(rows).decode(), row_sums(table, rows)))

    @contextmanager
    def transaction(self) -> "Iterator[None]":
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def checked(self, table: str, query: str, values: Sequence[Any] = ()) -> "Iterator[list[Any]]":
        """Whole rows of `table`, their checksums compared and left out. Raises HistoryDamaged."""
        for *row, checksum in self.db.execute(query, values):
            if row_sum(table, *row) != checksum:
                raise HistoryDamaged(f"table {table}, row {row[0]}")
            yield row

    def condemn(self) -> None:
        """A row was found damaged: has the file made again at the next start."""
        with suppress(sqlite3.Error):
            self.db.execute("UPDATE meta SET damaged = 1")

    def clear(self) -> None:
        """Forgets everything: it will be made again."""
        self.db.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._open()

    def load(self, ledger: Ledger, state: State) -> None:
        """Sets a new ledger to where this file stands; `state` stands there, too. Raises HistoryDamaged."""
        db = self.db
        for account, instrument, lots, cost, realised in self.checked("positions", "SELECT * FROM positions"):
            ledger.positions.setdefault(account, {})[instrument] = Basis(lots, cost, realised)
        for account, *numbers in self.checked("totals", "SELECT * FROM totals"):
            ledger.totals[account] = Totals(*numbers)
        ledger.floors.update(db.execute("SELECT account, MAX(seq) FROM floors GROUP BY account").fetchall())
        live = [seq for held in state.orders_of.values() for seq in held]
        taker = state.globals.taker
        if taker is not None:
            live.append(taker.seq)
        for seq, first, label in db.execute(
            "SELECT live.value, o.id, o.label FROM json_each(?) AS live "
            "LEFT JOIN amends AS a ON a.seq_after = live.value "
            "JOIN orders AS o ON o.id = COALESCE(a.id, live.value) "
            "WHERE o.label != '' OR o.id != live.value GROUP BY live.value",
            (_encode(live).decode(),),
        ):
            ledger.kept[seq] = Kept(first, label)
        ledger.begin_at(self.next_seq)
        ledger.resume(taker)

    def write(self, batches: Sequence[Batch], offset: int, log_hash: bytes, epoch: int) -> None:
        """Adds rows in one transaction; log entries before `offset` are in, the last of which has `log_hash`.

        Raises sqlite3.Error, and then nothing is in.
        """
        next_seq = max([self.next_seq, *(batch.next_seq for batch in batches)])
        with self.transaction():
            for table in ADDED:
                self.put(table, [row for batch in batches for row in getattr(batch, table)])
            # Of what is stated anew the last word counts.
            self.put_positions({(row[0], row[1]): row for one in batches for row in one.positions}.values())
            self.put("totals", list({row[0]: row for one in batches for row in one.totals}.values()))
            at = (next_seq, offset, log_hash.hex(), epoch, self.pruned_seq)
            self.put_meta(*at)
        self.stands_at(*at)

    def put_positions(self, rows: Iterable[Sequence[int]]) -> None:
        """Positions as they are now; those without lots go."""
        listed = list(rows)
        keys = _encode([row[:2] for row in listed]).decode()
        self.db.execute(
            "DELETE FROM positions WHERE (account, instrument) IN "
            "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))",
            (keys,),
        )
        self.put("positions", [row for row in listed if row[2]])

    def close(self) -> None:
        """Closes the file."""
        self.db.close()
