"""Flips bits in the log's files and the batch store, and truncates them, at random places of a real sequencer's folder.

    python -m tests.simulation.damage --flips 200 --seed 1 --json report.json

The folder is that of a node that was killed under load: as it lay there, with its write-ahead logs; after a roll-back,
with files that have no free pages; and with a part of the log in the archive. For each damage a copy is started as a
node starts: stores checked and opened, the state recovered. What a start does not find is then read as a whole. Each
damage must be found and named at the start or when it is read, or be repaired, or leave all that is read as it was;
none may be executed.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sequencer.checksums import StoreDamaged
from sequencer.engine.engine import ReplayError
from sequencer.engine.snapshots import recover
from sequencer.genesis import genesis_state
from sequencer.log import index, packs
from sequencer.log.interface import LogError, Redone
from sequencer.log.sqlite import LOG_FILE, SqliteLog
from sequencer.node.archiver import archive, compact, end_of
from sequencer.node.check import Scrub
from sequencer.node.startup import NodeError, check_stores
from sequencer.protocol.state import State
from sequencer.rollup.batcher import BATCHES_FILE, Batcher, read_stored

from .test_outage import trading
from .world import World

ORDERS = 400
TRUNCATED_SHARE = 0.15
STORES = (LOG_FILE, BATCHES_FILE)
FILES = (*(f"{name}{end}" for name in STORES for end in ("", "-wal")), "log.head", "batches.head")
HEAD_WEIGHT = 0.1  # of those two, which are small
NAMED = (StoreDamaged, NodeError, LogError, ReplayError)  # what a start or a reader says for itself


@dataclass(slots=True)
class Report:
    """Counts of damages by what became of them. `unnamed`: found, by an error that does not say where or what to do."""

    seed: int
    flips: int = 0
    truncations: int = 0
    by_file: dict[str, int] = field(default_factory=dict)
    found_at_start: int = 0
    found_at_read: int = 0
    healed: int = 0
    harmless: int = 0
    executed: int = 0
    unnamed: int = 0
    records: int = 0
    seconds: float = 0.0
    messages: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Content:
    """What is read of a folder: `records` of its log, and all of it."""

    records: int
    read: tuple[object, ...]


class Told(logging.Handler):
    """Whether somebody has said that a store was damaged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Drill:
    """Folders and what is to be read of them; `genesis` makes the state before the log."""

    def __init__(self, bases: list[Path], genesis: Callable[[], State], folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.report = Report(seed)
        self._genesis = genesis
        self._bases: list[tuple[Path, Content]] = []
        for base in bases:  # a start changes a folder: what it holds is asked of a copy
            self._bases.append((base, content(shutil.copytree(base, folder / "whole"), genesis)))
            shutil.rmtree(folder / "whole")
        self.report.records = self._bases[0][1].records

    def run(self, count: int, folder: Path) -> None:
        """`count` damages, each in a fresh copy."""
        for _ in range(count):
            base, expected = self.dice.choice(self._bases)
            files = [path for name in FILES if (path := base / name).exists() and path.stat().st_size]
            files += sorted((base / packs.ARCHIVE).glob("*"))
            shutil.copytree(base, folder)
            weights = [HEAD_WEIGHT if path.suffix == ".head" else 1.0 for path in files]
            (path,) = self.dice.choices(files, weights)
            path = path.relative_to(base)
            what = self._damage(folder / path)
            kind = "archive" if path.parent.name else path.name
            self.report.by_file[kind] = self.report.by_file.get(kind, 0) + 1
            self._judge(folder, expected, kind, f"{base.name}/{path}: {what}")
            shutil.rmtree(folder)

    def _damage(self, path: Path) -> str:
        data = bytearray(path.read_bytes())
        at = self.dice.randrange(len(data))
        if self.dice.random() < TRUNCATED_SHARE:
            self.report.truncations += 1
            path.write_bytes(data[:at])
            return f"truncated from {len(data)} to {at} bytes"
        self.report.flips += 1
        bit = self.dice.randrange(8)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        return f"bit {bit} of byte {at} flipped"

    def _judge(self, folder: Path, expected: Content, kind: str, where: str) -> None:
        report, told = self.report, Told()
        logging.getLogger().addHandler(told)
        try:
            try:
                found = content(folder, self._genesis)
            except Unread as error:
                self._note("found_at_read", str(error))
            except NAMED as error:
                self._note("found_at_start", str(error))
            else:
                if found != expected:
                    report.executed += 1
                    report.failures.append(f"{where}: read as if nothing had happened")
                else:
                    self._note("healed" if told.lines else "harmless", next(iter(told.lines), kind))
        except (sqlite3.Error, OSError, ValueError, LookupError, AssertionError) as error:
            report.unnamed += 1
            report.failures.append(f"{where}: {error!r}")
        finally:
            logging.getLogger().removeHandler(told)

    def _note(self, what: str, message: str) -> None:
        setattr(self.report, what, getattr(self.report, what) + 1)
        short = f"{what}: " + "".join("#" if one.isdigit() else one for one in message)[:90]
        self.report.messages[short] = self.report.messages.get(short, 0) + 1


class Unread(Exception):
    """Found after the start."""


def content(folder: Path, genesis: Callable[[], State]) -> Content:
    """All that is read of a folder, after a start as a node's. Raises what the start does; Unread for later finds."""
    check_stores(folder)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(contextlib.closing(SqliteLog(folder / LOG_FILE)))
        batcher = stack.enter_context(
            contextlib.closing(Batcher(folder / BATCHES_FILE, log, genesis().root()))
        )
        state, _ = recover(folder / "snapshots", log, genesis())
        try:
            bodies = list(log.bodies(0))
            entries = list(log.read_hashed(0))
            batches: list[Any] = []
            while some := list(read_stored(folder / BATCHES_FILE, log, len(batches) + 1)):
                batches += some
        except NAMED as error:
            raise Unread(str(error)) from error
        tables = [
            log._db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in index.GUARDED[:3]
        ]
        rows = batcher._db.execute("SELECT * FROM batches ORDER BY id").fetchall()
        at = log._places, log.head_hash, batcher.cursor, state.root()
    scrub = Scrub(folder)
    scrub.start()
    scrub._thread.join(120)
    if scrub.error:
        raise Unread(scrub.error)
    records = sum(entry.records for entry, _ in entries)
    return Content(records, (bodies, entries, batches, tables, rows, at))


async def traded(world: World, orders: int) -> None:
    """A node under load, killed."""
    node = world.start_node(fault=("after ticks are packed", 10**9))  # for its small packs
    client = await node.connect()
    assert client is not None, world.log_tail()
    some = await trading(world, client)
    for _ in range(orders // 8):
        await some.send(8)
    await client.until(lambda one: one["batches_posted"] > 3, 60, "some batches")
    node.kill()
    client.close()


def rolled_back(base: Path, folder: Path) -> None:
    """A copy in which a roll-back has put entries in the place of the last ones, whose files have no free pages."""
    shutil.copytree(base, folder)
    log = SqliteLog(folder / LOG_FILE)
    at = log.end - 5
    entries = list(log.read(at))
    seq = entries[0].first_seq
    log.rewrite(at, entries, 3, ["event"], [Redone(seq, seq + 1, b"record", 0)], seq)
    log.roll_back_done(1)
    log.close()
    assert compact(folder, 0).is_shortened


def archived(base: Path, folder: Path) -> None:
    """A copy whose final batches are in the archive."""
    shutil.copytree(base, folder)
    assert archive(folder, end_of(folder, 2**40) * 2 // 3).packs > 1


def simulate(count: int, seed: int, folder: Path, orders: int = ORDERS) -> Report:
    """The whole drill."""
    began = time.monotonic()
    world = World.build(folder / "world", 2)
    try:
        asyncio.run(traded(world, orders))
    finally:
        world.stop()
    killed, stopped, moved = (folder / name for name in ("killed", "rolled-back", "archived"))
    shutil.copytree(world.data, killed)
    rolled_back(killed, stopped)
    archived(stopped, moved)

    def genesis() -> State:
        return genesis_state(world.domain, world.params)

    drill = Drill([killed, stopped, moved], genesis, folder, seed)
    drill.run(count, folder / "damaged")
    drill.report.seconds = round(time.monotonic() - began, 1)
    return drill.report


def main() -> int:
    """Runs the drill; 1 when something was executed or not named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairstrike-damage-") as name:
        report = simulate(given.flips, given.seed, Path(name))
    text = json.dumps(asdict(report), indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return int(bool(report.executed or report.unnamed))


if __name__ == "__main__":
    sys.exit(main())
