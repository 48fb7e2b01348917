"""FOK and post-only over several records: filled or rested whole, or no trace but fee, nonce and numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol import margin, plans
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Global
from sequencer.protocol.queue import sequencing_fee

if TYPE_CHECKING:
    from sequencer.protocol.outcome import Outcome

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, FAR, INDEX, Exchange, reopened

FOK = c.TIF_FOK
POST, REDUCE, STP = c.FLAG_POST_ONLY, c.FLAG_REDUCE_ONLY, c.FLAG_STP_TAKER
P = 100_000  # ticks


@pytest.fixture
def exchange() -> Exchange:
    exchange = Exchange(**CALM)
    exchange.open((FAR, INDEX, 0))
    for role in ("treasury", "maker", "third", "taker"):
        exchange.deposit(role, 100_000_000)
    exchange.tick()
    return exchange


@pytest.fixture
def call(exchange: Exchange) -> int:
    (number,) = exchange.state.instruments.values()
    return number


def ladder(exchange: Exchange, call: int, count: int, side: int = c.SELL, role: str = "maker") -> None:
    """So many orders of one lot, each a tick worse than the one before."""
    for place in range(count):
        price = P + place if side == c.SELL else P - place
        assert exchange.place(role, call, side, price, 1).rested is not None
    exchange.tick()


def finish(exchange: Exchange, out: Outcome) -> list[Outcome]:
    """All records of the order."""
    outs = [out]
    while outs[-1].pending:
        outs.append(exchange.proceed())
    return outs


def leaves(exchange: Exchange) -> dict[int, bytes]:
    """Every leaf but GLOBAL."""
    assert exchange.state.undo is None
    return {key: words for key, words in exchange.state.preimages() if key != c.KEY_GLOBAL}


def nonces(exchange: Exchange, role: str) -> int:
    """How many an account has used."""
    account = exchange.account(role)
    return account.nonce_floor + account.nonce_bitmap.bit_count()


def records(orders: int) -> int:
    """Of a plan that meets so many orders."""
    return -(-orders // c.STEPS_MAX)


@pytest.mark.parametrize("count", [1, 3, 4, 64, 200, 384])
def test_fok__over_any_number_of_orders__is_filled_whole(exchange: Exchange, call: int, count: int) -> None:
    ladder(exchange, call, count)
    outs = finish(exchange, exchange.buy("taker", call, P + count, count, tif=FOK))
    assert len(outs) == records(count)
    assert {out.reason for out in outs} == {Reason.OK} == {out.failed for out in outs}
    fills = [fill for out in outs for fill in out.fills]
    assert [fill.maker_price for fill in fills] == [P + place for place in range(count)]
    assert exchange.position("taker", call) == count
    g = exchange.state.globals
    assert (g.plan_root, g.plan_records, g.plan_fee_max, g.taker) == (b"", 0, 0, None)
    assert exchange.state.undo is None
    exchange.tick()


@pytest.mark.parametrize("count", [1, 3, 4, 64, 200, 383])
def test_fok__that_lacks_one_lot__leaves_no_trace_but_fee_nonce_and_numbers(
    exchange: Exchange, call: int, count: int
) -> None:
    ladder(exchange, call, count)
    state = exchange.state
    before, g = leaves(exchange), Global.from_words(state.globals.words())
    taker, cash = exchange.numbers["taker"], exchange.account("taker").cash
    used, fee = nonces(exchange, "taker"), sequencing_fee(state)
    outs = finish(exchange, exchange.buy("taker", call, P + count, count + 1, tif=FOK))
    after, now = leaves(exchange), state.globals
    if count <= c.STEPS_MAX:  # refused by its first record: not even that
        assert [out.reason for out in outs] == [Reason.FOK_UNFILLED]
        assert after == before
        return
    assert [out.failed for out in outs if out.failed] == [Reason.FOK_UNFILLED]
    assert outs[-1].failed
    assert len(outs) == records(count)
    key = c.KEY_ACCOUNT | taker
    assert {one for one in before if before[one] != after[one]} == {key}
    assert before.keys() == after.keys()
    account = exchange.account("taker")
    fee *= len(outs)
    assert cash - account.cash == outs[-1].fee == fee == now.treasury - g.treasury
    assert nonces(exchange, "taker") == used + 1
    assert (account.reserved, account.orders, account.positions) == (0, 0, {})
    assert now.seq == g.seq + len(outs)
    assert now.work > g.work
    assert now.excess == g.excess + 1
    assert now.last_class == c.CLASS_TAKER
    assert (now.taker, now.plan_root, now.plan_records, now.plan_fee_max) == (None, b"", 0, 0)
    assert (now.fund, now.deficit, now.holes, now.time) == (g.fund, g.deficit, g.holes, g.time)
    assert [order.quantity for order in state.books[call].orders(c.SELL)] == [1] * count
    exchange.tick()
    assert len(finish(exchange, exchange.buy("taker", call, P + count, count, tif=FOK))) == records(count)
    assert exchange.position("taker", call) == count


def test_fok__over_more_orders_than_a_plan_has_steps__fails_as_a_whole(exchange: Exchange, call: int) -> None:
    most = c.PLAN_RECORDS_MAX * c.STEPS_MAX
    assert most >= 64
    ladder(exchange, call, most + 1)
    before = leaves(exchange)
    outs = finish(exchange, exchange.buy("taker", call, P + most, most + 1, tif=FOK))
    assert len(outs) == c.PLAN_RECORDS_MAX
    assert outs[-1].failed is Reason.FOK_UNFILLED
    after = leaves(exchange)
    assert {one for one in before if before[one] != after[one]} == {c.KEY_ACCOUNT | exchange.numbers["taker"]}


def test_failed_fok__pays_for_its_records_but_never_more_than_it_has_signed(
    exchange: Exchange, call: int
) -> None:
    ladder(exchange, call, 60)
    for fee_max, paid in ((1, 100), (5, 500), (65_535, 2_000)):
        cash = exchange.account("taker").cash
        outs = finish(exchange, exchange.buy("taker", call, P + 60, 61, tif=FOK, fee_max=fee_max))
        assert outs[-1].failed is Reason.FOK_UNFILLED
        assert cash - exchange.account("taker").cash == paid
        exchange.tick()


@pytest.mark.parametrize("side", [c.BUY, c.SELL])
def test_dead_orders__count_against_no_fok_and_no_post_only(exchange: Exchange, call: int, side: int) -> None:
    """Cancelled by floor, past their time: more of them than one record sweeps, between live ones."""
    other, better = 1 - side, -1 if side == c.SELL else 1
    now = exchange.state.globals.time
    for place in range(10):
        price = P - better * (10 - place)
        assert exchange.place("third", call, other, price, 1, expires=now + 5 if place % 2 else 0).rested
    exchange.place("maker", call, other, P, 7)
    exchange.cancel_all("third")
    exchange.tick(5)
    out = exchange.place("taker", call, side, P - better, 3, flags=POST)
    outs = finish(exchange, out)
    assert outs[-1].rested is not None
    assert outs[-1].rested.seq == out.seq
    assert not any(one.failed for one in outs)
    exchange.cancel("taker", call, side, P - better, out.seq)
    exchange.tick()
    outs = finish(exchange, exchange.place("taker", call, side, P, 7, tif=FOK))
    assert sum(fill.quantity for one in outs for fill in one.fills) == 7


def test_post_only__that_meets_a_live_order_after_dead_ones__leaves_these_as_they_were(
    exchange: Exchange, call: int
) -> None:
    ladder(exchange, call, 4, role="third")
    exchange.cancel_all("third")
    exchange.sell("maker", call, P + 10, 1)
    exchange.tick()
    before = leaves(exchange)
    outs = finish(exchange, exchange.buy("taker", call, P + 20, 1, flags=POST))
    assert [out.failed for out in outs] == [Reason.OK, Reason.POST_ONLY_CROSSES]
    after = leaves(exchange)
    assert {one for one in before if before[one] != after[one]} == {c.KEY_ACCOUNT | exchange.numbers["taker"]}
    assert exchange.state.globals.last_class == c.CLASS_POST_ONLY


def test_fok__whose_margin_breaks_at_the_fiftieth_maker__is_undone(exchange: Exchange, call: int) -> None:
    exchange.deposit("poor", 50_000)
    for _ in range(60):
        exchange.buy("maker", call, P, 1_000)
    exchange.tick()
    before = leaves(exchange)
    outs = finish(exchange, exchange.sell("poor", call, P, 60_000, tif=FOK))
    assert outs[-1].failed is Reason.MARGIN
    assert sum(len(out.fills) for out in outs) in range(48, 54)
    after = leaves(exchange)
    assert {one for one in before if before[one] != after[one]} == {c.KEY_ACCOUNT | exchange.numbers["poor"]}


def test_fok__that_meets_its_own_order_at_the_fiftieth_place__ends_or_sweeps_it(
    exchange: Exchange, call: int
) -> None:
    ladder(exchange, call, 49)
    own = exchange.sell("taker", call, P + 49, 1)
    ladder_end = [exchange.sell("maker", call, P + 50 + place, 1) for place in range(5)]
    assert all(out.rested for out in ladder_end)
    exchange.tick()
    outs = finish(exchange, exchange.buy("taker", call, P + 90, 54, tif=FOK, flags=STP))
    assert outs[-1].failed is Reason.FOK_UNFILLED
    assert exchange.state.find_order(call, c.SELL, P + 49, own.seq) is not None
    exchange.tick()
    outs = finish(exchange, exchange.buy("taker", call, P + 90, 54, tif=FOK))
    assert not outs[-1].failed
    assert exchange.position("taker", call) == 54
    assert exchange.state.find_order(call, c.SELL, P + 49, own.seq) is None
    assert exchange.account("taker").reserved == 0


def test_fok__reduce_only__closes_whole_over_many_orders_or_not_at_all(exchange: Exchange, call: int) -> None:
    exchange.trade("taker", "third", call, P, 20)
    ladder(exchange, call, 15, c.BUY)
    outs = finish(exchange, exchange.sell("taker", call, P - 30, 50, tif=FOK, flags=REDUCE))
    assert outs[-1].failed is Reason.FOK_UNFILLED
    assert exchange.position("taker", call) == 20
    for _ in range(5):
        exchange.buy("maker", call, P - 20, 1)
    exchange.tick()
    outs = finish(exchange, exchange.sell("taker", call, P - 30, 50, tif=FOK, flags=REDUCE))
    assert not outs[-1].failed
    assert exchange.position("taker", call) == 0


def test_open_plan__nothing_comes_between_and_a_copy_of_the_state_can_undo_it(
    exchange: Exchange, call: int
) -> None:
    ladder(exchange, call, 10)
    before = exchange.state.root()
    assert exchange.buy("taker", call, P + 20, 11, tif=FOK).pending
    assert exchange.state.globals.plan_root == before
    assert exchange.tick().reason is Reason.TAKER_PENDING
    assert exchange.proceed().pending
    twin = reopened(exchange.state)
    assert twin.root() == exchange.state.root()
    assert sorted(twin.preimages()) == sorted(exchange.state.preimages())
    exchange.state = twin
    assert exchange.proceed().pending
    assert exchange.proceed().failed is Reason.FOK_UNFILLED
    assert exchange.position("maker", call) == 0
    assert exchange.tick().reason is Reason.OK


def test_fok__whose_fiftieth_maker_can_hold_no_more__goes_past_it_or_brings_its_order_back(
    exchange: Exchange, call: int
) -> None:
    ladder(exchange, call, 49)
    full = exchange.sell("third", call, P + 49, 1)
    for place in range(5):
        exchange.sell("maker", call, P + 50 + place, 1)
    for role, lots in (("third", -(2**44)), ("treasury", 2**44)):
        account = exchange.account(role).clone()
        margin.move(account, exchange.state.page_of(call), call, lots)
        exchange.state.put_account(exchange.numbers[role], account)
    exchange.tick()
    before = leaves(exchange)
    outs = finish(exchange, exchange.buy("taker", call, P + 90, 55, tif=FOK))
    assert outs[-1].failed is Reason.FOK_UNFILLED
    after = leaves(exchange)
    assert {one for one in before if before[one] != after[one]} == {c.KEY_ACCOUNT | exchange.numbers["taker"]}
    assert exchange.state.find_order(call, c.SELL, P + 49, full.seq) is not None
    exchange.tick()
    assert not finish(exchange, exchange.buy("taker", call, P + 90, 54, tif=FOK))[-1].failed
    assert exchange.state.find_order(call, c.SELL, P + 49, full.seq) is None


def test_open_plan__l1s_messages_wait_and_do_not_count(exchange: Exchange, call: int) -> None:
    """Nor does anything else that might free its order or its makers' of what they have signed."""
    ladder(exchange, call, 10)
    assert exchange.buy("taker", call, P + 20, 11, tif=FOK).pending
    g = exchange.state.globals
    inbox, root = (g.inbox_count, g.inbox_hash), g.plan_root
    number = exchange.numbers["maker"]
    order = {"instrument": call, "flags": c.SELL, "price": P, "quantity": 1, "expires": 0, "fee_max": 9}
    outs = [
        exchange.system(Kind.FORCED_CANCEL_ALL, account=number),
        exchange.system(Kind.FORCED_WITHDRAW, account=number, amount=1),
        exchange.system(Kind.FORCED_ORDER, account=number, **order),
        exchange.system(Kind.COLLECT),
        exchange.submit(Kind.CANCEL_ALL, "maker", nonce_floor=0),
        exchange.submit(Kind.WITHDRAW, "taker", amount=1),
        exchange.place("third", call, c.SELL, P, 5),
    ]
    assert {out.reason for out in outs} == {Reason.TAKER_PENDING}
    assert (g.inbox_count, g.inbox_hash) == inbox
    assert (g.plan_root, g.plan_records) == (root, 1)
    assert finish(exchange, exchange.proceed())[-1].failed is Reason.FOK_UNFILLED
    exchange.tick()
    assert exchange.system(Kind.FORCED_CANCEL_ALL, account=number).reason is Reason.OK


