"""Past the sequencer: a censored trader gets an order and a withdrawal through L1; who ignores L1 is frozen."""

import asyncio
import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.clock import ManualClock
from sequencer.contracts import load
from sequencer.engine.engine import Engine, Result, Submission, Tick
from sequencer.l1 import inbox
from sequencer.l1.abi import Contract
from sequencer.l1.errors import TransactionFailed
from sequencer.l1.follower import Follower
from sequencer.local.bench import FlatSource
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_params, devnet_signer, wait_for
from sequencer.proof.challenge import challenge_late
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import expiry_time
from sequencer.queue.driver import DriverConfig
from sequencer.sdk.client import Client
from sequencer.sdk.trader import Trader

USD = 10**6
DAY = 20_000
START_S = DAY * 86_400
INDEX = 4_600_000
WANTED = [(0, DAY + 1, 4_600_000, False)]
CALL = DAY + 1 << 12
MAKER, CENSORED, ANYBODY = 1, 2, 9
DELAY_MIN_S, DELAY_MAX_S = 600, 7_000


def devnet_config(folder: Path) -> DevnetConfig:
    return DevnetConfig(
        folder=folder,
        params=devnet_params(),
        genesis_time_s=START_S - 3_600,
        delay_min_s=DELAY_MIN_S,
        delay_max_s=DELAY_MAX_S,
        takeover_s=DELAY_MIN_S // 64,
        service={"driver": DriverConfig(tick_ms=0.5), "batch_interval_s": 1e9},
    )


async def call(devnet: Devnet, *arguments: str, key: int = CENSORED) -> dict[str, Any]:
    """`fairstrike force`, and what it answers."""
    args = ["force", *arguments, "--l1", devnet.chain.url, "--json"]
    args += ["--deployment", str(devnet.folder / "deployment.json")]
    args += [] if arguments[0] == "status" else ["--devnet-key", str(key)]
    result = await asyncio.to_thread(CliRunner().invoke, main, args)
    assert result.exit_code == 0, result.output
    out: dict[str, Any] = json.loads(result.output)
    return out


async def taken(devnet: Devnet, index: int) -> None:
    """Waits until the sequencer has taken message `index`."""
    await asyncio.to_thread(devnet.chain.mine, 1)
    assert devnet.service.worker is not None
    devnet.service.worker.wake()
    await wait_for(lambda: devnet.service.state.globals.inbox_count > index, 120.0, "a message to be taken")


async def opened(devnet: Devnet) -> None:
    """Two accounts with money, a market, and the maker's offers in it."""
    client = await Client.connect(devnet.ws_url)
    for index in (MAKER, CENSORED):
        await devnet.fund(devnet_signer(index), 100_000 * USD)
    maker = await Trader.open(client, devnet_key(MAKER), 1)
    for second in range(1, 4):
        await devnet.service.advance(START_S + second)
    for price in ("900.00", "901.00", "902.00", "903.00", "904.00"):
        await maker.place(CALL, "sell", price, "0.1")
    await client.close()


