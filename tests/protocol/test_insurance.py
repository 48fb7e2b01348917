"""The fund, the deficit, and the ratio in which a loss is shared."""

import sys
from fractions import Fraction
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import insurance
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account, Global
from sequencer.protocol.state import State

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import DOMAIN, USD, Exchange, examples, params

MONEY = st.one_of(st.integers(0, 1_000), st.integers(0, 2**62))


def pool(of: int, deficit: int) -> Global:
    g = Global()
    g.pool, g.deficit = of, deficit
    return g


@settings(max_examples=examples(300))
@given(MONEY, MONEY, st.integers(1, 2**62))
def test_payout__never_worsens_the_ratio_of_those_who_stay(money: int, deficit: int, amount: int) -> None:
    g = pool(money, deficit)
    paid = insurance.payout(g, amount)
    assert 0 <= paid <= min(amount, money)
    if paid:
        after = pool(money - paid, deficit - (amount - paid))
        assert after.deficit >= 0
        assert after.pool * (money + deficit) >= money * (after.pool + after.deficit)
    if deficit == 0:
        assert paid == (amount if amount <= money else 0)


@settings(max_examples=examples(300))
@given(MONEY, MONEY, st.integers(1, 2**48 - 1))
def test_credit__never_worsens_the_ratio_of_those_who_were_there(
    money: int, deficit: int, amount: int
) -> None:
    credited = insurance.credit(pool(money, deficit), amount)
    assert amount <= credited <= amount * 2**16
    after = pool(money + amount, deficit + credited - amount)
    assert after.pool * (money + deficit) >= money * (after.pool + after.deficit)
    if credited < amount * 2**16 and money:  # and a newcomer bears none of it, but for the rounding
        claim = Fraction((credited + 1) * after.pool, after.pool + after.deficit + 1)
        assert claim >= amount * (1 - Fraction(1, money + 1)) - 1


def test_credit__into_an_empty_pool_with_a_deficit__is_the_greatest_ratio() -> None:
    assert insurance.credit(pool(0, 1), 5) == 5 * 2**16
    assert insurance.credit(pool(0, 0), 5) == 5


@settings(max_examples=examples(200))
@given(st.integers(1, 2**60), st.integers(1, 2**60), st.lists(st.integers(1, 2**58), max_size=8))
def test_deposit_and_withdrawal__in_turn__gain_nothing(money: int, deficit: int, amounts: list[int]) -> None:
    g = pool(money, deficit)
    for amount in amounts:
        credited = insurance.credit(g, amount)
        g.pool += amount
        g.deficit += credited - amount
        paid = insurance.payout(g, credited)
        assert paid <= amount
        if paid:
            g.pool -= paid
            g.deficit -= credited - paid


def charged(fund: int, deficit: int, amount: int, share: int) -> Global:
    state = State(DOMAIN, params(), (0,))
    g = state.globals
    g.pool, g.deficit, g.fund = 10_000, deficit, fund
    account = Account(bytes(20))
    account.cash = 50
    insurance.charge(state, account, amount, share)
    assert account.cash == 50 - amount
    return g


def test_charge__without_a_deficit__goes_to_fund_and_treasury() -> None:
    g = charged(0, 0, 101, 500_000)
    assert (g.pool, g.fund, g.treasury, g.deficit) == (9_899, 50, 51, 0)


def test_charge__with_a_deficit__fills_it_first() -> None:
    g = charged(0, 30, 101, 500_000)
    assert (g.pool, g.fund, g.treasury, g.deficit) == (9_899 + 30, 20, 51, 0)
    g = charged(0, 300, 101, 1_000_000)
    assert (g.pool, g.fund, g.treasury, g.deficit) == (10_000, 0, 0, 199)


def test_cover__takes_from_the_fund_before_there_is_a_deficit() -> None:
    state = State(DOMAIN, params(), (0,))
    g = state.globals
    g.pool, g.fund, g.seq = 1_000, 60, 9
    account = Account(bytes(20))
    account.cash, account.reserved = -100, 7
    insurance.cover(state, account)
    assert (account.cash, account.reserved, account.order_floor) == (0, 0, 9)
    assert (g.pool, g.fund, g.deficit) == (1_060, 0, 40)


def test_cover__of_an_account_with_positions_or_without_debt__does_nothing() -> None:
    state = State(DOMAIN, params(), (0,))
    state.globals.fund = 60
    for cash, positions in ((-100, {1: 1}), (0, {}), (5, {})):
        account = Account(bytes(20))
        account.cash, account.positions, account.reserved = cash, dict(positions), 3
        insurance.cover(state, account)
        assert (account.cash, account.reserved, state.globals.fund) == (cash, 3, 60)


def test_withdrawals__under_a_deficit__share_it_pro_rata_in_any_order() -> None:
    exchange = Exchange()
    for role, usd in (("treasury", 0), ("first", 600), ("second", 300), ("third", 100)):
        exchange.deposit(role, usd)
    exchange.account("third").cash = -100 * USD  # 200 lost to the others
    exchange.account("first").cash += 200 * USD
    assert exchange.liquidate("third").reason is Reason.OK
    g = exchange.state.globals
    assert (g.pool, g.deficit) == (1_000 * USD, 100 * USD)
    paid = exchange.withdraw("first", 800 * USD).amount
    assert paid == 800 * USD * 10 // 11
    exchange.deposit("newcomer", 50)
    credited = exchange.account("newcomer").cash
    assert 55 * USD - credited in (0, 1)
    assert exchange.withdraw("second", 300 * USD).amount // USD == 272
    assert abs(exchange.withdraw("newcomer", credited).amount - 50 * USD) <= 1
    assert g.pool <= 2
    assert g.deficit <= 2


def test_loss_ratio__bounds_of_the_words__hold() -> None:
    g = pool(2**62, 2**127)
    g.deficit += insurance.credit(g, 2**48 - 1)
    assert Global.from_words(g.words()).deficit == g.deficit
    assert g.deficit < 2**128
    assert g.pool < c.U64_MAX
