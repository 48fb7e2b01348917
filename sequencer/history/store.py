"""The history in an SQLite file beside the log: orders, trades and cash, present positions and totals.

Everything here follows from the log, so it is written without an fsync of its own: rows lost in a crash are rebuilt
from `offset` on. Rows are added, replaced as a whole, or deleted, never changed, so each has one checksum, computed
where the row is built.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sequencer.checksums import CHECKSUM_BYTES, declare, row_sum, row_sums
from sequencer.engine.basis import Basis
from sequencer.engine.ledger import Ledger, Totals
from sequencer.history import tables
from sequencer.history.tables import COLUMNS, INDEXES, Rows, columns
from sequencer.protocol.state import State
from sequencer.wire.rows import Batch, Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 1
FILE: Final = "history.sqlite"
_encode: Final = msgspec.json.Encoder().encode


class HistoryDamaged(Exception):
    """A row is damaged: the next start rebuilds the history from the log."""


class Store:
    """One file, one writer; not thread-safe."""

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
            for index in INDEXES:
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
        """Stores the file's position, within a transaction; the attributes follow it (`stands_at`)."""
        tables.put_meta(self.db, next_seq, offset, log_hash, epoch, pruned_seq)

    def stands_at(self, next_seq: int, offset: int, log_hash: str, epoch: int, pruned_seq: int) -> None:
        """After the transaction of `put_meta`."""
        self.next_seq, self.offset, self.log_hash, self.epoch = next_seq, offset, log_hash, epoch
        self.pruned_seq = pruned_seq

    def put(self, table: str, rows: Sequence[Sequence[int | str]]) -> None:
        """Adds rows with their checksums."""
        tables.put(self.db, table, rows)

    def transaction(self) -> AbstractContextManager[None]:
        """All of it or nothing."""
        return tables.transaction(self.db)

    def checked(self, table: str, query: str, values: Sequence[Any] = ()) -> "Iterator[list[Any]]":
        """Whole rows of `table`, checksums verified and removed. Raises HistoryDamaged."""
        for *row, checksum in self.db.execute(query, values):
            if row_sum(table, *row) != checksum:
                raise HistoryDamaged(f"table {table}, row {row[0]}")
            yield row

    def all_checked(self, table: str, query: str, values: Sequence[Any] = ()) -> list[list[Any]]:
        """As `checked`, of many rows together, at a fraction of the cost."""
        found = [(list(row), checksum) for *row, checksum in self.db.execute(query, values)]
        try:
            sums, size = row_sums(table, [row for row, _ in found]), CHECKSUM_BYTES
        except TypeError as error:
            raise HistoryDamaged(f"table {table}, {error}") from error
        for place, (row, checksum) in enumerate(found):
            if sums[size * place : size * place + size] != checksum:
                raise HistoryDamaged(f"table {table}, row {row[0]}")
        return [row for row, _ in found]

    def condemn(self) -> None:
        """A row is damaged: the next start rebuilds the file."""
        with suppress(sqlite3.Error):
            self.db.execute("UPDATE meta SET damaged = 1")

    def clear(self) -> None:
        """Deletes everything, to be rebuilt."""
        self.db.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._open()

    def load(self, ledger: Ledger, state: State) -> None:
        """Sets a new ledger to this file's position, at which `state` is. Raises HistoryDamaged."""
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

    def rows(self, batches: Sequence[Batch], offset: int, log_hash: bytes, epoch: int) -> Rows:
        """What `batches` add to this file, for `write`; log entries before `offset` are in then."""
        return tables.rows_of(batches, self.next_seq, offset, log_hash, epoch)

    def write(self, rows: Rows) -> None:
        """Adds rows in one transaction; log entries before `offset` are in, the last of which has `log_hash`.

        Raises sqlite3.Error, and then nothing is in.
        """
        with self.transaction():
            tables.add(self.db, rows, self.pruned_seq)
        self.has(rows)

    def has(self, rows: Rows) -> None:
        """These rows are in."""
        self.stands_at(rows.next_seq, rows.offset, rows.log_hash, rows.epoch, self.pruned_seq)

    def put_positions(self, rows: Iterable[Sequence[int]]) -> None:
        """Stores the present positions; those without lots are deleted."""
        tables.put_positions(self.db, rows)

    def close(self) -> None:
        """Closes the file."""
        self.db.close()
