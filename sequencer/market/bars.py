"""An index series from files of bars: CSV with a header, or saved answers of Deribit's `get_tradingview_chart_data`.

CSV columns: `timestamp` (or `time`, `date`, `ticks`), ISO 8601 in UTC or seconds or milliseconds since 1970, and
`close` (or `price`), in USD; `open` where bars are stamped with their start. Others are ignored. A bad row is an error
with its place, never left out.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from sequencer.market import deribit
from sequencer.market.tape import IndexPoint, TapeError, number, to_ticks
from sequencer.protocol.constants import U32_MAX

Stamp = Literal["end", "start"]
TIME_COLUMNS: Final = ("timestamp", "time", "date", "ticks")
MILLISECONDS_FROM: Final = 10**11
"""Numbers from here on are milliseconds: as seconds they would lie beyond the year 5000."""
FORM: Final = (
    "a CSV file with the columns timestamp and close (open), a folder of them, or saved chart data of Deribit"
)


def load_bars(path: Path | str, stamp: Stamp = "end") -> list[IndexPoint]:
    """The index by time. TapeError names file, line and field, or what was expected and what was found.

    stamp: whether a CSV bar has the time of its end (its close is the index then) or of its start (its open is). A bar
    that comes twice and is the same counts once.
    """
    path = Path(path)
    files = sorted(one for one in path.glob("*") if is_data(one)) if path.is_dir() else [path]
    if not files:
        raise TapeError(f"--index {path}: {FORM} is expected; the folder holds no .csv, .json or .jsonl file")
    points: dict[int, IndexPoint] = {}
    for file in files:
        for where, point in _chart(file) if is_json(file) else _csv(file, stamp):
            if points.setdefault(point.time_s, point) != point:
                raise TapeError(f"{where}: the bar at {point.time_s} came before with another price")
    if not points:
        raise TapeError(f"--index {path}: {FORM} is expected; no bar is in it")
    return [points[time_s] for time_s in sorted(points)]


def is_data(path: Path) -> bool:
    """Whether a file of a folder is one to read, by its name."""
    return path.is_file() and path.suffix.lower() in (".csv", ".json", ".jsonl", ".ndjson")


def is_json(path: Path) -> bool:
    """Whether a file begins as JSON does. TapeError when it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error
    return head[:1] in (b"{", b"[")


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows with their place `file:line`, one after the other.

    TapeError when the file cannot be read or a row is longer or shorter than the first line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                if None in row or None in row.values():
                    raise TapeError(f"{where}: columns: as many as in the first line are needed")
                yield where, row
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TapeError(f"{path}: no CSV: {error}") from error


def _chart(path: Path) -> Iterator[tuple[str, IndexPoint]]:
    for point in deribit.chart_points(path):
        yield path.name, point


def _csv(path: Path, stamp: Stamp) -> Iterator[tuple[str, IndexPoint]]:
    price_columns = ("close", "price") if stamp == "end" else ("open",)
    for where, row in csv_rows(path):
        time_column = _column(row, TIME_COLUMNS, where)
        price_column = _column(row, price_columns, where)
        price = number(row, price_column, where)
        if price <= 0:
            raise TapeError(f"{where}: {price_column}: {price} must be above 0")
        yield where, IndexPoint(_seconds(row, time_column, where), to_ticks(price, price_column, where))


def _column(row: Mapping[str, str], names: tuple[str, ...], where: str) -> str:
    for name in names:
        if name in row:
            return name
    raise TapeError(f"{where}: a column {' or '.join(names)} is expected; there are {', '.join(row)}")


def _seconds(row: Mapping[str, str], column: str, where: str) -> int:
    """Seconds since 1970 of a time in any of the forms, floored."""
    text = row[column].strip()
    if text.isdecimal():
        value = int(text)
        seconds = value // 1000 if value >= MILLISECONDS_FROM else value
    else:
        try:
            moment = dt.datetime.fromisoformat(_six_digits(text))
        except ValueError as error:
            raise TapeError(f"{where}: {column}: {text!r} is no UTC time") from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        seconds = int(moment.timestamp())
    if not 0 < seconds <= U32_MAX:
        raise TapeError(f"{where}: {column}: {text!r} is no time from 1970 to 2106")
    return seconds


def _six_digits(text: str) -> str:
    """An ISO time whose fraction of a second has at most six digits, which is what the library reads."""
    head, point, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return head + point + tail[: min(digits, 6)] + tail[digits:] if point and digits else text
