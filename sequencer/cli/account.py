"""One's account: cash and margin, positions, session keys."""

import time
from pathlib import Path
from typing import Any, Final

import click

from sequencer.cli.options import (
    account_params,
    address_of_key,
    ask,
    key_of,
    print_result,
    trade,
    with_api,
    with_key,
    with_keystore,
)
from sequencer.cli.output import Duration, fail, show, show_rows, write_json
from sequencer.wire.option_types import ETH_ADDRESS

SCOPES: Final = {"trade": 1, "withdraw": 2, "both": 3}
ADDRESS_HEX_DIGITS: Final = 40


@click.command()
@click.argument("account", type=click.IntRange(0, 2**32 - 1), required=False)
@click.option("--owner", type=ETH_ADDRESS, help="the owner's address, instead of the number")
@with_key
@with_api
def account(
    account: int | None,
    owner: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Show cash, margin and positions of an account: by number, by owner, or of your own key."""
    result = _account(account, owner, api, keystore, devnet_key)
    if as_json:
        write_json("-", result)
        return
    lists = {name: result.pop(name) for name in ("positions", "signers")}
    show("account", result)
    for name, rows in lists.items():
        if rows:
            show_rows(name, rows)


@click.command()
@click.argument("account", type=click.IntRange(0, 2**32 - 1), required=False)
@click.option("--owner", type=ETH_ADDRESS, help="the owner's address, instead of the number")
@with_key
@with_api
def positions(
    account: int | None,
    owner: str | None,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Show positions of an account with cost, profit and loss, greeks: by number, by owner, or of your own key."""
    params = _whose(account, owner, keystore, devnet_key)
    print_result("positions", ask(api, "positions", **params), as_json)


def _account(
    number: int | None, owner: str | None, api: str, keystore: Path | None, devnet_key: int | None
) -> dict[str, Any]:
    result: dict[str, Any] = ask(api, "account", **_whose(number, owner, keystore, devnet_key))
    return result


def _whose(
    number: int | None, owner: str | None, keystore: Path | None, devnet_key: int | None
) -> dict[str, Any]:
    """The account that is asked about, as parameters of a query."""
    if number is not None and owner is not None:
        raise fail("give the number of an account, or --owner, not both")
    if number is not None:
        return {"account": number}
    if owner is not None:
        return {"owner": owner}
    return account_params(lambda: key_of(keystore, devnet_key))


# --- session keys --------------------------------------------------------------------------------


class Address(click.ParamType):
    """An Ethereum address; the command gets its 20 bytes."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """`value` when it is one; else click's error."""
        if isinstance(value, bytes):
            return value
        text = str(value).removeprefix("0x")
        try:
            address = bytes.fromhex(text) if len(text) == ADDRESS_HEX_DIGITS else b""
        except ValueError:
            address = b""
        if not address:
            self.fail(
                f"must be an address, 0x and {ADDRESS_HEX_DIGITS} hex digits, not {value!r}", param, ctx
            )
        return address


ADDRESS: Final = Address()


@click.group()
def signer() -> None:
    """Manage session keys, which trade or withdraw for an account until they expire; only its owner grants them."""


@signer.command()
@click.argument("address", type=ADDRESS)
@click.option(
    "--scope",
    type=click.Choice(list(SCOPES)),
    default="trade",
    show_default=True,
    help="what the key may sign",
)
@click.option(
    "--for", "lasts_s", type=Duration(), default="1d", show_default=True, help="duration: 8h, 30d, ..."
)
@with_keystore
@with_api
def grant(
    address: bytes,
    scope: str,
    lasts_s: int,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Let the key of ADDRESS act for the account; replaces an existing grant of that address."""
    expires = min(int(time.time()) + lasts_s, 2**32 - 1)
    key = key_of(keystore, devnet_key)
    result = trade(api, key, lambda trader: trader.set_signer(address, SCOPES[scope], expires))
    told = {"signer": "0x" + address.hex(), "scope": scope, "expires": expires}
    print_result("granted", told | result, as_json)


@signer.command()
@click.argument("address", type=ADDRESS)
@with_keystore
@with_api
def revoke(address: bytes, api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Revoke the grant of ADDRESS, at once."""
    key = key_of(keystore, devnet_key)
    granted = {one["address"] for one in ask(api, "account", owner=address_of_key(key))["signers"]}
    name = "0x" + address.hex()
    if name not in granted:
        raise fail(f"{name} is no session key of this account: {', '.join(sorted(granted)) or 'it has none'}")
    result = trade(api, key, lambda trader: trader.set_signer(address, 0, 0))
    print_result("revoked", {"signer": name} | result, as_json)


@signer.command("list")
@with_key
@with_api
def list_signers(api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """List the account's session keys."""
    found = ask(api, "account", **account_params(lambda: key_of(keystore, devnet_key)))["signers"]
    names = {number: name for name, number in SCOPES.items()}
    rows = [one | {"scope": names.get(one["scope"], one["scope"])} for one in found]
    print_result("signers", rows, as_json)
