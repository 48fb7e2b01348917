"""`ape run claim`: pays a withdrawal out of the vault.

The proof is a JSON file, as the sequencer's API (or a watcher, from L1 data alone) gives it:
{"batch_id": 7, "number": 0, "owner": "0x…", "amount": 1000000, "bitmap": "0x…", "siblings": ["0x…", …]}
"""

import json
from typing import Any, TextIO

import click
from ape.cli import ConnectedProviderCommand
from ape.exceptions import ContractLogicError

from scripts._exchange import account_of, at, exchange, usd


def integer(number: int | str) -> int:
    """JSON numbers hold 53 bits in many readers: what is wider comes as a hex or decimal string."""
    return int(number, 0) if isinstance(number, str) else number


def arguments_of(proof: dict[str, Any]) -> tuple[int, int, str, int, int, list[bytes]]:
    """Arguments of `Vault.claim`."""
    return (
        integer(proof["batch_id"]),
        integer(proof["number"]),
        proof["owner"],
        integer(proof["amount"]),
        integer(proof["bitmap"]),
        [bytes.fromhex(sibling.removeprefix("0x")) for sibling in proof["siblings"]],
    )


@click.command(cls=ConnectedProviderCommand)
@click.option(
    "--account", default="TEST::2", show_default=True, help="who sends it; the owner is paid, whoever sends"
)
@click.option("--proof", type=click.File(), required=True, help="JSON file, - for standard input")
def cli(account: str, proof: TextIO) -> None:
    """Pay a withdrawal whose batch is final to its owner."""
    arguments = arguments_of(json.load(proof))
    vault = at("Vault", exchange().vault)
    try:
        receipt = vault.claim(*arguments, sender=account_of(account), required_confirmations=0)
    except ContractLogicError as error:
        raise click.ClickException(f"the vault refuses: {error.revert_message}") from error
    claimed = receipt.events.filter(vault.Claimed)[0]
    click.echo(
        f"paid withdrawal {claimed.n}: {usd(claimed.amount)} to {claimed.owner}, {receipt.gas_used} gas"
    )
