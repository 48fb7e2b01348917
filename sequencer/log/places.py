"""Places and offsets: the log only grows, so an entry that has replaced another stands at a later place.

Offsets count the entries that stand. The map from offsets to places has runs, in which both rise by one: the first
run is (0, 0), and a roll-back adds one for what it puts in and one for what follows it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from sequencer.log.interface import Cut, Entry, LogError, Staged, Term, TurnBack

Run = tuple[int, int]  # the place and the offset that it begins with
_ORIGIN: Final[tuple[Run, ...]] = ((0, 0),)
_NO_SEGMENTS: Final = (Term, Cut, TurnBack)


def _offset(run: Run) -> int:
    return run[1]


def _place(run: Run) -> int:
    return run[0]


class Places(msgspec.Struct, frozen=True):
    """What is known of a log after `count` places, of which the last `staged` are staged entries: `end` entries stand,
    after `epoch` roll-backs.
    """

    count: int = 0
    end: int = 0
    staged: int = 0
    epoch: int = 0
    runs: tuple[Run, ...] = _ORIGIN

    def after(self, entry: Entry) -> "Places":
        """With `entry` at the next place. Raises LogError when no writer can have put it there."""
        control, count, end = entry.control, self.count + 1, self.end
        if isinstance(control, _NO_SEGMENTS) and entry.segments:
            raise LogError(f"place {self.count}: a {type(control).__name__} with segments")
        if isinstance(control, Staged):
            return msgspec.structs.replace(self, count=count, staged=self.staged + 1)
        if not isinstance(control, TurnBack):
            place, offset = self.runs[-1]
            runs = self.runs if self.count - place == end - offset else _with(self.runs, (self.count, end))
            return Places(count, end + 1, 0, self.epoch, runs)
        turn = control
        fits = turn.is_cut or turn.offset + turn.staged == end
        if not (0 <= turn.offset <= end and 0 <= turn.staged <= self.staged and fits):
            raise LogError(
                f"place {self.count}: {turn.staged} entries cannot replace those from offset {turn.offset} "
                f"of a log that ends at {end}, with {self.staged} staged"
            )
        if turn.epoch != self.epoch + 1:
            raise LogError(f"place {self.count}: roll-back {turn.epoch} after {self.epoch}")
        runs = self.runs
        if turn.staged:
            runs = _with(runs, (self.count - turn.staged, turn.offset))
        end = turn.offset + turn.staged
        return Places(count, end, 0, turn.epoch, _with(runs, (count, end)))

    def place_of(self, offset: int) -> int:
        """Of the entry at `offset`, which may have been appended since. Raises LogError when there can be none."""
        if offset < 0 or (self.staged and offset > self.end):
            raise LogError(f"offset {offset} is past the end")
        place, first = self.runs[bisect_right(self.runs, offset, key=_offset) - 1]
        return place + offset - first

    def offset_of(self, place: int) -> int:
        """Of the first entry that stands at `place` or behind it."""
        at = bisect_right(self.runs, place, key=_place) - 1
        if at < 0:
            return 0
        first, offset = self.runs[at]
        return min(offset + place - first, self.runs[at + 1][1] if at + 1 < len(self.runs) else self.end)

    def stretches(self, start: int) -> Iterator[tuple[int, int | None]]:
        """(place, number of entries) of each stretch from offset `start` on; the last is open."""
        place = self.place_of(start)
        at = bisect_right(self.runs, start, key=_offset)
        for next_place, offset in self.runs[at:]:
            if offset > start:
                yield place, offset - start
            place, start = next_place, offset
        yield place, None

    def superseded(self) -> Iterator[tuple[int, int]]:
        """(first, end) of the stretches of places at which no entry stands, roll-backs' own among them."""
        ends = [*(offset for _, offset in self.runs[1:]), self.end]
        at = 0
        for (place, offset), end in zip(self.runs, ends, strict=True):
            if at < place:
                yield at, place
            at = place + end - offset
        if at < self.count:
            yield at, self.count


def _with(runs: tuple[Run, ...], run: Run) -> tuple[Run, ...]:
    """A run goes on to the end, whatever was there."""
    return (*runs[: bisect_right(runs, run[1] - 1, key=_offset)], run)


def stored(rows: Iterable[Run]) -> tuple[Run, ...]:
    """The map of runs that were added to the first in this order."""
    runs = _ORIGIN
    for run in rows:
        runs = _with(runs, run)
    return runs


def standing(entry: Entry) -> Entry:
    """An entry as readers of offsets see it: staged no more."""
    control = entry.control
    return msgspec.structs.replace(entry, control=control.control) if isinstance(control, Staged) else entry


def staged_of(entry: Entry) -> Entry:
    """An entry as it is staged. Raises ValueError for one that is, or that has no offset."""
    control = entry.control
    if isinstance(control, Staged | TurnBack):
        raise ValueError(f"a {type(control).__name__} cannot be staged")
    return msgspec.structs.replace(entry, control=Staged(control))
