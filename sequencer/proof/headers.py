"""Signed tick headers that a peer has seen, and what two of them show: bounded, in memory and, if asked, in a file.

By member, epoch, roll-backs and tick, as the judge compares them (docs/PROTOCOL.md section 21). In memory are the
newest MEMORY_PER_MEMBER of each member, by their coming: a member that signs without end pushes out its own. The file
holds FILE_MAX more, so that a header that comes late still meets the other of its tick.
"""

import sqlite3
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from sequencer.protocol.hashing import keccak
from sequencer.wire.headers import SIGNED_BYTES, STORED_BYTES, SignedHeader, contradiction, unpack

MEMORY_PER_MEMBER: Final = 65_536
MEMORY_MAX: Final = 4 * MEMORY_PER_MEMBER
FILE_MAX: Final = 1_000_000  # about 300 MB
FILE_SLACK: Final = 10_000
PER_TICK: Final = 2  # of one slot: two are a proof, more are not needed
BUCKET_TICKS: Final = 64
MARK_BYTES: Final = 16  # of a bucket's mark

Group = tuple[str, int, int]  # member, epoch, roll-backs
Bucket = tuple[int, int, int]  # epoch, roll-backs, tick // BUCKET_TICKS


@dataclass(frozen=True, slots=True)
class Pair:
    """Two headers of one member that contradict each other; `misdeed` as the judge names it."""

    misdeed: str
    member: str
    first: SignedHeader
    second: SignedHeader


@dataclass(slots=True)
class _Group:
    ticks: list[int] = field(default_factory=list)  # sorted
    by_tick: dict[int, list[bytes]] = field(default_factory=dict)


