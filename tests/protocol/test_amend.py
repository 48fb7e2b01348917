"""AMEND: what keeps its place and what loses it, one outcome, and who may ask for what."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, QueueState, Reason
from sequencer.protocol.entries import Taker
from sequencer.protocol.outcome import Outcome

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, CONTRACT, FAR, INDEX, NEAR, USD, Exchange, address, examples, reopened

IOC = c.TIF_IOC
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


def rested(out: Outcome) -> Order:
    assert out.rested is not None, out.reason
    return out.rested


def book(exchange: Exchange, instrument: int, side: int) -> list[tuple[int, int, int]]:
    """(account, price, lots) of a side, best first."""
    found = exchange.state.books.get(instrument)
    return [] if found is None else [(one.account, one.price, one.quantity) for one in found.orders(side)]


def unchanged(exchange: Exchange, before: dict[int, bytes]) -> bool:
    """Whether nothing but GLOBAL (seq, work, the tick that the helper opens) differs from `before`."""
    now = dict(exchange.state.preimages())
    return now.keys() == before.keys() and {key for key in now if now[key] != before[key]} <= {c.KEY_GLOBAL}


# --- less, in its place ---------------------------------------------------------------------------------


def test_less_of_an_order__keeps_its_place_and_its_key(exchange: Exchange, call: int) -> None:
    first = rested(exchange.sell("maker", call, P, 5))
    exchange.sell("third", call, P, 5)
    reserved = exchange.account("maker").reserved
    out = exchange.amend("maker", first, 2)
    assert (out.reason, out.fills, out.rested, out.amended) == (Reason.OK, [], None, first)
    assert exchange.account("maker").reserved * 5 == reserved * 2
    assert exchange.account("maker").orders == 1
    assert book(exchange, call, c.SELL) == [(2, P, 2), (4, P, 5)]
    fills = exchange.buy("taker", call, P, 4, tif=IOC).fills
    assert [(fill.maker, fill.maker_seq, fill.quantity) for fill in fills] == [
        (2, first.seq, 2),
        (4, first.seq + 1, 2),
    ]


def test_quantity__is_the_total__so_that_a_fill_in_flight_makes_no_raise_of_it(
    exchange: Exchange, call: int
) -> None:
    order = rested(exchange.sell("maker", call, P, 10))
    exchange.buy("taker", call, P, 6, tif=IOC)  # while its owner signs "8 in all"
    assert (order.filled, order.quantity) == (6, 4)
    out = exchange.amend("maker", order, 8)
    assert (out.reason, out.rested) == (Reason.OK, None)
    assert (order.filled, order.quantity) == (6, 2)
    exchange.buy("taker", call, P, 10, tif=IOC)
    assert exchange.position("maker", call) == -8


def test_total__counts_what_the_order_took_before_it_rested(exchange: Exchange, call: int) -> None:
    exchange.buy("taker", call, P, 4)
    order = rested(exchange.sell("maker", call, P, 10))
    assert (order.filled, order.quantity) == (4, 6)
    exchange.amend("maker", order, 5)
    assert (order.filled, order.quantity) == (4, 1)


def test_total__survives_what_a_taker_did_over_several_records(exchange: Exchange, call: int) -> None:
    for _ in range(5):
        exchange.sell("maker", call, P, 1)
    assert exchange.buy("taker", call, P, 9).pending
    order = rested(exchange.proceed())
    assert (order.filled, order.quantity) == (5, 4)


@pytest.mark.parametrize("total", [1, 6])
def test_total__at_most_what_has_traded__ends_the_order(exchange: Exchange, call: int, total: int) -> None:
    order = rested(exchange.sell("maker", call, P, 10))
    exchange.buy("taker", call, P, 6, tif=IOC)
    out = exchange.amend("maker", order, total, P + 500)
    assert (out.reason, out.removed, out.rested, out.amended) == (Reason.OK, [order], None, order)
    assert book(exchange, call, c.SELL) == []
    assert (exchange.account("maker").reserved, exchange.account("maker").orders) == (0, 0)


def test_amend__that_changes_nothing__keeps_all(exchange: Exchange, call: int) -> None:
    order = rested(exchange.sell("maker", call, P, 5))
    before = (order.seq, order.quantity, exchange.account("maker").reserved)
    assert exchange.amend("maker", order, 5).reason is Reason.OK
    assert (order.seq, order.quantity, exchange.account("maker").reserved) == before


def test_less__pays_the_calm_queues_fee_and_does_not_count_in_the_backlog(
    exchange: Exchange, call: int
) -> None:
    order = rested(exchange.sell("maker", call, P, 5))
    exchange.state.globals.excess = 80_000  # a PLACE pays sixteen times the least now
    before, excess = exchange.account("maker").cash, exchange.state.globals.excess
    out = exchange.amend("maker", order, 2)
    assert (out.fee, before - exchange.account("maker").cash) == (100, 100)
    assert exchange.state.globals.excess == excess
    assert exchange.amend("maker", order, 1, fee_max=0).reason is Reason.FEE_ABOVE_MAX
    assert order.quantity == 2


@pytest.mark.parametrize("level", [QueueState.RESTRICTED, QueueState.HALTED])
def test_less__when_the_queue_takes_no_orders__is_done(
    exchange: Exchange, call: int, level: QueueState
) -> None:
    order = rested(exchange.sell("maker", call, P, 5))
    exchange.state.globals.queue_state = exchange.state.globals.breaker_level = level
    raised = exchange.amend("maker", order, 6)
    assert raised.reason is (Reason.HALTED if level is QueueState.HALTED else Reason.RESTRICTED)
    assert (order.quantity, exchange.amend("maker", order, 2).reason, order.quantity) == (5, Reason.OK, 2)


def test_less__with_old_marks_or_without_margin__is_done(exchange: Exchange, call: int) -> None:
    order = rested(exchange.sell("maker", call, P, 5))
    exchange.tick(4_000)
    assert exchange.amend("maker", order, 6).reason is Reason.RISK_STALE
    exchange.account("maker").cash = 50  # less than the fee, which the reserve of three lots bears
    exchange.state.globals.deficit -= 1_000_000 * USD - 100 - 50
    out = exchange.amend("maker", order, 2)
    assert (out.reason, out.fee, exchange.account("maker").cash, order.quantity) == (Reason.OK, 100, -50, 2)


# --- another order in its place -------------------------------------------------------------------------


def test_more__loses_the_place(exchange: Exchange, call: int) -> None:
    first = rested(exchange.sell("maker", call, P, 5))
    exchange.sell("third", call, P, 5)
    out = exchange.amend("maker", first, 6)
    assert (out.amended, out.removed) == (first, [first])
    assert rested(out).seq == out.seq
    assert book(exchange, call, c.SELL) == [(4, P, 5), (2, P, 6)]
    assert exchange.account("maker").orders == 1


def test_another_price__loses_the_place_and_takes_what_it_crosses(exchange: Exchange, call: int) -> None:
    exchange.buy("taker", call, P - 100, 3)
    order = rested(exchange.sell("maker", call, P, 10, flags=STP))
    exchange.buy("third", call, P, 2, tif=IOC)
    excess = exchange.state.globals.excess
    out = exchange.amend("maker", order, 9, P - 100)
    assert [(fill.maker, fill.quantity) for fill in out.fills] == [(3, 3)]
    left = rested(out)
    assert (left.price, left.quantity, left.filled, left.flags) == (P - 100, 4, 5, c.SELL | STP)
    assert (exchange.account("maker").orders, exchange.state.globals.excess) == (1, excess + 1)
    assert exchange.account("maker").reserved == left.reserve_rate * 4


def test_a_new_order__keeps_its_time_and_its_flags(exchange: Exchange, call: int) -> None:
    until = exchange.state.globals.time + 100
    order = rested(exchange.sell("maker", call, P, 5, flags=POST, expires=until))
    left = rested(exchange.amend("maker", order, 5, P + 1, expires=until - 50))
    assert (left.expires, left.flags) == (until, c.SELL | POST)
    assert exchange.amend("maker", left, 5, P, expires=exchange.state.globals.time).reason is Reason.EXPIRED


def test_an_amend_that_crosses_more_than_three__goes_on_as_a_taker(exchange: Exchange, call: int) -> None:
    order = rested(exchange.buy("taker", call, P - 100, 9))
    for _ in range(5):
        exchange.sell("maker", call, P, 1)
    out = exchange.amend("taker", order, 9, P)
    assert (len(out.fills), out.pending, out.rested) == (3, True, None)
    assert exchange.amend("taker", order, 8).reason is Reason.TAKER_PENDING
    left = rested(exchange.proceed())
    assert (left.seq, left.filled, left.quantity) == (out.seq, 5, 4)


def test_a_refused_amend__leaves_the_order_as_it_was(exchange: Exchange, call: int) -> None:
    exchange.sell("taker", call, P + 100, 5)
    order = rested(exchange.buy("maker", call, P, 5, flags=POST))
    exchange.tick()
    before = dict(exchange.state.preimages())
    refused = {
        Reason.MARGIN: exchange.amend("maker", order, 2**40 - 1),
        Reason.FEE_ABOVE_MAX: exchange.amend("maker", order, 6, fee_max=0),
        Reason.POST_ONLY_CROSSES: exchange.amend("maker", order, 5, P + 200),
        Reason.QUANTITY: exchange.amend("maker", order, 0),
        Reason.PRICE: exchange.amend("maker", order, 5, 0),
        Reason.FLAGS: exchange.amend("maker", order, 4, flags=order.flags ^ STP),
        Reason.UNKNOWN_ORDER: exchange.amend("maker", order, 4, seq=order.seq + 1),
        Reason.NOT_OWNER_OF_ORDER: exchange.amend("taker", order, 4),
        Reason.BAD_SIGNATURE: exchange.amend("maker", order, 4, by="taker"),
    }
    assert {reason: out.reason for reason, out in refused.items()} == {reason: reason for reason in refused}
    assert all(out.amended is None for out in refused.values())
    assert unchanged(exchange, before)
    nonce = exchange.account("maker").nonce_floor
    assert exchange.amend("maker", order, 4, nonce=nonce).reason is Reason.OK  # nor was a nonce used
    assert exchange.amend("maker", order, 4, nonce=nonce).reason is Reason.NONCE_WINDOW


def test_amend__of_a_dead_order__says_so(exchange: Exchange, call: int) -> None:
    near = exchange.state.instruments[NEAR << 32 | INDEX]
    now = exchange.state.globals.time
    timed = rested(exchange.sell("maker", call, P, 5, expires=now + 10))
    last = rested(exchange.buy("taker", near, 100, 5))
    ended = rested(exchange.sell("third", call, P + 1, 5))
    exchange.buy("maker", call, 100, 5)
    idle = rested(exchange.sell("maker", near, 90_000, 5))
    exchange.trade("taker", "third", call, P - 500, 3)
    closing = rested(exchange.sell("taker", call, P + 5_000, 3, flags=REDUCE))
    exchange.trade("third", "taker", call, P - 400, 3)
    exchange.cancel_all("third")
    exchange.tick(10)
    for role, order in (("maker", timed), ("third", ended), ("taker", closing)):
        assert exchange.amend(role, order, 1).reason is Reason.ORDER_DEAD
        assert exchange.amend(role, order, 9, order.price + 1).reason is Reason.ORDER_DEAD
    assert exchange.amend("maker", idle, 4).reason is Reason.OK
    exchange.tick(NEAR * c.DAY_S + c.EXPIRY_OF_DAY_S - exchange.state.globals.time)
    assert exchange.amend("taker", last, 1).reason is Reason.ORDER_DEAD
    assert exchange.cancel("maker", call, c.SELL, P, timed.seq).reason is Reason.OK  # a CANCEL takes it out


def test_a_reduce_only_order__grows_to_what_closes(exchange: Exchange, call: int) -> None:
    exchange.trade("taker", "maker", call, P, 5)
    order = rested(exchange.sell("taker", call, P + 500, 2, flags=REDUCE))
    left = rested(exchange.amend("taker", order, 9))
    assert (left.quantity, left.flags) == (5, c.SELL | REDUCE)


def test_a_session_key__may_amend_in_its_scope(exchange: Exchange, call: int) -> None:
    order = rested(exchange.sell("maker", call, P, 5))
    until = exchange.state.globals.time + 1_000
    for role, scope in (("trader", c.SCOPE_TRADE), ("payer", c.SCOPE_WITHDRAW)):
        grant = {"signer": address(role), "scope": scope, "signer_expires": until}
        exchange.submit(Kind.SET_SIGNER, "maker", **grant)
    assert exchange.amend("maker", order, 4, by="payer").reason is Reason.SCOPE
    assert exchange.amend("maker", order, 4, by="trader").reason is Reason.OK


def test_class__of_less_at_the_same_price__is_before_takers(exchange: Exchange, call: int) -> None:
    order = rested(exchange.sell("maker", call, P, 5))
    exchange.tick()
    exchange.buy("taker", call, 100, 1, tif=IOC)
    assert exchange.state.globals.last_class == c.CLASS_TAKER
    nonce = exchange.account("maker").nonce_floor
    fields = {"instrument": call, "flags": order.flags, "price": P, "seq": order.seq, "new_price": P}
    fields |= {"account": 2, "quantity": 4, "nonce": nonce, "expires": 0, "fee_max": 1}
    raw = exchange.signed(Kind.AMEND, "maker", **fields)
    assert exchange.apply(raw).reason is Reason.CLASS_ORDER
    exchange.tick()
    assert exchange.apply(raw).reason is Reason.OK
    assert exchange.state.globals.last_class == c.CLASS_POST_ONLY


# --- the same as what it stands for ---------------------------------------------------------------------

SIDES = st.sampled_from([c.BUY, c.SELL])
STEP = 50_000


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, object]:
    """A book, one's own order in it, and another size and price for it."""
    near = st.integers(-4, 4)
    return {
        "book": draw(st.lists(st.tuples(SIDES, near, st.integers(1, 6)), max_size=8)),
        "own": (draw(SIDES), draw(near), draw(st.integers(1, 12)), draw(st.sampled_from([0, POST, STP]))),
        "later": draw(st.lists(st.tuples(SIDES, near, st.integers(1, 6)), max_size=4)),
        "new": (draw(st.integers(1, 14)), draw(near)),
    }


