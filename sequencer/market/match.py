"""`fairstrike match`: run order commands from a file through the book of the exchange, and write the trades.

The commands are JSON, one a line; signatures, margin and the limit on fills are off:

    {"op":"place","id":1,"side":"buy","price":"100.00","qty":"1.5","tif":"GTC","post_only":false}
    {"op":"cancel","id":1}

`id` is an integer or a string, free again once its order is gone. `tif` is GTC (default: the rest stays),
IOC (the rest is dropped) or FOK (all or nothing). A post-only order that would trade is dropped. Cancelling
an id that does not rest is counted and changes nothing. Prices and quantities are exact decimals in strings
(or JSON integers), above 0, with at most 12 digits before the point and 8 after it. Fields beyond these are
ignored.

A trade is {"maker":1,"taker":2,"price":"100.00","qty":"0.5"}: at the maker's price, in order of execution.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, Literal

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sequencer.protocol.book import ASK, BID, Book, Order, crosses, plan

DECIMALS: Final = 8
"""Digits kept after the point: prices and quantities are integers of 1e-8 inside."""
WHOLE_DIGITS_MAX: Final = 12
SCALE: Final = 10**DECIMALS
PROGRESS_BYTES_MIN: Final = 1 << 20
"""Files from this size on show a progress bar."""
SHOWN_CHARACTERS_MAX: Final = 40
"""Longer values are cut in messages."""

_DECIMAL: Final = re.compile(rf"([0-9]{{1,{WHOLE_DIGITS_MAX}}})(?:\.([0-9]{{1,{DECIMALS}}}))?")
_NUMBER_LIMIT: Final = (
    f"must be a decimal above 0, with at most {WHOLE_DIGITS_MAX} digits before the point "
    f'and {DECIMALS} after it, such as "100.25"'
)
_SIDES: Final = {"buy": BID, "sell": ASK}


class MatchError(ValueError):
    """A line that is no valid command. `line` counts from 1; `field` is "" where the whole line is wrong."""

    def __init__(self, line: int, field: str, reason: str) -> None:
        self.line = line
        self.field = field
        self.reason = reason
        super().__init__(f"line {line}: field {field!r} {reason}" if field else f"line {line}: {reason}")


class _FieldError(ValueError):
    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(reason)


class Place(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="place"):
    """Command to place an order; price and quantity still as written."""

    id: int | str
    side: Literal["buy", "sell"]
    price: str | int
    qty: str | int
    tif: Literal["GTC", "IOC", "FOK"] = "GTC"
    post_only: bool = False


class Cancel(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="cancel"):
    """Command to take an order out of the book."""

    id: int | str


@dataclass(slots=True)
class Summary:
    """What a run did. An order counts once in `placed`; `volume` is in 1e-8 of the quantity's unit."""

    commands: int = 0
    placed: int = 0
    cancelled: int = 0
    cancels_unknown: int = 0
    trades: int = 0
    volume: int = 0
    post_only_dropped: int = 0
    fok_dropped: int = 0
    ioc_cut: int = 0
    resting: int = 0
    best_bid: int | None = None
    best_ask: int | None = None


def parse_decimal(text: str | int, field: str) -> int:
    """`text` in units of 1e-8, exact. Raises ValueError, naming the limit, for what does not fit."""
    match = _DECIMAL.fullmatch(text if isinstance(text, str) else str(text))
    if match is None:
        length = len(str(text))
        shown = repr(text) if length <= SHOWN_CHARACTERS_MAX else f"of {length} characters"
        raise _FieldError(field, f"{_NUMBER_LIMIT}, not {shown}")
    whole, fraction = match.groups()
    value = int(whole) * SCALE
    if fraction is not None:
        value += int(fraction) * 10 ** (DECIMALS - len(fraction))
    if value == 0:
        raise _FieldError(field, f"{_NUMBER_LIMIT}, not {text!r}")
    return value


def format_decimal(value: int, decimals_min: int = 0) -> str:
    """`value` (units of 1e-8, >= 0) as an exact decimal, no exponent, `decimals_min` decimals at least."""
    whole, fraction = divmod(value, SCALE)
    digits = f"{fraction:0{DECIMALS}d}".rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{digits}" if digits else str(whole)


class Matcher:
    """One book, driven by ids. Prices and quantities are integers; the caller chooses their unit."""

    def __init__(self) -> None:
        self.book = Book(0)
        self.summary = Summary()
        self._live: dict[int | str, Order] = {}
        self._ids: dict[int, int | str] = {}
        self._seq = 0

    def resting(self, order_id: int | str) -> Order | None:
        """The live order of this id, or None."""
        return self._live.get(order_id)

    def place(
        self,
        order_id: int | str,
        side: int,
        price: int,
        quantity: int,
        tif: str = "GTC",
        post_only: bool = False,
    ) -> list[tuple[int | str, int, int]]:
        """Match an order and rest what its `tif` lets rest. Returns its fills as (maker id, price, quantity).

        Raises ValueError if `order_id` is live.
        """
        if order_id in self._live:
            raise _FieldError("id", f"{order_id!r} belongs to an order that is still live")
        book = self.book
        summary = self.summary
        summary.placed += 1
        best_price = book.best_price(1 - side)
        fills: list[tuple[int | str, int, int]] = []
        left = quantity
        if best_price is not None and crosses(side, price, best_price):
            if post_only:
                summary.post_only_dropped += 1
                return fills
            steps, left = plan(book, side, price, quantity)
            if left and tif == "FOK":
                summary.fok_dropped += 1
                return fills
            for maker, lots in steps:
                maker_id = self._ids[maker.seq]
                book.reduce(maker, lots)
                if maker.quantity == 0:
                    del self._live[maker_id], self._ids[maker.seq]
                fills.append((maker_id, maker.price, lots))
            summary.trades += len(fills)
            summary.volume += quantity - left
        if left:
            if tif == "GTC":
                self._seq += 1
                order = Order(0, 0, side, price, self._seq, left)
                book.insert(order)
                self._live[order_id] = order
                self._ids[self._seq] = order_id
            elif tif == "FOK":
                summary.fok_dropped += 1
            else:
                summary.ioc_cut += 1
        return fills

    def cancel(self, order_id: int | str) -> bool:
        """Take the order out of the book. False, and nothing happens, if no live order has this id."""
        order = self._live.pop(order_id, None)
        if order is None:
            self.summary.cancels_unknown += 1
            return False
        del self._ids[order.seq]
        self.book.remove(order)
        self.summary.cancelled += 1
        return True


