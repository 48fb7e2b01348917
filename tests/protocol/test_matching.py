"""PLACE and CONTINUE: priority, kinds of orders, dead orders, margin, steps. The auditor looks after every record.

Long because every flag of an order meets every other one on the same book.
"""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, QueueState, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, CONTRACT, FAR, INDEX, NEAR, USD, Exchange, examples, outline, reopened

IOC, FOK = c.TIF_IOC, c.TIF_FOK
POST, REDUCE, STP = c.FLAG_POST_ONLY, c.FLAG_REDUCE_ONLY, c.FLAG_STP_TAKER
P = 300_000  # a price near the mark of the call, ticks


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange(**CALM)
    one.open((FAR, INDEX, 0), (FAR, INDEX, 1), (NEAR, INDEX, 0))
    for role in ("treasury", "maker", "taker", "third"):
        one.deposit(role, 1_000_000)
    return one


@pytest.fixture
def call(exchange: Exchange) -> int:
    return exchange.state.instruments[FAR << 32 | INDEX]


def resting(exchange: Exchange, instrument: int, side: int) -> list[tuple[int, int, int]]:
    book = exchange.state.books.get(instrument)
    return (
        [] if book is None else [(order.account, order.price, order.quantity) for order in book.orders(side)]
    )


# --- kinds of orders -----------------------------------------------------------------------------------


def test_gtc__that_crosses_nothing__rests_whole(exchange: Exchange, call: int) -> None:
    out = exchange.buy("maker", call, P, 5)
    assert out.reason is Reason.OK
    assert out.rested is not None
    assert resting(exchange, call, c.BUY) == [(2, P, 5)]
    assert exchange.account("maker").reserved == P * 5


def test_gtc__that_crosses_in_part__fills_at_the_makers_price_and_rests(
    exchange: Exchange, call: int
) -> None:
    exchange.sell("maker", call, P, 5)
    before = exchange.account("taker").cash
    out = exchange.buy("taker", call, P + 100, 8)
    assert [(fill.maker, fill.maker_price, fill.quantity) for fill in out.fills] == [(2, P, 5)]
    assert resting(exchange, call, c.BUY) == [(3, P + 100, 3)]
    assert exchange.position("taker", call) == 5
    assert exchange.position("maker", call) == -5
    paid = before - exchange.account("taker").cash
    assert paid == P * 5 + out.fee + sum(fill.taker_fee for fill in out.fills)


def test_priority__is_price_then_sequence(exchange: Exchange, call: int) -> None:
    exchange.sell("maker", call, P + 2, 1)
    first = exchange.sell("maker", call, P + 1, 1).seq
    exchange.sell("third", call, P + 1, 1)
    best = exchange.sell("third", call, P, 1).seq
    out = exchange.buy("taker", call, P + 5, 2, tif=IOC)
    assert [fill.maker_seq for fill in out.fills] == [best, first]
    assert [fill.maker_price for fill in out.fills] == [P, P + 1]


def test_ioc__leaves_nothing_behind(exchange: Exchange, call: int) -> None:
    exchange.sell("maker", call, P, 5)
    out = exchange.buy("taker", call, P, 8, tif=IOC)
    assert (len(out.fills), out.rested, out.pending) == (1, None, False)
    assert resting(exchange, call, c.BUY) == []


def test_ioc__that_meets_nothing__is_ok_and_pays_its_place(exchange: Exchange, call: int) -> None:
    out = exchange.buy("taker", call, P, 8, tif=IOC)
    assert (out.reason, out.fills, out.fee) == (Reason.OK, [], 100)
    assert exchange.account("taker").cash == 1_000_000 * USD - 100


def test_fok__that_cannot_fill__changes_nothing(exchange: Exchange, call: int) -> None:
    exchange.sell("maker", call, P, 5)
    before = dict(exchange.state.preimages())
    out = exchange.buy("taker", call, P, 6, tif=FOK)
    assert out.reason is Reason.FOK_UNFILLED
    exchange.state.globals.seq -= 1
    # The helper opened a tick before the taker's record; only that differs.
    assert {key for key, words in exchange.state.preimages() if before[key] != words} <= {c.KEY_GLOBAL}


