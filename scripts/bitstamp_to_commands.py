"""Turn a recorded Bitstamp order feed (orders.csv or orders.csv.xz) into commands for `fairstrike match`.

The file has a row for each event of each order: id, timestamp (ms, when it was received), exchange.timestamp
(ms), price (USD), volume (1e-8 BTC, what remains after the event), action (created, changed, deleted),
direction (bid, ask). Ids ascend in the order of creation. Rows of orders.csv.xz as R's ob-analytics ships
it, 50,414 of them.

What the rows mean, and what becomes of them:

- created: an order with its whole volume, marketable or not. It becomes a `place`. A trade that it causes
  shows up to about 0.1 s later, as later rows.
- A trade is two neighbouring rows, a bid's and an ask's, that take the same volume off both (up to 2e-8
  apart: the feed rounds). It becomes nothing: the book has to find it by itself.
- deleted: a cancel, or with volume 0 the end of a filled order. Both become a `cancel`: after a fill it finds
  nothing, or clears away the 1e-8 by which the feed's rounding left the order alive.
- changed with another price: a market order that goes on to the next price level. It becomes `cancel` and
  `place` with the same id, at that price, for what remains. A market buy spends money, so its volume is
  estimated anew.
- A market buy is deleted with a few 1e-5 BTC that its money could no longer buy, in the row beside its last
  trade. That residue (under 1e-4 BTC) is taken off the quantity it is placed with.
- Orders that rest since before the record begins have no created row. They are placed first, in order of id,
  with what they hold at their first row, plus what a trade takes in that row.
- Rows of an order that arrived out of turn (deleted before created or changed: 6 orders) are put back in
  turn; a second deletion of an order (21) is ignored.

Measured on the 5 hours of 2015-05-01: 575 trades recorded; the book makes 575 trades, and all 575 recorded
ones are among them: same bid, same ask, same volume within 2e-8 (571 if market buys kept their
residues). Nothing but price-time priority picks the counterparties.
"""

import csv
import lzma
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import click
import msgspec

from sequencer.market.match import format_decimal

ROUNDING = 2
"""The feed rounds volumes: two that differ by no more (1e-8 BTC) are equal."""
RESIDUE_MAX = 10_000
"""Largest volume (1e-8 BTC) that a market order may leave unspent."""
CENT = 10**6
"""One cent of price in units of 1e-8 USD."""

_TURN = {"created": 0, "changed": 1, "deleted": 2}


class Event(NamedTuple):
    """One row. `price` in units of 0.01 USD, `volume` in 1e-8 BTC after the event; `side` 0 bid, 1 ask."""

    id: int
    timestamp_ms: int
    price: int
    volume: int
    action: str
    side: int


class Fill(NamedTuple):
    """One recorded trade: `volume` in 1e-8 BTC; `row` is the index of the first of its two events."""

    row: int
    bid: int
    ask: int
    volume: int


class Record(NamedTuple):
    """A feed, understood: events in turn, trades, and what the rows alone do not say of an order's volume.

    `taken_first`: volume that a trade takes in the first row of an order that has no created row.
    `residue`: volume that a market order leaves unspent. Both by order id, in 1e-8 BTC.
    """

    events: list[Event]
    fills: list[Fill]
    taken_first: dict[int, int]
    residue: dict[int, int]


