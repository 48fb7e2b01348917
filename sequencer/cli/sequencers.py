"""`fairstrike sequencer`: the bonded set. Needs L1, the deployment file and, to change anything, the member's key."""

import contextlib
from pathlib import Path
from typing import Any

import click

from sequencer.cli.options import key_of, l1_url_of, on_l1, print_result, wallet_of, with_json, with_keystore
from sequencer.cli.output import fail
from sequencer.wire.option_types import ETH_ADDRESS, KEY_SOURCE


@click.group()
def sequencer() -> None:
    """Show, join or leave the bonded set of sequencers."""


@sequencer.command()
@on_l1
@with_json
@click.option("--address", type=ETH_ADDRESS, help="also show this member's bond and turn")
def status(l1_url: str | None, deployment: Path, as_json: bool, address: str | None) -> None:
    """Show the leader, the time since its last batch, and the queue of members."""
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.sequencers import NEVER, NOBODY, standing

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            now = standing(rpc, at, address or NOBODY)
        except L1Error as error:
            raise fail(str(error)) from error
    result: dict[str, Any] = {
        "leader": None if now.leader == NOBODY else now.leader,
        "epoch": now.epoch,
        "members": list(now.members) if as_json else ", ".join(now.members),
        "silent_s": now.head_time_s - now.silent_since,
        "takeover_s": now.takeover_s,
        "bond_min_wei": str(now.bond_min_wei),
    }
    if address is not None:
        result["bond_wei"] = str(now.bond_wei)
        result["takes_over_at"] = None if now.takes_over_at == NEVER else now.takes_over_at
    print_result("sequencers", result, as_json)


def _send(
    name: str, deployment: Path, l1_url: str | None, key: bytes, as_json: bool, value: int | None = 0
) -> None:
    """One call of the set. `value` None: what is missing of the least bond."""
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.sequencers import CALL_GAS, SEQUENCERS, standing

    with wallet_of(deployment, l1_url, key) as wallet:
        at = Deployment.load(deployment)
        if value is None:
            with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
                now = standing(rpc, at, wallet.address)
            value = max(0, now.bond_min_wei - now.bond_wei)
        mined = wallet.transact(name, at.sequencers, SEQUENCERS.encode(name), value, CALL_GAS, same="the set")
    print_result(name, {"member": wallet.address, "value_wei": str(value), "tx": mined.tx_hash}, as_json)


@sequencer.command()
@click.option("--bond", type=click.IntRange(min=0), help="wei  [default: the amount missing to the minimum]")
@on_l1
@with_keystore
@with_json
def join(
    bond: int | None,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Bond and join the end of the queue; the first of an empty set leads. Then run: fairstrike node --standby."""
    _send("join", deployment, l1_url, key_of(keystore, devnet_key), as_json, bond)


@sequencer.command("receipt-key")
@click.argument("source", type=KEY_SOURCE)
@on_l1
@with_keystore
@with_json
def receipt_key(
    source: str,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Have receipts signed by another key from now on: SOURCE is env:NAME or keystore:PATH. Old receipts stay good."""
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.sequencers import CALL_GAS, set_receipt_key
    from sequencer.protocol.hashing import address_of, public_key_of
    from sequencer.sdk.trader import load_key

    with wallet_of(deployment, l1_url, key_of(keystore, devnet_key)) as wallet:
        at = Deployment.load(deployment)
        try:
            key = load_key(source)
        except ValueError as error:
            raise fail(str(error)) from error
        data = set_receipt_key(at, wallet.address, key)
        mined = wallet.transact("set_receipt_key", at.sequencers, data, 0, CALL_GAS, same="the set")
    address = "0x" + address_of(public_key_of(key)).hex()
    found = {"member": wallet.address, "receipt_key": address, "tx": mined.tx_hash}
    print_result("receipt key", found, as_json)


@sequencer.command()
@on_l1
@with_keystore
@with_json
def leave(
    l1_url: str | None, deployment: Path, as_json: bool, keystore: Path | None, devnet_key: int | None
) -> None:
    """Leave the queue. The leader hands over first: fairstrike node --hand-over."""
    _send("leave", deployment, l1_url, key_of(keystore, devnet_key), as_json)


@sequencer.command()
@on_l1
@with_keystore
@with_json
def withdraw(
    l1_url: str | None, deployment: Path, as_json: bool, keystore: Path | None, devnet_key: int | None
) -> None:
    """Withdraw the bond, once every batch that it posted is final."""
    _send("withdraw_bond", deployment, l1_url, key_of(keystore, devnet_key), as_json)
