"""How commands speak: tables and bars for people on standard error or a terminal, JSON for programs on standard out."""

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

from sequencer.api.jsonrpc import CASH_DECIMALS, PRICE_DECIMALS, QUANTITY_DECIMALS, to_units

people = Console(stderr=True)
WIDTH: Final = 120  # of tables that go to a file or a pipe
NAMES: Final = (
    "number",
    "chain_id",
    "time",
    "seq",
    "account",
    "tick",
    "expiry",
    "expires",
    "start",
    "at",
    "deadline",
    "floor",
)
"""Last words of the names of integers that are no amounts: shown without separators."""


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
CASH: Final = Amount("amount", CASH_DECIMALS)
SIGNED_CASH: Final = Amount("amount", CASH_DECIMALS, is_signed=True)


def plain(value: Any) -> Any:
    """Decimals as JSON numbers: exact digits are in the text form."""
    if isinstance(value, Decimal):
        return float(value)
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
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a root is of use as a whole only
    for name, value in rows.items():
        table.add_row(name, _cell(name, value))
    _print(title, table)


def show_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of alike rows for people."""
    if not rows:
        sys.stdout.write(f"{title}: none\n")
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    _print(title, table)


def _print(title: str, table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(title, markup=False, highlight=False)
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not name.endswith(NAMES):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(key, one)}" for key, one in value.items())
    if isinstance(value, list):
        return "\n".join(_cell("", one) for one in value) or "none"
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
