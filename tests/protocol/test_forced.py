"""FORCED_WITHDRAW, FORCED_CANCEL_ALL, FORCED_ORDER, FORCED_LIQUIDATE, FORCED_BID: what L1 makes happen."""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import codec, forced, margin, work
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, QueueState, Reason
from sequencer.protocol.entries import Global
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import FAR, FEE_MAX, INDEX, USD, Exchange

FORCED = (
    *(Kind.FORCED_WITHDRAW, Kind.FORCED_CANCEL_ALL, Kind.FORCED_ORDER),
    *(Kind.FORCED_LIQUIDATE, Kind.FORCED_BID),
)


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange()
    one.deposit("treasury", 0)
    one.deposit("owner", 100_000)
    one.deposit("maker", 1_000_000)
    return one


@pytest.fixture
def call(exchange: Exchange) -> int:
    (instrument,) = exchange.open((FAR, INDEX, 0))
    return instrument


def order(exchange: Exchange, role: str, instrument: int, **how: int) -> Outcome:
    exchange.tick(0)
    fields = {"flags": 0, "price": 1, "quantity": 1, "expires": 0, "fee_max": FEE_MAX, **how}
    account = exchange.numbers[role]
    return exchange.unsigned(Kind.FORCED_ORDER, account=account, instrument=instrument, **fields)


def withdraw(exchange: Exchange, role: str, amount: int) -> Outcome:
    return exchange.system(Kind.FORCED_WITHDRAW, account=exchange.numbers[role], amount=amount)


def example(kind: Kind, account: int, instrument: int = 0) -> bytes:
    fields = {
        "account": account,
        "instrument": instrument,
        "amount": 1,
        "flags": 0,
        "price": 1,
        "quantity": 1,
        "expires": 0,
        "fee_max": FEE_MAX,
        "target": 1,
        "fraction": 64,
        "cash_max": 2**63 - 1,
    }
    return codec.encode(kind, **{name: fields[name] for name, _ in codec.LAYOUTS[kind].fields})


# --- the inbox ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORCED)
@pytest.mark.parametrize("account", [2, 77])
def test_forced__whatever_becomes_of_it__is_counted_and_hashed(
    exchange: Exchange, call: int, kind: Kind, account: int
) -> None:
    g = exchange.state.globals
    exchange.tick(0)
    before, count = g.inbox_hash, g.inbox_count
    raw = example(kind, account, call)
    out = exchange.apply(raw)
    assert (g.inbox_hash, g.inbox_count) == (codec.inbox_hash(before, raw), count + 1)
    if account == 77:
        assert out.reason is Reason.UNKNOWN_ACCOUNT


@pytest.mark.parametrize("kind", [Kind.DEPOSIT, *FORCED])
def test_inbox__after_a_higher_class_or_before_a_pending_taker__does_not_count(
    exchange: Exchange, call: int, kind: Kind
) -> None:
    g = exchange.state.globals
    raw = bytes([kind]) + bytes(30)
    for number in range(5):
        exchange.sell("maker", call, 100 + number, 1)
    count, running = g.inbox_count, g.inbox_hash
    assert exchange.apply(raw).reason is Reason.CLASS_ORDER
    assert exchange.buy("owner", call, 200, 5).pending
    assert exchange.apply(raw).reason is Reason.TAKER_PENDING
    assert (g.inbox_count, g.inbox_hash) == (count, running)


@pytest.mark.parametrize("kind", FORCED)
def test_forced__malformed__does_not_count(exchange: Exchange, kind: Kind) -> None:
    g = exchange.state.globals
    exchange.tick(0)
    count = g.inbox_count
    raw = example(kind, 2)
    assert exchange.apply(raw[:-1] + b"\1").reason is Reason.MALFORMED
    assert exchange.apply(raw + bytes(31)).reason is Reason.MALFORMED
    assert g.inbox_count == count


# --- old marks ----------------------------------------------------------------------------------


def silence_s(exchange: Exchange) -> int:
    """Age of an index from which on nobody's marks on it can be fresh."""
    return exchange.state.params.risk_age_max_s + exchange.state.params.feed_age_max_s


