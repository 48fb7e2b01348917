"""What the history costs those who trade: time on the loop that ticks, and bytes on the disk.

    python benchmarks/history.py [--ticks 400] [--orders 16]

The same load goes through engine and log three times: without a history, with rows that are made and dropped, and
with rows that are written on the history's thread. Between ticks the loop rests until the next is due, as it does when
orders come from a network; what the writer's thread takes from it shows in the ticks' tail. CPU times are those of the
threads, whatever else the machine does.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles

import uvloop
from rich.console import Console
from rich.table import Table

from sequencer.development import FEEDS, devnet_params, feed_key
from sequencer.engine.engine import Engine, Submission
from sequencer.engine.events import Events
from sequencer.engine.views import Views
from sequencer.history.history import History
from sequencer.history.store import FILE
from sequencer.keeper.keeper import Keeper
from sequencer.local.bench import ACCOUNTS_SIGNING, CASH, funded_state, options, owner_of, signed_orders
from sequencer.log.sqlite import SqliteLog
from sequencer.market.flat import FlatSource
from sequencer.protocol import constants as c

TICK_S = 0.02
MODES = ("no history", "rows dropped", "rows written")


class Run:
    """One of MODES in a folder of its own."""

    def __init__(self, folder: Path, mode: str, ticks: int, orders: int) -> None:
        params = devnet_params(target_per_s=1_000_000)
        state = funded_state(params, 1_000, ACCOUNTS_SIGNING)
        for number in range(1, ACCOUNTS_SIGNING + 1):
            state.accounts[number].cash += CASH
            state.globals.pool += CASH
            state.put_account(number, state.accounts[number])
        self.now_s = int(time.time())
        wanted = options(self.now_s)
        keeper = Keeper(state, [FlatSource(wanted)], [feed_key(n) for n in range(FEEDS)], wanted=wanted)
        self.engine = Engine(state)
        for at in (self.now_s, self.now_s + 1):
            self.engine.run(at, keeper.pass_one(at), [])
        self.mode, self.orders = mode, orders
        self.log = SqliteLog(folder / "log.sqlite")
        self.history = History(folder / FILE, 0, 0)
        self.history.caught_up(state)
        self.views = Views(state, dict, self.history.ledger)
        self.events = Events(self.views)
        accounts, listed = list(range(1, ACCOUNTS_SIGNING + 1)), sorted(state.instruments.values())
        self.raws = signed_orders(ticks * orders, accounts, listed, state.domain)
        self.tick_ms: list[float] = []
        self.observe_s = 0.0
        self.behind = 0
        self.write_s = 0.0

    async def play(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as executor:
            due = loop.time()
            for start in range(0, len(self.raws), self.orders):
                due = max(due + TICK_S, loop.time())
                await asyncio.sleep(due - loop.time())
                submissions = [
                    Submission(raw, owner_of_(start + at), None, 0, 2 if raw[9] & c.FLAG_POST_ONLY else 3)
                    for at, raw in enumerate(self.raws[start : start + self.orders])
                ]
                began = time.perf_counter()
                tick = self.engine.run(self.now_s + 1, [], submissions)
                batch = None
                if self.mode != MODES[0]:
                    observed = time.thread_time()
                    self.events.observe(tick.system + tick.results)
                    batch = self.history.ledger.take()
                    self.observe_s += time.thread_time() - observed
                assert tick.entry is not None
                await loop.run_in_executor(executor, self.log.append, tick.entry, self.log.end)
                if batch is not None and self.mode == MODES[2]:
                    self.history.offer(batch, self.log.head_hash)
                    self.behind = max(self.behind, self.history.behind)
                self.tick_ms.append((time.perf_counter() - began) * 1e3)
        self.write_s = await self.history.run(time.thread_time)
        assert not self.history.error
        self.history.close()
        self.log.close()


_OWNERS = [owner_of(number) for number in range(ACCOUNTS_SIGNING)]


def owner_of_(place: int) -> bytes:
    return _OWNERS[place % ACCOUNTS_SIGNING]


def size_of(folder: Path) -> tuple[int, int, int]:
    """Bytes of the file, trades and orders in it."""
    db = sqlite3.connect(folder / FILE)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    trades = db.execute("SELECT COUNT(*) FROM trades").fetchone()[0]
    orders = db.execute("SELECT COUNT(*) FROM orders").fetchone()[0]
    db.close()
    return (folder / FILE).stat().st_size, trades // 2, orders


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=400)
    parser.add_argument("--orders", type=int, default=16, help="a tick, each 20 ms")
    options_ = parser.parse_args()
    of_cpu = ("loop, CPU us an order", "writer, CPU us an order")
    table = Table("", "tick p50 ms", "p99 ms", "worst ms", *of_cpu, "rows behind, most")
    with tempfile.TemporaryDirectory(prefix="fairstrike-history-") as name:
        for mode in MODES:
            folder = Path(name) / mode
            folder.mkdir()
            run = Run(folder, mode, options_.ticks, options_.orders)
            uvloop.run(run.play())
            cuts = quantiles(run.tick_ms, n=100)
            each = [f"{one / len(run.raws) * 1e6:.1f}" for one in (run.observe_s, run.write_s)]
            ticks = (f"{cuts[49]:.2f}", f"{cuts[98]:.2f}", f"{max(run.tick_ms):.1f}")
            table.add_row(mode, *ticks, *each, str(run.behind))
        size, trades, orders = size_of(folder)
    console = Console()
    console.print(table)
    console.print(
        f"{size:,} bytes of {trades:,} trades and {orders:,} orders: "
        f"{size / trades * 1e6 / 2**20:,.0f} MiB a million trades, with {orders / trades:.1f} orders each"
    )


if __name__ == "__main__":
    main()
