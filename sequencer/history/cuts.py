"""Deletions from the history store: records that were rolled back, and rows past the retention time."""

import sqlite3
from typing import Final

from sequencer.history.store import Store
from sequencer.wire.rows import PLACES, MoveKind, amend_key


class _Lost(Exception):
    """The earlier values cannot be derived from the remaining rows."""


_BROUGHT: Final = ", ".join(
    str(int(one)) for one in (MoveKind.DEPOSIT, MoveKind.WITHDRAWAL, MoveKind.TRANSFER, MoveKind.COLLECT)
)
# What the rows from a record on have added to the totals. A settlement's cash is in its trades.
_ADDED: Final = f"""
SELECT account, SUM(cash), SUM(net), SUM(realised), SUM(fees), SUM(covered) FROM (
  SELECT account, lots * price * (2 * side - 1) - fee AS cash, 0 AS net, realised, fee AS fees, 0 AS covered
  FROM trades WHERE key >= :trade
  UNION ALL SELECT account, -fee, 0, 0, fee, 0 FROM orders WHERE id >= :seq
  UNION ALL SELECT account, -fee, 0, 0, fee, 0 FROM amends WHERE key >= :amend
  UNION ALL SELECT account,
    CASE kind WHEN {int(MoveKind.SETTLEMENT)} THEN 0
      WHEN {int(MoveKind.LIQUIDATION)} THEN discount - fee ELSE amount END,
    CASE WHEN kind IN ({_BROUGHT}) THEN amount ELSE 0 END,
    discount, CASE kind WHEN {int(MoveKind.SWEEP_FEE)} THEN -amount ELSE fee END,
    CASE kind WHEN {int(MoveKind.COVER)} THEN amount ELSE 0 END
  FROM moves WHERE key >= :trade
) GROUP BY account"""  # noqa: S608  # integers


def cut(store: Store, seq: int, offset: int, log_hash: bytes, epoch: int) -> None:
    """Removes the effects of records from `seq` on; afterwards the log's entries before `offset` are in.

    If the rows do not suffice, everything is deleted, to be rebuilt. Raises sqlite3.Error, and then nothing has
    changed.
    """
    try:
        with store.transaction():
            if seq < store.next_seq:
                _take_back(store, seq)
            at = (min(seq, store.next_seq), offset, log_hash.hex(), epoch, store.pruned_seq)
            store.put_meta(*at)
    except _Lost:
        store.clear()
    else:
        store.stands_at(*at)


def _take_back(store: Store, seq: int) -> None:
    if seq < store.pruned_seq:
        raise _Lost
    db = store.db
    at = {"seq": seq, "trade": seq * PLACES, "amend": amend_key(seq, 0)}
    added = db.execute(_ADDED, at).fetchall()
    touched = db.execute("SELECT DISTINCT account, instrument FROM trades WHERE key >= :trade", at).fetchall()
    for table, column, first in (
        ("orders", "id", "seq"),
        ("trades", "key", "trade"),
        ("amends", "key", "amend"),
        ("closes", "seq", "seq"),
        ("floors", "seq", "seq"),
        ("moves", "key", "trade"),
        ("times", "seq", "seq"),
    ):
        db.execute(f"DELETE FROM {table} WHERE {column} >= :{first}", at)  # noqa: S608  # names of this file
    totals = []
    for account, *less in added:
        row = next(store.checked("totals", "SELECT * FROM totals WHERE account = ?", (account,)), None)
        if row is None:
            raise _Lost
        totals.append([account, *(have - one for have, one in zip(row[1:], less, strict=True))])
    store.put("totals", totals)
    positions = []
    for account, instrument in touched:
        last = db.execute(
            "SELECT position, cost, position_realised FROM trades WHERE account = ? AND instrument = ? "
            "ORDER BY key DESC LIMIT 1",
            (account, instrument),
        ).fetchone()
        if last is None and store.pruned_seq:  # it may have been opened by a trade that has gone
            raise _Lost
        positions.append((account, instrument, *(last or (0, 0, 0))))
    store.put_positions(positions)


_ENDED: Final = """
SELECT o.id FROM orders AS o LEFT JOIN closes AS c ON c.id = o.id WHERE o.id < :seq AND (
  c.seq < :seq OR EXISTS (SELECT 1 FROM floors AS f WHERE f.account = o.account AND f.seq > o.id AND f.seq < :seq)
) ORDER BY o.id LIMIT :most"""
# A trade stays as long as its order does.
_TRADES: Final = """
DELETE FROM trades WHERE key IN (
  SELECT key FROM trades AS t WHERE key < :trade AND NOT EXISTS (SELECT 1 FROM orders AS o WHERE o.id = t.order_id)
  ORDER BY key LIMIT :most)"""


def prune(store: Store, seq: int, rows_max: int) -> bool:
    """Deletes some rows older than record `seq`; returns whether more of them remain. Raises sqlite3.Error.

    An order is deleted once it has ended before `seq`, with its trades; sums and open positions stay.
    """
    at = (store.next_seq, store.offset, store.log_hash, store.epoch, max(store.pruned_seq, seq))
    with store.transaction():
        gone = _prune(store.db, seq, rows_max)
        if gone:
            store.put_meta(*at)
    if gone:
        store.stands_at(*at)
    return gone >= rows_max


def _prune(db: sqlite3.Connection, seq: int, rows_max: int) -> int:
    """Deletes rows, at most `rows_max` of each table; returns their number."""
    at = {"seq": seq, "trade": seq * PLACES, "most": rows_max}
    ended = [(row[0],) for row in db.execute(_ENDED, at)]
    db.executemany("DELETE FROM amends WHERE id = ?", ended)
    db.executemany("DELETE FROM closes WHERE id = ?", ended)
    db.executemany("DELETE FROM orders WHERE id = ?", ended)
    gone = [len(ended), db.execute(_TRADES, at).rowcount]
    gone.append(
        db.execute(
            "DELETE FROM moves WHERE key IN (SELECT key FROM moves WHERE key < :trade ORDER BY key LIMIT :most)",
            at,
        ).rowcount
    )
    if max(gone) < rows_max:
        # The last of an account still tells of orders that nobody has swept; the last second, where the rest begins.
        db.execute(
            "DELETE FROM floors WHERE seq < :seq AND seq < "
            "(SELECT MAX(l.seq) FROM floors AS l WHERE l.account = floors.account)",
            at,
        )
        db.execute("DELETE FROM times WHERE seq < :seq AND time < (SELECT MAX(time) FROM times)", at)
    return max(gone)
