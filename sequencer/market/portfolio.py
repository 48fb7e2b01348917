"""Margin of a portfolio that somebody describes in a file: the exchange's own margin on pages made for it."""

from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from sequencer.genesis import UNDERLYINGS
from sequencer.market.quant import PRECISION as EXACT
from sequencer.market.quant import forward_move, total_variance_e12
from sequencer.protocol import constants as c
from sequencer.protocol import margin, risk_array
from sequencer.protocol.black76 import greeks
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.params import Params
from sequencer.protocol.state import State

MICRO = Decimal(1_000_000)
GREEKS = ("delta", "gamma", "vega", "theta")
POSITIONS_MAX = c.POSITIONS_MAX
QUOTES_APART = 500  # forwards of one expiry whose quotes differ by 1/500 at most are one


class PortfolioError(ValueError):
    """A portfolio that cannot be read; names the field and the limit."""


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """One option held: quantity in contracts, negative when short; prices in USD; expires_in seconds.

    `underlying`: its name, where the portfolio's index is one for each; else BTC may be left out.
    """

    type: Literal["call", "put"]
    forward: str
    strike: str
    iv: str
    expires_in: int
    quantity: str
    underlying: str | None = None


class Portfolio(msgspec.Struct, forbid_unknown_fields=True):
    """Cash and index in USD; the index as one string, or by the name of the underlying."""

    index: str | dict[str, str]
    positions: list[Position]
    cash: str = "0"


def read_portfolio(data: bytes) -> Portfolio:
    """Raises PortfolioError."""
    try:
        return msgspec.json.decode(data, type=Portfolio)
    except msgspec.MsgspecError as error:
        raise PortfolioError(f"portfolio: {error}") from error


def _scaled(text: str, per_unit: int, field: str, low: int, high: int) -> int:
    """A decimal as a whole number of units."""
    try:
        value = Decimal(text) * per_unit
    except InvalidOperation:
        raise PortfolioError(f"{field} must be a decimal number, got {text!r}") from None
    if not value.is_finite() or value != value.to_integral_value():
        raise PortfolioError(f"{field} must be a multiple of {Decimal(1) / per_unit}, got {text!r}")
    if not low <= value <= high:
        raise PortfolioError(
            f"{field} must be from {Decimal(low) / per_unit} to {Decimal(high) / per_unit}, got {text!r}"
        )
    return int(value)


def evaluate(portfolio: Portfolio, params: Params | None = None) -> dict[str, Any]:
    """IM, MM, equity, free margin, greeks, the 16 scenario results and each leg's part, in USD, by the integer core.

    The scenario results are summed over the underlyings; IM is not their worst, because each underlying counts for
    itself, and so does what lies between its moves (`underlyings`).
    """
    state = State(bytes(32), params or Params())
    account = Account(bytes(20))
    account.cash = _scaled(portfolio.cash, 10**6, "cash", -(2**62), 2**62)
    indices = _indices(portfolio)
    if len(portfolio.positions) > POSITIONS_MAX:
        raise PortfolioError(f"positions: at most {POSITIONS_MAX}, got {len(portfolio.positions)}")
    pages = _Pages(state, indices)
    legs: list[tuple[int, int]] = []  # instrument, lots
    for number, position in enumerate(portfolio.positions):
        legs.append(pages.put(position, f"positions[{number}]."))
    state.epoch += 1
    account.positions = _summed(legs)
    margin.refresh(state, account)
    exposures = sorted(account.sums.exposures.items())
    scenarios = [sum(one.net[i] for _, one in exposures) for i in range(c.SCENARIOS)]
    worst = min(range(c.SCENARIOS), key=scenarios.__getitem__)
    sensitivities = [
        _greeks(state, position, instrument, lots)
        for position, (instrument, lots) in zip(portfolio.positions, legs, strict=True)
    ]
    return {
        "initial_margin": Decimal(margin.initial(state, account)) / MICRO,
        "maintenance_margin": Decimal(margin.maintenance(state, account)) / MICRO,
        "equity": Decimal(margin.equity(account)) / MICRO,
        "free": Decimal(margin.free(state, account)) / MICRO,
        "value": Decimal(account.sums.value) / MICRO,
        "worst_scenario": worst,
        "scenarios": [Decimal(one) / MICRO for one in scenarios],
        "labels": _labels(state, [number for number, _ in exposures]),
        "underlyings": {
            UNDERLYINGS[number]: {
                "floor": Decimal(one.floor(*margin.floors(state, number))) / MICRO,
                "worst": Decimal(one.worst(state.shocks[number].third_ppm)) / MICRO,
                "scenarios": [Decimal(total) / MICRO for total in one.net],
                "greeks": {
                    name: sum(
                        (
                            of[name]
                            for of, (instrument, _) in zip(sensitivities, legs, strict=True)
                            if instrument >> 28 == number
                        ),
                        Decimal(0),
                    )
                    for name in GREEKS
                },
            }
            for number, one in exposures
        },
        "legs": _legs(state, portfolio, legs, sensitivities, worst),
    }