@pytest.mark.parametrize("held", [True, False])
def test_forced_fok__over_many_orders__counts_in_the_inbox_whatever_becomes_of_it(
    exchange: Exchange, call: int, held: bool
) -> None:
    ladder(exchange, call, 20)
    g = exchange.state.globals
    inbox, number = g.inbox_count, exchange.numbers["taker"]
    used, cash = nonces(exchange, "taker"), exchange.account("taker").cash
    order = {"instrument": call, "flags": FOK << c.FLAG_TIF_SHIFT, "price": P + 20, "quantity": 21 - held}
    out = exchange.system(Kind.FORCED_ORDER, account=number, expires=0, fee_max=3, **order)
    outs = finish(exchange, out)
    assert (outs[-1].failed is Reason.OK) is held
    assert g.inbox_count == inbox + 1
    assert nonces(exchange, "taker") == used
    assert exchange.position("taker", call) == 20 * held
    if not held:
        assert cash - exchange.account("taker").cash == outs[-1].fee == 300  # its fee_max, for seven records


def test_is_atomic__is_fok_and_post_only() -> None:
    assert not plans.is_atomic(c.TIF_IOC << c.FLAG_TIF_SHIFT | REDUCE | STP)
    assert plans.is_atomic(c.TIF_FOK << c.FLAG_TIF_SHIFT | STP)
    assert plans.is_atomic(POST | REDUCE)