def test_fok__within_three_fills__fills(exchange: Exchange, call: int) -> None:
    for _ in range(3):
        exchange.sell("maker", call, P, 2)
    assert exchange.buy("taker", call, P, 7, tif=FOK).reason is Reason.FOK_UNFILLED
    out = exchange.buy("taker", call, P, 6, tif=FOK)
    assert (out.reason, len(out.fills), out.pending) == (Reason.OK, 3, False)


def test_post_only__that_would_take__is_refused(exchange: Exchange, call: int) -> None:
    exchange.sell("maker", call, P, 5)
    assert exchange.buy("taker", call, P, 1, flags=POST).reason is Reason.POST_ONLY_CROSSES
    assert exchange.buy("taker", call, P - 1, 1, flags=POST).rested is not None


def test_gtd__at_its_second__is_dead_and_swept_when_met(exchange: Exchange, call: int) -> None:
    until = exchange.state.globals.time + 10
    exchange.sell("maker", call, P, 5, expires=until)
    exchange.sell("third", call, P + 1, 5)
    exchange.tick(9)
    assert exchange.buy("taker", call, P, 1, tif=IOC).fills
    exchange.tick(1)
    out = exchange.buy("taker", call, P + 1, 1)
    assert [order.account for order in out.removed] == [2]
    assert [fill.maker for fill in out.fills] == [4]
    assert exchange.account("maker").reserved == 0


@pytest.mark.parametrize("flags", [0x40, 0x80, 6, POST | IOC << 1, POST | FOK << 1])
def test_place__with_flags_that_mean_nothing__is_refused(exchange: Exchange, call: int, flags: int) -> None:
    assert exchange.place("taker", call, c.BUY, P, 1, flags=flags).reason is Reason.FLAGS


def test_place__of_nothing_or_for_nothing__is_refused(exchange: Exchange, call: int) -> None:
    assert exchange.buy("taker", call, P, 0).reason is Reason.QUANTITY
    assert exchange.buy("taker", call, 0, 1).reason is Reason.PRICE


def test_place__of_what_is_not_listed__is_refused(exchange: Exchange, call: int) -> None:
    assert exchange.buy("taker", call + 2, P, 1).reason is Reason.UNKNOWN_INSTRUMENT
    assert exchange.buy("taker", call + 32, P, 1).reason is Reason.UNKNOWN_INSTRUMENT


def test_place__at_expiry__is_refused(exchange: Exchange) -> None:
    near = exchange.state.instruments[NEAR << 32 | INDEX]
    exchange.tick_at(NEAR * c.DAY_S + c.EXPIRY_OF_DAY_S)
    assert exchange.buy("taker", near, P, 1).reason is Reason.INSTRUMENT_EXPIRED


def test_place__on_old_marks__is_refused_one_second_later(exchange: Exchange, call: int) -> None:
    exchange.tick(3_600)
    assert exchange.buy("taker", call, P, 1).reason is Reason.OK
    exchange.tick(1)
    assert exchange.buy("taker", call, P, 1).reason is Reason.RISK_STALE


def test_place__on_a_row_listed_since_its_pages_marks__is_refused_and_on_the_others_not(
    exchange: Exchange, call: int
) -> None:
    fresh = exchange.list(FAR, INDEX + 50_000)
    assert fresh >> 5 == call >> 5
    assert exchange.buy("taker", call, P, 1).reason is Reason.OK
    assert exchange.buy("taker", fresh, P, 1).reason is Reason.RISK_STALE
    exchange.risk(call)
    assert exchange.buy("taker", fresh, P, 1).reason is Reason.OK


def test_place__below_the_fee_of_the_queue__is_refused(exchange: Exchange, call: int) -> None:
    assert exchange.buy("taker", call, P, 1, fee_max=0).reason is Reason.FEE_ABOVE_MAX
    assert exchange.buy("taker", call, P, 1, fee_max=1).fee == 100


@pytest.mark.parametrize(
    ("level", "reason"), [(QueueState.RESTRICTED, Reason.RESTRICTED), (QueueState.HALTED, Reason.HALTED)]
)
def test_place__when_the_queue_is_shut__is_refused(
    exchange: Exchange, call: int, level: int, reason: Reason
) -> None:
    exchange.trade("taker", "maker", call, P, 2)
    exchange.state.globals.queue_state = level
    assert exchange.buy("taker", call, P, 1).reason is reason
    out = exchange.sell("taker", call, P, 1, flags=REDUCE)
    assert out.reason is (Reason.OK if level == QueueState.RESTRICTED else Reason.HALTED)