def _labels(state: State, underlyings: list[int]) -> list[str]:
    """What each scenario is: the forward's move, of each underlying where they differ, and the volatility's shock."""
    out = []
    for place in range(c.SCENARIOS):
        moves = {UNDERLYINGS[number]: forward_move(state.shocks[number], place) for number in underlyings}
        if len(set(moves.values())) > 1:
            move = ", ".join(f"{name} {move}" for name, move in moves.items())
        else:
            move = next(iter(moves.values()), forward_move(state.shocks[0], place))
        out.append(
            f"forward {move}, vol {'as it is, in part' if place & 7 == 7 else 'up' if place < 8 else 'down'}"
        )
    return out


def _summed(legs: list[tuple[int, int]]) -> dict[int, int]:
    """Positions by instrument; what sums to nothing is none."""
    held: dict[int, int] = {}
    for instrument, lots in legs:
        held[instrument] = held.get(instrument, 0) + lots
    return {instrument: lots for instrument, lots in held.items() if lots}


def _initial(state: State, positions: dict[int, int]) -> int:
    """IM of these positions alone, 1e-6 USD."""
    account = Account(bytes(20))
    account.positions = positions
    margin.refresh(state, account)
    return margin.initial(state, account)


def _greeks(state: State, position: Position, instrument: int, lots: int) -> dict[str, Decimal]:
    """Greeks of the whole leg: delta and gamma in contracts per 1 USD of forward, vega a point, theta a day, in USD."""
    terms = state.pages[instrument >> 5].terms[instrument & 31]
    forward = _scaled(position.forward, 100, "forward", 1, c.U32_MAX)
    variance = total_variance_e12(position.iv, position.expires_in)
    one = greeks(forward, terms & 0x7FFF_FFFF, bool(terms >> 31), variance, position.expires_in)
    each = (one.delta_e12, 12), (one.gamma_e18, 18), (one.vega_e10, 10), (one.theta_e10, 10)
    return {
        name: Decimal(value * lots).scaleb(-digits - 4, EXACT)
        for name, (value, digits) in zip(GREEKS, each, strict=True)
    }


def _legs(
    state: State,
    portfolio: Portfolio,
    legs: list[tuple[int, int]],
    sensitivities: list[dict[str, Decimal]],
    worst: int,
) -> list[dict[str, Any]]:
    """Each leg's value, greeks and part in the margin."""
    whole = _initial(state, _summed(legs))
    out: list[dict[str, Any]] = []
    for number, (position, (instrument, lots)) in enumerate(zip(portfolio.positions, legs, strict=True)):
        mark, pnl = state.pages[instrument >> 5].rows[instrument & 31]
        without = _initial(state, _summed(legs[:number] + legs[number + 1 :]))
        out.append(
            {
                "type": position.type,
                "strike": position.strike,
                "expires_in": position.expires_in,
                "quantity": position.quantity,
                "value": Decimal(mark * lots) / MICRO,
                "adds_margin": Decimal(whole - without) / MICRO,
                "alone": Decimal(_initial(state, _summed([(instrument, lots)]))) / MICRO,
                "worst": Decimal(pnl[worst] * lots) / MICRO,
                **sensitivities[number],
            }
        )
    return out