@pytest.fixture
def held(exchange: Exchange, call: int) -> int:
    """The owner is short of an option whose page is too old by a second, and so is the maker, who has it."""
    exchange.trade("maker", "owner", call, exchange.mark(call), 1_000)
    exchange.tick(exchange.state.params.risk_age_max_s + 1)
    return call


def on_marks_that_stay_old(kind: Kind) -> Reason:
    """What becomes of a message of a healthy account: an order is refused, the rest goes by caution."""
    return {Kind.FORCED_WITHDRAW: Reason.OK, Kind.FORCED_LIQUIDATE: Reason.HEALTHY}.get(
        kind, Reason.RISK_STALE
    )


@pytest.mark.parametrize("kind", [Kind.FORCED_WITHDRAW, Kind.FORCED_ORDER, Kind.FORCED_LIQUIDATE])
def test_forced__on_marks_that_risk_can_renew__does_not_count_until_it_has(
    exchange: Exchange, held: int, kind: Kind
) -> None:
    g = exchange.state.globals
    raw = example(kind, exchange.numbers["owner"], held)
    exchange.feeds(INDEX)
    exchange.resurface()
    inbox, words = (g.inbox_hash, g.inbox_count), g.words()
    out = exchange.apply(raw)
    assert out.reason is Reason.RISK_DUE
    assert (g.inbox_hash, g.inbox_count) == inbox
    rest = Global.from_words(g.words())
    rest.seq, rest.work = rest.seq - 1, rest.work - work.of(raw)
    assert rest.words() == words
    (page_id,) = forced.pages_to_mark(exchange.state, raw)
    assert exchange.risk(page_id << 5).reason is Reason.OK
    assert forced.pages_to_mark(exchange.state, raw) == []
    out = exchange.apply(raw)
    assert out.reason is (Reason.HEALTHY if kind == Kind.FORCED_LIQUIDATE else Reason.OK)
    assert g.inbox_count == inbox[1] + 1


@pytest.mark.parametrize("kind", [Kind.FORCED_WITHDRAW, Kind.FORCED_ORDER, Kind.FORCED_LIQUIDATE])
def test_forced__on_an_index_withheld__counts_when_no_marks_can_be_fresh(
    exchange: Exchange, held: int, kind: Kind
) -> None:
    """Who leaves out the feeds for a moment gains nothing; feeds that are silent for long freeze nobody."""
    g, underlying = exchange.state.globals, exchange.state.underlyings[0]
    raw = example(kind, exchange.numbers["owner"], held)
    assert exchange.risk(held).reason is Reason.NO_INDEX
    count = g.inbox_count
    assert exchange.apply(raw).reason is Reason.RISK_DUE
    exchange.tick_at(underlying.time + silence_s(exchange))
    assert exchange.apply(raw).reason is Reason.RISK_DUE
    assert g.inbox_count == count
    exchange.tick(1)
    assert exchange.apply(raw).reason is on_marks_that_stay_old(kind)
    assert g.inbox_count == count + 1


@pytest.mark.parametrize("kind", [Kind.FORCED_WITHDRAW, Kind.FORCED_ORDER, Kind.FORCED_LIQUIDATE])
def test_forced__on_surfaces_withheld__counts_when_no_marks_can_be_fresh(
    exchange: Exchange, held: int, kind: Kind
) -> None:
    """Who leaves out the surfaces of all feeds but one gains nothing until nobody can have marks of the expiry."""
    g, params = exchange.state.globals, exchange.state.params
    raw = example(kind, exchange.numbers["owner"], held)
    last = exchange.state.expiries[FAR].reports[0].time
    exchange.feeds(INDEX)
    exchange.surface(FAR, 0)
    assert exchange.risk(held).reason is Reason.NO_SURFACE
    count = g.inbox_count
    exchange.tick_at(last + params.surface_age_max_s + params.risk_age_max_s)
    exchange.feed(INDEX)
    assert exchange.apply(raw).reason is Reason.RISK_DUE
    assert g.inbox_count == count
    exchange.tick(1)
    assert exchange.apply(raw).reason is on_marks_that_stay_old(kind)
    assert g.inbox_count == count + 1
    exchange.surface(FAR, 1)
    assert exchange.apply(raw).reason is Reason.RISK_DUE


