"""A tape from files that a user saved of Deribit's public history: trades and an index series.

Trades: answers of `public/get_last_trades_by_currency` or `..._and_time` (kind `option`), saved as they came,
as the `trades` array alone, or as JSONL with one answer or one trade a line. Index: answers of
`public/get_tradingview_chart_data` (of the perpetual, say).
Fields: https://docs.deribit.com/api-reference/market-data

Numbers are read as decimals: no float touches a price. A bad row is an error with its place, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final, NoReturn

from sequencer.market.tape import (
    IndexPoint,
    Instrument,
    Tape,
    TapeError,
    Trade,
    integer,
    make_tape,
    number,
    parse_instrument,
    to_ticks,
    trade_from_row,
)

__all__ = ["Instrument", "TapeError", "load_deribit_json", "parse_instrument"]

TIME_MS_MAX: Final = (1 << 32) * 1000
LIQUIDATIONS: Final = ("M", "T", "MT")  # maker's side, taker's side, both
TICK_DIRECTIONS: Final = 4


def load_deribit_json(trades_path: Path | str, index_path: Path | str) -> Tape:
    """Tape of saved answers. TapeError names file, line or element, and field.

    Pages may overlap: a trade or a bar that comes twice and is the same counts once; one that differs is an
    error. Bars are stamped with their start: the open is the value at the stamp.
    """
    trades: dict[str, Trade] = {}
    for where, row in trade_rows(Path(trades_path)):
        trade = trade_from_row(row, where)
        if trades.setdefault(trade.trade_id, trade) != trade:
            raise TapeError(f"{where}: trade_id: {trade.trade_id} came before with other contents")
    points = chart_points(Path(index_path))
    if not trades or not points:
        empty = trades_path if not trades else index_path
        raise TapeError(f"{Path(empty).name}: result: nothing in it")
    ordered = sorted(trades.values(), key=lambda trade: (trade.time_ms, id_order(trade.trade_id)))
    return make_tape(ordered, points, f"recorded tape {Path(trades_path).name}")


def chart_points(path: Path) -> list[IndexPoint]:
    """The bars of saved chart data: the open of each at its stamp. TapeError as `load_deribit_json`."""
    points: dict[int, IndexPoint] = {}
    for where, chart in _documents(path):
        for point in _chart_points(_result(chart, where), where):
            if points.setdefault(point.time_s, point) != point:
                raise TapeError(f"{where}: open: the bar at {point.time_s} came before with another open")
    return list(points.values())


def trade_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every trade of saved answers, with its place."""
    for where, row in _rows(path):
        _check_optional(row, where)
        yield where, row


def id_order(trade_id: str) -> tuple[int, str]:
    """Sorts `48079254` and `ETH-48079254` by their number: answers come newest first by default."""
    digits = trade_id.rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else 0, trade_id)


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every trade with its place."""
    for where, document in _documents(path):
        result = _result(document, where)
        if isinstance(result, dict) and "trades" in result:
            result = result["trades"]
        if isinstance(result, dict) and "instrument_name" in result:
            yield where, result
            continue
        if not isinstance(result, list):
            raise TapeError(f"{where}: trades: an array of trades is needed")
        for position, row in enumerate(result):
            place = f"{where} trades[{position}]"
            if not isinstance(row, dict):
                raise TapeError(f"{place}: a trade must be an object")
            yield place, row


def _check_optional(row: Mapping[str, object], where: str) -> None:
    """Fields that a tape does not keep must still be what the API says when they are there."""
    if row.get("mark_price") is not None:
        number(row, "mark_price", where)
    direction = row.get("tick_direction")
    if direction is not None and (isinstance(direction, bool) or direction not in range(TICK_DIRECTIONS)):
        raise TapeError(f"{where}: tick_direction: {direction!r} must be an integer from 0 to 3")
    liquidation = row.get("liquidation")
    if liquidation is not None and liquidation not in LIQUIDATIONS:
        raise TapeError(f"{where}: liquidation: {liquidation!r} is none of {', '.join(LIQUIDATIONS)}")
    block = row.get("block_trade_id")
    if block is not None and not isinstance(block, str):
        raise TapeError(f"{where}: block_trade_id: {block!r} must be text")


def _chart_points(chart: object, where: str) -> Iterator[IndexPoint]:
    if not isinstance(chart, dict):
        raise TapeError(f"{where}: result: an object with ticks and open is needed")
    if chart.get("status") == "no_data":
        return
    if chart.get("status", "ok") != "ok":
        raise TapeError(f"{where}: status: {chart['status']!r} is neither ok nor no_data")
    columns = []
    for field in ("ticks", "open"):
        column = chart.get(field)
        if not isinstance(column, list):
            raise TapeError(f"{where}: {field}: missing or no array")
        columns.append(column)
    ticks, opens = columns
    close = chart.get("close", opens)
    if len(ticks) != len(opens) or not isinstance(close, list) or len(close) != len(ticks):
        raise TapeError(f"{where}: open, close: as many as ticks ({len(ticks)}) are needed")
    for position, (tick, price) in enumerate(zip(ticks, opens, strict=True)):
        place = f"{where} [{position}]"
        row = {"ticks": tick, "open": price}
        usd = number(row, "open", place)
        if usd <= 0:
            raise TapeError(f"{place}: open: {usd} must be above 0")
        time_ms = integer(number(row, "ticks", place), "ticks", place, TIME_MS_MAX)
        yield IndexPoint(time_ms // 1000, to_ticks(usd, "open", place))


def _documents(path: Path) -> Iterator[tuple[str, object]]:
    """The one JSON document of a file, or those of its lines when it is JSONL."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TapeError(f"{path}: cannot be read: {error}") from error
    try:
        document = _parse(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # not a second document: the first one is broken
            raise TapeError(f"{path.name}:{error.lineno}: no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise TapeError(f"{path.name}: no JSON: {error}") from error
    else:
        yield path.name, document
        return
    for line_number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield f"{path.name}:{line_number}", _parse(line)
            except (ValueError, RecursionError) as error:
                raise TapeError(f"{path.name}:{line_number}: no JSON: {error}") from error


def _parse(text: str) -> object:
    parsed: object = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _result(document: object, where: str) -> object:
    """What a JSON-RPC answer carries, or the document itself when it is no answer."""
    if not isinstance(document, dict):
        return document
    if "error" in document:
        raise TapeError(f"{where}: error: the answer is a refusal: {document['error']}")
    return document.get("result", document)
