"""`ape run status`: what L1 says about the exchange."""

import click
from ape import chain
from ape.cli import ConnectedProviderCommand

from scripts._exchange import at, exchange, usd


@click.command(cls=ConnectedProviderCommand)
@click.option("--owner", help="also show this owner's account")
def cli(owner: str | None) -> None:
    """Show the vault, the inbox and the last batches."""
    deployment = exchange()
    vault = at("Vault", deployment.vault)
    inbox = at("Inbox", deployment.inbox)
    rollup = at("Rollup", deployment.rollup)
    sequencers = at("Sequencers", deployment.sequencers)
    token = at("TestToken", deployment.token)
    seq, time, inbox_count = rollup.tip()
    last = rollup.next_batch() - 1
    final = rollup.last_final()
    messages = inbox.count()
    click.echo(f"chain      {deployment.chain_id}, block {chain.blocks.height}")
    click.echo(f"vault      {vault.address}: {vault.accounts()} accounts, {usd(vault.deposits_total())}")
    click.echo(
        f"           holds {usd(token.balanceOf(vault.address))} of at most {usd(vault.deposits_total_max())}"
    )
    click.echo(
        f"inbox      {inbox.address}: {messages} messages, {messages - inbox_count} not yet in a batch"
    )
    click.echo(f"rollup     {rollup.address}: batch {last}, final {final}; next seq {seq}, time {time}")
    click.echo(f"root       0x{bytes(rollup.batch(last).post_root).hex()}")
    click.echo(f"final root 0x{bytes(rollup.final_root(final)).hex()}")
    leader = sequencers.leader()
    click.echo(
        f"sequencers {sequencers.address}: {len(sequencers.members())} members, epoch {sequencers.epoch()}"
    )
    click.echo(f"leader     {leader}: bond {sequencers.bond_of(leader) / 10**18} ETH")
    if owner:
        click.echo(
            f"owner      {owner}: account {vault.account_of(owner) or 'none'}, {usd(token.balanceOf(owner))}"
        )
