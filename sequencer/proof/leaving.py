"""Runs the exit: rebuilds the last final state from L1 data alone and sends the transactions of `Exit` and `Vault`.

Anybody can run it for any account: payouts go to the owners. Every step first reads what L1 already has, so it can be
run again at any time, by several at once, and continues. Amounts are 1e-6 USD.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from sequencer.clock import utc
from sequencer.contracts import load
from sequencer.l1 import inbox
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcReverted, TransactionFailed
from sequencer.l1.follower import Follower, InboxMessage, Kept, PostedBatch
from sequencer.l1.inbox import ROLLUP
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.wallet import Wallet
from sequencer.proof.audit import Fault
from sequencer.proof.execution import L1Facts
from sequencer.proof.exit import Proofs, closing_value, passed_expiries
from sequencer.proof.replay import replay
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.wire.names import expiry_name

logger = logging.getLogger(__name__)

STEPS: Final = ("now", "fix", "declare", "claim")


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one step:

    `paid` and `gas` are 0 where nothing was sent; `until_s`: before then no retry is needed, 0 where waiting does not
    help.
    """

    step: str
    what: str
    result: str
    paid: int = 0
    gas: int = 0
    until_s: int = 0


def freeze(rpc: Rpc, at: Deployment, wallet: Wallet) -> bool:
    """Freezes the rollup; False when it is frozen.

    Raises RuntimeError when a freeze is not possible yet, TransactionFailed.
    """
    if inbox.frozen_at(rpc, at):
        return False
    freezable_at_s = inbox.freezable_at(rpc, at)
    if _now_s(rpc) < freezable_at_s:
        raise RuntimeError(
            f"the rollup cannot be frozen before {utc(freezable_at_s)}: until then its sequencer may be silent, "
            "and no inbox message is overdue"
        )
    wallet.freeze()
    return True


def exit_state(
    rpc: Rpc,
    at: Deployment,
    params: Params,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    kept: Kept | None = None,
) -> State:
    """The exit state: the last final one of a frozen rollup, from its posted batches. `kept`: see `Follower`.

    A batch that nobody has challenged in time is final whatever is wrong with it: that is logged, and it counts if its
    records give its root. Raises RuntimeError before the freeze or the end of the last window, ReplayError when a batch
    does not lead where it says.
    """
    if not inbox.frozen_at(rpc, at):
        when = utc(inbox.freezable_at(rpc, at))
        raise RuntimeError(
            f"the rollup is not frozen; if no batch comes, anybody may freeze it from {when} on"
        )
    last = int(ROLLUP.read(rpc, at.rollup, "next_batch")) - 1
    if not ROLLUP.read(rpc, at.rollup, "is_final", last):
        final_at_s = ROLLUP.read(rpc, at.rollup, "batch", last)[2] + at.challenge_window_s
        raise RuntimeError(
            f"batch {last}, the last, can be challenged until {utc(final_at_s)}: run again then"
        )
    last = int(ROLLUP.read(rpc, at.rollup, "exit_batch"))
    follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0, kept=kept)
    domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
    posted = takewhile(lambda batch: batch.batch_id <= last, follower.batches(at.deploy_block))

    def shown(batch: PostedBatch) -> None:
        progress("replay", batch.batch_id, last)

    def told(fault: Fault) -> None:
        logger.error("%s: it was not challenged in time, and is final", fault)

    messages = follower.messages_after(0)
    facts = L1Facts(rpc, at, lambda: messages)
    return replay(posted, domain, params, shown, facts, told).state


