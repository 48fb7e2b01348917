"""The sequencer stops for good with open positions and resting orders: everybody gets out, and the vault ends empty."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.api.client import Client
from sequencer.api.trader import Trader
from sequencer.cli import main
from sequencer.clock import ManualClock
from sequencer.contracts import load
from sequencer.driver import DriverConfig
from sequencer.l1.abi import Contract
from sequencer.local.bench import FlatSource
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_params, devnet_signer, feed_key
from sequencer.proof.exit import final_value
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import State, expiry_time

USD = 10**6
DAY = 20_000
START_S = DAY * 86_400
INDEX = 4_600_000
EXPIRIES = (DAY + 1, DAY + 8)
STRIKES = (4_400_000, 4_600_000, 4_800_000)
WANTED = [(0, day, strike, put) for day in EXPIRIES for strike in STRIKES for put in (False, True)]
DEPOSITS = {1: 200_000, 2: 60_000, 3: 4_000, 4: 25_000}
HELPER = 9  # sends everything; owns nothing on the exchange
LATE = 77 * USD


async def leave(devnet: Devnet, *options: str) -> dict[str, Any]:
    """`fairstrike exit` for everybody, by the helper."""
    args = ["exit", "--l1", devnet.chain.url, "--deployment", str(devnet.folder / "deployment.json")]
    target = devnet.folder / "exit.json"
    args += ["--all", "--devnet-key", str(HELPER), "--json", str(target), *options]
    result = await asyncio.to_thread(CliRunner().invoke, main, args)
    assert result.exit_code == 0, result.output
    out: dict[str, Any] = json.loads(target.read_text())
    return out


def reports(devnet: Devnet, folder: Path, day: int, price: int) -> str:
    """A file with two feeds' signed reports of 08:00."""
    domain = codec.domain_separator(devnet.deployment.chain_id, bytes.fromhex(devnet.deployment.rollup[2:]))
    lines = []
    for feed in (0, 2):
        raw = codec.encode(Kind.FEED, underlying=0, feed=feed, time=expiry_time(day) + feed, price=price)
        lines.append(codec.sign(raw, domain, feed_key(feed)).hex())
    path = folder / f"reports-{day}"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


async def trade(devnet: Devnet, traders: dict[int, Trader]) -> None:
    """Positions of both expiries between four accounts, orders that rest, a withdrawal on its way."""
    maker, buyer, seller, other = (traders[index] for index in DEPOSITS)
    near, far = (day << 12 for day in EXPIRIES)
    for who, against, instrument, price, quantity in (
        (buyer, maker, near + 2, "900.00", "1.5"),  # call 46,000
        (buyer, maker, far + 3, "1500.00", "0.8"),  # put 46,000
        (other, seller, near + 4, "250.00", "0.1"),  # call 48,000
        (maker, other, far + 4, "1200.00", "0.5"),
    ):
        await against.place(instrument, "sell", price, quantity)
        ack = await who.place(instrument, "buy", price, quantity)
        assert ack.ack["fills"]
    await other.place(near + 1, "buy", "10.00", "1")
    await maker.place(far + 2, "sell", "5000.00", "0.2")
    await other.withdraw("1234.560001")


async def freeze(devnet: Devnet) -> None:
    """Lets the last window and the silence pass, and freezes."""
    block = devnet.chain.rpc.block("latest")
    assert block is not None
    await devnet.set_chain_time(int(block["timestamp"], 16) + 7_200)
    data = Contract(load("Rollup").abi).encode("freeze", 0)
    wallet = devnet.wallet(devnet_signer(HELPER))
    await asyncio.to_thread(wallet.transact, "freeze", devnet.deployment.rollup, data)
    devnet.chain.mine(1)


def balances(devnet: Devnet) -> dict[int, int]:
    token = Contract(load("TestToken").abi)
    return {
        index: int(
            token.read(devnet.chain.rpc, devnet.deployment.token, "balanceOf", devnet_signer(index).address)
        )
        for index in DEPOSITS
    }


