"""Payouts of the exit: any accounts, insolvent ones too, any order of declarations and claims, late and refused ones.

Nobody gets more than its account comes to; once everybody is declared, the sum is what there is, to the unit; and where
nobody owes anything, all get the same part of their claims, those who come late included.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from contract_support import INBOX, USD, deploy
from exit_support import HOLD_S, NOW_PPM, WINDOW_S, blocking_token
from stub_support import deploy_stub

from sequencer.genesis import genesis_state
from sequencer.proof.exit import Proofs
from sequencer.protocol.entries import Account
from sequencer.protocol.params import Params

ACCOUNTS_MAX = 6
HOUSE = 1
IN_VAULT = ACCOUNTS_MAX * 1_000 * USD

amounts = st.integers(0, 3) | st.integers(0, 10**4) | st.integers(0, 1_000 * USD)
likely = st.integers(USD, 1_000 * USD)
values = st.lists(amounts | amounts.map(lambda amount: -amount), min_size=1, max_size=ACCOUNTS_MAX)
steps = st.lists(
    st.tuples(
        st.sampled_from(("declare", "declare", "claim", "claim_house", "block", "wait")), st.integers(0, 30)
    ),
    max_size=25,
)


@dataclass
class Bench:
    token: Any
    rollup: Any
    vault: Any
    exit: Any
    owners: list[Any]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with boa.env.anchor():
        token, rollup, inbox = blocking_token(), deploy_stub("FrozenRollup"), deploy("Inbox", *INBOX)
        rollup.set_inbox(inbox.address)
        vault = deploy("Vault", token, rollup, USD, 10**9 * USD)
        inbox.set_vault(vault.address)
        leave = deploy("Exit", vault, HOLD_S, WINDOW_S, NOW_PPM)
        vault.set_exit(leave.address)
        owners = [boa.env.generate_address(f"owner {number}") for number in range(ACCOUNTS_MAX)]
        for owner in owners:
            token.mint(owner, 1_000 * USD)
            token.approve(vault.address, 1_000 * USD, sender=owner)
            vault.deposit(1_000 * USD, sender=owner)
        yield Bench(token, rollup, vault, leave, owners)


class Run:
    """One exit: accounts that come to `cash`, and what pool, fund and treasury hold."""

    def __init__(self, bench: Bench, cash: list[int], pool: int, fund: int, treasury: int) -> None:
        self.bench, self.cash, self.there, self.treasury = bench, cash, pool + fund, treasury
        state = genesis_state(bench.rollup.domain_separator(), Params(treasury_account=HOUSE))
        g = state.globals
        g.pool, g.fund, g.treasury = pool, fund, treasury
        g.deficit = (
            sum(cash) - pool
        ) % 2**128  # two's complement: there may be more than the accounts come to
        for number, amount in enumerate(cash, 1):
            account = Account(bytes([number]) * 20)
            account.cash = amount
            state.put_account(number, account)
        bench.rollup.freeze(state.root())
        self.proofs = Proofs(state)
        bench.exit.begin(*self.proofs.begin())
        self.house = 0
        self.declared: set[int] = set()

    def tries(self, call: Any) -> int:
        """What a call returns; 0 when it reverts, and then nothing has been paid."""
        before = self.bench.vault.deposits_total()
        try:
            return int(call())
        except boa.BoaError:
            assert self.bench.vault.deposits_total() == before
            return 0

    def declare(self, number: int) -> None:
        """Never refused but for a second time, whoever is blocked."""
        if number not in self.declared:
            assert self.bench.exit.declare(number, self.proofs.declare(number)) == self.cash[number - 1]
            self.declared.add(number)

    def do(self, name: str, argument: int) -> None:
        number = argument % len(self.cash) + 1
        if name == "declare":
            self.declare(number)
        elif name == "claim":
            self.tries(lambda: self.bench.exit.claim(number))
        elif name == "claim_house":
            self.house += self.tries(self.bench.exit.claim_house)
        elif name == "block":
            self.bench.token.block(self.bench.owners[number - 1], argument % 2 == 1)
        else:
            boa.env.timestamp += (1, HOLD_S, HOLD_S + 1, WINDOW_S // 2, WINDOW_S + 1)[argument % 5]
        self.check()

    def got(self) -> list[int]:
        """What each account has been paid; the house's owner has account 1, too."""
        paid = [int(self.bench.token.balanceOf(owner)) for owner in self.bench.owners[: len(self.cash)]]
        return [paid[0] - self.house, *paid[1:]]

    def check(self) -> None:
        assert all(0 <= amount <= max(value, 0) for amount, value in zip(self.got(), self.cash, strict=True))
        assert sum(self.got()) + self.house <= self.there + self.treasury
        assert self.bench.vault.deposits_total() == IN_VAULT - sum(self.got()) - self.house

    def finish(self) -> None:
        """Nobody is refused any more, and everybody who is declared claims, after the window."""
        boa.env.timestamp += WINDOW_S + 1
        for owner in self.bench.owners:
            self.bench.token.block(owner, False)
        for number in sorted(self.declared):
            self.tries(lambda number=number: self.bench.exit.claim(number))
        self.house += self.tries(self.bench.exit.claim_house)
        self.check()


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cash=values, parts=st.tuples(amounts, amounts, amounts), plan=steps, comes=st.booleans())
def test_payouts__in_any_order__add_up_and_pay_nobody_more_than_its_value(
    bench: Bench, cash: list[int], parts: tuple[int, int, int], plan: list[tuple[str, int]], comes: bool
) -> None:
    with boa.env.anchor():
        run = Run(bench, cash, *parts)
        for name, argument in plan:
            run.do(name, argument)
        if comes:  # everybody in the end, in time or late
            for number in range(1, len(cash) + 1):
                run.declare(number)
        run.finish()
        if len(run.declared) == len(cash):
            assert sum(run.got()) + run.house == run.there + run.treasury
        else:
            assert run.house in (0, run.treasury)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cash=st.lists(amounts, min_size=1, max_size=ACCOUNTS_MAX),
    part=st.integers(0, 1_200),
    plan=steps,
)
def test_payouts__when_nobody_owes__are_the_same_part_of_every_claim_for_early_and_late(
    bench: Bench, cash: list[int], part: int, plan: list[tuple[str, int]]
) -> None:
    """`part` is what there is of the claims, in thousandths; from 1,000 on everybody gets the whole."""
    with boa.env.anchor():
        there = sum(cash) * part // 1_000
        run = Run(bench, cash, there - there // 10, there // 10, 7)
        for name, argument in plan:
            run.do(name, argument)
        for number in range(1, len(cash) + 1):
            run.declare(number)
        run.finish()
        assert not bench.exit.is_by_rest()
        for amount, value in zip(run.got(), cash, strict=True):
            if there >= sum(cash):
                assert amount == value
            else:
                assert abs(amount - value * there // max(sum(cash), 1)) <= len(cash)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cash=values, parts=st.tuples(amounts, amounts, amounts), order=st.randoms(use_true_random=False))
def test_payouts__when_the_insolvent_are_declared_within_the_hold__are_the_same_for_early_and_late(
    bench: Bench, cash: list[int], parts: tuple[int, int, int], order: Any
) -> None:
    with boa.env.anchor():
        run = Run(bench, cash, *parts)
        for number, value in enumerate(cash, 1):
            if value < 0:
                run.declare(number)
        solvent = [number for number, value in enumerate(cash, 1) if value >= 0]
        order.shuffle(solvent)
        for number in solvent[: len(solvent) // 2]:
            run.declare(number)
        boa.env.timestamp += HOLD_S + 1
        for number in solvent[: len(solvent) // 3]:
            run.do("claim", number - 1)
        boa.env.timestamp += order.choice((0, WINDOW_S))
        for number in solvent[: len(solvent) // 3]:
            run.do("claim", number - 1)
        for number in solvent:
            run.declare(number)
        run.finish()
        claims = sum(value for value in cash if value > 0)
        for amount, value in zip(run.got(), cash, strict=True):
            share = max(value, 0) * min(run.there, claims) // max(claims, 1)
            assert abs(amount - share) <= len(cash)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    early=st.lists(likely, min_size=1, max_size=2),
    late=st.lists(likely, min_size=1, max_size=3),
    share=st.integers(0, 999),
    is_late=st.booleans(),
)
def test_payouts__when_losses_come_to_light_after_the_hold__ask_nothing_back_and_add_up(
    bench: Bench, early: list[int], late: list[int], share: int, is_late: bool
) -> None:
    """`share` is what there is of the claims, in thousandths: the rest is what the last account owes."""
    with boa.env.anchor():
        there = (sum(early) + sum(late)) * share // 1_000
        cash = [*early, *late, there - sum(early) - sum(late)]
        run = Run(bench, cash, there, 0, 1)
        for number in range(1, len(early) + 1):
            run.declare(number)
        boa.env.timestamp += HOLD_S + 1
        for number in range(1, len(early) + 1):
            run.do("claim", number - 1)
        had = run.got()
        boa.env.timestamp += WINDOW_S * is_late
        run.do("claim", 0)  # opens the payouts when the window is over
        for number in range(len(early) + 1, len(cash) + 1):
            run.declare(number)
        run.finish()
        assert all(amount >= part for amount, part in zip(run.got(), had, strict=True))
        assert sum(run.got()) + run.house == run.there + run.treasury
