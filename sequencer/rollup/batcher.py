"""From the log to batches: takes logged segments in order until a batch is full or due, and keeps it durably.

A batch is fixed when it is stored, before it is posted: after a crash the same bytes are posted again under the
same id, and the Rollup takes each id once. The store keeps a batch's header, its range of the log and the hash of its
payload; the payload itself is encoded again from the log, and compared with that hash before it is used.

A tick may be spread over two batches, a segment never. In blobs a batch takes as many as a backlog fills: L1 charges
for each blob however full, and for each batch besides.

Long because building, storing, reading back and mending a batch share one table and one way from the log to bytes.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sequencer.checksums import FROM_COPY, StoreDamaged, damaged, guard, guarded, row_sum
from sequencer.l1.batch import Batch
from sequencer.l1.blobs import BLOB_PAYLOAD_BYTES, BLOBS_MAX
from sequencer.l1.blobs import count as blob_count
from sequencer.l1.payload import PAYLOAD_BYTES_MAX
from sequencer.log.head import Head
from sequencer.log.interface import LogLost, Ticks
from sequencer.protocol import batch, codec, work
from sequencer.protocol import constants as c
from sequencer.protocol.batch import Segment

logger = logging.getLogger(__name__)

PAYLOAD_MAX_BYTES = 100_000
EMPTY_HASH = bytes(32)  # of an inbox without messages
BATCHES_FILE = "batches.sqlite"
ROWS_READ = 16  # batches that are read at once, to be posted
NEWER_GONE = f"{FROM_COPY}; or, to build again what was not posted, delete batches.head"
_HEADER = "id, pre_root, post_root, segments, records, first_seq, time_s, inbox_count, inbox_hash, work, tick, ticks"
_HEADER_COLUMNS = 12
_END = (
    "post_root, next_offset, next_segment, first_seq + records, inbox_count, inbox_hash, work, tick, id + 1"
)
_ROW = f"{_HEADER}, next_offset, next_segment, header_hash, payload_hash"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next batch begins: log offset, segment inside it, seq, inbox count and hash, work, tick, id, and
    state root.
    """

    root: bytes
    offset: int = 0
    segment: int = 0
    seq: int = 0
    inbox_count: int = 0
    inbox_hash: bytes = EMPTY_HASH
    work: int = 0
    tick: int = 0
    batch_id: int = 1


