"""What margin does not see between its moves is lent to whoever holds it.

A long straddle at a strike between two of the seven moves had no loss at either, and hardly any IM: bought on credit
from an account of the same owner, it fell to its strike, and the pool paid. With 420 USD of collateral, 20 straddles
and a move of 1 %: a deficit of 13,600 USD before, nothing now. The other cases are offsets that are none, and floors
for nothing.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from sequencer.market.portfolio import evaluate, read_portfolio
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Reason
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CONTRACT, FEEDS, INDEX, NEAR, Exchange

DAY = 86_400
YEAR = 31_536_000
STRIKE = 4_900_000
STRADDLES = 20


@pytest.mark.parametrize(
    ("hours", "iv", "cash"), [(6, 0.3, 420), (3, 0.4, 420), (12, 0.3, 700), (20, 0.45, 6_000)]
)
def test_straddles_on_credit__at_a_strike_between_the_moves__leave_no_deficit(
    hours: int, iv: float, cash: int
) -> None:
    exchange = Exchange()
    exchange.tick_at(expiry_time(NEAR) - hours * 3_600)
    for source in range(FEEDS):
        exchange.feed(INDEX, source)
    call, put = exchange.list(NEAR, STRIKE, 0), exchange.list(NEAR, STRIKE, 1)
    assert exchange.surface(NEAR, a=int(iv * iv * hours * 3_600 / YEAR * 1e12)).reason is Reason.OK
    assert exchange.risk(call).reason is Reason.OK
    for role, usd in (("treasury", 1), ("buyer", cash), ("seller", 3_000_000), ("bidder", 1_000_000)):
        exchange.deposit(role, usd)
    lots = STRADDLES * CONTRACT
    for instrument in (put, call):
        exchange.sell("seller", instrument, max(1, exchange.mark(instrument)), lots)
        exchange.buy("buyer", instrument, max(1, exchange.mark(instrument)), lots, tif=c.TIF_IOC)
    for price in (4_950_000, STRIKE):
        exchange.feeds(price)
        assert exchange.surface(NEAR, forward=price, index=price, a=1).reason is Reason.OK
        assert exchange.risk(call).reason is Reason.OK
        exchange.liquidate("buyer")
        if exchange.account("buyer").auction_start:
            assert exchange.bid("bidder", "buyer", 64).reason is Reason.OK
    buyer = exchange.account("buyer")
    margin.refresh(exchange.state, buyer)
    assert margin.equity(buyer) >= 0
    assert exchange.state.globals.deficit == 0


@pytest.mark.parametrize("strike", range(4_300_000, 5_750_000, 50_000))
def test_long_straddles__at_any_strike__hold_what_they_lose_at_it(strike: int) -> None:
    """A day before expiry; the index goes to the strike and stays there for the horizon."""
    got = im(leg("call", strike // 100, "1", 1), leg("put", strike // 100, "1", 1))
    after = im(
        *(leg(kind, strike // 100, "1", 0.75, iv="0.45", forward=strike // 100) for kind in ("call", "put"))
    )
    assert got["initial_margin"] >= Decimal("0.99") * min(got["value"], got["value"] - after["value"])


def leg(
    kind: str, strike: int, quantity: str, days: float, iv: str = "0.6", **more: object
) -> dict[str, object]:
    """A position at an index of 50,000 USD."""
    given = {"type": kind, "forward": 50_000, "strike": strike, "iv": iv, "quantity": quantity, **more}
    return {name: str(value) for name, value in given.items()} | {"expires_in": int(days * DAY)}


def im(*legs: dict[str, object], index: object = "50000") -> dict[str, Decimal]:
    result = evaluate(read_portfolio(json.dumps({"index": index, "positions": legs}).encode()))
    return {name: result[name] for name in ("initial_margin", "value")}


def test_offset__of_one_underlying_by_another__is_none() -> None:
    """Short a BTC call, long ETH calls of the same notional: 500 USD before, though either can move alone."""
    both = {"BTC": "50000", "ETH": "3000"}
    short = leg("call", 50_000, "-1", 30, underlying="BTC")
    long = leg("call", 3_000, "16.67", 30, forward=3_000, underlying="ETH")
    assert im(short, long, index=both)["initial_margin"] >= im(short, index=both)["initial_margin"] > 7_000


def test_calendar__whose_front_falls_further_than_its_back__holds_the_difference() -> None:
    """Short a 180-day straddle, long five of seven days; front -39 %, back -15 % loses 4,000: IM was 1,010."""
    legs = [(kind, quantity, days) for quantity, days in (("-1", 180), ("5", 7)) for kind in ("call", "put")]
    now = im(*(leg(kind, 50_000, quantity, days) for kind, quantity, days in legs))
    ivs = {180: 0.6 * 0.854, 7: 0.6 * 0.613}
    then = im(*(leg(kind, 50_000, quantity, days, iv=f"{ivs[days]:.4f}") for kind, quantity, days in legs))
    loss = now["value"] - then["value"]
    assert loss > 3_000
    assert now["initial_margin"] >= loss


@pytest.mark.parametrize("days", [0.5, 1, 7, 30, 180])
@pytest.mark.parametrize("low", [30_000, 47_300, 50_000, 52_600, 90_000])
def test_box__holds_next_to_nothing(days: float, low: int) -> None:
    """Long a call and short a put at one strike, the other way round at another: 1,000 before, at no risk."""
    high = low + 1_000
    legs = (("call", low, "1"), ("call", high, "-1"), ("put", high, "1"), ("put", low, "-1"))
    box = im(*(leg(*one, days) for one in legs))
    assert box["initial_margin"] <= Decimal("0.0005") * 50_000


def test_call_spread__a_hundred_wide__holds_what_it_can_lose_and_no_floor_for_a_bare_short() -> None:
    """538 before, and 54 to lose."""
    spread = im(leg("call", 50_000, "-1", 30), leg("call", 50_100, "1", 30))
    assert 45 < spread["initial_margin"] < 250


def test_worthless_hedges__do_not_free_shorts_of_every_floor() -> None:
    """A long one that costs nothing takes the net short's floor away; the one on gross shorts bounds what is sold."""
    bare = im(leg("call", 90_000, "-1000", 1))
    hedged = im(leg("call", 90_000, "-1000", 1), leg("call", 150_000, "1000", 1))
    assert bare["initial_margin"] >= 1_000 * 500
    assert hedged["initial_margin"] >= 1_000 * 5


def test_a_short_that_nothing_covers_after_the_first_expiry__keeps_its_floor() -> None:
    """A long call of tomorrow is no hedge of a call of next month once it is gone."""
    assert im(leg("call", 50_000, "-1", 30), leg("call", 50_000, "1", 1))["initial_margin"] > 500
