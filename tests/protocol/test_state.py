"""The state: its root from scratch, its leaves as all there is to know, and what a no-op leaves alone."""

import random
import sys
from pathlib import Path

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import State, expiry_time, instrument_expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, CONTRACT, DOMAIN, FAR, INDEX, NEAR, Exchange, params, reopened

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "twins"))
from auditor import naive_root


def story(seed: int) -> Exchange:
    """A day on the exchange, random but for its outline; roots are compared on the way."""
    draw = random.Random(seed)
    exchange = Exchange(**CALM)
    instruments = exchange.open((FAR, INDEX, 0), (FAR, INDEX, 1), (NEAR, INDEX, 0), (NEAR, INDEX + 50_000, 1))
    roles = ["treasury", "maker", "taker", "third"]
    for role in roles:
        exchange.deposit(role, 200_000)
    for step in range(60):
        instrument = draw.choice(instruments)
        role = draw.choice(roles)
        price = max(exchange.mark(instrument) + draw.randint(-40, 40), 1)
        exchange.place(role, instrument, draw.randint(0, 1), price, draw.randint(1, CONTRACT))
        while exchange.state.globals.taker is not None:
            exchange.proceed()
        if step % 10 == 9:
            exchange.remark(INDEX * draw.randint(95, 105) // 100)
            exchange.cancel_all(role)
            exchange.withdraw(role, draw.randint(1, 10**9))
        assert exchange.state.root() == naive_root(exchange.state)
    return exchange


@pytest.mark.parametrize("seed", [1, 2])
def test_root__after_every_record__is_that_of_a_naive_map_of_all_leaves(seed: int) -> None:
    exchange = story(seed)
    exchange.expire(NEAR, INDEX + 80_000)
    for role in list(exchange.numbers):
        exchange.settle(role, NEAR)
    assert exchange.state.root() == naive_root(exchange.state)
    assert naive_root(reopened(exchange.state)) == exchange.state.root()


def test_preimages__build_a_state_with_the_same_root_and_the_same_leaves() -> None:
    state = story(3).state
    leaves = list(state.preimages())
    random.Random(0).shuffle(leaves)
    twin = State.from_preimages(DOMAIN, iter(leaves))
    assert twin.map.root() == state.root()  # before anything is hashed anew
    assert twin.root() == state.root()
    assert sorted(twin.preimages()) == sorted(leaves)
    assert twin.holders.keys() == state.holders.keys()


def test_root__whatever_was_touched_meanwhile__does_not_depend_on_when_it_is_taken() -> None:
    one, other = Exchange(**CALM), Exchange(**CALM)
    for exchange in (one, other):
        (call,) = exchange.open((FAR, INDEX, 0))
        for role in ("treasury", "maker", "taker"):
            exchange.deposit(role, 100_000)
            if exchange is one:
                exchange.state.root()
        exchange.trade("taker", "maker", call, exchange.mark(call), 10)
    assert one.state.root() == other.state.root()


def test_from_preimages__without_params_or_with_an_unknown_type__is_refused() -> None:
    leaves = list(Exchange().state.preimages())
    with pytest.raises(ValueError, match="no PARAMS leaf"):
        State.from_preimages(DOMAIN, iter(leaves[1:]))
    with pytest.raises(ValueError, match="unknown key type 7"):
        State.from_preimages(DOMAIN, iter([*leaves, (7 << 252, bytes(32))]))
    for key, words in leaves:
        if key != c.KEY_PARAMS:
            with pytest.raises(ValueError, match="word"):
                State.from_preimages(DOMAIN, iter([(c.KEY_PARAMS, params().words()), (key, words[:-1])]))


@pytest.mark.parametrize("side", [2, 3, 255])
@pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.SWEEP])
def test_order__of_a_side_that_does_not_exist__is_unknown(kind: Kind, side: int) -> None:
    exchange = Exchange()
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("maker", 10_000)
    seq = exchange.buy("maker", call, 100, 1).seq
    if kind == Kind.SWEEP:
        exchange.tick()
        out = exchange.unsigned(Kind.SWEEP, instrument=call, side=side, price=100, seq=seq)
    else:
        out = exchange.cancel("maker", call, side, 100, seq)
    assert out.reason is Reason.UNKNOWN_ORDER


def test_cancel__takes_out_ones_own_order_only() -> None:
    exchange = Exchange()
    (call,) = exchange.open((FAR, INDEX, 0))
    for role in ("maker", "third"):
        exchange.deposit(role, 10_000)
    seq = exchange.buy("maker", call, 100, 7).seq
    assert exchange.cancel("third", call, c.BUY, 100, seq).reason is Reason.NOT_OWNER_OF_ORDER
    assert exchange.cancel("maker", call, c.SELL, 100, seq).reason is Reason.UNKNOWN_ORDER
    assert exchange.cancel("maker", call, c.BUY, 101, seq).reason is Reason.UNKNOWN_ORDER
    out = exchange.cancel("maker", call, c.BUY, 100, seq)
    assert [order.quantity for order in out.removed] == [7]
    assert exchange.account("maker").reserved == 0
    assert exchange.cancel("maker", call, c.BUY, 100, seq).reason is Reason.UNKNOWN_ORDER


def test_sweep__takes_out_what_is_dead_and_nothing_else() -> None:
    exchange = Exchange()
    (call, near) = exchange.open((FAR, INDEX, 0), (NEAR, INDEX, 0))
    exchange.deposit("maker", 10_000)
    now = exchange.state.globals.time
    timed = exchange.buy("maker", call, 100, 1, expires=now + 5).seq
    floored = exchange.buy("maker", call, 101, 1).seq
    exchange.tick()

    def sweep(instrument: int, price: int, seq: int) -> Reason:
        return exchange.unsigned(Kind.SWEEP, instrument=instrument, side=c.BUY, price=price, seq=seq).reason

    assert sweep(call, 100, timed) is Reason.ORDER_ALIVE
    assert sweep(call, 100, 99_999) is Reason.UNKNOWN_ORDER
    exchange.tick(5)
    assert sweep(call, 100, timed) is Reason.OK
    assert sweep(call, 101, floored) is Reason.ORDER_ALIVE
    assert exchange.account("maker").reserved == 101
    exchange.cancel_all("maker")
    assert sweep(call, 101, floored) is Reason.OK
    last = exchange.buy("maker", near, 102, 1).seq
    exchange.tick_at(expiry_time(NEAR) - 1)
    assert sweep(near, 102, last) is Reason.ORDER_ALIVE
    exchange.tick(1)
    assert sweep(near, 102, last) is Reason.OK
    assert exchange.account("maker").reserved == 0


def test_instrument_expiry_time__is_eight_o_clock_of_its_day() -> None:
    assert instrument_expiry_time(1 << 28 | FAR << 12 | 4_095) == expiry_time(FAR) == FAR * 86_400 + 8 * 3_600
