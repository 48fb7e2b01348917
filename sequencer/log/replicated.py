"""Opens a node's journal beside the stream: compares them, takes what the journal lacks, and heals what is damaged.

The stream is the log; each node's SQLite file is a copy of it. Bodies that the journal has and the stream has not were
acknowledged once: then the stream has lost some, and only an operator can say what is to be done.
"""

import logging
import time
from pathlib import Path
from typing import Final

from sequencer.checksums import StoreDamaged
from sequencer.log.interface import LogError
from sequencer.log.jetstream import Stream
from sequencer.log.sqlite import SqliteLog

logger = logging.getLogger(__name__)

STEP: Final = 64  # bodies that are taken in one transaction


class StreamShorter(LogError):
    """The stream lacks bodies that this node's journal has: `places` of the journal, `last` of the stream."""

    def __init__(self, name: str, places: int, last: int) -> None:
        super().__init__(
            f"stream {name} ends at place {last}, this node's journal at {places}: the stream has lost bodies that "
            "were acknowledged. Compare all nodes' journals; the one that reaches furthest restores the stream"
        )
        self.places, self.last = places, last


class NotTheSame(LogError):
    """Journal and stream differ at `place`, which both have."""

    def __init__(self, name: str, place: int) -> None:
        super().__init__(
            f"place {place} of this node's journal is not what stream {name} has there: one of them belongs to another "
            "exchange, or was rewritten. Move the journal aside to have it made again from the stream"
        )
        self.place = place


def open_journal(path: Path, stream: Stream) -> SqliteLog:
    """The journal, as far as the stream goes. `stream` is open.

    A damaged journal is moved aside and made again from the stream. Raises StreamShorter, NotTheSame, StreamDamaged;
    LogError when the servers cannot be reached.
    """
    try:
        journal = SqliteLog(path, stream)
        _check_whole(journal)
    except (StoreDamaged, LogError) as error:
        aside = _move_aside(path)
        logger.error(
            "%s: it is made again from stream %s; the damaged one is %s", error, stream.name, aside.name
        )
        journal = SqliteLog(path, stream)
    try:
        compare(journal, stream)
        catch_up(journal, stream)
    except BaseException:
        journal.close()
        raise
    return journal


def _check_whole(journal: SqliteLog) -> None:
    """Raises LogError when a body is not what was written: its chain's hash says."""
    for _ in journal.bodies(0):
        pass


def _move_aside(path: Path) -> Path:
    """Renames the journal's files; what they hold may still be wanted as evidence."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for ending in ("", "-wal", "-shm"):
        file = path.with_name(path.name + ending)
        if file.exists():
            file.rename(aside.with_name(aside.name + ending))
    return aside


def compare(journal: SqliteLog, stream: Stream) -> None:
    """Raises StreamShorter or NotTheSame unless the stream goes on from the journal.

    The first and the last place that both have are compared. Between them the journal's chain of hashes vouches for
    one side; a body names the root before and after it, so two histories do not end in the same body.
    """
    places, last = journal.places, stream.last()
    common = min(places, last)
    for place in sorted({0, common - 1} - {-1}) if common else ():
        if _body(journal, place) != stream.read(place, 1)[0]:
            raise NotTheSame(stream.name, first_difference(journal, stream, common))
    if places > last:
        raise StreamShorter(stream.name, places, last)


def first_difference(journal: SqliteLog, stream: Stream, count: int) -> int:
    """The first place before `count` at which journal and stream differ; `count` when there is none."""
    for place in range(0, count, STEP):
        wanted = min(STEP, count - place)
        theirs = stream.read(place, wanted)
        ours = [body for (body, _), _ in zip(journal.bodies(place), range(wanted), strict=False)]
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other:
                return place + index
    return count


def catch_up(journal: SqliteLog, stream: Stream) -> int:
    """Takes what the stream has and the journal lacks; how many places that were."""
    first = journal.places
    while bodies := stream.read(journal.places, STEP):
        journal.take(bodies, journal.places)
    return journal.places - first


def restore(journal: SqliteLog, stream: Stream) -> int:
    """Appends to the stream what the journal has beyond its end; how many places that were.

    For a stream that has lost bodies, or a new one in its place, with one journal, the one that reaches furthest.
    Raises NotTheSame when the stream is no beginning of the journal, and as `append` does.
    """
    last = stream.last()
    if last > journal.places:
        raise LogError(
            f"stream {stream.name} has {last} places, the journal {journal.places}: nothing to restore"
        )
    different = first_difference(journal, stream, last)
    if different < last:
        raise NotTheSame(stream.name, different)
    bodies: list[bytes] = []
    place = last
    for body, _ in journal.bodies(last):
        bodies.append(body)
        if len(bodies) == STEP:
            stream.append(place, bodies)
            place, bodies = place + len(bodies), []
    if bodies:
        stream.append(place, bodies)
        place += len(bodies)
    return place - last


def _body(journal: SqliteLog, place: int) -> bytes:
    return next(iter(journal.bodies(place)))[0]