def test_forced__with_two_surfaces_that_disagree__waits(exchange: Exchange, held: int) -> None:
    """Whoever leaves out the third of them serves no message with a refusal."""
    raw = example(Kind.FORCED_WITHDRAW, exchange.numbers["owner"], held)
    exchange.feeds(INDEX)
    exchange.surface(FAR, 0)
    exchange.surface(FAR, 1, a=60_000_000_000)
    assert exchange.risk(held).reason is Reason.FEEDS_DISAGREE
    assert exchange.apply(raw).reason is Reason.RISK_DUE
    exchange.surface(FAR, 2)
    assert exchange.risk(held).reason is Reason.OK
    assert exchange.apply(raw).reason is Reason.OK


def test_withdraw__with_one_page_that_nobody_can_renew__waits_for_the_others(
    exchange: Exchange, call: int
) -> None:
    """A sequencer that withholds RISK cannot have them valued low because of that one."""
    exchange.feeds(INDEX, underlying=1)
    other = exchange.list(FAR, INDEX, underlying=1)
    assert exchange.surface(FAR, underlying=1).reason is Reason.OK
    assert exchange.risk(other).reason is Reason.OK
    for instrument in (call, other):
        exchange.trade("maker", "owner", instrument, exchange.mark(instrument), 10)
    exchange.tick(silence_s(exchange) + 1)
    exchange.feeds(INDEX)
    assert exchange.surface(FAR).reason is Reason.OK
    assert withdraw(exchange, "owner", 5).reason is Reason.RISK_DUE
    assert exchange.risk(call).reason is Reason.OK
    assert withdraw(exchange, "owner", 5).reason is Reason.OK


def test_withdraw__on_settled_positions__waits_for_risk_however_silent_the_feeds(
    exchange: Exchange, call: int
) -> None:
    exchange.trade("maker", "owner", call, exchange.mark(call), 10)
    exchange.expire(FAR, INDEX)
    exchange.tick(10 * silence_s(exchange))
    assert withdraw(exchange, "owner", 5).reason is Reason.RISK_DUE
    assert exchange.risk(call).reason is Reason.OK
    assert withdraw(exchange, "owner", 5).reason is Reason.OK


def test_order__on_an_option_never_marked__waits_only_where_there_is_a_surface(
    exchange: Exchange, call: int
) -> None:
    fresh = exchange.list(FAR, INDEX + 50_000)
    bare = exchange.list(FAR + 1, INDEX)
    assert order(exchange, "owner", fresh).reason is Reason.RISK_DUE
    assert order(exchange, "owner", bare).reason is Reason.RISK_STALE
    raw = example(Kind.FORCED_ORDER, exchange.numbers["owner"], fresh)
    assert forced.pages_to_mark(exchange.state, raw) == [fresh >> 5]


def test_list__on_a_page_with_positions__stands_in_nobodys_way(exchange: Exchange, call: int) -> None:
    exchange.trade("maker", "owner", call, exchange.mark(call), 10)
    exchange.list(FAR, INDEX + 50_000)
    assert withdraw(exchange, "owner", 5).reason is Reason.OK
    assert exchange.liquidate("owner").reason is Reason.HEALTHY


# --- withdraw -----------------------------------------------------------------------------------


def test_withdraw__of_an_amount__makes_a_leaf_and_leaves_the_nonces(exchange: Exchange) -> None:
    before = exchange.account("owner")
    nonces = (before.nonce_floor, before.nonce_bitmap)
    out = withdraw(exchange, "owner", 300)
    assert (out.reason, out.amount, out.number) == (Reason.OK, 300, 0)
    account = exchange.account("owner")
    assert exchange.state.map.get(c.KEY_WITHDRAWAL) == int.from_bytes(account.owner, "big") << 64 | 300
    assert account.cash == 100_000 * USD - 300
    assert (account.nonce_floor, account.nonce_bitmap) == nonces


