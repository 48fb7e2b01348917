"""`fairstrike force`: past the sequencer, through L1's inbox. Needs L1, the deployment file and a key with ETH."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sequencer.cli.options import (
    API,
    SIDES,
    ask,
    in_order,
    key_of,
    l1_url_of,
    on_l1,
    print_result,
    wallet_of,
    with_json,
    with_keystore,
)
from sequencer.cli.output import PRICE, QUANTITY, SIGNED_CASH, Amount, fail
from sequencer.cli.types import InstrumentName
from sequencer.wire.jsonrpc import CASH_DECIMALS, to_units
from sequencer.wire.near import Near
from sequencer.wire.option_types import URL


@click.group()
def force() -> None:
    """Force messages through L1 when the sequencer does not answer."""


def _send(
    what: str,
    key: bytes,
    deployment: Path,
    l1_url: str | None,
    as_json: bool,
    send: Callable[[Any], int],
) -> None:
    """Sends one message and tells its index and deadline."""
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.inbox import INBOX
    from sequencer.l1.rpc import Rpc

    with wallet_of(deployment, l1_url, key) as wallet:
        index = send(wallet)
        at, rpc = Deployment.load(deployment), Rpc(l1_url_of(deployment, l1_url))
        deadline = int(INBOX.read(rpc, at.inbox, "deadline_at", index))
        rpc.close()
    print_result(what, {"inbox_index": index, "deadline": deadline}, as_json)


class _CashOrAll(Amount):
    """USD, or `all`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        return "all" if value == "all" else super().convert(value, param, ctx)


@force.command()
@click.argument("amount", type=_CashOrAll("amount", CASH_DECIMALS))
@on_l1
@with_keystore
@with_json
def withdraw(
    amount: str,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Force a withdrawal of AMOUNT USD, or of `all` that is free at that time."""
    units = 0 if amount == "all" else to_units(amount, CASH_DECIMALS)
    key = key_of(keystore, devnet_key)
    _send("forced", key, deployment, l1_url, as_json, lambda wallet: wallet.force_withdraw(units))


@force.command("cancel-all")
@on_l1
@with_keystore
@with_json
def cancel_all(
    l1_url: str | None, deployment: Path, as_json: bool, keystore: Path | None, devnet_key: int | None
) -> None:
    """Force the cancellation of every resting order of the account."""
    key = key_of(keystore, devnet_key)
    _send("forced", key, deployment, l1_url, as_json, lambda wallet: wallet.force_cancel_all())


@force.command()
@click.argument("instrument", type=InstrumentName(*SIDES))
@click.argument("side")
@click.argument("quantity", type=QUANTITY)
@click.argument("price", type=PRICE)
@click.option("--tif", type=click.Choice(["GTC", "IOC", "FOK"]), default="GTC", show_default=True)
@click.option("--reduce-only", is_flag=True)
@click.option(
    "--api",
    type=URL,
    default=API,
    show_default=True,
    envvar="FAIRSTRIKE_API",
    help="any gateway; used only to look up an instrument's number",
)
@on_l1
@with_keystore
@with_json
def order(
    instrument: str,
    side: str,
    quantity: str,
    price: str,
    tif: str,
    reduce_only: bool,
    api: str,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Force an order: INSTRUMENT SIDE QUANTITY PRICE; INSTRUMENT by name or, without a gateway, by number."""
    from sequencer.protocol import constants as c
    from sequencer.protocol.state import instrument_expiry_time
    from sequencer.wire.jsonrpc import PRICE_DECIMALS, QUANTITY_DECIMALS, to_units

    instrument, side = in_order(instrument, side)
    key = key_of(keystore, devnet_key)
    if instrument.isdecimal():
        number = int(instrument)
    else:
        listed = ask(api, "instruments", expired=True)
        names = {one["instrument"]: int(one["number"]) for one in listed}
        if instrument not in names:
            raise fail(
                f"INSTRUMENT: {instrument}: no such instrument is listed; {Near(names).hint(instrument)}"
            )
        number = names[instrument]
    flags = int(side == "sell") | ("GTC", "IOC", "FOK").index(tif) << c.FLAG_TIF_SHIFT
    flags |= c.FLAG_REDUCE_ONLY if reduce_only else 0
    ticks, lots = to_units(price, PRICE_DECIMALS), to_units(quantity, QUANTITY_DECIMALS)
    expiry = instrument_expiry_time(number)

    def send(wallet: Any) -> int:
        return int(wallet.force_order(number, flags, ticks, lots, nearest_expiry_s=expiry))

    _send("forced", key, deployment, l1_url, as_json, send)


@force.command()
@click.argument("account", type=click.IntRange(1, 2**32 - 1))
@on_l1
@with_keystore
@with_json
def liquidate(
    account: int,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Force the liquidation of any ACCOUNT: its auction starts or ends, its hole is measured."""
    key = key_of(keystore, devnet_key)
    _send("forced", key, deployment, l1_url, as_json, lambda wallet: wallet.force_liquidate(account))


@force.command()
@click.argument("target", type=click.IntRange(1, 2**32 - 1))
@click.argument("fraction", type=click.IntRange(1, 256))
@click.option("--cash-max", type=SIGNED_CASH, help="USD to pay at most; negative: to receive at least")
@on_l1
@with_keystore
@with_json
def bid(
    target: int,
    fraction: int,
    cash_max: str | None,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Force a bid for FRACTION/256 of the portfolio of TARGET, an account on auction."""
    from sequencer.wire.jsonrpc import CASH_DECIMALS, to_units

    most = 2**63 - 1 if cash_max is None else to_units(cash_max, CASH_DECIMALS)
    key = key_of(keystore, devnet_key)
    _send("forced", key, deployment, l1_url, as_json, lambda wallet: wallet.force_bid(target, fraction, most))


@force.command()
@on_l1
@with_json
def status(l1_url: str | None, deployment: Path, as_json: bool) -> None:
    """Show waiting inbox messages with their deadlines, and whether the rollup is frozen."""
    import contextlib

    from sequencer.l1 import inbox
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            result = {
                "frozen_at": inbox.frozen_at(rpc, at),
                "overdue": inbox.overdue(rpc, at),
                "waiting": [
                    {"inbox_index": one.index, "deadline": one.deadline_s} for one in inbox.waiting(rpc, at)
                ],
            }
        except L1Error as error:
            raise fail(str(error)) from error
    if not as_json:
        result["waiting"] = len(result["waiting"])  # type: ignore[arg-type]  # a list, just made
    print_result("inbox", result, as_json)


@force.command()
@on_l1
@with_keystore
@with_json
def freeze(
    l1_url: str | None, deployment: Path, as_json: bool, keystore: Path | None, devnet_key: int | None
) -> None:
    """Freeze the exchange for good: a message is overdue, or the sequencer has been silent too long."""
    with wallet_of(deployment, l1_url, key_of(keystore, devnet_key)) as wallet:
        mined = wallet.freeze()
    print_result("frozen", {"tx": mined.tx_hash, "gas": mined.gas_used}, as_json)
