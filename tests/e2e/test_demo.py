"""The whole demo once, and what it reports computed again from the recorded files, without the project's loaders."""

import asyncio
import csv
import datetime as dt
import fcntl
import pickle
from collections import defaultdict
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from sequencer.local.demo import MAKERS, TAKERS, Demo
from sequencer.local.demo_report import DemoConfig, DemoFailed, Settled, as_json

DAY = 18_993  # 2022-01-01
EXPIRY_S = DAY * 86_400 + 8 * 3_600
TWAP_S = 1_800
ATTEMPTS = 20
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


@dataclass(frozen=True)
class Row:
    """A line of trades.csv in the exchange's units."""

    trade_id: str
    time_s: int
    name: str
    day: int
    strike_ticks: int
    is_put: bool
    buys: bool
    ticks: int
    lots: int


def half_up(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def read_trades(folder: Path) -> list[Row]:
    rows = []
    with (folder / "deribit-trades-2022-01-01" / "trades.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            _, date, strike, kind = line["instrument_name"].split("-")
            expiry = dt.date(2000 + int(date[-2:]), MONTHS.index(date[-5:-2]) + 1, int(date[:-5]))
            rows.append(
                Row(
                    line["trade_id"],
                    int(line["t"]) // 1000,
                    line["instrument_name"],
                    (expiry - dt.date(1970, 1, 1)).days,
                    int(strike) * 100,
                    kind == "P",
                    line["direction"] == "buy",
                    half_up(Decimal(line["p"]) * Decimal(line["index_price"]) * 100),
                    int(Decimal(line["q"]) * 10_000),
                )
            )
    return rows


def read_index(folder: Path) -> list[tuple[int, int]]:
    """(stamp in s, close in ticks); a bar is stamped with its end, and its close holds until the next one."""
    points = []
    for path in sorted((folder / "btc-perp-1min").glob("*.csv")):
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                stamp = dt.datetime.fromisoformat(line["timestamp"][:19])
                points.append(
                    (int(stamp.replace(tzinfo=dt.UTC).timestamp()), half_up(Decimal(line["close"]) * 100))
                )
    return sorted(points)


def twap(points: list[tuple[int, int]], start_s: int, end_s: int) -> int:
    """Time-weighted mean of a step function over [start, end), half up."""
    total = 0
    for place, (stamp, ticks) in enumerate(points):
        until = points[place + 1][0] if place + 1 < len(points) else end_s
        total += ticks * max(0, min(until, end_s) - max(stamp, start_s))
    return half_up(Decimal(total) / (end_s - start_s))


def intrinsic(price: int, strike: int, is_put: bool) -> int:
    return max(0, strike - price if is_put else price - strike)


@dataclass(frozen=True)
class Run:
    """What is looked at of a run; plain data, so that test processes can share one."""

    report: dict[str, Any]
    fills: list[tuple[str, list[tuple[int, int]]]]  # trade id, (price in ticks, lots)
    settled: list[Settled]
    instruments: dict[int, int]
    accounts: dict[int, int]  # development key -> account number

    def instrument(self, day: int, strike: int, is_put: bool) -> int:
        return self.instruments[day << 32 | is_put << 31 | strike]

    def parties(self, instrument: int) -> tuple[int, int]:
        """Account numbers of (taker, maker): the demo spreads the instruments by row and day."""
        spread = (instrument & 0xFFF) + (instrument >> 12 & 0xFFFF)
        return (
            self.accounts[TAKERS[spread % len(TAKERS)]],
            self.accounts[MAKERS[spread % len(MAKERS)]],
        )


def run_demo(tape: Path | None) -> Run:
    demo = Demo(DemoConfig(tape=tape, attempts=ATTEMPTS, attempts_sent=2))
    report = asyncio.run(demo.run())
    return Run(
        as_json(report),
        [(trade.trade_id, fills) for trade, fills in demo.trade_fills],
        demo.settled,
        dict(demo.devnet.service.state.instruments),
        {index: trader.number for index, trader in demo.traders.items()},
    )


@pytest.fixture(scope="module")
def demo(
    data_dir: Path | None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Run:
    """The whole run on the embedded chain, once however many processes share the tests.

    On the generator's trades where there is no recording; the tests marked `tape` are then left out, by name.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    with (base / "demo.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = base / "demo.pickle"
        if not kept.exists():
            kept.write_bytes(pickle.dumps(run_demo(data_dir)))
        return pickle.loads(kept.read_bytes())


@pytest.fixture(scope="module")
def trades(data_dir: Path | None) -> list[Row]:
    assert data_dir is not None  # marked `tape`
    return read_trades(data_dir)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.tape
def test_demo__recorded_trades__each_filled_whole_at_its_own_price(demo, trades):
    assert len(trades) == 1_350
    fills = dict(demo.fills)
    assert len(fills) == len(demo.fills) == len(trades)
    for row in trades:
        assert {price for price, _ in fills[row.trade_id]} == {row.ticks}, row
        assert sum(lots for _, lots in fills[row.trade_id]) == row.lots, row


@pytest.mark.tape
def test_demo__first_expiry__settles_at_the_twap_of_the_recorded_minutes(demo, data_dir):
    settled = next(one for one in demo.settled if one.day == DAY)
    assert settled.settlement_ticks == twap(read_index(data_dir), EXPIRY_S - TWAP_S, EXPIRY_S)


@pytest.mark.tape
def test_demo__first_expiry__pays_what_the_recorded_trades_amount_to(demo, trades):
    settled = next(one for one in demo.settled if one.day == DAY)
    held: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    terms = {}
    for row in trades:
        if row.day != DAY:
            continue
        assert row.time_s < EXPIRY_S
        instrument = demo.instrument(row.day, row.strike_ticks, row.is_put)
        terms[instrument] = (row.strike_ticks, row.is_put)
        taker, maker = demo.parties(instrument)
        signed = row.lots if row.buys else -row.lots
        held[taker][instrument] += signed
        held[maker][instrument] -= signed
    held = {
        account: {instrument: lots for instrument, lots in positions.items() if lots}
        for account, positions in held.items()
    }
    recorded = {
        account: {instrument: lots for instrument, lots in positions.items() if instrument >> 12 == DAY}
        for account, positions in settled.positions.items()
    }
    assert recorded == {account: positions for account, positions in held.items() if positions}
    assert settled.payments == {
        account: sum(
            lots * intrinsic(settled.settlement_ticks, *terms[instrument])
            for instrument, lots in positions.items()
        )
        for account, positions in held.items()
        if positions
    }
    assert any(settled.payments.values())
    assert sum(settled.payments.values()) == 0  # what the longs get, the shorts pay


def test_demo__report__adds_up(demo):
    report = demo.report
    assert all(report["checks"].values())
    assert report["records"] > report["orders"] > report["real_trades"]
    assert report["fills"] >= report["real_trades"] == report["tape_trades"] == 1_350
    assert report["cancels"] > 0
    assert report["batches"] >= 2
    assert report["l1_gas_per_record"] == round(report["l1_gas"] / report["records"], 1) > 0
    assert report["replayed_root"] == report["final_root"]
    assert len(report["final_root"]) == 66
    assert report["vault_balance"] == report["l2_liabilities"] > 0
    assert report["settled_expiries"] >= 1
    assert report["liquidations"] >= 1
    assert report["auction_bids"] >= 1
    assert report["withdrawals"] >= report["withdrawals_claimed"] >= 2
    assert report["seconds"] > report["replay_seconds"] > 0


def test_demo__watched_and_challenged_all_day__is_found_wrong_nowhere(demo):
    report = demo.report
    beats = report["batches"] - report["watched_batches"]  # of an idle leader, while all of it was challenged
    assert 0 <= beats < report["batches"] // 4
    assert report["records"] - report["watched_records"] == beats
    assert (report["alarms"], report["challenges"]) == (0, 0)
    assert report["attempted_challenges"] == report["failed_challenges"] == ATTEMPTS
    assert report["succeeded_challenges"] == report["sequencer_cost_wei"] == 0
    assert report["is_unchanged"]


def test_demo__every_expiry__long_payments_are_short_payments(demo):
    for one in demo.settled:
        assert sum(one.payments.values()) == 0
        net: dict[int, int] = defaultdict(int)
        for positions in one.positions.values():
            for instrument, lots in positions.items():
                if instrument >> 12 == one.day:
                    net[instrument] += lots
        assert not any(net.values())


@pytest.mark.node
@pytest.mark.parametrize(
    ("chain", "data"), [("anvil", "calldata"), ("anvil", "blob"), ("hardhat", "calldata")]
)
def test_demo__past_the_first_expiry_on_a_development_node__all_holds_but_the_liquidation(
    chain, data, data_dir
):
    attempts = 0 if chain == "hardhat" else 40
    one = Demo(
        DemoConfig(chain=chain, data=data, tape=data_dir, trades_max=40, until_day=DAY + 1, attempts=attempts)
    )
    with pytest.raises(DemoFailed, match=r"^failed checks: an_account_was_liquidated$"):
        asyncio.run(one.run())  # the index falls four days later
    report = one.report
    assert (report.chain, report.data) == (chain, data)
    blobs, rest = divmod(report.blob_gas, 131_072)
    assert rest == 0
    assert blobs >= report.batches if data == "blob" else blobs == 0  # a backlog fills several a batch
    assert report.real_trades == report.tape_trades == 40
    assert report.replayed_root == report.final_root
    assert report.vault_balance == report.l2_liabilities
    assert report.settled_expiries == 1
    assert report.withdrawals_claimed == 5
    if attempts:
        assert report.honesty is not None
        assert report.honesty.failed_challenges == report.honesty.attempts_sent == attempts
        assert report.honesty.held
