"""One owner with several accounts, in auctions of its own: whatever it bids, it never has more than before.

What it has: the equity of each account, nothing where that is negative, which is what the others can lose to it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import liquidation, margin
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import NEVER

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, USD, Exchange, examples

STRIKES = (INDEX - 500_000, INDEX, INDEX + 500_000)
MINE = ("debtor", "friend", "spare")
LOTS = st.one_of(st.integers(-5, 5), st.integers(-20_000, 20_000)).filter(bool)
MOVES = st.sampled_from((70, 85, 92, 97, 103, 108, 115, 130))
BIDS = st.lists(
    st.tuples(st.sampled_from(MINE[1:]), st.sampled_from((1, 7, 64, 256)), st.sampled_from((0, 0, 30, 900))),
    min_size=1,
    max_size=8,
)


def made(positions: list[int], prefilled: int, depth_ppm: int) -> tuple[Exchange, list[int]]:
    """The debtor holds `positions` against `other`, its friend some of other expiries; its equity is a part of IM."""
    exchange = Exchange(audits=False, **CALM)
    instruments = exchange.open(
        *((FAR, strike, put) for strike in STRIKES for put in (0, 1)),
        *((FAR + 1 + day, INDEX, 0) for day in range(11)),
    )
    for role, usd in (
        ("treasury", 1),
        ("other", 50_000_000),
        ("debtor", 1),
        ("friend", 5_000_000),
        ("spare", 50_000),
    ):
        exchange.deposit(role, usd)
    for role, held in (
        ("debtor", dict(zip(instruments, positions, strict=False))),
        ("friend", dict.fromkeys(instruments[6 : 6 + prefilled], -3)),
    ):
        account = exchange.account(role)
        account.positions = dict(sorted(held.items()))
        account.epoch = NEVER
    margin.refresh(exchange.state, exchange.account("debtor"))
    debtor = exchange.account("debtor")
    needed = margin.maintenance(exchange.state, debtor)
    debtor.cash = needed * depth_ppm // 10**6 - debtor.sums.value
    return exchange, instruments


def value(exchange: Exchange, role: str) -> int:
    account = exchange.account(role)
    margin.refresh(exchange.state, account)
    return max(0, margin.equity(account))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(LOTS, min_size=1, max_size=6),
    st.integers(0, 11),
    st.sampled_from((-300_000, -1, 0, 20_000, 400_000, 999_000)),
    BIDS,
    MOVES,
)
def test_bids__of_a_coalition__never_raise_what_it_has(
    positions: list[int], prefilled: int, depth_ppm: int, bids: list[tuple[str, int, int]], move: int
) -> None:
    exchange, _ = made(positions, prefilled, depth_ppm)
    g = exchange.state.globals
    if exchange.liquidate("debtor").reason is not Reason.OK:
        return
    moved = False
    for bidder, fraction, seconds in bids:
        exchange.tick(seconds)
        if seconds and not moved:  # the marks may move in between: that is nobody's doing
            exchange.remark(INDEX * move // 100)
            moved = True
        else:
            exchange.remark()
        debtor = exchange.account("debtor")
        before = sum(value(exchange, role) for role in MINE)
        equity, risk = margin.equity(debtor), margin.initial(exchange.state, debtor)
        lost = g.deficit - g.fund
        out = exchange.bid(bidder, "debtor", fraction)
        after = sum(value(exchange, role) for role in MINE)
        if out.reason is not Reason.OK:
            assert after == before
            continue
        assert after <= before
        debtor = exchange.account("debtor")
        left, risk_left = margin.equity(debtor), margin.initial(exchange.state, debtor)
        assert risk_left <= risk
        if equity > 0:
            assert left >= 0
            assert left * risk >= equity * risk_left
            assert g.deficit - g.fund <= lost
        assert g.holes == sum(account.hole for account in exchange.state.accounts.values())
        if not debtor.auction_start:
            break


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(LOTS, min_size=1, max_size=6), st.sampled_from((-500_000, 0, 1, 300_000, 999_999)))
def test_account_below_maintenance__whatever_it_holds__can_be_taken_by_somebody(
    positions: list[int], depth_ppm: int
) -> None:
    exchange, _ = made(positions, 0, depth_ppm)
    exchange.deposit("rich", 100_000_000)
    exchange.deposit("rich", 100_000_000)
    if exchange.liquidate("debtor").reason is not Reason.OK:
        return
    solvent = value(exchange, "debtor") > 0
    exchange.tick(exchange.state.params.auction_duration_s if solvent else 0)
    exchange.remark()
    for _ in range(100):
        if not exchange.account("debtor").auction_start:
            break
        part = liquidation.cut(exchange.state, exchange.account("debtor"), exchange.account("rich"), 64)
        fraction = 256 if isinstance(part, Reason) else 64
        assert exchange.bid("rich", "debtor", fraction).reason is Reason.OK
        if fraction == 256:
            assert not exchange.account("debtor").positions
    else:
        assert exchange.bid("rich", "debtor", 256).reason is Reason.OK
    assert exchange.account("debtor").cash >= 0 or exchange.account("debtor").positions
    assert exchange.account("rich").cash > USD


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(LOTS, min_size=2, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from((-300_000, 0, 20_000, 400_000, 990_000)),
    st.lists(st.sampled_from((1, 7, 64, 256)), min_size=1, max_size=6),
    st.sampled_from((0, 60, 900)),
)
def test_bids__on_an_account_with_marks_that_stay_old__never_raise_what_a_coalition_has(
    positions: list[int], old: list[bool], depth_ppm: int, fractions: list[int], seconds: int
) -> None:
    """What has no fresh mark stays, and lends its caution to nobody: equity / IM of the rest never falls."""
    exchange, instruments = made([], 0, 0)
    state = exchange.state
    held = dict(sorted(zip(instruments[6:12], positions, strict=False)))
    for instrument, is_old in zip(held, old, strict=False):
        if is_old:
            state.pages[instrument >> 5].time -= 10**5
    debtor = exchange.account("debtor")
    debtor.positions, debtor.epoch = held, NEVER
    debtor.cash = 0
    equity, risk, _ = margin.cautious(state, debtor)
    debtor.cash = risk * depth_ppm // 10**6 * 8 // 10 - equity - 1
    state.put_account(exchange.numbers["debtor"], debtor)
    state.underlyings[0].time -= 10**5  # RISK cannot renew them
    assert exchange.liquidate("debtor").reason is Reason.OK
    exchange.tick(seconds)
    for fraction in fractions:
        debtor = exchange.account("debtor")
        equity, risk, worth = margin.cautious(state, debtor)
        before = sum(value(exchange, role) for role in MINE)
        out = exchange.bid("friend", "debtor", fraction)
        assert sum(value(exchange, role) for role in MINE) <= before
        debtor = exchange.account("debtor")
        left, risk_left, worth_left = margin.cautious(state, debtor)
        if out.reason is not Reason.OK:
            assert (left, risk_left, worth_left) == (equity, risk, worth)
            continue
        assert all(
            state.pages[one >> 5].time > state.globals.time - 3_600
            for one in exchange.account("friend").positions
        )
        assert risk_left <= risk
        assert left * risk >= equity * risk_left or equity <= 0
        assert left >= min(equity, 0)
        assert state.globals.holes == debtor.hole == max(0, -worth_left) or not debtor.positions
        if not debtor.auction_start:
            break
