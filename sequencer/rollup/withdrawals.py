"""Withdrawal proofs: generated at the end of a batch, stored until claimed."""

import logging
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from sequencer.checksums import damaged, guard, guarded
from sequencer.protocol import constants as c
from sequencer.protocol.state import State

logger = logging.getLogger(__name__)


class Withdrawals:
    """One row per withdrawal: the batch under whose post-root it is proven, and the path."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS proofs (number INTEGER PRIMARY KEY, batch INTEGER, owner BLOB, "
            "amount INTEGER, bitmap BLOB, siblings BLOB)"
        )
        guard(self._db, "proofs")
        self._mend()

    def _mend(self) -> None:
        """Deletes damaged proofs and those after them: they are proven again, under the next batch's root."""
        for number in damaged(self._db, "proofs", guarded(self._db)["proofs"]):
            logger.error("withdrawals.sqlite: proof %d is damaged: it and later ones are made again", number)
            self._db.execute("DELETE FROM proofs WHERE number >= ?", (number,))
            return

    def prove(self, state: State, batch_id: int, post_root: bytes) -> None:
        """Proves every withdrawal that has no proof yet under `post_root`, which must be the state's root."""
        row = self._db.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM proofs").fetchone()
        first = int(row[0])
        if first >= state.globals.withdrawals or state.root() != post_root:
            return
        for number in range(first, state.globals.withdrawals):
            key = c.KEY_WITHDRAWAL | number
            value = state.map.get(key)
            assert value is not None
            path = state.map.path(key)
            self._db.execute(
                "INSERT INTO proofs (number, batch, owner, amount, bitmap, siblings) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    number,
                    batch_id,
                    (value >> 64).to_bytes(20, "big"),
                    value & c.U64_MAX,
                    path.bitmap.to_bytes(32, "big"),
                    msgspec.msgpack.encode(list(path.siblings)),
                ),
            )

    def proof(self, number: int) -> dict[str, Any] | None:
        """Arguments of Vault.claim for a withdrawal: batch_id, number, owner, amount (1e-6 USD), bitmap, siblings."""
        row = self._db.execute("SELECT * FROM proofs WHERE number = ?", (number,)).fetchone()
        if row is None:
            return None
        return {
            "batch_id": row[1],
            "number": row[0],
            "owner": "0x" + row[2].hex(),
            "amount": row[3],
            "bitmap": "0x" + row[4].hex(),
            "siblings": ["0x" + one.hex() for one in msgspec.msgpack.decode(row[5], type=list[bytes])],
        }

    def forget(self, batch_id: int) -> None:
        """Deletes the proofs under a batch or a later one."""
        self._db.execute("DELETE FROM proofs WHERE batch >= ?", (batch_id,))

    def close(self) -> None:
        """Closes the store."""
        self._db.close()
