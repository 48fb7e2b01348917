"""DEPOSIT, WITHDRAW, TRANSFER, COLLECT: money in, out and between accounts."""

from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import freshness, insurance, margin, market
from sequencer.protocol.auth import authorise, use_nonce
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State

VAULT_MAX: Final = 2**62  # what the Vault lets in, all together (1e-6 USD)


def deposit(state: State, record: Record, out: Outcome) -> Reason:
    """DEPOSIT: money that the Vault has taken; opens the account when it is new.

    A message that no Vault can have sent (account 0, or more than VAULT_MAX together) credits nothing.
    """
    owner, number, amount = record.fields
    g = state.globals
    if number == 0:
        return Reason.INBOX_ACCOUNT
    if g.pool + g.fund + g.treasury + amount > VAULT_MAX:
        return Reason.AMOUNT
    account = state.account(number)
    if account is None:
        assert isinstance(owner, bytes)
        account = Account(owner)
    credited = insurance.bring(g, amount)
    account.cash += credited
    state.put_account(number, account)
    out.amount = credited
    out.number = number
    return Reason.OK


def _take(
    state: State, record: Record, scope: int, number: int, amount: int, nonce: int, expires: int
) -> Account | Reason:
    """A copy of the account that has paid `amount`: authorised, solvent in cash, within its margin."""
    if amount == 0:
        return Reason.AMOUNT
    found = authorise(state, number, record.signer, scope, nonce, expires)
    if isinstance(found, Reason):
        return found
    account = pay(state, found, amount, is_forced=False)
    if not isinstance(account, Reason):
        use_nonce(account, nonce)
    return account


def pay(state: State, found: Account, amount: int | None, is_forced: bool) -> Account | Reason:
    """A copy of `found` that has paid `amount`; None: all that is free, min(cash, free margin), which must be some.

    Old marks count with caution; marks that are behind others refuse; a forced payment waits for those that RISK can
    renew.
    """
    if found.auction_start:
        return Reason.UNHEALTHY
    if found.cash < (amount or 0):
        return Reason.MARGIN
    account = found.clone()
    equity, risk, _ = margin.cautious(state, account)
    old, behind = freshness.pages_apart(state, account)
    if is_forced and any(market.is_markable(state, one) for one in sorted(old + behind)):
        return Reason.RISK_DUE
    if behind and not is_forced:
        return Reason.RISK_STALE
    free = equity - risk - margin.held(state, account)
    if amount is None:
        amount = min(account.cash, free)
    if amount <= 0 or free < amount:
        return Reason.MARGIN
    account.cash -= amount
    return account


def withdraw(state: State, record: Record, out: Outcome) -> Reason:
    """WITHDRAW: makes a WITHDRAWAL leaf for the owner, claimed on L1 when a batch that holds it is final."""
    number, amount, nonce, expires = record.fields
    account = _take(state, record, c.SCOPE_WITHDRAW, number, amount, nonce, expires)
    return account if isinstance(account, Reason) else pay_out(state, number, account, amount, out)


def pay_out(state: State, number: int, account: Account, amount: int, out: Outcome) -> Reason:
    """Makes the WITHDRAWAL leaf for `amount` that `account` has paid, and puts the account."""
    g = state.globals
    paid = insurance.payout(g, amount)
    if paid == 0 or g.withdrawals == c.U32_MAX:
        return Reason.POOL
    state.put_account(number, account)
    insurance.take(g, amount, paid)
    out.number = g.withdrawals
    out.amount = paid
    out.debited = amount
    state.put_withdrawal(g.withdrawals, account.owner, paid)
    g.withdrawals += 1
    return Reason.OK


def transfer(state: State, record: Record) -> Reason:
    """TRANSFER: cash from one account to another; only the owner may sign it."""
    number, to, amount, nonce, expires = record.fields
    account = _take(state, record, c.SCOPE_OWNER, number, amount, nonce, expires)
    if isinstance(account, Reason):
        return account
    receiver = state.account(to)
    if receiver is None or to == number:
        return Reason.UNKNOWN_ACCOUNT
    receiver.cash += amount
    state.put_account(number, account)
    state.put_account(to, receiver)
    return Reason.OK


def collect(state: State, out: Outcome) -> Reason:
    """COLLECT: the treasury's fees go to the account that PARAMS names, credited as a deposit is."""
    g = state.globals
    if g.treasury == 0:
        return Reason.NOTHING_TO_COLLECT
    number = state.params.treasury_account
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    out.amount = insurance.bring(g, g.treasury)
    account.cash += out.amount
    g.treasury = 0
    state.put_account(number, account)
    return Reason.OK
