"""For how long a snapshot holds the sequencer up: written by its own process, and by a copy of it.

    python benchmarks/snapshot.py 1000000

The exchange goes on meanwhile, a tick with a deposit each 2 ms: the longest pause is that between two of them.
"""

import argparse
import asyncio
import gc
import resource
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from sequencer.development import devnet_params
from sequencer.engine.engine import Engine
from sequencer.engine.snapshots import Aside, save
from sequencer.genesis import genesis_state
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind

TICK_S = 0.002
QUIET_S = 2.0
PER_TICK = 2_000
CASH = 10**6


def deposit(account: int) -> bytes:
    return codec.encode(Kind.DEPOSIT, owner=account.to_bytes(20, "big"), account=account, amount=CASH)


class Exchange:
    """An engine with `accounts` accounts, and the pauses between its ticks, in seconds."""

    def __init__(self, accounts: int) -> None:
        self.engine = Engine(genesis_state(bytes(32), devnet_params()))
        for first in range(1, accounts + 1, PER_TICK):
            self.engine.run(1, [deposit(n) for n in range(first, min(first + PER_TICK, accounts + 1))], [])
        self.accounts = accounts
        self.pauses: list[float] = []

    async def run(self) -> None:
        last, number = time.perf_counter(), 0
        while True:
            await asyncio.sleep(TICK_S)
            number = number % self.accounts + 1
            self.engine.run(1, [deposit(number)], [])
            now = time.perf_counter()
            self.pauses.append(now - last)
            last = now


async def measure(accounts: int, table: Table) -> None:
    exchange = Exchange(accounts)
    gc.collect()
    gc.freeze()
    running = asyncio.create_task(exchange.run())

    def row(how: str, took_s: float) -> None:
        longest_ms = max(exchange.pauses) * 1e3
        table.add_row(f"{accounts:,}", how, f"{longest_ms:,.1f}", f"{took_s:.2f}" if took_s else "")
        exchange.pauses.clear()

    with tempfile.TemporaryDirectory() as name:
        await asyncio.sleep(QUIET_S)
        row("none", 0.0)
        begun = time.perf_counter()
        save(Path(name), exchange.engine.state, 1)
        took_s = time.perf_counter() - begun
        await asyncio.sleep(QUIET_S)
        row("by the sequencer", took_s)
        aside = Aside(Path(name))
        begun = time.perf_counter()
        aside.begin(exchange.engine.state, 2)
        await aside.end(600.0)
        took_s = time.perf_counter() - begun
        await asyncio.sleep(QUIET_S)
        row("by a copy", took_s)
        assert aside.written == 1
    running.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("accounts", type=int, nargs="*", default=[20_000, 100_000])
    table = Table("accounts", "snapshot", "longest pause, ms", "until it is there, s")
    for accounts in parser.parse_args().accounts:
        uvloop.run(measure(accounts, table))
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{peak} MiB at the most")


if __name__ == "__main__":
    main()
