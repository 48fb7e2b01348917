"""`ape run deploy`: deploys an exchange and writes where it stands (default var/deployment.json).

What is deployed are the committed artifacts, not what a compiler on this machine makes of the sources: the compiler is
consensus.
"""

import click
from ape.cli import ConnectedProviderCommand

from scripts._exchange import DEFAULTS, account_of, deploy_exchange, deployment_path, is_devnet


def devnet_genesis_root() -> bytes:
    """State root that the sequencer of a development network starts from."""
    from sequencer.genesis import genesis_root
    from sequencer.local.devnet import devnet_params

    return genesis_root(devnet_params())


def root_of(given: str | None) -> bytes:
    """The root given in hex, or the one that the core starts a development network from."""
    if given is None and not is_devnet():
        raise click.UsageError("give --genesis-root: it depends on the parameters of the exchange")
    root = devnet_genesis_root() if given is None else bytes.fromhex(given.removeprefix("0x"))
    if len(root) != 32:
        raise click.UsageError("a genesis root has 32 bytes")
    return root


@click.command(cls=ConnectedProviderCommand)
@click.option(
    "--account", default="TEST::0", show_default=True, help="deployer: TEST::n or an alias of `ape accounts`"
)
@click.option("--sequencer", help="address that posts batches  [default: TEST::0 on a development network]")
@click.option("--token", help="6-decimal ERC-20  [default: a new TestToken on a development network]")
@click.option(
    "--genesis-root",
    envvar="GENESIS_ROOT",
    help="state root before batch 1  [default on a development network: the core's]",
)
@click.option("--challenge-window-s", default=DEFAULTS["challenge_window_s"], show_default=True)
@click.option("--bond-min", default=DEFAULTS["bond_min"], show_default=True, help="wei")
@click.option("--bond", type=int, help="wei that the deployer bonds at once  [default: --bond-min]")
@click.option("--drift-max-s", default=DEFAULTS["drift_max_s"], show_default=True)
@click.option("--deposit-min", default=DEFAULTS["deposit_min"], show_default=True, help="1e-6 USD")
@click.option(
    "--deposits-total-max", default=DEFAULTS["deposits_total_max"], show_default=True, help="1e-6 USD"
)
def cli(
    account: str,
    sequencer: str | None,
    token: str | None,
    genesis_root: str | None,
    bond: int | None,
    **settings: int,
) -> None:
    """Deploy an exchange and write its deployment file."""
    if sequencer is None:
        if not is_devnet():
            raise click.UsageError("give --sequencer")
        sequencer = account_of("TEST::0").address
    root = root_of(genesis_root)
    deployment = deploy_exchange(
        account_of(account),
        sequencer,
        root,
        token,
        settings["bond_min"] if bond is None else bond,
        **settings,
    )
    path = deployment_path()
    deployment.save(path)
    for role in ("token", "inbox", "rollup", "vault", "sequencer"):
        click.echo(f"{role:<10} {getattr(deployment, role)}")
    click.echo(f"genesis    0x{root.hex()}\nwritten to {path}")
