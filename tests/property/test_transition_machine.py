"""Every kind of record in any order, well-formed or hostile: what must hold after each of them.

Each rule draws from a seed, so that Hypothesis shortens a failure to the records that make it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sequencer.proof.exit import closing_value
from sequencer.protocol import constants as c
from sequencer.protocol import work
from sequencer.protocol.book import split_key
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account, Global, Page
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hostile import Adversary, Drawn, explained, populated

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "twins"))
from auditor import naive_root

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, IS_LONG, Exchange, outline, reopened

_TYPE = 15 << c.TYPE_SHIFT
ORDERS = (Kind.PLACE, Kind.PLACE_IN_WORDS, Kind.AMEND, Kind.FORCED_ORDER, Kind.CONTINUE)
SEEDS = st.integers(0, 2**32)


class Watched:
    """An exchange of which every step is looked at from all sides."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.leaves = dict(exchange.state.preimages())

    def apply(self, drawn: Drawn) -> Outcome:
        """Applies a record here and to a state built anew from the leaves; compares, audits."""
        raw, signer = drawn
        exchange = self.exchange
        twin = reopened(exchange.state)
        before = self.leaves
        out = exchange.apply(raw, signer)
        after = self.leaves = dict(exchange.state.preimages())
        assert outline(apply(twin, raw, signer)) == outline(out)
        assert twin.root() == exchange.state.root() == naive_root(exchange.state)
        exchange.auditor.check(exchange.state)
        check_exit(exchange.state)
        check_indexes(exchange.state)
        assert Global.from_words(before[c.KEY_GLOBAL]).seq + 1 == exchange.state.globals.seq
        check_work(before, after, raw, out)
        if out.reason is not Reason.OK:
            check_no_op(before, after, raw, out)
        if raw and raw[0] in (Kind.PLACE, Kind.PLACE_IN_WORDS, Kind.FORCED_ORDER, Kind.CONTINUE):
            check_priority(before, out)
        return out


def check_indexes(state: State) -> None:
    """What is looked up by number is what stands in books and accounts."""
    resting = {
        order.seq: order
        for book in state.books.values()
        for side in (c.BUY, c.SELL)
        for order in book.orders(side)
    }
    assert state.orders == resting
    assert {seq: one for held in state.orders_of.values() for seq, one in held.items()} == resting
    assert state.highest_account == max(state.accounts, default=0)


def check_exit(state: State) -> None:
    """Were it frozen now: what all accounts come to is pool + deficit, whatever has been marked, fixed and settled."""
    g = state.globals
    assert sum(closing_value(state, one) for one in state.accounts.values()) == g.pool + g.deficit


def check_work(before: dict[int, bytes], after: dict[int, bytes], raw: bytes, out: Outcome) -> None:
    """Every record costs its kind; RISK each row that it tries to mark, an order each account that it meets."""
    then = Global.from_words(before[c.KEY_GLOBAL])
    spent = Global.from_words(after[c.KEY_GLOBAL]).work - then.work - work.of(raw)
    if not raw or raw[0] not in (Kind.RISK, *ORDERS):
        assert spent == 0
    elif raw[0] == Kind.RISK:
        page_id = raw[1] << 23 | int.from_bytes(raw[2:4], "big") << 7 | raw[4] if len(raw) > 4 else 0
        tried = (Reason.OK, Reason.NO_SURFACE, Reason.FEEDS_DISAGREE)
        rows = len(Page.from_words(after[c.KEY_PAGE | page_id]).terms) if out.reason in tried else 0
        assert spent == work.RISK_ROW * rows
    else:
        taker = then.taker.account if then.taker else int.from_bytes(raw[1:5], "big")
        met = {fill.maker for fill in out.fills} | {order.account for order in out.removed} - {taker}
        held = before.get(c.KEY_ACCOUNT | taker)
        own = work.POSITION * len(Account.from_words(held).positions) if held else 0
        if spent:  # the checks before the account's margin cost nothing more
            assert work.MAKER * len(met) <= spent - own <= work.MAKER * c.STEPS_MAX
            assert (spent - own) % work.MAKER == 0
        else:
            assert not met


def check_no_op(before: dict[int, bytes], after: dict[int, bytes], raw: bytes, out: Outcome) -> None:
    """A refused record changes nothing but seq and work, says nothing, and leaves a counted inbox message counted."""
    assert not out.fills
    assert not out.removed
    assert out.rested is None
    assert not out.pending
    expected = Global.from_words(before[c.KEY_GLOBAL])
    expected.seq += 1
    expected.work = Global.from_words(after[c.KEY_GLOBAL]).work  # check_work
    if explained(raw, out.reason):
        now = Global.from_words(after[c.KEY_GLOBAL])
        assert now.inbox_count == expected.inbox_count + 1
        expected.inbox_count, expected.inbox_hash = now.inbox_count, now.inbox_hash
    assert after == {**before, c.KEY_GLOBAL: expected.words()}


