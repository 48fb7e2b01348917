"""For traders: an account, orders, and money in and out, from the shell.

The key comes from --keystore (with its password asked for or in FAIRSTRIKE_PASSWORD), from the environment variable
FAIRSTRIKE_KEY, or from --devnet-key N, one of the development chains' well-known accounts.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sequencer.cli.output import CASH, PRICE, QUANTITY, fail, show, show_rows, write_json

API = "http://127.0.0.1:9545"
DEPLOYMENT = Path("var/devnet/deployment.json")
KEY_HEX_DIGITS = 64


def _key(keystore: Path | None, devnet_key: int | None) -> bytes:
    if keystore is not None:
        from eth_account import Account

        password = os.environ.get("FAIRSTRIKE_PASSWORD") or click.prompt("password", hide_input=True)
        try:
            return bytes(Account.decrypt(keystore.read_text(), password))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise fail(f"{keystore}: {error}") from error
    if devnet_key is not None:
        from sequencer.local.devnet import devnet_key as key_of

        return key_of(devnet_key)
    text = os.environ.get("FAIRSTRIKE_KEY", "").removeprefix("0x")
    if not text:
        raise fail("no key: give --keystore FILE, --devnet-key N, or set FAIRSTRIKE_KEY")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) * 2 != KEY_HEX_DIGITS:
        raise fail("FAIRSTRIKE_KEY must hold a private key, 64 hex digits")
    return key


def _with_key(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--keystore", type=click.Path(path_type=Path, exists=True), help="web3 keystore file"
    )(command)
    return click.option("--devnet-key", type=click.IntRange(0, 9), help="a development account")(command)


def _with_json(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--json", "as_json", is_flag=True, help="one JSON value on standard output")(command)


def _with_api(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--api", default=API, show_default=True, help="URL of a gateway")(_with_json(command))


def _print(title: str, result: Any, as_json: bool) -> None:
    if as_json:
        write_json("-", result)
    elif isinstance(result, dict):
        show(title, result)
    else:
        show_rows(title, result)


def _ask(api: str, method: str, **params: Any) -> Any:
    """Answer of the gateway to one query; errors as one line."""
    from sequencer.api.client import HttpClient
    from sequencer.errors import FairstrikeError

    try:
        with HttpClient(api) as client:
            return client.call(method, **params)
    except (FairstrikeError, ValueError) as error:
        raise fail(str(error)) from error


def _trade(api: str, key: bytes, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Runs `work(trader)` on a connection; errors as one line."""
    from sequencer.api.client import Client, Trader
    from sequencer.errors import FairstrikeError

    if not api.startswith(("http://", "https://")):
        raise fail(f"--api {api}: must be http://HOST:PORT")

    async def main() -> Any:
        client = await Client.connect(api.replace("http", "ws", 1).rstrip("/") + "/ws")
        try:
            return await work(await Trader.open(client, key))
        finally:
            await client.close()

    try:
        return asyncio.run(main())
    except (FairstrikeError, ValueError) as error:
        raise fail(str(error)) from error


# --- what there is -------------------------------------------------------------------------------


@click.command()
@_with_api
def status(api: str, as_json: bool) -> None:
    """Where the exchange stands: sequence number, root, money, queue, batches."""
    _print("status", _ask(api, "status"), as_json)


@click.command()
@_with_api
def instruments(api: str, as_json: bool) -> None:
    """The options that are listed."""
    _print("instruments", _ask(api, "instruments"), as_json)


@click.command()
@click.argument("instrument")
@click.option("--depth", type=click.IntRange(1, 100), default=10, show_default=True, help="levels a side")
@_with_api
def book(instrument: str, depth: int, api: str, as_json: bool) -> None:
    """Mark, index and price levels of INSTRUMENT."""
    result = _ask(api, "ticker", instrument=instrument) | _ask(
        api, "book", instrument=instrument, depth=depth
    )
    if as_json:
        write_json("-", result)
        return
    sides = {side: result.pop(side) for side in ("bids", "asks")}
    _print("ticker", result, as_json=False)
    for side, levels in sides.items():
        show_rows(side, [{"price": one[0], "quantity": one[1], "orders": one[2]} for one in levels])