class HeaderStore:
    """Headers whose signers were found to be members. Not thread-safe.

    `add` says which pairs a new one makes; `marks` and `of` are for comparing with another peer's.
    """

    def __init__(
        self,
        domain: bytes,
        path: Path | None = None,
        per_member: int = MEMORY_PER_MEMBER,
        in_file: int = FILE_MAX,
    ) -> None:
        self._domain = domain
        self._per_member = per_member
        self._in_file = in_file
        self._kept: dict[bytes, tuple[str, SignedHeader]] = {}  # by the stored header
        self._order: dict[str, deque[bytes]] = {}  # of each member, as they came
        self._groups: dict[Group, _Group] = {}
        self._marks: dict[Bucket, bytes] = {}  # those that are known
        self._buckets: dict[Bucket, dict[bytes, None]] = {}  # by their last change
        self._file = None if path is None else _File(path, in_file)
        self.found: list[Pair] = []  # in the file, as it was opened
        if self._file is not None:
            for member, raw in self._file.newest(per_member):
                signed = unpack(raw, domain)
                self.found += self._pairs(member, signed, self._of_tick(self._group(member, signed), signed))
                self._keep(member, signed)

    def __len__(self) -> int:
        """Number in memory."""
        return len(self._kept)

    def __contains__(self, stored: bytes) -> bool:
        """Whether a header (STORED_BYTES, without its signature) is in memory."""
        return stored in self._kept

    def close(self) -> None:
        """Makes the file durable."""
        if self._file is not None:
            self._file.close()

    def flush(self) -> None:
        """Gives the file what came since."""
        if self._file is not None:
            self._file.commit()

    def add(self, member: str, signed: SignedHeader) -> list[Pair] | None:
        """The pairs that a header makes; None: it is known, or a third of its tick."""
        stored = signed.pack()[:STORED_BYTES]
        if stored in self._kept:
            return None
        group = self._group(member, signed)
        of_tick = self._of_tick(group, signed)
        if not of_tick and self._file is not None:
            tick = signed.header.tick
            of_tick = [unpack(raw, self._domain) for raw in self._file.of(group, tick)]
        if len(of_tick) >= PER_TICK or any(one.header == signed.header for one in of_tick):
            return None
        pairs = self._pairs(member, signed, of_tick)
        self._keep(member, signed)
        if self._file is not None:
            self._file.add(member, signed)
        return pairs

    @staticmethod
    def _group(member: str, signed: SignedHeader) -> Group:
        return member, signed.header.epoch, signed.header.roll_backs

    def _pairs(self, member: str, signed: SignedHeader, of_tick: list[SignedHeader]) -> list[Pair]:
        """What a header shows with others of its tick, and with its neighbours in memory."""
        near = self._near(self._group(member, signed), signed.header.tick)
        return [
            Pair(misdeed, member, *sorted((one, signed), key=lambda which: which.header.tick))
            for one in (*of_tick, *near)
            if (misdeed := contradiction(one, signed))
        ]

    def _of_tick(self, group: Group, signed: SignedHeader) -> list[SignedHeader]:
        """Headers in memory of the same tick."""
        found = self._groups.get(group)
        return (
            [self._kept[stored][1] for stored in found.by_tick.get(signed.header.tick, ())] if found else []
        )

    def _near(self, group: Group, tick: int) -> Iterator[SignedHeader]:
        """The headers next to a tick, before and after it."""
        found = self._groups.get(group)
        if found is None:
            return
        at = bisect_left(found.ticks, tick)
        before = found.ticks[at - 1 : at] if at else []
        after = [one for one in found.ticks[at : at + 2] if one != tick][:1]
        for near in (*before, *after):
            for stored in found.by_tick[near]:
                yield self._kept[stored][1]

    def _keep(self, member: str, signed: SignedHeader) -> None:
        stored, header = signed.pack()[:STORED_BYTES], signed.header
        if stored in self._kept:
            return
        self._kept[stored] = member, signed
        order = self._order.setdefault(member, deque())
        order.append(stored)
        group = self._groups.setdefault(self._group(member, signed), _Group())
        if header.tick not in group.by_tick:
            insort(group.ticks, header.tick)
        group.by_tick.setdefault(header.tick, []).append(stored)
        self._change(signed, stored)
        if len(order) > self._per_member:
            self._drop(order)
        elif len(self._kept) > MEMORY_MAX:
            self._drop(max(self._order.values(), key=len))

    def _drop(self, order: deque[bytes]) -> None:
        """Takes a member's oldest out of memory."""
        stored = order.popleft()
        member, signed = self._kept.pop(stored)
        header = signed.header
        key = self._group(member, signed)
        group = self._groups[key]
        group.by_tick[header.tick].remove(stored)
        if not group.by_tick[header.tick]:
            del group.by_tick[header.tick], group.ticks[bisect_left(group.ticks, header.tick)]
        if not group.ticks:
            del self._groups[key]
        self._change(signed, stored)

    # --- comparing with a peer ------------------------------------------------------------------------

    def _change(self, signed: SignedHeader, stored: bytes) -> None:
        """Puts a header into its bucket, or takes it out."""
        header = signed.header
        bucket = (header.epoch, header.roll_backs, header.tick // BUCKET_TICKS)
        self._marks.pop(bucket, None)
        held = self._buckets.get(bucket, {})
        if stored in held:  # the bucket stays in its place: what goes out of memory is no news
            del held[stored]
            if not held:
                del self._buckets[bucket]
            return
        held[stored] = None
        self._buckets.pop(bucket, None)
        self._buckets[bucket] = held

    def marks(self, most: int) -> list[tuple[Bucket, bytes]]:
        """Marks (MARK_BYTES) of the buckets that changed last, `most` at most; the newest last.

        Equal where two peers have the same headers: a hash over all of them, since a signer may choose what is in them.
        """
        newest = list(islice(reversed(self._buckets), most))
        return [(bucket, self._mark(bucket)) for bucket in reversed(newest)]

    def _mark(self, bucket: Bucket) -> bytes:
        mark = self._marks.get(bucket)
        if mark is None:
            mark = self._marks[bucket] = keccak(b"".join(sorted(self._buckets[bucket])))[:MARK_BYTES]
        return mark

    def differing(self, theirs: Mapping[Bucket, bytes], buckets: int, most: int) -> list[bytes]:
        """Signed headers, `most` at most, of those `buckets` that changed last and that another marks otherwise."""
        out: list[bytes] = []
        for bucket, mark in reversed(self.marks(buckets)):
            if theirs.get(bucket) == mark:
                continue
            for stored in self._buckets[bucket]:
                out.append(self._kept[stored][1].pack())
                if len(out) >= most:
                    return out
        return out


class _File:
    """Headers on disk, the newest `most`."""

    def __init__(self, path: Path, most: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._most = most
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS headers (n INTEGER PRIMARY KEY, member TEXT NOT NULL, epoch INTEGER NOT NULL,"
            " roll_backs INTEGER NOT NULL, tick INTEGER NOT NULL, raw BLOB NOT NULL)"
        )
        self._db.execute("CREATE INDEX IF NOT EXISTS slots ON headers (tick, epoch, roll_backs, member)")
        self._added = 0
        self._trim()

    def newest(self, most: int) -> list[tuple[str, bytes]]:
        rows = self._db.execute("SELECT member, raw FROM headers ORDER BY n DESC LIMIT ?", (most,)).fetchall()
        return [(str(member), bytes(raw)) for member, raw in reversed(rows) if len(raw) == SIGNED_BYTES]

    def of(self, group: Group, tick: int) -> list[bytes]:
        query = (
            "SELECT raw FROM headers WHERE tick = ? AND epoch = ? AND roll_backs = ? AND member = ? LIMIT ?"
        )
        member, epoch, roll_backs = group
        return [bytes(raw) for (raw,) in self._db.execute(query, (tick, epoch, roll_backs, member, PER_TICK))]

    def add(self, member: str, signed: SignedHeader) -> None:
        header = signed.header
        self._db.execute(
            "INSERT INTO headers (member, epoch, roll_backs, tick, raw) VALUES (?, ?, ?, ?, ?)",
            (member, header.epoch, header.roll_backs, header.tick, signed.pack()),
        )
        self._added += 1
        if self._added >= FILE_SLACK:
            self._trim()

    def _trim(self) -> None:
        self._db.execute("DELETE FROM headers WHERE n <= (SELECT max(n) FROM headers) - ?", (self._most,))
        self._db.commit()
        self._added = 0

    def commit(self) -> None:
        self._db.commit()

    def close(self) -> None:
        self._db.commit()
        self._db.close()