def _indices(portfolio: Portfolio) -> dict[str, int]:
    """Index of each underlying that is given one, ticks; a single string is BTC's."""
    if isinstance(portfolio.index, str):
        return {UNDERLYINGS[0]: _scaled(portfolio.index, 100, "index", 1, c.U32_MAX)}
    for name in portfolio.index:
        if name not in UNDERLYINGS:
            raise PortfolioError(f"index: {name!r} is none of {', '.join(UNDERLYINGS)}")
    return {name: _scaled(text, 100, f"index.{name}", 1, c.U32_MAX) for name, text in portfolio.index.items()}


class _Pages:
    """Pages made for a portfolio: an expiry for each time to expiry; the same option twice is one row.

    A page has one forward. Forwards of an expiry that differ by no more than quotes do share a page, so that a call
    and a put of one strike stand together; others have pages of their own.
    """

    def __init__(self, state: State, indices: dict[str, int]) -> None:
        self.state = state
        self.indices = indices
        self.is_one = set(indices) == {UNDERLYINGS[0]}
        self.expiries: dict[tuple[int, int], int] = {}  # underlying, expires_in -> day
        self.listed: dict[
            tuple[int, ...], int
        ] = {}  # underlying, day, terms, forward, variance -> instrument

    def put(self, position: Position, where: str) -> tuple[int, int]:
        """The position's instrument and its lots. Raises PortfolioError naming the field."""
        underlying = self._underlying(position.underlying, where)
        forward = _scaled(position.forward, 100, where + "forward", 1, c.U32_MAX)
        strike = _scaled(position.strike, 100, where + "strike", 1, 2**31 - 1)
        quantity = _scaled(position.quantity, 10**4, where + "quantity", -(2**40), 2**40)
        if not 0 <= position.expires_in <= c.U32_MAX:
            raise PortfolioError(f"{where}expires_in must be from 0 to {c.U32_MAX}")
        try:
            variance = total_variance_e12(position.iv, position.expires_in)
        except (ValueError, InvalidOperation) as error:
            raise PortfolioError(f"{where}iv: {error}") from error
        day = self.expiries.setdefault((underlying, position.expires_in), len(self.expiries))
        is_put = position.type == "put"
        terms = is_put << 31 | strike
        option = underlying, day, terms, forward, variance
        instrument = self.listed.get(option)
        if instrument is None:
            instrument = self.listed[option] = self._list(underlying, day, terms, forward)
            shocks = self.state.shocks[underlying]
            left = shocks.left(position.expires_in)
            row = risk_array.scenarios(forward, strike, is_put, variance, shocks, left)
            self.state.pages[instrument >> 5].rows.append(row)
        return instrument, quantity

    def _underlying(self, name: str | None, where: str) -> int:
        if name is None and self.is_one:
            return 0
        if name not in self.indices:
            raise PortfolioError(f"{where}underlying must be one of {', '.join(self.indices)}, got {name!r}")
        return UNDERLYINGS.index(name)

    def _list(self, underlying: int, day: int, terms: int, forward: int) -> int:
        """A new row on the first page of the expiry with room for these terms at this forward."""
        page_id = underlying << 23 | day << 7
        while True:
            page = self.state.pages.setdefault(page_id, Page())
            apart = abs(page.forward - forward) * QUOTES_APART
            if not page.terms or (
                len(page.terms) < c.PAGE_ROWS and terms not in page.terms and apart <= page.forward
            ):
                break
            page_id += 1
        page.index = self.indices[UNDERLYINGS[underlying]]
        page.forward = max(page.forward, forward)
        page.terms.append(terms)
        return page_id << 5 | len(page.terms) - 1
