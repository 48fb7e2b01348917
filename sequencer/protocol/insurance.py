"""The insurance fund, and what happens beyond it.

`pool` is the vault's money that belongs to the accounts together; `deficit` is what their cash adds up to beyond it
(negative: what the pool holds beyond their cash). A **hole** is what an account's equity was below nothing when it was
last marked; `holes` is their sum. What the accounts can claim and what there is for it:

    held      = pool + min(fund, holes)
    shortfall = max(0, deficit + max(0, holes - fund))

Whoever turns claims into money, by a withdrawal or a fee, gets amount x held / (held + shortfall). That ratio stays
the same for all who remain, and when a hole is covered, so that a loss is shared pro rata whenever they leave. A hole
may also close again: what withdrawals left behind for it then goes to the fund. Money that becomes a claim is credited
the other way round, but at the deficit alone: for holes, too, a deposit would win what the others lose when they close.
"""

from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol.entries import Account, Global
from sequencer.protocol.state import State

CREDIT_RATIO_MAX: Final = 2**16  # a deposit into an all but empty pool is not multiplied without bound


def charge(state: State, account: Account, amount: int, fund_share_ppm: int) -> None:
    """Turns a fee (a claim, <= pool) of `account` into money: of the fund (its share, floor) and of the treasury."""
    if amount == 0:
        return
    g = state.globals
    account.cash -= amount
    paid = payout(g, amount)
    take(g, amount, paid)
    share = paid * fund_share_ppm // c.PPM
    g.treasury += paid - share
    repaid = min(max(g.deficit, 0), share)
    g.deficit -= repaid
    g.pool += repaid
    g.fund += share - repaid


def take(g: Global, amount: int, paid: int) -> None:
    """Takes what a claim of `amount`, which an account has given up, pays out of the pool."""
    g.pool -= paid
    g.deficit -= amount - paid


def bring(g: Global, amount: int) -> int:
    """Brings `amount` of money into the pool; the claim for it."""
    credited = credit(g, amount)
    g.pool += amount
    g.deficit += credited - amount
    return credited


def hole_of(g: Global, account: Account, equity: int) -> int:
    """The hole of an account of this equity; at most what `holes` has room for (2^64, where the Vault holds 2^62)."""
    return min(max(-equity, 0), c.U64_MAX - (g.holes - account.hole))


def recognise(g: Global, account: Account, hole: int) -> None:
    """The account's hole is now `hole`."""
    g.holes += hole - account.hole
    account.hole = hole
    release(g)


def release(g: Global) -> None:
    """Without a hole, what the pool holds beyond the accounts' cash is the fund's."""
    if g.holes or g.deficit >= 0:
        return
    surplus = min(-g.deficit, g.pool)
    g.deficit += surplus
    g.pool -= surplus
    g.fund += surplus


def cover(state: State, account: Account) -> bool:
    """An account without positions has no hole, and one that owes money is brought to zero: by the fund, then by all.

    Then (True) its orders die: nothing stands behind their reserve.
    """
    if account.positions or (account.cash >= 0 and account.hole == 0):
        return False
    g = state.globals
    is_short = account.cash < 0
    if is_short:
        need = -account.cash
        paid = min(g.fund, need)
        account.cash = 0
        account.order_floor = g.seq
        account.reserved = 0
        g.fund -= paid
        g.pool += paid
        g.deficit += need - paid
    recognise(g, account, 0)
    return is_short


def shortfall(g: Global) -> int:
    """What the accounts' claims are above what there is for them."""
    return max(0, g.deficit + max(0, g.holes - g.fund))


def payout(g: Global, amount: int) -> int:
    """What a claim of `amount` pays, floor; 0 when the pool cannot carry it."""
    short = shortfall(g)
    held = g.pool + min(g.fund, g.holes)
    paid = amount * held // (held + short) if short else amount
    return paid if amount <= held + short and paid <= g.pool else 0


def credit(g: Global, amount: int) -> int:
    """What money of `amount` is credited, floor; into an empty pool with a deficit, the greatest ratio."""
    if g.deficit <= 0:
        return amount
    most = amount * CREDIT_RATIO_MAX
    return min(amount * (g.pool + g.deficit) // g.pool, most) if g.pool else most
