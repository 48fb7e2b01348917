"""Recomputes every account's history from a sequencer's raw log, and compares it with what the exchange tells.

    python scripts/check_history.py FOLDER             a stopped sequencer's folder, deployment.json beside it or in it
    python scripts/check_history.py --demo [--tape T]  plays the demo's day first, in a temporary folder

It takes from the sequencer the transition alone: what each record trades, and the cash of the accounts before and
after it. Cost, profit, fees and deposits are computed here, by ways of its own: fees and debts are what a change of
cash leaves when everything else is taken off, profit is what trades have moved less what positions bind. Then:

    after every record   the identity of every account that it touches
    at the end           totals, positions and every trade of history.sqlite
    after a restart      `account`, `positions` and the pages of the API, and greeks by a computation in floats

Exit status 1 when something differs.
"""

import argparse
import asyncio
import json
import math
import sqlite3
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sequencer.clock import ManualClock
from sequencer.genesis import genesis_state
from sequencer.l1.deploy import Deployment
from sequencer.l1.parameters import of_deployment
from sequencer.log.reader import LogReader
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.constants import Kind
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, instrument_expiry_time
from sequencer.protocol.transition import apply

TICK_USD = Decimal("0.01")
LOT = Decimal("0.0001")
UNIT = Decimal("0.000001")  # of cash: a tick times a lot
GREEKS_REL = 2e-6  # integers against floats: the precision of the exchange's logarithms and roots
BROUGHT = {Kind.DEPOSIT, Kind.WITHDRAW, Kind.FORCED_WITHDRAW, Kind.TRANSFER, Kind.COLLECT}
SHOWN = 20  # differences
FIRST_DAY = 18_993  # of the demo


@dataclass
class Position:
    """What is held, and every trade of it since it was opened: (lots, ticks). `cost`: ticks x lots."""

    lots: int = 0
    cost: int = 0

    def trade(self, lots: int, ticks: int) -> None:
        """Opens at the price; closing leaves the rest of the cost, rounded away from zero."""
        after = self.lots + lots
        if self.lots * lots >= 0:
            self.cost += lots * ticks
        elif self.lots * after <= 0:  # through zero, or to it
            self.cost = after * ticks
        else:
            sign = 1 if self.lots > 0 else -1
            self.cost = sign * math.ceil(abs(self.cost) * Fraction(abs(after), abs(self.lots)))
        self.lots = after


@dataclass
class Books:
    """An account. `flow`: cash that trades, settlements and liquidations have moved, fees apart."""

    brought: int = 0
    flow: int = 0
    fees: int = 0
    covered: int = 0
    held: dict[int, Position] = field(default_factory=lambda: defaultdict(Position))

    def bound(self) -> int:
        """Cost of what is held."""
        return sum(one.cost for one in self.held.values())

    def realised(self) -> int:
        """What trades have moved, with what is bound in positions added again."""
        return self.flow + self.bound()


