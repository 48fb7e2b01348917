"""`fairstrike match`: order commands from a file through a venue, and the trades that they make."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sequencer.market.match.book import SIDES, Matcher
from sequencer.market.match.commands import (
    Amend,
    Cancel,
    CancelAll,
    Command,
    FieldError,
    MatchError,
    Place,
    Reduce,
    check_time,
    decode,
    explain,
    format_decimal,
    id_text,
    parse_decimal,
)
from sequencer.market.match.effects import Effects, Venue
from sequencer.protocol.book import ASK, BID

PROGRESS_BYTES_MIN: Final = 1 << 20
"""Files from this size on show a progress bar."""
REFUSALS_SHOWN_MAX: Final = 20
"""Refused lines that are written to standard error; the rest is counted."""
USUAL: Final = frozenset({"POST_ONLY_CROSSES", "FOK_UNFILLED", "UNKNOWN_ORDER"})
"""Refusals that are part of trading: counted, and shown by --events alone."""


@dataclass(slots=True)
class Summary:
    """What a run did. An order counts once in `placed`; `volume` is in 1e-8 of the quantity's unit.

    `refused`: lines that were refused alone, by reason; the fields named after a reason are among them.
    """

    commands: int = 0
    placed: int = 0
    cancelled: int = 0
    cancels_unknown: int = 0
    amended: int = 0
    trades: int = 0
    volume: int = 0
    post_only_dropped: int = 0
    fok_dropped: int = 0
    ioc_cut: int = 0
    expired: int = 0
    resting: int = 0
    best_bid: int | None = None
    best_ask: int | None = None
    refused: dict[str, int] = field(default_factory=dict)


class Run:
    """Commands on a venue: counts what they do, and writes trades, or all events, as JSON lines."""

    def __init__(
        self,
        venue: Venue,
        write: Callable[[str], Any],
        refused: Callable[[int, Effects], Any],
        has_events: bool = False,
    ) -> None:
        self.venue = venue
        self.summary = Summary()
        self._write = write
        self._refused = refused
        self._has_events = has_events
        self._is_first = True

    def lines(self, lines: Iterable[str | bytes]) -> Summary:
        """Runs the commands in `lines`; blank lines are skipped. Raises MatchError at the first that is none."""
        summary = self.summary
        for number, line in enumerate(lines, 1):
            try:
                command = decode(line)
                self._one(number, command)
            except FieldError as error:
                raise MatchError(number, error.field, error.reason) from None
            except (msgspec.MsgspecError, UnicodeError) as error:
                if not line.strip():
                    continue
                raise explain(number, line, error) from None
            summary.commands += 1
        summary.resting = self.venue.resting()
        summary.best_bid = self.venue.best_price(BID)
        summary.best_ask = self.venue.best_price(ASK)
        return summary

    def _one(self, number: int, command: Command) -> None:
        if command.time is not None or self._is_first:
            out = self.venue.time_to(check_time(command.time or 0, "time"))
            self._is_first = False
            self.summary.expired += len(out.gone)
            self._tell(number, None, out)
            if out.refused:
                return
        if type(command) is Place:
            self._place(number, command)
        elif type(command) is Cancel:
            out = self.venue.cancel(command.id, command.owner)
            if out.refused == "UNKNOWN_ORDER":
                self.summary.cancels_unknown += 1
            self._removed(number, command.id, out)
        elif type(command) is CancelAll:
            self._removed(number, None, self.venue.cancel_all(command.owner))
        elif type(command) is Amend:
            if command.price is None and command.qty is None:
                raise FieldError("qty", 'is missing, and so is "price": an amend has one of them at least')
            price = None if command.price is None else parse_decimal(command.price, "price")
            quantity = None if command.qty is None else parse_decimal(command.qty, "qty")
            self._amended(number, command.id, self.venue.amend(command.id, price, quantity, command.owner))
        elif type(command) is Reduce:
            amounts = self.venue.amounts(command.id)
            filled, left = (0, 0) if amounts is None else amounts
            by = parse_decimal(command.by, "by")
            if amounts is not None and by >= left:
                self._removed(number, command.id, self.venue.cancel(command.id, command.owner))
            else:
                total = None if amounts is None else filled + left - by
                self._amended(number, command.id, self.venue.amend(command.id, None, total, command.owner))

    def _place(self, number: int, command: Place) -> None:
        summary = self.summary
        quantity = parse_decimal(command.qty, "qty")
        out = self.venue.place(
            command.id,
            SIDES[command.side],
            parse_decimal(command.price, "price"),
            quantity,
            command.tif,
            command.post_only,
            reduce_only=command.reduce_only,
            owner=command.owner,
            cancel_taker=command.self_trade == "cancel_taker",
            expires=check_time(command.expires, "expires"),
        )
        summary.placed += out.refused != "DUPLICATE_ID"
        summary.post_only_dropped += out.refused == "POST_ONLY_CROSSES"
        summary.fok_dropped += out.refused == "FOK_UNFILLED"
        filled = sum(lots for _, _, lots in out.fills)
        summary.ioc_cut += command.tif == "IOC" and not out.refused and filled < quantity
        self._traded(number, command.id, out)

    def _amended(self, number: int, order_id: int | str, out: Effects) -> None:
        self.summary.amended += not out.refused
        self._traded(number, order_id, out)

    def _traded(self, number: int, order_id: int | str, out: Effects) -> None:
        if out.fills:
            self.summary.trades += len(out.fills)
            taker, head = id_text(order_id), f'"line":{number},"event":"trade",' if self._has_events else ""
            for maker, price, lots in out.fills:
                self.summary.volume += lots
                self._write(
                    f'{{{head}"maker":{id_text(maker)},"taker":{taker},'
                    f'"price":"{format_decimal(price, 2)}","qty":"{format_decimal(lots)}"}}\n'
                )
        self._tell(number, order_id, out)

    def _removed(self, number: int, order_id: int | str | None, out: Effects) -> None:
        self.summary.cancelled += len(out.gone)
        self._tell(number, order_id, out)

    def _tell(self, number: int, order_id: int | str | None, out: Effects) -> None:
        """All but the trades."""
        if out.refused:
            counts = self.summary.refused
            counts[out.refused] = counts.get(out.refused, 0) + 1
            self._refused(number, out)
        if not self._has_events:
            return
        if out.refused:
            self._event(number, "refused", order_id, reason=out.refused, message=out.why)
        for gone, why, lots in out.gone:
            self._event(number, "gone", gone, reason=why, qty=format_decimal(lots))
        if out.rested:
            self._event(number, "rests", order_id, qty=format_decimal(out.rested))

    def _event(self, number: int, event: str, order_id: int | str | None, **more: str) -> None:
        value = {"line": number, "event": event} | ({} if order_id is None else {"id": order_id}) | more
        self._write(msgspec.json.encode(value).decode() + "\n")


def run(lines: Iterable[str | bytes], write: Callable[[str], Any], venue: Venue | None = None) -> Summary:
    """Runs the commands in `lines` and hands each trade to `write` as one line with its line end.

    A line that is refused (a duplicate id, an order that the rules do not allow) has no effect and is counted; one
    that is no valid command raises MatchError. What came before it has been written.
    """
    return Run(venue or Matcher(), write, lambda *_: None).lines(lines)


def summary_table(summary: Summary, elapsed_s: float) -> Table:
    """The summary as rows of a table; `elapsed_s` gives the rate."""
    table = Table(title="match", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    bid, ask = summary.best_bid, summary.best_ask
    rows = {
        "commands": f"{summary.commands:,}",
        "orders placed": f"{summary.placed:,}",
        "trades": f"{summary.trades:,}",
        "quantity traded": format_decimal(summary.volume),
        "cancelled": f"{summary.cancelled:,}",
        "cancels of unknown ids": f"{summary.cancels_unknown:,}",
        "post-only dropped": f"{summary.post_only_dropped:,}",
        "FOK dropped": f"{summary.fok_dropped:,}",
        "IOC cut or unfilled": f"{summary.ioc_cut:,}",
        "amended": f"{summary.amended:,}",
        "expired": f"{summary.expired:,}",
        "orders left resting": f"{summary.resting:,}",
        "best bid": "none" if bid is None else format_decimal(bid, 2),
        "best ask": "none" if ask is None else format_decimal(ask, 2),
        **{
            f"refused, {reason}": f"{count:,}"
            for reason, count in sorted(summary.refused.items())
            if reason not in USUAL
        },
        "commands per second": f"{summary.commands / max(elapsed_s, 1e-9):,.0f}",
    }
    for what, value in rows.items():
        table.add_row(what, value)
    return table


def _with_progress(file: IO[bytes], size_bytes: int) -> Iterator[bytes]:
    columns = (TextColumn("matching"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size_bytes)
        unreported_bytes = 0
        for line in file:
            unreported_bytes += len(line)
            if unreported_bytes >= 1 << 16:
                progress.advance(task, unreported_bytes)
                unreported_bytes = 0
            yield line


def _size_bytes(file: IO[bytes]) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except OSError:
        return 0


class _Refusals:
    """Refused lines, told to people on standard error: the first ones, and how many more."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, number: int, out: Effects) -> None:
        if out.refused in USUAL:
            return
        self._count += 1
        if self._count <= REFUSALS_SHOWN_MAX:
            click.echo(f"line {number}: refused, {out.refused}: {out.why}", err=True)

    def close(self) -> None:
        """Says how many there were beyond those shown."""
        more = self._count - REFUSALS_SHOWN_MAX
        if more > 0:
            click.echo(f"... and {more:,} more lines refused; --events shows all", err=True)


