"""What the transaction manager must not forget, in one SQLite file.

An intent is what somebody wants done once; an attempt is one signed transaction for it. Everything is written
before it is sent (WAL, synchronous=FULL), so that after a crash at any instant the file names every
transaction that can be anywhere. Signing is deterministic: attempts store fees, not bytes.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tiny_keccak import keccak256

from sequencer.checksums import StoreDamaged, damaged, guard, guarded
from sequencer.l1.errors import ForeignKeyUse, IntentConflict
from sequencer.l1.signing import Content, Fees

GUARDED: Final = ("meta", "intents", "attempts")
REMEDY: Final = (
    "restore it from a copy, or move it away: Rollup takes each batch once, but a transaction that is stuck has to be "
    "replaced by hand then"
)
DATA_KEPT: Final = 64  # confirmed intents whose calldata stays, in case a reorganisation wants it again

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS intents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    intent_id TEXT NOT NULL UNIQUE,
    destination BLOB NOT NULL,
    data BLOB,
    value TEXT NOT NULL,
    gas INTEGER NOT NULL,
    digest BLOB NOT NULL,
    nonce INTEGER UNIQUE,
    state TEXT NOT NULL,
    tx_hash TEXT,
    block_number INTEGER,
    block_hash TEXT,
    gas_used INTEGER,
    gas_price TEXT,
    error TEXT NOT NULL DEFAULT '',
    payload BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX IF NOT EXISTS intents_state ON intents (state);
CREATE TABLE IF NOT EXISTS attempts (
    tx_hash TEXT PRIMARY KEY,
    seq INTEGER NOT NULL REFERENCES intents (seq),
    nonce INTEGER NOT NULL,
    max_fee TEXT NOT NULL,
    tip TEXT NOT NULL,
    sent_s REAL
) STRICT;
CREATE INDEX IF NOT EXISTS attempts_nonce ON attempts (nonce);
"""


class State(StrEnum):
    QUEUED = "queued"  # durable; no node has taken it yet
    SENT = "sent"  # a node has taken it
    MINED = "mined"  # in a block, not deep enough
    CONFIRMED = "confirmed"  # deep enough, succeeded
    FAILED = "failed"  # deep enough and reverted, or refused for good; see error


OPEN: Final = (State.QUEUED, State.SENT, State.MINED)


