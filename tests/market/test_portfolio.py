"""Portfolios from files: the exchange's own margin, and errors that name the field."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from sequencer.market.portfolio import PortfolioError, evaluate, read_portfolio
from sequencer.market.quant import price_option
from sequencer.protocol.params import BTC, Params

INDEX = "46219.79"


def position(kind="call", strike="48000", quantity="1", iv="0.6748", expires_in=115_180, **changes):
    return {
        "type": kind,
        "forward": INDEX,
        "strike": strike,
        "iv": iv,
        "expires_in": expires_in,
        "quantity": quantity,
    } | changes


def margin(*positions, cash="0", **params):
    data = json.dumps({"cash": cash, "index": INDEX, "positions": positions}).encode()
    return evaluate(read_portfolio(data), Params(**params) if params else None)


def test_evaluate__nothing_but_cash__needs_no_margin():
    got = margin(cash="12.345678")
    assert got["initial_margin"] == got["maintenance_margin"] == got["value"] == 0
    assert got["equity"] == got["free"] == Decimal("12.345678")
    assert got["scenarios"] == [0] * 16


def test_evaluate__a_long_call__may_lose_at_most_its_mark():
    got = margin(position(quantity="2.5"))
    mark = Decimal("183.62")
    assert got["value"] == got["equity"] == mark * Decimal("2.5")
    assert got["initial_margin"] <= got["value"]
    assert got["free"] == got["equity"] - got["initial_margin"]


def test_evaluate__a_short_call__is_the_worst_scenario_and_the_floor():
    got = margin(position(quantity="-1"), cash="10000")
    scenarios = price_option("call", INDEX, "48000", "0.6748", 115_180)["scenarios"]
    assert got["scenarios"] == [-one for one in scenarios]
    assert got["worst_scenario"] == 15  # docs/RISK.md, worked example
    assert got["initial_margin"] == Decimal("6592.28") + Decimal("462.1979")
    assert got["maintenance_margin"] == (got["initial_margin"] * Decimal("0.8")).quantize(
        Decimal("1e-6"), "ROUND_CEILING"
    )
    assert got["equity"] == 10_000 - Decimal("183.62")


def test_evaluate__a_spread__needs_less_than_its_legs_apart():
    short, long = position(quantity="-1"), position(strike="50000", quantity="1")
    together = margin(short, long)["initial_margin"]
    assert together < margin(short)["initial_margin"]
    assert together == pytest.approx(
        2_000, abs=500
    )  # the strikes' distance bounds the loss, and the floor comes on top


def test_evaluate__other_parameters__are_used():
    free = replace(BTC, short_floor_ppm=0)
    got = margin(position(quantity="-1"), short_gross_ppm=0, underlyings=(free, free))
    assert got["initial_margin"] == Decimal("6592.28")


def test_evaluate__more_positions_than_rows_of_a_page__all_count():
    one = margin(position(quantity="1"))["value"]
    assert margin(*[position(quantity="1")] * 64)["value"] == 64 * one


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "portfolio: "),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"positions":[]}', "`index`"),
        (b'{"index":"1","positions":[],"leverage":3}', "`leverage`"),
        (b'{"index":1,"positions":[]}', "$.index"),
    ],
)
def test_read_portfolio__not_one__says_what_is_wrong(data, says):
    with pytest.raises(PortfolioError, match="portfolio: ") as caught:
        read_portfolio(data)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quantity": "0.00001"}, "positions[0].quantity must be a multiple of 0.0001, got '0.00001'"),
        ({"quantity": "much"}, "positions[0].quantity must be a decimal number, got 'much'"),
        ({"quantity": "NaN"}, "positions[0].quantity must be a multiple of 0.0001"),
        ({"quantity": "1e30"}, "positions[0].quantity must be from -"),
        ({"strike": "0"}, "positions[0].strike must be from 0.01 to 21474836.47"),
        ({"forward": "0.001"}, "positions[0].forward must be a multiple of 0.01"),
        ({"iv": "x"}, "positions[0].iv: "),
        ({"iv": "-0.1"}, "positions[0].iv: "),
        ({"expires_in": -1}, "positions[0].expires_in must be from 0 to 4294967295"),
    ],
)
def test_evaluate__a_field_out_of_range__names_it_and_its_limit(changes, says):
    with pytest.raises(PortfolioError) as caught:
        margin(position() | changes)
    assert says in str(caught.value)


def test_evaluate__too_many_positions__says_the_limit():
    with pytest.raises(PortfolioError, match="at most 64, got 65"):
        margin(*[position()] * 65)


BOTH = {"BTC": INDEX, "ETH": "3700"}
ETH = {"underlying": "ETH", "forward": "3700", "strike": "3800"}


def both(*positions, index=BOTH):
    return evaluate(read_portfolio(json.dumps({"index": index, "positions": positions}).encode()))


def test_evaluate__of_both_underlyings__offsets_nothing_between_them():
    short, long = position(quantity="-1", underlying="BTC"), position(quantity="12", **ETH)
    got = both(short, long)
    assert got["initial_margin"] == both(short)["initial_margin"] + both(long)["initial_margin"]
    assert got["scenarios"] == [
        a + b for a, b in zip(both(short)["scenarios"], both(long)["scenarios"], strict=True)
    ]
    parts = got["underlyings"]
    assert set(parts) == {"BTC", "ETH"}
    assert got["initial_margin"] == sum(one["floor"] - one["worst"] for one in parts.values())


@pytest.mark.parametrize(
    ("index", "changes", "says"),
    [
        (INDEX, {"underlying": "ETH"}, "positions[0].underlying must be one of BTC, got 'ETH'"),
        (BOTH, {}, "positions[0].underlying must be one of BTC, ETH, got None"),
        ({"BTC": INDEX, "SOL": "100"}, {"underlying": "BTC"}, "index: 'SOL' is none of BTC, ETH"),
        ({"BTC": INDEX, "ETH": "0"}, {"underlying": "BTC"}, "index.ETH must be from 0.01"),
        ({"ETH": "3700"}, {}, "positions[0].underlying must be one of ETH, got None"),
    ],
)
def test_evaluate__an_underlying_that_is_unclear__names_the_field(index, changes, says):
    with pytest.raises(PortfolioError) as caught:
        both(position() | changes, index=index)
    assert says in str(caught.value)


@pytest.mark.parametrize(("forward", "is_one"), [(INDEX, True), ("46250", True), ("46800", False)])
def test_evaluate__forwards_of_one_expiry__are_one_as_far_as_quotes_differ(forward, is_one):
    """A box whose puts were quoted at another forward: next to nothing, or what two expiries would hold."""
    strikes = (("46000", "1"), ("47000", "-1"))
    calls = [position(strike=strike, quantity=lots) for strike, lots in strikes]
    puts = [
        position("put", strike=strike, quantity=f"{-int(lots)}", forward=forward) for strike, lots in strikes
    ]
    assert (margin(*calls, *puts)["initial_margin"] < 150) is is_one


def test_evaluate__a_position_given_in_two_parts__is_one():
    parts = margin(position(quantity="1"), position(quantity="-3"))
    whole = margin(position(quantity="-2"))
    assert {name: value for name, value in parts.items() if name != "legs"} == {
        name: value for name, value in whole.items() if name != "legs"
    }


@pytest.mark.parametrize("cash", ["x", "0.0000001", "Infinity", "1e30"])
def test_evaluate__cash_that_is_none__names_it(cash):
    with pytest.raises(PortfolioError, match=r"^cash must be"):
        margin(cash=cash)
