"""`fairstrike demo --exit`: the sequencer stops for good, and everybody gets out with open positions, from L1 alone.

A short day of trading leaves positions of two expiries, orders that rest, a withdrawal that nobody has claimed and, in
the inbox, deposits and forced messages that no batch has taken. The index moves, and the marks with it. Then only the
chain goes on: silence, freeze, declarations, claims. Amounts are 1e-6 USD, prices ticks.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sequencer.clock import ManualClock
from sequencer.development import devnet_params
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_signer
from sequencer.market.flat import FlatSource
from sequencer.proof.exit import closing_value
from sequencer.proof.leaving import Leaving, Row, exit_state, freeze
from sequencer.proof.statement import Statement, statement
from sequencer.protocol.constants import DAY_S
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.queue.driver import DriverConfig
from sequencer.sdk.client import Client
from sequencer.sdk.trader import Trader

USD: Final = 10**6
DAY: Final = 20_000
START_S: Final = DAY * DAY_S
INDEX: Final = 4_600_000
EXPIRIES: Final = (DAY + 1, DAY + 8)
STRIKES: Final = (4_400_000, 4_600_000, 4_800_000)
WANTED: Final = [(0, day, strike, put) for day in EXPIRIES for strike in STRIKES for put in (False, True)]
MAKER, BUYER, SELLER, OTHER = 1, 2, 3, 4
DEPOSITS: Final = {MAKER: 200_000 * USD, BUYER: 60_000 * USD, SELLER: 4_000 * USD, OTHER: 25_000 * USD}
STRANGER: Final = 5  # whose first deposit no batch takes
HELPER: Final = 9  # sends everything; owns nothing on the exchange
LATE: Final = {BUYER: 77 * USD, STRANGER: 500 * USD}  # deposits that no batch takes
SILENCE_MAX_S: Final = 7_000
TAKEOVER_S: Final = 50  # 32 of them within half the inbox's shortest delay
SOLVENT: Final = 4_650_000  # an index at which nobody owes more than it has
MOVED_S: Final = START_S + 10  # when the index has moved
STAGES: Final = 5

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class ExitReport:
    """What the drill found. `refunded`, `paid`, `vault_*`: 1e-6 USD; `claims` of all accounts together.

    `marks`: at which positions were closed, by instrument; `index`: of the exit state.
    """

    chain: str
    data: str = "calldata"
    accounts: int = 0
    open_positions: int = 0
    resting_orders: int = 0
    withdrawals: int = 0
    refunded: int = 0
    forced_waiting: int = 0
    root: str = ""
    index: int = 0
    marks: dict[int, int] = field(default_factory=dict)
    claims: int = 0
    vault_before: int = 0
    paid: int = 0
    vault_after: int = -1
    transactions: int = 0
    gas: int = 0
    days_passed: float = 0.0
    seconds: float = 0.0
    checks: dict[str, bool] = field(default_factory=dict)
    statement: list[dict[str, Any]] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every check has been made and held."""
        return bool(self.checks) and all(self.checks.values())


@dataclass(frozen=True, slots=True)
class ExitConfig:
    """`index`: at which the last marks are made; `folder` None: a temporary one."""

    chain: str = "pyevm"
    data: str = "calldata"
    index: int = SOLVENT
    params: Params = field(default_factory=devnet_params)
    folder: Path | None = None


