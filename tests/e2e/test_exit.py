"""The sequencer stops for good with open positions and resting orders: everybody gets out, and the vault ends empty."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.cli.output import Duration
from sequencer.clock import ManualClock
from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.local import exit_drill
from sequencer.local.bench import FlatSource
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_params, devnet_signer
from sequencer.local.exit_drill import ExitConfig, ExitDrill
from sequencer.proof.exit import closing_value
from sequencer.queue.driver import DriverConfig
from sequencer.sdk.client import Client
from sequencer.sdk.trader import Trader

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


def call(*args: str) -> str:
    """What a command prints to people and programs, having succeeded."""
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == 0, result.output
    return result.output


async def leave(devnet: Devnet, *options: str) -> dict[str, Any]:
    """`fairstrike exit` by the helper, for everybody unless told otherwise."""
    target = devnet.folder / "exit.json"
    who = [] if "--devnet-key" in options else ["--all", "--devnet-key", str(HELPER)]
    await asyncio.to_thread(call, "exit", *at(devnet), *who, "--json", str(target), *options)
    out: dict[str, Any] = json.loads(target.read_text())
    return out


async def refused(devnet: Devnet, *options: str) -> str:
    """What `fairstrike exit` says when it fails."""
    args = ["exit", *at(devnet), "--all", "--devnet-key", str(HELPER), *options]
    result = await asyncio.to_thread(CliRunner().invoke, main, args)
    assert result.exit_code == 1, result.output
    return result.output


def at(devnet: Devnet) -> list[str]:
    return ["--l1", devnet.chain.url, "--deployment", str(devnet.folder / "deployment.json")]


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


def balances(devnet: Devnet) -> dict[int, int]:
    token = Contract(load("TestToken").abi)
    return {
        index: int(
            token.read(devnet.chain.rpc, devnet.deployment.token, "balanceOf", devnet_signer(index).address)
        )
        for index in DEPOSITS
    }


def results(step: dict[str, Any], name: str) -> list[str]:
    return [row["result"] for row in step["steps"] if row["step"] == name]


async def by_hand(folder: Path) -> None:
    """docs/OPERATIONS.md's drill, command by command."""
    clock = ManualClock(START_S)
    config = DevnetConfig(
        folder=folder,
        params=devnet_params(taker_fee_ppm=500),  # those of the deployment's file, not a devnet's
        genesis_time_s=START_S - 3_600,
        delay_min_s=3_600,
        delay_max_s=7_000,
        silence_max_s=7_000,
        takeover_s=56,
        service={"driver": DriverConfig(tick_ms=0.5), "batch_interval_s": 1e9},
    )
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

        await devnet.stop_exchange()  # for good
        key = ["--devnet-key", "2", *at(devnet)]
        await asyncio.to_thread(call, "force", "withdraw", "all", *key)  # bears no money, and stands before
        await asyncio.to_thread(call, "deposit", "77", "--mint", *key)
        in_vault = devnet.vault_balance()
        assert "is not frozen; if no batch comes, anybody may freeze it from" in await refused(devnet)
        assert "cannot be frozen before 2024-10-04 01:57:" in await refused(devnet, "--freeze")
        later = json.loads(
            await asyncio.to_thread(call, "devchain", "later", "2h", "--json", "--l1", devnet.chain.url)
        )
        assert later["time"] == devnet.chain.head_time_s()

        steps = [await leave(devnet, "--freeze", "--step", "now", "--devnet-key", "2")]  # one of them alone
        assert {line["account"] for line in steps[0]["statement"]} == {2}
        assert steps[0]["statement"][0]["refunds"] == LATE
        assert steps[0]["statement"][0]["paid"] == steps[0]["paid"] == steps[0]["paid_since_freeze"]
        first = await leave(devnet, "--dry-run")
        assert first["paid"] > 0
        assert devnet.vault_balance() == in_vault - steps[0]["paid"]
        steps.append(await leave(devnet, "--freeze", "--devnet-key", "2"))
        assert results(steps[1], "freeze") == []  # frozen already: told, and no step of the exit
        assert steps[1]["root"] == "0x" + root.hex()
        assert results(steps[1], "refund") == ["refunded already"]
        assert results(steps[1], "declare") == ["done"]
        (waits,) = (row for row in steps[1]["steps"] if row["step"] == "claim")
        assert waits["result"].startswith("waits for 3 accounts to be declared, or a part from 2024-10-05 ")
        begun_at = devnet.chain.head_time_s()
        assert 0 <= begun_at + 86_400 + 1 - waits["until"] < 60
        assert steps[1]["run_again_at"] == waits["until"]
        await asyncio.to_thread(call, "devchain", "later", "1d1m", "--l1", devnet.chain.url)
        steps.append(await leave(devnet, "--devnet-key", "2"))
        value = steps[1]["statement"][0]["to_come"]
        assert steps[2]["paid"] == steps[2]["statement"][0]["at_once"] == value * 800_000 // 10**6
        steps.append(await leave(devnet, "--devnet-key", "2"))
        (waits,) = (row for row in steps[3]["steps"] if row["step"] == "claim")
        assert waits["result"].startswith("a part is paid; the rest when 3 others are declared, or 2024-11-")
        assert steps[3]["statement"][0]["to_come"] == value - steps[2]["paid"]
        steps.append(await leave(devnet))  # somebody lets the others out
        assert results(steps[4], "declare").count("done") == 3
        assert all(step["refused"] == 0 for step in steps)
        steps.append(await leave(devnet))  # nothing twice
        assert (steps[-1]["paid"], steps[-1]["gas"], steps[-1]["is_over"]) == (0, 0, True)
        assert sum(step["paid"] for step in steps) == steps[-1]["paid_since_freeze"] == in_vault
        assert devnet.vault_balance() == steps[-1]["vault"] == 0
        got = {line["account"]: line["paid"] for line in steps[-1]["statement"]}
        assert got == balances(devnet)