def run(lines: Iterable[str | bytes], write: Callable[[str], Any]) -> Summary:
    """Run the commands in `lines` and hand each trade to `write` as one line with its line end.

    Blank lines are skipped. Raises MatchError at the first line that is no valid command; what came before it
    has been written.
    """
    matcher = Matcher()
    summary = matcher.summary
    decode = msgspec.json.Decoder(Place | Cancel).decode
    for number, line in enumerate(lines, 1):
        try:
            command = decode(line)
            if type(command) is Place:
                price = parse_decimal(command.price, "price")
                quantity = parse_decimal(command.qty, "qty")
                side = _SIDES[command.side]
                fills = matcher.place(command.id, side, price, quantity, command.tif, command.post_only)
                if fills:
                    taker = _id_text(command.id)
                    for maker, fill_price, lots in fills:
                        write(
                            f'{{"maker":{_id_text(maker)},"taker":{taker},'
                            f'"price":"{format_decimal(fill_price, 2)}","qty":"{format_decimal(lots)}"}}\n'
                        )
            else:
                matcher.cancel(command.id)
        except _FieldError as error:
            raise MatchError(number, error.field, error.reason) from None
        except (msgspec.MsgspecError, UnicodeError) as error:
            if not line.strip():
                continue
            raise _explain(number, line, error) from None
        summary.commands += 1
    summary.resting = len(matcher.book)
    summary.best_bid = matcher.book.best_price(BID)
    summary.best_ask = matcher.book.best_price(ASK)
    return summary


def _id_text(order_id: int | str) -> str:
    return str(order_id) if isinstance(order_id, int) else msgspec.json.encode(order_id).decode()


def _explain(number: int, line: str | bytes, error: Exception) -> MatchError:
    """Why `line` did not decode, in terms of its fields; slow, for the one line that fails."""
    try:
        command = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeError) as malformed:
        return MatchError(number, "", f"not JSON: {malformed}")
    if not isinstance(command, dict):
        return MatchError(number, "", f"must be a JSON object, not {type(command).__name__}")
    operation = command.get("op")
    if operation not in ("place", "cancel"):
        return MatchError(number, "op", f'must be "place" or "cancel"{_found(command, "op")}')
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {"id": (_exact, "must be an integer or a string")}
    if operation == "place":
        rules |= {
            "side": (lambda value: value in ("buy", "sell"), 'must be "buy" or "sell"'),
            "price": (_exact, f"{_NUMBER_LIMIT}, in a string"),
            "qty": (_exact, f"{_NUMBER_LIMIT}, in a string"),
            "tif": (lambda value: value in ("GTC", "IOC", "FOK"), 'must be "GTC", "IOC" or "FOK"'),
            "post_only": (lambda value: isinstance(value, bool), "must be true or false"),
        }
    optional = ("tif", "post_only")
    for field, (valid, reason) in rules.items():
        if field in command and not valid(command[field]):
            return MatchError(number, field, reason + _found(command, field))
        if field not in command and field not in optional:
            return MatchError(number, field, f"is missing; it {reason}")
    return MatchError(number, "", str(error))


def _exact(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int


def _found(command: dict[str, Any], field: str) -> str:
    if field not in command:
        return "; it is missing"
    shown = msgspec.json.encode(command[field]).decode()
    return f", not {shown if len(shown) <= SHOWN_CHARACTERS_MAX else shown[:SHOWN_CHARACTERS_MAX] + '...'}"


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
        "orders left resting": f"{summary.resting:,}",
        "best bid": "none" if bid is None else format_decimal(bid, 2),
        "best ask": "none" if ask is None else format_decimal(ask, 2),
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


@click.command("match")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Write the trades as JSON lines, and nothing else.")
def match_command(file: IO[bytes], as_json: bool) -> None:
    """Run the order commands in FILE (JSON lines, - for standard input) through the book of the exchange.

    Without --json a table sums up what happened. A line that is no valid command ends the run with status 2.
    """
    began_s = time.perf_counter()
    size_bytes = 0 if as_json else _size_bytes(file)
    lines = _with_progress(file, size_bytes) if size_bytes >= PROGRESS_BYTES_MIN else file
    try:
        summary = run(lines, sys.stdout.write if as_json else _discard)
    except MatchError as error:
        sys.stdout.flush()
        failure = click.ClickException(f"{getattr(file, 'name', '-')}: {error}")
        failure.exit_code = 2
        raise failure from None
    if not as_json:
        Console().print(summary_table(summary, time.perf_counter() - began_s))


def _discard(_trade: str) -> None:
    pass
