"""Refusals for instruments, prices, sizes, flags, resting orders, queue state and marks."""

from itertools import islice
from typing import Final

from sequencer.amounts import cash, contracts, usd
from sequencer.errors import REFUSALS
from sequencer.protocol import constants as c
from sequencer.protocol import freshness, matching, orders
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, QueueState, Reason
from sequencer.protocol.queue import sequencing_fee
from sequencer.protocol.state import instrument_expiry_time
from sequencer.refusals.case import MONEY, SIZE, Case, Explainer, Explanation, moment, money, name_of, side_of
from sequencer.wire.names import expiry_name, terms_name

LOOKED_AT_MAX: Final = c.STEPS_MAX * c.PLAN_RECORDS_MAX  # resting orders, as many as a FOK meets
_TIFS: Final = ("GTC", "IOC", "FOK", "an unknown time in force")
_FLAGS: Final = (
    (c.FLAG_POST_ONLY, "post-only"),
    (c.FLAG_REDUCE_ONLY, "reduce-only"),
    (c.FLAG_STP_TAKER, "cancel_taker"),
)


def _unknown_instrument(case: Case) -> Explanation:
    state, values = case.state, case.values
    if case.kind == Kind.SURFACE:
        limit = "the day (since 1970) of a listed expiry"
        text = f"No such instrument is listed: day must be {limit}, got {values['day']}."
        return Explanation(text, "day", limit, values["day"])
    number, limit = values["instrument"], "the number of a listed instrument"
    expiry = state.expiries.get(number >> 12)
    if expiry is None or not expiry.listed:
        text = f"No such instrument is listed: number {number}. `instruments` lists the listed ones."
        return Explanation(text, "instrument", limit, number)
    first = number >> 12 << 12
    limit += f"; those of {expiry_name(number >> 12)} are {first} to {first + expiry.listed - 1}"
    return Explanation(
        f"No such instrument is listed: it must be {limit}, got {number}.", "instrument", limit, number
    )


def _instrument_expired(case: Case) -> Explanation:
    ends = instrument_expiry_time(case.values["instrument"])
    text = (
        f"The instrument has expired: {case.instrument} at {moment(ends)}, the exchange's time is {moment(case.time)}."
        " `instruments` lists the tradable ones."
    )
    more: dict[str, object] = {"expiry": ends, "time": case.time}
    return Explanation(text, "instrument", "one that has not expired", case.instrument, more=more)


def _terms(case: Case) -> Explanation:
    number, signed = case.values["instrument"], case.values["terms"]
    got = terms_name(number >> 28, number >> 12 & 0xFFFF, signed & 0x7FFF_FFFF, bool(signed >> 31))
    text = f"The signed text says {got}, the instrument is {case.instrument}: sign it again with that strike and type."
    return Explanation(text, "terms", f"those of {case.instrument}", got)


def _quantity(case: Case) -> Explanation:
    limit, got = f"at least one lot, {contracts(1)} contracts", contracts(case.values["quantity"])
    return Explanation(f"quantity: must be {limit}, got {got}.", "quantity", limit, got)


def _price(case: Case) -> Explanation:
    values = case.values
    name = "new_price" if "new_price" in values else "price"
    limit, got = f"at least one tick, {usd(1)} USD", usd(values[name])
    return Explanation(f"{name}: must be {limit}, got {got}.", name, limit, got)


def _shown(flags: int) -> str:
    words = [side_of(flags & c.FLAG_SIDE), _TIFS[flags >> c.FLAG_TIF_SHIFT & 3]]
    words += [word for bit, word in _FLAGS if flags & bit]
    if unused := flags & c.FLAGS_UNUSED:
        words.append(f"unused bits {unused:#x}")
    return ", ".join(words)


def _flags(case: Case) -> Explanation:
    got, order = _shown(case.values["flags"]), case.order() if case.kind == Kind.AMEND else None
    if order is not None:
        limit = f"the order's own: {_shown(order.flags)}"
        return Explanation(f"The flags of an amendment must be {limit}; got {got}.", "flags", limit, got)
    limit = "GTC, IOC or FOK, post-only with GTC alone, unused bits zero"
    text = f"The flags contradict each other: post-only goes with GTC alone, and unused bits are zero; got {got}."
    return Explanation(text, "flags", limit, got)


