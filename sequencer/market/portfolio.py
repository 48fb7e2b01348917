"""Margin of a portfolio that somebody describes in a file: the exchange's own margin on pages made for it."""

from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from sequencer.market.quant import total_variance_e12
from sequencer.protocol import constants as c
from sequencer.protocol import margin, risk_array
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.params import Params
from sequencer.protocol.state import State

MICRO = Decimal(1_000_000)
POSITIONS_MAX = c.POSITIONS_MAX


class PortfolioError(ValueError):
    """A portfolio that cannot be read; names the field and the limit."""


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """One option held: quantity in contracts, negative when short; prices in USD; expires_in seconds."""

    type: Literal["call", "put"]
    forward: str
    strike: str
    iv: str
    expires_in: int
    quantity: str


class Portfolio(msgspec.Struct, forbid_unknown_fields=True):
    """Cash and index in USD."""

    index: str
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
    """IM, MM, equity, free margin and the 16 scenario results, in USD, by the integer core."""
    state = State(bytes(32), params or Params())
    account = Account(bytes(20))
    account.cash = _scaled(portfolio.cash, 10**6, "cash", -(2**62), 2**62)
    index = _scaled(portfolio.index, 100, "index", 1, c.U32_MAX)
    if len(portfolio.positions) > POSITIONS_MAX:
        raise PortfolioError(f"positions: at most {POSITIONS_MAX}, got {len(portfolio.positions)}")
    for number, position in enumerate(portfolio.positions):
        where = f"positions[{number}]."
        forward = _scaled(position.forward, 100, where + "forward", 1, c.U32_MAX)
        strike = _scaled(position.strike, 100, where + "strike", 1, 2**31 - 1)
        quantity = _scaled(position.quantity, 10**4, where + "quantity", -(2**40), 2**40)
        if not 0 <= position.expires_in <= c.U32_MAX:
            raise PortfolioError(f"{where}expires_in must be from 0 to {c.U32_MAX}")
        try:
            variance = total_variance_e12(position.iv, position.expires_in)
        except (ValueError, InvalidOperation) as error:
            raise PortfolioError(f"{where}iv: {error}") from error
        page_id = number // c.PAGE_ROWS
        page = state.pages.setdefault(page_id, Page())
        page.index = index
        page.terms.append((position.type == "put") << 31 | strike)
        page.rows.append(
            risk_array.scenarios(forward, strike, position.type == "put", variance, state.shocks)
        )
        if quantity:
            account.positions[page_id << 5 | number % c.PAGE_ROWS] = quantity
    state.epoch += 1
    margin.refresh(state, account)
    return {
        "initial_margin": Decimal(margin.initial(state, account)) / MICRO,
        "maintenance_margin": Decimal(margin.maintenance(state, account)) / MICRO,
        "equity": Decimal(margin.equity(account)) / MICRO,
        "free": Decimal(margin.free(state, account)) / MICRO,
        "value": Decimal(account.sums[0]) / MICRO,
        "worst_scenario": min(range(c.SCENARIOS), key=lambda i: account.sums[3 + i]),
        "scenarios": [Decimal(one) / MICRO for one in account.sums[3:]],
    }
