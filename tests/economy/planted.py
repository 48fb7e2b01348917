"""Rules made wrong on purpose, one at a time: the fuzz must find each, or it would find nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest

from sequencer.protocol import amend, cash, exposure, freshness, liquidation, margin, reports
from sequencer.protocol.constants import Reason
from sequencer.protocol.state import State

if TYPE_CHECKING:
    from sequencer.protocol.book import Order
    from sequencer.protocol.entries import Account

Patch = Callable[[pytest.MonkeyPatch], None]


def half_margin(patch: pytest.MonkeyPatch) -> None:
    """IM is half of what a move inside the range can cost."""
    whole = margin.initial
    patch.setattr(margin, "initial", lambda state, account: whole(state, account) // 2)


def points_alone(patch: pytest.MonkeyPatch) -> None:
    """IM looks at the scenario points and at nothing between them."""
    patch.setattr(exposure.Exposure, "worst", lambda self, _: min(0, *self.net))


def offsets(patch: pytest.MonkeyPatch) -> None:
    """Underlyings offset each other scenario by scenario."""

    def initial(state: State, account: Account) -> int:
        rows = [one.net for one in account.sums.exposures.values()]
        return -min(0, *(sum(column) for column in zip(*rows, strict=True))) if rows else 0

    patch.setattr(margin, "initial", initial)


def lowest_report(patch: pytest.MonkeyPatch) -> None:
    """The lowest of the feeds' numbers rules, whoever has said it."""
    patch.setattr(reports, "_sure", lambda ordered, _: (ordered[0], ordered[0]))


def ages_alone(patch: pytest.MonkeyPatch) -> None:
    """Marks are old by their age alone, wherever the index and the account's other pages are."""
    patch.setattr(freshness, "_has_moved", lambda *_: False)
    patch.setattr(freshness, "pages_apart", lambda *_: ([], []))

    def is_stale(state: State, sums: Any) -> bool:
        last = state.globals.time - state.params.risk_age_max_s
        return any(one.newest and one.oldest < last for one in sums.exposures.values())

    patch.setattr(freshness, "is_stale", is_stale)


def loans(patch: pytest.MonkeyPatch) -> None:
    """A payment asks for no free margin."""
    real = cash.pay

    def pay(state: State, found: Account, amount: int | None, is_forced: bool) -> Any:
        paid = real(state, found, amount, is_forced)
        if paid is Reason.MARGIN and amount and found.cash >= amount:
            paid = found.clone()
            paid.cash -= amount
        return paid

    patch.setattr(cash, "pay", pay)


def dear_auction(patch: pytest.MonkeyPatch) -> None:
    """The clock alone says what a bid is paid: no equity bounds it, and it goes on past its end."""
    patch.setattr(liquidation, "min", lambda *values: values[0], raising=False)


def no_takers(patch: pytest.MonkeyPatch) -> None:
    """Bids find their account healthy for ever."""
    patch.setattr(liquidation, "bid", lambda *_: Reason.FRACTION)


def found_money(patch: pytest.MonkeyPatch) -> None:
    """A transfer credits a thousandth more than it takes."""
    real = cash.transfer

    def transfer(state: State, record: Any) -> Reason:
        reason = real(state, record)
        if reason is Reason.OK:
            state.accounts[record.fields[1]].cash += record.fields[2] // 1_000
        return reason

    patch.setattr(cash, "transfer", transfer)


def par(patch: pytest.MonkeyPatch) -> None:
    """Withdrawals are paid in full while others' claims are not covered."""
    patch.setattr("sequencer.protocol.insurance.payout", lambda g, amount: min(amount, g.pool))


def free_amends(patch: pytest.MonkeyPatch) -> None:
    """Less of an order, or as much, is free where there is no cash."""
    real = amend._shrink

    def shrink(state: State, account: Account, order: Order, *rest: Any) -> Reason:
        cash = account.cash
        account.cash = max(cash, state.params.sequencing_fee_min)
        reason = real(state, account, order, *rest)
        if cash < 0:
            account.cash, rest[-1].fee = cash, 0
        return reason

    patch.setattr(amend, "_shrink", shrink)


def half_undone(patch: pytest.MonkeyPatch) -> None:
    """A FOK that is undone takes its own account back, and leaves makers what they have traded."""
    whole = State.rewind

    def rewind(self: State, number: int) -> Any:
        assert self.undo is not None
        self.undo.accounts = {number: self.undo.accounts[number]}
        return whole(self, number)

    patch.setattr(State, "rewind", rewind)


# name -> (what is planted, invariants that may tell of it, the moves that are drawn)
PLANTED: Final[dict[str, tuple[Patch, tuple[str, ...], tuple[str, ...]]]] = {
    "half_margin": (half_margin, ("margin", "awake"), ("mirror", "drain", "borrow")),
    "points_alone": (points_alone, ("margin", "awake"), ("between_points",)),
    "offsets": (offsets, ("margin", "awake"), ("mirror", "drain")),
    "lowest_report": (lowest_report, ("mark",), ("lie",)),
    "ages_alone": (ages_alone, ("hole", "gain"), ("selective_marks",)),
    "loans": (loans, ("hole", "gain"), ("mirror", "drain", "noise")),
    "dear_auction": (dear_auction, ("hole",), ("mirror", "drain", "worst_bid", "late_liquidators")),
    "no_takers": (no_takers, ("untakeable",), ("mirror", "drain", "borrow")),
    "found_money": (found_money, ("gain", "money"), ("drain", "noise")),
    "free_amends": (free_amends, ("unpaid",), ("amended",)),
    "par": (par, ("gain",), ("mirror", "drain", "run_away", "borrow")),
    "half_undone": (half_undone, ("gain", "money", "hole"), ("mirror", "whole_or_nothing")),
}