class Leaving:
    """The steps of the exit. `wallet` sends; None: a dry run, which lists the transactions. `rows` hold the results."""

    def __init__(
        self,
        rpc: Rpc,
        at: Deployment,
        state: State,
        wallet: Wallet | None,
        told: Callable[[Row], None] = lambda _row: None,
    ) -> None:
        self.state = state
        self.proofs = Proofs(state)
        self.rows: list[Row] = []
        self._rpc = rpc
        self._at = at
        self._wallet = wallet
        self._told = told
        self._exit = Contract(load("Exit").abi)
        self._vault = Contract(load("Vault").abi)

    # --- steps ----------------------------------------------------------------------------------

    def run(self, step: str, accounts: Sequence[int], owner: str | None) -> None:
        """The steps that `step` names, "all" or one of STEPS; refunds for `owner`, None: for everybody."""
        self.begin()
        if step in ("now", "all"):
            self.money(accounts)
            self.refunds(None if owner is None else {owner.lower()})
        if step in ("fix", "all"):
            self.fix()
        if step in ("declare", "all"):
            self.declare(accounts)
        if step in ("claim", "all"):
            self.claim(accounts)

    def begin(self) -> None:
        """Pins the exit state, unless it is pinned. Raises RuntimeError when L1 has pinned another one."""
        pinned = self._ask("root")
        if pinned == bytes(32):
            accounts, witness = self.proofs.begin()
            self._send("begin", f"{accounts} accounts", "begin", accounts, witness)
        elif pinned != self.proofs.root:
            raise RuntimeError("the exit state on L1 is another one than its batches lead to")

    def money(self, accounts: Iterable[int]) -> None:
        """Unclaimed withdrawals and unprocessed deposits of these accounts' owners."""
        owners = {"0x" + self.state.accounts[n].owner.hex() for n in accounts if n in self.state.accounts}
        batch_id = int(ROLLUP.read(self._rpc, self._at.rollup, "exit_batch"))
        for n in range(self.state.globals.withdrawals):
            owner, amount, bitmap, siblings = self.proofs.withdrawal(n)
            if owner in owners and not self.is_claimed(n):
                what = f"number {n} of {owner}"
                data = self._vault.encode("claim", batch_id, n, owner, amount, bitmap, siblings)
                self._transact("withdrawal", what, self._at.vault, data, amount)

    def refunds(self, owners: set[str] | None = None) -> None:
        """Deposits that the exit state does not include; `owners` (lower case) None: of everybody."""
        for message in self.not_taken():
            record = codec.decode(message.record, b"")
            if isinstance(record, Reason) or record.kind != Kind.DEPOSIT:
                # Forced messages carry no money: nobody received the fee, and the request is void.
                if owners is None:
                    kind = Kind(message.record[0]).name
                    self._row(
                        Row("refund", f"message {message.index}, {kind}", "bears no money: nothing to refund")
                    )
                continue
            owner, _, amount = record.fields
            assert isinstance(owner, bytes)
            if owners is not None and "0x" + owner.hex() not in owners:
                continue
            what = f"message {message.index} of 0x{owner.hex()}"
            if self.is_refunded(message.index):
                self._row(Row("refund", what, "refunded already"))
            else:
                self._send("refund", what, "refund", message.index, message.record, expected=amount)

    def not_taken(self) -> list[InboxMessage]:
        """Inbox messages that the exit state does not include, deposits and others, in order."""
        g = self.state.globals
        follower = Follower(self._rpc, self._at.inbox, self._at.rollup, self._at.deploy_block, 0)
        return follower.messages_after(g.inbox_count, g.inbox_hash)

    def fix(self) -> None:
        """Prices of all expiries that had passed in the exit state and have open positions."""
        for key in passed_expiries(self.state):
            underlying, day = key >> 16, key & 0xFFFF
            if self._ask("price", underlying, day)[0]:
                self._row(Row("fix", expiry_name(key), "fixed already"))
            else:
                self._send("fix", expiry_name(key), "fix", underlying, day, self.proofs.fix(key))

    def declare(self, accounts: Iterable[int]) -> None:
        """Declares the value of each account. Those below zero go first: their losses are unknown until then."""
        values = {
            number: closing_value(self.state, self.state.accounts[number]) for number in self._known(accounts)
        }
        for number in sorted(values, key=lambda number: (values[number] >= 0, number)):
            if self.account(number)["is_declared"]:
                self._note("declare", number, "declared already")
            else:
                what = f"account {number}, which comes to {values[number]}"
                self._send("declare", what, "declare", number, self.proofs.declare(number))

    def claim(self, accounts: Iterable[int]) -> None:
        """Claims each account's share, or the part paid so far; the treasury's when its owner is among them."""
        numbers = list(self._known(accounts))
        missing = self.undeclared()
        hold_until, until = self.begun()
        is_partial = missing > 0 and self.now_s() <= until
        if (is_partial and self.now_s() <= hold_until) or not until:
            end = f", or a part from {utc(hold_until)} on" if until else ""
            why = f"waits for {missing} accounts to be declared{end}"
            self._row(Row("claim", "all", why, until_s=hold_until + 1 if until else 0))
            return
        for number in numbers:
            held = self.account(number)
            if held["is_done"] or not held["is_declared"]:
                self._note("claim", number, "nothing to claim" if held["is_done"] else "not declared")
            elif is_partial and not held["claim"]:
                self._note("claim", number, "comes to nothing")
            elif is_partial and held["paid"]:
                why = f"a part is paid; the rest when {missing} others are declared, or {utc(until)}"
                self._row(Row("claim", f"account {number}", why, until_s=until + 1))
            else:
                self._send("claim", f"account {number}", "claim", number)
        is_house_due = not is_partial and (not self._ask("is_open") or int(self._ask("house_left")) > 0)
        if is_house_due and self.state.params.treasury_account in numbers:
            self._send("claim", "treasury", "claim_house")

    # --- L1 -------------------------------------------------------------------------------------

    def _known(self, accounts: Iterable[int]) -> Iterable[int]:
        return (number for number in accounts if number in self.state.accounts)

    def _ask(self, name: str, *arguments: Any) -> Any:
        return self._exit.read(self._rpc, self._at.exit, name, *arguments)

    def account(self, number: int) -> dict[str, Any]:
        """An account's record in `Exit`: claim, paid in part, set_aside, is_declared, is_done."""
        names = ("claim", "paid", "set_aside", "is_declared", "is_done")
        return dict(zip(names, self._ask("account", number), strict=True))

    def undeclared(self) -> int:
        """Number of accounts for which the payouts still wait."""
        return 0 if self._ask("is_open") else len(self.state.accounts) - int(self._ask("declared"))

    def begun(self) -> tuple[int, int]:
        """Ends of the hold and of the declare window, seconds; 0 before `begin`."""
        return int(self._ask("hold_until")), int(self._ask("declare_until"))

    def house_left(self) -> int | None:
        """Amount still due to the treasury's owner; None before the payouts are open."""
        return int(self._ask("house_left")) if self._ask("is_open") else None

    def is_claimed(self, number: int) -> bool:
        """Whether a withdrawal has been paid."""
        return bool(self._vault.read(self._rpc, self._at.vault, "claimed", number))

    def is_refunded(self, index: int) -> bool:
        """Whether the deposit of an inbox message has been returned."""
        return bool(self._ask("refunded", index))

    def now_s(self) -> int:
        """Time of L1's last block."""
        return _now_s(self._rpc)

    def _note(self, step: str, number: int, result: str) -> None:
        self._row(Row(step, f"account {number}", result))

    def _row(self, row: Row) -> None:
        self.rows.append(row)
        self._told(row)

    def _send(self, step: str, what: str, name: str, *arguments: Any, expected: int = 0) -> None:
        self._transact(step, what, self._at.exit, self._exit.encode(name, *arguments), expected)

    def _transact(self, step: str, what: str, to: str, data: bytes, expected: int) -> None:
        """Sends a transaction and stores the result; a refusal of L1 with its reason."""
        if self._wallet is None:
            row = Row(step, what, "would be sent", expected)
        else:
            fields = {"from": self._wallet.address, "to": to, "data": "0x" + data.hex()}
            try:
                gas = to_int(self._rpc.call("eth_estimateGas", fields)) * 5 // 4
                mined = self._wallet.transact(step, to, data, gas=gas)
                row = Row(step, what, "done", self._paid(mined.logs), mined.gas_used)
            except RpcReverted as error:
                row = Row(step, what, f"refused: {error.reason or error.message}")
            except TransactionFailed as error:
                row = Row(step, what, f"refused: {error.reason}")
        self._row(row)

    def _paid(self, logs: list[dict[str, Any]]) -> int:
        """Amount that the vault paid in a transaction."""
        events = {event.topic: event for event in map(self._vault.event, ("PaidExit", "Claimed"))}
        return sum(
            int(events[log["topics"][0]].decode(log)["amount"]) for log in logs if log["topics"][0] in events
        )


def _now_s(rpc: Rpc) -> int:
    block = rpc.block("latest")
    assert block is not None
    return to_int(block["timestamp"])
