"""The main job, end to end, on recorded order flow: what `fairstrike demo` runs.

Every trade of the tape becomes a taker's order that meets a maker's quotes around the trade's price; the index is the
tape's. The 08:00 expiry settles by TWAP, an over-sold account is liquidated as the index falls, cash is withdrawn and
claimed on L1, and at the end the state is rebuilt from L1 alone and compared.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sequencer.clock import ManualClock
from sequencer.contracts import load
from sequencer.development import devnet_params
from sequencer.errors import Refused
from sequencer.keeper.keeper import KeeperConfig
from sequencer.l1.abi import Contract
from sequencer.l1.follower import Follower, PostedBatch
from sequencer.local import attempts
from sequencer.local.attempts import Attempts, AttemptsReport
from sequencer.local.demo_report import DemoConfig, DemoFailed, Progress, Report, Settled
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_signer, wait_for
from sequencer.market.tape import Trade, open_tape
from sequencer.market.tape_source import TapeSource
from sequencer.proof.execution import L1Facts
from sequencer.proof.replay import Replayed, replay
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time
from sequencer.queue.driver import DriverConfig
from sequencer.sdk.client import Client, Trader
from sequencer.wire.names import find_instrument

MAKERS = (1, 2, 3)
TAKERS = (4, 5, 6, 7)
OVER_SOLD = 8
LIQUIDATOR = 9
MAKER_CASH = 100_000_000_000_000
TAKER_CASH = 50_000_000_000_000
OVER_SOLD_CASH = 100_000_000_000
LIQUIDATOR_CASH = 20_000_000_000_000
SPREAD_PPM = 50_000
MINUTE_S = 60

WINDOW_S = 60
STRIDE_S = 900  # between looks after the last trade
L1_STEP_S = 50  # L1's clock follows the exchange's by less than a batch may be ahead of it
POST_WITHIN_S = 1_800  # of the exchange's time, which runs a thousand times faster than L1 does
LAG_S = {"hourly": 3 * 3_600, "full": c.DAY_S, "backlog": 20 * c.DAY_S}  # likewise: what a batch waits for L1
FEE_MAX = 10_000  # 1 USD
CHALLENGER = 8
WAIT_MAX_S = 30 * c.DAY_S
ATTEMPTS_WINDOW_S = 20 * c.DAY_S  # longer than the demo's days: every batch can be challenged at their end


class Demo:
    """One run; `report` and `settled` hold what it found."""

    def __init__(self, config: DemoConfig, progress: Progress = lambda _stage, _done, _total: None) -> None:
        self.config = config
        self.progress = progress
        self.report = Report(chain=config.chain, data=config.data, batches_made=config.batches)
        self.settled: list[Settled] = []
        self.trade_fills: list[tuple[Trade, list[tuple[int, int]]]] = []  # (price in ticks, lots)
        self.traders: dict[int, Trader] = {}
        self._claimed: set[int] = set()
        self._l1_s = self._posted_s = 0  # as far as L1's clock was set; when all batches had been posted
        self._positions_before: dict[int, dict[int, int]] = {}

    async def run(self) -> Report:
        """Runs it all. Raises DemoFailed at the first check that does not hold."""
        began = time.monotonic()
        tape = await asyncio.to_thread(open_tape, self.config.tape, self.config.seed)
        self.report.tape = tape.source
        trades = tape.trades[: self.config.trades_max]
        self.report.tape_trades = len(trades)
        start_s = trades[0].time_s - 2 * MINUTE_S
        clock = ManualClock(start_s)
        wanted = sorted({(one.underlying, one.day, one.strike_ticks, one.is_put) for one in tape.instruments})
        # What is made when it is full may be hours ahead of L1's clock, which stands between two looks.
        is_hourly = self.config.batches == "hourly"
        drift_s = WINDOW_S if is_hourly else c.DAY_S
        config = DevnetConfig(
            chain=self.config.chain,
            data=self.config.data,
            challenge_window_s=ATTEMPTS_WINDOW_S if self.config.attempts else drift_s,
            drift_max_s=drift_s,
            folder=self.config.folder,
            params=devnet_params(),
            genesis_time_s=start_s - 3_600,
            # Whoever keeps batches back for days needs inbox deadlines that allow it.
            **({} if is_hourly else {"delay_max_s": WAIT_MAX_S, "silence_max_s": WAIT_MAX_S}),
            service={
                "driver": DriverConfig(tick_ms=0.5),
                "keeper": KeeperConfig(risk_move_ppm=2_000, risk_refresh_s=1_800),
                "batch_interval_s": 1e9,
            },
        )
        async with Devnet(config, clock, [TapeSource(tape, refresh_s=600)], wanted) as devnet:
            self.devnet = devnet
            self._let_post(self.config.batches != "backlog")
            await self._watch()
            await self._fund()
            await self._trade(trades)
            await self._over_sell()
            await self._run_on()
            await self._withdraw_and_claim()
            await self._verify()
        self.report.seconds = round(time.monotonic() - began, 3)
        failed = [name for name, held in self.report.checks.items() if not held]
        if failed:
            honesty = self.report.honesty
            told = f"; {honesty.why}" if honesty is not None and not honesty.held else ""
            raise DemoFailed("failed checks: " + ", ".join(failed) + told)
        return self.report

    # --- setting up -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Counts what the engine does, from its durable ticks."""
        service = self.devnet.service
        on_tick = service.driver.on_tick

        def counting(tick: Any) -> None:
            for result in tick.results + tick.system:
                self._count(result)
            on_tick(tick)

        service.driver.on_tick = counting

    def _count(self, result: Any) -> None:
        if result.reason is not Reason.OK:
            return
        kind = result.submission.raw[0]
        report = self.report
        report.orders += kind == Kind.PLACE
        report.cancels += kind in (Kind.CANCEL, Kind.CANCEL_ALL)
        report.fills += sum(len(outcome.fills) for outcome in result.outcomes)
        report.auction_bids += kind == Kind.BID
        if kind == Kind.LIQUIDATE:
            account = int.from_bytes(result.submission.raw[1:5], "big")
            report.liquidations += account in self.devnet.service.state.accounts and bool(
                self.devnet.service.state.accounts[account].auction_start
            )
        if kind == Kind.FIX:
            underlying, day = result.submission.raw[1], int.from_bytes(result.submission.raw[2:4], "big")
            self.settled.append(Settled(underlying, day, result.outcomes[0].number))
        if kind == Kind.SETTLE:
            raw = result.submission.raw
            day, account = int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:8], "big")
            for one in self.settled:
                if (one.underlying, one.day) == (raw[1], day):
                    one.payments[account] = result.outcomes[0].amount
                    one.positions[account] = self._positions_before.get(account, {})

    async def _fund(self) -> None:
        devnet = self.devnet
        plan = (
            [(index, MAKER_CASH) for index in MAKERS]
            + [(index, TAKER_CASH) for index in TAKERS]
            + [(OVER_SOLD, OVER_SOLD_CASH), (LIQUIDATOR, LIQUIDATOR_CASH)]
        )
        self.client = await Client.connect(devnet.ws_url)
        for done, (index, amount) in enumerate(plan):
            self.progress("deposit", done, len(plan))
            account = await devnet.fund(devnet_signer(index), amount)
            self.traders[index] = await Trader.open(self.client, devnet_key(index), account)
        self.progress("deposit", len(plan), len(plan))
        devnet.liquidator((self.traders[LIQUIDATOR].number, devnet_key(LIQUIDATOR)))

    # --- the tape ---------------------------------------------------------------------------------

    async def _trade(self, trades: tuple[Trade, ...]) -> None:
        devnet = self.devnet
        clock_s = devnet.service.clock.now_s()
        batch_at_s = clock_s + 3_600
        for done, trade in enumerate(trades):
            self.progress("trade", done, len(trades))
            while clock_s // MINUTE_S < trade.time_s // MINUTE_S:
                clock_s = (clock_s // MINUTE_S + 1) * MINUTE_S
                await self._advance(clock_s)
            if trade.time_s > clock_s:
                clock_s = trade.time_s
                await self._advance(clock_s)
            if clock_s >= batch_at_s:
                batch_at_s += 3_600
                await self._batch(clock_s)
            await self._make_and_take(trade)
        self.progress("trade", len(trades), len(trades))

    async def _advance(self, now_s: int) -> None:
        self._positions_before = {
            number: dict(account.positions) for number, account in self.devnet.service.state.holders.items()
        }
        if now_s > self._l1_s + L1_STEP_S:
            self._l1_s = now_s
            await self.devnet.set_chain_time(now_s)
        await self._post_in_time(now_s)
        await self.devnet.service.advance(now_s)

    async def _post_in_time(self, now_s: int) -> None:
        """Waits for L1 when it has not had a batch for long, so that none is posted hours after its time."""
        service = self.devnet.service
        stored = service.batcher.cursor.batch_id - 1
        if service.pace.last_posted >= stored or (service.worker is not None and service.worker.paused):
            self._posted_s = now_s
        elif now_s > self._posted_s + POST_WITHIN_S:
            await wait_for(lambda: service.pace.last_posted >= stored, 120.0, f"batch {stored} to be posted")
            self._posted_s = now_s

    async def _batch(self, now_s: int) -> None:
        await self.devnet.set_chain_time(now_s)
        if self.config.batches == "hourly":
            self.devnet.service.pace.request_batches()

    def _let_post(self, is_on: bool) -> None:
        if self.devnet.service.worker is not None:
            self.devnet.service.worker.paused = not is_on

    def _instrument(self, trade: Trade) -> int:
        found = find_instrument(
            self.devnet.service.state, trade.underlying, trade.day, trade.strike_ticks, trade.is_put
        )
        if found is None:
            raise DemoFailed(f"{trade.instrument} is not listed")
        return found

    async def _make_and_take(self, trade: Trade) -> None:
        """A maker quotes both sides around the trade, the taker takes the trade's quantity at its price."""
        instrument = self._instrument(trade)
        maker = self.traders[MAKERS[_spread(instrument) % len(MAKERS)]]
        taker = self.traders[TAKERS[_spread(instrument) % len(TAKERS)]]
        away = max(1, trade.price_ticks * SPREAD_PPM // c.PPM)
        buys = trade.side == c.BUY
        near = trade.price_ticks + away if buys else max(1, trade.price_ticks - away)
        far = max(1, trade.price_ticks - away) if buys else trade.price_ticks + away
        opposite = c.SELL if buys else c.BUY
        quotes = [(opposite, trade.price_ticks)]
        if near != trade.price_ticks:
            quotes.append((opposite, near))
        if far != trade.price_ticks:
            quotes.append((trade.side, far))
        acks = await asyncio.gather(
            *(
                _place(maker, instrument, side | c.FLAG_POST_ONLY, price, trade.quantity_lots)
                for side, price in quotes
            )
        )
        ack = await _place(
            taker,
            instrument,
            trade.side | c.TIF_IOC << c.FLAG_TIF_SHIFT,
            trade.price_ticks,
            trade.quantity_lots,
        )
        fills = [(_ticks(fill["price"]), _lots(fill["quantity"])) for fill in ack["fills"]]
        self.trade_fills.append((trade, fills))
        whole = sum(lots for _, lots in fills) == trade.quantity_lots
        self.report.real_trades += whole and all(price == trade.price_ticks for price, _ in fills)
        await asyncio.gather(
            *(
                maker.send(
                    Kind.CANCEL,
                    instrument=instrument,
                    side=side,
                    price=price,
                    seq=quoted["order"]["seq"],
                    expires=0,
                )
                for (side, price), quoted in list(zip(quotes, acks, strict=True))[1:]
            )
        )

    # --- the over-sold account --------------------------------------------------------------------

    async def _over_sell(self) -> None:
        """Sells puts below the index until the margin is nearly used up."""
        state = self.devnet.service.state
        index = state.underlyings[0].index
        puts = [
            instrument
            for terms, instrument in state.instruments.items()
            if terms >> 31 & 1
            and expiry_time(instrument >> 12 & 0xFFFF) > expiry_time(self.config.until_day)
            and index * 9 // 10 < (terms & 0x7FFF_FFFF) < index
        ]
        if not puts:
            raise DemoFailed("the tape lists no put that the over-sold account could sell")
        instrument = min(puts)
        page = state.pages[instrument >> 5]
        mark = page.rows[instrument & 31][0]
        seller, maker = self.traders[OVER_SOLD], self.traders[MAKERS[0]]
        account = state.accounts[seller.number]
        margin.refresh(state, account)
        per_lot = margin.short_risk(state, page, instrument)
        lots = margin.free(state, account) * 95 // (100 * per_lot)
        await _place(maker, instrument, c.BUY, mark, lots)
        ack = await _place(seller, instrument, c.SELL | c.TIF_IOC << c.FLAG_TIF_SHIFT, mark, lots)
        if not ack["fills"]:
            raise DemoFailed("the over-sold account sold nothing")

    async def _run_on(self) -> None:
        """Runs the index on to `until_day`: expiries settle, the over-sold account is auctioned."""
        clock_s = self.devnet.service.clock.now_s()
        end_s = self._end_s()
        begun_s, batch_at_s = clock_s, clock_s + 6 * 3_600
        while clock_s < end_s:
            in_window = 0 <= expiry_time(clock_s // c.DAY_S) - clock_s <= c.TWAP_S + STRIDE_S
            auctions = any(one.auction_start for one in self.devnet.service.state.holders.values())
            step = MINUTE_S if in_window or auctions else STRIDE_S
            clock_s = min((clock_s // step + 1) * step, end_s)
            await self._advance(clock_s)
            if clock_s >= batch_at_s:
                batch_at_s += 6 * 3_600
                await self._batch(clock_s)
            self.progress("index", clock_s - begun_s, end_s - begun_s)

    # --- what another day does otherwise ------------------------------------------------------------

    def _end_s(self) -> int:
        """When the index ends."""
        return expiry_time(self.config.until_day)

    def _leavers(self) -> Sequence[int]:
        """Whose money is withdrawn, by their places in `traders`."""
        return (*TAKERS, MAKERS[0])

    def _checks(self) -> dict[str, bool]:
        """What must hold at the end, beside what must at the end of any day."""
        report = self.report
        return {
            "every_real_trade_at_its_price": report.real_trades == report.tape_trades,
            "an_expiry_was_settled": report.settled_expiries >= 1,
            "an_account_was_liquidated": report.liquidations >= 1 and report.auction_bids >= 1,
            "withdrawals_claimed": report.withdrawals_claimed >= 2,
        }

    # --- out --------------------------------------------------------------------------------------

    async def _withdraw_and_claim(self) -> None:
        devnet, report = self.devnet, self.report
        wanted: list[int] = []
        for index in self._leavers():
            trader = self.traders[index]
            account = devnet.service.state.accounts[trader.number]
            margin.refresh(devnet.service.state, account)
            amount = min(account.cash, margin.free(devnet.service.state, account)) // 2
            try:
                ack = await trader.send(Kind.WITHDRAW, amount=amount, expires=0)
            except Refused as refused:
                raise DemoFailed(f"account {trader.number} cannot withdraw: {refused}") from refused
            wanted.append(int(ack["number"]))
        report.withdrawals = len(wanted)
        await devnet.set_chain_time(devnet.service.clock.now_s())
        self._let_post(True)
        await devnet.post_all()
        if self.config.attempts:
            await self._hold_posting()
            report.honesty = await asyncio.to_thread(self._challenge_all)
            self._let_post(True)
            await devnet.post_all()
        await asyncio.to_thread(
            lambda: devnet.chain.set_time(devnet.chain.head_time_s() + devnet.config.challenge_window_s + 1)
        )
        for done, number in enumerate(wanted):
            self.progress("claim", done, len(wanted))
            proof = await self.client.call("withdrawal", number=number)
            wallet = devnet.wallet(devnet_signer(LIQUIDATOR))  # anybody may claim for the owner
            await asyncio.to_thread(
                wallet.claim,
                proof["batch_id"],
                proof["number"],
                proof["owner"],
                proof["amount"],
                int(proof["bitmap"], 16),
                [bytes.fromhex(one[2:]) for one in proof["siblings"]],
            )
            report.withdrawals_claimed += 1
            self._claimed.add(number)
        self.progress("claim", len(wanted), len(wanted))
        await self.client.close()

    async def _hold_posting(self) -> None:
        """Returns once no batch leaves any more: an idle leader's next TICK would count as a cost of the attempts."""
        worker = self.devnet.service.worker
        assert worker is not None
        self._let_post(False)
        async with asyncio.timeout(60.0):
            await worker.looked()  # one that had begun may have posted yet

    def _challenge_all(self) -> AttemptsReport:
        """A watcher that challenges, and challenges of what it finds right, while nothing is final."""
        devnet, wanted = self.devnet, self.config.attempts
        is_slow = self.config.chain == "pyevm"
        sent = self.config.attempts_sent
        if sent is None:
            sent = min(wanted, attempts.PYEVM_TRANSACTIONS) if is_slow else wanted
        one = Attempts(
            devnet.chain.rpc,
            devnet.deployment,
            devnet.config.params,
            devnet_signer(CHALLENGER),
            devnet.folder / "watcher",
            self.progress,
            LAG_S[self.config.batches],
        )
        return one.run(wanted, sent)

    async def _verify(self) -> None:
        devnet, report = self.devnet, self.report
        state = devnet.service.state
        g = state.globals
        report.final_root = "0x" + state.root().hex()
        began = time.monotonic()
        follower = Follower(
            devnet.chain.rpc,
            devnet.deployment.inbox,
            devnet.deployment.rollup,
            devnet.deployment.deploy_block,
            confirmations=0,
        )
        last = devnet.service.pace.last_posted

        def shown(batch: PostedBatch) -> None:
            self.progress("replay", batch.batch_id, last)
            report.segments += batch.segments

        def rebuild() -> Replayed:
            messages = follower.messages_after(0)
            facts = L1Facts(devnet.chain.rpc, devnet.deployment, lambda: messages)
            posted = follower.batches(devnet.deployment.deploy_block)
            return replay(posted, devnet.service.domain, devnet.config.params, shown, facts)

        rebuilt = await asyncio.to_thread(rebuild)
        report.replay_seconds = round(time.monotonic() - began, 3)
        report.replayed_root = "0x" + rebuilt.final_root.hex()
        report.records, report.batches = rebuilt.records, rebuilt.batches
        report.payload_bytes = rebuilt.payload_bytes
        report.l1_gas = devnet.service.worker.gas_used if devnet.service.worker else 0
        report.blob_gas = devnet.service.worker.blob_gas_used if devnet.service.worker else 0
        report.blob_gas_per_record = round(report.blob_gas / max(report.records, 1), 1)
        report.l1_gas_per_record = round(report.l1_gas / max(report.records, 1), 1)
        report.l1_bytes_per_record = round(report.payload_bytes / max(report.records, 1), 1)
        unclaimed = sum(
            (state.map.get(c.KEY_WITHDRAWAL | number) or 0) & c.U64_MAX
            for number in range(g.withdrawals)
            if number not in self._claimed
        )
        report.l2_liabilities = g.pool + g.fund + g.treasury + unclaimed
        report.vault_balance = await asyncio.to_thread(devnet.vault_balance)
        report.settled_expiries = len(self.settled)
        report.insurance_fund, report.deficit = g.fund, g.deficit
        cash = sum(account.cash for account in state.accounts.values())
        net: dict[int, int] = {}
        for account in state.accounts.values():
            for instrument, lots in account.positions.items():
                net[instrument] = net.get(instrument, 0) + lots
        report.checks = {
            "replayed_root_equals_final_root": report.replayed_root == report.final_root,
            "vault_equals_liabilities": report.vault_balance == report.l2_liabilities,
            "cash_equals_pool_and_deficit": cash == g.pool + g.deficit,
            "positions_net_to_zero": not any(net.values()),
            **self._checks(),
        }
        if report.honesty is not None:
            rollup = Contract(load("Rollup").abi)
            last_final = rollup.read(devnet.chain.rpc, devnet.deployment.rollup, "last_final")
            report.checks |= {
                "no_challenge_of_the_honest_succeeds_or_costs": report.honesty.held,
                "every_batch_becomes_final": last_final == report.batches,
            }


async def _place(trader: Trader, instrument: int, flags: int, price: int, quantity: int) -> dict[str, Any]:
    """Places an order in ticks and lots; its ack."""
    return await trader.send(
        Kind.PLACE,
        instrument=instrument,
        flags=flags,
        price=price,
        quantity=quantity,
        expires=0,
        fee_max=FEE_MAX,
    )


def _spread(instrument: int) -> int:
    """Spreads the instruments evenly over the accounts, so that none holds more positions than it may."""
    return (instrument & 0xFFF) + (instrument >> 12 & 0xFFFF)


def _ticks(usd: str) -> int:
    return int(usd.replace(".", ""))


def _lots(contracts: str) -> int:
    return int(contracts.replace(".", ""))
