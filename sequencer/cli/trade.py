"""For traders: orders, from the shell. Key and gateway: options.py."""

from pathlib import Path
from typing import Any

import click

from sequencer.cli.history import order_history
from sequencer.cli.options import (
    SIDES,
    account_number,
    ask,
    in_order,
    key_of,
    named,
    print_result,
    trade,
    with_api,
    with_key,
)
from sequencer.cli.output import FEE_MAX, PRICE, QUANTITY, fail
from sequencer.cli.types import INSTRUMENT, InstrumentName
from sequencer.wire.near import Near
from sequencer.wire.option_types import LABEL
from sequencer.wire.pages import all_of


@click.group()
def order() -> None:
    """Place, list, amend and cancel orders; show the order history."""


order.add_command(order_history)


@order.command()
@click.argument("instrument", type=InstrumentName(*SIDES))
@click.argument("side")
@click.argument("quantity", type=QUANTITY)
@click.argument("price", type=PRICE)
@click.option("--tif", type=click.Choice(["GTC", "IOC", "FOK"]), default="GTC", show_default=True)
@click.option("--post-only", is_flag=True)
@click.option("--reduce-only", is_flag=True)
@click.option("--expires", type=click.IntRange(0, 2**32 - 1), default=0, help="seconds since 1970; 0: never")
@click.option(
    "--self-trade",
    type=click.Choice(["cancel-resting", "cancel-taker"]),
    default="cancel-resting",
    show_default=True,
    help="which order is cancelled when it meets one of the same account",
)
@click.option(
    "--fee-max", type=FEE_MAX, default="0.01", show_default=True, help="maximum sequencing fee, USD"
)
@click.option("--label", type=LABEL, help="your name for it: 1 to 8 letters, digits or . _ : / # @ + = -")
@click.option("--words", is_flag=True, help="sign the order as the sentence that a wallet shows")
@click.option(
    "--receipt",
    type=click.Path(path_type=Path),
    help="append the receipt to this file: `fairstrike receipt verify`",
)
@with_key
@with_api
def place(
    instrument: str,
    side: str,
    quantity: str,
    price: str,
    tif: str,
    post_only: bool,
    reduce_only: bool,
    self_trade: str,
    expires: int,
    fee_max: str,
    label: str | None,
    words: bool,
    receipt: Path | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Place an order: INSTRUMENT SIDE QUANTITY PRICE, e.g. BTC-2JAN22-48000-C buy 0.1 184.50."""
    instrument, side = in_order(instrument, side)
    placed = trade(
        api,
        key_of(keystore, devnet_key),
        lambda trader: trader.place(
            named(instrument),
            side,
            price,
            quantity,
            tif=tif,
            post_only=post_only,
            reduce_only=reduce_only,
            self_trade=self_trade.replace("-", "_"),
            expires=expires,
            fee_max=fee_max,
            label=label or "",
            words=words,
        ),
        receipt,
    )
    print_result("order", placed.ack, as_json)


@order.command("list")
@click.option("--label", type=LABEL, help="only this label")
@with_key
@with_api
def list_orders(
    label: str | None, api: str, as_json: bool, keystore: Path | None, devnet_key: int | None
) -> None:
    """List the account's resting orders with their keys for `order cancel`; --account: any account, without a key."""
    number = account_number(api, lambda: key_of(keystore, devnet_key))
    params: dict[str, Any] = {"account": number} | ({} if label is None else {"label": label})
    print_result("orders", ask(api, "orders", **params), as_json)


@order.command()
@click.argument("instrument", type=INSTRUMENT)
@click.argument("side", type=click.Choice(SIDES))
@click.argument("price", type=PRICE)
@click.argument("seq", type=click.IntRange(0, 2**40 - 1))
@with_key
@with_api
def cancel(
    instrument: str,
    side: str,
    price: str,
    seq: int,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Cancel one order by its key from the ack: INSTRUMENT SIDE PRICE SEQ."""
    from sequencer.protocol.constants import Kind
    from sequencer.wire.jsonrpc import PRICE_DECIMALS, to_units

    async def work(trader: Any) -> Any:
        listed = await all_of(trader.client.call, "instruments", expired=True)
        names = {one["instrument"]: one["number"] for one in listed}
        number = int(instrument) if instrument.isdecimal() else names.get(instrument)
        if number is None:
            raise fail(
                f"INSTRUMENT: {instrument}: no such instrument is listed; {Near(names).hint(instrument)}"
            )
        return await trader.send(
            Kind.CANCEL,
            instrument=number,
            side=int(side == "sell"),
            price=to_units(price, PRICE_DECIMALS),
            seq=seq,
            expires=0,
        )

    result = trade(api, key_of(keystore, devnet_key), work)
    print_result("cancelled", result, as_json)


@order.command()
@click.argument("seq", type=click.IntRange(0, 2**40 - 1))
@click.option("--quantity", type=QUANTITY, help="new total, including what has traded")
@click.option("--price", type=PRICE, help="new price")
@with_key
@with_api
def amend(
    seq: int,
    quantity: str | None,
    price: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Change the total or price of the resting order SEQ.

    A smaller total at the same price keeps the order's place in the queue; a larger one, or another price, moves it
    to the end under a new number. If that is refused, the order stays unchanged.
    """
    if quantity is None and price is None:
        raise click.UsageError("nothing to amend: give --quantity, --price, or both")

    async def work(trader: Any) -> Any:
        return (await trader.amend(await trader.order(seq), quantity=quantity, price=price)).ack

    print_result("amended", trade(api, key_of(keystore, devnet_key), work), as_json)


@order.command("cancel-all")
@with_key
@with_api
def cancel_all(api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Cancel every older order of the account."""
    result = trade(api, key_of(keystore, devnet_key), lambda trader: trader.cancel_all())
    print_result("cancelled", result, as_json)