@dataclass(frozen=True, slots=True)
class Intent:
    """One intent as it stands. `nonce` is None until it has one; block fields until it is mined."""

    seq: int
    intent_id: str
    nonce: int | None
    state: State
    tx_hash: str | None
    block_number: int | None
    block_hash: str | None
    gas_used: int | None
    gas_price: int | None
    error: str

    @property
    def is_done(self) -> bool:
        return self.state in (State.CONFIRMED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Attempt:
    tx_hash: str
    seq: int
    nonce: int
    fees: Fees
    sent_s: float | None


_COLUMNS: Final = (
    "seq, intent_id, nonce, state, tx_hash, block_number, block_hash, gas_used, gas_price, error"
)


def _intent(row: tuple[Any, ...]) -> Intent:
    price = int(row[8]) if row[8] is not None else None
    return Intent(row[0], row[1], row[2], State(row[3]), row[4], row[5], row[6], row[7], price, row[9])


class TxStore:
    """The tables; one process at a time holds the file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # a second manager of this key must not start
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(SCHEMA)
        self._add_column("intents", "payload BLOB NOT NULL DEFAULT x''")
        self._add_column("attempts", "blob_fee TEXT NOT NULL DEFAULT '0'")
        self._guard(path)

    def _guard(self, path: Path) -> None:
        """What is on its way cannot be had from elsewhere: nothing is sent by rows that are not what was written."""
        guard(self._db, *GUARDED)
        for table, columns in guarded(self._db).items():
            for row in damaged(self._db, table, columns):
                self._db.close()
                raise StoreDamaged(path.name, f"table {table}, row {row} is not what was written", REMEDY)

    def _add_column(self, table: str, column: str) -> None:
        """To a file that was made before there were blobs."""
        known = [row[1] for row in self._db.execute(f"PRAGMA table_info({table})")]
        if column.split()[0] not in known:
            self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def bind(self, identity: str) -> None:
        """Remember whose nonces these are, or raise ForeignKeyUse when they are another's."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        if row is None:
            self._db.execute("INSERT INTO meta (key, value) VALUES ('identity', ?)", (identity,))
        elif row[0] != identity:
            raise ForeignKeyUse(row[0], identity)

    # --- intents ------------------------------------------------------------------------------

    def add(self, intent_id: str, content: Content) -> Intent:
        """The intent of this id, new or not; raises IntentConflict when it exists with other content."""
        head = content.to + content.value.to_bytes(32, "big")
        digest = keccak256(head + content.data + content.payload)
        old = self._db.execute("SELECT digest FROM intents WHERE intent_id = ?", (intent_id,)).fetchone()
        if old is None:
            self._db.execute(
                "INSERT INTO intents (intent_id, destination, data, value, gas, digest, state, payload) "
                "VALUES (?,?,?,?,?,?,?,?)",
                (
                    intent_id,
                    content.to,
                    content.data,
                    str(content.value),
                    content.gas,
                    digest,
                    State.QUEUED,
                    content.payload,
                ),
            )
        elif bytes(old[0]) != digest:
            raise IntentConflict(intent_id)
        found = self.get(intent_id)
        assert found is not None
        return found

    def get(self, intent_id: str) -> Intent | None:
        return self._one("intent_id = ?", intent_id)

    def by_seq(self, seq: int) -> Intent:
        found = self._one("seq = ?", seq)
        assert found is not None
        return found

    def by_nonce(self, nonce: int) -> Intent | None:
        return self._one("nonce = ?", nonce)

    def _one(self, condition: str, value: Any) -> Intent | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM intents WHERE {condition}", (value,)).fetchone()  # noqa: S608 - our own text
        return _intent(row) if row else None

    def open_intents(self) -> list[Intent]:
        """Queued, sent and mined ones: by nonce, those without a nonce last, in order of arrival."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM intents WHERE state IN ('queued', 'sent', 'mined') "  # noqa: S608 - constants
            "ORDER BY nonce IS NULL, nonce, seq"
        )
        return [_intent(row) for row in rows]

    def content(self, seq: int) -> Content | None:
        """What to sign; None once the calldata has been dropped."""
        row = self._db.execute(
            "SELECT destination, data, value, gas, payload FROM intents WHERE seq = ?", (seq,)
        ).fetchone()
        if row[1] is None:
            return None
        return Content(bytes(row[0]), bytes(row[1]), int(row[2]), row[3], bytes(row[4]))

    def update(self, seq: int, **fields: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in fields)
        self._db.execute(f"UPDATE intents SET {assignments} WHERE seq = ?", (*fields.values(), seq))  # noqa: S608 - keyword names

    def delete(self, seq: int) -> None:
        self._db.execute("DELETE FROM attempts WHERE seq = ?", (seq,))
        self._db.execute("DELETE FROM intents WHERE seq = ?", (seq,))

    def drop_old_data(self) -> None:
        self._db.execute(
            "UPDATE intents SET data = NULL, payload = x'' WHERE data IS NOT NULL "
            "AND state IN ('confirmed', 'failed') AND seq <= (SELECT max(seq) FROM intents) - ?",
            (DATA_KEPT,),
        )

    def counts(self) -> dict[State, int]:
        found = dict(self._db.execute("SELECT state, count(*) FROM intents GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in State}

    def gas_used(self) -> int:
        return int(self._db.execute("SELECT coalesce(sum(gas_used), 0) FROM intents").fetchone()[0])

    # --- attempts -----------------------------------------------------------------------------

    def nonce_next(self) -> int | None:
        """One above the highest nonce ever signed with; None before the first."""
        highest = self._db.execute("SELECT max(nonce) FROM attempts").fetchone()[0]
        return None if highest is None else int(highest) + 1

    def add_attempt(self, attempt: Attempt) -> None:
        fees = attempt.fees
        self._db.execute(
            "INSERT OR IGNORE INTO attempts (tx_hash, seq, nonce, max_fee, tip, sent_s, blob_fee) "
            "VALUES (?,?,?,?,?,?,?)",
            (
                attempt.tx_hash,
                attempt.seq,
                attempt.nonce,
                str(fees.max_fee),
                str(fees.tip),
                attempt.sent_s,
                str(fees.blob_fee),
            ),
        )

    def mark_sent(self, tx_hash: str, now_s: float) -> None:
        self._db.execute("UPDATE attempts SET sent_s = ? WHERE tx_hash = ?", (now_s, tx_hash))

    def attempts(self, nonce: int) -> list[Attempt]:
        """All attempts at a nonce, of whatever intent, oldest first."""
        rows = self._db.execute(
            "SELECT tx_hash, seq, nonce, max_fee, tip, sent_s, blob_fee FROM attempts WHERE nonce = ? ORDER BY rowid",
            (nonce,),
        )
        return [
            Attempt(row[0], row[1], row[2], Fees(int(row[3]), int(row[4]), int(row[6])), row[5])
            for row in rows
        ]
