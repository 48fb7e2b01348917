"""What a record costs the sequencer while more and more orders rest: it should cost the same.

    python benchmarks/resting.py [SIZE ...]

SIZE orders (10^3, 10^4, 10^5, 10^6) rest in eight books, of 1,000 accounts, most of them at the ten best prices of
their side, as market makers leave them. Then ticks of 64 records run as in the sequencer's loop: the keeper's sweeps,
the engine with a root a segment, the ledger, acknowledgements, and the events of one book, one ticker, one account and
all trades, which are subscribed to. CPU of this process, the median of ticks, cyclic garbage collection as the service
sets it. The table's other column makes every event, as for subscribers of all channels.
"""

import gc
import sys
import time
from random import Random
from statistics import median

from rich.console import Console
from rich.table import Table

from sequencer.development import FEEDS, devnet_params, feed_key
from sequencer.engine.engine import Engine, Submission
from sequencer.engine.events import Events
from sequencer.engine.views import Views
from sequencer.keeper.keeper import Keeper
from sequencer.local.bench import (
    ACCOUNTS_SIGNING,
    CASH,
    funded_state,
    options,
    owner_of,
    signed_orders,
)
from sequencer.market.flat import FlatSource
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Reason
from sequencer.protocol.state import State

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ACCOUNTS = 1_000
RECORDS = 6_000
TICK_RECORDS = 64
RATIO_MAX = 1.3
MID = 200_000
NEAR = 200  # ticks between the market and the nearest resting order, as those of the load
LEVELS = 50


def rest(state: State, count: int, draw: Random) -> None:
    """Orders as PLACE leaves them, three of four on the ten best levels of their side."""
    instruments = sorted(state.instruments.values())
    for number in range(count):
        side = number & 1
        away = NEAR + (draw.randrange(10) if draw.random() < 0.75 else draw.randrange(10, LEVELS))
        price = MID + (away if side else -away)
        account = ACCOUNTS_SIGNING + 1 + number % (ACCOUNTS - ACCOUNTS_SIGNING)
        owner = state.accounts[account]
        instrument = instruments[draw.randrange(len(instruments))]
        expires = 0 if draw.random() < 0.5 else state.globals.time + 86_400 + draw.randrange(86_400)
        lots = draw.randrange(1, 1_000)
        seq = state.globals.seq
        rate = margin.reserve_rate(state, state.page_of(instrument), instrument, side, price, False)
        state.insert_order(Order(account, instrument, side, price, seq, lots, expires, rate))
        owner.orders += 1
        owner.reserved += rate * lots
        state.put_account(account, owner)
        state.globals.seq += 1


class World:
    """A sequencer's loop without its sockets, over a state in which orders rest."""

    def __init__(self, resting: int) -> None:
        self.now = int(time.time())
        wanted = options(self.now)
        params = devnet_params(target_per_s=1_000_000)
        state = funded_state(params, ACCOUNTS, ACCOUNTS_SIGNING)
        for number in range(1, ACCOUNTS + 1):
            state.accounts[number].cash += CASH
            state.globals.pool += CASH
            state.put_account(number, state.accounts[number])
        keeper = Keeper(state, [FlatSource(wanted)], [feed_key(n) for n in range(FEEDS)], wanted=wanted)
        engine = Engine(state)
        for at in (self.now, self.now + 1):
            engine.run(at, keeper.pass_one(at), [])
        rest(state, resting, Random(5))
        state.root()
        keeper.adopt(state)
        self.engine, self.keeper = engine, keeper
        self.engine.sweeps = keeper.sweeps
        self.views = Views(state, dict)
        self.events = Events(self.views)
        self.views.ledger.begin_at(state.globals.seq)
        first = min(state.instruments.values())
        self.heard = {
            f"book.{self.views.name(first)}",
            f"ticker.{self.views.name(first)}",
            "account.1",
            "trades",
        }
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)

    def run(self, hears_all: bool, first: int) -> float:
        """Microseconds of CPU a record; `first`: how many have been sent before."""
        accounts = list(range(1, ACCOUNTS_SIGNING + 1))
        instruments = sorted(self.engine.state.instruments.values())
        raws = signed_orders(RECORDS, accounts, instruments, self.engine.state.domain, first)
        load = [
            Submission(raw, owner_of(i % ACCOUNTS_SIGNING), None, 0, 2 if raw[9] & c.FLAG_POST_ONLY else 3)
            for i, raw in enumerate(raws, start=first)
        ]
        gc.collect()
        times = []
        for start in range(0, RECORDS, TICK_RECORDS):
            part = load[start : start + TICK_RECORDS]
            began = time.process_time_ns()
            tick = self.engine.run(self.now + 1, [], part)
            self.events.observe(tick.system + tick.results)
            accepted = [one for one in tick.results if one.reason is Reason.OK]
            for one in accepted:
                self.events.ack(one, tick.number)
            told = self.events.events(accepted, (lambda _: True) if hears_all else self.heard.__contains__)
            self.views.ledger.take()
            times.append((time.process_time_ns() - began) / len(part) / 1e3)
            assert told
            assert len(accepted) == len(part)
        return median(times)


def main() -> None:
    """Measures and prints one table; status 1 when the cost grows."""
    sizes = [int(one) for one in sys.argv[1:]] or list(SIZES)
    table = Table(title="CPU a record, us")
    for column in ("resting", "four channels heard", "all heard"):
        table.add_column(column, justify="right")
    few, every = [], []
    for size in sizes:
        world = World(size)
        few.append(world.run(False, 0))
        every.append(world.run(True, RECORDS))
        table.add_row(f"{size:,}", f"{few[-1]:.1f}", f"{every[-1]:.1f}")
        gc.unfreeze()
        del world
        gc.collect()
    Console().print(table)
    ratio = few[-1] / few[0]
    print(f"ratio {ratio:.2f} (at most {RATIO_MAX}); all heard {every[-1] / every[0]:.2f}")
    raise SystemExit(ratio > RATIO_MAX)


if __name__ == "__main__":
    main()