@dataclass(frozen=True, slots=True)
class _Part:
    """The first `segments` of what waits, and where the rest of it begins."""

    segments: int
    offset: int
    place: int
    time_s: int
    inbox_count: int
    inbox_hash: bytes
    work: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch that is not stored yet, and the log offset and segment of that entry where it ends."""

    batch: Batch
    offset: int
    segment: int


class Batcher:
    """Owns the batch store beside the log. Raises LogLost when the log does not hold what was put into batches.

    `genesis_root`: the Rollup's, which batch 1 follows.

    A batch is full at `payload_bytes`, in blobs by default at what one holds. In blobs one batch takes up to BLOBS_MAX
    times as much, if as much waits. It is full, too, when more would cost above `work_max`, which is what
    the Rollup's budget holds.
    """

    def __init__(
        self,
        path: Path,
        log: Ticks,
        genesis_root: bytes,
        payload_bytes: int | None = None,
        in_blobs: bool = False,
        work_max: int = work.SLOT_MAX,
    ) -> None:
        most = BLOB_PAYLOAD_BYTES if in_blobs else PAYLOAD_BYTES_MAX
        if payload_bytes is None:
            payload_bytes = most if in_blobs else PAYLOAD_MAX_BYTES
        if not 0 < payload_bytes <= most:
            raise ValueError(f"payload_bytes must be in 1..{most}, what Rollup takes")
        self._log = log
        self._genesis_root = genesis_root
        self.payload_bytes = payload_bytes
        self.left_bytes = 0  # what a payload of all that waited would have, when the last `build` gave none
        self._parts_max = BLOBS_MAX if in_blobs else 1
        self._in_blobs = in_blobs
        self._work_max = work_max
        self._head = Head(path)
        self._first_full = -1  # an offset whose entry is known to have segments
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY, pre_root BLOB, post_root BLOB, "
            "segments INTEGER, records INTEGER, first_seq INTEGER, time_s INTEGER, inbox_count INTEGER, "
            "inbox_hash BLOB, work INTEGER, tick INTEGER, ticks INTEGER, "
            "next_offset INTEGER, next_segment INTEGER, header_hash BLOB, "
            "payload_hash BLOB)"
        )
        try:
            _check_columns(self._db)
            self._mend()
            at = self.cursor = self._end_cursor()
            self._check_whole()
        except StoreDamaged:
            self.close()
            raise
        if log.end < at.offset + (at.segment > 0):
            self.close()
            raise LogLost(
                f"it ends at offset {log.end}, and batch {at.batch_id - 1} reaches to {at.offset}: restore it"
            )

    def _end_cursor(self, before_id: int = 2**62) -> Cursor:
        """Where the last batch before this id ends."""
        row = self._db.execute(
            f"SELECT {_END} FROM batches WHERE id < ? ORDER BY id DESC LIMIT 1",  # noqa: S608  # a constant
            (before_id,),
        ).fetchone()
        return Cursor(*row) if row else Cursor(self._genesis_root)

    def waiting(self) -> int:
        """Log entries that no batch holds whole, from the first with segments on."""
        at = self.cursor
        if not at.segment and at.offset != self._first_full:
            offset = at.offset
            for entry in self._log.read(offset) if offset < self._log.end else ():
                if entry.segments:
                    self._first_full = offset
                    break
                offset += 1
            if offset != at.offset:
                self.cursor = replace(at, offset=offset)
        return self._log.end - self.cursor.offset

    def build(self, whatever_there_is: bool) -> Batch | None:
        """The next batch, stored; None when it is not full yet, unless `whatever_there_is` of it shall go."""
        planned = self.plan(whatever_there_is)
        return None if planned is None else self.store(planned)

    def plan(self, whatever_there_is: bool) -> Planned | None:
        """The next batch as `build` would store it."""
        cursor = self.cursor
        taken: list[Segment] = []
        ids: list[bytes] = []
        body_bytes = 0
        time_s = 0
        inbox_count, inbox_hash = cursor.inbox_count, cursor.inbox_hash
        offset, place = cursor.offset, cursor.segment
        spent = cursor.work
        parts = 1
        is_full = False
        whole: _Part | None = None  # what fills so many times `payload_bytes`, and no more
        for entry in self._log.read(cursor.offset) if cursor.offset < self._log.end else ():
            segments, headed = entry.batch_segments(), entry.ids()
            if offset == cursor.offset:
                _check_continues(entry.first_seq + sum(len(one.records) for one in segments[:place]), cursor)
            while place < len(segments):
                segment, units = segments[place], entry.segments[place][2]
                body_bytes += sum(map(len, segment.records))
                size = _size(len(taken) + 1, len(ids) + len(headed[place]), body_bytes)
                is_full = bool(taken) and self._is_too_much(units - cursor.work, size)
                if taken and (is_full or size > parts * self.payload_bytes):
                    whole = _Part(
                        *(len(taken), offset, place, time_s, inbox_count, inbox_hash, spent, len(ids))
                    )
                    parts = -(-size // self.payload_bytes)
                    is_full = is_full or parts > self._parts_max
                    if is_full:
                        break
                taken.append(segment)
                ids += headed[place]
                place += 1
                time_s, spent = entry.time, units
                inbox_count, inbox_hash = _taken(segment.records, inbox_count, inbox_hash)
            if is_full:
                break
            offset, place = offset + 1, 0
        if whatever_there_is and taken and not is_full:
            whole = _Part(*(len(taken), offset, place, time_s, inbox_count, inbox_hash, spent, len(ids)))
        if whole is None:
            self.left_bytes = _size(len(taken), len(ids), body_bytes)
            if not taken:  # entries without records: the next batch may as well begin behind them
                self.cursor = replace(cursor, offset=offset, segment=0)
            return None
        del taken[whole.segments :], ids[whole.ticks :]
        built = Batch(
            cursor.batch_id,
            cursor.root,
            taken[-1].root,
            len(taken),
            sum(len(segment.records) for segment in taken),
            cursor.seq,
            whole.time_s,
            whole.inbox_count,
            whole.inbox_hash,
            whole.work,
            cursor.tick + len(ids),
            len(ids),
            batch.encode(taken, ids),
        )
        return Planned(built, whole.offset, whole.place)

    def store(self, planned: Planned) -> Batch:
        """Stores what `plan` gave last."""
        self._store(planned.batch, planned.offset, planned.segment)
        return planned.batch

    def follow(self, batch_id: int, offset: int, segment: int) -> Batch | None:
        """Stores the batch that a leader has ended there; None: it is stored already.

        Raises LogLost when it is not the next, or the log gives none.
        """
        if batch_id < self.cursor.batch_id:
            return None
        made = as_logged(self._log, batch_id, self.cursor, (offset, segment))
        if batch_id != self.cursor.batch_id or made is None:
            raise LogLost(f"batch {batch_id} ends at offset {offset}, and {self.cursor.batch_id} is the next")
        return self.store(Planned(made, offset, segment))

    def is_work_full(self, units: int) -> bool:
        """Whether what waits, up to GLOBAL's work of `units`, costs more than one batch may."""
        return self._is_too_much(units - self.cursor.work, c.ELEMENT_BYTES)

    def _is_too_much(self, units: int, size: int) -> bool:
        """Whether a batch of so much work and so many bytes costs more than the Rollup's budget ever holds."""
        return work.of_batch(units, blob_count(size) if self._in_blobs else 0) > self._work_max

    def adopt(self, posted: Batch, header_hash: bytes) -> None:
        """Keeps a batch that somebody has posted, whose records are the log's last entry. `header_hash`: L1's.

        Raises LogLost when it is not the next one.
        """
        if posted.batch_id != self.cursor.batch_id:
            raise LogLost(f"batch {posted.batch_id} is not {self.cursor.batch_id}")
        _check_continues(posted.first_seq, self.cursor)
        self._store(posted, self._log.end, 0, header_hash)

    def _store(self, built: Batch, offset: int, segment: int, header_hash: bytes | None = None) -> None:
        self._db.execute(
            f"INSERT INTO batches ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # a constant
            (
                built.batch_id,
                built.pre_root,
                built.post_root,
                built.segments,
                built.records,
                built.first_seq,
                built.time_s,
                built.inbox_count,
                built.inbox_hash,
                built.work,
                built.tick,
                built.ticks,
                offset,
                segment,
                header_hash,
                _payload_hash(built),
            ),
        )
        self.cursor = _after(built, offset, segment)
        self._head.write(built.batch_id, built.post_root)

    def last(self) -> tuple[int, bytes] | None:
        """(id, post-root) of the last stored batch."""
        row = self._db.execute("SELECT id, post_root FROM batches ORDER BY id DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else None

    def holding(self, seq: int) -> int | None:
        """Id of the batch that holds the record with this sequence number, when one does."""
        row = self._db.execute(
            "SELECT id FROM batches WHERE first_seq <= ? ORDER BY id DESC LIMIT 1", (seq,)
        ).fetchone()
        return row[0] if row is not None and seq < self.cursor.seq else None

    def after_batch(self, batch_id: int) -> tuple[int, int] | None:
        """(log offset, segments of it) at which a stored batch ends."""
        row = self._db.execute(
            "SELECT next_offset, next_segment FROM batches WHERE id = ?", (batch_id,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def work_after(self, batch_id: int) -> int:
        """GLOBAL's work after a stored batch; after that before the first, 0."""
        return self._end_cursor(batch_id + 1).work

    # --- roll-backs -------------------------------------------------------------------------------

    def start_of(self, batch_id: int) -> Cursor:
        """Where a batch begins, or would if the one before it were the last."""
        return self._end_cursor(batch_id)

    def post_root(self, batch_id: int) -> bytes | None:
        """Root after a stored batch."""
        row = self._db.execute("SELECT post_root FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return row[0] if row else None

    def is_same(self, batch_id: int, header_hash: bytes, post_root: bytes) -> bool:
        """Whether a stored batch is the one that L1 has: by its root, and by its header if it was adopted."""
        row = self._db.execute(
            "SELECT post_root, header_hash FROM batches WHERE id = ?", (batch_id,)
        ).fetchone()
        return row is not None and row[0] == post_root and row[1] in (None, header_hash)

    def is_as_logged(self, batch_id: int) -> bool:
        """Whether a stored batch is what the log gives, header and all."""
        row = self._row(batch_id)
        return row is not None and _is_of(
            row, as_logged(self._log, batch_id, self.start_of(batch_id), row[12:14])
        )

    def _row(self, batch_id: int) -> tuple[Any, ...] | None:
        """Its columns, the checksum last."""
        found: tuple[Any, ...] | None = self._db.execute(
            f"SELECT {_ROW}, checksum FROM batches WHERE id = ?",  # noqa: S608  # a constant
            (batch_id,),
        ).fetchone()
        return found

    # --- damage -----------------------------------------------------------------------------------

    def _mend(self) -> None:
        """Makes rows that are not what was written again from the log, which proves itself. Raises StoreDamaged."""
        try:
            guard(self._db, "batches")
            for batch_id in list(damaged(self._db, "batches", guarded(self._db)["batches"])):
                self._mend_row(batch_id)
                logger.error(
                    "%s: batch %d was damaged: it is made again from the log", BATCHES_FILE, batch_id
                )
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(BATCHES_FILE, str(error), FROM_COPY) from error

    def _check_whole(self) -> None:
        """Raises StoreDamaged when there is not each batch from the first to the last that was stored."""
        last, count = self.cursor.batch_id - 1, self._db.execute("SELECT COUNT(*) FROM batches").fetchone()[0]
        known = self._head.read()
        if count != last:
            raise StoreDamaged(
                BATCHES_FILE, f"it has {count} batches, of which the last is {last}", FROM_COPY
            )
        if known is not None and known[0] > last:
            what = f"it ends at batch {last}, and reached to {known[0]}: its newest batches are lost"
            raise StoreDamaged(BATCHES_FILE, what, NEWER_GONE)
        self._head.write(last, self.cursor.root)

    def _mend_row(self, batch_id: int) -> None:
        row = self._row(batch_id)
        assert row is not None
        start = self.start_of(batch_id)
        counted = self._ends_after(start, row[3])
        for end in (*counted, (row[12], row[13])):
            made = as_logged(self._log, batch_id, start, end)
            if made is None:
                continue
            header = _header(made)
            payload_hash = _payload_hash(made)
            is_proven = row_sum("batches", *header, *end, row[14], payload_hash) == row[16]
            if is_proven or (
                end in counted and (*header, *end, payload_hash) == (*row[:14], row[15])
            ):  # then the header's hash or the checksum alone was hit
                self._db.execute("DELETE FROM batches WHERE id = ?", (batch_id,))
                self._store(made, end[0], end[1], row[14] if is_proven else None)
                return
        what = f"batch {batch_id} is not what was written, and the log does not give it again"
        raise StoreDamaged(BATCHES_FILE, what, FROM_COPY)

    def _ends_after(self, start: Cursor, segments: object) -> list[tuple[int, int]]:
        """Where a batch of so many segments ends: behind the last of them, or behind entries without any after it."""
        ends: list[tuple[int, int]] = []
        if not isinstance(segments, int) or segments < 1:
            return ends
        offset, left = start.offset, segments + start.segment
        for entry in self._log.read(offset) if offset < self._log.end else ():
            if left < len(entry.segments):
                return ends or [(offset, left)]
            left -= len(entry.segments)
            offset += 1
            if left == 0:
                ends.append((offset, 0))
        return ends

    def forget(self, batch_id: int) -> None:
        """Deletes the batch and all after it: they are built again."""
        self._head.write(max(min(batch_id, self.cursor.batch_id) - 1, 0), EMPTY_HASH)
        self._db.execute("DELETE FROM batches WHERE id >= ?", (batch_id,))
        self.cursor, self._first_full = self._end_cursor(), -1

    def close(self) -> None:
        """Closes the store."""
        self._head.close()
        self._db.close()


def as_logged(log: Ticks, batch_id: int, start: Cursor, end: tuple[int, int]) -> Batch | None:
    """The batch that a log gives from `start` to `end`, a log offset and segments of that entry."""
    taken: list[Segment] = []
    ids: list[bytes] = []
    time_s, units, offset, place = 0, start.work, start.offset, start.segment
    for entry in log.read(offset) if offset < log.end else ():
        part = slice(place, end[1] if offset == end[0] else None)
        if entry.segments[part]:
            taken += entry.batch_segments()[part]
            ids += [one for of_segment in entry.ids()[part] for one in of_segment]
            time_s, units = entry.time, entry.segments[part][-1][2]
        offset, place = offset + 1, 0
        if offset > end[0]:
            break
    if not taken:
        return None
    records = [raw for segment in taken for raw in segment.records]
    inbox_count, inbox_hash = _taken(records, start.inbox_count, start.inbox_hash)
    return Batch(
        batch_id,
        start.root,
        taken[-1].root,
        len(taken),
        len(records),
        start.seq,
        time_s,
        inbox_count,
        inbox_hash,
        units,
        start.tick + len(ids),
        len(ids),
        batch.encode(taken, ids),
    )


def _size(segments: int, ticks: int, body_bytes: int) -> int:
    """Bytes of a payload: roots, end offsets, ids of ticks, records."""
    return batch.tables(segments, ticks) * c.ELEMENT_BYTES + body_bytes


def _taken(records: Iterable[bytes], count: int, running: bytes) -> tuple[int, bytes]:
    """Inbox count and running hash after records, from those before."""
    for raw in records:
        if raw[0] in c.INBOX_KINDS:
            count, running = count + 1, codec.inbox_hash(running, raw)
    return count, running


def _check_continues(seq: int, cursor: Cursor) -> None:
    """A batch that does not follow the last is a fraud that L1 would punish; better none."""
    if seq != cursor.seq:
        raise LogLost(
            f"offset {cursor.offset} goes on at seq {seq}, batch {cursor.batch_id - 1} ended before {cursor.seq}"
        )


def _header(one: Batch) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in Batch.__dataclass_fields__)[:_HEADER_COLUMNS]


def _payload_hash(one: Batch) -> bytes:
    return sha256(one.payload).digest()


def _is_of(row: tuple[Any, ...], made: Batch | None) -> bool:
    """Whether `made` is the batch of a row, as _ROW has it."""
    return made is not None and _header(made) == row[:_HEADER_COLUMNS] and _payload_hash(made) == row[15]


def _check_columns(db: sqlite3.Connection) -> None:
    """Raises StoreDamaged for the store of a version whose batches no Rollup of today takes."""
    if "tick" not in [row[1] for row in db.execute("PRAGMA table_info(batches)")]:
        what = "it was written by a version whose batches did not commit to the headers of ticks"
        raise StoreDamaged(BATCHES_FILE, what, "deploy anew and start with an empty folder")


def read_stored(path: Path, log: Ticks, first_id: int) -> Iterator[Batch]:
    """Stored batches from `first_id` on, in order, at most ROWS_READ, each with its payload from `log`.

    By its own connection, for another thread or process than the batcher's. Raises StoreDamaged at one that is not
    what was written, or that the log does not give.
    """
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            f"SELECT {_ROW}, checksum FROM batches WHERE id >= ? ORDER BY id LIMIT ?",  # noqa: S608  # a constant
            (first_id, ROWS_READ),
        ).fetchall()
        before = db.execute(
            f"SELECT {_END} FROM batches WHERE id < ? ORDER BY id DESC LIMIT 1",  # noqa: S608  # a constant
            (first_id,),
        ).fetchone()
    checked = (_checked(path, row) for row in rows)
    for row, made in _made(checked, log, Cursor(*before) if before else None):
        if made is None:
            what = f"batch {row[0]} is not what the log gives: it is not posted"
            raise StoreDamaged(path.name, what, "run fairstrike check on the folder")
        yield made


def stored_post_root(path: Path, batch_id: int) -> bytes | None:
    """Root after a stored batch; None: there is no such batch. Raises StoreDamaged."""
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(path)) as db:
        row = db.execute(f"SELECT {_ROW}, checksum FROM batches WHERE id = ?", (batch_id,)).fetchone()  # noqa: S608  # a constant
    return bytes(_checked(path, row)[2]) if row is not None else None


def compare(db: sqlite3.Connection, log: Ticks) -> Iterator[tuple[int, bool]]:
    """Each stored batch's id, and whether it is what the log gives; ends behind the first that is not."""
    rows = db.execute(f"SELECT {_ROW} FROM batches ORDER BY id")  # noqa: S608  # a constant
    for row, made in _made(rows, log, None):
        yield row[0], made is not None


def _checked(path: Path, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row, with its checksum behind it. Raises StoreDamaged."""
    if row_sum("batches", *row[:-1]) != row[-1]:
        what = f"batch {row[0]} is not what was written: it is not posted"
        raise StoreDamaged(path.name, what, "start again, which makes it again from the log")
    return row


def _made(
    rows: Iterable[tuple[Any, ...]], log: Ticks, start: Cursor | None
) -> Iterator[tuple[tuple[Any, ...], Batch | None]]:
    """Rows that follow each other from `start` (None: genesis), each with its batch; ends at one that has None."""
    for row in rows:
        made = as_logged(log, row[0], start or Cursor(row[1]), row[12:14])
        if not _is_of(row, made):
            made = None
        yield row, made
        if made is None:
            return
        start = _after(made, row[12], row[13])


def _after(made: Batch, offset: int, segment: int) -> Cursor:
    return Cursor(
        root=made.post_root,
        offset=offset,
        segment=segment,
        seq=made.first_seq + made.records,
        inbox_count=made.inbox_count,
        inbox_hash=made.inbox_hash,
        work=made.work,
        tick=made.tick,
        batch_id=made.batch_id + 1,
    )
