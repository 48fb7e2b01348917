"""Own history through a gateway: what an account did, told to it alone, the same before and after a restart."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from sequencer.errors import AccessDenied, Code, InvalidParams
from sequencer.sdk.client import Client, Trader
from sequencer.wire import access
from tests.exchange_fixture import (
    DOMAIN,
    KEYS,
    MAKER,
    NAMES,
    NOW,
    STRANGER,
    TAKER,
    WATCHED,
    Exchange,
    RealService,
)

METHODS = ("order_history", "trade_history", "settlement_history", "transaction_log")


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange(RealService) as made:
        yield made


def played(exchange: Exchange, work: Callable[[Trader, Trader], Awaitable[Any]]) -> Any:
    """What `work(maker, taker)` returns."""

    async def main() -> Any:
        async with await Client.connect(exchange.ws_url) as client:
            traders = [await Trader.open(client, KEYS[number]) for number in (MAKER, TAKER)]
            return await work(*traders)

    return asyncio.run(main())


async def trade(maker: Trader, taker: Trader) -> dict[str, int]:
    """One order of every fate; their numbers."""
    numbers = {}
    rests = await maker.place(NAMES[0], "sell", "1500.00", "2", label="asks")
    numbers["partly"] = rests.seq
    gone = await maker.place(NAMES[2], "sell", "900.00", "1")
    numbers["cancelled"] = gone.seq
    await maker.cancel(gone)
    moved = await maker.place(NAMES[2], "sell", "950.00", "1", label="moves")
    numbers["moved"] = moved.seq
    numbers["moved_to"] = (await maker.amend(moved, price="940.00")).seq
    numbers["taker"] = (await taker.place(NAMES[0], "buy", "1500.00", "0.5", tif="IOC", label="hit")).seq
    numbers["ioc"] = (await taker.place(NAMES[1], "buy", "1.00", "1", tif="IOC")).seq
    numbers["back"] = (await taker.place(NAMES[0], "sell", "1400.00", "0.2")).seq
    numbers["crossed"] = (await maker.place(NAMES[0], "buy", "1400.00", "0.2")).seq
    numbers["all"] = (await taker.place(NAMES[1], "buy", "2.00", "1")).seq
    await taker.cancel_all()
    await taker.withdraw("100")
    await taker.transfer(WATCHED, "50")
    while not (await taker.history("transaction_log", kind="sweep_fee"))["rows"]:
        pass  # of the order that is dead: it comes with the next tick
    return numbers


async def told(trader: Trader) -> dict[str, Any]:
    """All that an account can ask of itself, the time-bound left out."""
    out: dict[str, Any] = {method: [row async for row in trader.whole_history(method)] for method in METHODS}
    out["account"] = await trader.account()
    out["orders"] = await trader.orders()
    return out


def test_every_order__is_told_with_its_end(exchange: Exchange) -> None:
    async def work(maker: Trader, taker: Trader) -> None:
        numbers = await trade(maker, taker)
        of = {row["order_id"]: row for one in (maker, taker) for row in (await told(one))["order_history"]}
        assert len(of) == 8

        def fate(name: str) -> tuple[Any, ...]:
            row = of[numbers[name]]
            return row["state"], row["reason"], row["filled"], row["average_price"], row["label"]

        assert fate("partly") == ("open", None, "0.5000", "1500.000000", "asks")
        assert fate("cancelled") == ("cancelled", "user", "0.0000", None, None)
        assert fate("moved") == ("open", None, "0.0000", None, "moves")
        assert fate("taker") == ("filled", None, "0.5000", "1500.000000", "hit")
        assert fate("ioc") == ("cancelled", "ioc", "0.0000", None, None)
        assert fate("back") == ("filled", None, "0.2000", "1400.000000", None)
        assert fate("crossed") == ("filled", None, "0.2000", "1400.000000", None)
        assert fate("all") == ("cancelled", "cancel_all", "0.0000", None, None)
        moved = of[numbers["moved"]]
        assert (moved["seq"], moved["price"]) == (numbers["moved_to"], "940.00")
        (change,) = moved["amendments"]
        assert (change["order_seq"], change["price_before"], change["price"], change["by"]) == (
            *(numbers["moved_to"], "950.00", "940.00"),
            "user",
        )
        by_new_number = await maker.history("order_history", order_id=numbers["moved_to"])
        assert by_new_number["rows"] == [moved]

    played(exchange, work)


def test_a_restart__leaves_history_sums_labels_and_cost_as_they_were(exchange: Exchange) -> None:
    """Before, an account's sums, its positions' cost and the labels of its orders were null after a start."""

    async def before(maker: Trader, taker: Trader) -> list[dict[str, Any]]:
        await trade(maker, taker)
        return [await told(maker), await told(taker)]

    async def after(maker: Trader, taker: Trader) -> list[dict[str, Any]]:
        return [await told(maker), await told(taker)]

    was = played(exchange, before)
    assert [one["label"] for one in was[0]["orders"]] == ["asks", "moves"]
    assert was[1]["account"]["realised_pnl"] == "-20.000000"  # 0.2 at 1400 of 0.5 at 1500
    exchange.stop_sequencer()
    exchange.start_sequencer()
    exchange.until(lambda: exchange.gateway.ready, "the gateway")
    assert played(exchange, after) == was
    for one in was:
        row = one["account"]
        cost = sum(Decimal(position["cost"]) for position in row["positions"])
        sums = {
            name: Decimal(row[name])
            for name in ("cash", "net_deposits", "realised_pnl", "covered", "fees_paid")
        }
        assert sums["cash"] == (
            sums["net_deposits"] + sums["realised_pnl"] + sums["covered"] - sums["fees_paid"] - cost
        )


def test_transaction_log__adds_up_to_the_cash_row_by_row(exchange: Exchange) -> None:
    async def work(maker: Trader, taker: Trader) -> None:
        await trade(maker, taker)
        for trader, kinds in (
            (maker, {"deposit", "order_fee", "amend_fee", "trade"}),
            (taker, {"deposit", "order_fee", "trade", "withdrawal", "transfer", "sweep_fee"}),
        ):
            rows = (await told(trader))["transaction_log"][::-1]
            assert {row["kind"] for row in rows} == kinds
            balance = Decimal(0)
            for row in rows:
                balance += Decimal(row["amount"])
                assert Decimal(row["cash"]) == balance, row
            assert balance == Decimal((await trader.account())["cash"])
            for limit in (1, 2, 3, 7):
                paged = [row async for row in trader.whole_history("transaction_log", limit=limit)]
                assert paged == rows[::-1]
            for kind in kinds:
                only = [row async for row in trader.whole_history("transaction_log", kind=kind, limit=2)]
                assert only == [row for row in rows[::-1] if row["kind"] == kind]

    played(exchange, work)


def test_pages__filters_and_times__leave_nothing_out_and_nothing_twice(exchange: Exchange) -> None:
    async def work(maker: Trader, taker: Trader) -> None:
        await trade(maker, taker)
        everything = (await told(maker))["order_history"]
        for limit in (1, 2, 200):
            assert [row async for row in maker.whole_history("order_history", limit=limit)] == everything
            opened = [row async for row in maker.whole_history("order_history", limit=limit, state="open")]
            assert opened == [row for row in everything if row["state"] == "open"] != []
        for asked, field in (({"instrument": NAMES[0]}, "instrument"), ({"label": "asks"}, "label")):
            (value,) = asked.values()
            found = [row async for row in maker.whole_history("order_history", **asked)]
            assert found == [row for row in everything if row[field] == value] != []
        trades = (await told(maker))["trade_history"]
        assert [row["role"] for row in trades] == ["taker", "maker"]
        assert [row async for row in maker.whole_history("trade_history", limit=1)] == trades
        assert (await maker.history("trade_history", label="asks"))["rows"] == [trades[1]]
        assert (await maker.history("trade_history", order_id=trades[0]["order_id"]))["rows"] == [trades[0]]
        for asked, count in (
            ({"since": NOW}, 5),
            ({"since": NOW + 1}, 0),
            ({"until": NOW}, 5),
            ({"until": NOW - 1}, 0),
        ):
            assert len((await maker.history("order_history", **asked))["rows"]) == min(count, len(everything))
        event_fields = {
            "trade",
            "instrument",
            "side",
            "role",
            "price",
            "quantity",
            "fee",
            "order_id",
            "seq",
            "label",
        }
        assert event_fields <= set(trades[0])

    played(exchange, work)


def test_another_key__reads_nothing(exchange: Exchange) -> None:
    async def work(maker: Trader, taker: Trader) -> None:
        await trade(maker, taker)
        expires = NOW + 60

        async def ask(account: int, signed_for: int, key: bytes, until: int = expires) -> Any:
            signature = "0x" + access.sign(DOMAIN, signed_for, expires, key).hex()
            return await maker.client.call(
                "trade_history", account=account, access_expires=until, signature=signature
            )

        assert len((await ask(MAKER, MAKER, KEYS[MAKER]))["rows"]) == 2
        for account, signed_for, key in (
            (MAKER, MAKER, KEYS[TAKER]),
            (MAKER, TAKER, KEYS[MAKER]),
            (MAKER, MAKER, STRANGER),
        ):
            with pytest.raises(AccessDenied) as denied:
                await ask(account, signed_for, key)
            assert denied.value.code == Code.ACCESS_DENIED
            assert denied.value.data["field"] == "signature"
        for until in (NOW, NOW + access.LASTS_MAX_S + 1):
            with pytest.raises(InvalidParams) as wrong:
                await ask(MAKER, MAKER, KEYS[MAKER], until)
            assert (wrong.value.field, wrong.value.got) == ("access_expires", until)
        with pytest.raises(AccessDenied):  # another time than was signed
            await ask(MAKER, MAKER, KEYS[MAKER], expires + 1)
        with pytest.raises(InvalidParams, match="signature: is missing"):
            await maker.client.call("trade_history", account=MAKER, access_expires=expires)
        # A session key may, until its owner takes it away.
        session = Trader(maker.client, STRANGER, MAKER, DOMAIN)
        await maker.set_signer(session.address, 1, NOW + 3_600)
        assert len((await session.history("trade_history"))["rows"]) == 2
        await maker.set_signer(session.address, 0, 0)
        with pytest.raises(AccessDenied):
            await session.history("trade_history")

    played(exchange, work)


def test_wallet__signs_for_the_history_by_typed_data(exchange: Exchange) -> None:
    from eth_account import Account
    from eth_account.messages import encode_typed_data

    asked = {"account": TAKER, "access_expires": NOW + 600}
    data = exchange.result("typed_data", method="history_access", **asked)
    signed = Account.from_key(KEYS[TAKER]).sign_message(encode_typed_data(full_message=data))
    found = exchange.result(
        "transaction_log", **asked, signature="0x" + signed.signature.hex().removeprefix("0x")
    )
    assert [row["kind"] for row in found["rows"]] == ["deposit"]
