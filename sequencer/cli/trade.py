"""For traders: an account, orders, and money in and out, from the shell.

The key comes from --keystore (with its password asked for or in FAIRSTRIKE_PASSWORD), from the environment variable
FAIRSTRIKE_KEY, or from --devnet-key N, one of the development chains' well-known accounts.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from sequencer.cli.output import fail, show, write_json

API = "http://127.0.0.1:9545"


def _key(keystore: Path | None, devnet_key: int | None) -> bytes:
    if keystore is not None:
        from eth_account import Account

        password = os.environ.get("FAIRSTRIKE_PASSWORD") or click.prompt("password", hide_input=True)
        try:
            return bytes(Account.decrypt(keystore.read_text(), password))
        except (OSError, ValueError) as error:
            raise fail(f"{keystore}: {error}") from error
    if devnet_key is not None:
        from sequencer.devnet import devnet_key as key_of

        return key_of(devnet_key)
    text = os.environ.get("FAIRSTRIKE_KEY", "").removeprefix("0x")
    if len(text) != 64:
        raise fail("no key: give --keystore FILE, --devnet-key N, or set FAIRSTRIKE_KEY")
    return bytes.fromhex(text)


def _with_key(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--keystore", type=click.Path(path_type=Path, exists=True), help="web3 keystore file")(command)
    command = click.option("--devnet-key", type=click.IntRange(0, 9), help="a development account")(command)
    return _with_api(command)


def _with_api(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--api", default=API, show_default=True, help="URL of a gateway")(command)
    return click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")(command)


def _print(title: str, result: Any, as_json: bool) -> None:
    if as_json:
        write_json("-", result)
    elif isinstance(result, dict):
        show(title, result)
    else:
        for row in result:
            show(title, row)


def _trade(api: str, key: bytes, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Runs `work(trader)` on a connection; errors as one line."""
    from sequencer.client import Client, Trader
    from sequencer.errors import FairstrikeError

    async def main() -> Any:
        client = await Client.connect(api.replace("http", "ws", 1) + "/ws")
        try:
            return await work(await Trader.open(client, key))
        finally:
            await client.close()

    try:
        return asyncio.run(main())
    except FairstrikeError as error:
        raise fail(str(error)) from error


@click.command()
@click.argument("account", type=int, required=False)
@click.option("--owner", help="address of its owner, instead of the number")
@_with_api
def account(account: int | None, owner: str | None, api: str, as_json: bool) -> None:
    """Cash, margin and positions of an account."""
    from sequencer.client import HttpClient
    from sequencer.errors import FairstrikeError

    params: dict[str, Any] = {"owner": owner} if owner else {"account": account}
    try:
        result = HttpClient(api).call("account", **params)
    except FairstrikeError as error:
        raise fail(str(error)) from error
    positions = result.pop("positions") if not as_json else None
    _print("account", result, as_json)
    if positions:
        _print("position", positions, as_json)


@click.group()
def order() -> None:
    """Place and cancel orders."""


@order.command()
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("instrument")
@click.argument("quantity")
@click.argument("price")
@click.option("--tif", type=click.Choice(["GTC", "IOC", "FOK"]), default="GTC", show_default=True)
@click.option("--post-only", is_flag=True)
@click.option("--reduce-only", is_flag=True)
@click.option("--expires", default=0, help="seconds since 1970; 0 never")
@_with_key
def place(
    side: str,
    instrument: str,
    quantity: str,
    price: str,
    tif: str,
    post_only: bool,
    reduce_only: bool,
    expires: int,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Place an order: SIDE INSTRUMENT QUANTITY PRICE, e.g. buy BTC-2JAN22-48000-C 0.1 184.50."""
    placed = _trade(
        api,
        _key(keystore, devnet_key),
        lambda trader: trader.place(
            instrument,
            side,
            price,
            quantity,
            tif=tif,
            post_only=post_only,
            reduce_only=reduce_only,
            expires=expires,
        ),
    )
    _print("order", placed.ack, as_json)


@order.command()
@click.argument("instrument")
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("price")
@click.argument("seq", type=int)
@_with_key
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
    """Cancel one order, named as its ack names it: INSTRUMENT SIDE PRICE SEQ."""
    from sequencer.protocol.constants import Kind

    async def work(trader: Any) -> Any:
        listed = await trader.client.call("instruments", expired=True)
        number = next((one["number"] for one in listed if one["instrument"] == instrument), None)
        if number is None:
            raise fail(f"{instrument} is not listed")
        return await trader.send(
            Kind.CANCEL,
            instrument=number,
            side=int(side == "sell"),
            price=round(float(price) * 100),
            seq=seq,
            expires=0,
        )

    result = _trade(api, _key(keystore, devnet_key), work)
    _print("cancelled", result, as_json)


@order.command("cancel-all")
@_with_key
def cancel_all(api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Every older order of the account is dead at once."""
    result = _trade(api, _key(keystore, devnet_key), lambda trader: trader.cancel_all())
    _print("cancelled", result, as_json)


@click.command()
@click.argument("amount")
@_with_key
def withdraw(amount: str, api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Withdraw AMOUNT USD to the owner; claim it on L1 once its batch is final."""
    result = _trade(api, _key(keystore, devnet_key), lambda trader: trader.withdraw(amount))
    _print("withdrawal", result, as_json)


def _wallet(deployment: Path, l1_url: str, key: bytes) -> Any:
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer
    from sequencer.l1.wallet import Wallet

    rpc = Rpc(l1_url)
    at = Deployment.load(deployment)
    at.check(rpc)
    return Wallet(rpc, Signer(key), at)


def _on_l1(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--l1", "l1_url", required=True, help="JSON-RPC URL of the chain")(command)
    return click.option(
        "--deployment", type=click.Path(path_type=Path, exists=True), default=Path("var/devnet/deployment.json")
    )(command)


@click.command()
@click.argument("amount")
@click.option("--mint", is_flag=True, help="mint the test token first")
@_on_l1
@_with_key
def deposit(
    amount: str,
    mint: bool,
    l1_url: str,
    deployment: Path,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Deposit AMOUNT USD into the vault, in one transaction with a permit."""
    from decimal import Decimal

    from sequencer.l1.errors import L1Error

    units = int(Decimal(amount) * 1_000_000)
    try:
        wallet = _wallet(deployment, l1_url, _key(keystore, devnet_key))
        if mint:
            wallet.mint(units)
        index = wallet.deposit_with_permit(units)
        number = wallet.account()
    except L1Error as error:
        raise fail(str(error)) from error
    _print("deposit", {"account": number, "inbox_index": index, "amount": amount}, as_json)


@click.command()
@click.argument("number", type=int)
@_on_l1
@_with_key
def claim(
    number: int,
    l1_url: str,
    deployment: Path,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Claim withdrawal NUMBER on L1 by its Merkle proof."""
    from sequencer.client import HttpClient
    from sequencer.errors import FairstrikeError
    from sequencer.l1.errors import L1Error

    try:
        proof = HttpClient(api).call("withdrawal", number=number)
        mined = _wallet(deployment, l1_url, _key(keystore, devnet_key)).claim(
            proof["batch_id"],
            proof["number"],
            proof["owner"],
            proof["amount"],
            int(proof["bitmap"], 16),
            [bytes.fromhex(one[2:]) for one in proof["siblings"]],
        )
    except (FairstrikeError, L1Error) as error:
        raise fail(str(error)) from error
    _print("claimed", {"number": number, "tx": mined.tx_hash, "gas": mined.gas_used}, as_json)
