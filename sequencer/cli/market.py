"""What everybody sees: status, instruments, ticker, book, trades; live with --watch."""

from typing import Any, Final

import click
from rich.console import Group, RenderableType

from sequencer.cli.live import watch as follow
from sequencer.cli.live import with_watch
from sequencer.cli.options import ask, named, print_result, with_api
from sequencer.cli.output import show, show_rows, table_of, table_of_rows, write_json
from sequencer.cli.types import INSTRUMENT

TRADES_SHOWN: Final = 50
"""Of a live tape."""


@click.command()
@with_api
def status(api: str, as_json: bool) -> None:
    """Show sequence number, root, funds, queue and batches."""
    print_result("status", ask(api, "status"), as_json)


@click.command()
@click.option("--expired", is_flag=True, help="also those that have expired")
@with_api
def instruments(expired: bool, api: str, as_json: bool) -> None:
    """List the instruments."""
    print_result("instruments", ask(api, "instruments", expired=expired), as_json)


@click.command()
@click.argument("instrument", type=INSTRUMENT)
@with_watch
@with_api
def ticker(instrument: str, watch: bool, updates: int, api: str, as_json: bool) -> None:
    """Show mark, index and best prices of INSTRUMENT."""
    if not watch:
        print_result("ticker", ask(api, "ticker", instrument=instrument), as_json)
        return
    now: dict[str, Any] = {}

    async def load(client: Any) -> dict[str, Any]:
        return {f"ticker.{instrument}": await client.call("ticker", instrument=named(instrument))}

    follow(
        api,
        [f"ticker.{instrument}"],
        load,
        lambda _, data: now.update(data),
        lambda: table_of(now),
        as_json,
        updates,
    )


@click.command()
@click.argument("instrument", type=INSTRUMENT)
@click.option(
    "--depth", type=click.IntRange(1, 100), default=10, show_default=True, help="price levels per side"
)
@with_watch
@with_api
def book(instrument: str, depth: int, watch: bool, updates: int, api: str, as_json: bool) -> None:
    """Show mark, index and price levels of INSTRUMENT."""
    if watch:
        _watch_book(instrument, depth, updates, api, as_json)
        return
    result = ask(api, "ticker", instrument=instrument) | ask(api, "book", instrument=instrument, depth=depth)
    if as_json:
        write_json("-", result)
        return
    sides = {side: result.pop(side) for side in ("bids", "asks")}
    show("ticker", result)
    for side, levels in sides.items():
        show_rows(side, _levels(levels))


def _watch_book(instrument: str, depth: int, updates: int, api: str, as_json: bool) -> None:
    now: dict[str, dict[str, Any]] = {"ticker": {}, "book": {"bids": [], "asks": []}}

    async def load(client: Any) -> dict[str, Any]:
        return {
            f"ticker.{instrument}": await client.call("ticker", instrument=named(instrument)),
            f"book.{instrument}": await client.call("book", instrument=named(instrument), depth=depth),
        }

    def take(channel: str, data: Any) -> None:
        now[channel.partition(".")[0]] = data

    def draw() -> RenderableType:
        asks, bids = (_levels(now["book"][side][:depth]) for side in ("asks", "bids"))
        empty = {"price": "", "quantity": "", "orders": ""}
        return Group(
            table_of(now["ticker"]),
            table_of_rows("asks", asks[::-1] or [empty]),
            table_of_rows("bids", bids or [empty]),
        )

    follow(api, [f"book.{instrument}", f"ticker.{instrument}"], load, take, draw, as_json, updates)


def _levels(levels: list[list[Any]]) -> list[dict[str, Any]]:
    return [{"price": one[0], "quantity": one[1], "orders": one[2]} for one in levels]


@click.command()
@click.argument("instrument", type=INSTRUMENT, required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="the newest")
@with_watch
@with_api
def trades(instrument: str | None, limit: int, watch: bool, updates: int, api: str, as_json: bool) -> None:
    """Show the trades of INSTRUMENT, or of all, newest first."""
    params: dict[str, Any] = {"limit": limit} | ({} if instrument is None else {"instrument": instrument})
    if not watch:
        print_result("trades", ask(api, "trades", **params), as_json)
        return
    tape: list[dict[str, Any]] = []

    async def load(client: Any) -> dict[str, Any]:
        asked = params | ({} if instrument is None else {"instrument": named(instrument)})
        return {channel: await client.call("trades", **asked)}

    def take(_: str, data: Any) -> None:
        tape[:] = (data if isinstance(data, list) else [data, *tape])[:TRADES_SHOWN]

    channel = "trades" if instrument is None else f"trades.{instrument}"
    follow(api, [channel], load, take, lambda: table_of_rows("trades", tape), as_json, updates)
