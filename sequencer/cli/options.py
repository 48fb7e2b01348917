"""What the commands of a trader share: key, gateway and chain from options or the environment, and how they answer.

    FAIRSTRIKE_API          URL of a gateway                            --api
    FAIRSTRIKE_KEY          private key, 64 hex digits
    FAIRSTRIKE_KEYSTORE     web3 keystore file, instead of the key      --keystore
    FAIRSTRIKE_PASSWORD     password of a keystore, of any command; asked for on a terminal if it is not set
    FAIRSTRIKE_ACCOUNT      account that a session key acts for         --account
    FAIRSTRIKE_L1           JSON-RPC URL of the chain                   --l1
    FAIRSTRIKE_DEPLOYMENT   file of the deployment                      --deployment

An option goes before its variable.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from sequencer.cli.output import fail, show, show_rows, write_json
from sequencer.wire.option_types import URL

API: Final = "http://127.0.0.1:9545"
DEPLOYMENT: Final = Path("var/devnet/deployment.json")
KEY_VARIABLE: Final = "FAIRSTRIKE_KEY"
KEYSTORE_VARIABLE: Final = "FAIRSTRIKE_KEYSTORE"
PASSWORD_VARIABLE: Final = "FAIRSTRIKE_PASSWORD"  # noqa: S105  # the name of a variable
SIDES: Final = ("buy", "sell")
KEY_HEX_DIGITS: Final = 64
_ACCOUNT: Final = "fairstrike.account"


def key_of(keystore: Path | None, devnet_key: int | None) -> bytes:
    """The private key that options or environment name. Raises a ClickException that never shows it."""
    if keystore is None and devnet_key is None:
        text, file = os.environ.get(KEY_VARIABLE, ""), os.environ.get(KEYSTORE_VARIABLE, "")
        if text and file:
            raise fail(f"{KEY_VARIABLE} and {KEYSTORE_VARIABLE} are both set: unset one of them")
        if text:
            return _from_hex(text)
        if file:
            keystore = Path(file)
    if keystore is not None and devnet_key is not None:
        raise fail("--keystore and --devnet-key: give one of them")
    if devnet_key is not None:
        from sequencer.local.devnet import devnet_key as key_of_devnet

        return key_of_devnet(devnet_key)
    if keystore is not None:
        return _from_keystore(keystore)
    raise fail(
        f"no key: give --keystore FILE, --devnet-key N, or set {KEY_VARIABLE} or {KEYSTORE_VARIABLE} "
        "(`fairstrike faucet` creates one on a development chain)"
    )


def _from_hex(text: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        key = b""
    if len(key) * 2 != KEY_HEX_DIGITS:
        raise fail(f"{KEY_VARIABLE} must hold a private key, {KEY_HEX_DIGITS} hex digits")
    return _checked(key, KEY_VARIABLE)


def _from_keystore(path: Path) -> bytes:
    from eth_account import Account

    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"{path}: cannot be read: {error}") from error
    try:
        return _checked(bytes(Account.decrypt(text, password(f"password of {path}"))), str(path))
    except (KeyError, TypeError) as error:
        raise fail(f"{path}: no web3 keystore: {error} is missing or wrong") from error
    except ValueError as error:
        what = str(error)
        if "MAC mismatch" in what:
            what += f": the password ({PASSWORD_VARIABLE}) is not the file's"
        raise fail(f"{path}: {what}") from error


def _checked(key: bytes, where: str) -> bytes:
    """`key`, if the curve has it: 0 and the numbers from the group's order on are none."""
    from sequencer.protocol.hashing import public_key_of

    try:
        public_key_of(key)
    except ValueError:
        raise fail(f"{where}: no key of the curve: it is 0, or above the group's order") from None
    return key


def password(what: str, confirms: bool = False) -> str:
    """A password from the environment, else from the terminal."""
    text = os.environ.get(PASSWORD_VARIABLE)
    if text:
        return text
    answer: str = click.prompt(what, hide_input=True, confirmation_prompt=confirms, err=True)
    return answer


def address_of_key(key: bytes) -> str:
    """The Ethereum address of a private key, 0x and 40 hex digits."""
    from sequencer.protocol.hashing import address_of, public_key_of

    return "0x" + address_of(public_key_of(key)).hex()


# --- options -------------------------------------------------------------------------------------


