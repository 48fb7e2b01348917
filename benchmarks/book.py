"""Events per second of the order book on a recorded feed (argument: orders.csv or orders.csv.xz).

    python benchmarks/book.py ../shared/data/bitstamp-l3-2015-05-01/orders.csv.xz

An event inserts, reduces or removes one order, as the feed tells; building the Order is part of an insertion.
"""

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from sequencer.market.match import run
from sequencer.protocol.book import ASK, BID, Book, Order

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from bitstamp_to_commands import Record, commands, read_events, understand

ROUNDS = 7
INSERT, REDUCE, REMOVE = range(3)

Step = tuple[int, int, tuple[int, int, int, int, int, int]]


def steps_of(record: Record) -> list[Step]:
    """The feed as (operation, order id, Order's arguments); the last one of a REDUCE is what is taken."""
    steps: list[Step] = []
    live: dict[int, tuple[int, int]] = {}
    for seq, event in enumerate(record.events):
        price, volume = live.get(event.id, (0, 0))
        if event.id in live and (event.action == "deleted" or price != event.price):
            del live[event.id]
            steps.append((REMOVE, event.id, (0,) * 6))
        if event.action != "deleted" and event.id not in live:
            steps.append((INSERT, event.id, (0, 0, event.side, event.price, seq, event.volume)))
            live[event.id] = (event.price, event.volume)
        elif event.id in live and event.volume < volume:
            steps.append((REDUCE, event.id, (0, 0, 0, 0, 0, volume - event.volume)))
            live[event.id] = (event.price, event.volume)
    return steps


def replay(steps: list[Step], look: bool) -> None:
    """Apply the steps to a new book; with `look`, ask for both best orders after each."""
    book = Book(0)
    live: dict[int, Order] = {}
    insert, reduce, remove, best = book.insert, book.reduce, book.remove, book.best
    for operation, order_id, fields in steps:
        if operation == INSERT:
            order = live[order_id] = Order(*fields)
            insert(order)
        elif operation == REMOVE:
            remove(live.pop(order_id))
        else:
            reduce(live[order_id], fields[5])
        if look:
            best(BID)
            best(ASK)


def best_s(work: Callable[[], object]) -> float:
    """Least wall time of some rounds, in seconds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Measure and print one table."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python benchmarks/book.py ORDERS")
    record = understand(read_events(Path(sys.argv[1])))
    steps = steps_of(record)
    lines = [msgspec.json.encode(command) for command in commands(record)]
    rows: list[tuple[str, int, Callable[[], object]]] = [
        ("book: insert, reduce, remove", len(steps), lambda: replay(steps, look=False)),
        ("the same, both best orders after each", len(steps), lambda: replay(steps, look=True)),
        ("match: JSON in, trades out", len(lines), lambda: run(lines, lambda _line: None)),
    ]
    table = Table(title=f"order book, best of {ROUNDS} rounds")
    for column in ("what", "events", "events/s", "ns each"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, count, work in rows:
        elapsed_s = best_s(work)
        table.add_row(what, f"{count:,}", f"{count / elapsed_s:,.0f}", f"{elapsed_s / count * 1e9:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
