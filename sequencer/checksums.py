"""Checksums of what is stored: one beside each row of a SQLite table, compared before the row is acted on.

A connection that writes keeps them by triggers of its own (`guard`), so that no statement can forget one; whatever
changes a row otherwise, a disk, a cosmic ray or a hand, leaves it with a checksum that does not fit.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

_kernel: Callable[[str, Sequence[Sequence[str | int]]], bytes] | None
try:
    from sequencer._kernel.cmap_kernel import row_sums as _kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _kernel = None

CHECKSUM_BYTES: Final = 16
FROM_COPY: Final = (
    "restore the folder from a copy, or empty it and start with --standby: all that is on L1 comes back"
)
SUMS: Final = "checksums"  # the table that says which columns of which tables have one


class StoreDamaged(OSError):
    """What was stored is not what was written. `what`: where, and how it shows; `remedy`: what to do about it."""

    def __init__(self, store: str, what: str, remedy: str) -> None:
        super().__init__(f"{store}: {what}: {remedy}")
        self.store = store
        self.what = what
        self.remedy = remedy


def row_sum(*values: bytes | str | int | float | None) -> bytes:
    """Checksum of a row: its table's name and the values of its columns. Other values, types or an order differ."""
    parts = []
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        parts.append(b"%c%d:%b" % (b"b" if isinstance(value, bytes) else b"v", len(data), data))
    return sha256(b"".join(parts)).digest()[:CHECKSUM_BYTES]


def row_sums(table: str, rows: Sequence[Sequence[str | int]]) -> bytes:
    """`row_sum` of each row of a table of integers and texts, one behind the other."""
    if _kernel is not None:
        return _kernel(table, rows)
    name = repr(table)
    head = f"v{len(name)}:{name}"
    out = []
    for row in rows:
        parts = [head]
        for value in row:
            text = repr(value) if type(value) is str else int.__repr__(value)  # also of enums
            size = len(text) if text.isascii() else len(text.encode())
            parts.append(f"v{size}:{text}")
        out.append(sha256("".join(parts).encode()).digest()[:CHECKSUM_BYTES])
    return b"".join(out)


def declare(db: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    """Says that a table has checksums over these columns, which its writer makes by itself (`row_sums`)."""
    db.execute(f"CREATE TABLE IF NOT EXISTS {SUMS} (name TEXT PRIMARY KEY, columns TEXT NOT NULL)")
    db.execute(f"INSERT OR REPLACE INTO {SUMS} VALUES (?, ?)", (table, ",".join(columns)))  # noqa: S608  # ours


def guard(db: sqlite3.Connection, *tables: str) -> None:
    """Keeps checksums of these tables on what `db` writes from now on.

    A table that has none gets them, of its rows as they are. One that has got a column since is compared first.
    Raises StoreDamaged then.
    """
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    db.execute(f"CREATE TABLE IF NOT EXISTS {SUMS} (name TEXT PRIMARY KEY, columns TEXT NOT NULL)")
    known = guarded(db)
    for table in tables:
        columns = _columns(db, table)
        if known.get(table) != columns:
            for row in damaged(db, table, known[table]) if table in known else ():
                raise StoreDamaged(file_of(db).name, f"table {table}, row {row}", FROM_COPY)
            _begin(db, table, columns)
        names, fresh = ", ".join(columns), ", ".join(f"NEW.{name}" for name in columns)
        for event in ("INSERT", f"UPDATE OF {names}"):
            name = f"sum_{table}_{event[:6].lower()}"
            db.execute(
                f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table} BEGIN "  # noqa: S608  # our own names
                f"UPDATE {table} SET checksum = row_sum('{table}', {fresh}) WHERE rowid = NEW.rowid; END"
            )


def guarded(db: sqlite3.Connection) -> dict[str, list[str]]:
    """The tables that have checksums, and the columns that these are over."""
    try:
        rows = db.execute(f"SELECT name, columns FROM {SUMS}").fetchall()  # noqa: S608  # a constant
    except sqlite3.OperationalError:
        return {}
    return {name: columns.split(",") for name, columns in rows}


def damaged(db: sqlite3.Connection, table: str, columns: Sequence[str]) -> Iterator[int]:
    """Row ids of the rows that are not what was written. Raises sqlite3.DatabaseError when the file cannot be read."""
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    names = ", ".join(columns)
    query = f"SELECT rowid FROM {table} WHERE checksum IS NOT row_sum('{table}', {names}) ORDER BY rowid"  # noqa: S608  # our names
    return (int(row[0]) for row in db.execute(query))


def file_of(db: sqlite3.Connection) -> Path:
    """The file of a connection."""
    return Path(next(row[2] for row in db.execute("PRAGMA database_list") if row[1] == "main"))


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "checksum"]


def _begin(db: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    """In one transaction: the column, the sums of the rows as they are, and that they are there."""
    names = ", ".join(columns)
    db.execute("BEGIN IMMEDIATE")
    try:
        if "checksum" not in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]:
            db.execute(f"ALTER TABLE {table} ADD COLUMN checksum BLOB")
        db.execute(f"UPDATE {table} SET checksum = row_sum('{table}', {names})")  # noqa: S608  # our own names
        db.execute(f"INSERT OR REPLACE INTO {SUMS} VALUES (?, ?)", (table, ",".join(columns)))  # noqa: S608  # ours
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