def _fee_above_max(case: Case) -> Explanation:
    values, order = case.values, case.order() if case.kind == Kind.AMEND else None
    fee, offered = sequencing_fee(case.state), values["fee_max"] * c.FEE_MAX_UNIT
    if order is not None and values["new_price"] == order.price and values["quantity"] <= _total(order):
        fee = case.state.params.sequencing_fee_min
    text = (
        f"The sequencing fee is above the order's fee_max: {money(fee)} USD is required, {money(offered)} USD"
        " is offered. Raise fee_max, or wait until the backlog falls."
    )
    return Explanation(
        text, "fee_max", f"at least {cash(fee)}", cash(offered), cash(fee), cash(offered), MONEY
    )


def _total(order: Order) -> int:
    return order.filled + order.quantity


# --- orders of the book -----------------------------------------------------------------------


def _living(case: Case, price: int) -> list[Order]:
    """The live orders that the record's order would meet up to `price`, best first; of the first LOOKED_AT_MAX."""
    state = case.state
    met = state.crossing(case.values["instrument"], case.side, price)
    return [
        one
        for one in islice(met, LOOKED_AT_MAX)
        if not orders.is_dead(state, state.accounts[one.account], one)
    ]


def _post_only_crosses(case: Case) -> Explanation:
    name = "new_price" if "new_price" in case.values else "price"
    price = case.values[name]
    best = next((one.price for one in _living(case, price)), price)
    relation = "above the best bid" if case.side else "below the best ask"
    limit, got = f"{relation}, {usd(best)}", usd(price)
    text = f"The post-only order would have traded at once: its price must be {limit} USD, got {got}."
    return Explanation(text, name, limit, got)


def _fok_unfilled(case: Case) -> Explanation:
    values = case.values
    there = sum(one.quantity for one in _living(case, values["price"]))
    need, got = contracts(values["quantity"]), contracts(there)
    text = (
        f"{REFUSALS[Reason.FOK_UNFILLED]} It asks for {need} contracts at {usd(values['price'])} USD or better; the"
        f" first {LOOKED_AT_MAX} orders have {got}, its own account's included."
    )
    return Explanation(text, "quantity", "the quantity that can be filled at once", need, need, got, SIZE)


def _reduce_only(case: Case) -> Explanation:
    held = case.account.positions.get(case.values["instrument"], 0)
    limit = f"a position for a {side_of(case.side)} to reduce, {'long' if case.side else 'short'}"
    text = (
        f"There is no position that this reduce-only order would reduce: it needs {limit}, and the account holds"
        f" {contracts(held)} contracts of {case.instrument}."
    )
    return Explanation(text, "reduce_only", limit, contracts(held))


def _position_limit(case: Case) -> Explanation:
    if case.kind == Kind.BID:
        text = (
            "Nothing of the portfolio can move to the bidder: no position of it has fresh marks and room within the"
            f" bidder's {c.POSITIONS_MAX} positions, {c.PAGES_MAX} pages and {_most()} contracts each."
        )
        count = len(case.account.positions)
        return Explanation(text, "positions", f"at most {c.POSITIONS_MAX}, in {c.PAGES_MAX} pages", count)
    positions: dict[int, int] = case.account.positions
    instrument: int = case.values["instrument"]
    held = positions.get(instrument)
    pages = {one >> 5 for one in positions}
    if held is not None or (len(positions) < c.POSITIONS_MAX and len(pages) < c.PAGES_MAX):
        lots = case.values["quantity"]
        after = (held or 0) + (-lots if case.side else lots)
        limit = f"from -{_most()} to {_most()} contracts"
        text = (
            f"quantity: the position in {case.instrument} must stay {limit}; it would be {contracts(after)}."
        )
        return Explanation(text, "quantity", limit, contracts(lots))
    if len(positions) >= c.POSITIONS_MAX:
        what, count, most = "positions", len(positions), c.POSITIONS_MAX
    else:
        what, count, most = "pages of instruments with positions", len(pages), c.PAGES_MAX
    text = f"An account holds at most {most} {what}, and has {count}: close one before {case.instrument}."
    return Explanation(text, "instrument", f"at most {most} {what}", count)


def _most() -> str:
    return contracts(c.POSITION_LOTS_MAX)


def _unknown_order(case: Case) -> Explanation:
    values, state = case.values, case.state
    seq = values["seq"]
    key = f"{side_of(case.side)} of {case.instrument} at {usd(values['price'])}"
    own = state.orders_of.get(values["account"], {}).get(seq)
    if own is not None:
        limit = f"{side_of(own.side)} of {name_of(case.state, own.instrument)} at {usd(own.price)}"
        text = f"No such order rests: order {seq} is a {limit}; got a {key}."
        return Explanation(text, "seq", limit, key)
    text = (
        f"No such order rests: number {seq}, a {key}. It has traded, was cancelled, has expired, or its key is wrong;"
        " `orders` lists the resting ones."
    )
    return Explanation(text, "seq", "the number of a resting order", seq)


