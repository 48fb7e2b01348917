"""How commands speak: tables and bars for people on standard error or a terminal, JSON for programs on standard out."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sequencer.wire.jsonrpc import (
    CASH_DECIMALS,
    FEE_MAX_DECIMALS,
    PRICE_DECIMALS,
    QUANTITY_DECIMALS,
    to_units,
)

people = Console(stderr=True)
WIDTH: Final = 120  # of tables that go to a file or a pipe
COUNTS: Final = (
    *("records", "orders", "fills", "trades", "batches", "segments", "accounts", "instruments", "commands"),
    *("gas", "gas_used", "bytes", "liquidations", "withdrawals", "expiries", "attempts", "events"),
    *("per_second", "per_s", "ticks", "lots"),
)
"""Last words of the names of integers that are grouped for people. Numbers that name something never are."""


class Amount(click.ParamType):
    """A decimal of at most `decimals` digits after the point; the command gets it as it was written."""

    def __init__(self, name: str, decimals: int, is_signed: bool = False) -> None:
        self.name = name
        self._decimals = decimals
        self._is_signed = is_signed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error, with the limit."""
        try:
            units = to_units(str(value), self._decimals)
        except ValueError:
            units = None
        if units is None or (units <= 0 and not self._is_signed):
            step, least = Decimal(1).scaleb(-self._decimals), "" if self._is_signed else " above 0"
            self.fail(f"must be a decimal number{least}, a multiple of {step}, not {value!r}", param, ctx)
        return str(value)


PRICE: Final = Amount("price", PRICE_DECIMALS)
QUANTITY: Final = Amount("quantity", QUANTITY_DECIMALS)
FEE_MAX: Final = Amount("amount", FEE_MAX_DECIMALS)
CASH: Final = Amount("amount", CASH_DECIMALS)
SIGNED_CASH: Final = Amount("amount", CASH_DECIMALS, is_signed=True)


UNITS_S: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
LATER_MAX_S: Final = 10 * 366 * 86_400


class Duration(click.ParamType):
    """Days, hours, minutes and seconds, such as 3d2h or 600s; the command gets seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`value` in seconds, 1 to LATER_MAX_S; else click's error."""
        if isinstance(value, int):
            return value
        parts = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", str(value))
        numbers = [int(one or 0) for one in parts.groups()] if parts else []
        seconds = sum(number * unit for number, unit in zip(numbers, UNITS_S.values(), strict=False))
        if not 0 < seconds <= LATER_MAX_S:
            self.fail(f"must be like 7d, 3d2h or 600s, at most 3660d, not {value!r}", param, ctx)
        return seconds


def plain(value: Any) -> Any:
    """Decimals as JSON strings, every digit of them and no exponent."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def write_json(target: str | None, value: Any) -> None:
    """One object to a file, or to standard output (`-`) with nothing else on it. Nothing when `target` is None."""
    if target is None:
        return
    text = msgspec.json.format(msgspec.json.encode(plain(value)), indent=2).decode() + "\n"
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise fail(f"{target}: {error.strerror}") from error


def show(title: str, rows: dict[str, Any]) -> None:
    """A two-column table for people."""
    _print(title, table_of(rows))


def table_of(rows: dict[str, Any]) -> Table:
    """A table of two columns."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a root is of use as a whole only
    for name, value in rows.items():
        table.add_row(name, cell(name, value))
    return table


def show_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of alike rows for people."""
    if not rows:
        sys.stdout.write(f"{title}: none\n")
        return
    _print(title, table_of_rows("", rows))


def table_of_rows(title: str, rows: list[dict[str, Any]]) -> Table:
    """A table of alike rows; a field that only some of them have is empty in the others."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(cell(name, row[name]) if name in row else "" for name in names))
    return table


def show_table(title: str, table: Table) -> None:
    """A table that somebody has made."""
    _print(title, table)


def _print(title: str, table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(title, markup=False, highlight=False)
    console.print(table)


def cell(name: str, value: Any) -> str:
    """A value of field `name` as people read it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if name.endswith(COUNTS) else str(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(key, one)}" for key, one in value.items())
    if isinstance(value, list):
        return "\n".join(cell("", one) for one in value) or "none"
    return "none" if value is None else str(value)


@contextmanager
def bars() -> Iterator[Any]:
    """A callable (stage, done, total) that draws one bar a stage on standard error."""
    with Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=people,
        transient=not people.is_terminal,
        disable=not people.is_terminal,
    ) as progress:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
                if not people.is_terminal:
                    people.print(f"{stage} ...")
            progress.update(tasks[stage], completed=done, total=total)

        yield update


def usd(amount: int) -> str:
    """1e-6 USD as dollars, to the unit."""
    whole, part = divmod(abs(amount), 10**6)
    return f"{'-' if amount < 0 else ''}{whole:,}.{part:06}"


def fail(message: str) -> click.ClickException:
    """A clear error for people; exit status 1."""
    return click.ClickException(message)