@click.command()
@click.argument("account", type=int, required=False)
@click.option("--owner", help="address of its owner, instead of the number")
@_with_key
@_with_api
def account(
    account: int | None,
    owner: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Cash, margin and positions of an account: by number, by owner, or of one's own key."""
    if account is None and owner is None:
        from sequencer.protocol.hashing import address_of, public_key_of

        owner = "0x" + address_of(public_key_of(_key(keystore, devnet_key))).hex()
    params: dict[str, Any] = {"owner": owner} if account is None else {"account": account}
    result = _ask(api, "account", **params)
    positions = result.pop("positions") if not as_json else None
    _print("account", result, as_json)
    if positions:
        _print("positions", positions, as_json)


# --- orders --------------------------------------------------------------------------------------


@click.group()
def order() -> None:
    """Place, list and cancel orders."""


@order.command()
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("instrument")
@click.argument("quantity", type=QUANTITY)
@click.argument("price", type=PRICE)
@click.option("--tif", type=click.Choice(["GTC", "IOC", "FOK"]), default="GTC", show_default=True)
@click.option("--post-only", is_flag=True)
@click.option("--reduce-only", is_flag=True)
@click.option("--expires", type=click.IntRange(0, 2**32 - 1), default=0, help="seconds since 1970; 0 never")
@_with_key
@_with_api
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


@order.command("list")
@_with_key
@_with_api
def list_orders(api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """The account's orders that rest, by their keys for `order cancel`."""
    key = _key(keystore, devnet_key)
    result = _trade(api, key, lambda trader: trader.client.call("orders", account=trader.number))
    _print("orders", result, as_json)


@order.command()
@click.argument("instrument")
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("price", type=PRICE)
@click.argument("seq", type=click.IntRange(0, 2**40 - 1))
@_with_key
@_with_api
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
    from sequencer.api.jsonrpc import PRICE_DECIMALS, to_units
    from sequencer.protocol.constants import Kind

    async def work(trader: Any) -> Any:
        listed = await trader.client.call("instruments", expired=True)
        number = next((one["number"] for one in listed if one["instrument"] == instrument), None)
        if number is None:
            raise fail(f"{instrument}: no such instrument is listed")
        return await trader.send(
            Kind.CANCEL,
            instrument=number,
            side=int(side == "sell"),
            price=to_units(price, PRICE_DECIMALS),
            seq=seq,
            expires=0,
        )

    result = _trade(api, _key(keystore, devnet_key), work)
    _print("cancelled", result, as_json)


@order.command("cancel-all")
@_with_key
@_with_api
def cancel_all(api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Every older order of the account is dead at once."""
    result = _trade(api, _key(keystore, devnet_key), lambda trader: trader.cancel_all())
    _print("cancelled", result, as_json)


# --- money ---------------------------------------------------------------------------------------


@click.command()
@click.argument("amount", type=CASH)
@_with_key
@_with_api
def withdraw(amount: str, api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Withdraw AMOUNT USD to the owner; claim it on L1 once its batch is final."""
    result = _trade(api, _key(keystore, devnet_key), lambda trader: trader.withdraw(amount))
    _print("withdrawal", result, as_json)


def on_l1(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that speaks to L1."""
    command = click.option(
        "--l1", "l1_url", help="JSON-RPC URL of the chain  [default: that of `fairstrike up`]"
    )(command)
    return click.option(
        "--deployment", type=click.Path(path_type=Path), default=DEPLOYMENT, show_default=True
    )(command)


def with_params(command: Callable[..., None]) -> Callable[..., None]:
    """The option of a command that rebuilds the state."""
    return click.option(
        "--params",
        "params_path",
        type=click.Path(path_type=Path),
        help="JSON object: parameters of the deployment  [default: those in its file]",
    )(command)


def l1_url_of(deployment: Path, l1_url: str | None) -> str:
    """The URL that was given, else the one that `fairstrike up` has written beside the deployment."""
    import msgspec

    if l1_url is not None:
        return l1_url
    try:
        return str(msgspec.json.decode((deployment.parent / "up.json").read_bytes())["l1"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        raise fail(
            f"no `fairstrike up` has written beside {deployment}: give --l1 and --deployment"
        ) from None


@contextlib.contextmanager
def _wallet(deployment: Path, l1_url: str | None, key: bytes) -> Iterator[Any]:
    """A wallet on L1; its errors as one line."""
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer
    from sequencer.l1.wallet import Wallet

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            yield Wallet(rpc, Signer(key), at)
        except L1Error as error:
            raise fail(str(error)) from error


@click.command()
@click.argument("amount", type=CASH)
@click.option("--mint", is_flag=True, help="mint the test token first")
@on_l1
@_with_key
@_with_json
def deposit(
    amount: str,
    mint: bool,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Deposit AMOUNT USD into the vault, in one transaction with a permit."""
    from sequencer.api.jsonrpc import CASH_DECIMALS, to_units

    units = to_units(amount, CASH_DECIMALS)
    with _wallet(deployment, l1_url, _key(keystore, devnet_key)) as wallet:
        if mint:
            wallet.mint(units)
        index = wallet.deposit_with_permit(units)
        number = wallet.account()
    _print("deposit", {"account": number, "inbox_index": index, "amount": amount}, as_json)


@click.command()
@click.argument("number", type=click.IntRange(0, 2**32 - 1))
@on_l1
@_with_key
@_with_api
def claim(
    number: int,
    l1_url: str | None,
    deployment: Path,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Claim withdrawal NUMBER on L1 by its Merkle proof; anybody may pay the gas, the owner gets the money."""
    key = _key(keystore, devnet_key)
    proof = _ask(api, "withdrawal", number=number)
    with _wallet(deployment, l1_url, key) as wallet:
        mined = wallet.claim(
            proof["batch_id"],
            proof["number"],
            proof["owner"],
            proof["amount"],
            int(proof["bitmap"], 16),
            [bytes.fromhex(one[2:]) for one in proof["siblings"]],
        )
    result = {"number": number, "owner": proof["owner"], "tx": mined.tx_hash, "gas": mined.gas_used}
    _print("claimed", result, as_json)
