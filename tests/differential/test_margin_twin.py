"""IM is the same in both twins to the unit: a withdrawal of all that is free holds, one of 1e-6 USD more does not."""

import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

import worlds
from exchange import DOMAIN, IS_LONG, START, key_of, params
from fuzz import Judge, expected

from sequencer.proof.witness import Tracer
from sequencer.protocol import codec, margin, risk_array
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.params import UnderlyingParams
from sequencer.protocol.state import State

PUT = 1 << 31
FORWARDS = (5_000_000, 300_000)
CASES = 2_000 if IS_LONG else 60
GREATEST = 10**15  # of what is free or reserved in a case


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def page_of(random: Random, state: State, underlying: int, is_wild: bool) -> Page:
    """Up to 32 options at few strikes, of some both types; as Black-76 has them, or of any numbers at all."""
    page, index = Page(), FORWARDS[underlying]
    page.time, page.index = START, index if not is_wild else random.choice((1, index, c.U32_MAX))
    page.forward = (
        random.choice((index, index * 21 // 20)) if not is_wild else random.choice((0, 1, c.U32_MAX))
    )
    strikes = random.sample(range(index * 8 // 10, index * 12 // 10), 16)
    terms = [strike | put for strike in strikes for put in (0, PUT)]
    page.terms = random.sample(terms, random.choice((4, 9, 32)))
    remaining = random.choice((3_600, 86_400, 2_592_000))
    left = state.shocks[underlying].left(remaining)
    variance = int(random.uniform(0.1, 2.0) * remaining / 31_536_000 * 1e12)
    for one in page.terms:
        if is_wild:
            edge = random.choice((10, 10**6, 2**31 - 1))
            pnl = tuple(random.randint(-edge - 1, edge) for _ in range(c.SCENARIOS))
            page.rows.append((random.choice((0, 5, c.U32_MAX)), pnl))
        else:
            strike, put = one & ~PUT, bool(one & PUT)
            shocks = state.shocks[underlying]
            page.rows.append(risk_array.scenarios(page.forward, strike, put, variance, shocks, left))
    page.marked = len(page.terms)
    return page


def world_of(random: Random, is_wild: bool) -> tuple[State, Account]:
    """Two underlyings, expiries of one to three pages, and an account with positions on them."""
    own = [
        UnderlyingParams(
            price_range_ppm=random.choice((0, 1, 150_000, 200_000, 900_000)),
            short_floor_ppm=random.choice((0, 10_000, 1_000_000)),
        )
        for _ in range(2)
    ]
    given = params(
        short_gross_ppm=random.choice((0, 100, 20_000)),
        mark_move_max_ppm=c.U32_MAX,  # no page is old, wherever its index is
        mark_skew_max_s=c.U32_MAX,
        underlyings=tuple(own),
    )
    state = State(DOMAIN, given, (0, 1))
    for number, one in state.underlyings.items():
        one.index = 10**7
        state.touch(c.KEY_UNDERLYING | number, one)
    state.globals.time = START
    instruments = []
    for underlying in random.choice(((0,), (1,), (0, 1))):
        for day in random.sample(range(20_001, 20_040), random.randint(1, 2)):
            for number in range(random.randint(1, 3)):
                page_id = underlying << 23 | day << 7 | number
                page = page_of(random, state, underlying, is_wild)
                worlds.put_page(state, page_id, page)
                instruments += [page_id << 5 | row for row in range(len(page.terms))]
    account = Account(worlds.address("holder"))
    most = random.choice((1, 20_000, c.POSITION_LOTS_MAX if is_wild else 10**7))
    signs = random.choice(((1,), (-1,), (1, -1), (1, -1), (1, -1)))
    for one in sorted(random.sample(instruments, min(len(instruments), random.choice((1, 4, 20, 64))))):
        account.positions[one] = random.choice(signs) * random.randint(1, most)
    return state, account


def free_of_exactly(random: Random, state: State, account: Account) -> int | None:
    """Gives the account cash and reserves with which so much is free and there; None where they would not fit."""
    margin.refresh(state, account)
    initial, value = margin.initial(state, account), account.sums.value
    free = random.randint(1, 10**9)
    account.reserved = max(0, value - initial) + 10  # so that cash is no narrower bound
    account.cash = free + initial - value + account.reserved
    if account.reserved > GREATEST or account.cash > GREATEST:
        return None
    assert margin.free(state, account) == free < account.cash
    return free


@pytest.mark.fuzz
@pytest.mark.parametrize("is_wild", [False, True])
def test_im__of_any_portfolio__is_the_same_to_the_unit(judge: Judge, is_wild: bool) -> None:
    random, seen = Random(17 + is_wild), Counter[str]()
    while seen["cases"] < CASES:
        state, account = world_of(random, is_wild)
        free = free_of_exactly(random, state, account)
        if free is None:
            continue
        state.put_account(1, account)
        state.globals.pool = 2**62
        state.root()
        tracer = Tracer.of(state)
        for more, reason in ((1, Reason.MARGIN), (0, Reason.OK)):
            raw = codec.encode(Kind.WITHDRAW, account=1, amount=free + more, nonce=0, expires=0)
            witness = tracer.witness(codec.sign(raw, DOMAIN, key_of("holder")))
            assert witness.outcome.reason is reason
            result = judge.call(witness)
            assert result.ok, result.reason()
            assert result.output == expected(witness)
        seen["cases"] += 1
        for number, one in account.sums.exposures.items():
            seen["between the moves"] += one.worst(state.shocks[number].third_ppm) < min(0, *one.net)
            seen["covered longs"] += one.lots < sum(
                max(lots, 0) for held, lots in account.positions.items() if held >> 28 == number
            )
            seen["floors of net shorts"] += any(max(side) > 0 for side in one.sides.values())
        seen["two underlyings"] += len(account.sums.exposures) == 2
    print(dict(seen))
    least = CASES // 10
    assert all(
        seen[what] >= least
        for what in ("between the moves", "covered longs", "floors of net shorts", "two underlyings")
    )