def _not_owner(case: Case) -> Explanation:
    order = case.order()
    owner = order.account if order is not None else None
    seq, number = case.values["seq"], case.values["account"]
    text = f"The order belongs to another account: {seq} is account {owner}'s, got {number}."
    return Explanation(text, "account", f"{owner}, the order's owner", number)


def _order_dead(case: Case) -> Explanation:
    order, time = case.order(), case.time
    assert order is not None  # it was found, and is dead
    if order.seq < case.account.order_floor:
        why = "it was cancelled by cancel-all"
    elif 0 < order.expires <= time:
        why = f"it expired at {moment(order.expires)}, the exchange's time is {moment(time)}"
    elif time >= instrument_expiry_time(order.instrument):
        why = f"its instrument expired at {moment(instrument_expiry_time(order.instrument))}"
    elif matching.is_idle(case.account, order):
        why = "it is reduce-only, and there is nothing left to reduce"
    else:
        why = "its reserve no longer covers its loss at the marks"
    text = f"The order is dead: {why}. It can only be cancelled; place another."
    return Explanation(text, "seq", "the number of an order that can still trade", case.values["seq"])


# --- when -------------------------------------------------------------------------------------


def _until(case: Case) -> str:
    g = case.state.globals
    if g.breaker_level:
        return f"until a fresh, calm index after {moment(g.breaker_until)}: the index moved too far too fast"
    return f"until the backlog of {g.excess} orders is below {case.state.params.restricted_excess}"


def _queue_state(case: Case, text: str, limit: str, state: QueueState) -> Explanation:
    g = case.state.globals
    more: dict[str, object] = {"time": case.time}
    if g.breaker_level:
        more["until"] = g.breaker_until
    return Explanation(f"{text}, {_until(case)}.", "queue_state", limit, state.name, more=more)


def _restricted(case: Case) -> Explanation:
    text = "Only cancels, reduce-only orders, liquidations and withdrawals are accepted now"
    return _queue_state(case, text, "NORMAL or CONGESTED, or reduce_only", QueueState.RESTRICTED)


def _halted(case: Case) -> Explanation:
    return _queue_state(
        case, "No order is accepted now, only cancels", "NORMAL or CONGESTED", QueueState.HALTED
    )


def _risk_stale(case: Case) -> Explanation:
    state, params, values = case.state, case.state.params, case.values
    found = [values["instrument"] >> 5] if "instrument" in values else []
    for name in ("account", "target"):
        account = state.accounts.get(values.get(name, 0))
        found += freshness.unfit_pages(state, account) if account is not None else []
    ages = [(state.pages[one].time, one) for one in found if one in state.pages]
    limit = (
        f"made in the last {params.risk_age_max_s} s, at an index within {params.mark_move_max_ppm / 10_000:g} % of the"
        f" present one, at most {params.mark_skew_max_s} s apart"
    )
    if not ages:
        return Explanation(f"{REFUSALS[Reason.RISK_STALE]} They must be {limit}.", "marks", limit, None)
    time, page_id = min(ages)
    made = f"were made at {moment(time)}" if time else "have not been made yet"
    text = (
        f"The marks for this record are too old: those of {expiry_name(page_id >> 7)} {made}, the exchange's time is"
        f" {moment(case.time)}; they must be {limit}. Try again once they are refreshed, mostly within seconds."
    )
    return Explanation(text, "marks", limit, time, more={"time": case.time})


EXPLAINERS: Final[dict[Reason, Explainer]] = {
    Reason.UNKNOWN_INSTRUMENT: _unknown_instrument,
    Reason.INSTRUMENT_EXPIRED: _instrument_expired,
    Reason.TERMS: _terms,
    Reason.QUANTITY: _quantity,
    Reason.PRICE: _price,
    Reason.FLAGS: _flags,
    Reason.FEE_ABOVE_MAX: _fee_above_max,
    Reason.RESTRICTED: _restricted,
    Reason.HALTED: _halted,
    Reason.RISK_STALE: _risk_stale,
    Reason.POST_ONLY_CROSSES: _post_only_crosses,
    Reason.FOK_UNFILLED: _fok_unfilled,
    Reason.REDUCE_ONLY: _reduce_only,
    Reason.POSITION_LIMIT: _position_limit,
    Reason.UNKNOWN_ORDER: _unknown_order,
    Reason.NOT_OWNER_OF_ORDER: _not_owner,
    Reason.ORDER_DEAD: _order_dead,
}