def test_withdraw__of_0__takes_all_cash_of_an_account_without_positions(exchange: Exchange) -> None:
    out = withdraw(exchange, "owner", 0)
    assert (out.reason, out.amount) == (Reason.OK, 100_000 * USD)
    assert exchange.account("owner").cash == 0
    assert withdraw(exchange, "owner", 0).reason is Reason.MARGIN


def test_withdraw__of_0__leaves_the_margin_of_positions_and_orders(exchange: Exchange, call: int) -> None:
    exchange.trade("maker", "owner", call, exchange.mark(call), 1_000)
    exchange.sell("owner", call, exchange.mark(call) + 5, 100)
    assert withdraw(exchange, "owner", 100_000 * USD).reason is Reason.MARGIN
    out = withdraw(exchange, "owner", 0)
    account = exchange.account("owner")
    margin.refresh(exchange.state, account)
    assert out.reason is Reason.OK
    assert 0 < out.amount < 100_000 * USD
    assert margin.free(exchange.state, account) == 0
    assert withdraw(exchange, "owner", 1).reason is Reason.MARGIN


def test_withdraw__of_0__is_bounded_by_cash(exchange: Exchange, call: int) -> None:
    exchange.trade("owner", "maker", call, exchange.mark(call), 1_000)
    out = withdraw(exchange, "owner", 0)
    assert out.reason is Reason.OK
    assert exchange.account("owner").cash >= 0


def test_withdraw__with_silent_feeds__pays_what_is_free_at_the_last_marks(
    exchange: Exchange, call: int
) -> None:
    exchange.trade("maker", "owner", call, exchange.mark(call), 1_000)
    account = exchange.account("owner")
    margin.refresh(exchange.state, account)
    free = margin.free(exchange.state, account)
    exchange.tick(silence_s(exchange) + 1)
    out = withdraw(exchange, "owner", 0)
    assert (out.reason, out.amount) == (Reason.OK, free)
    assert withdraw(exchange, "owner", 1).reason is Reason.MARGIN


def test_withdraw__under_auction__is_refused(exchange: Exchange, call: int) -> None:
    exchange.trade("owner", "maker", call, exchange.mark(call), 1_000)
    exchange.audits = False
    exchange.account("owner").auction_start = 1
    assert withdraw(exchange, "owner", 0).reason is Reason.UNHEALTHY


# --- cancel all ---------------------------------------------------------------------------------


def test_cancel_all__kills_every_older_order_and_frees_the_reserve(exchange: Exchange, call: int) -> None:
    for price in (5, 6, 7):
        exchange.buy("owner", call, price, 10)
    account = exchange.account("owner")
    nonces = (account.nonce_floor, account.nonce_bitmap)
    exchange.tick(0)
    out = exchange.unsigned(Kind.FORCED_CANCEL_ALL, account=exchange.numbers["owner"])
    account = exchange.account("owner")
    assert out.reason is Reason.OK
    assert (account.reserved, account.order_floor) == (0, out.seq)
    assert (account.nonce_floor, account.nonce_bitmap) == nonces
    fresh = exchange.buy("owner", call, 8, 1)
    assert fresh.rested is not None
    exchange.sell("maker", call, 5, 1)
    assert exchange.position("owner", call) == 1


# --- order --------------------------------------------------------------------------------------


def test_order__that_crosses_nothing__rests_under_its_own_seq(exchange: Exchange, call: int) -> None:
    out = order(exchange, "owner", call, price=50, quantity=7)
    assert out.reason is Reason.OK
    assert out.rested is not None
    assert (out.rested.seq, out.rested.quantity, out.rested.price) == (out.seq, 7, 50)
    assert exchange.state.globals.last_class == c.CLASS_SYSTEM


def test_order__that_crosses_more_than_three__goes_on_with_continue(exchange: Exchange, call: int) -> None:
    for number in range(5):
        exchange.sell("maker", call, 100 + number, 1)
    out = order(exchange, "owner", call, price=200, quantity=5)
    assert out.pending
    assert len(out.fills) == c.STEPS_MAX
    assert exchange.unsigned(Kind.FORCED_CANCEL_ALL, account=2).reason is Reason.TAKER_PENDING
    out = exchange.proceed()
    assert (len(out.fills), out.pending) == (2, False)
    assert exchange.position("owner", call) == 5
    assert exchange.unsigned(Kind.FORCED_CANCEL_ALL, account=2).reason is Reason.OK


