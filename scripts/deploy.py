"""`ape run deploy`: deploys an exchange and writes where it stands (default var/deployment.json).

What is deployed are the committed artifacts, not what a compiler on this machine makes of the sources: the compiler is
consensus.
"""

from pathlib import Path
from typing import Any

import click
from ape.cli import ConnectedProviderCommand

from scripts._exchange import DEFAULTS, account_of, deploy_exchange, deployment_path, is_devnet
from sequencer.l1.deploy import DATA_SOURCES
from sequencer.protocol.params import Params


def genesis_of(given: str | None, params_path: Path | None) -> tuple[bytes, Params | None]:
    """The genesis root, and the parameters that it follows from, where they are known.

    Parameters come from the file, or are a development network's; a root that is given as well must be theirs.
    """
    from sequencer.development import devnet_params
    from sequencer.genesis import genesis_root
    from sequencer.l1 import parameters

    params = None
    if params_path is not None:
        try:
            params = parameters.read(params_path, devnet_params() if is_devnet() else None)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    elif given is None:
        if not is_devnet():
            raise click.UsageError(
                "give --params: the parameters of the exchange, which its genesis root commits to"
            )
        params = devnet_params()
    ours = None if params is None else genesis_root(params)
    try:
        root = ours if given is None else bytes.fromhex(given.removeprefix("0x"))
    except ValueError:
        root = b""
    if root is None or len(root) != 32:
        raise click.UsageError("a genesis root has 32 bytes, in hex")
    if ours is not None and root != ours:
        raise click.UsageError(f"--genesis-root is 0x{root.hex()}, that of --params 0x{ours.hex()}")
    return root, params


@click.command(cls=ConnectedProviderCommand)
@click.option(
    "--account", default="TEST::0", show_default=True, help="deployer: TEST::n or an alias of `ape accounts`"
)
@click.option(
    "--sequencer", help="address that posts batches first  [default: TEST::0 on a development network]"
)
@click.option("--token", help="6-decimal ERC-20  [default: a new TestToken on a development network]")
@click.option(
    "--genesis-root",
    envvar="GENESIS_ROOT",
    help="state root before batch 1  [default: that of the parameters]",
)
@click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    help="JSON object: parameters of the exchange, kept in its file  [default on a development network: its own]",
)
@click.option(
    "--data",
    type=click.Choice(list(DATA_SOURCES)),
    default=DEFAULTS["data"],
    show_default=True,
    help="where batches lie",
)
@click.option("--challenge-window-s", default=DEFAULTS["challenge_window_s"], show_default=True)
@click.option("--bond-min", default=DEFAULTS["bond_min"], show_default=True, help="wei")
@click.option("--bond", type=int, help="wei that the deployer bonds for it  [default: --bond-min]")
@click.option("--takeover-s", default=DEFAULTS["takeover_s"], show_default=True, help="silence of the leader")
@click.option("--drift-max-s", default=DEFAULTS["drift_max_s"], show_default=True)
@click.option(
    "--work-per-s",
    default=DEFAULTS["work_per_s"],
    show_default=True,
    help="units of work, batches' budget",
)
@click.option("--work-max", default=DEFAULTS["work_max"], show_default=True, help="units that it holds")
@click.option("--force", is_flag=True, help="write over the file of a deployment that is there")
@click.option("--deposit-min", default=DEFAULTS["deposit_min"], show_default=True, help="1e-6 USD")
@click.option(
    "--deposits-total-max", default=DEFAULTS["deposits_total_max"], show_default=True, help="1e-6 USD"
)
def cli(
    account: str,
    sequencer: str | None,
    token: str | None,
    genesis_root: str | None,
    params_path: Path | None,
    bond: int | None,
    force: bool,
    **settings: Any,
) -> None:
    """Deploy an exchange and write its deployment file."""
    path = deployment_path()
    if (
        path.exists() and not force
    ):  # before anything is sent: without its file an exchange is hard to find again
        raise click.UsageError(
            f"{path} holds a deployment: --force writes over it, FAIRSTRIKE_DEPLOYMENT names another file"
        )
    if sequencer is None:
        if not is_devnet():
            raise click.UsageError("give --sequencer")
        sequencer = account_of("TEST::0").address
    root, params = genesis_of(genesis_root, params_path)
    deployment = deploy_exchange(
        account_of(account),
        sequencer,
        root,
        token,
        bond,
        params,
        **settings,
    )
    deployment.save(path)
    click.echo(f"data       {deployment.data}")
    for role in ("token", "inbox", "sequencers", "rollup", "vault", "sequencer"):
        click.echo(f"{role:<10} {getattr(deployment, role)}")
    click.echo(f"genesis    0x{root.hex()}\nwritten to {path}")
