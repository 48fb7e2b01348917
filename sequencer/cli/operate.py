"""For operators: everything on one machine, the demo, replay from L1, load tests."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sequencer.cli.archive import blobs_in, with_archive
from sequencer.cli.options import l1_url_of, on_l1, with_params
from sequencer.cli.output import bars, fail, people, show, usd, write_json
from sequencer.wire.option_types import CHAIN, COUNT, COUNT_OR_NONE, SEED

ATTEMPTS_MAX = 10_000
L1_PORT = 8545
CHAIN_HELP = "pyevm (embedded), anvil, hardhat, or the URL of a development node"


def with_data(command: Callable[..., None]) -> Callable[..., None]:
    """The option that says where batches lie."""
    return click.option(
        "--data",
        type=click.Choice(["calldata", "blob"]),
        default="calldata",
        show_default=True,
        help="where batches are posted; blobs need a chain that supports them: anvil",
    )(command)


def check_data(chain: str, data: str) -> None:
    """Refuses blobs on a chain that serves none."""
    if data == "blob" and chain in ("pyevm", "hardhat"):
        raise fail(f"{chain} does not support blobs: use anvil")


@click.command()
@click.option("--chain", type=CHAIN, default="pyevm", show_default=True, help=CHAIN_HELP)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("var"),
    show_default=True,
    help="the sequencer's data folder",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=9545,
    show_default=True,
    help="port of the API on 127.0.0.1; 0: a free one",
)
@click.option(
    "--l1-port",
    type=click.IntRange(0, 65_535),
    help=f"port of the chain on 127.0.0.1; 0: a free one  [default: {L1_PORT}, or a free one with --port 0]",
)
@click.option(
    "--feed",
    default="flat:BTC=46000,ETH=2500",
    show_default=True,
    help="flat:USD (BTC), flat:BTC=USD,ETH=USD, file:PATH (JSONL reports) or http(s)://... (docs/OPERATIONS.md)",
)
@with_params
@with_data
@click.option("--json", "json_target", help="write addresses and URLs to a file (- for standard output)")
def up(
    chain: str,
    folder: Path,
    port: int,
    l1_port: int | None,
    feed: str,
    params_path: Path | None,
    data: str,
    json_target: str | None,
) -> None:
    """Run chain, contracts, sequencer, gateway, feeds and keeper on this machine until Ctrl-C.

    Lists options on BTC and ETH and prints the wallet settings for the chain.
    """
    from sequencer.l1.errors import L1Error
    from sequencer.local.up import UpError, run_up

    check_data(chain, data)
    if l1_port is None:
        l1_port = L1_PORT if port else 0

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for which in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(which, stop.set)

        def ready(info: dict[str, Any]) -> None:
            write_json(json_target, info)
            if json_target != "-":
                wallet = info.pop("wallet")
                show("Fairstrike is up; Ctrl-C ends it", info)
                show("for a wallet (MetaMask: add a network by hand; import the key)", wallet)

        await run_up(chain, folder, port, feed, ready, stop, params_path, data, l1_port)

    try:
        run_coroutine(main())
    except (UpError, L1Error, OSError, RuntimeError, ValueError) as error:
        raise fail(str(error)) from error


@click.command()
@click.option("--chain", type=CHAIN, default="pyevm", show_default=True, help=CHAIN_HELP)
@click.option(
    "--tape",
    type=click.Path(path_type=Path),
    help="folder with deribit-trades-2022-01-01/ and btc-perp-1min/; default: a seeded generator",
)
@click.option("--seed", type=SEED, default=1, show_default=True, help="seed of the generator")
@click.option(
    "--json", "json_target", help="write the report as one object to a file (- for standard output)"
)
@with_data
@click.option(
    "--batches",
    type=click.Choice(["hourly", "full", "backlog"]),
    default="hourly",
    show_default=True,
    help="when a batch is built; backlog: L1 accepts none before the end, then as many records per batch as fit",
)
@click.option(
    "--lie",
    help="run with this lie of the sequencer, which a watcher must find; `list` lists the lies, `all` runs them all",
)
@click.option(
    "--exit",
    "exits",
    is_flag=True,
    help="stop the sequencer, freeze, and pay out every account from L1 alone",
)
@click.option(
    "--attempts",
    type=click.IntRange(0, ATTEMPTS_MAX),
    default=0,
    show_default=True,
    help="at the end, let a watcher check every batch, and challenge correct batches this many times; all must fail",
)
def demo(
    chain: str,
    tape: Path | None,
    seed: int,
    json_target: str | None,
    data: str,
    batches: str,
    lie: str | None,
    exits: bool,
    attempts: int,
) -> None:
    """Run recorded orders through the exchange: trade, settle, liquidate, withdraw, claim, and replay from L1."""
    check_data(chain, data)
    if exits:
        if lie is not None or tape is not None:
            raise fail("--exit cannot be combined with --lie or --tape")
        _exit(chain, json_target, data)
        return
    if lie is not None:
        _lie(lie, chain, tape, seed, json_target, data)
        return
    from sequencer.l1.errors import L1Error
    from sequencer.local.demo import Demo
    from sequencer.local.demo_report import DemoConfig, DemoFailed, as_json
    from sequencer.market.tape import TapeError

    run: Demo
    failed = ""
    with bars() as progress:
        config = DemoConfig(chain=chain, data=data, batches=batches, tape=tape, seed=seed, attempts=attempts)
        run = Demo(config, progress)
        try:
            run_coroutine(run.run())
        except DemoFailed as error:
            failed = str(error)
        except (L1Error, TapeError) as error:
            raise fail(str(error)) from error
    report = as_json(run.report)
    write_json(json_target, report)
    if json_target != "-":
        checks = report.pop("checks")
        tables = {name: report.pop(name) for name in list(report) if name.startswith("attempts_by_")}
        for name in ("vault_balance", "l2_liabilities", "insurance_fund", "deficit"):
            report[name] = f"{report[name] / 10**6:,.6f} USD"
        show(f"demo on {chain}", report)
        for name, table in tables.items():
            show(name.replace("_", " "), table)
        show("checks", {name: "held" if held else "DID NOT HOLD" for name, held in checks.items()})
    if failed:
        raise fail(failed)


def _lie(name: str, chain: str, tape: Path | None, seed: int, json_target: str | None, data: str) -> None:
    """A short run with one lie; fails unless it is caught, slashed and rolled back."""
    from sequencer.l1.errors import L1Error
    from sequencer.local.lie_demo import as_object, tell
    from sequencer.local.lies import LIES
    from sequencer.local.receipt_lies import RECEIPT_LIES
    from sequencer.market.tape import TapeError

    if name == "list":
        click.echo("\n".join([*LIES, *RECEIPT_LIES]))
        return
    if name != "all" and name not in {**LIES, **RECEIPT_LIES}:
        raise fail(f"no lie {name!r}: `fairstrike demo --lie list` lists them")
    if name == "all":
        _all_lies(chain, tape, seed, json_target, data)
        return
    with bars() as progress:
        try:
            report = tell(name, chain, tape, seed, progress, data)
        except (L1Error, TapeError, RuntimeError) as error:
            raise fail(str(error)) from error
    write_json(json_target, as_object(report))
    if json_target != "-":
        show(f"lie on {chain}: {report.what}", as_object(report))
    if not report.held:
        raise fail("the lie was not caught" if not report.caught else f"not rolled back: {report.error}")


def _all_lies(chain: str, tape: Path | None, seed: int, json_target: str | None, data: str) -> None:
    """Every lie, each to the same deployment; fails unless all are caught, slashed and rolled back."""
    from sequencer.l1.errors import L1Error
    from sequencer.local.lie_demo import as_object, summary, tell_all
    from sequencer.local.lies import LIES
    from sequencer.local.receipt_lies import RECEIPT_LIES
    from sequencer.market.tape import TapeError

    names = [*LIES, *RECEIPT_LIES]
    reports = []
    with bars() as progress, _quiet():  # a wrong batch is no news here
        try:
            for report in tell_all(names, chain, tape, seed, progress, data):
                reports.append(report)
                how = f"refused by L1: {report.refused_by_l1}" if report.refused_by_l1 else "caught"
                people.print(
                    f"{report.lie}: {how if report.held else 'NOT ' + how}", highlight=False, markup=False
                )
        except (L1Error, TapeError, RuntimeError) as error:
            raise fail(f"{names[len(reports)]}: {error}") from error
    told = summary(reports)
    write_json(json_target, told | {"reports": [as_object(one) for one in reports]})
    if json_target != "-":
        show(f"lies on {chain}, batches in {data}", told)
    if told["not_held"]:
        raise fail("not caught and rolled back: " + ", ".join(told["not_held"]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Alarms are not printed meanwhile."""
    ours = logging.getLogger("sequencer")
    level = ours.level
    ours.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ours.setLevel(level)