class Recomputation:
    """The log from its first record to its last."""

    def __init__(self, state: State, folder: Path) -> None:
        self.state = state
        self.books: dict[int, Books] = defaultdict(Books)
        self.trades: list[
            tuple[int, ...]
        ] = []  # record, account, instrument, lots, ticks, position, cost, cash
        self.filled: Counter[int] = Counter()  # by the number that an order traded under
        self.counts: Counter[str] = Counter()
        self.differences: list[str] = []
        db = sqlite3.connect(f"{(folder / 'log.sqlite').resolve().as_uri()}?mode=ro", uri=True)
        for entry in LogReader(db).read(0):
            for raw in entry.raws():
                self._record(raw)
            assert state.root() == entry.root
        db.close()

    def differs(self, what: str) -> None:
        """Keeps a difference."""
        self.counts["differences"] += 1
        if len(self.differences) < SHOWN:
            self.differences.append(what)

    def _record(self, raw: bytes) -> None:
        before = {number: one.cash for number, one in self.state.accounts.items()}
        out = apply(self.state, raw)
        kind = raw[0]
        self.counts["records"] += 1
        moved: Counter[int] = Counter()  # by account: the premium and value that has changed hands
        discount = 0
        trades: list[tuple[int, int, int, int]] = []
        for fill in out.fills:
            bought = fill.quantity if fill.side == 0 else -fill.quantity
            trades.append((fill.maker, fill.instrument, -bought, fill.maker_price))
            trades.append((fill.taker, fill.instrument, bought, fill.maker_price))
            self.filled[fill.maker_seq] += fill.quantity
            self.filled[fill.taker_seq] += fill.quantity
            self.counts["trades"] += 1
        value = sum(lots * ticks for _, lots, ticks in out.moved)
        if out.moved and kind == Kind.SETTLE:
            account = int.from_bytes(raw[4:8], "big")
            trades += ((account, instrument, -lots, ticks) for instrument, lots, ticks in out.moved)
            self.counts["settlements"] += len(out.moved)
        elif out.moved:  # a bid: at the marks, and less is paid
            bidder = int.from_bytes(raw[1:5], "big")
            for account, sign in ((out.number, -1), (bidder, 1)):
                trades += ((account, instrument, sign * lots, ticks) for instrument, lots, ticks in out.moved)
            discount = value - out.amount
            for account, sign in ((out.number, -1), (bidder, 1)):
                moved[account] += sign * discount
            self.counts["bids"] += 1
        for account, instrument, lots, ticks in trades:
            moved[account] -= lots * ticks
            position = self.books[account].held[instrument]
            position.trade(lots, ticks)
            self.trades.append((out.seq, account, instrument, lots, ticks, position.lots, position.cost))
        for number, one in self.state.accounts.items():
            change = one.cash - before.get(number, 0)
            if not change and number not in moved:
                continue
            fee = out.fee if out.moved and kind != Kind.SETTLE and number == out.number else 0
            self._account(kind, number, change, moved[number], fee, one.cash)

    def _account(self, kind: int, number: int, change: int, moved: int, fee: int, cash: int) -> None:
        """Books a change of cash, and compares the sums with the account. `fee`: a bid's, which may go with a debt."""
        books = self.books[number]
        books.flow += moved
        books.fees += fee
        left = change - moved + fee
        if kind in BROUGHT:
            books.brought += left
        elif left < 0:
            books.fees -= left
        else:  # nobody is given anything but what pays a debt
            books.covered += left
        self.counts["identities"] += 1
        holds = books.brought + books.realised() + books.covered - books.fees - books.bound()
        if holds != cash:
            self.differs(f"account {number}: {holds} by its sums, {cash} in cash")
        held = {one: position.lots for one, position in books.held.items() if position.lots}
        if held != dict(self.state.accounts[number].positions):
            self.differs(f"account {number}: its trades do not give its positions")