def test_place__at_the_last_sequence_number__is_refused(exchange: Exchange, call: int) -> None:
    exchange.state.globals.seq = c.U40_MAX
    for _ in range(2):
        assert exchange.buy("taker", call, P, 1).reason is Reason.HALTED
        assert exchange.withdraw("taker", 1).reason is Reason.OK


# --- steps ---------------------------------------------------------------------------------------------


def test_place__that_still_crosses_after_three_fills__waits_for_continue(
    exchange: Exchange, call: int
) -> None:
    for _ in range(7):
        exchange.sell("maker", call, P, 1)
    out = exchange.buy("taker", call, P, 9)
    assert (len(out.fills), out.pending, out.rested) == (3, True, None)
    seq = out.seq
    assert exchange.tick().reason is Reason.TAKER_PENDING
    assert exchange.unsigned(Kind.COLLECT).reason is Reason.TAKER_PENDING
    out = exchange.proceed()
    assert (len(out.fills), out.pending) == (3, True)
    out = exchange.proceed()
    assert (len(out.fills), out.pending) == (1, False)
    assert out.rested is not None
    assert (out.rested.seq, out.rested.quantity) == (seq, 2)
    assert exchange.proceed().reason is Reason.NO_TAKER


def test_place__that_fills_exactly_with_the_third_step__is_done(exchange: Exchange, call: int) -> None:
    for _ in range(4):
        exchange.sell("maker", call, P, 1)
    out = exchange.buy("taker", call, P, 3)
    assert (len(out.fills), out.pending, out.rested) == (3, False, None)


def test_dead_orders__by_cancel_all__are_swept_three_a_record(exchange: Exchange, call: int) -> None:
    for _ in range(4):
        exchange.sell("maker", call, P, 1)
    exchange.cancel_all("maker")
    assert exchange.account("maker").reserved == 0
    exchange.sell("third", call, P, 1)
    out = exchange.buy("taker", call, P, 1)
    assert (len(out.removed), out.fills, out.pending) == (3, [], True)
    out = exchange.proceed()
    assert (len(out.removed), len(out.fills), out.pending) == (1, 1, False)


def test_post_only__that_sweeps_dead_orders__rests_or_ends(exchange: Exchange, call: int) -> None:
    for _ in range(4):
        exchange.sell("maker", call, P, 1)
    exchange.cancel_all("maker")
    out = exchange.buy("taker", call, P, 1, flags=POST)
    assert out.pending
    assert exchange.proceed().rested is not None
    exchange.cancel_all("taker")
    exchange.buy("third", call, P - 5, 9, tif=IOC)
    for _ in range(3):
        exchange.sell("maker", call, P - 1, 1)
    exchange.cancel_all("maker")
    exchange.sell("third", call, P - 1, 1)
    assert exchange.buy("taker", call, P - 1, 1, flags=POST).pending
    out = exchange.proceed()  # meets the live one
    assert (out.reason, out.failed, out.rested) == (Reason.OK, Reason.POST_ONLY_CROSSES, None)
    assert exchange.state.globals.taker is None


# --- self-trade ----------------------------------------------------------------------------------------


def test_self_trade__by_default__cancels_the_resting_order(exchange: Exchange, call: int) -> None:
    own = exchange.sell("taker", call, P, 5).seq
    exchange.sell("maker", call, P, 2)
    out = exchange.buy("taker", call, P, 3)
    assert [order.seq for order in out.removed] == [own]
    assert [fill.maker for fill in out.fills] == [2]
    assert out.rested is not None
    assert exchange.account("taker").reserved == P * 1


def test_self_trade__on_request__ends_the_taker(exchange: Exchange, call: int) -> None:
    exchange.sell("maker", call, P - 1, 2)
    exchange.sell("taker", call, P, 5)
    out = exchange.buy("taker", call, P, 3, flags=STP)
    assert (len(out.fills), out.rested, out.removed) == (1, None, [])
    assert len(resting(exchange, call, c.SELL)) == 1


