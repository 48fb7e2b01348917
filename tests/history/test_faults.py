"""What goes wrong with the history's file holds no trade up, is said, and is made up for by the next start."""

import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sequencer.history import history as histories
from sequencer.history.history import History
from sequencer.history.queries import ASKED_MAX
from sequencer.history.store import FILE
from sequencer.sdk.trader import Trader
from tests.exchange_fixture import DOMAIN, MAKER, NAMES, NOW, PARAMS, TAKER, Exchange, RealService
from tests.history.compare import assert_is_of_log
from tests.history.test_history import played, told, trade


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange(RealService) as made:
        yield made


def history_of(exchange: Exchange) -> History:
    found: History = exchange.sequencer.service.history
    return found


def restarted(exchange: Exchange) -> None:
    exchange.stop_sequencer()
    exchange.start_sequencer()
    exchange.until(lambda: exchange.gateway.ready, "the gateway")


def assert_whole(exchange: Exchange) -> None:
    from sequencer.genesis import genesis_state

    service = exchange.sequencer.service
    exchange.run(service.history.run(int))
    found = assert_is_of_log(exchange.folder / "data", service.log, genesis_state(DOMAIN, PARAMS))
    assert len(found["orders"]) == 8


def test_slow_disk__holds_no_order_up(exchange: Exchange) -> None:
    """Before its rows are in, every order is acknowledged; a query for the history waits, and no other does."""
    history = history_of(exchange)
    gate, is_held = threading.Event(), threading.Event()
    write = history._store.write

    def slow(*args: Any) -> None:
        is_held.set()
        assert gate.wait(60)
        write(*args)

    history._store.write = slow  # type: ignore[method-assign]

    async def work(maker: Trader, taker: Trader) -> None:
        rests = await maker.place(NAMES[0], "sell", "1500.00", "2")
        assert is_held.wait(60)
        for _ in range(20):
            await taker.place(NAMES[0], "buy", "1500.00", "0.1", tif="IOC")
        assert await maker.orders() == []
        assert (await taker.account())["positions"][0]["quantity"] == "2.0000"
        assert exchange.result("status")["history_behind"] > 40
        gate.set()
        found = await maker.history("order_history", order_id=rests.seq)
        assert found["rows"][0]["state"] == "filled"

    played(exchange, work)


def test_full_disk__is_said_and_tried_again(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "RETRY_S", 0.02)
    history = history_of(exchange)
    write = history._store.write
    full = True

    def refusing(*args: Any) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        write(*args)

    history._store.write = refusing  # type: ignore[method-assign]
    played(exchange, trade_without_history)
    exchange.until(lambda: "disk is full" in history.error, "the error")
    assert "disk is full" in exchange.result("status")["history_error"]
    full = False
    exchange.until(lambda: not history.error and not history.behind, "the rows")
    assert_whole(exchange)


def test_full_disk__for_long__is_given_up_and_the_next_start_makes_up_for_it(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "RETRY_S", 0.001)
    monkeypatch.setattr(histories, "TRIES", 3)
    history = history_of(exchange)

    def refusing(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    history._store.write = refusing  # type: ignore[method-assign]
    played(exchange, trade_without_history)
    exchange.until(lambda: "stopped until the next start" in history.error, "it to give up")
    sums = exchange.result("account", account=TAKER)
    assert sums["realised_pnl"] == "-20.000000"  # the ledger goes on
    assert history.behind == 0
    restarted(exchange)
    assert exchange.result("status")["history_error"] == ""
    assert exchange.result("account", account=TAKER) == sums
    assert_whole(exchange)


async def trade_without_history(maker: Trader, taker: Trader) -> None:
    """As `trade`, which asks the history at its end."""

    async def is_swept(*_: Any, **__: Any) -> dict[str, Any]:
        rows = (await taker.client.call("status"))["orders"] == 2
        return {"rows": rows}

    taker.history = is_swept  # type: ignore[method-assign]
    await trade(maker, taker)


def test_deleted__is_made_again_from_the_log(exchange: Exchange) -> None:
    async def both(maker: Trader, taker: Trader) -> list[Any]:
        return [await told(maker), await told(taker)]

    played(exchange, trade)
    was = played(exchange, both)
    exchange.stop_sequencer()
    for path in (exchange.folder / "data").glob(f"{FILE}*"):
        path.unlink()
    exchange.start_sequencer()
    exchange.until(lambda: exchange.gateway.ready, "the gateway")
    assert played(exchange, both) == was


def test_queries__beyond_what_may_wait__are_refused(exchange: Exchange) -> None:
    service = exchange.sequencer.service
    answers: list[tuple[bool, bytes]] = []
    signature = bytes(64)
    params = {"account": MAKER, "access_expires": NOW + 60, "signature": signature}

    def ask() -> None:
        for _ in range(ASKED_MAX + 5):
            service.answers.history.ask(
                "order_history", params, service.views, lambda ok, body: answers.append((ok, body))
            )

    exchange.do(ask)
    exchange.until(lambda: len(answers) == ASKED_MAX + 5, "the answers")
    assert sum(b"too many queries for the history" in body for _, body in answers) == 5
    assert sum(b"is for its owner" in body for _, body in answers) == ASKED_MAX


def test_old_rows__go_by_themselves(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended longer ago than is kept goes between writes; open orders, positions and sums stay."""
    played(exchange, trade)
    sums = exchange.result("account", account=TAKER)
    service, history = exchange.sequencer.service, history_of(exchange)
    history._days, history._prune_at = 14, 0.0
    monkeypatch.setattr(histories, "PRUNE_AGAIN_S", 0.0)

    async def later() -> None:
        service.clock.set(NOW + 15 * 86_400)
        service.driver.offer_system([])

    exchange.run(later())

    async def left(maker: Trader, taker: Trader) -> Any:
        await maker.cancel_all()  # a record at the new time, and a write behind it
        for _ in range(200):
            await maker.history("order_history")
            history._prune_at = 0.0
            await taker.withdraw("1")
            if len([row async for row in taker.whole_history("trade_history")]) == 0:
                break
        rows = [row async for row in maker.whole_history("order_history")]
        kinds = {row["kind"] async for row in taker.whole_history("transaction_log")}
        return rows, kinds, await taker.account()

    rows, kinds, now = played(exchange, left)
    assert {row["state"] for row in rows} == {"cancelled"}  # those that ended with the cancel-all just now
    assert len(rows) == 2
    assert kinds == {"withdrawal"}
    assert now["realised_pnl"] == sums["realised_pnl"]
    assert now["positions"][0]["average_price"] == sums["positions"][0]["average_price"]