def _keep_account(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    ctx.meta[_ACCOUNT] = value


def with_key(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that acts with a key: the owner's, or with --account a session key."""
    command = click.option(
        "--account",
        "acting_for",
        type=click.IntRange(1, 2**32 - 1),
        envvar="FAIRSTRIKE_ACCOUNT",
        expose_value=False,
        callback=_keep_account,
        help="account of a session key",
    )(command)
    return with_keystore(command)


def with_keystore(command: Callable[..., None]) -> Callable[..., None]:
    """Options that name a private key."""
    command = click.option(
        "--keystore",
        type=click.Path(path_type=Path, exists=True),
        help=f"web3 keystore  [env {KEYSTORE_VARIABLE}]",
    )(command)
    return click.option(
        "--devnet-key", type=click.IntRange(0, 9), help=f"a development account  [else env {KEY_VARIABLE}]"
    )(command)


def with_json(command: Callable[..., None]) -> Callable[..., None]:
    """The option of a command that can answer a program."""
    return click.option("--json", "as_json", is_flag=True, help="one JSON value on standard output")(command)


def with_api(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that asks a gateway."""
    return click.option(
        "--api",
        type=URL,
        default=API,
        show_default=True,
        envvar="FAIRSTRIKE_API",
        show_envvar=True,
        help="URL of a gateway",
    )(with_json(command))


def on_l1(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that speaks to L1."""
    command = click.option(
        "--l1",
        "l1_url",
        type=URL,
        envvar="FAIRSTRIKE_L1",
        show_envvar=True,
        help="JSON-RPC URL of the chain  [default: that of `fairstrike up`]",
    )(command)
    return click.option(
        "--deployment",
        type=click.Path(path_type=Path),
        envvar="FAIRSTRIKE_DEPLOYMENT",
        show_envvar=True,
        default=DEPLOYMENT,
        show_default=True,
    )(command)


def with_params(command: Callable[..., None]) -> Callable[..., None]:
    """The option of a command that rebuilds the state."""
    return click.option(
        "--params",
        "params_path",
        type=click.Path(path_type=Path),
        help="JSON object: parameters of the deployment  [default: those in its file]",
    )(command)


def in_order(instrument: str, side: str) -> tuple[str, str]:
    """INSTRUMENT and SIDE; the other way round, as it was before, is understood, too."""
    if side not in SIDES and instrument in SIDES:
        instrument, side = side, instrument
    if side not in SIDES:
        raise click.UsageError(f"SIDE must be buy or sell, after INSTRUMENT, not {side!r}")
    return instrument, side


# --- work ----------------------------------------------------------------------------------------


def print_result(title: str, result: Any, as_json: bool) -> None:
    """An answer to a program, or to people."""
    if as_json:
        write_json("-", result)
    elif isinstance(result, dict):
        show(title, result)
    else:
        show_rows(title, result)


def named(instrument: str) -> str | int:
    """An instrument as the API takes it: by name, or by the number that was given."""
    return int(instrument) if instrument.isdecimal() else instrument


def ask(api: str, method: str, **params: Any) -> Any:
    """Answer of the gateway to one query; errors as one line."""
    from sequencer.errors import FairstrikeError
    from sequencer.sdk.client import HttpClient
    from sequencer.wire.pages import PAGED, all_of_blocking

    if "instrument" in params:
        params["instrument"] = named(params["instrument"])
    try:
        with HttpClient(api) as client:
            if method in PAGED:
                return all_of_blocking(client.call, method, **params)
            return client.call(method, **params)
    except (FairstrikeError, ValueError) as error:
        raise fail(str(error)) from error


def account_params(key: Callable[[], bytes]) -> dict[str, Any]:
    """Parameters of a query for the account that is acted for: --account, else that of the key's owner."""
    number = click.get_current_context().meta.get(_ACCOUNT)
    return {"owner": address_of_key(key())} if number is None else {"account": number}


def account_number(api: str, key: Callable[[], bytes]) -> int:
    """Number of the account that is acted for: --account, else that of the key's owner."""
    params = account_params(key)
    return int(params["account"] if "account" in params else ask(api, "account", **params)["account"])


def websocket_url(api: str) -> str:
    """Where a gateway's WebSocket is."""
    if not api.startswith(("http://", "https://")):
        raise fail(f"--api {api}: must be http://HOST:PORT")
    return api.replace("http", "ws", 1).rstrip("/") + "/ws"


def connected(api: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Runs `work(client)` on a connection; errors as one line."""
    from sequencer.errors import FairstrikeError
    from sequencer.sdk.client import Client

    url = websocket_url(api)

    async def main() -> Any:
        client = await Client.connect(url)
        try:
            return await work(client)
        finally:
            await client.close()

    try:
        return asyncio.run(main())
    except (FairstrikeError, ValueError) as error:
        raise fail(str(error)) from error


def trade(
    api: str, key: bytes, work: Callable[[Any], Awaitable[Any]], receipt_file: Path | None = None
) -> Any:
    """Runs `work(trader)` on a connection, for the key's account or for --account; errors as one line."""
    from sequencer.sdk.client import Trader
    from sequencer.sdk.receipts import ReceiptWrong

    number = click.get_current_context().meta.get(_ACCOUNT)

    async def main(client: Any) -> Any:
        trader = await Trader.open(client, key, number, receipt_file=receipt_file)
        try:
            return await work(trader)
        except ReceiptWrong as error:
            raise fail(f"accepted, but {error}") from error
        finally:
            if trader.receipts is not None:
                trader.receipts.close()

    return connected(api, main)


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


def journalled(rpc: Any, signer: Any, at: Any) -> Any:
    """A wallet that remembers across commands what it has sent and not heard of (see Journal)."""
    import msgspec

    from sequencer.l1.journal import Journal, journal_path
    from sequencer.l1.wallet import Wallet

    genesis = rpc.block(0)
    path = journal_path(at.chain_id, genesis["hash"], at.rollup, signer.address)
    try:
        journal = Journal(path)
    except (OSError, msgspec.MsgspecError) as error:
        raise fail(f"{path}: earlier transactions cannot be read, and are not sent again: {error}") from error
    return Wallet(rpc, signer, at, journal, on_resumed=lambda text: click.echo(text, err=True))


@contextlib.contextmanager
def wallet_of(deployment: Path, l1_url: str | None, key: bytes) -> Iterator[Any]:
    """A wallet on L1; its errors as one line."""
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            wallet = journalled(rpc, Signer(key), at)
            yield wallet
            wallet.told()
        except L1Error as error:
            raise fail(str(error)) from error
