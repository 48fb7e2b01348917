"""`fairstrike replay-market`: a recorded day of one's own through the whole exchange."""

import datetime as dt
from pathlib import Path
from typing import Any, Final

import click

from sequencer.cli.operate import CHAIN_HELP, check_data, run_coroutine, with_data
from sequencer.cli.output import bars as progress_bars
from sequencer.cli.output import fail, show, show_rows, write_json
from sequencer.wire.option_types import CHAIN

MONEY: Final = ("vault_balance", "l2_liabilities", "insurance_fund", "deficit")
NOT_SHOWN: Final = ("tape_trades", "batches_made")


class Bars(click.ParamType):
    """A path, or one for an underlying: BTC=PATH; the command gets (name or "", path)."""

    name = "[BTC=|ETH=]path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """`value` apart; else click's error."""
        from sequencer.genesis import UNDERLYINGS

        if isinstance(value, tuple):
            return value
        name, equals, path = str(value).partition("=")
        if not equals or Path(str(value)).exists():
            name, path = "", str(value)
        if name and name not in UNDERLYINGS:
            self.fail(f"{name!r} is none of {', '.join(UNDERLYINGS)}", param, ctx)
        return name, Path(path)


class Moment(click.ParamType):
    """A UTC time in ISO 8601; the command gets seconds since 1970."""

    name = "utc time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`value` in seconds; else click's error."""
        if isinstance(value, int):
            return value
        try:
            moment = dt.datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"must be like 2022-01-02T09:00, not {value!r}", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())


@click.command("replay-market")
@click.argument("tape", type=click.Path(path_type=Path))
@click.option(
    "--index",
    "bars",
    type=Bars(),
    multiple=True,
    required=True,
    help="bars of the index; one for each underlying",
)
@click.option(
    "--stamp",
    type=click.Choice(["end", "start"]),
    default="end",
    show_default=True,
    help="time of a CSV bar: its end (the close is used) or its start (the open is used)",
)
@click.option("--until", type=Moment(), help="end of the run  [default: end of the bars, two weeks at most]")
@click.option("--trades", "trades_max", type=click.IntRange(1), help="only this many, the first ones")
@click.option("--chain", type=CHAIN, default="pyevm", show_default=True, help=CHAIN_HELP)
@with_data
@click.option(
    "--json", "json_target", help="write the report as one object to a file (- for standard output)"
)
def replay_market(
    tape: Path,
    bars: tuple[tuple[str, Path], ...],
    stamp: str,
    until: int | None,
    trades_max: int | None,
    chain: str,
    data: str,
    json_target: str | None,
) -> None:
    """Run a recorded day of option trades through the whole exchange, and report.

    TAPE is a file or folder of Deribit's public trades: saved answers of get_last_trades_by_currency (JSON pages or
    JSON lines), or CSV with its field names. BARS is CSV with the columns timestamp and close, or saved chart data of
    Deribit. scripts/record_tape.py records both.

    Lists the tape's instruments, matches every trade at its price, liquidates accounts that sold too much as the index
    moves, settles expiries before the end of the bars, withdraws, claims on L1, and rebuilds the state from L1 alone.
    The exit status is 1 when a check fails.
    """
    from sequencer.l1.errors import L1Error
    from sequencer.local.demo_report import DemoFailed
    from sequencer.local.market_day import MarketDayConfig, TapeDay, day_as_json
    from sequencer.market.tape import TapeError

    check_data(chain, data)
    named = dict(bars)
    if len(named) < len(bars):
        raise fail("--index: one for each underlying; give it as BTC=PATH and ETH=PATH")
    failed = ""
    with progress_bars() as progress:
        config = MarketDayConfig(
            trades=tape,
            bars=named,
            stamp="start" if stamp == "start" else "end",
            chain=chain,
            data=data,
            until_s=until,
            trades_max=trades_max,
        )
        run = TapeDay(config, progress)
        try:
            run_coroutine(run.run())
        except DemoFailed as error:
            failed = str(error)
        except (L1Error, TapeError) as error:
            raise fail(str(error)) from error
    report = day_as_json(run)
    write_json(json_target, report)
    if json_target != "-":
        _show(report, chain)
    if failed:
        raise fail(failed)


def _show(report: dict[str, Any], chain: str) -> None:
    checks, lists = report.pop("checks"), {name: report.pop(name) for name in ("over_sold", "settlements")}
    for name in MONEY:
        report[name] = f"{report[name] / 10**6:,.6f} USD"
    for name in NOT_SHOWN:
        report.pop(name)
    show(f"market day on {chain}", report)
    for name, rows in lists.items():
        show_rows(name.replace("_", " "), rows)
    show("checks", {name: "held" if held else "DID NOT HOLD" for name, held in checks.items()})
