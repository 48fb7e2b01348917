"""`ape run deposit`: puts money into the vault."""

from decimal import Decimal
from typing import Any

import click
from ape import chain
from ape.cli import ConnectedProviderCommand
from eth_account.messages import encode_typed_data

from scripts._exchange import account_of, at, exchange, is_devnet, usd

PERMIT_VALID_S = 3_600
PERMIT_TYPES = {
    "Permit": [
        {"name": "owner", "type": "address"},
        {"name": "spender", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "nonce", "type": "uint256"},
        {"name": "deadline", "type": "uint256"},
    ]
}


def sign_permit(
    trader: Any, token: Any, spender: str, amount: int, chain_id: int
) -> tuple[int, int, bytes, bytes]:
    """EIP-2612 permit of `trader`: deadline, v, r, s."""
    deadline = chain.pending_timestamp + PERMIT_VALID_S
    domain = {"name": token.name(), "version": "1", "chainId": chain_id, "verifyingContract": token.address}
    message = {
        "owner": trader.address,
        "spender": spender,
        "value": amount,
        "nonce": token.nonces(trader.address),
        "deadline": deadline,
    }
    signature = trader.sign_message(encode_typed_data(domain, PERMIT_TYPES, message))
    return deadline, signature.v, signature.r, signature.s


@click.command(cls=ConnectedProviderCommand)
@click.option(
    "--account", default="TEST::2", show_default=True, help="owner: TEST::n or an alias of `ape accounts`"
)
@click.option("--amount", type=Decimal, default=Decimal(1000), show_default=True, help="USD")
@click.option("--permit", is_flag=True, help="sign a permit instead of sending an approval")
@click.option("--mint", is_flag=True, help="mint what the owner lacks (test token only)")
def cli(account: str, amount: Decimal, permit: bool, mint: bool) -> None:
    """Deposit into the vault; the sequencer credits it on L2 once it has seen the message in the inbox."""
    units = int(amount * 10**6)
    if units != amount * 10**6:
        raise click.UsageError("the smallest unit is 0.000001 USD")
    deployment = exchange()
    trader = account_of(account)
    token = at("TestToken", deployment.token)
    vault = at("Vault", deployment.vault)
    lacking = units - token.balanceOf(trader.address)
    if lacking > 0:
        if not (mint and is_devnet()):
            raise click.ClickException(f"{trader.address} lacks {usd(lacking)}")
        token.mint(trader.address, lacking, sender=trader, required_confirmations=0)
    if permit:
        signed = sign_permit(trader, token, vault.address, units, deployment.chain_id)
        receipt = vault.deposit_with_permit(units, *signed, sender=trader, required_confirmations=0)
    else:
        token.approve(vault.address, units, sender=trader, required_confirmations=0)
        receipt = vault.deposit(units, sender=trader, required_confirmations=0)
    deposited = receipt.events.filter(vault.Deposited)[0]
    click.echo(
        f"deposited {usd(deposited.amount)} into account {deposited.account} of {deposited.owner}: "
        f"inbox message {deposited.inbox_index}, block {receipt.block_number}, {receipt.gas_used} gas"
    )