async def run(folder: Path, prices: tuple[int, int]) -> tuple[State, dict[int, int], list[Any]]:
    """The whole story; the exit state, what each had in the end, and all rows."""
    clock = ManualClock(START_S)
    config = DevnetConfig(
        folder=folder,
        params=devnet_params(),
        genesis_time_s=START_S - 3_600,
        delay_max_s=7_000,
        silence_max_s=7_000,
        service={"driver": DriverConfig(tick_ms=0.5), "batch_interval_s": 1e9},
    )
    rows: list[Any] = []
    async with Devnet(config, clock, [FlatSource(WANTED, INDEX)], WANTED) as devnet:
        client = await Client.connect(devnet.ws_url)
        traders = {}
        for index, amount in DEPOSITS.items():
            account = await devnet.fund(devnet_signer(index), amount * USD)
            traders[index] = await Trader.open(client, devnet_key(index), account)
        for second in range(1, 4):
            await devnet.service.advance(START_S + second)
        await trade(devnet, traders)
        await devnet.set_chain_time(START_S + 60)
        await devnet.post_all()
        await client.close()
        state, root = devnet.service.state, devnet.service.state.root()
        assert state.books
        assert state.globals.withdrawals == 1

        await devnet.service.stop()  # for good
        del devnet.service
        wallet = devnet.wallet(devnet_signer(2))
        await asyncio.to_thread(wallet.mint, LATE)
        await asyncio.to_thread(wallet.deposit_with_permit, LATE)
        in_vault = devnet.vault_balance()
        await freeze(devnet)

        first = await leave(devnet, "--dry-run")
        assert first["paid"] > 0
        assert devnet.vault_balance() == in_vault
        steps = [await leave(devnet)]
        assert steps[0]["root"] == "0x" + root.hex()
        assert steps[0]["refused"] == 0
        for day, price in zip(EXPIRIES, prices, strict=True):
            await devnet.set_chain_time(expiry_time(day) + 30)
            devnet.chain.mine(1)
            early = await leave(devnet, "--step", "fix", "--reports", reports(devnet, folder, day, price))
            assert [row["result"] for row in early["steps"] if row["step"] == "report"] == ["done", "done"]
            await devnet.set_chain_time(expiry_time(day) + 400)
            devnet.chain.mine(1)
            steps += [early, await leave(devnet)]
        steps.append(await leave(devnet))  # nothing twice
        assert steps[-1]["paid"] == 0
        assert sum(step["paid"] for step in steps) == in_vault
        assert devnet.vault_balance() == 0
        for step in steps:
            rows += step["steps"]
        return state, balances(devnet), rows


@pytest.mark.slow
@pytest.mark.parametrize(
    "prices", [(4_650_000, 4_500_000), (9_500_000, 4_500_000)], ids=["all are solvent", "one is not"]
)
def test_exit__sequencer_gone__everybody_gets_out_and_the_vault_ends_empty(
    tmp_path: Path, prices: tuple[int, int]
) -> None:
    state, got, rows = asyncio.run(run(tmp_path / "devnet", prices))
    fixed = dict(zip(EXPIRIES, prices, strict=True))
    values = {index: final_value(state, state.accounts[index], fixed) for index in DEPOSITS}
    g = state.globals
    extra = {1: g.treasury, 2: LATE, 4: 1_234_560_001}
    claims = sum(value for value in values.values() if value > 0)
    there = g.pool + g.fund
    if claims <= there:
        extra[1] += there - claims
        assert got == {index: value + extra.get(index, 0) for index, value in values.items()}
    else:
        assert values[3] < 0
        for index, value in values.items():
            share = max(value, 0) * there // claims
            assert 0 <= got[index] - extra.get(index, 0) - share <= len(values)
    assert (claims > there) == (prices[0] == 9_500_000)
    assert {row["step"] for row in rows} >= {
        "begin",
        "withdrawal",
        "refund",
        "now",
        "fix",
        "declare",
        "claim",
    }
