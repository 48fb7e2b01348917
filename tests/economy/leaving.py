"""What everybody would leave with if the exchange were frozen now: the naive twin of Exit's rule.

value = cash + sum of lots x the last proven mark; of a fixed expiry its settlement price's intrinsic value. Who owes
pays nothing. If what there is (pool and fund) is less than all claims, each has its share of it.
"""

from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State


def value(state: State, account: Account) -> int:
    """1e-6 USD; may be negative."""
    total = account.cash
    for instrument, lots in account.positions.items():
        expiry, page = state.expiries[instrument >> 12], state.pages[instrument >> 5]
        terms = page.terms[instrument & 31]
        if expiry.settled:
            total += lots * intrinsic(expiry.settlement, terms & 0x7FFF_FFFF, bool(terms >> 31))
        else:
            total += lots * page.rows[instrument & 31][0]
    return total


def payouts(state: State) -> tuple[dict[int, int], int]:
    """What each account is paid, and what is left for the house (treasury and what nobody claims)."""
    g = state.globals
    claims = {number: max(value(state, account), 0) for number, account in state.accounts.items()}
    total, available = sum(claims.values()), g.pool + g.fund
    paid = (
        claims if total <= available else {number: one * available // total for number, one in claims.items()}
    )
    return paid, g.treasury + available - sum(paid.values())