def test_order__pays_the_queue_what_it_allows_at_most(exchange: Exchange, call: int) -> None:
    g = exchange.state.globals
    excess, treasury = g.excess, g.treasury
    out = order(exchange, "owner", call)
    assert out.fee == g.treasury - treasury > 0
    assert g.excess == excess + 1
    g.excess = 10**9  # who orders everything could fill the queue with its own
    exchange.tick(0)
    assert exchange.buy("maker", call, 1, 1, flags=c.FLAG_REDUCE_ONLY).reason is Reason.FEE_ABOVE_MAX
    assert exchange.buy("maker", call, 1, 1).reason is Reason.RESTRICTED
    out = order(exchange, "owner", call, fee_max=3)
    assert (out.reason, out.fee) == (Reason.OK, 3 * c.FEE_MAX_UNIT)
    out = order(exchange, "owner", call, fee_max=0)
    assert (out.reason, out.fee) == (Reason.OK, 0)


def test_order__is_refused_for_the_reasons_of_place(exchange: Exchange, call: int) -> None:
    time = exchange.state.globals.time
    assert order(exchange, "owner", call, flags=c.FLAGS_UNUSED).reason is Reason.FLAGS
    assert order(exchange, "owner", call, flags=3 << c.FLAG_TIF_SHIFT).reason is Reason.FLAGS
    assert order(exchange, "owner", call, quantity=0).reason is Reason.QUANTITY
    assert order(exchange, "owner", call, price=0).reason is Reason.PRICE
    assert order(exchange, "owner", call, expires=time).reason is Reason.EXPIRED
    assert order(exchange, "owner", call + 1).reason is Reason.UNKNOWN_INSTRUMENT
    assert order(exchange, "owner", call, flags=c.FLAG_REDUCE_ONLY).reason is Reason.REDUCE_ONLY
    assert order(exchange, "owner", call, price=10**6, quantity=10**6).reason is Reason.MARGIN
    assert order(exchange, "owner", call, flags=c.TIF_FOK << 1, price=9).reason is Reason.FOK_UNFILLED
    exchange.sell("maker", call, 100, 1)
    crossing = order(exchange, "owner", call, flags=c.FLAG_POST_ONLY, price=100)
    assert crossing.reason is Reason.POST_ONLY_CROSSES
    exchange.state.globals.breaker_level = QueueState.RESTRICTED
    assert order(exchange, "owner", call).reason is Reason.RESTRICTED
    exchange.state.globals.breaker_level = QueueState.HALTED
    assert order(exchange, "owner", call).reason is Reason.HALTED
    exchange.state.globals.breaker_level = 0
    exchange.tick_at(expiry_time(FAR))
    assert order(exchange, "owner", call).reason is Reason.INSTRUMENT_EXPIRED


def test_order__with_silent_feeds_or_under_auction__is_refused(exchange: Exchange, call: int) -> None:
    exchange.audits = False
    exchange.account("owner").auction_start = 1
    assert order(exchange, "owner", call).reason is Reason.UNHEALTHY
    exchange.tick(silence_s(exchange) + 1)
    assert order(exchange, "owner", call).reason is Reason.RISK_STALE


def test_order__reduce_only__closes_at_most_the_position(exchange: Exchange, call: int) -> None:
    exchange.trade("owner", "maker", call, exchange.mark(call), 10)
    exchange.buy("maker", call, 50, 100)
    flags = c.SELL | c.FLAG_REDUCE_ONLY | c.TIF_IOC << 1
    out = order(exchange, "owner", call, flags=flags, price=50, quantity=99)
    assert [fill.quantity for fill in out.fills] == [10]
    assert exchange.position("owner", call) == 0


# --- liquidate ----------------------------------------------------------------------------------


