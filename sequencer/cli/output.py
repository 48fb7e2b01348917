"""How commands speak: tables and bars for people on standard error or a terminal, JSON for programs on standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

people = Console(stderr=True)


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
    else:
        Path(target).write_text(text, encoding="utf-8")


def show(title: str, rows: dict[str, Any]) -> None:
    """A two-column table for people."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
    Console().print(table)


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


def fail(message: str) -> click.ClickException:
    """A clear error for people; exit status 1."""
    return click.ClickException(message)
