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


def pool(of: int, deficit: int, fund: int = 0, holes: int = 0) -> Global:
    g = Global()
    g.pool, g.deficit, g.fund, g.holes = of, deficit, fund, holes
    return g


def ratio(g: Global) -> Fraction:
    """What a claim of 1 is worth."""
    held = g.pool + min(g.fund, g.holes)
    return Fraction(held, held + insurance.shortfall(g)) if held else Fraction(0)


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
@given(MONEY, st.integers(-(2**62), 2**62), MONEY, MONEY, st.integers(1, 2**62))
def test_payout__under_hidden_losses__never_worsens_the_ratio_either(
    money: int, deficit: int, fund: int, holes: int, amount: int
) -> None:
    g = pool(money, deficit, fund, holes)
    before = ratio(g)
    paid = insurance.payout(g, amount)
    assert 0 <= paid <= min(amount, money)
    if paid:
        assert paid <= amount * before < paid + 1
        insurance.take(g, amount, paid)
        assert ratio(g) >= before or g.pool + min(fund, holes) == 0


@settings(max_examples=examples(300))
@given(MONEY, st.integers(0, 2**62), MONEY, st.lists(st.integers(1, 2**60), min_size=1, max_size=5))
def test_cover__of_every_hole__leaves_the_ratio_as_it_was(
    money: int, deficit: int, fund: int, holes: list[int]
) -> None:
    """Whether somebody leaves before a loss is realised or after it makes no difference."""
    state = State(DOMAIN, params(), (0,))
    g = state.globals
    g.pool, g.deficit, g.fund = money, deficit if not fund else 0, fund
    accounts = []
    for hole in holes:
        account = Account(bytes(20))
        account.cash = -hole
        insurance.recognise(g, account, insurance.hole_of(g, account, account.cash))
        accounts.append(account)
    before, short = ratio(g), insurance.shortfall(g)
    for account in accounts:
        insurance.cover(state, account)
        assert (account.cash, account.hole) == (0, 0)
        assert insurance.shortfall(g) == short
    assert (g.holes, ratio(g)) == (0, before)


def test_hole_that_closes__leaves_the_fund_what_withdrawals_have_left_for_it() -> None:
    state = State(DOMAIN, params(), (0,))
    g = state.globals
    g.pool = 1_000
    account = Account(bytes(20))
    account.positions = {1: -1}
    insurance.recognise(g, account, 100)
    assert insurance.payout(g, 110) == 100
    insurance.take(g, 110, 100)
    assert (g.pool, g.deficit, insurance.shortfall(g)) == (900, -10, 90)
    insurance.recognise(g, account, 4)
    assert (g.pool, g.deficit, g.fund, insurance.shortfall(g)) == (900, -10, 0, 0)
    assert insurance.payout(g, 110) == 110
    insurance.recognise(g, account, 0)
    assert (g.pool, g.deficit, g.fund, g.holes) == (890, 0, 10, 0)


def test_surplus__that_the_pool_does_not_hold__stays_a_negative_deficit() -> None:
    g = pool(4, -10, 0, 5)
    account = Account(bytes(20))
    account.hole = 5
    insurance.recognise(g, account, 0)
    assert (g.pool, g.deficit, g.fund) == (0, -6, 4)


def test_deposit__under_a_hidden_loss__gains_nothing_when_it_closes() -> None:
    """At the rate of a withdrawal it would be credited 110 for 100, and the others would pay for it."""
    g = pool(1_000, 0, 0, 100)
    assert insurance.bring(g, 100) == 100
    account = Account(bytes(20))
    account.hole = 100
    insurance.recognise(g, account, 0)
    assert (g.pool, g.deficit, g.fund) == (1_100, 0, 0)


def test_holes__fill_their_word_and_no_more() -> None:
    g = Global()
    first, second = Account(bytes(20)), Account(bytes(20))
    insurance.recognise(g, first, insurance.hole_of(g, first, 9 - 2**64))
    assert (first.hole, g.holes) == (2**64 - 9, 2**64 - 9)
    insurance.recognise(g, second, insurance.hole_of(g, second, -(2**80)))
    assert (second.hole, g.holes) == (8, c.U64_MAX)
    insurance.recognise(g, first, insurance.hole_of(g, first, -1))
    assert g.holes == first.hole + second.hole == 9


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
        credited = insurance.bring(g, amount)
        paid = insurance.payout(g, credited)
        assert paid <= amount
        if paid:
            insurance.take(g, credited, paid)


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
    g = charged(
        0, 30, 101, 500_000
    )  # 101 are worth 100; one of the deficit goes with them, and the fund's half fills it
    assert (g.pool, g.fund, g.treasury, g.deficit) == (9_900 + 29, 21, 50, 0)
    g = charged(0, 300, 103, 1_000_000)
    assert (g.pool, g.fund, g.treasury, g.deficit) == (10_000, 0, 0, 197)


@settings(max_examples=examples(200))
@given(st.integers(1, 2**40), MONEY, st.lists(st.integers(1, 10**6), max_size=8), st.integers(0, c.PPM))
def test_charge__is_worth_what_a_withdrawal_pays_and_never_more(
    money: int, deficit: int, fees: list[int], share: int
) -> None:
    """Who owns the treasury cannot turn its claims into money at par."""
    state = State(DOMAIN, params(), (0,))
    g = state.globals
    g.pool, g.deficit = money, deficit
    account = Account(bytes(20))
    for fee in fees:
        if fee >= g.pool:
            continue
        before, held, cash = ratio(g), g.treasury + g.fund, account.cash
        total, claims = g.pool + g.fund + g.treasury, account.cash - g.deficit - g.pool
        insurance.charge(state, account, fee, share)
        assert account.cash == cash - fee
        assert g.pool + g.fund + g.treasury == total
        assert account.cash - g.deficit - g.pool == claims
        assert g.treasury + g.fund - held <= fee * before
        assert ratio(g) >= before
        assert g.deficit >= 0


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
    for deficit, holes in ((2**126, 0), (-(2**126), c.U64_MAX), (-1, 1)):
        g = pool(2**62, deficit, holes=holes)
        g.deficit += insurance.credit(g, 2**48 - 1)
        again = Global.from_words(g.words())
        assert (again.pool, again.deficit, again.holes) == (g.pool, g.deficit, g.holes)
        assert -(2**127) <= g.deficit < 2**127
        assert g.pool < c.U64_MAX
