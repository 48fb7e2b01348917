"""What a pass of the keeper takes beside a scan of everything, and how soon it finds who is below the margin.

    python benchmarks/keeper.py [ACCOUNTS [SMALL]]

Books of ACCOUNTS accounts (100,000) on one page and as many resting orders, under an index that is quiet (60 % a
year), that falls by 5 % at once, and behind as many dead orders of an expired instrument; then the same with SMALL
(1,000). A scan values every account and looks at every order, which is the limit that a pass is compared with.
"""

import gc
import sys
import time
from dataclasses import dataclass, field
from random import Random
from statistics import median

from rich.console import Console
from rich.table import Table

from sequencer.engine.engine import Engine
from sequencer.genesis import genesis_state
from sequencer.keeper.keeper import Keeper
from sequencer.keeper.looks import shortfall
from sequencer.local.bench import INDEX_TICKS, options
from sequencer.local.devnet import FEEDS, devnet_params, feed_key
from sequencer.market.feeds import IndexReport, Report, SurfaceReport
from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import NEVER, Account
from sequencer.protocol.state import State, expiry_time

TODAY = 20_000
START_S = expiry_time(TODAY + 1) - 7_200
QUIET_PASSES = 300
PASSES_MAX = 2_000
QUIET_STEP = 0.6 / (365 * c.DAY_S) ** 0.5  # of a second, 60 % a year
LOTS = (100, 1_000, 10_000, 100_000)


class Walk:
    """A feed whose index goes where it is told, with flat surfaces."""

    def __init__(self, days: list[int]) -> None:
        self.index = float(INDEX_TICKS)
        self._days = days

    def poll(self, now_s: int) -> list[Report]:
        """The index, and the surfaces as of now."""
        index = int(self.index)
        out: list[Report] = [IndexReport(0, now_s, index)]
        for day in self._days:
            if now_s < expiry_time(day):
                years = (expiry_time(day) - now_s) / (365 * c.DAY_S)
                variance = max(1, int(0.65**2 * years * 1e12))
                out.append(SurfaceReport(0, day, now_s, index, index, variance, 0, 0, 0, 10**11))
        return out


@dataclass(slots=True)
class Times:
    """Milliseconds of a pass; seconds until the last LIQUIDATE that was due; the largest account's."""

    passes: list[float] = field(default_factory=list)
    found: int = 0
    last_s: int = 0
    largest_s: int = 0