def read_events(path: Path) -> list[Event]:
    """The rows of a file as they stand. Raises ValueError, naming the row, for a bad field."""
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
        return list(parse_events(file))


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """Events of CSV text with a header line. Raises ValueError, naming the row (the header is 1)."""
    for number, row in enumerate(csv.DictReader(lines), 2):
        try:
            dollars, _, cents = row["price"].partition(".")
            yield Event(
                int(row["id"]),
                int(row["timestamp"]),
                int(dollars) * 100 + int(f"{cents:0<2}"),
                int(row["volume"]),
                _checked(row["action"], ("created", "changed", "deleted")),
                ("bid", "ask").index(row["direction"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"row {number}: {error}") from None


def _checked(word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise ValueError(f"action {word!r} is none of {known}")
    return word


def in_turn(events: list[Event]) -> list[Event]:
    """The events with those of each order in turn, created first, deleted last and once; places stay."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        places[event.id].append(place)
    result: list[Event | None] = list(events)
    for own in places.values():
        sequence = sorted((events[place] for place in own), key=lambda event: _TURN[event.action])
        deleted = False
        for place, event in zip(own, sequence, strict=True):
            result[place] = None if deleted else event
            deleted = event.action == "deleted"
    return [event for event in result if event is not None]


def understand(rows: list[Event]) -> Record:
    """Find the trades in the rows of a feed, by the rules at the head of this file."""
    events = in_turn(rows)
    drops = list(_drops(events))
    fills: list[Fill] = []
    taken_first: dict[int, int] = {}
    residue: dict[int, int] = {}
    row = 0
    while row < len(events) - 1:
        first, second = events[row], events[row + 1]
        volume = 0 if first.side == second.side else _traded(events, drops, row)
        if not volume:
            row += 1
            continue
        for event, drop in ((first, drops[row]), (second, drops[row + 1])):
            if drop is None:
                taken_first[event.id] = volume
            elif drop == 0:
                residue[event.id] = event.volume - volume
        bid, ask = (first.id, second.id) if second.side else (second.id, first.id)
        fills.append(Fill(row, bid, ask, volume))
        row += 2
    return Record(events, fills, taken_first, residue)


def _drops(events: list[Event]) -> Iterator[int | None]:
    """What each event takes off its order's volume; None where the volume before it is not known."""
    last: dict[int, Event] = {}
    for event in events:
        before = last.get(event.id)
        if event.action == "created" or (before is not None and before.price != event.price):
            yield 0
        elif before is None:
            yield None if event.action == "changed" or event.volume == 0 else 0
        else:
            yield before.volume - event.volume
        last[event.id] = event


def _traded(events: list[Event], drops: list[int | None], row: int) -> int:
    """Volume of the trade that `row` and the next one record, or 0 if they record none."""
    for place, other in ((row, row + 1), (row + 1, row)):
        drop, opposite, event = drops[place], drops[other], events[other]
        if not drop or drop < 0:
            continue
        if opposite is None or (opposite > 0 and abs(drop - opposite) <= ROUNDING):
            return drop if opposite is None else min(drop, opposite)
        if opposite == 0 and event.action == "deleted" and 0 < event.volume - drop < RESIDUE_MAX:
            return drop
    return 0


def commands(record: Record) -> Iterator[dict[str, object]]:
    """Commands of `fairstrike match` that send what the record's owners sent."""
    known: set[int] = set()
    price: dict[int, int] = {}
    before: list[tuple[int, int, int, int]] = []
    for event in record.events:
        if event.id not in known and event.action != "created":
            volume = event.volume + record.taken_first.get(event.id, 0)
            before.append((event.id, event.side, event.price, volume))
        known.add(event.id)
    for order, side, at, volume in sorted(before):
        price[order] = at
        yield from _place(record, order, side, at, volume)
    for event in record.events:
        if event.action == "created":
            yield from _place(record, event.id, event.side, event.price, event.volume)
        elif event.action == "deleted":
            yield {"op": "cancel", "id": event.id}
        elif price[event.id] != event.price:
            yield {"op": "cancel", "id": event.id}
            yield from _place(record, event.id, event.side, event.price, event.volume)
        price[event.id] = event.price


def _place(record: Record, order: int, side: int, price: int, volume: int) -> Iterator[dict[str, object]]:
    quantity = volume - record.residue.get(order, 0)
    if quantity > 0:
        yield {
            "op": "place",
            "id": order,
            "side": "sell" if side else "buy",
            "price": format_decimal(price * CENT, 2),
            "qty": format_decimal(quantity),
        }


def reproduced(fills: Iterable[Fill], trades: Iterable[dict[str, object]]) -> list[Fill]:
    """Those of the recorded fills that are among `trades` (as `match` writes them), each trade used once."""
    made: dict[frozenset[object], list[int]] = defaultdict(list)
    for trade in trades:
        whole, _, fraction = str(trade["qty"]).partition(".")
        made[frozenset((trade["maker"], trade["taker"]))].append(int(whole + f"{fraction:0<8}"))
    found: list[Fill] = []
    for fill in fills:
        volumes = made[frozenset((fill.bid, fill.ask))]
        equal = next((volume for volume in volumes if abs(volume - fill.volume) <= ROUNDING), None)
        if equal is not None:
            volumes.remove(equal)
            found.append(fill)
    return found


@click.command()
@click.argument("orders", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", type=click.File("wb"), default="-", help="Where the commands go (standard output).")
@click.option("--fills", type=click.File("wb"), help="Where the recorded trades go, if they are wanted.")
def main(orders: Path, output: IO[bytes], fills: IO[bytes] | None) -> None:
    """Turn the recorded feed ORDERS (CSV, also .xz) into commands for `fairstrike match`."""
    try:
        record = understand(read_events(orders))
    except ValueError as error:
        raise click.ClickException(f"{orders}: {error}") from None
    encode = msgspec.json.Encoder().encode
    for command in commands(record):
        output.write(encode(command) + b"\n")
    if fills is not None:
        for fill in record.fills:
            shown = {"bid": fill.bid, "ask": fill.ask, "qty": format_decimal(fill.volume)}
            fills.write(encode(shown) + b"\n")


if __name__ == "__main__":
    main()