# --- reduce-only ---------------------------------------------------------------------------------------


def test_reduce_only__without_a_position__is_refused(exchange: Exchange, call: int) -> None:
    assert exchange.sell("taker", call, P, 1, flags=REDUCE).reason is Reason.REDUCE_ONLY
    exchange.trade("taker", "maker", call, P, 2)
    assert exchange.buy("taker", call, P, 1, flags=REDUCE).reason is Reason.REDUCE_ONLY


def test_reduce_only__for_more_than_the_position__is_cut_to_it(exchange: Exchange, call: int) -> None:
    exchange.trade("taker", "maker", call, P, 2)
    out = exchange.sell("taker", call, P, 9, flags=REDUCE)
    assert out.rested is not None
    assert out.rested.quantity == 2


def test_reduce_only_maker__with_more_than_it_holds__fills_the_rest_of_its_position_and_leaves(
    exchange: Exchange, call: int
) -> None:
    """The remainder must not stay in front of the taker's rest: the book would be crossed."""
    exchange.trade("third", "maker", call, P, 10)
    exchange.sell("third", call, P, 10, flags=REDUCE)
    exchange.sell("third", call, P + 1, 10, flags=REDUCE)
    exchange.buy("taker", call, P, 6, tif=IOC)
    assert resting(exchange, call, c.SELL) == [(4, P, 4), (4, P + 1, 10)]
    out = exchange.buy("taker", call, P + 1, 9)
    assert [fill.quantity for fill in out.fills] == [4]
    assert [(order.price, order.quantity) for order in out.removed] == [(P + 1, 10)]
    assert resting(exchange, call, c.BUY) == [(3, P + 1, 5)]
    assert exchange.account("third").reserved == 0


def test_reduce_only_maker__of_which_a_part_still_closes__fills_that_and_leaves(
    exchange: Exchange, call: int
) -> None:
    exchange.trade("third", "maker", call, P, 10)
    exchange.sell("third", call, P + 1, 10, flags=REDUCE)
    exchange.sell("third", call, P, 6, tif=IOC)  # nobody there
    exchange.buy("maker", call, P, 6)
    exchange.sell("third", call, P, 6, tif=IOC)
    assert exchange.position("third", call) == 4
    out = exchange.buy("taker", call, P + 1, 9)
    assert [fill.quantity for fill in out.fills] == [4]
    assert [order.quantity for order in out.removed] == [6]
    assert resting(exchange, call, c.SELL) == []
    assert resting(exchange, call, c.BUY) == [(3, P + 1, 5)]
    assert exchange.account("third").reserved == 0


def test_reduce_only_maker__whose_position_a_fill_closes_exactly__leaves_with_it(
    exchange: Exchange, call: int
) -> None:
    exchange.trade("third", "maker", call, P, 4)
    exchange.sell("third", call, P + 1, 4, flags=REDUCE)
    exchange.buy("maker", call, P, 2)
    exchange.sell("third", call, P, 2, tif=IOC)
    assert exchange.position("third", call) == 2
    out = exchange.buy("taker", call, P + 1, 2)
    assert [fill.quantity for fill in out.fills] == [2]
    assert [order.quantity for order in out.removed] == [2]
    assert resting(exchange, call, c.SELL) == []
    assert exchange.account("third").reserved == 0


def test_reduce_only_maker__with_nothing_left_to_close__holds_no_post_only_order_back(
    exchange: Exchange, call: int
) -> None:
    exchange.trade("third", "maker", call, P, 10)
    for price in (P - 1, P - 2):
        exchange.sell("third", call, price, 10, flags=REDUCE)
    seq = exchange.sell("third", call, P - 3, 10, flags=REDUCE).seq
    sweep = {"instrument": call, "side": c.SELL, "price": P - 3, "seq": seq}
    exchange.tick()
    assert exchange.unsigned(Kind.SWEEP, **sweep).reason is Reason.ORDER_ALIVE
    exchange.buy("maker", call, P - 4, 10)
    exchange.sell("third", call, P - 4, 10, tif=IOC)
    exchange.tick()
    assert exchange.unsigned(Kind.SWEEP, **sweep).reason is Reason.OK
    out = exchange.buy("taker", call, P, 1, flags=POST)
    assert out.rested is not None
    assert [order.price for order in out.removed] == [P - 2, P - 1]


