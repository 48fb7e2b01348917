"""`ape run deploy`: deploys an exchange and writes where it stands (default var/deployment.json).

What is deployed are the committed artifacts, not what a compiler on this machine makes of the sources: the compiler is
consensus.
"""

from importlib.util import find_spec

import click
from ape.cli import ConnectedProviderCommand

from scripts._exchange import DEFAULTS, account_of, deploy_exchange, is_devnet


def core_genesis_root() -> bytes:
    """State root that the sequencer starts from."""
    if find_spec("sequencer.genesis") is None:
        raise click.UsageError("no genesis in the sequencer's core: give --genesis-root or GENESIS_ROOT")
    from sequencer.genesis import genesis_root

    return bytes(genesis_root())


@click.command(cls=ConnectedProviderCommand)
@click.option(
    "--account", default="TEST::0", show_default=True, help="deployer: TEST::n or an alias of `ape accounts`"
)
@click.option("--sequencer", help="address that posts batches  [default: TEST::1 on a development network]")
@click.option("--token", help="6-decimal ERC-20  [default: a new TestToken on a development network]")
@click.option(
    "--genesis-root", envvar="GENESIS_ROOT", help="state root before batch 1  [default: the core's]"
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
        sequencer = account_of("TEST::1").address
    root = bytes.fromhex(genesis_root.removeprefix("0x")) if genesis_root else core_genesis_root()
    if len(root) != 32:
        raise click.UsageError("a genesis root has 32 bytes")
    deployment = deploy_exchange(
        account_of(account),
        sequencer,
        root,
        token,
        settings["bond_min"] if bond is None else bond,
        **settings,
    )
    path = deployment.write()
    for role in ("token", "inbox", "rollup", "vault", "sequencer"):
        click.echo(f"{role:<10} {getattr(deployment, role)}")
    click.echo(f"genesis    0x{root.hex()}\nwritten to {path}")
