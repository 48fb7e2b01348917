"""LIQUIDATE and BID: who may be auctioned, at what discount, and who pays."""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol import liquidation, margin
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import NEVER

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, CONTRACT, FAR, INDEX, USD, Exchange

DEBTOR = 20_000  # USD


@pytest.fixture
def exchange() -> Exchange:
    """`debtor` has written one call at the money; `liquidator` has cash."""
    one = Exchange(**CALM)
    (call, _) = one.open((FAR, INDEX, 0), (FAR, 2 * INDEX, 0))
    one.deposit("treasury", 1)
    for role, usd in (("debtor", DEBTOR), ("long", 500_000), ("liquidator", 500_000)):
        one.deposit(role, usd)
    one.trade("long", "debtor", call, one.mark(call), CONTRACT)
    return one


def call_of(exchange: Exchange) -> int:
    return exchange.state.instruments[FAR << 32 | INDEX]


def figures(exchange: Exchange, role: str = "debtor") -> tuple[int, int, int]:
    """Equity, IM, MM."""
    account = exchange.account(role)
    margin.refresh(exchange.state, account)
    return (
        margin.equity(account),
        margin.initial(exchange.state, account),
        margin.maintenance(exchange.state, account),
    )


def fall(exchange: Exchange, percent: int = 130) -> None:
    exchange.remark(INDEX * percent // 100)


def short_of(exchange: Exchange, role: str) -> None:
    """Gives what is above MM to `long`, and a little more; the auction starts."""
    account, other = exchange.account(role), exchange.account("long")
    equity, _, mm = figures(exchange, role)
    excess = equity - mm + mm // 10
    account.cash -= excess
    other.cash += excess
    assert exchange.liquidate(role).reason is Reason.OK


def test_liquidate__of_a_healthy_account__is_refused(exchange: Exchange) -> None:
    assert exchange.liquidate("debtor").reason is Reason.HEALTHY
    fall(exchange, 126)
    equity, im, mm = figures(exchange)
    assert mm <= equity < im
    assert exchange.liquidate("debtor").reason is Reason.HEALTHY


def test_liquidate__below_maintenance__ends_the_orders_and_starts_the_auction(exchange: Exchange) -> None:
    other = call_of(exchange) + 1
    exchange.buy("debtor", other, 10, 5)
    fall(exchange)
    assert exchange.liquidate("debtor").reason is Reason.OK
    debtor = exchange.account("debtor")
    assert debtor.auction_start == exchange.state.globals.time
    assert debtor.reserved == 0
    assert debtor.order_floor == exchange.state.globals.seq - 1
    assert exchange.sell("long", other, 10, 5, tif=c.TIF_IOC).fills == []
    assert exchange.liquidate("debtor").reason is Reason.UNHEALTHY


def test_liquidate__of_an_account_whose_reserve_is_gone__ends_its_orders_without_an_auction(
    exchange: Exchange,
) -> None:
    """Equity between MM and MM + reserved: a fill of its orders could take it below nothing."""
    other = call_of(exchange) + 1
    exchange.buy("debtor", other, 60_000, CONTRACT)  # reserves 600 USD
    fall(exchange, 126)
    equity, _, mm = figures(exchange)
    debtor = exchange.account("debtor")
    assert debtor.reserved == 600 * USD
    debtor.cash -= equity - mm - 599 * USD
    exchange.account("long").cash += equity - mm - 599 * USD
    assert exchange.liquidate("debtor").reason is Reason.OK
    assert (debtor.reserved, debtor.auction_start) == (0, 0)
    assert exchange.liquidate("debtor").reason is Reason.HEALTHY


def test_liquidate__on_old_marks__is_refused(exchange: Exchange) -> None:
    fall(exchange)
    exchange.tick(3_601)
    assert exchange.liquidate("debtor").reason is Reason.RISK_STALE


def test_liquidate__of_nobody__is_refused(exchange: Exchange) -> None:
    exchange.numbers["ghost"] = 99
    assert exchange.liquidate("ghost").reason is Reason.UNKNOWN_ACCOUNT


def test_auction__ends_when_equity_is_im_again(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.deposit("debtor", 10_000)
    assert exchange.liquidate("debtor").reason is Reason.OK
    assert exchange.account("debtor").auction_start == 0
    assert exchange.liquidate("debtor").reason is Reason.HEALTHY


def test_account_under_auction__neither_withdraws_transfers_nor_bids(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    assert exchange.withdraw("debtor", 1).reason is Reason.UNHEALTHY
    assert exchange.transfer("debtor", "long", 1).reason is Reason.UNHEALTHY
    assert exchange.bid("debtor", "long").reason is Reason.UNHEALTHY


def test_discount__rises_with_time_and_stands(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    seen = []
    for seconds in (0, 9, 441, 450, 1_000):
        exchange.tick(seconds)
        seen.append(liquidation.discount_ppm(exchange.state, exchange.account("debtor")))
    assert seen == [0, 10_000, 500_000, 1_000_000, 1_000_000]


def test_bid__takes_the_slice_at_the_mark_less_the_discount_on_its_im(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.tick(90)  # 10 %
    _, im, _ = figures(exchange)
    cash = {role: exchange.account(role).cash for role in ("debtor", "liquidator")}
    out = exchange.bid("liquidator", "debtor", 64)
    assert out.reason is Reason.OK
    call = call_of(exchange)
    assert exchange.position("debtor", call) == -CONTRACT * 3 // 4
    assert exchange.position("liquidator", call) == -CONTRACT // 4
    _, left, _ = figures(exchange)
    taken = im - left
    assert taken == im // 4
    assert out.amount == -exchange.mark(call) * CONTRACT // 4 - taken // 10
    assert exchange.account("liquidator").cash == cash["liquidator"] - out.amount
    assert out.fee == taken * 20_000 // 1_000_000
    assert exchange.account("debtor").cash == cash["debtor"] + out.amount - out.fee


def test_bid__takes_at_least_a_lot_of_each_position(exchange: Exchange) -> None:
    call = call_of(exchange)
    exchange.trade("debtor", "long", call + 1, 1, 3)
    exchange.trade("debtor", "long", call, exchange.mark(call), CONTRACT - 257)
    assert exchange.account("debtor").positions == {call: -257, call + 1: 3}
    short_of(exchange, "debtor")
    assert exchange.bid("liquidator", "debtor", 1).reason is Reason.OK
    assert exchange.account("debtor").positions == {call: -255, call + 1: 2}
    assert exchange.account("liquidator").positions == {call: -2, call + 1: 1}


def test_bid__that_would_raise_the_margin__is_refused_and_all_of_it_is_to_be_had_when_the_clock_has_run(
    exchange: Exchange,
) -> None:
    """One lot of a hedge for two short ones: any part takes the hedge, and half of what it hedges."""
    call = call_of(exchange)
    hedge = exchange.list(FAR, INDEX // 2, 0)
    exchange.remark()
    exchange.trade("debtor", "long", call, exchange.mark(call), CONTRACT - 2)
    exchange.trade("debtor", "long", hedge, exchange.mark(hedge), 1)
    short_of(exchange, "debtor")
    assert {exchange.bid("liquidator", "debtor", part).reason for part in (1, 16, 64)} == {Reason.FRACTION}
    exchange.tick(899)
    assert exchange.bid("liquidator", "debtor", 256).reason is Reason.FRACTION
    exchange.tick(1)
    exchange.remark()
    assert exchange.bid("liquidator", "debtor", 256).reason is Reason.OK
    assert exchange.account("debtor").positions == {}
    assert exchange.state.globals.deficit == 0


def test_bid__beyond_its_cash_max__is_refused(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    price = -exchange.mark(call_of(exchange)) * CONTRACT // 4
    assert exchange.bid("liquidator", "debtor", 64, price - 1).reason is Reason.CASH_MAX
    assert exchange.bid("liquidator", "debtor", 64, price).reason is Reason.OK


@pytest.mark.parametrize(
    ("fraction", "reason"), [(0, Reason.FRACTION), (65, Reason.FRACTION), (64, Reason.OK)]
)
def test_bid__of_a_solvent_account__takes_at_most_a_quarter(
    exchange: Exchange, fraction: int, reason: Reason
) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    assert figures(exchange)[0] > 0
    assert exchange.bid("liquidator", "debtor", fraction).reason is reason


def test_bid__of_an_insolvent_account__takes_all_at_its_marks_and_the_fund_pays(exchange: Exchange) -> None:
    fall(exchange, 160)
    equity, _, _ = figures(exchange)
    assert equity < 0
    g = exchange.state.globals
    fund = g.fund
    exchange.liquidate("debtor")
    exchange.tick(900)
    assert exchange.bid("liquidator", "debtor", 257).reason is Reason.FRACTION
    before = figures(exchange, "liquidator")[0]
    out = exchange.bid("liquidator", "debtor", 256)
    assert (out.reason, out.fee) == (Reason.OK, 0)
    assert out.amount == -exchange.mark(call_of(exchange)) * CONTRACT
    assert figures(exchange, "liquidator")[0] == before
    debtor = exchange.account("debtor")
    assert (debtor.positions, debtor.cash, debtor.auction_start, debtor.hole) == ({}, 0, 0, 0)
    assert g.deficit == -equity - fund
    assert (g.fund, g.holes) == (0, 0)


def test_discount__is_at_most_the_part_of_the_equity_that_goes_with_the_margin(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.tick(900)
    exchange.remark()
    equity, im, _ = figures(exchange)
    assert 0 < equity < im
    before = figures(exchange, "liquidator")[0]
    out = exchange.bid("liquidator", "debtor", 64)
    taken = im - figures(exchange)[1]
    assert out.amount == -exchange.mark(call_of(exchange)) * CONTRACT // 4 - taken * equity // im
    assert out.fee == 0
    assert figures(exchange, "liquidator")[0] - before == taken * equity // im
    assert figures(exchange)[0] * im >= equity * figures(exchange)[1]


def test_fee__comes_out_of_what_the_discount_leaves(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    equity, im, _ = figures(exchange)
    seconds = next(one for one in range(900) if c.PPM * one // 900 * im > c.PPM * equity - 10_000 * im)
    exchange.tick(seconds)
    out = exchange.bid("liquidator", "debtor", 64)
    taken = im - figures(exchange)[1]
    part = taken * equity // im
    assert 0 < out.fee == part - taken * liquidation_ppm(exchange) // c.PPM < taken * 20_000 // c.PPM
    assert figures(exchange)[0] == equity - part


def liquidation_ppm(exchange: Exchange) -> int:
    return liquidation.discount_ppm(exchange.state, exchange.account("debtor"))


# --- holes --------------------------------------------------------------------------------------


def test_liquidate__of_an_insolvent_account__tells_its_hole_and_so_does_every_look_after_it(
    exchange: Exchange,
) -> None:
    g = exchange.state.globals
    fall(exchange, 160)
    assert exchange.liquidate("debtor").reason is Reason.OK
    equity = figures(exchange)[0]
    assert exchange.account("debtor").hole == g.holes == -equity > 0
    assert exchange.liquidate("debtor").reason is Reason.UNHEALTHY  # nothing new
    fall(exchange, 170)
    assert exchange.liquidate("debtor").reason is Reason.OK
    assert exchange.account("debtor").hole == g.holes == -figures(exchange)[0] > -equity
    paid = exchange.withdraw("liquidator", 100_000 * USD).amount
    held = g.pool + paid + g.fund
    assert paid == 100_000 * USD * held // (held + g.deficit + 100_000 * USD - paid + g.holes - g.fund)
    exchange.deposit("debtor", 1_000)  # at par, and its hole stands until somebody looks
    assert exchange.account("debtor").hole == g.holes
    assert exchange.liquidate("debtor").reason is Reason.OK
    assert exchange.account("debtor").hole == g.holes == -figures(exchange)[0]


def test_hole_that_closes__starts_the_clock_anew_and_leaves_the_fund_what_others_paid_for_it(
    exchange: Exchange,
) -> None:
    g = exchange.state.globals
    fall(exchange, 160)
    exchange.liquidate("debtor")
    out = exchange.withdraw("liquidator", 100_000 * USD)
    lost = 100_000 * USD - out.amount
    assert lost > 0
    assert g.deficit == -lost
    exchange.tick(900)
    fund = g.fund
    fall(exchange, 130)
    assert 0 < figures(exchange)[0] < figures(exchange)[2]
    assert exchange.liquidate("debtor").reason is Reason.OK
    assert exchange.account("debtor").auction_start == g.time
    assert (g.holes, g.deficit, g.fund) == (0, 0, fund + lost)
    assert exchange.withdraw("long", USD).amount == USD


def test_bid__on_an_insolvent_account__measures_its_hole(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    fall(exchange, 160)
    g = exchange.state.globals
    assert (g.holes, exchange.account("debtor").hole) == (0, 0)
    assert exchange.bid("liquidator", "debtor", 64).reason is Reason.OK
    assert exchange.account("debtor").hole == g.holes == -figures(exchange)[0] > 0


def test_settle__of_the_last_position__turns_the_hole_into_the_deficit(exchange: Exchange) -> None:
    fall(exchange, 160)
    exchange.liquidate("debtor")
    g = exchange.state.globals
    assert g.holes > 0
    exchange.expire(FAR, INDEX * 160 // 100)
    cash = exchange.account("debtor").cash - (INDEX * 60 // 100) * CONTRACT
    fund = g.fund
    assert exchange.settle("debtor", FAR).reason is Reason.OK
    assert (exchange.account("debtor").hole, g.holes, g.deficit) == (0, 0, -cash - fund)


def test_bid__that_its_own_margin_cannot_carry__is_refused(exchange: Exchange) -> None:
    exchange.deposit("poor", 100)
    fall(exchange)
    exchange.liquidate("debtor")
    assert exchange.bid("poor", "debtor", 64).reason is Reason.MARGIN


def test_bid__without_an_auction_on_itself_or_on_nobody__is_refused(exchange: Exchange) -> None:
    assert exchange.bid("liquidator", "debtor").reason is Reason.NO_AUCTION
    assert exchange.bid("liquidator", "liquidator").reason is Reason.UNKNOWN_ACCOUNT
    exchange.numbers["ghost"] = 99
    assert exchange.bid("liquidator", "ghost").reason is Reason.UNKNOWN_ACCOUNT


def test_bid__on_an_account_that_has_recovered__is_refused(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.remark(INDEX)
    assert exchange.bid("liquidator", "debtor").reason is Reason.HEALTHY


def test_bid__on_old_marks__moves_nothing(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.tick(3_601)
    assert exchange.bid("liquidator", "debtor").reason is Reason.POSITION_LIMIT


def test_bid__by_an_account_with_old_marks__is_refused(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.tick(3_601)
    assert exchange.bid("long", "debtor").reason is Reason.RISK_STALE


def test_bid__that_would_pass_the_bidders_limits__is_refused(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    exchange.audits = False
    liquidator = exchange.account("liquidator")
    liquidator.positions = dict.fromkeys(range(1 << 20, (1 << 20) + 64), 1)
    for page in {one >> 5 for one in liquidator.positions}:
        exchange.state.pages[page] = exchange.state.pages[call_of(exchange) >> 5]
        exchange.state.pages[page].rows += [(0, (0,) * 16)] * 32
        exchange.state.pages[page].terms += [1] * 32
    liquidator.epoch = NEVER
    assert exchange.bid("liquidator", "debtor").reason is Reason.POSITION_LIMIT


def test_bids__one_after_another__restore_the_margin(exchange: Exchange) -> None:
    fall(exchange)
    exchange.liquidate("debtor")
    for _ in range(20):
        if not exchange.account("debtor").auction_start:
            break
        assert exchange.bid("liquidator", "debtor", 64).reason is Reason.OK
    equity, im, _ = figures(exchange)
    assert equity >= im
    assert exchange.account("debtor").auction_start == 0
    assert exchange.state.globals.deficit == 0