def test_reduce_only_sell__of_an_account_of_longs__reserves_its_loss_against_the_mark(
    exchange: Exchange, call: int
) -> None:
    exchange.trade("third", "maker", call, P, 10)
    mark = exchange.mark(call)
    exchange.sell("third", call, mark + 500, 2, flags=REDUCE)
    assert exchange.account("third").reserved == 0
    exchange.sell("third", call, mark - 70, 2, flags=REDUCE)
    assert exchange.account("third").reserved == 140


def test_reduce_only_sell__that_would_bare_a_short__reserves_like_any_sell(
    exchange: Exchange, call: int
) -> None:
    other = exchange.state.instruments[NEAR << 32 | INDEX]
    exchange.trade("third", "maker", call, P, 10)
    exchange.trade("maker", "third", other, exchange.mark(other), 5)
    exchange.sell("third", call, P, 2, flags=REDUCE)
    page = exchange.state.pages[call >> 5]
    rate = margin.reserve_rate(exchange.state, page, call, c.SELL, P, False)
    assert rate > 0
    assert exchange.account("third").reserved == 2 * rate


def test_reduce_only_sell__whose_account_has_since_written_an_option__is_dead_when_met(
    exchange: Exchange, call: int
) -> None:
    other = exchange.state.instruments[NEAR << 32 | INDEX]
    exchange.trade("third", "maker", call, P, 10)
    exchange.sell("third", call, P, 10, flags=REDUCE)
    exchange.trade("maker", "third", other, exchange.mark(other), 5)
    out = exchange.buy("taker", call, P, 10, tif=IOC)
    assert out.fills == []
    assert [order.account for order in out.removed] == [4]
    assert exchange.position("third", call) == 10


# --- margin --------------------------------------------------------------------------------------------


def test_place__that_its_margin_cannot_carry__leaves_everything_out(exchange: Exchange, call: int) -> None:
    exchange.deposit("poor", 100)
    exchange.sell("maker", call, P, CONTRACT)
    before = dict(exchange.state.preimages())
    assert exchange.buy("poor", call, P, CONTRACT).reason is Reason.MARGIN
    after = dict(exchange.state.preimages())
    assert {key for key in after if before.get(key) != after[key]} == {c.KEY_GLOBAL}


def test_continue__that_its_margin_cannot_carry__keeps_what_was_filled_and_ends(
    exchange: Exchange, call: int
) -> None:
    exchange.deposit("poor", 1_000)
    for _ in range(6):
        exchange.sell("maker", call, 2 * P, 300)  # at twice the mark each fill costs margin
    out = exchange.buy("poor", call, 2 * P, 9 * 300, tif=IOC)
    assert out.pending, out.reason
    cash = exchange.account("poor").cash
    exchange.account("poor").cash = cash  # nothing but the fills counts from here
    out = exchange.proceed()
    assert out.reason is Reason.OK
    assert (out.fills, out.pending, out.rested) == ([], False, None)
    assert exchange.position("poor", call) == 900
    assert exchange.account("poor").cash == cash
    assert len(resting(exchange, call, c.SELL)) == 3


def test_resting_order__beyond_free_margin__is_refused(exchange: Exchange, call: int) -> None:
    exchange.deposit("poor", 100)
    lots = 100 * USD // P
    assert exchange.buy("poor", call, P, lots + 1).reason is Reason.MARGIN
    assert exchange.buy("poor", call, P, lots - 1).reason is Reason.OK
    assert exchange.withdraw("poor", USD * 2).reason is Reason.MARGIN


def test_place__while_under_auction__is_refused(exchange: Exchange, call: int) -> None:
    exchange.account("taker").auction_start = 1
    exchange.audits = False
    assert exchange.buy("taker", call, P, 1).reason is Reason.UNHEALTHY


def test_place__whose_fees_the_pool_cannot_pay__is_refused(exchange: Exchange, call: int) -> None:
    exchange.audits = False
    exchange.state.globals.pool = 99
    assert exchange.buy("taker", call, P, 1).reason is Reason.POOL