class ExitDrill:
    """One run; `report` holds what it found, `rows` every step that was taken."""

    def __init__(self, config: ExitConfig, progress: Progress = lambda _stage, _done, _total: None) -> None:
        self.config = config
        self.report = ExitReport(config.chain, config.data)
        self.rows: list[Row] = []
        self.values: dict[int, int] = {}  # by account, at the last marks
        self.received: dict[int, int] = {}  # by development key, since the freeze
        self._progress = progress
        self._devnet: Devnet
        self._source: FlatSource
        self._state: State

    async def run(self) -> ExitReport:
        """Runs it all; `report.checks` say what held."""
        began = time.monotonic()
        config = DevnetConfig(
            chain=self.config.chain,
            data=self.config.data,
            folder=self.config.folder,
            params=self.config.params,
            genesis_time_s=START_S - 3_600,
            delay_min_s=SILENCE_MAX_S // 2,
            delay_max_s=SILENCE_MAX_S,
            silence_max_s=SILENCE_MAX_S,
            takeover_s=TAKEOVER_S,
            service={"driver": DriverConfig(tick_ms=0.5), "batch_interval_s": 1e9},
        )
        clock = ManualClock(START_S)
        self._source = FlatSource(WANTED, INDEX)
        async with Devnet(config, clock, [self._source], WANTED) as self._devnet:
            last_root = await self._trade()
            await self._devnet.stop_exchange()
            self._stage(2)
            await asyncio.to_thread(self._leave, last_root)
        self.report.seconds = round(time.monotonic() - began, 3)
        return self.report

    def _stage(self, number: int) -> None:
        self._progress("exit", number, STAGES)

    # --- before -----------------------------------------------------------------------------------

    async def _trade(self) -> bytes:
        """Positions of both expiries between four accounts, orders that rest, withdrawals; the last root on L1."""
        devnet = self._devnet
        client = await Client.connect(devnet.ws_url)
        traders = {}
        for index, amount in DEPOSITS.items():
            account = await devnet.fund(devnet_signer(index), amount)
            traders[index] = await Trader.open(client, devnet_key(index), account)
        self._stage(1)
        for second in range(1, 4):
            await devnet.service.advance(START_S + second)
        near, far = (day << 12 for day in EXPIRIES)
        for buyer, seller, instrument, price, quantity in (
            (BUYER, MAKER, near + 2, "900.00", "1.5"),  # call 46,000
            (BUYER, MAKER, far + 3, "1500.00", "0.8"),  # put 46,000
            (OTHER, SELLER, near + 4, "250.00", "0.1"),  # call 48,000
            (MAKER, OTHER, far + 4, "1200.00", "0.5"),
        ):
            await traders[seller].place(instrument, "sell", price, quantity)
            await traders[buyer].place(instrument, "buy", price, quantity)
        await traders[OTHER].place(near + 1, "buy", "10.00", "1")
        await traders[MAKER].place(far + 2, "sell", "5000.00", "0.2")
        await traders[OTHER].withdraw("1234.560001")
        self._source.indices[0] = self.config.index
        await devnet.service.advance(MOVED_S)
        await devnet.set_chain_time(START_S + 60)
        await devnet.post_all()
        await client.close()
        state = devnet.service.state
        self.report.accounts = len(state.accounts)
        self.report.open_positions = sum(len(one.positions) for one in state.accounts.values())
        self.report.resting_orders = sum(map(len, state.books.values()))
        return state.root()

    # --- after; nothing from here on knows the sequencer --------------------------------------------

    def _leave(self, last_root: bytes) -> None:
        devnet, report = self._devnet, self.report
        begun_s = devnet.chain.head_time_s()
        for index, amount in LATE.items():
            wallet = devnet.wallet(devnet_signer(index))
            wallet.mint(amount)
            devnet.wallet(
                devnet_signer(BUYER)
            ).force_cancel_all()  # in front of each deposit: it bears no money
            wallet.deposit_with_permit(amount)
        report.forced_waiting = len(LATE)
        before = self._balances()
        report.vault_before = devnet.vault_balance()
        self._later(SILENCE_MAX_S + 60)
        freeze(devnet.chain.rpc, devnet.deployment, devnet.wallet(devnet_signer(HELPER)))
        self._stage(3)
        self._state = exit_state(devnet.chain.rpc, devnet.deployment, self.config.params)
        report.root = "0x" + self._state.root().hex()
        self._once()
        self._stage(4)
        last = self._once()
        after = self._balances()
        self.received = {index: after[index] - before[index] for index in after}
        report.vault_after = devnet.vault_balance()
        report.days_passed = round((devnet.chain.head_time_s() - begun_s) / DAY_S, 2)
        self._check(last_root, last)
        self._stage(STAGES)

    def _once(self) -> Leaving:
        """What `fairstrike exit --all` does, by the helper."""
        devnet = self._devnet
        leaving = Leaving(
            devnet.chain.rpc,
            devnet.deployment,
            self._state,
            devnet.wallet(devnet_signer(HELPER)),
            self.rows.append,
        )
        leaving.run("all", sorted(self._state.accounts), None)
        return leaving

    def _later(self, seconds: int) -> None:
        self._devnet.chain.set_time(self._devnet.chain.head_time_s() + seconds)

    def _balances(self) -> dict[int, int]:
        """Tokens outside the vault, by development key."""
        return {index: self._devnet.wallet(devnet_signer(index)).balance() for index in (*DEPOSITS, STRANGER)}

    def _check(self, last_root: bytes, last: Leaving) -> None:
        report, state, devnet = self.report, self._state, self._devnet
        known: Statement = statement(devnet.chain.rpc, devnet.deployment, last)
        self.values = {number: closing_value(state, one) for number, one in state.accounts.items()}
        held = {instrument for one in state.accounts.values() for instrument in one.positions}
        report.index = state.underlyings[0].index
        report.marks = {one: state.pages[one >> 5].rows[one & 31][0] for one in sorted(held)}
        at_marks = {
            number: one.cash + sum(lots * report.marks[where] for where, lots in one.positions.items())
            for number, one in state.accounts.items()
        }
        report.claims = sum(value for value in self.values.values() if value > 0)
        report.statement = known.as_json()
        report.paid = sum(self.received.values())
        report.transactions = sum(row.gas > 0 for row in self.rows)
        report.gas = sum(row.gas for row in self.rows)
        report.refunded = sum(line.refunds for line in known.lines)
        report.withdrawals = sum(line.withdrawals for line in known.lines)
        by_owner = {devnet_signer(index).address.lower(): got for index, got in self.received.items()}
        pool_and_fund = state.globals.pool + state.globals.fund
        above_share = [
            line.at_once
            + line.rest
            - max(self.values[line.account], 0) * min(pool_and_fund, report.claims) // report.claims
            for line in known.lines
            if line.account
        ]
        units = (
            len(above_share) if report.claims > pool_and_fund else 0
        )  # the last one gets what rounding has left
        report.checks = {
            "positions_were_open_and_orders_rested": report.open_positions > 0 and report.resting_orders > 0,
            "a_withdrawal_and_deposits_were_on_their_way": report.withdrawals > 0 and report.refunded > 0,
            "exit_state_is_the_last_root": report.root == "0x" + last_root.hex(),
            "positions_are_closed_at_the_last_marks": report.index == self.config.index
            and at_marks == self.values
            and all(last.account(number)["claim"] == max(0, at_marks[number]) for number in at_marks),
            "values_sum_to_pool_and_deficit": sum(at_marks.values())
            == state.globals.pool + state.globals.deficit,
            "everybody_got_its_share": len(above_share) == report.accounts
            and all(0 <= one <= units for one in above_share),
            "every_deposit_not_taken_was_refunded": report.refunded == sum(LATE.values()),
            "statement_is_what_the_owners_have": by_owner == {line.owner: line.paid for line in known.lines},
            "nothing_was_refused": not any(row.result.startswith("refused") for row in self.rows),
            "nothing_is_paid_twice": not any(row.gas for row in last.rows),
            "nobody_has_anything_to_come": known.is_over,
            "sum_paid_is_what_the_vault_held": report.paid == known.paid == report.vault_before,
            "the_vault_is_empty": report.vault_after == known.vault == 0,
        }


def as_json(report: ExitReport) -> dict[str, Any]:
    """The report as one object."""
    return asdict(report)
