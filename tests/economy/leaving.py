"""What everybody would leave with if the exchange were frozen now: the naive twin of Exit's rule.

value = cash + sum of lots x the last proven mark; of an expiry that has passed, the intrinsic value at its settlement
price, at that of its two snapshots, or at the index. Who owes pays nothing. If what there is (pool and fund) is less
than all claims, each has its share of it.
"""

from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State, expiry_time


def value(state: State, account: Account) -> int:
    """1e-6 USD; may be negative."""
    total = account.cash
    for instrument, lots in account.positions.items():
        key, page = instrument >> 12, state.pages[instrument >> 5]
        terms = page.terms[instrument & 31]
        if state.globals.time < expiry_time(key & 0xFFFF):
            total += lots * page.rows[instrument & 31][0]
        else:
            total += lots * intrinsic(_price(state, key), terms & 0x7FFF_FFFF, bool(terms >> 31))
    return total


def _price(state: State, key: int) -> int:
    expiry, underlying = state.expiries[key], state.underlyings[key >> 16]
    if expiry.settled:
        return expiry.settlement
    for snapshot in underlying.snapshots:
        if snapshot.day == key & 0xFFFF and snapshot.has_start and snapshot.has_end:
            sum_of_prices = (snapshot.cumulative_end - snapshot.cumulative_start) % 2**64
            return min((sum_of_prices + 900) // 1_800, 2**32 - 1)
    return underlying.index


def payouts(state: State) -> tuple[dict[int, int], int]:
    """What each account is paid, and what is left for the house (treasury and what nobody claims)."""
    g = state.globals
    claims = {number: max(value(state, account), 0) for number, account in state.accounts.items()}
    total, available = sum(claims.values()), g.pool + g.fund
    paid = (
        claims if total <= available else {number: one * available // total for number, one in claims.items()}
    )
    return paid, g.treasury + available - sum(paid.values())