def compare_store(of: Recomputation, folder: Path) -> None:
    """Every row that history.sqlite has of trades, positions and totals."""
    db = sqlite3.connect(f"{(folder / 'history.sqlite').resolve().as_uri()}?mode=ro", uri=True)
    rows = db.execute(
        "SELECT key, account, instrument, side, lots, price, position, cost FROM trades"
    ).fetchall()
    found = Counter((key // 512, a, i, lots * (1 - 2 * side), *rest) for key, a, i, side, lots, *rest in rows)
    expected = Counter(of.trades)
    of.counts["rows compared"] += len(rows)
    for row in (found - expected) + (expected - found):
        of.differs(f"trade {row}")
    books = dict(of.books)
    for account, cash, net, realised, fees, covered in db.execute(
        "SELECT account, cash, net, realised, fees, covered FROM totals"
    ):
        one = books.pop(account)
        wanted = (of.state.accounts[account].cash, one.brought, one.realised(), one.fees, one.covered)
        of.counts["rows compared"] += 1
        if (cash, net, realised, fees, covered) != wanted:
            of.differs(f"totals of account {account}: {(cash, net, realised, fees, covered)}, not {wanted}")
    for account in books:
        of.differs(f"totals of account {account} are missing")
    held = {(a, i): (p.lots, p.cost) for a, one in of.books.items() for i, p in one.held.items() if p.lots}
    stored = {
        (a, i): (lots, cost)
        for a, i, lots, cost in db.execute("SELECT account, instrument, lots, cost FROM positions")
    }
    of.counts["rows compared"] += len(stored)
    if held != stored:
        of.differs(f"positions: {len(held)} recomputed, {len(stored)} stored, and they are not the same")
    db.close()


def usd(units: int) -> str:
    """1e-6 USD as the API has it."""
    return str((Decimal(units) * UNIT).quantize(UNIT))


def compare_api(of: Recomputation, service: Service) -> None:
    """Answers of a sequencer that has started again."""
    for number, account in of.state.accounts.items():
        one = of.books[number]
        told = service.answers.answer("account", {"account": number})
        marks = {i: of.state.pages[i >> 5].rows[i & 31][0] for i in account.positions}
        value = sum(lots * marks[i] for i, lots in account.positions.items())
        wanted = {
            "cash": usd(account.cash),
            "net_deposits": usd(one.brought),
            "realised_pnl": usd(one.realised()),
            "unrealised_pnl": usd(value - one.bound()),
            "fees_paid": usd(one.fees),
            "covered": usd(one.covered),
        }
        compare(of, f"account {number}", told, wanted)
        sums = {name: Decimal(told[name]) for name in wanted}
        costs = sum(Decimal(row["cost"]) for row in told["positions"])
        if (
            sums["cash"]
            != sums["net_deposits"] + sums["realised_pnl"] + sums["covered"] - sums["fees_paid"] - costs
        ):
            of.differs(f"account {number}: the identity does not hold after the restart")
        of.counts["accounts after the restart"] += 1
        for row in service.answers.answer("positions", {"account": number}):
            position = one.held[row["number"]]
            average = Decimal(position.cost) * TICK_USD / Decimal(position.lots)
            wanted = {
                "quantity": str((position.lots * LOT).quantize(LOT)),
                "cost": usd(position.cost),
                "average_price": str(abs(average).quantize(UNIT, ROUND_HALF_UP)),
                "unrealised_pnl": usd(position.lots * marks[row["number"]] - position.cost),
            }
            compare(of, f"account {number}, {row['instrument']}", row, wanted)
            of.counts["positions after the restart"] += 1
            compare_greeks(of, service, row)


def compare(of: Recomputation, whose: str, told: dict[str, Any], wanted: dict[str, str]) -> None:
    """Field by field, to the unit."""
    for name, value in wanted.items():
        if told[name] != value:
            of.differs(f"{whose}: {name} {told[name]}, recomputed {value}")


def compare_greeks(of: Recomputation, service: Service, row: dict[str, Any]) -> None:
    """A position's greeks are its lots times the option's, and those are Black-76's at the mark's volatility."""
    ticker = service.answers.answer("ticker", {"instrument": row["number"]})
    page = of.state.pages[row["number"] >> 5]
    years = (instrument_expiry_time(row["number"]) - page.time) / (365 * 86_400)
    if ticker["mark_iv"] is None or years <= 0:
        return
    word = page.terms[row["number"] & 31]
    exact = black76(
        page.forward / 100, (word & 0x7FFF_FFFF) / 100, bool(word >> 31), float(ticker["mark_iv"]), years
    )
    for name, value in exact.items():
        one = Decimal(ticker["greeks"][name])
        off = abs(float(one) - value) / max(abs(value), GREEKS_FLOOR[name])
        of.counts["greeks"] += 1
        of.counts["greeks, largest difference, 1e-9"] = max(
            of.counts["greeks, largest difference, 1e-9"], round(off * 1e9)
        )
        if off > GREEKS_REL * 50:
            of.differs(f"{row['instrument']}: {name} {one}, in floats {value:.9g}")
        places = Decimal(1).scaleb(one.as_tuple().exponent)  # type: ignore[arg-type]  # a letter only of what is no number
        whole = (one * Decimal(row["quantity"])).quantize(places, "ROUND_DOWN")
        if abs(Decimal(row["greeks"][name]) - whole) > places:
            of.differs(f"{row['instrument']}: {name} of the position {row['greeks'][name]}, not {whole}")


GREEKS_FLOOR = {"delta": 1e-3, "gamma": 1e-7, "vega": 1e-1, "theta": 1e-1}


def black76(forward: float, strike: float, is_put: bool, iv: float, years: float) -> dict[str, float]:
    """Greeks without discounting: per USD, per volatility point, per day."""
    root = iv * math.sqrt(years)
    d1 = math.log(forward / strike) / root + root / 2
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    return {
        "delta": math.erfc(-d1 / math.sqrt(2)) / 2 - is_put,
        "gamma": density / (forward * root),
        "vega": forward * density * math.sqrt(years) / 100,
        "theta": -forward * density * iv / (2 * math.sqrt(years)) / 365,
    }


async def compare_pages(of: Recomputation, service: Service) -> None:
    """The pages of the API: every row of cash adds up, orders have traded what their trades say."""
    history = service.history
    names = service.views.name
    for number, account in of.state.accounts.items():
        balance = Decimal(0)
        for row in reversed(await all_rows(history, "transaction_log", number, names)):
            balance += Decimal(row["amount"])
            of.counts["rows of the statement"] += 1
            if Decimal(row["cash"]) != balance:
                of.differs(
                    f"account {number}, record {row['record']}: cash {row['cash']}, by its rows {balance}"
                )
                break
        if balance != Decimal(usd(account.cash)):
            of.differs(f"account {number}: its statement ends at {balance}, its cash is {usd(account.cash)}")
        live = dict(of.state.orders_of.get(number, {}))
        for row in await all_rows(history, "order_history", number, names):
            of.counts["orders"] += 1
            numbers = {row["order_id"], row["seq"], *(one["order_seq"] for one in row["amendments"])}
            filled = Decimal(sum(of.filled[one] for one in numbers)) * LOT
            if Decimal(row["filled"]) != filled:
                of.differs(f"order {row['order_id']}: filled {row['filled']}, by its trades {filled}")
            order = live.pop(row["seq"], None)
            if row["state"] == "open" and order is None:
                of.differs(f"order {row['order_id']}: open, and does not rest")
            if row["state"] == "filled" and row["filled"] != row["quantity"]:
                of.differs(f"order {row['order_id']}: filled, at {row['filled']} of {row['quantity']}")
            if order is not None and row["state"] == "open":
                total = Decimal(order.quantity + order.filled) * LOT
                if Decimal(row["quantity"]) != total:
                    of.differs(f"order {row['order_id']}: {row['quantity']} in all, {total} in the book")
        for seq in live:
            of.differs(f"order {seq} rests and is in no history")


async def all_rows(history: Any, method: str, account: int, names: Any) -> list[dict[str, Any]]:
    """Every page of a method."""
    rows: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"account": account, "limit": 200}
    while True:
        page = json.loads(await history.run(lambda: history.answer(method, asked, names)))
        rows += page["rows"]
        if page["next"] is None:
            return rows
        asked["cursor"] = int(page["next"])


async def check(folder: Path, params: Params, chain_id: int, contract: bytes) -> Recomputation:
    """Compares a stopped sequencer's folder, and starts it again."""
    of = Recomputation(genesis_state(domain_separator(chain_id, contract), params), folder)
    compare_store(of, folder)
    config = ServiceConfig(folder, params, chain_id=chain_id, verifying_contract=contract)
    service = Service(config, ManualClock(of.state.globals.time))
    try:
        compare_api(of, service)
        await compare_pages(of, service)
    finally:
        await service.stop()
    return of


async def play(folder: Path, tape: Path | None, trades_max: int | None) -> None:
    """The demo's day, or its first trades."""
    from sequencer.local.demo import Demo
    from sequencer.local.demo_report import END_DAY, DemoConfig, DemoFailed

    until_day = END_DAY if trades_max is None else FIRST_DAY + 1
    demo = Demo(DemoConfig(tape=tape, folder=folder, trades_max=trades_max, until_day=until_day))
    try:
        await demo.run()
    except DemoFailed:
        if trades_max is None or [one for one, held in demo.report.checks.items() if not held] != [
            "an_account_was_liquidated"  # so few trades bring nobody down
        ]:
            raise


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of a sequencer that has been stopped")
    parser.add_argument("--deployment", type=Path, help="its deployment.json")
    parser.add_argument("--demo", action="store_true", help="play the demo's day and check that")
    parser.add_argument("--tape", type=Path, help="of the demo; else its generator")
    parser.add_argument("--trades", type=int, help="of the demo: so many and no more")
    parser.add_argument("--json", dest="json_target", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.demo == (options.folder is not None):
        parser.error("give FOLDER, or --demo")

    with tempfile.TemporaryDirectory(prefix="fairstrike-history-") as name:
        folder = Path(name) / "sequencer" if options.demo else options.folder
        if options.demo:
            asyncio.run(play(Path(name), options.tape, options.trades))
        places = (options.deployment, folder / "deployment.json", folder.parent / "deployment.json")
        deployment = next((one for one in places if one is not None and one.exists()), None)
        if deployment is None:
            parser.error(f"no deployment.json in {folder} or beside it: give --deployment")
        at = Deployment.load(deployment)
        contract = bytes.fromhex(at.rollup.removeprefix("0x"))
        of = asyncio.run(check(folder, of_deployment(at), at.chain_id, contract))
    figures = dict(of.counts) | {"accounts": len(of.books), "differences": of.counts["differences"]}
    for line in of.differences:
        print(line)
    print(json.dumps(figures, indent=2))
    if options.json_target is not None:
        options.json_target.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if of.differences else 0


if __name__ == "__main__":
    sys.exit(main())
