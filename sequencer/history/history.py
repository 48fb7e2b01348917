"""The history of a sequencer: writes the ledger's rows of durable ticks to the store, on a thread of its own, and many
rows at once in a process of its own (beside.py).

Nothing here delays a tick, and no error here does: rows wait and are retried, `error` has the reason, and rows given
up are rebuilt from the log at the next start. A query is answered after everything that was durable before it.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from sequencer.engine.engine import PLACE_NONCE_AT, replay
from sequencer.engine.ledger import Ledger
from sequencer.engine.snapshots import Listener
from sequencer.history import pages, statement
from sequencer.history.beside import Writer
from sequencer.history.cuts import cut, prune
from sequencer.history.store import HistoryDamaged, Store
from sequencer.history.tables import columns
from sequencer.log.interface import Entry, end_seq
from sequencer.log.sqlite import SqliteLog
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.wire.rows import PLACES, Batch, amend_key, trade_key

FLUSH_S: Final = 0.2
BESIDE_ROWS: Final = (
    200  # of a flush: when there are so many, a process beside writes them, and what comes after
)
RETRY_S: Final = 1.0
TRIES: Final = 60
ROWS_MAX: Final = 500_000  # that wait for a disk that is full
ROWS_AT_ONCE: Final = 20_000  # of a transaction, while the log is read
DAYS: Final = 366
DAYS_MIN: Final = 14  # more than a roll-back reaches back
PRUNE_ROWS: Final = 1_000  # that go at a time
PRUNE_S: Final = 3_600.0
PRUNE_AGAIN_S: Final = 1.0

METHODS: Final[dict[str, Callable[[Store, dict[str, Any], pages.Names], dict[str, Any]]]] = {
    "order_history": pages.orders,
    "trade_history": pages.trades,
    "settlement_history": pages.settlements,
    "transaction_log": statement.transactions,
}
_LABEL_AT: Final = columns("orders").index("label")
_PLACES: Final = (Kind.PLACE, Kind.PLACE_IN_WORDS)
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class History:
    """The ledger and its store.

    `ledger` may be a tick ahead of the log, the store behind it. For one process only. `days`: rows older than that are
    deleted, 0: none are. Raises ValueError.
    """

    def __init__(self, path: Path, treasury_account: int, days: int = DAYS) -> None:
        if days and days < DAYS_MIN:
            raise ValueError(f"history days must be 0 (all are kept) or at least {DAYS_MIN}, not {days}")
        self.error = ""
        self.is_whole = False  # the ledger has seen every record
        self.ledger = Ledger(treasury_account)
        self._days = days
        self._store = Store(path)
        self._writer = Writer(path)
        self._lock = threading.RLock()  # of the store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._waiting: list[Batch] = []
        self._rows = 0  # of these
        self._offered = self._written = 0  # rows, of all; the second counts on the history's thread
        self._generation = 0  # of what is offered: what was taken back meanwhile must not be written
        self._at = (0, b"")  # log entries taken in, hash of the last
        self._whole_at = (
            self._at
        )  # those in which no order is on its way that may be undone: from there on a start reads
        self._epoch = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_given_up = False
        self._is_loaded = False
        self._prune_at = 0.0  # monotonic

    @property
    def behind(self) -> int:
        """Number of rows not written yet."""
        return self._offered - self._written

    @property
    def pid(self) -> int | None:
        """Of the process that writes the rows, if there is one."""
        return self._writer.pid

    # --- from the log -------------------------------------------------------------------------------

    @property
    def offset(self) -> int:
        """Log entries before it are in."""
        return self._at[0]

    def align(self, log: SqliteLog) -> None:
        """Before the log is replayed: removes rows that it no longer holds, and continues from the store.

        Raises sqlite3.Error.
        """
        with self._lock:
            self._writer.close()  # the file may be another after this
            store = self._store
            last = log.rolled_back()
            self._epoch = last.epoch if last else 0
            back = log.rolled_back_to(store.epoch)
            if back is not None and back < store.offset:
                entry = next(iter(log.read(back)), None) if back < log.end else None
                seq = entry.first_seq if entry is not None else end_seq(log)
                logger.warning("history: taken back to record %d", seq)
                cut(store, seq, back, log.hash_before(back), self._epoch)
            if store.offset > log.end or (
                store.offset and log.hash_before(store.offset).hex() != store.log_hash
            ):
                logger.warning("history: not of this log, or damaged: it is made again")
                store.clear()
            self.restart()

    def restart(self) -> None:
        """Continues from the written rows."""
        with self._lock:
            self._generation += 1
            self._drop_waiting()
            self._offered = self._written = 0
            self._at = self._whole_at = self._store.offset, bytes.fromhex(self._store.log_hash)
            self._is_given_up = self._is_loaded = self.is_whole = False
            self.error = ""
            self.ledger = Ledger(self.ledger.treasury_account)

    def take_in(
        self,
        state: State,
        entry: Entry,
        log_hash: bytes,
        is_verified: bool = False,
        listener: Listener | None = None,
    ) -> None:
        """Applies a log entry to `state`, which is just before it, and adds its rows; `listener` hears of it.

        Raises ReplayError.
        """
        self._load(state)
        ledger, labels = self.ledger, labels_of(entry)

        def observe(raw: bytes, out: Outcome) -> None:
            fills = ledger.apply(raw, out, state.globals.time, labels.get(_key_of(raw), "") if labels else "")
            if listener is not None:
                listener.hear(raw, out, fills)

        if listener is not None:
            listener.open(state, entry, ledger)
        replay(state, entry, observe, is_verified)
        if listener is not None:
            listener.close()
        self._keep(ledger.take(), log_hash)
        if self._rows > ROWS_AT_ONCE:
            self._write_now()

    def caught_up(self, state: State) -> None:
        """The whole log is in, and gives `state`."""
        self._load(state)
        self._write_now()
        self.is_whole = True

    def takers(self, first_seq: int, last_seq: int) -> dict[int, list[list[Any]]]:
        """The takers' rows of trades by the record that made them, of records `first_seq` to `last_seq`.

        None at all when one of them is damaged.
        """
        out: dict[int, list[list[Any]]] = {}
        span = trade_key(first_seq, 0, False), trade_key(last_seq + 1, 0, False)
        query = "SELECT * FROM trades WHERE key >= ? AND key < ? AND key & 1 AND kind = 0 ORDER BY key"
        for row in self._rows_of("trades", query, span):
            out.setdefault(row[0] // PLACES, []).append(row)
        return out

    def amended_label(self, seq: int) -> str:
        """Label of the order that AMEND `seq` has changed; "" without one."""
        query = "SELECT o.* FROM amends AS a JOIN orders AS o ON o.id = a.id WHERE a.key = ?"
        rows = self._rows_of("orders", query, (amend_key(seq, 0),))
        return str(rows[0][_LABEL_AT]) if rows else ""

    def _rows_of(self, table: str, query: str, values: tuple[int, ...]) -> list[list[Any]]:
        try:
            with self._lock:
                return self._store.all_checked(table, query, values)
        except HistoryDamaged as error:
            self._condemn(error)
        except sqlite3.Error as error:
            logger.error("history: %s", error)
        return []

    def _load(self, state: State) -> None:
        if not self._is_loaded:
            with self._lock:
                self._store.load(self.ledger, state)
            self._is_loaded = True

    def write(self, batch: Batch, log_hash: bytes) -> None:
        """Writes the rows of a durable log entry at once: for callers without a loop."""
        self._keep(batch, log_hash)
        self._write_now()

    def _write_now(self) -> None:
        batches, at = self._take()
        self._written = self._offered
        if self._is_given_up or (
            not batches and (at[0], self._epoch) == (self._store.offset, self._store.epoch)
        ):
            return
        try:
            with self._lock:
                self._store.write(self._store.rows(batches, *at, self._epoch))
        except (sqlite3.Error, OSError) as error:
            self._give_up(str(error))

    # --- from ticks ---------------------------------------------------------------------------------

    def offer(self, batch: Batch, log_hash: bytes | None) -> None:
        """Queues the rows of a durable tick with this hash; None when the log has no entry for it."""
        if log_hash is None or self._is_given_up:
            return
        self._keep(batch, log_hash)
        if self.behind > ROWS_MAX:
            self._give_up(f"more than {ROWS_MAX} rows wait ({self.error})")
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _keep(self, batch: Batch, log_hash: bytes) -> None:
        self._at = self._at[0] + 1, log_hash
        if not batch.is_open:
            self._whole_at = self._at
        self._waiting.append(batch)
        self._rows += batch.rows
        self._offered += batch.rows

    def _drop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting, self._rows = [], 0

    def _give_up(self, why: str) -> None:
        self._is_given_up = True
        self._waiting, self._rows = [], 0
        self._written = self._offered
        self.error = f"history stopped until the next start: {why}"
        logger.error("%s", self.error)

    def _take(self) -> tuple[list[Batch], tuple[int, bytes]]:
        batches, self._waiting, self._rows = self._waiting, [], 0
        return batches, self._whole_at

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows = self._rows
        self._executor.submit(self._write, *self._take(), rows, self._generation)

    def _write(self, batches: list[Batch], at: tuple[int, bytes], rows: int, generation: int) -> None:
        """On the history's thread: retries until the rows are in, or the disk has been full for long."""
        for tries_left in reversed(range(TRIES)):
            try:
                with self._lock:
                    if self._is_given_up or generation != self._generation:
                        return
                    self._put(batches, at, rows)
                    self._written += rows
                self.error = ""
                break
            except (sqlite3.Error, OSError) as error:
                self.error = f"history: {error}"
                logger.error("%s", self.error)
                if not tries_left:
                    self._give_up(str(error))
                else:
                    time.sleep(RETRY_S)
        self._prune()

    def _put(self, batches: list[Batch], at: tuple[int, bytes], count: int) -> None:
        """Writes rows here, or in a process beside when there are many. Raises sqlite3.Error, OSError."""
        store = self._store
        rows = store.rows(batches, *at, self._epoch)
        if count < BESIDE_ROWS and not self._writer.is_running:
            store.write(rows)
        else:
            self._writer.write(rows, store.pruned_seq)
            store.has(rows)

    def _prune(self) -> None:
        """From time to time deletes some of the old rows."""
        if not self._days or self._is_given_up or time.monotonic() < self._prune_at:
            return
        more = False
        try:
            with self._lock:
                store = self._store
                newest = store.db.execute("SELECT MAX(time) FROM times").fetchone()[0]
                if newest is not None and (seq := pages.seq_of(store, newest - self._days * c.DAY_S)):
                    more = prune(store, seq, PRUNE_ROWS)
        except sqlite3.Error as error:
            logger.error("history: %s", error)
        self._prune_at = time.monotonic() + (PRUNE_AGAIN_S if more else PRUNE_S)

    # --- questions ----------------------------------------------------------------------------------

    async def run(self, work: Callable[[], _T]) -> _T:
        """Runs `work` on the history's thread, after everything offered."""
        if self._waiting:
            self._flush()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def answer(self, method: str, params: dict[str, Any], names: pages.Names) -> bytes:
        """JSON of a page (METHODS), on the history's thread. Raises HistoryDamaged, sqlite3.Error."""
        with self._lock:
            try:
                return msgspec.json.encode(METHODS[method](self._store, params, names))
            except HistoryDamaged as error:
                self._condemn(error)
                raise

    def _condemn(self, error: HistoryDamaged) -> None:
        self.error = f"history: {error} is not what was written; the next start makes it again"
        logger.critical("%s", self.error)
        self._store.condemn()

    def close(self) -> None:
        """Writes the waiting rows, and closes the file."""
        if self._waiting:
            self._flush()
        self._drop_waiting()
        self._executor.shutdown(wait=True)
        self._writer.close()
        self._store.close()


def _key_of(raw: bytes) -> bytes:
    """Account and nonce of a PLACE, as one key."""
    return raw[1:5] + raw[PLACE_NONCE_AT : PLACE_NONCE_AT + 4] if raw and raw[0] in _PLACES else b""


def labels_of(entry: Entry) -> dict[bytes, str]:
    """Labels of a tick's orders by account and nonce."""
    return {
        account.to_bytes(4, "big") + nonce.to_bytes(4, "big"): label for account, nonce, label in entry.labels
    }
