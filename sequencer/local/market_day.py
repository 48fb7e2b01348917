"""Any recorded day through the whole exchange: what `fairstrike replay-market` runs.

Lists what the tape trades, matches each trade at its price between two accounts, lets accounts that have sold too much
meet the day's index, settles what expires while there are bars, liquidates who falls, withdraws, claims on L1, and
rebuilds the state from L1 alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sequencer.clock import ManualClock, utc
from sequencer.development import devnet_params
from sequencer.errors import Refused
from sequencer.genesis import UNDERLYINGS
from sequencer.keeper.keeper import KeeperConfig
from sequencer.l1.signing import Signer
from sequencer.local.demo import (
    FEE_MAX,
    LIQUIDATOR,
    LIQUIDATOR_CASH,
    MAKER_CASH,
    MINUTE_S,
    OVER_SOLD_CASH,
    Demo,
)
from sequencer.local.demo_report import DemoConfig, DemoFailed, Progress, as_json
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_signer
from sequencer.market.bars import Stamp
from sequencer.market.tape import Trade
from sequencer.market.tape_files import MarketDay, instruments_of, open_day, params_for
from sequencer.market.tape_source import TapeSource
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import keccak
from sequencer.protocol.state import expiry_time
from sequencer.queue.driver import DriverConfig
from sequencer.sdk.client import Client, Trader
from sequencer.wire.names import find_instrument, instrument_name

BACKER: Final = 0  # who buys what is sold too much; places in `traders`
FIRST_GROUP: Final = 100
FIRST_SELLER: Final = 10
RUN_ON_S: Final = 14 * c.DAY_S
LISTING_PASSES_MAX: Final = 200
SPARE: Final = 2
"""Positions and pages that an account keeps free."""
DEPOSIT_MAX: Final = 250_000_000_000_000
"""1e-6 USD; a DEPOSIT carries 48 bits."""
SOLD_PPM: Final = 950_000  # of free margin
SETTLED_WITHIN_S: Final = 600


@dataclass(slots=True)
class MarketDayConfig:
    """`trades`: file or folder; `bars`: of each underlying by its name, "" of the only one; `until_s` None: as far as
    the bars go, at most two weeks after the last trade. `trades_max`: the first ones alone.
    """

    trades: Path
    bars: Mapping[str, Path]
    stamp: Stamp = "end"
    chain: str = "pyevm"
    data: str = "calldata"
    until_s: int | None = None
    trades_max: int | None = None
    folder: Path | None = None


@dataclass(slots=True)
class DayReport:
    """What is said of the day beside the demo's figures. Times in seconds since 1970."""

    underlyings: list[str] = field(default_factory=list)
    begins: str = ""
    ends: str = ""
    instruments: int = 0
    accounts: int = 0
    params_changed: dict[str, int] = field(default_factory=dict)
    trades_refused: dict[str, int] = field(default_factory=dict)
    over_sold: list[dict[str, Any]] = field(default_factory=list)
    settlements: list[dict[str, Any]] = field(default_factory=list)


