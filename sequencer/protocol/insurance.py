"""The insurance fund, and what happens beyond it.

`pool` is the vault's money that belongs to the accounts together; `deficit` is what their cash adds up to beyond it.
While there is a deficit every withdrawal pays its part of it: amount x pool / (pool + deficit). That ratio stays the
same for all who remain, so that the loss is shared pro rata whenever they leave; a deposit is credited the other
way round, so that newcomers bear none. Income of the fund fills the deficit first.
"""

from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol.entries import Account, Global
from sequencer.protocol.state import State

CREDIT_RATIO_MAX: Final = 2**16  # a deposit into an all but empty pool is not multiplied without bound


def charge(state: State, account: Account, amount: int, fund_share_ppm: int) -> None:
    """Moves a fee (<= pool) from `account` to the fund (its share, floor) and the treasury."""
    if amount == 0:
        return
    g = state.globals
    account.cash -= amount
    g.pool -= amount
    share = amount * fund_share_ppm // c.PPM
    g.treasury += amount - share
    _income(g, share)


def _income(g: Global, amount: int) -> None:
    repaid = min(g.deficit, amount)
    g.deficit -= repaid
    g.pool += repaid
    g.fund += amount - repaid


def cover(state: State, account: Account) -> None:
    """An account without positions that owes money is brought to zero: by the fund, then by all (deficit).

    Its orders die: nothing stands behind their reserve.
    """
    if account.positions or account.cash >= 0:
        return
    g = state.globals
    need = -account.cash
    paid = min(g.fund, need)
    account.cash = 0
    account.order_floor = g.seq
    account.reserved = 0
    g.fund -= paid
    g.pool += paid
    g.deficit += need - paid


def payout(g: Global, amount: int) -> int:
    """What a withdrawal of `amount` pays, floor; 0 when the pool cannot carry it."""
    if g.deficit == 0:
        return amount if amount <= g.pool else 0
    whole = g.pool + g.deficit
    return amount * g.pool // whole if amount <= whole else 0


def credit(g: Global, amount: int) -> int:
    """What a deposit of `amount` is credited, floor; into an empty pool with a deficit, the greatest ratio."""
    if g.deficit == 0:
        return amount
    most = amount * CREDIT_RATIO_MAX
    return min(amount * (g.pool + g.deficit) // g.pool, most) if g.pool else most
