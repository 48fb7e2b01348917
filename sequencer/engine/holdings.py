"""What options are worth in volatility, and what accounts hold: cost, profit and loss, greeks.

Volatilities and greeks are those of the page: at its forward, at the time when it was marked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sequencer.amounts import cash, contracts, usd
from sequencer.engine.ledger import Ledger
from sequencer.genesis import UNDERLYINGS
from sequencer.market.greeks import (
    NO_GREEKS,
    Sensitivity,
    decimal,
    decimal_iv,
    iv_of_price,
    iv_of_variance,
    variance_of_iv,
)
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.black76 import Greeks, greeks
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.state import State, instrument_expiry_time

PRICES_KEPT: Final = 16  # volatilities of prices, an option


@dataclass(slots=True)
class Quote:
    """An option at its mark. `iv_e6` None: it has no mark, or one that no volatility gives."""

    page: Page
    time: int
    forward: int
    mark: int
    remaining_s: int
    iv_e6: int | None
    greeks: Greeks
    by_price: dict[int, int | None] = field(default_factory=dict)


class Quotes:
    """Volatilities and greeks of options, remembered until their page is marked anew."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._quotes: dict[int, Quote] = {}

    def adopt(self, state: State) -> None:
        """Looks at `state` from now on."""
        self._state = state
        self._quotes = {}

    def quote(self, instrument: int) -> Quote:
        """The option at its mark. The volatility is the surface's; when that is not at hand, what gives the mark."""
        page = self._state.pages[instrument >> 5]
        row = instrument & 31
        mark = page.rows[row][0]
        known = self._quotes.get(instrument)
        if known is not None and (known.page, known.time, known.mark) == (page, page.time, mark):
            return known
        strike, is_put = page.terms[row] & 0x7FFF_FFFF, bool(page.terms[row] >> 31)
        is_marked = row < page.marked and page.time not in (0, c.MARKED_FOR_GOOD)
        remaining_s = max(instrument_expiry_time(instrument) - page.time, 0) if is_marked else 0
        iv_e6, sensitivity = None, NO_GREEKS
        if row < page.marked:
            variance = page.variances.get(strike)
            if variance is None:
                iv_e6 = iv_of_price(page.forward, strike, is_put, mark, remaining_s)
                variance = 0 if iv_e6 is None else variance_of_iv(iv_e6, remaining_s)
            else:
                iv_e6 = iv_of_variance(variance, remaining_s)
            sensitivity = greeks(page.forward, strike, is_put, variance, remaining_s)
        found = Quote(page, page.time, page.forward, mark, remaining_s, iv_e6, sensitivity)
        self._quotes[instrument] = found
        return found

    def iv_of(self, instrument: int, price: int | None) -> int | None:
        """Volatility (1e-6) that a price in ticks implies at the page's forward and time; None without one."""
        if price is None:
            return None
        quote = self.quote(instrument)
        if price in quote.by_price:
            return quote.by_price[price]
        if len(quote.by_price) >= PRICES_KEPT:
            quote.by_price.clear()
        word = quote.page.terms[instrument & 31]
        found = iv_of_price(quote.forward, word & 0x7FFF_FFFF, bool(word >> 31), price, quote.remaining_s)
        quote.by_price[price] = found
        return found

    def shown(self, instrument: int, bid: int | None, ask: int | None) -> dict[str, Any]:
        """The ticker's part: volatilities as fractions of 1, greeks of one contract."""
        quote = self.quote(instrument)
        one = quote.greeks
        return {
            "mark_iv": decimal_iv(quote.iv_e6),
            "bid_iv": decimal_iv(self.iv_of(instrument, bid)),
            "ask_iv": decimal_iv(self.iv_of(instrument, ask)),
            "greeks": {
                "delta": decimal(one.delta_e12, 12),
                "gamma": decimal(one.gamma_e18, 18),
                "vega": decimal(one.vega_e10, 10),
                "theta": decimal(one.theta_e10, 10),
            },
        }


def positions(
    state: State, account: Account, number: int, ledger: Ledger, quotes: Quotes, names: Any
) -> list[dict[str, Any]]:
    """What an account holds, at the marks. `names(instrument)`: its name."""
    out = []
    for instrument, lots in sorted(account.positions.items()):
        mark = state.pages[instrument >> 5].rows[instrument & 31][0]
        basis = ledger.position(number, instrument)
        sensitivity = Sensitivity()
        sensitivity.add(lots, quotes.quote(instrument).greeks)
        known = basis is not None and basis.lots == lots
        row: dict[str, Any] = {
            "instrument": names(instrument),
            "number": instrument,
            "quantity": contracts(lots),
            "mark": usd(mark),
            "value": cash(lots * mark),
            "average_price": None,
            "cost": None,
            "unrealised_pnl": None,
            "realised_pnl": None,
        }
        if basis is not None and known:
            row["average_price"] = cash(basis.average_e6())
            row["cost"] = cash(basis.cost)
            row["unrealised_pnl"] = cash(lots * mark - basis.cost)
            row["realised_pnl"] = cash(basis.realised)
        out.append({**row, "greeks": sensitivity.shown()})
    return out


def totals(
    state: State, account: Account, number: int, ledger: Ledger, quotes: Quotes, is_whole: bool
) -> dict[str, Any]:
    """An account's profit and loss, and its greeks by underlying. Without a whole ledger there are no sums."""
    total = ledger.total(number)
    value = cost = 0
    by_underlying: dict[int, Sensitivity] = {}
    for instrument, lots in sorted(account.positions.items()):
        value += lots * state.pages[instrument >> 5].rows[instrument & 31][0]
        basis = ledger.position(number, instrument)
        cost += basis.cost if basis is not None else 0
        by_underlying.setdefault(instrument >> 28, Sensitivity()).add(lots, quotes.quote(instrument).greeks)
    return {
        "net_deposits": cash(total.net) if is_whole else None,
        "realised_pnl": cash(total.realised) if is_whole else None,
        "unrealised_pnl": cash(value - cost) if is_whole else None,
        "fees_paid": cash(total.fees) if is_whole else None,
        "covered": cash(total.covered) if is_whole else None,
        "greeks": {UNDERLYINGS[one]: found.shown() for one, found in by_underlying.items()},
    }


def margin_statement(
    state: State, account: Account, number: int, name: Callable[[int], str]
) -> dict[str, Any]:
    """Positions x risk arrays of an account, so that anybody can redo its margin; `name` of an instrument."""
    margin.refresh(state, account)
    rows = []
    for instrument, quantity in sorted(account.positions.items()):
        page = state.pages[instrument >> 5]
        mark, pnl = page.rows[instrument & 31]
        rows.append(
            {
                "instrument": name(instrument),
                "number": instrument,  # what is on one page (number >> 5) can be covered
                "quantity_lots": quantity,
                "mark_ticks": mark,
                "index_ticks": page.index,
                "forward_ticks": page.forward,
                "scenarios_ticks": list(pnl),
            }
        )
    return {
        "account": number,
        "cash": account.cash,
        "value": account.sums.value,
        "underlyings": {
            UNDERLYINGS[underlying]: {
                "scenario_sums": list(one.net),
                "uncovered_long_sums": list(one.longs),
                "floor": one.floor(*margin.floors(state, underlying)),
                "worst": one.worst(state.shocks[number].third_ppm),
            }
            for underlying, one in sorted(account.sums.exposures.items())
        },
        "initial_margin": margin.initial(state, account),
        "maintenance_margin": margin.maintenance(state, account),
        "equity": margin.equity(account),
        "reserved": account.reserved,
        "order_hold": account.orders * state.params.order_hold,
        "positions": rows,
    }