class TapeDay(Demo):
    """One run. `day_report` holds what the demo's report does not."""

    def __init__(
        self, config: MarketDayConfig, progress: Progress = lambda _stage, _done, _total: None
    ) -> None:
        super().__init__(DemoConfig(chain=config.chain, data=config.data, folder=config.folder), progress)
        self.day_config = config
        self.day: MarketDay
        self.day_report = DayReport()
        self._refused: Counter[str] = Counter()
        self._sides: dict[int, tuple[int, int]] = {}  # instrument -> places of its maker and its taker
        self._sellers: list[int] = []

    async def run(self) -> Any:
        """Runs it all. Raises TapeError for files that do not fit, DemoFailed when a check does not hold."""
        began = time.monotonic()
        config = self.day_config
        self.day = day = await asyncio.to_thread(open_day, config.trades, config.bars, config.stamp)
        params, self.day_report.params_changed = params_for(day, devnet_params())
        trades = day.trades[: config.trades_max]
        first_bar_s = max(tape.index[0].time_s for tape in day.tapes.values())
        start_s = max(trades[0].time_s - 2 * MINUTE_S, first_bar_s)
        self.report.tape, self.report.tape_trades = day.source, len(trades)
        self.day_report.underlyings = [UNDERLYINGS[number] for number in day.tapes]
        devnet = DevnetConfig(
            chain=config.chain,
            data=config.data,
            folder=config.folder,
            params=params,
            genesis_time_s=start_s - 3_600,
            service={
                "driver": DriverConfig(tick_ms=0.5),
                "keeper": KeeperConfig(risk_move_ppm=2_000, risk_refresh_s=1_800),
                "batch_interval_s": 1e9,
            },
        )
        sources = [TapeSource(tape, number, refresh_s=600) for number, tape in day.tapes.items()]
        async with Devnet(devnet, ManualClock(start_s), sources, instruments_of(day)) as self.devnet:
            self._let_post(True)
            await self._watch()
            await self._list(start_s)
            await self._fund()
            known = [trade for trade in trades if trade.time_s >= start_s]
            self._refused["BEFORE_THE_BARS"] += len(trades) - len(known)
            quarter = len(known) // 4
            await self._trade(tuple(known[:quarter]))
            await self._over_sell()
            await self._trade(tuple(known[quarter:]))
            await self._run_on()
            now_s = self.devnet.service.clock.now_s()
            self.day_report.begins, self.day_report.ends = utc(start_s), utc(now_s)
            await self._withdraw_and_claim()
            await self._verify()
        self.report.seconds = round(time.monotonic() - began, 3)
        failed = [name for name, held in self.report.checks.items() if not held]
        if failed:
            raise DemoFailed("failed checks: " + ", ".join(failed))
        return self.report

    # --- setting up -------------------------------------------------------------------------------

    async def _list(self, now_s: int) -> None:
        """Lists what the day trades, and shares it out: an account holds so many positions on so many pages."""
        state, wanted = self.devnet.service.state, instruments_of(self.day)
        expected = sum(expiry_time(day) > now_s + c.TWAP_S for _, day, _, _ in wanted)
        for step in range(LISTING_PASSES_MAX):
            if len(state.instruments) >= expected:
                break
            self.progress("list", len(state.instruments), expected)
            await self._advance(now_s + step)
        self.progress("list", expected, expected)
        self.day_report.instruments = len(state.instruments)
        group, held, pages = 0, 0, set[int]()
        for instrument in sorted(state.instruments.values()):
            if held == c.POSITIONS_MAX - SPARE or len(pages | {instrument >> 5}) > c.PAGES_MAX - SPARE:
                group, held, pages = group + 1, 0, set()
            held += 1
            pages.add(instrument >> 5)
            place = FIRST_GROUP + 2 * group
            self._sides[instrument] = place, place + 1

    async def _fund(self) -> None:
        """Deposits for makers and takers, for who sells too much, for who buys it, and for the liquidator."""
        devnet = self.devnet
        self.client = await Client.connect(devnet.ws_url)
        self._sellers = [FIRST_SELLER + 2 * number + put for number in self.day.tapes for put in (0, 1)]
        plan = [(BACKER, MAKER_CASH), *((place, OVER_SOLD_CASH) for place in self._sellers)]
        cash = self._cash()
        plan += [(place, cash[pair]) for pair in dict.fromkeys(self._sides.values()) for place in pair]
        for done, (place, amount) in enumerate(plan):
            self.progress("deposit", done, len(plan) + 1)
            key = keccak(b"fairstrike market day %d" % place)
            account = await devnet.fund_key(key, min(amount, DEPOSIT_MAX))
            for rest in range(amount - DEPOSIT_MAX, 0, -DEPOSIT_MAX):
                await devnet.fund(Signer(key), min(rest, DEPOSIT_MAX))
            self.traders[place] = await Trader.open(self.client, key, account)
        account = await devnet.fund(devnet_signer(LIQUIDATOR), LIQUIDATOR_CASH)
        devnet.liquidator((account, devnet_key(LIQUIDATOR)))
        self.progress("deposit", len(plan) + 1, len(plan) + 1)
        self.day_report.accounts = len(plan) + 1

    def _cash(self) -> dict[tuple[int, int], int]:
        """What maker and taker of a group need at the most: half of the value of what they trade, or more."""
        state, traded = self.devnet.service.state, Counter[tuple[int, int]]()
        for trade in self.day.trades:
            found = find_instrument(state, trade.underlying, trade.day, trade.strike_ticks, trade.is_put)
            if found is not None:
                traded[self._sides[found]] += trade.quantity_lots * trade.index_ticks
        return {pair: max(MAKER_CASH, traded[pair] // 2) for pair in self._sides.values()}

    # --- the tape ---------------------------------------------------------------------------------

    async def _make_and_take(self, trade: Trade) -> None:
        """A maker quotes the trade's price, the taker takes it; what the exchange refuses is counted by reason."""
        state = self.devnet.service.state
        instrument = find_instrument(state, trade.underlying, trade.day, trade.strike_ticks, trade.is_put)
        if instrument is None:
            self._refused["NOT_LISTED"] += 1
            return
        maker, taker = (self.traders[place] for place in self._sides[instrument])
        opposite = c.SELL if trade.side == c.BUY else c.BUY
        price, lots = trade.price_ticks, trade.quantity_lots
        try:
            quoted = await _place(maker, instrument, opposite | c.FLAG_POST_ONLY, price, lots)
        except Refused as refused:
            self._refused[refused.reason.name] += 1
            return
        fills: list[dict[str, Any]] = []
        try:
            taken = await _place(taker, instrument, trade.side | c.TIF_IOC << c.FLAG_TIF_SHIFT, price, lots)
            fills = taken["fills"]
        except Refused as refused:
            self._refused[refused.reason.name] += 1
        whole = sum(int(fill["quantity"].replace(".", "")) for fill in fills) == lots
        at_its_price = all(int(fill["price"].replace(".", "")) == price for fill in fills)
        self.report.real_trades += whole and at_its_price
        if not whole:
            if fills:
                self._refused["PARTLY_FILLED"] += 1
            await self._take_back(maker, instrument, opposite, price, quoted["seq"])

    async def _take_back(self, maker: Trader, instrument: int, side: int, price: int, seq: int) -> None:
        key: dict[str, Any] = {"instrument": instrument, "side": side, "price": price, "seq": seq}
        try:
            await maker.send(Kind.CANCEL, **key, expires=0)
        except Refused as refused:
            if refused.reason is not Reason.UNKNOWN_ORDER:
                raise

    # --- who sells too much -----------------------------------------------------------------------

    async def _over_sell(self) -> None:
        """For each underlying one account sells puts and one sells calls, until their margin is nearly used up."""
        for place in self._sellers:
            number, is_put = divmod(place - FIRST_SELLER, 2)
            told: dict[str, Any] = {"account": self.traders[place].number, "underlying": UNDERLYINGS[number]}
            told["sells"] = "puts" if is_put else "calls"
            try:
                told |= await self._sell_all(place, number, bool(is_put))
            except Refused as refused:
                told["refused"] = refused.reason.name
            self.day_report.over_sold.append(told)

    async def _sell_all(self, place: int, underlying: int, is_put: bool) -> dict[str, Any]:
        state, seller = self.devnet.service.state, self.traders[place]
        instrument = self._to_sell(underlying, is_put)
        if instrument is None:
            return {"refused": "NOTHING_TO_SELL"}
        page = state.pages[instrument >> 5]
        mark = page.rows[instrument & 31][0]
        account = state.accounts[seller.number]
        margin.refresh(state, account)
        per_lot = margin.short_risk(state, page, instrument)
        lots = margin.free(state, account) * SOLD_PPM // (c.PPM * per_lot)
        backer = self.traders[BACKER]
        bid = await _place(backer, instrument, c.BUY, mark, lots)
        try:
            await _place(seller, instrument, c.SELL | c.TIF_IOC << c.FLAG_TIF_SHIFT, mark, lots)
        finally:
            await self._take_back(backer, instrument, c.BUY, mark, bid["seq"])
        return {"instrument": instrument_name(state, instrument), "quantity": f"{lots / 10_000:.4f}"}

    def _to_sell(self, underlying: int, is_put: bool) -> int | None:
        """The option out of the money that is nearest to it, of the first expiry that outlives the bars."""
        state, end_s = self.devnet.service.state, self._end_s()
        index = state.underlyings[underlying].index
        found = []
        for terms, instrument in state.instruments.items():
            strike, ends = terms & 0x7FFF_FFFF, expiry_time(instrument >> 12 & 0xFFFF)
            mark = state.pages[instrument >> 5].rows[instrument & 31][0]
            if instrument >> 28 != underlying or bool(terms >> 31 & 1) is not is_put or not mark:
                continue
            if (strike < index) is is_put:
                found.append((min(end_s - ends, 0) == 0, abs(ends - end_s), abs(strike - index), instrument))
        return min(found)[3] if found else None

    # --- the end ----------------------------------------------------------------------------------

    def _end_s(self) -> int:
        last = min(tape.index[-1].time_s for tape in self.day.tapes.values())
        bound = self.day.trades[-1].time_s + RUN_ON_S
        return min(last, bound, self.day_config.until_s or bound)

    def _leavers(self) -> Sequence[int]:
        return [BACKER, *next(iter(self._sides.values()))]

    def _checks(self) -> dict[str, bool]:
        state, report = self.devnet.service.state, self.report
        now_s = state.globals.time
        refused = {name: count for name, count in sorted(self._refused.items()) if count}
        self.day_report.trades_refused = refused
        self.day_report.settlements = [
            {
                "underlying": UNDERLYINGS[one.underlying],
                "expiry": utc(expiry_time(one.day)),
                "price": f"{one.settlement_ticks / 100:.2f}",
                "accounts_paid": len(one.payments),
            }
            for one in self.settled
        ]
        over = {key for key in state.expiries if expiry_time(key & 0xFFFF) + SETTLED_WITHIN_S <= now_s}
        held = {one >> 12 for account in state.accounts.values() for one in account.positions}
        return {
            "every_trade_matched_or_refused_with_a_reason": report.real_trades + refused_total(refused)
            == report.tape_trades,
            "a_trade_was_matched": report.real_trades > 0,
            "what_expired_is_settled": all(state.expiries[key].settled and key not in held for key in over),
            "who_fell_is_in_an_auction": not any(_is_short(state, one) for one in state.accounts.values()),
            "withdrawals_claimed": report.withdrawals_claimed == report.withdrawals > 0,
        }


def refused_total(refused: Mapping[str, int]) -> int:
    """Trades that were not matched."""
    return sum(refused.values())


def _is_short(state: Any, account: Any) -> bool:
    """Whether an account is below its maintenance margin, and nobody has begun its auction."""
    if not account.positions or account.auction_start:
        return False
    margin.refresh(state, account)
    return margin.equity(account) < margin.maintenance(state, account) and not margin.is_stale(state, account)


async def _place(trader: Trader, instrument: int, flags: int, price: int, lots: int) -> dict[str, Any]:
    return await trader.send(
        Kind.PLACE, instrument=instrument, flags=flags, price=price, quantity=lots, expires=0, fee_max=FEE_MAX
    )


def day_as_json(run: TapeDay) -> dict[str, Any]:
    """The report as one object."""
    names = DayReport.__dataclass_fields__
    return {name: getattr(run.day_report, name) for name in names} | as_json(run.report)