def _exit(chain: str, json_target: str | None, data: str) -> None:
    """The exit drill; fails unless every check held."""
    from sequencer.cli.exit import show_statement
    from sequencer.l1.errors import L1Error
    from sequencer.local.exit_drill import ExitConfig, ExitDrill, as_json

    with bars() as progress:
        drill = ExitDrill(ExitConfig(chain, data), progress)
        try:
            run_coroutine(drill.run())
        except (L1Error, RuntimeError, TimeoutError) as error:
            raise fail(str(error)) from error
    report = as_json(drill.report)
    write_json(json_target, report)
    if json_target != "-":
        checks, lines = report.pop("checks"), report.pop("statement")
        for name in ("refunded", "withdrawals", "claims", "vault_before", "paid", "vault_after"):
            report[name] = f"{usd(report[name])} USD"
        report["index"] = f"{report['index'] / 100:,.2f} USD"
        report["marks"] = [f"{mark / 100:,.2f} USD" for mark in report["marks"].values()]
        show(f"exit on {chain}", report)
        show_statement(lines)
        show("checks", {name: "held" if held else "DID NOT HOLD" for name, held in checks.items()})
    if not drill.report.held:
        failed = [name for name, held in drill.report.checks.items() if not held]
        raise fail("failed checks: " + ", ".join(failed))