class World:
    """A keeper and an engine over accounts on one page, orders that rest, and dead ones to come."""

    def __init__(self, accounts: int) -> None:
        self.random = Random(7)
        near = TODAY + 1
        wanted = [*options(START_S), (0, near, INDEX_TICKS, False)]
        self.source = Walk(sorted({day for _, day, _, _ in wanted}))
        self.engine = Engine(genesis_state(bytes(32), devnet_params(target_per_s=1_000_000)))
        self.keeper = Keeper(
            self.state, [self.source], [feed_key(number) for number in range(FEEDS)], wanted=wanted
        )
        self.now = START_S
        for _ in range(3):
            self.step()
        instruments = self.state.instruments.items()
        self.near = next(one for terms, one in instruments if terms >> 32 & 0xFFFF == near)
        held = [one for _, one in instruments if one != self.near]
        for number in range(1, accounts + 1):
            self._open(number, held)
        self.keeper.adopt(self.state)
        while self.keeper.index.looks.look(self.now, 7):
            pass
        gc.collect()
        gc.freeze()  # as the service does at its start
        gc.set_threshold(20_000, 20, 100)

    @property
    def state(self) -> State:
        return self.engine.state

    def _open(self, number: int, held: list[int]) -> None:
        """A book of one to four options, with equity above MM by a lognormal part of it, and a resting bid."""
        draw, state = self.random, self.state
        account = Account(number.to_bytes(20, "big"))
        for instrument in draw.sample(held, draw.choice((1, 2, 2, 4))):
            account.positions[instrument] = draw.choice((-1, 1)) * draw.choice(LOTS)
        account.reserved = 1
        margin.refresh(state, account)
        need = margin.maintenance(state, account) + account.reserved
        account.cash = need + int(need * draw.lognormvariate(0, 1)) - margin.equity(account)
        state.put_account(number, account)
        self.rest(
            number, draw.choice(held), c.BUY, 1, draw.choice((0, self.now + draw.randrange(600, 7_000)))
        )

    def rest(self, number: int, instrument: int, side: int, price: int, expires: int = 0) -> None:
        """An order as PLACE leaves it."""
        state = self.state
        state.accounts[number].orders += 1
        state.insert_order(Order(number, instrument, side, price, state.globals.seq, 1, expires, 1 - side))
        state.globals.seq += 1

    def step(self) -> tuple[float, list[bytes]]:
        """A second: both passes, and their tick. Milliseconds of the passes, records of the second."""
        self.now += 1
        began = time.perf_counter()
        first, second = self.keeper.pass_one(self.now), self.keeper.pass_two(self.now)
        took_ms = (time.perf_counter() - began) * 1e3
        self.engine.run(self.now, first + second, [])
        return took_ms, second

    def scan_ms(self) -> float:
        """Every account valued at new marks, and every order looked at."""
        state = self.state
        for account in state.accounts.values():
            account.epoch = NEVER
        began = time.perf_counter()
        for account in state.accounts.values():
            shortfall(state, account)
        orders = (one for book in state.books.values() for side in (0, 1) for one in book.orders(side))
        assert sum(0 < order.expires <= self.now for order in orders) == 0
        return (time.perf_counter() - began) * 1e3

    def quiet(self) -> Times:
        """An index of 60 % a year."""
        times = Times()
        for _ in range(QUIET_PASSES):
            self.source.index *= 1 + self.random.gauss(0, QUIET_STEP)
            took_ms, _ = self.step()
            times.passes.append(took_ms)
        return times

    def jump(self) -> Times:
        """5 % down at once: passes until everybody below MM + reserved has had his LIQUIDATE."""
        times, told = Times(), set[int]()
        self.source.index *= 0.95
        self.step()  # the marks
        state = self.state
        short = {number: shortfall(state, one) for number, one in state.accounts.items()}
        wanted = {number for number, missing in short.items() if missing > 0}
        largest = max(wanted, key=short.__getitem__)
        while not wanted <= told and len(times.passes) < PASSES_MAX:
            took_ms, records = self.step()
            times.passes.append(took_ms)
            told.update(int.from_bytes(raw[1:5], "big") for raw in records if raw[0] == Kind.LIQUIDATE)
            if largest in told and not times.largest_s:
                times.largest_s = len(times.passes)
        assert wanted <= told
        times.found, times.last_s = len(wanted), len(times.passes)
        return times

    def behind_dead_orders(self, orders: int) -> Times:
        """An instrument expires with `orders` orders on its book; in that second one account falls below MM."""
        times = Times()
        for number in range(orders):
            self.rest(1, self.near, c.SELL, INDEX_TICKS + number)
        victim, account = min(self.state.accounts.items(), key=lambda one: sum(one[1].positions.values()))
        self.now = expiry_time(TODAY + 1) - 1
        self.step()
        margin.refresh(self.state, account)
        account.cash += margin.maintenance(self.state, account) // 2 - margin.equity(account)
        self.state.put_account(victim, account)
        while (not times.last_s or len(times.passes) < 20) and len(times.passes) < PASSES_MAX:
            took_ms, records = self.step()
            times.passes.append(took_ms)
            if not times.last_s and codec.encode(Kind.LIQUIDATE, account=victim) in records:
                times.found, times.last_s = 1, len(times.passes)
        times.largest_s = times.last_s
        return times


def main() -> None:
    """Measures and prints one table."""
    sizes = [int(one) for one in sys.argv[1:]] or [100_000, 1_000]
    table = Table(title="the keeper, ms a pass")
    for column in (
        "accounts, orders",
        "market",
        "p50",
        "worst",
        "scan",
        "p50 / scan",
        "below MM",
        "largest after s",
        "last after s",
    ):
        table.add_column(column, justify="left" if column == "market" else "right")
    medians: dict[str, list[float]] = {}
    for size in sizes:
        world = World(size)
        scan_ms = world.scan_ms()
        for name, times in (
            ("quiet", world.quiet()),
            ("5 % down", world.jump()),
            ("dead orders", world.behind_dead_orders(size)),
        ):
            p50 = median(times.passes)
            medians.setdefault(name, []).append(p50)
            table.add_row(
                f"{size:,}", name, f"{p50:.2f}", f"{max(times.passes):.1f}", f"{scan_ms:.0f}",
                f"{p50 / scan_ms:.4f}", str(times.found), str(times.largest_s), str(times.last_s),
            )  # fmt: skip
        gc.unfreeze()
    Console(width=140).print(table)
    for name, values in medians.items():
        if len(values) > 1:
            print(f"{name}: p50 at {sizes[0]:,} is {values[0] / values[-1]:.1f} times that at {sizes[-1]:,}")


if __name__ == "__main__":
    main()