def test_liquidate__does_what_liquidate_does(exchange: Exchange, call: int) -> None:
    exchange.deposit("debtor", 20_000)
    exchange.trade("maker", "debtor", call, exchange.mark(call), 9_000)
    debtor = exchange.numbers["debtor"]
    assert exchange.system(Kind.FORCED_LIQUIDATE, account=debtor).reason is Reason.HEALTHY
    exchange.remark(INDEX * 13 // 8)
    g = exchange.state.globals
    out = exchange.system(Kind.FORCED_LIQUIDATE, account=debtor)
    assert (out.reason, exchange.account("debtor").auction_start) == (Reason.OK, g.time)
    assert exchange.system(Kind.FORCED_LIQUIDATE, account=debtor).reason is Reason.UNHEALTHY


# --- bid ----------------------------------------------------------------------------------------


@pytest.fixture
def auctioned(exchange: Exchange, call: int) -> int:
    """`debtor` is on auction; `owner`, who holds nothing, may bid."""
    exchange.deposit("debtor", 20_000)
    exchange.trade("maker", "debtor", call, exchange.mark(call), 9_000)
    exchange.remark(INDEX * 13 // 8)
    assert exchange.liquidate("debtor").reason is Reason.OK
    return call


def bid(exchange: Exchange, role: str, target: str, fraction: int = 64, cash_max: int = 2**63 - 1) -> Outcome:
    numbers = {"account": exchange.numbers[role], "target": exchange.numbers[target]}
    return exchange.system(Kind.FORCED_BID, **numbers, fraction=fraction, cash_max=cash_max)


def test_bid__does_what_bid_does_without_a_nonce(exchange: Exchange, auctioned: int) -> None:
    g = exchange.state.globals
    count, nonces = g.inbox_count, exchange.account("owner").nonce_floor
    assert bid(exchange, "owner", "owner").reason is Reason.UNKNOWN_ACCOUNT
    assert bid(exchange, "owner", "maker").reason is Reason.NO_AUCTION
    assert bid(exchange, "debtor", "debtor").reason is Reason.UNKNOWN_ACCOUNT
    assert bid(exchange, "owner", "debtor", 0).reason is Reason.FRACTION
    assert bid(exchange, "owner", "debtor", 64, -(2**63)).reason is Reason.CASH_MAX
    out = bid(exchange, "owner", "debtor", 64)
    assert (out.reason, out.number) == (Reason.OK, exchange.numbers["debtor"])
    assert exchange.position("owner", auctioned) == -9_000 // 4
    assert g.inbox_count == count + 6
    assert exchange.account("owner").nonce_floor == nonces


def test_bid__on_old_marks_that_risk_can_renew__waits_for_it(exchange: Exchange, auctioned: int) -> None:
    g = exchange.state.globals
    exchange.tick(exchange.state.params.risk_age_max_s + 1)
    exchange.feeds(INDEX * 13 // 8)
    exchange.resurface()
    count = g.inbox_count
    fields = {"account": exchange.numbers["owner"], "target": exchange.numbers["debtor"]}
    raw = codec.encode(Kind.FORCED_BID, **fields, fraction=64, cash_max=2**63 - 1)
    assert exchange.apply(raw).reason is Reason.RISK_DUE
    assert g.inbox_count == count
    assert forced.pages_to_mark(exchange.state, raw) == [auctioned >> 5]
    assert exchange.risk(auctioned).reason is Reason.OK
    assert exchange.apply(raw).reason is Reason.OK
    assert g.inbox_count == count + 1


def test_bid__of_an_account_with_old_marks__waits_for_those_of_its_own(
    exchange: Exchange, auctioned: int
) -> None:
    other = exchange.list(FAR + 1, INDEX)
    assert exchange.surface(FAR + 1).reason is Reason.OK
    assert exchange.risk(other).reason is Reason.OK
    g = exchange.state.globals
    g.queue_state = g.breaker_level = QueueState.NORMAL
    exchange.trade("maker", "owner", other, exchange.mark(other), 5)
    exchange.tick(exchange.state.params.risk_age_max_s + 1)
    exchange.feeds(INDEX * 13 // 8)
    exchange.resurface()
    assert exchange.risk(auctioned).reason is Reason.OK
    assert bid(exchange, "owner", "debtor").reason is Reason.RISK_DUE
    assert exchange.risk(other).reason is Reason.OK
    assert bid(exchange, "owner", "debtor").reason is Reason.OK