@click.command()
@on_l1
@with_params
@with_archive
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
def replay(
    l1_url: str | None,
    deployment: Path,
    params_path: Path | None,
    archive: Path | None,
    json_target: str | None,
) -> None:
    """Rebuild the state from L1 data alone, with every check that a watcher makes."""
    from sequencer.contracts import load
    from sequencer.engine.engine import ReplayError
    from sequencer.l1 import parameters
    from sequencer.l1.abi import Contract
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.follower import Follower, PostedBatch
    from sequencer.l1.rpc import Rpc
    from sequencer.proof.execution import L1Facts
    from sequencer.proof.replay import replay as rebuild
    from sequencer.protocol import codec

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc, bars() as progress:

        def shown(batch: PostedBatch) -> None:
            progress("replay", batch.batch_id, last)

        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            params = parameters.of_deployment(at, params_path)
            last = Contract(load("Rollup").abi).read(rpc, at.rollup, "next_batch") - 1
            domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
            with blobs_in(archive) as kept:
                follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0, kept=kept)
                messages = follower.messages_after(0)
                facts = L1Facts(rpc, at, lambda: messages)
                rebuilt = rebuild(follower.batches(at.deploy_block), domain, params, shown, facts)
        except (L1Error, ReplayError, ValueError) as error:
            raise fail(str(error)) from error
    g = rebuilt.state.globals
    result = {
        "root": "0x" + rebuilt.final_root.hex(),
        "batches": rebuilt.batches,
        "records": rebuilt.records,
        "payload_bytes": rebuilt.payload_bytes,
        "accounts": len(rebuilt.state.accounts),
        "liabilities": g.pool + g.fund + g.treasury,
        "time": g.time,
    }
    write_json(json_target, result)
    if json_target != "-":
        show("rebuilt from L1", result)


@click.command()
@click.option("--orders", type=COUNT, default=60_000, show_default=True, help="orders to send over WebSocket")
@click.option("--outstanding", type=COUNT, default=768, show_default=True, help="orders in flight")
@click.option(
    "--offered",
    type=COUNT_OR_NONE,
    default=0,
    show_default=True,
    help="orders a second to send at a constant rate for ten seconds, for ack_ms; 0: ack_ms of the heaviest load",
)
@click.option(
    "--accounts-max",
    type=COUNT_OR_NONE,
    default=1_000_000,
    show_default=True,
    help="accounts of the largest engine state measured; 0: none",
)
@click.option("--post", "posts", is_flag=True, help="post the batches to the embedded chain meanwhile")
@click.option("--receipts", is_flag=True, help="with receipts, and without before and after it")
@click.option("--replicated", is_flag=True, help="once more with the log on three servers, for replicated_*")
@click.option(
    "--json", "json_target", help="write the report as one object to a file (- for standard output)"
)
def bench(
    orders: int,
    outstanding: int,
    offered: int,
    accounts_max: int,
    posts: bool,
    receipts: bool,
    replicated: bool,
    json_target: str | None,
) -> None:
    """Measure signed orders per second, end to end, and the ecrecover rate of the same machine."""
    from sequencer.local.bench import BenchConfig, BenchFailed, as_json, run_bench

    failed = ""
    with bars() as progress:
        config = BenchConfig(
            *(orders, outstanding),
            offered=offered,
            accounts_max=accounts_max,
            posts=posts,
            receipts=receipts,
            replicated=replicated,
        )
        try:
            report = run_bench(config, progress)
        except BenchFailed as error:
            report, failed = error.report, str(error)
    result = as_json(report)
    write_json(json_target, result)
    if json_target != "-":
        table = result.pop("by_accounts")
        where = result.pop("cpu_us_per_order")
        threads = result.pop("sequencer_threads_us_per_order")
        stages = result.pop("offered_stages_ms")
        show("bench", result)
        if stages:
            show(
                "ms of an offered order in the sequencer: median, 99 %",
                {k: str(v) for k, v in stages.items()},
            )
        show("µs of CPU per order, by process", where)
        show("… of the sequencer's threads", threads)
        for row in table:
            show(f"{row['accounts']:,} accounts", row)
    if failed:
        raise fail(failed)


def run_coroutine(work: Any) -> None:
    """Runs a coroutine on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(work)