def played(scene: dict[str, object], amends: bool) -> tuple[Exchange, Outcome] | None:
    """The scene up to its change, by AMEND, or by CANCEL and a PLACE of what is wanted beyond what has traded."""
    exchange = Exchange(**CALM)
    (call,) = exchange.open((FAR, INDEX, 0))
    for role in ("treasury", "maker", "taker"):
        exchange.deposit(role, 1_000_000)
    for side, price, lots in scene["book"]:  # type: ignore[attr-defined]
        exchange.place("maker", call, side, P + STEP * price, lots * CONTRACT)
        while exchange.state.globals.taker is not None:
            exchange.proceed()
    side, price, lots, flags = scene["own"]  # type: ignore[misc]
    order = exchange.place("taker", call, side, P + STEP * price, lots * CONTRACT, flags=flags).rested
    while exchange.state.globals.taker is not None:
        order = exchange.proceed().rested
    for one, at, size in scene["later"]:  # type: ignore[attr-defined]
        exchange.place("maker", call, one, P + STEP * at, size * CONTRACT)
        while exchange.state.globals.taker is not None:
            exchange.proceed()
    if order is None or exchange.state.find_order(call, side, order.price, order.seq) is None:
        return None
    total, at = scene["new"]  # type: ignore[misc]
    if total * CONTRACT <= order.filled:
        return None
    if amends:
        out = exchange.amend("taker", order, total * CONTRACT, P + STEP * at)
    else:
        exchange.cancel("taker", call, side, order.price, order.seq)
        out = exchange.place(
            "taker", call, side, P + STEP * at, total * CONTRACT - order.filled, flags=order.flags & ~1
        )
    while exchange.state.globals.taker is not None:
        exchange.proceed()
    return exchange, out


