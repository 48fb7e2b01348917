"""Bytes a record in a sequencer's folder, by part, and the time to recover from it: from nothing and from a snapshot.

    python benchmarks/recovery.py --records 200000
    python benchmarks/recovery.py --records 1000000 --json recovery.json
    python benchmarks/recovery.py --demo 2000            # the demo's trades, its first 2,000; 0: all
    python benchmarks/recovery.py --demo 0 --tape FOLDER # likewise, recorded ones

Without --demo, signed orders (two of four rest, two cross) go through the engine to the log, and from there to batches,
proofs, transactions and the history, as in a sequencer; L1 and the gateway are left out. The snapshot is as old as one
can be: `snapshot_ticks` before the end. The watcher replays the posted payloads with all its checks, on one core;
`us_ecrecover` is what it cannot do without. A start is that of the service on a folder whose history is there: from the
snapshot, with and without the acknowledgements that it makes again. Times are CPU seconds, since all of it is
computing, and wall time.
"""

import argparse
import asyncio
import gc
import json
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from sequencer.development import FEEDS, devnet_params, feed_key
from sequencer.engine.engine import Engine, Submission, replay
from sequencer.engine.signed import is_signed
from sequencer.engine.snapshots import Told, recover, save
from sequencer.genesis import genesis_root, genesis_state
from sequencer.history.history import History
from sequencer.history.store import FILE as HISTORY_FILE
from sequencer.keeper.keeper import Keeper
from sequencer.l1.batch import Batch
from sequencer.l1.follower import PostedBatch
from sequencer.l1.signing import Content, Fees
from sequencer.l1.txstore import Attempt, TxStore
from sequencer.l1.txstore import State as TxState
from sequencer.local.bench import (
    ACCOUNTS_SIGNING,
    CASH,
    ecrecover_per_s,
    fsync_per_s,
    options,
    owner_of,
    signed_orders,
)
from sequencer.local.demo import Demo, DemoConfig
from sequencer.log import packs
from sequencer.log.sqlite import LOG_FILE, SqliteLog
from sequencer.market.flat import FlatSource
from sequencer.node.settings import ServiceConfig
from sequencer.proof.replay import replay as replay_posted
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import keccak
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.queue.outcomes import TICKS_READ, Outcomes
from sequencer.queue.receipts import Issuer
from sequencer.queue.repeats import TOLD, Repeats
from sequencer.rollup.batcher import BATCHES_FILE, Batcher, read_stored

NOW_S = 1_790_000_000
RECEIPT_KEY = b"\x31" * 32
PER_SECOND = 5_000
DEPOSITS_A_TICK = 100
PARTS = {
    "log": (LOG_FILE, packs.ARCHIVE),
    "batches": (BATCHES_FILE,),
    "txs": ("l1.sqlite",),
    "withdrawals": ("withdrawals.sqlite",),
    "history": (HISTORY_FILE,),
}


