"""Payments out of a frozen exchange, and amounts still due, as L1 records them, whoever sent the transactions.

Amounts are 1e-6 USD.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from sequencer.contracts import load
from sequencer.l1.abi import Contract, Event
from sequencer.l1.deploy import Deployment
from sequencer.l1.inbox import ROLLUP
from sequencer.l1.rpc import Rpc, to_int
from sequencer.proof.exit import closing_value
from sequencer.proof.leaving import Leaving
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason


@dataclass(slots=True)
class Line:
    """One owner. `account` 0: the exit state has no account of theirs, only a deposit to refund.

    `to_come`: at most; losses beyond the fund are shared. `at_once`: of the share, while accounts were missing.
    `until_s`: when the next of it can be had at the earliest, 0 when at once or when there is nothing.
    """

    account: int
    owner: str
    withdrawals: int = 0
    refunds: int = 0
    at_once: int = 0
    rest: int = 0
    house: int = 0
    to_come: int = 0
    waits_for: str = ""
    until_s: int = 0

    @property
    def paid(self) -> int:
        """All together, since the freeze."""
        return self.withdrawals + self.refunds + self.at_once + self.rest + self.house


@dataclass(slots=True)
class Statement:
    """All owners, accounts first. `vault`: its remaining balance. `is_over`: nothing is due to anybody."""

    lines: list[Line]
    frozen_at: int
    vault: int

    @property
    def paid(self) -> int:
        """To all of them, since the freeze."""
        return sum(line.paid for line in self.lines)

    @property
    def is_over(self) -> bool:
        """Whether nobody has anything to come."""
        return all(line.to_come == 0 for line in self.lines)

    def as_json(self) -> list[dict[str, Any]]:
        """One object a line."""
        return [asdict(line) | {"paid": line.paid} for line in self.lines]


def statement(rpc: Rpc, at: Deployment, leaving: Leaving) -> Statement:
    """Reads the events since the freeze, and each account's record in `Exit`."""
    state = leaving.state
    lines = {
        "0x" + account.owner.hex(): Line(number, "0x" + account.owner.hex())
        for number, account in sorted(state.accounts.items())
    }

    _accounts_to_come(leaving, list(lines.values()))

    def line_of(owner: str) -> Line:
        return lines.setdefault(owner, Line(0, owner))

    for name, owner, amount in _payments(rpc, at):
        line = line_of(owner)
        setattr(line, _COLUMN[name], getattr(line, _COLUMN[name]) + amount)
    for owner, amount in _on_their_way(leaving):
        line = line_of(owner)
        line.to_come += amount
    token = Contract(load("TestToken").abi)
    return Statement(
        lines=list(lines.values()),
        frozen_at=int(ROLLUP.read(rpc, at.rollup, "frozen_at")),
        vault=int(token.read(rpc, at.token, "balanceOf", at.vault)),
    )


_COLUMN: Final = {
    "Claimed": "withdrawals",
    "Refunded": "refunds",
    "PaidNow": "at_once",
    "Paid": "rest",
    "HousePaid": "house",
}


def _payments(rpc: Rpc, at: Deployment) -> Iterator[tuple[str, str, int]]:
    """(event, owner, amount) of every payment since the freeze."""
    leave, vault = Contract(load("Exit").abi), Contract(load("Vault").abi)
    _, _, frozen = next(_logs(rpc, at.rollup, [ROLLUP.event("Frozen")], at.deploy_block))
    first = to_int(frozen["blockNumber"])
    of_exit = [leave.event(name) for name in _COLUMN if name != "Claimed"]
    for address, events in ((at.vault, [vault.event("Claimed")]), (at.exit, of_exit)):
        for name, fields, _ in _logs(rpc, address, events, first):
            yield name, str(fields["owner"]).lower(), int(fields["amount"])


def _on_their_way(leaving: Leaving) -> Iterator[tuple[str, int]]:
    """(owner, amount) of unclaimed withdrawals and of deposits not refunded."""
    state = leaving.state
    for number in range(state.globals.withdrawals):
        value = state.map.get(c.KEY_WITHDRAWAL | number) or 0
        if not leaving.is_claimed(number):
            yield f"0x{value >> 64:040x}", value & c.U64_MAX
    for message in leaving.not_taken():
        record = codec.decode(message.record, b"")
        if (
            not isinstance(record, Reason)
            and record.kind == Kind.DEPOSIT
            and not leaving.is_refunded(message.index)
        ):
            owner, _, amount = record.fields
            assert isinstance(owner, bytes)
            yield "0x" + owner.hex(), amount


def _accounts_to_come(leaving: Leaving, lines: list[Line]) -> None:
    """Amounts due to accounts for cash and positions, and to the treasury's owner."""
    state = leaving.state
    undeclared, claims = leaving.undeclared(), 0
    hold_until_s, until_s = leaving.begun()
    for line in lines:
        held = leaving.account(line.account)
        claim = max(closing_value(state, state.accounts[line.account]), 0)
        claims += claim
        if held["is_done"]:
            continue
        line.to_come = held["set_aside"] or claim - held["paid"]
        if line.to_come and undeclared:
            line.until_s = until_s if held["paid"] else hold_until_s
            line.waits_for = f"when {undeclared} others are declared"
    house = leaving.house_left()
    if house is None:
        g = state.globals
        house = g.treasury + max(g.pool + g.fund - claims, 0)
    for line in lines:
        if line.account == state.params.treasury_account:
            line.to_come += house


def _logs(
    rpc: Rpc, address: str, events: list[Event], first: int
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(name, fields, log) of a contract's events from block `first` on, in order."""
    by_topic = {event.topic: event for event in events}
    query = {"address": address, "topics": [list(by_topic)]}
    for log in rpc.logs(query, first, rpc.block_number()):
        event = by_topic[log["topics"][0]]
        yield event.name, event.decode(log), log
