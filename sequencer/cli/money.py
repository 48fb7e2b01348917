"""Money in and out: deposit, withdraw, claim, transfer."""

from pathlib import Path

import click

from sequencer.cli.options import (
    ask,
    key_of,
    on_l1,
    print_result,
    trade,
    wallet_of,
    with_api,
    with_json,
    with_key,
    with_keystore,
)
from sequencer.cli.output import CASH


@click.command()
@click.argument("amount", type=CASH)
@with_key
@with_api
def withdraw(amount: str, api: str, as_json: bool, keystore: Path | None, devnet_key: int | None) -> None:
    """Withdraw AMOUNT USD to the owner; claim it on L1 once its batch is final."""
    result = trade(api, key_of(keystore, devnet_key), lambda trader: trader.withdraw(amount))
    print_result("withdrawal", result, as_json)


@click.command()
@click.argument("amount", type=CASH)
@click.option("--mint", is_flag=True, help="mint the test token first")
@on_l1
@with_keystore
@with_json
def deposit(
    amount: str,
    mint: bool,
    l1_url: str | None,
    deployment: Path,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Deposit AMOUNT USD into the vault, in one transaction with a permit, or after an approval."""
    from sequencer.wire.jsonrpc import CASH_DECIMALS, to_units

    units = to_units(amount, CASH_DECIMALS)
    with wallet_of(deployment, l1_url, key_of(keystore, devnet_key)) as wallet:
        if mint:
            wallet.mint(units)
        index = wallet.pay_in(units)
        number = wallet.account()
    print_result("deposit", {"account": number, "inbox_index": index, "amount": amount}, as_json)


@click.command()
@click.argument("number", type=click.IntRange(0, 2**32 - 1))
@on_l1
@with_keystore
@with_api
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
    key = key_of(keystore, devnet_key)
    proof = ask(api, "withdrawal", number=number)
    with wallet_of(deployment, l1_url, key) as wallet:
        mined = wallet.claim(
            proof["batch_id"],
            proof["number"],
            proof["owner"],
            proof["amount"],
            int(proof["bitmap"], 16),
            [bytes.fromhex(one[2:]) for one in proof["siblings"]],
        )
    result = {"number": number, "owner": proof["owner"], "tx": mined.tx_hash, "gas": mined.gas_used}
    print_result("claimed", result, as_json)


@click.command()
@click.argument("to", type=click.IntRange(1, 2**32 - 1))
@click.argument("amount", type=CASH)
@with_keystore
@with_api
def transfer(
    to: int, amount: str, api: str, as_json: bool, keystore: Path | None, devnet_key: int | None
) -> None:
    """Transfer AMOUNT USD to account TO, at once; needs the owner's key."""
    result = trade(api, key_of(keystore, devnet_key), lambda trader: trader.transfer(to, amount))
    print_result("transfer", {"to": to, "amount": amount} | result, as_json)