class Exchange:
    """Fills a folder with about `records` records, `orders` of them a tick, of `accounts` accounts."""

    def __init__(self, folder: Path, params: Params, orders: int) -> None:
        self.log = SqliteLog(folder / LOG_FILE)
        # The disk's speed is not what is measured: see fsync_per_s.
        self.log._db.execute("PRAGMA synchronous=OFF")  # noqa: SLF001  # of a log that the measurement itself makes, and throws away
        self.batcher = Batcher(folder / BATCHES_FILE, self.log, genesis_root(params))
        self.engine = Engine(genesis_state(bytes(32), params))
        self.txs = TxStore(folder / "l1.sqlite")
        self.orders = orders
        self.issuer = Issuer(bytes(32), RECEIPT_KEY)

    def run(self, at_s: int, system: list[bytes], submissions: list[Submission]) -> None:
        tick = self.engine.run(at_s, system, submissions)
        assert all(one.reason is Reason.OK for one in tick.results), Counter(
            one.reason for one in tick.results
        )
        self.issuer.seal(tick)
        if tick.entry is not None:
            end = self.log.end
            self.log.append(msgspec.structs.replace(tick.entry, verified=end), end)
            self.log.tidy()
            while (built := self.batcher.build(False)) is not None:
                self.post(built)

    def post(self, built: Batch) -> None:
        """As the poster keeps it, mined at once."""
        with self.txs.transaction():
            intent = self.txs.add(
                f"batch-{built.batch_id}-0", Content(bytes(20), built.payload, 0, 1_000_000)
            )
            name = "0x" + keccak(b"%d" % built.batch_id).hex()
            self.txs.add_attempt(Attempt(name, intent.seq, built.batch_id, Fees(10**9, 10**8), 0.0))
            self.txs.update(
                intent.seq,
                nonce=built.batch_id,
                state=TxState.CONFIRMED,
                tx_hash=name,
                block_number=built.batch_id,
                block_hash=name,
                gas_used=1_000_000,
                gas_price="1000000000",
            )
            self.txs.drop_old_data()

    def fill(self, records: int, accounts: int) -> None:
        wanted = options(NOW_S)
        keeper = Keeper(
            self.engine.state, [FlatSource(wanted)], [feed_key(n) for n in range(FEEDS)], wanted=wanted
        )
        for first in range(1, accounts + 1, DEPOSITS_A_TICK):
            numbers = range(first, min(first + DEPOSITS_A_TICK, accounts + 1))
            self.run(NOW_S, [deposit(number) for number in numbers], [])
        for at in (NOW_S, NOW_S + 1):
            self.run(at, keeper.pass_one(at), [])
        listed = sorted(self.engine.state.instruments.values())
        signing = list(range(1, ACCOUNTS_SIGNING + 1))
        owners = [owner_of(number) for number in range(ACCOUNTS_SIGNING)]
        done = 0
        while (at_seq := self.engine.state.globals.seq) < records:
            # In pieces: a million signed orders at once would be memory that is measured below.
            count = min(64_000, -(-(records - at_seq) // 64) * 64)
            raws = signed_orders(count, signing, listed, self.engine.state.domain, done)
            for start in range(0, count, self.orders):
                submissions = [
                    Submission(
                        raw, owners[place % len(owners)], None, 0, 2 if raw[9] & c.FLAG_POST_ONLY else 3
                    )
                    for place, raw in enumerate(raws[start : start + self.orders], start)
                ]
                self.run(NOW_S + 1 + (done + start) // PER_SECOND, [], submissions)
            done += count
        if (built := self.batcher.build(True)) is not None:
            self.post(built)

    def close(self) -> None:
        self.txs.close()
        self.batcher.close()
        self.log.close()


def deposit(number: int) -> bytes:
    owner = owner_of(number - 1) if number <= ACCOUNTS_SIGNING else keccak(b"%d" % number)[12:]
    return codec.encode(Kind.DEPOSIT, owner=owner, account=number, amount=CASH)


def sizes(folder: Path, records: int) -> dict[str, float]:
    """Bytes a record of each part."""
    out = {}
    for part, names in PARTS.items():
        paths = [
            path
            for name in names
            for path in (folder / name, *(folder / name).glob("*"), folder / f"{name}-wal")
        ]
        out[part] = round(sum(path.stat().st_size for path in paths if path.is_file()) / records, 1)
    out["without the history"] = round(sum(out.values()) - out["history"], 1)
    return out


def timed(what: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Its result, CPU and wall seconds."""
    gc.collect()
    gc.freeze()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    result = what()
    took = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s}
    gc.unfreeze()
    return result, {name: round(value, 2) for name, value in took.items()}


def measure(folder: Path, params: Params, domain: bytes, snapshot_ticks: int) -> dict[str, Any]:
    """Bytes and times of a stopped sequencer's folder."""

    def genesis() -> State:
        return genesis_state(domain, params)

    log = SqliteLog(folder / LOG_FILE)
    result: dict[str, Any] = {}
    kinds = Counter(Kind(raw[0]).name for entry in log.read(0) for raw in entry.raws())
    records = kinds.total()
    signed = sum(count for name, count in kinds.items() if is_signed(bytes([Kind[name]])))
    result |= {"records": records, "ticks": log.end, "signed": signed, "kinds": dict(kinds.most_common())}
    result["segments"] = sum(len(entry.segments) for entry in log.read(0))

    _, took = timed(lambda: sum(1 for _ in log.read(0)))
    result["read and verify the log"] = took
    (state, _), took = timed(lambda: recover(folder / "none", log, genesis(), None, log.end))
    result["recover from nothing"] = took
    root = state.root()

    def recheck() -> None:
        found, _ = recover(folder / "none", log, genesis(), None, 0)
        assert found.root() == root

    _, result["the same, no signature checked before"] = timed(recheck)
    at = max(1, log.end - snapshot_ticks)
    before = genesis()
    for entry in islice(log.read(0), at):
        replay(before, entry, is_verified=True)
    shutil.rmtree(folder / "snapshots", ignore_errors=True)
    path, result["write a snapshot"] = timed(partial(save, folder / "snapshots", before, at))
    del before
    result["snapshot"] = {
        "bytes": path.stat().st_size,
        "ticks behind it": log.end - at,
        "records behind it": sum(entry.records for entry in log.read(at)),
    }
    (found, replayed), took = timed(lambda: recover(folder / "snapshots", log, genesis(), None, log.end))
    assert (found.root(), replayed) == (root, log.end - at)
    result["recover from a snapshot"] = took
    del found, state
    (folder / HISTORY_FILE).unlink(missing_ok=True)
    with closing(History(folder / HISTORY_FILE, params.treasury_account, 0)) as history:
        history.align(log)
        (found, _), took = timed(lambda: recover(folder / "snapshots", log, genesis(), history, log.end))
        assert found.root() == root
        result["recover from nothing, history made again"] = took
        del found
    result |= starts(folder, log, genesis, params)

    posted = [as_posted(one) for one in stored(folder, log)]
    rebuilt, took = timed(lambda: replay_posted(posted, domain, params))
    assert rebuilt.records == records
    assert rebuilt.final_root == root
    result["watcher"] = took
    log.close()
    result["bytes a record"] = sizes(folder, records)
    for name in [name for name, one in result.items() if isinstance(one, dict) and "cpu_s" in one]:
        result[name]["records_per_cpu_s"] = round(records / max(result[name]["cpu_s"], 0.01))
    behind = result["snapshot"]["records behind it"]
    result["recover from a snapshot"]["records_per_cpu_s"] = round(
        behind / max(result["recover from a snapshot"]["cpu_s"], 0.01)
    )
    result["rss_mib_max"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


def starts(folder: Path, log: SqliteLog, genesis: Callable[[], State], params: Params) -> dict[str, Any]:
    """What acknowledgements cost that are made again at a start, or come from the snapshot; its history is there."""
    issuer = Issuer(bytes(32), RECEIPT_KEY)
    outcomes = Outcomes()
    result: dict[str, Any] = {}

    def start(at: Path, with_answers: bool) -> State:
        with closing(History(folder / HISTORY_FILE, params.treasury_account, 0)) as history:
            history.align(log)
            repeats = Repeats(log, history, issuer) if with_answers else None
            state, _ = recover(at, log, genesis(), history, log.end, repeats)
            made = {} if repeats is None else repeats.made
            outcomes.load(log.read(max(0, log.end - TICKS_READ)), made)
            return state

    _, result["start"] = timed(partial(start, folder / "snapshots", False))
    state, result["start, acknowledgements made again"] = timed(partial(start, folder / "snapshots", True))
    told, took = timed(lambda: Told(log.head_hash, issuer.address, outcomes.newest(TOLD)))
    result["sign them, for a snapshot"] = took
    plain = save(folder / "plain", state, log.end)
    write = partial(save, folder / "full", state, log.end, told=lambda: told)
    full, result["write a snapshot with them"] = timed(write)
    del state, write
    result["acknowledgements"] = {
        "in the snapshot": len(told.answers),
        "its bytes without": plain.stat().st_size,
        "its bytes with": full.stat().st_size,
    }
    _, result["start from a snapshot at the end"] = timed(partial(start, folder / "plain", True))
    _, result["start from a snapshot at the end, with them"] = timed(partial(start, folder / "full", True))
    return result


def stored(folder: Path, log: SqliteLog) -> list[Batch]:
    out: list[Batch] = []
    while some := list(read_stored(folder / BATCHES_FILE, log, len(out) + 1)):
        out += some
    return out


def as_posted(one: Batch) -> PostedBatch:
    known = {field.name: getattr(one, field.name) for field in fields(one)}
    rest = {"data_root": b"", "header_hash": b"", "elements": len(one.payload) // c.ELEMENT_BYTES}
    return PostedBatch(**known, **rest, block_number=1, block_hash="", tx_hash="")


def demo_folder(folder: Path, trades: int, tape: Path | None) -> tuple[Path, Params, bytes]:
    """Runs the demo; the sequencer's folder, parameters and domain."""
    run = Demo(DemoConfig(tape=tape, folder=folder, trades_max=trades or None))
    asyncio.run(run.run())
    return folder / "sequencer", run.devnet.config.params, run.devnet.service.domain


def show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table("part", "bytes a record")
    for part, value in result["bytes a record"].items():
        table.add_row(part, f"{value:,.1f}")
    console.print(table)
    table = Table("", "CPU s", "wall s", "records a CPU second")
    for name, one in result.items():
        if isinstance(one, dict) and "cpu_s" in one:
            table.add_row(
                name, f"{one['cpu_s']:,.2f}", f"{one['wall_s']:,.2f}", f"{one['records_per_cpu_s']:,}"
            )
    console.print(table)
    rest = {name: one for name, one in result.items() if not isinstance(one, dict)}
    console.print(", ".join(f"{name} {one:,}" for name, one in rest.items()))
    console.print(f"snapshot: {result['snapshot']}")
    console.print(f"acknowledgements: {result['acknowledgements']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--orders", type=int, default=25, help="a tick; 25: those of 5 ms at 5,000 a second")
    parser.add_argument(
        "--demo", type=int, metavar="TRADES", help="the demo's trades instead; 0: all of them"
    )
    parser.add_argument("--tape", type=Path, help="recorded trades for --demo; without it the generator's")
    parser.add_argument("--folder", type=Path, help="where to make the sequencer's folder, and to leave it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.tape is not None and given.demo is None:
        parser.error("--tape is for --demo")
    with tempfile.TemporaryDirectory(prefix="fairstrike-recovery-") as name:
        folder = given.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        rates = {"ecrecover_per_s": ecrecover_per_s(), "fsync_per_s": fsync_per_s(folder)}
        (folder / "fsync-probe").unlink()
        if given.demo is not None:
            at, params, domain = demo_folder(folder, given.demo, given.tape)
        else:
            at, params, domain = folder, devnet_params(target_per_s=1_000_000), bytes(32)
            exchange = Exchange(at, params, given.orders)
            exchange.fill(given.records, given.accounts)
            exchange.close()
        result = measure(at, params, domain, ServiceConfig(at, params).snapshot_ticks)
    rates["ecrecover_per_s"] = (
        rates["ecrecover_per_s"] + ecrecover_per_s()
    ) / 2  # the machine's speed drifts
    result |= {name: round(value, 1) for name, value in rates.items()}
    per_s = rates["ecrecover_per_s"]
    result["watcher_to_ecrecover"] = round(result["watcher"]["records_per_cpu_s"] / per_s, 3)
    result["recovery_to_ecrecover"] = round(result["recover from nothing"]["records_per_cpu_s"] / per_s, 3)
    show(result)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