@pytest.mark.slow
def test_exit__by_hand__says_what_waits_for_what_and_empties_the_vault(tmp_path: Path) -> None:
    asyncio.run(by_hand(tmp_path / "devnet"))


def drill(chain: str, index: int) -> ExitDrill:
    run = ExitDrill(ExitConfig(chain, index=index))
    report = asyncio.run(run.run())
    assert [name for name, held in report.checks.items() if not held] == []
    assert len(report.checks) == 13
    assert report.held
    return run


@pytest.mark.slow
def test_exit__sequencer_gone__everybody_gets_out_and_the_vault_ends_empty() -> None:
    run = drill("pyevm", 4_650_000)
    g = run._state.globals
    there = g.pool + g.fund
    assert run.report.claims <= there
    extra = {1: g.treasury + there - run.report.claims, 2: LATE, 4: 1_234_560_001, 5: 500 * USD}
    values = run.values | {5: 0}
    assert run.received == {index: value + extra.get(index, 0) for index, value in values.items()}


@pytest.mark.slow
def test_exit__losses_beyond_the_fund__are_shared_by_claims() -> None:
    run = drill("pyevm", 9_500_000)
    g = run._state.globals
    there = g.pool + g.fund
    extra = {1: g.treasury, 2: LATE, 4: 1_234_560_001}
    assert run.values[3] < 0
    assert run.report.claims > there
    for index, value in run.values.items():
        share = max(value, 0) * there // run.report.claims
        assert 0 <= run.received[index] - extra.get(index, 0) - share <= len(run.values)


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.parametrize("chain", ["anvil", "hardhat"])
def test_exit__on_other_chains__is_the_same(chain: str) -> None:
    report = drill(chain, 4_650_000).report
    assert report.paid == report.vault_before > 0


def test_drill__a_check_that_does_not_hold__is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The marks that the drill expects are not those of the exit state: it must say so, and fail."""
    monkeypatch.setattr(exit_drill, "closing_value", lambda state, one: closing_value(state, one) + 1)
    target = tmp_path / "exit.json"
    result = CliRunner().invoke(main, ["demo", "--exit", "--json", str(target)])
    assert result.exit_code == 1
    assert "failed checks: positions_are_closed_at_the_last_marks" in result.output
    out = json.loads(target.read_text())
    assert (out["accounts"], out["vault_after"], out["paid"]) == (4, 0, out["vault_before"])
    assert (out["open_positions"], out["resting_orders"], out["refunded"]) == (8, 2, 577 * USD)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("7d", 604_800), ("3d2h", 266_400), ("1h1m1s", 3_661), ("600s", 600), ("1m", 60)],
)
def test_duration__is_days_hours_minutes_and_seconds(duration: str, seconds: int) -> None:
    assert Duration().convert(duration, None, None) == seconds


@pytest.mark.parametrize("duration", ["", "0s", "7", "1m1h", "-1d", "3661d", "1.5h"])
def test_duration__of_another_form__names_the_form(duration: str) -> None:
    with pytest.raises(UsageError, match="must be like 7d, 3d2h or 600s, at most 3660d"):
        Duration().convert(duration, None, None)
