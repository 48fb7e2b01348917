"""`fairstrike chain`: the listed options by expiry, calls to the left of their strike and puts to the right."""

import datetime as dt
from typing import Any, Final

import click
from rich.console import Group
from rich.table import Table

from sequencer.cli.live import CHANNELS_MAX, with_watch
from sequencer.cli.live import watch as follow
from sequencer.cli.options import ask, connected, with_api
from sequencer.cli.output import fail, show_table, write_json

MOVED: Final = ("run", "later")
"""What `fairstrike chain` did before: a development chain."""
ASKED_AT_A_TIME: Final = 100
SHORT_CHARACTERS: Final = 6
COLUMNS: Final = ("bid", "ask", "mark", "mark_iv", "delta")


@click.command()
@click.argument("underlying", required=False)
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
@click.option("--expiry", help="only this expiry: 26DEC26, or 2026-12-26")
@with_watch
@with_api
def chain(
    underlying: str | None,
    rest: tuple[str, ...],
    expiry: str | None,
    watch: bool,
    updates: int,
    api: str,
    as_json: bool,
) -> None:
    """Show the option chain of UNDERLYING (default: all), one table per expiry: bid, ask, mark by strike."""
    if underlying in MOVED:
        command = " ".join((underlying, *rest))
        raise fail(f"the development chain is `fairstrike devchain {command}` now; chain shows the options")
    if rest:
        raise click.UsageError(f"chain takes one underlying, not {' '.join(rest)} too")
    listed = _chosen(ask(api, "instruments"), underlying, expiry)
    now: dict[str, dict[str, Any]] = {}

    async def load(client: Any) -> dict[str, Any]:
        found = await _tickers(client, [one["instrument"] for one in listed])
        return {f"ticker.{name}": ticker for name, ticker in found.items()}

    def take(channel: str, data: Any) -> None:
        now[channel.partition(".")[2]] = data

    if watch:
        if len(listed) > CHANNELS_MAX:
            raise fail(
                f"{len(listed)} options, and {CHANNELS_MAX} can be watched at most: give UNDERLYING or --expiry"
            )
        follow(
            api,
            [f"ticker.{one['instrument']}" for one in listed],
            load,
            take,
            lambda: Group(*(_table(title, rows) for title, rows in _expiries(listed, now))),
            as_json,
            updates,
        )
        return
    for channel, ticker in connected(api, load).items():
        take(channel, ticker)
    if as_json:
        write_json("-", _document(listed, now))
        return
    if not listed:
        click.echo("chain: none")
    for title, rows in _expiries(listed, now):
        show_table(title, _table("", rows))


async def _tickers(client: Any, names: list[str]) -> dict[str, dict[str, Any]]:
    """The ticker of each, some at a time."""
    import asyncio

    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(names), ASKED_AT_A_TIME):
        some = names[start : start + ASKED_AT_A_TIME]
        answers = await asyncio.gather(*(client.call("ticker", instrument=name) for name in some))
        found |= dict(zip(some, answers, strict=True))
        if start + ASKED_AT_A_TIME < len(names):
            await asyncio.sleep(ASKED_AT_A_TIME / 400)  # the gateway takes 500 a second of a connection
    return found


def _chosen(listed: list[dict[str, Any]], underlying: str | None, expiry: str | None) -> list[dict[str, Any]]:
    """The options that are asked for. Raises a ClickException that says what there is."""
    names = sorted({one["instrument"].partition("-")[0] for one in listed})
    if underlying is not None:
        if underlying.upper() not in names:
            raise fail(f"{underlying}: no option of it is listed; there are {', '.join(names) or 'none'}")
        listed = [one for one in listed if one["instrument"].startswith(underlying.upper() + "-")]
    if expiry is not None:
        dates = {_date(one): one["expiry"] for one in listed}
        wanted = expiry.upper()
        try:
            day = dt.date.fromisoformat(expiry)
        except ValueError:
            times = {time for date, time in dates.items() if date == wanted}
        else:
            times = {one for one in dates.values() if dt.datetime.fromtimestamp(one, dt.UTC).date() == day}
        if not times:
            known = ", ".join(sorted(dates, key=dates.__getitem__)) or "none"
            raise fail(f"--expiry {expiry}: nothing expires then; there are {known}")
        listed = [one for one in listed if one["expiry"] in times]
    return sorted(listed, key=lambda one: (one["instrument"].partition("-")[0], one["expiry"]))


def _date(instrument: dict[str, Any]) -> str:
    """26DEC26 of an instrument's name."""
    return str(instrument["instrument"].split("-")[1])


def _document(listed: list[dict[str, Any]], tickers: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One object an expiry: underlying, expiry, index, forward, and strikes with a call and a put each."""
    out: dict[tuple[str, int], dict[str, Any]] = {}
    for one in listed:
        name = one["instrument"].partition("-")[0]
        ticker = tickers[one["instrument"]]
        expiry = out.setdefault(
            (name, one["expiry"]),
            {
                "underlying": name,
                "expiry": one["expiry"],
                "index": ticker["index"],
                "forward": ticker["forward"],
                "strikes": {},
            },
        )
        strike = expiry["strikes"].setdefault(
            one["strike"], {"strike": one["strike"], "call": None, "put": None}
        )
        strike[one["type"]] = ticker
    for expiry in out.values():
        expiry["strikes"] = sorted(expiry["strikes"].values(), key=lambda row: float(row["strike"]))
    return list(out.values())


def _expiries(
    listed: list[dict[str, Any]], tickers: dict[str, dict[str, Any]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """A title and the strikes of each expiry."""
    titles = []
    for one in _document(listed, tickers):
        when = dt.datetime.fromtimestamp(one["expiry"], dt.UTC)
        titles.append(
            (
                f"{one['underlying']} {when:%d %b %Y %H:%M} UTC, index {one['index']}, forward {one['forward']}",
                one["strikes"],
            )
        )
    return titles


def _table(title: str, strikes: list[dict[str, Any]]) -> Table:
    """Calls, strike, puts; columns that the tickers have."""
    seen = {name for row in strikes for side in ("call", "put") for name in row[side] or {}}
    known = {"best_bid": "bid", "best_ask": "ask", "greeks": "delta"}
    names = [name for name in COLUMNS if name in seen | {known[one] for one in seen & known.keys()}]
    table = Table(title=title or None, title_justify="left")
    headings = [name.removeprefix("mark_") for name in names]
    for heading in (*(f"C {name}" for name in headings), "strike", *(f"P {name}" for name in headings[::-1])):
        table.add_column(heading, justify="right", style="bold" if heading == "strike" else "")
    for row in strikes:
        call, put = (
            [_figure(row[side], name) for name in (names if side == "call" else names[::-1])]
            for side in ("call", "put")
        )
        table.add_row(*call, row["strike"], *put)
    return table


def _figure(ticker: dict[str, Any] | None, name: str) -> str:
    if ticker is None:
        return ""
    value = ticker.get(f"best_{name}", ticker.get(name))
    if name == "delta" and isinstance(ticker.get("greeks"), dict):
        value = ticker["greeks"].get("delta")
    if name in ("delta", "mark_iv") and value is not None:
        value = str(value)[:SHORT_CHARACTERS]
    return "-" if value is None else str(value)