def test_sell__that_the_mark_has_passed_by_more_than_its_reserve__is_dead_when_met(
    exchange: Exchange, call: int
) -> None:
    """Else it would be an option that costs nothing until it is worth leaving to a friend."""
    exchange.sell("maker", call, P, 100)
    exchange.sell("maker", call, 30 * P, 100)
    exchange.remark(2 * INDEX)
    assert exchange.mark(call) > 10 * P
    out = exchange.buy("taker", call, 29 * P, 100)
    assert out.fills == []
    assert [order.price for order in out.removed] == [P]
    assert exchange.account("maker").cash == 1_000_000 * USD - 200
    assert len(resting(exchange, call, c.SELL)) == 1


def test_sell__that_the_mark_has_passed_by_a_little__is_filled(exchange: Exchange, call: int) -> None:
    exchange.sell("maker", call, P, 100)
    exchange.remark(INDEX * 101 // 100)
    assert exchange.mark(call) > P
    assert len(exchange.buy("taker", call, P, 100).fills) == 1


def test_reduce_only__of_a_short_account_at_an_absurd_price__is_refused() -> None:
    """Free margin rises as IM goes, whatever the price: the debt would be the fund's, the gain a friend's."""
    exchange = Exchange(**CALM)
    (call,) = exchange.open((FAR, INDEX, 0))
    for role, usd in (("treasury", 1), ("debtor", 20_000), ("friend", 500_000)):
        exchange.deposit(role, usd)
    exchange.trade("friend", "debtor", call, exchange.mark(call), CONTRACT)
    exchange.remark(INDEX * 127 // 100)
    debtor = exchange.account("debtor")
    margin.refresh(exchange.state, debtor)
    equity, im = margin.equity(debtor), margin.initial(exchange.state, debtor)
    assert 0 < equity < im
    absurd = exchange.mark(call) + (equity + im) // 2 // CONTRACT
    exchange.sell("friend", call, absurd, CONTRACT)
    assert exchange.buy("debtor", call, absurd, CONTRACT, tif=IOC, flags=REDUCE).reason is Reason.MARGIN
    exchange.sell("friend", call, exchange.mark(call), CONTRACT // 2)
    out = exchange.buy("debtor", call, exchange.mark(call), CONTRACT // 2, tif=IOC, flags=REDUCE)
    assert len(out.fills) == 1, out.reason


def test_reduce_only__that_meets_nothing_of_an_account_in_debt__costs_the_others_nothing() -> None:
    exchange = Exchange(**CALM)
    (call,) = exchange.open((FAR, INDEX, 0))
    for role, usd in (("treasury", 1), ("debtor", 20_000), ("friend", 500_000)):
        exchange.deposit(role, usd)
    exchange.trade("friend", "debtor", call, exchange.mark(call), CONTRACT)
    exchange.remark(INDEX * 14 // 10)
    cash = exchange.account("debtor").cash
    assert exchange.buy("debtor", call, 1, CONTRACT, tif=IOC, flags=REDUCE).reason is Reason.MARGIN
    assert exchange.account("debtor").cash == cash


# --- limits --------------------------------------------------------------------------------------------


def test_position__beyond_its_limit__is_refused_or_ends_the_taker(exchange: Exchange, call: int) -> None:
    exchange.audits = False
    exchange.account("taker").positions[call] = c.POSITION_LOTS_MAX - 1
    assert exchange.buy("taker", call, P, 2).reason is Reason.POSITION_LIMIT
    exchange.sell("maker", call, P, 1)
    assert len(exchange.buy("taker", call, P, 1, tif=IOC).fills) == 1


def test_maker__that_cannot_hold_more__is_taken_out(exchange: Exchange, call: int) -> None:
    exchange.audits = False
    exchange.sell("maker", call, P, 10)
    exchange.sell("third", call, P, 10)
    exchange.account("maker").positions[call] = -c.POSITION_LOTS_MAX
    out = exchange.buy("taker", call, P, 5)
    assert [order.account for order in out.removed] == [2]
    assert [fill.maker for fill in out.fills] == [4]
    assert exchange.account("maker").reserved == 0


# --- reserves hold their promise -----------------------------------------------------------------------


@settings(max_examples=examples(60))
@given(
    st.lists(
        st.tuples(st.sampled_from([-3, -1, 1, 2]), st.integers(0, 2), st.integers(1, 500)),
        min_size=0,
        max_size=3,
    ),
    st.integers(0, 2),
    st.booleans(),
    st.integers(1, 3 * P),
    st.integers(1, 500),
)
def test_reserve__at_the_marks_of_admission__bears_any_fill(
    held: list[tuple[int, int, int]], which: int, sells: bool, price: int, quantity: int
) -> None:
    """free + reserved of the maker does not fall below what its order had left free, whatever it holds besides.

    But for a buy's bend: the bound of what it holds may be lower with one more long by as much (docs/RISK.md).
    """
    exchange = Exchange(audits=False, maker_fee_ppm=100)
    instruments = exchange.open((FAR, INDEX, 0), (FAR, INDEX, 1), (NEAR, INDEX, 0))
    account = Account(bytes(20))
    account.cash = 10**12
    for sign, index, lots in held:
        account.positions[instruments[index]] = sign * lots
    state, instrument = exchange.state, instruments[which]
    page, side = state.pages[instrument >> 5], int(sells)
    reduces = (account.positions.get(instrument, 0) > 0) == sells and instrument in account.positions
    covered = reduces and margin.is_covered(account)
    if covered:
        quantity = min(quantity, abs(account.positions[instrument]))
    rate = margin.reserve_rate(state, page, instrument, side, price, covered)
    account.reserved = rate * quantity
    margin.refresh(state, account)
    before = margin.free(state, account)
    order = Order(1, instrument, side, price, 1, quantity, 0, rate, side | (REDUCE if covered else 0))
    assert margin.is_backed(state, page, account, order)
    delta = -quantity if sells else quantity
    account.cash -= delta * price
    account.cash -= -(-price * state.params.fee_cap_ppm // c.PPM) * quantity
    account.reserved = 0
    margin.move(account, page, instrument, delta)
    margin.refresh(state, account)
    if covered:
        assert margin.free(state, account) >= account.cash
    else:
        bends = 0 if sells else quantity * bend_of(state, instrument)
        assert margin.free(state, account) >= before - bends


def bend_of(state: State, instrument: int) -> int:
    """The greatest difference of two neighbouring chords of a row; beyond the outer moves those of the payoff."""
    page = state.pages[instrument >> 5]
    terms, pnl = page.terms[instrument & 31], page.rows[instrument & 31][1]
    step = -(-page.forward * state.shocks[instrument >> 28].third_ppm // c.PPM)
    outer = (-step, 0) if terms >> 31 else (0, step)
    chords = [[outer[0], *(b - a for a, b in pairwise(pnl[start : start + 7])), outer[1]] for start in (0, 8)]
    return max(b - a for one in chords for a, b in pairwise(one))


# --- pure function of the leaves -----------------------------------------------------------------------


@settings(max_examples=examples(15))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["maker", "taker", "third"]),
            st.integers(0, 1),
            st.integers(-3, 3),
            st.integers(1, 6),
            st.sampled_from([0, 0, POST, REDUCE, STP, IOC << 1, FOK << 1, REDUCE | IOC << 1]),
            st.booleans(),
        ),
        max_size=25,
    )
)
def test_matching__on_a_state_built_anew_from_its_leaves__is_the_same(
    steps: list[tuple[str, int, int, int, int, bool]],
) -> None:
    exchange = Exchange()
    (call,) = exchange.open((FAR, INDEX, 0))
    for role in ("treasury", "maker", "taker", "third"):
        exchange.deposit(role, 100_000)
    twin = Exchange()
    twin.state, twin.numbers, twin.nonces = reopened(exchange.state), exchange.numbers.copy(), {}
    twin.auditor.deposited = exchange.auditor.deposited
    for role, side, offset, quantity, flags, anew in steps:
        if anew:
            twin.state = reopened(twin.state)
        outs = [one.place(role, call, side, P + offset, quantity, flags=flags) for one in (exchange, twin)]
        assert outline(outs[0]) == outline(outs[1])
        while exchange.state.globals.taker is not None:
            assert outline(exchange.proceed()) == outline(twin.proceed())
        assert exchange.state.root() == twin.state.root()
