"""A keeper that many small objects keep from the one that matters.

With a keeper that sweeps first and cuts its pass at 2,000 records, 60,000 dead orders of an expired instrument (placed
for 6 USD in all) hold the LIQUIDATE of an insolvent account back for 31 passes, and take 42 s of a busy core to write
down again and again. It has to come in the first pass, whatever else is due: each kind of work has its own bound.
"""

import sys
from collections import Counter
from pathlib import Path

from sequencer.keeper.keeper import Keeper, KeeperConfig
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, NEAR, Exchange

FLOOD = 3_000
BOUNDS = KeeperConfig()


class Scene:
    """A writer who is about to fall below his margin, and instruments that expire first."""

    def __init__(self) -> None:
        self.exchange = exchange = Exchange(audits=False, **CALM)
        self.near, self.far = exchange.open((NEAR, INDEX, 0), (FAR, INDEX, 0))
        for role, usd in (("treasury", 1), ("flooder", 1_000), ("buyer", 1_000_000), ("writer", 100_000)):
            exchange.deposit(role, usd)
        exchange.trade("buyer", "writer", self.far, exchange.mark(self.far), 100_000)
        exchange.tick(1)
        writer = exchange.account("writer")
        margin.refresh(exchange.state, writer)
        exchange.transfer("writer", "buyer", margin.free(exchange.state, writer))

    def expire(self) -> Keeper:
        """08:00 of the near expiry: the index is a tenth higher, and all pages are marked."""
        self.exchange.tick_at(expiry_time(NEAR))
        self.exchange.remark(INDEX * 11 // 10)
        return Keeper(self.exchange.state)

    def liquidation(self) -> bytes:
        return bytes([Kind.LIQUIDATE]) + self.exchange.numbers["writer"].to_bytes(4, "big")

    def run(self, records: list[bytes]) -> None:
        self.exchange.tick(1)
        for raw in records:
            assert self.exchange.apply(raw).reason is Reason.OK
        self.exchange.tick(1)


def test_dead_orders__of_an_expired_instrument__do_not_hold_a_liquidation_up() -> None:
    scene = Scene()
    exchange = scene.exchange
    for place in range(FLOOD):
        order = Order(exchange.numbers["flooder"], scene.near, c.SELL, INDEX * 2 + place % 999, place, 1)
        exchange.state.insert_order(order)
    exchange.account("flooder").orders += FLOOD
    keeper = scene.expire()
    swept, passes = 0, 0
    while records := keeper.pass_two(exchange.state.globals.time):
        kinds = Counter(Kind(raw[0]) for raw in records)
        assert kinds[Kind.SWEEP] <= BOUNDS.sweeps_max
        assert (records[0][:5] == scene.liquidation()) == (passes == 0)
        scene.run(records)
        swept += kinds[Kind.SWEEP]
        passes += 1
    assert exchange.account("writer").auction_start
    assert swept == FLOOD
    assert passes == -(-FLOOD // BOUNDS.sweeps_max)


def test_orders_past_their_time__do_not_hold_a_liquidation_up() -> None:
    scene = Scene()
    exchange = scene.exchange
    for place in range(FLOOD):
        order = Order(exchange.numbers["flooder"], scene.far, c.BUY, 1, place, 1, expiry_time(NEAR))
        exchange.state.insert_order(order)
    records = scene.expire().pass_two(exchange.state.globals.time)
    assert records[0][:5] == scene.liquidation()
    assert len(records) <= 1 + BOUNDS.sweeps_max


def test_holders_of_a_settled_expiry__do_not_hold_a_liquidation_up() -> None:
    scene = Scene()
    exchange = scene.exchange
    state = exchange.state
    for number in range(1_000, 1_000 + FLOOD):
        account = Account(number.to_bytes(20, "big"))
        account.positions[scene.near] = 1
        state.put_account(number, account)
    exchange.tick_at(expiry_time(NEAR) - c.TWAP_S)
    exchange.feeds(INDEX)
    scene.expire()
    exchange.system(Kind.FIX, underlying=0, day=NEAR)
    assert state.expiries[NEAR].settled
    keeper = Keeper(state)
    settled = passes = 0
    while records := keeper.pass_two(state.globals.time):
        kinds = Counter(Kind(raw[0]) for raw in records)
        assert kinds[Kind.SETTLE] <= BOUNDS.settlements_max
        assert (records[0][:5] == scene.liquidation()) == (passes == 0)
        scene.run(records)
        settled += kinds[Kind.SETTLE]
        passes += 1
    assert settled == FLOOD
    assert passes == -(-FLOOD // BOUNDS.settlements_max)


def test_accounts_that_are_short_by_little__do_not_hold_a_large_liquidation_up() -> None:
    """Thousands of accounts at the edge of their margin fall below it with the writer; his is the first record."""
    scene = Scene()
    state = scene.exchange.state
    for number in range(1_000, 1_000 + FLOOD):
        account = Account(number.to_bytes(20, "big"))
        account.positions[scene.far] = -1
        margin.refresh(state, account)
        account.cash = margin.maintenance(state, account) - margin.equity(account)
        state.put_account(number, account)
    records = scene.expire().pass_two(state.globals.time)
    assert records[0][:5] == scene.liquidation()
    assert len(records) <= BOUNDS.liquidations_max