@settings(max_examples=examples(60), deadline=None)
@given(scenes())
def test_amend__leaves_what_cancel_and_place_leave__or_all_as_it_was(scene: dict[str, object]) -> None:
    amended, plain = played(scene, True), played(scene, False)
    if amended is None or plain is None:
        assert amended is plain
        return
    (one, out), (two, placed) = amended, plain
    call = one.state.instruments[FAR << 32 | INDEX]
    cash = {role: (one.account(role).cash, two.account(role).cash) for role in ("maker", "taker")}
    if out.amended is not None and out.amended not in out.removed:
        return  # less in its place: what CANCEL and PLACE cannot do
    if out.reason is not Reason.OK:
        assert (placed.reason, out.amended) == (out.reason, None)
        return
    assert placed.reason is Reason.OK
    assert all(a == b for a, b in cash.values())
    assert [one.position(role, call) for role in cash] == [two.position(role, call) for role in cash]
    assert [one.account(role).reserved for role in cash] == [two.account(role).reserved for role in cash]
    for side in (c.BUY, c.SELL):
        assert book(one, call, side) == book(two, call, side)


def test_state_with_filled_orders__built_again__goes_on_the_same(exchange: Exchange, call: int) -> None:
    order = rested(exchange.sell("maker", call, P, 10))
    exchange.buy("taker", call, P, 6, tif=IOC)
    twin = reopened(exchange.state)
    assert twin.root() == exchange.state.root()
    again = twin.find_order(call, c.SELL, P, order.seq)
    assert again is not None
    assert again.filled == 6
    taker = Taker(1, 2, 3, 4, 5, 6, 7, 2**40 - 1)
    assert Taker.from_word(taker.word()).filled == 2**40 - 1
