"""Refusals for margin, amounts, the pool, and bids in auctions."""

from typing import Final

from sequencer.amounts import cash
from sequencer.errors import REFUSALS
from sequencer.protocol import insurance, liquidation, margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.refusals.case import MONEY, Case, Explainer, Explanation, moment, money


def _margin(case: Case) -> Explanation:
    state, values = case.state, case.values
    account = case.account
    if case.kind in (Kind.WITHDRAW, Kind.TRANSFER):
        equity, risk, _ = margin.cautious(state, account)
        need, there = values["amount"], min(account.cash, equity - risk - margin.held(state, account))
        text = (
            f"The account's free margin is insufficient: {money(need)} USD is requested, {money(there)} USD is free"
            f" (of {money(account.cash)} USD in cash). Request less, or close positions and cancel orders first."
        )
        return Explanation(
            text, "amount", f"at most {cash(there)}", cash(need), cash(need), cash(there), MONEY
        )
    need, there = case.needed, case.there
    order = case.order() if case.kind == Kind.AMEND else None
    if order and values["new_price"] == order.price and values["quantity"] <= order.filled + order.quantity:
        text = (
            f"Reducing an order costs {money(need)} USD, from cash or from the reserve that it frees;"
            f" {money(there)} USD is available. Cancel the order, or deposit."
        )
        return Explanation(
            text, "quantity", f"a fee of {cash(need)} USD", cash(need), cash(need), cash(there), MONEY
        )
    if need <= there:  # more orders, or more reserved, than an account can have
        return Explanation(REFUSALS[Reason.MARGIN], "quantity", "what the account can reserve", None)
    done = "bid for less" if case.kind == Kind.BID else "order less, or cancel orders"
    text = (
        f"The account's free margin is insufficient: it needs {money(need)} USD, {money(there)} USD is available."
        f" Deposit {money(need - there)} USD more, or {done}."
    )
    name = "fraction" if case.kind == Kind.BID else "quantity"
    return Explanation(
        text,
        name,
        f"what {cash(there)} USD of free margin allows",
        cash(need),
        cash(need),
        cash(there),
        MONEY,
    )


def _amount(case: Case) -> Explanation:
    limit, got = f"at least {cash(1)} USD", cash(case.values["amount"])
    return Explanation(f"amount: must be {limit}, got {got}: the amount is zero.", "amount", limit, got)


def _pool(case: Case) -> Explanation:
    g = case.state.globals
    asked = case.values.get("amount")
    if asked is None:
        text = f"The accounts' pool cannot pay this out now: {money(g.pool)} USD is in it. Try again after deposits."
        return Explanation(text, "pool", "at least the order's fees", cash(g.pool))
    there = g.pool if insurance.shortfall(g) == 0 else min(g.pool, g.pool + min(g.fund, g.holes))
    text = (
        f"The accounts' pool cannot pay this out now: {money(asked)} USD is requested, {money(there)} USD is in it."
        " Request less, or try again after deposits."
    )
    return Explanation(text, "amount", f"at most {cash(there)}", cash(asked), cash(asked), cash(there), MONEY)


# --- auctions ---------------------------------------------------------------------------------


def _unhealthy(case: Case) -> Explanation:
    account = case.account
    equity, risk, _ = margin.cautious(case.state, account)
    text = (
        f"The account is in liquidation since {moment(account.auction_start)}; only cancels are open to it. Its equity"
        f" is {money(equity)} USD, that of its initial margin, {money(risk)} USD, ends the auction: deposit"
        f" {money(max(0, risk - equity))} USD."
    )
    return Explanation(
        text,
        "account",
        "an account that is not in an auction",
        case.values["account"],
        cash(risk),
        cash(equity),
        MONEY,
    )


def _target(case: Case) -> tuple[int, int]:
    """Equity and initial margin of a bid's target."""
    equity, risk, _ = margin.cautious(case.state, case.state.accounts[case.values["target"]])
    return equity, risk


def _healthy(case: Case) -> Explanation:
    equity, risk = _target(case)
    text = (
        f"The account meets its margin; it cannot be liquidated: the equity of account {case.values['target']} is"
        f" {money(equity)} USD, its initial margin {money(risk)} USD."
    )
    limit = "an account whose equity is below its initial margin"
    return Explanation(
        text,
        "target",
        limit,
        case.values["target"],
        more={"equity": cash(equity), "initial_margin": cash(risk)},
    )


def _no_auction(case: Case) -> Explanation:
    target = case.values["target"]
    text = f"The account is not being auctioned: {target}. `account` shows `auction_start` of accounts in an auction."
    return Explanation(text, "target", "an account in an auction", target)


def _fraction(case: Case) -> Explanation:
    state, params, got = case.state, case.state.params, case.values["fraction"]
    target = state.accounts[case.values["target"]]
    equity, _ = _target(case)
    by_parts = equity > 0 and liquidation.elapsed_s(state, target) < params.auction_duration_s
    most = params.auction_fraction_max if by_parts else 256
    if 0 < got <= most:
        text = (
            f"fraction: {got} of 256 would raise the margin of the rest of account {case.values['target']}; try"
            f" another fraction, up to {most}."
        )
        return Explanation(text, "fraction", "a part that lowers the target's initial margin", got)
    limit = f"from 1 to {most} (of 256)"
    rest = (
        ": larger fractions of a solvent account are sold once the auction's clock has run out"
        if by_parts
        else ""
    )
    return Explanation(f"fraction: must be {limit}, got {got}{rest}.", "fraction", limit, got)


def _cash_max(case: Case) -> Explanation:
    values, state = case.values, case.state
    offered = values["cash_max"]
    target = state.accounts[values["target"]]
    cut = liquidation.cut(state, target, case.account, values["fraction"])
    pay = offered if isinstance(cut, Reason) else cut.pay
    text = (
        f"The slice costs more than cash_max now: {money(pay)} USD, {money(offered)} USD is offered. Raise cash_max, or"
        " wait for the discount to grow."
    )
    return Explanation(
        text, "cash_max", f"at least {cash(pay)}", cash(offered), cash(pay), cash(offered), MONEY
    )


EXPLAINERS: Final[dict[Reason, Explainer]] = {
    Reason.MARGIN: _margin,
    Reason.AMOUNT: _amount,
    Reason.POOL: _pool,
    Reason.UNHEALTHY: _unhealthy,
    Reason.HEALTHY: _healthy,
    Reason.NO_AUCTION: _no_auction,
    Reason.FRACTION: _fraction,
    Reason.CASH_MAX: _cash_max,
}