def check_priority(before: dict[int, bytes], out: Outcome) -> None:
    """Whoever was filled or removed stood first: the left-most leaves of the side, without a gap."""
    touched = {fill.maker_seq for fill in out.fills} | {order.seq for order in out.removed}
    assert len(touched) <= c.STEPS_MAX
    if not touched:
        return
    keys = sorted(key for key in before if key & _TYPE == c.KEY_ORDER)
    sides = {key >> 72 for key in keys if key & c.U40_MAX in touched}
    assert len(sides) == 1
    first = [key & c.U40_MAX for key in keys if key >> 72 in sides][: len(touched)]
    assert set(first) == touched
    assert [fill.maker_seq for fill in out.fills] == [
        seq for seq in first if seq in {f.maker_seq for f in out.fills}
    ]
    for fill in out.fills:
        key = next(key for key in keys if key & c.U40_MAX == fill.maker_seq)
        assert split_key(key)[2] == fill.maker_price


class Transition(RuleBasedStateMachine):
    """An adversary at work."""

    @initialize(
        changes=st.sampled_from(
            [
                {},
                CALM,
                {"maker_fee_ppm": 200, **CALM},
                {"congested_excess": 3, "restricted_excess": 9, "target_per_s": 1},
            ]
        )
    )
    def begin(self, changes: dict[str, int]) -> None:
        self.watched = Watched(populated(**changes))
        self.adversary = Adversary(self.watched.exchange, Random(0))

    def submit(self, seed: int, kind: Kind | None = None) -> Outcome:
        self.adversary.random = Random(seed)
        return self.watched.apply(self.adversary.draw() if kind is None else self.adversary.formed(kind))

    @rule(seed=SEEDS)
    def anything(self, seed: int) -> None:
        self.submit(seed)

    @rule(seed=SEEDS)
    def place(self, seed: int) -> None:
        self.submit(seed, Kind.PLACE)

    @rule(
        seed=SEEDS,
        kind=st.sampled_from([kind for kind in c.INBOX_KINDS if kind is not Kind.DEPOSIT]),
    )
    def forced(self, seed: int, kind: Kind) -> None:
        self.submit(seed, Kind.TICK)
        self.submit(seed, kind)

    @rule(seed=SEEDS)
    def place_and_go_on(self, seed: int) -> None:
        self.submit(seed, Kind.PLACE)
        for _ in range(20):
            if self.watched.exchange.state.globals.taker is None:
                break
            self.submit(seed, Kind.CONTINUE)

    @rule(seed=SEEDS, kind=st.sampled_from([Kind.CANCEL, Kind.CANCEL_ALL, Kind.SWEEP]))
    def cancel(self, seed: int, kind: Kind) -> None:
        self.submit(seed, Kind.TICK)
        self.submit(seed, kind)

    @rule(seed=SEEDS, kind=st.sampled_from([Kind.WITHDRAW, Kind.TRANSFER, Kind.DEPOSIT, Kind.COLLECT]))
    def money(self, seed: int, kind: Kind) -> None:
        self.submit(seed, kind)

    @rule(seed=SEEDS)
    def liquidation(self, seed: int) -> None:
        self.submit(seed, Kind.TICK)
        self.submit(seed, Kind.LIQUIDATE)
        self.submit(seed, Kind.BID)

    @precondition(lambda self: len(self.watched.exchange.state.pages) < 12)
    @rule(seed=SEEDS)
    def time_passes(self, seed: int) -> None:
        self.adversary.random = Random(seed)
        for drawn in self.adversary.keep_going():
            self.watched.exchange.apply(*drawn)
        self.watched.leaves = dict(self.watched.exchange.state.preimages())
        self.watched.exchange.auditor.check(self.watched.exchange.state)


def test_transition__under_any_records__adds_up() -> None:
    run_state_machine_as_test(
        Transition,
        settings=settings(max_examples=1_000 if IS_LONG else 40, stateful_step_count=120 if IS_LONG else 40),
    )


@pytest.mark.parametrize("seed", range(40 if IS_LONG else 4))
def test_transition__over_a_long_way__adds_up(seed: int) -> None:
    """Deeper than the machine goes: expiries come and are settled, auctions run, deficits arise."""
    random = Random(seed)
    watched = Watched(populated(**CALM))
    adversary = Adversary(watched.exchange, random)
    for number in range(4_000 if IS_LONG else 1_000):
        if number % 40 == 39:
            for raw, signer in adversary.keep_going():
                watched.exchange.apply(raw, signer)
            watched.leaves = dict(watched.exchange.state.preimages())
        watched.apply(adversary.draw())