async def censored_trader_is_served(folder: Path) -> None:
    clock = ManualClock(START_S)
    async with Devnet(devnet_config(folder), clock, [FlatSource(WANTED, INDEX)], WANTED) as devnet:
        await opened(devnet)
        state = devnet.service.state
        sent = await call(devnet, "order", "buy", str(CALL), "0.5", "950")
        assert sent["inbox_index"] == 2
        wallet = devnet.wallet(devnet_signer(CENSORED))
        before = await asyncio.to_thread(devnet.chain.rpc.block, "latest")
        assert before is not None
        to_expiry = expiry_time(DAY + 1) - int(before["timestamp"], 16)
        assert sent["deadline"] == int(before["timestamp"], 16) + min(to_expiry // 2, DELAY_MAX_S)
        await taken(devnet, 2)
        # Five offers: the order itself takes three, CONTINUE the others.
        assert state.accounts[2].positions == {CALL: 5_000}
        assert state.globals.taker is None
        await wait_for(lambda: len(devnet.service.views.trades) == 5, 60.0, "five trades to be durable")

        resting = await asyncio.to_thread(wallet.force_order, CALL, c.BUY, 10_000, 100)
        await taken(devnet, resting)
        assert state.accounts[2].reserved > 0
        await taken(devnet, (await call(devnet, "cancel-all"))["inbox_index"])
        assert state.accounts[2].reserved == 0
        await taken(devnet, (await call(devnet, "liquidate", "1"))["inbox_index"])
        assert state.accounts[1].auction_start == 0
        # Of an account that is on no auction a bid is refused, and counts.
        count = state.globals.inbox_count
        await taken(devnet, (await call(devnet, "bid", "1", "64", "--cash-max", "-5"))["inbox_index"])
        assert state.globals.inbox_count == count + 1
        assert state.accounts[2].positions == {CALL: 5_000}

        cash = state.accounts[2].cash
        await taken(devnet, (await call(devnet, "withdraw", "all"))["inbox_index"])
        assert state.globals.withdrawals == 1
        paid = cash - state.accounts[2].cash
        assert paid > 0
        assert (await call(devnet, "status"))["overdue"] is None
        await devnet.set_chain_time(START_S + 60)
        last = await devnet.post_all()
        assert (await call(devnet, "status"))["waiting"] == []
        await devnet.set_chain_time(START_S + 200)
        await asyncio.to_thread(devnet.chain.mine, 1)
        proof = devnet.service.answers.answer("withdrawal", {"number": 0})
        assert (proof["batch_id"], proof["amount"]) == (last, paid)
        siblings = [bytes.fromhex(one[2:]) for one in proof["siblings"]]
        bitmap = int(proof["bitmap"], 16)
        await asyncio.to_thread(wallet.claim, last, 0, proof["owner"], paid, bitmap, siblings)
        assert wallet.balance() == paid


class Withholder(Engine):
    """Brings no RISK from when it is told on, so that marks grow old and messages that need them cannot be executed."""

    withholds = False

    def steps(
        self, time: int, system: list[bytes], submissions: list[Submission], is_kept: bool = False
    ) -> Generator[None, None, Tick]:
        kept = [raw for raw in system if not self.withholds or raw[0] != Kind.RISK]
        return super().steps(time, kept, submissions, is_kept)

    def _mark(self, raw: bytes) -> list[Result]:
        return [] if self.withholds else super()._mark(raw)


def kinds_of(devnet: Devnet, offset: int) -> list[int]:
    """What the log holds from `offset` on, but for what comes every second."""
    raws = [raw for entry in devnet.service.log.read(offset) for raw in entry.raws()]
    return [raw[0] for raw in raws if raw[0] not in (Kind.TICK, Kind.FEED, Kind.SURFACE)]


async def old_marks_are_renewed_for_a_message(folder: Path) -> None:
    config = replace(devnet_config(folder), params=devnet_params(risk_age_max_s=100))
    async with Devnet(config, ManualClock(START_S), [FlatSource(WANTED, INDEX)], WANTED) as devnet:
        await opened(devnet)
        state = devnet.service.state
        await taken(devnet, (await call(devnet, "order", "buy", str(CALL), "0.2", "950"))["inbox_index"])
        await devnet.service.advance(START_S + 300)
        assert (
            state.pages[CALL >> 5].time < START_S + 200
        )  # the keeper is in no hurry: the index has not moved
        offset = devnet.service.log.end
        wallet = devnet.wallet(devnet_signer(CENSORED))
        liquidated = await asyncio.to_thread(wallet.force_liquidate, 2)
        await taken(devnet, (await call(devnet, "withdraw", "250"))["inbox_index"])
        await devnet.service.driver.flush()
        assert state.globals.inbox_count == liquidated + 2
        assert kinds_of(devnet, offset)[:3] == [Kind.RISK, Kind.FORCED_LIQUIDATE, Kind.FORCED_WITHDRAW]
        assert state.globals.withdrawals == 1
        assert state.pages[CALL >> 5].time == START_S + 300


async def withholder_of_marks_is_frozen(folder: Path) -> None:
    config = replace(devnet_config(folder), params=devnet_params(risk_age_max_s=100))
    sources = [FlatSource(WANTED, INDEX)]
    async with Devnet(config, ManualClock(START_S), sources, WANTED, Withholder) as devnet:
        await opened(devnet)
        service = devnet.service
        state = service.state
        await taken(devnet, (await call(devnet, "order", "buy", str(CALL), "0.2", "950"))["inbox_index"])
        assert isinstance(service.engine, Withholder)
        service.engine.withholds = True
        await service.advance(START_S + 300)
        offset, count = service.log.end, state.globals.inbox_count
        sent = await call(devnet, "withdraw", "250")
        assert sent["inbox_index"] == count
        await asyncio.to_thread(devnet.chain.mine, 1)
        assert service.worker is not None
        service.worker.wake()
        await wait_for(lambda: service.driver.waiting_messages, 120.0, "the message to come and wait")
        for now_s in (START_S + 1_000, START_S + 3_000, sent["deadline"]):  # the index is heard all the time
            await service.advance(now_s)
            await devnet.set_chain_time(now_s)
            await devnet.post_all()
            assert state.globals.inbox_count == count
            assert service.answers.answer("status", {})["messages_waiting_for_marks"] == 1
        assert Kind.FORCED_WITHDRAW not in kinds_of(devnet, offset)
        await devnet.set_chain_time(sent["deadline"] + 30)
        await asyncio.to_thread(devnet.chain.mine, 1)
        status = await call(devnet, "status")
        assert (status["overdue"], status["frozen_at"]) == (sent["inbox_index"], 0)
        await call(devnet, "freeze", key=ANYBODY)
        assert inbox.frozen_at(devnet.chain.rpc, devnet.deployment) > sent["deadline"]


async def ignorant_sequencer_is_frozen(folder: Path) -> None:
    clock = ManualClock(START_S)
    async with Devnet(devnet_config(folder), clock, [FlatSource(WANTED, INDEX)], WANTED) as devnet:
        await opened(devnet)
        await devnet.set_chain_time(START_S + 60)
        last = await devnet.post_all()
        await devnet.service.stop()  # it will not take what comes now
        del devnet.service
        sent = await call(devnet, "withdraw", "250")
        anybody = devnet.wallet(devnet_signer(ANYBODY))
        await devnet.set_chain_time(sent["deadline"] - 300)
        await asyncio.to_thread(devnet.chain.mine, 1)
        with pytest.raises(TransactionFailed, match="rollup: nothing is overdue"):
            await asyncio.to_thread(anybody.freeze)
        assert (await call(devnet, "status"))["overdue"] is None
        await devnet.set_chain_time(sent["deadline"] + 30)
        await asyncio.to_thread(devnet.chain.mine, 1)
        status = await call(devnet, "status")
        assert (status["overdue"], status["frozen_at"]) == (sent["inbox_index"], 0)
        frozen = await call(devnet, "freeze", key=ANYBODY)
        assert frozen["gas"] < 100_000
        assert inbox.frozen_at(devnet.chain.rpc, devnet.deployment) > sent["deadline"]
        rollup = Contract(load("Rollup").abi)
        assert rollup.read(devnet.chain.rpc, devnet.deployment.rollup, "exit_batch") == last


async def late_sequencer_stops_itself(folder: Path) -> None:
    clock = ManualClock(START_S)
    async with Devnet(devnet_config(folder), clock, [FlatSource(WANTED, INDEX)], WANTED) as devnet:
        await opened(devnet)
        await devnet.set_chain_time(START_S + 60)
        await devnet.post_all()
        service, rpc, at = devnet.service, devnet.chain.rpc, devnet.deployment
        worker = service.worker
        assert worker is not None
        anybody = devnet.wallet(devnet_signer(ANYBODY))

        async def outage(after_s: int) -> int:
            """A message is taken, but no batch goes out until so long after its deadline."""
            worker.paused = True
            sent = await call(devnet, "withdraw", "250")
            index = int(sent["inbox_index"])
            await taken(devnet, index)
            await devnet.set_chain_time(sent["deadline"] + after_s)
            worker.paused = False
            return index

        index = await outage(DELAY_MIN_S // 2 - 60)
        last = await devnet.post_all()
        follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0)
        posted = list(follower.batches(at.deploy_block))
        assert posted[-1].inbox_count == index + 1
        answer = rpc.eth_call(at.arbiter, challenge_late(posted[-1], index).call, "latest", anybody.address)
        assert not any(answer[:32])
        with pytest.raises(TransactionFailed, match="rollup: nothing is overdue"):
            await asyncio.to_thread(anybody.freeze)

        index = await outage(DELAY_MIN_S // 2 + 1)
        service.pace.request_batches()
        await service.driver.flush()
        await service.driver.tick()
        await wait_for(lambda: "could be slashed" in worker.last_error, 30.0, "an alarm")
        assert f"inbox message {index} was to be taken by" in worker.last_error
        assert service.batcher.cursor.batch_id > last + 1
        assert Contract(load("Rollup").abi).read(rpc, at.rollup, "next_batch") == last + 1
        await asyncio.to_thread(anybody.freeze)
        assert inbox.frozen_at(rpc, at) > 0


@pytest.mark.slow
def test_sequencer__that_is_late__posts_while_it_may_and_then_no_more(tmp_path: Path) -> None:
    asyncio.run(late_sequencer_stops_itself(tmp_path / "devnet"))


@pytest.mark.slow
def test_trader__whom_the_sequencer_does_not_hear__trades_and_withdraws_through_l1(tmp_path: Path) -> None:
    asyncio.run(censored_trader_is_served(tmp_path / "devnet"))


@pytest.mark.slow
def test_message__on_old_marks__is_executed_after_risk(tmp_path: Path) -> None:
    asyncio.run(old_marks_are_renewed_for_a_message(tmp_path / "devnet"))


@pytest.mark.slow
def test_sequencer__that_withholds_risk__cannot_serve_a_message_with_a_refusal_and_is_frozen(
    tmp_path: Path,
) -> None:
    asyncio.run(withholder_of_marks_is_frozen(tmp_path / "devnet"))


@pytest.mark.slow
def test_sequencer__that_ignores_a_message__is_frozen_at_its_deadline(tmp_path: Path) -> None:
    asyncio.run(ignorant_sequencer_is_frozen(tmp_path / "devnet"))
