"""What an account has done: its orders, trades, settlements and cash, newest first, page by page."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from sequencer.cli.options import key_of, named, trade, with_api, with_key
from sequencer.cli.output import show_rows, write_json
from sequencer.cli.types import INSTRUMENT
from sequencer.wire.option_types import LABEL
from sequencer.wire.rows import ROWS, TRANSACTIONS, State

SHOWN: Final = {
    "order_history": ("order_id", "created", "instrument", "side", "price", "filled", "state", "label"),
    "trade_history": (
        *("time", "instrument", "side", "role", "price", "quantity", "fee", "position", "realised_pnl"),
    ),
    "settlement_history": ("time", "instrument", "side", "price", "quantity", "realised_pnl"),
    "transaction_log": ("time", "kind", "amount", "fee", "cash", "instrument", "record"),
}
"""Columns for people; `--json` has all."""
_TIMES: Final = ("time", "created")


class Moment(click.ParamType):
    """A time: 2026-11-29, 2026-11-29T08:00 (UTC), or seconds since 1970, which the command gets."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`value` in seconds; else click's error."""
        if isinstance(value, int):
            return value
        try:
            seconds = int(value) if str(value).isdigit() else _seconds(str(value))
        except ValueError:
            seconds = -1
        if not 0 <= seconds < 2**32:
            self.fail(
                f"must be like 2026-11-29, 2026-11-29T08:00 or seconds since 1970, not {value!r}", param, ctx
            )
        return seconds


def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def with_page(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that shows pages of the own history, its key's and the gateway's among them."""
    for option in (
        click.option("--since", type=Moment(), help="since this time: 2026-11-29, 2026-11-29T08:00 (UTC)"),
        click.option("--until", type=Moment(), help="until this time, inclusive"),
        click.option(
            *("--limit", "limit"),
            type=click.IntRange(1, 100_000),
            default=ROWS,
            show_default=True,
            help="rows, newest first",
        ),
        click.option("--cursor", help="continue after the page that ended with this `next`"),
    ):
        command = option(command)
    return with_key(with_api(command))


def shows(
    method: str, title: str, page: dict[str, Any], api: str, as_json: bool, key: bytes, **asked: Any
) -> None:
    """Asks for as many pages as it takes, and shows them."""
    limit = page.pop("limit")
    given = {name: one for name, one in (page | asked).items() if one is not None}
    if "instrument" in given:
        given["instrument"] = named(given["instrument"])

    async def work(trader: Any) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        while True:
            found = await trader.history(method, **given, limit=min(limit - len(rows), 200))
            rows += found["rows"]
            if found["next"] is None or len(rows) >= limit:
                return {"rows": rows, "next": found["next"]}
            given["cursor"] = found["next"]

    result = trade(api, key, work)
    if as_json:
        write_json("-", result)
        return
    show_rows(title, [_for_people(SHOWN[method], row) for row in result["rows"]])
    if result["next"] is not None:
        click.echo(f"more: --cursor {result['next']}", err=True)


def _for_people(names: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {name: row[name] if row.get(name) is not None else "" for name in names}
    if "state" in out:
        out["filled"] = f"{row['filled']}/{row['quantity']}"
        out["state"] += f": {row['reason']}" if row["reason"] else ""
    for name in _TIMES:
        if name in out:
            out[name] = datetime.fromtimestamp(out[name], UTC).strftime("%Y-%m-%d %H:%M")
    return out


@click.command("history")
@click.option("--instrument", type=INSTRUMENT, help="only this instrument")
@click.option(
    "--order", "order_id", type=click.IntRange(0, 2**40 - 1), help="only this order, by any number it has had"
)
@click.option("--label", type=LABEL, help="only this label")
@click.option(
    "--state", type=click.Choice([one.name.lower() for one in State]), help="only orders in this state"
)
@with_page
def order_history(
    instrument: str | None,
    order_id: int | None,
    label: str | None,
    state: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
    **page: Any,
) -> None:
    """Show the account's orders, including filled, cancelled and expired ones, and the reason."""
    of = {"instrument": instrument, "order_id": order_id, "label": label, "state": state}
    shows("order_history", "orders", page, api, as_json, key_of(keystore, devnet_key), **of)


@click.command()
@click.option("--instrument", type=INSTRUMENT, help="only this instrument")
@click.option("--order", "order_id", type=click.IntRange(0, 2**40 - 1), help="only this order")
@click.option("--label", type=LABEL, help="only this label")
@with_page
def fills(
    instrument: str | None,
    order_id: int | None,
    label: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
    **page: Any,
) -> None:
    """Show the account's trades: side, role, fee, position afterwards, realised profit."""
    of = {"instrument": instrument, "order_id": order_id, "label": label}
    shows("trade_history", "fills", page, api, as_json, key_of(keystore, devnet_key), **of)


@click.command()
@click.option("--instrument", type=INSTRUMENT, help="only this instrument")
@with_page
def settlements(
    instrument: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
    **page: Any,
) -> None:
    """Show the account's settled positions, with price and profit."""
    key = key_of(keystore, devnet_key)
    shows("settlement_history", "settlements", page, api, as_json, key, instrument=instrument)


@click.command()
@click.option("--kind", type=click.Choice(TRANSACTIONS), help="only changes of this kind")
@with_page
def statement(
    kind: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
    **page: Any,
) -> None:
    """Show every change of the account's cash, with the balance afterwards."""
    shows("transaction_log", "statement", page, api, as_json, key_of(keystore, devnet_key), kind=kind)
