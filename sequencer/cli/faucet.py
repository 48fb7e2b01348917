"""`fairstrike faucet`: on a development chain, gas and test dollars for a key, and an account with money in it."""

import os
import time
from pathlib import Path
from typing import Any, Final

import click

from sequencer.cli.account import ADDRESS
from sequencer.cli.options import (
    KEY_VARIABLE,
    KEYSTORE_VARIABLE,
    address_of_key,
    key_of,
    on_l1,
    password,
    print_result,
    with_api,
    with_keystore,
)
from sequencer.cli.output import CASH, Amount, fail

DEVNET_CHAINS: Final = {1337: "geth --dev, ganache", 31337: "pyevm, anvil, hardhat"}
"""Chain ids that no chain with value has."""
GIVER: Final = 7
"""Development account that pays."""
GWEI_DECIMALS: Final = 9
ETHER: Final = Amount("ether", GWEI_DECIMALS)
ETHER_GAS: Final = 21_000
CREDIT_WAIT_S: Final = 120.0


@click.command()
@click.argument("address", type=ADDRESS, required=False)
@click.option("--amount", type=CASH, default="10000", show_default=True, help="test dollars")
@click.option(
    "--ether",
    type=ETHER,
    default="1",
    show_default=True,
    help="ether for gas; none if the key already has as much",
)
@click.option(
    "--new", "new_file", type=click.Path(path_type=Path), help="create a key and store it in this keystore"
)
@on_l1
@with_keystore
@with_api
def faucet(
    address: bytes | None,
    amount: str,
    ether: str,
    new_file: Path | None,
    l1_url: str | None,
    deployment: Path,
    api: str,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Get gas and test dollars on a development chain.

    With a key (from the options or the environment; without one a new key is created, and printed unless --new
    stores it) the dollars are deposited and the account is ready to trade. With ADDRESS they go to that wallet.
    """
    from sequencer.wire.jsonrpc import CASH_DECIMALS, to_units

    units, wei = to_units(amount, CASH_DECIMALS), to_units(ether, GWEI_DECIMALS) * 10**9
    if address is not None:
        if new_file is not None or keystore is not None or devnet_key is not None:
            raise fail("ADDRESS, or a key: not both")
        _give(deployment, l1_url, "0x" + address.hex(), wei, units)
        result: dict[str, Any] = {"address": "0x" + address.hex(), "ether": ether, "test_dollars": amount}
        print_result("given", result, as_json)
        return
    key, told = _key(new_file, keystore, devnet_key)
    owner = address_of_key(key)
    _give(deployment, l1_url, owner, wei, 0)
    before = _account(api, owner)
    number = _deposit(deployment, l1_url, key, units)
    result = {"address": owner, **told, "account": number, "deposited": amount}
    after = _credited(api, owner, before)
    result["cash"] = None if after is None else after["cash"]
    print_result("given", result, as_json)
    if after is None:
        raise fail(
            f"the deposit is on L1, and {api} has not credited it in {CREDIT_WAIT_S:.0f} s: check `account`"
        )


def _key(
    new_file: Path | None, keystore: Path | None, devnet_key: int | None
) -> tuple[bytes, dict[str, str]]:
    """The key to use, and what to tell of one that was made."""
    if new_file is not None:
        if keystore is not None or devnet_key is not None:
            raise fail("--new creates a key: use it without --keystore and --devnet-key")
        return _new(new_file), {"keystore": str(new_file)}
    named = keystore is not None or devnet_key is not None
    if named or os.environ.get(KEY_VARIABLE) or os.environ.get(KEYSTORE_VARIABLE):
        return key_of(keystore, devnet_key), {}
    key = _fresh()
    return key, {"use_it": f"export {KEY_VARIABLE}=0x{key.hex()}"}


def _fresh() -> bytes:
    from eth_account import Account

    return bytes(Account.create().key)


def _new(path: Path) -> bytes:
    """A fresh key, kept in a keystore that only its owner can read; refuses to write over a file."""
    import msgspec
    from eth_account import Account

    key = _fresh()
    text = msgspec.json.encode(Account.encrypt(key, password(f"password for {path}", confirms=True)))
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
    except OSError as error:
        raise fail(f"--new {path}: {error.strerror}") from error
    return key


def check_devnet(chain_id: int) -> None:
    """Raises a ClickException on a chain that may have value: its keys and tokens are nobody's to give."""
    if chain_id not in DEVNET_CHAINS:
        known = ", ".join(f"{number}: {who}" for number, who in DEVNET_CHAINS.items())
        raise fail(f"chain {chain_id} is not a development chain ({known}): the faucet is unavailable")


def _give(deployment: Path, l1_url: str | None, owner: str, wei: int, units: int) -> None:
    """Ether from the development account, unless `owner` has as much; and test dollars."""
    from sequencer.cli.options import wallet_of
    from sequencer.local.devnet import devnet_key as key_of_devnet

    with wallet_of(deployment, l1_url, key_of_devnet(GIVER)) as giver:
        check_devnet(giver.chain_id)
        if giver.ether_of(owner) < wei:
            giver.transact("ether", owner, b"", wei, ETHER_GAS)
        if units:
            giver.mint(units, owner)


def _deposit(deployment: Path, l1_url: str | None, key: bytes, units: int) -> int:
    """Mints and deposits; the account's number."""
    from sequencer.cli.options import wallet_of

    with wallet_of(deployment, l1_url, key) as own:
        own.mint(units)
        own.deposit_with_permit(units)
        return int(own.account())


def _account(api: str, owner: str) -> dict[str, Any] | None:
    """What the exchange says of the owner's account; None before it has one."""
    from sequencer.errors import FairstrikeError, RpcFailed
    from sequencer.sdk.client import HttpClient

    try:
        with HttpClient(api) as client:
            found: dict[str, Any] = client.call("account", owner=owner)
            return found
    except RpcFailed:
        return None
    except (FairstrikeError, ValueError) as error:
        raise fail(str(error)) from error


def _credited(api: str, owner: str, before: dict[str, Any] | None) -> dict[str, Any] | None:
    """The account once its cash has changed; None when that takes too long."""
    until = time.monotonic() + CREDIT_WAIT_S
    while time.monotonic() < until:
        now = _account(api, owner)
        if now is not None and (before is None or now["cash"] != before["cash"]):
            return now
        time.sleep(0.25)
    return None