@click.command("match")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Write the trades as JSON lines, and nothing else.")
@click.option(
    "--events", is_flag=True, help="With --json: also refused, resting and removed orders, with line numbers."
)
@click.option(
    "--exchange", is_flag=True, help="Run the exchange's state transition instead of the book alone."
)
def match_command(file: IO[bytes], as_json: bool, events: bool, exchange: bool) -> None:
    """Run the order commands in FILE (JSON lines, - for standard input) through the book of the exchange.

    \b
      {"op":"place","id":1,"side":"buy","price":"100.00","qty":"1.5"}
      {"op":"amend","id":1,"qty":"0.5"}
      {"op":"reduce","id":1,"by":"0.2"}
      {"op":"cancel","id":1}
      {"op":"cancel_all","owner":"a"}
      {"op":"time","time":60}

    \b
    Fields of place besides id, side, price, qty:
      tif          GTC (the rest stays; default), IOC (the rest is dropped),
                   FOK (all or nothing)
      post_only    dropped if it would trade; requires GTC
      owner        the order's owner; each order without one has its own
      self_trade   cancel_resting (default): cancels the owner's resting order
                   and the new one continues; cancel_taker: the new one ends.
                   Orders of one owner never trade with each other
      reduce_only  limited to what closes the owner's position from this run
      expires      seconds; the order ends when `time` reaches it

    An amend to a smaller total at the same price keeps its place in the queue; a larger total or another price loses it
    and may trade like a new order. qty is the order's new total, including what has traded: a total that has traded
    already ends the order. reduce subtracts `by` from the remaining quantity. Every line may have a `time` (seconds
    from any origin, never decreasing). cancel, amend and reduce may name an owner, who must own the order.

    Ids are integers or strings, and may be reused once their order has ended. Prices and quantities are exact decimals
    in strings, above 0, with at most 12 digits before the point and 8 after it.

    A refused line (an id that is still live, an order that the rules do not allow, a decreasing time) is reported on
    standard error with its number, and the run continues. Failed post-only and FOK orders and cancels of unknown ids
    are only counted. A line that is no valid command, or has an unknown field, ends the run with status 2.

    A trade is {"maker":1,"taker":2,"price":"100.00","qty":"0.5"}, at the maker's price, in order of execution.

    Differences from the exchange: without --exchange there is no price or quantity grid, no signature, margin, fee or
    position limit; all other rules are the same. With --exchange each line becomes records of its own tick in the state
    transition itself: prices are multiples of 0.01, quantities of 0.0001; owners have enough money; the clock spans 399
    days; only signatures are not checked. A FOK order that would take more than 384 orders is refused there.
    """  # noqa: D301  # \b keeps lines as they are
    if events and not as_json:
        raise click.UsageError("--events goes with --json")
    began_s = time.perf_counter()
    size_bytes = 0 if as_json else _size_bytes(file)
    lines = _with_progress(file, size_bytes) if size_bytes >= PROGRESS_BYTES_MIN else file
    refusals = _Refusals()
    runner = Run(_venue(exchange), sys.stdout.write if as_json else _discard, refusals, events)
    try:
        summary = runner.lines(lines)
    except MatchError as error:
        sys.stdout.flush()
        failure = click.ClickException(f"{getattr(file, 'name', '-')}: {error}")
        failure.exit_code = 2
        raise failure from None
    finally:
        refusals.close()
    if not as_json:
        Console().print(summary_table(summary, time.perf_counter() - began_s))


def _venue(exchange: bool) -> Venue:
    if exchange:
        from sequencer.market.match.exchange import ExchangeMatcher

        return ExchangeMatcher()
    return Matcher()


def _discard(_trade: str) -> None:
    pass
