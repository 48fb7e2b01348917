"""`fairstrike cluster`: what the nodes and gateways of one member share."""

import asyncio
import signal
from pathlib import Path

import click

from sequencer.cli.operate import run_coroutine
from sequencer.cli.options import print_result, with_json
from sequencer.cli.output import fail, people
from sequencer.wire.option_types import HOST


@click.group()
def cluster() -> None:
    """Prepare the nodes and gateways of a cluster, or run one on this machine."""


@cluster.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, 7),
    default=3,
    show_default=True,
    help="Servers of the replicated log, an odd number: fewer than half of them may be gone.",
)
@click.option("--chain", type=click.Choice(["pyevm", "anvil", "hardhat"]), default="pyevm", show_default=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/cluster"),
    show_default=True,
    help="Data of all processes.",
)
@click.option(
    "--feed",
    default="flat:46000",
    show_default=True,
    help="flat:USD (BTC), or flat:BTC=USD,ETH=USD.",
)
@with_json
def up(nodes: int, chain: str, folder: Path, feed: str, as_json: bool) -> None:
    """Run a cluster on this machine until Ctrl-C: log servers, two sequencers, a reader, two gateways, a chain.

    Kill any of them: the others go on. Prints URLs and process ids.
    """
    import time

    from sequencer.l1.errors import L1Error
    from sequencer.local.cluster import ClusterError, ClusterSettings, listing, run_cluster
    from sequencer.log.interface import LogError

    if nodes % 2 == 0:
        raise click.BadParameter(f"must be odd, not {nodes}", param_hint="--nodes")

    async def main() -> None:
        stop = asyncio.Event()
        for which in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(which, stop.set)
        settings = ClusterSettings(folder, chain, nodes, feed=feed, listed=listing(feed, int(time.time())))
        await run_cluster(
            settings,
            lambda info: print_result("The cluster is up; Ctrl-C ends it", info, as_json),
            lambda what: people.print(what),
            stop,
        )

    try:
        run_coroutine(main())
    except (ClusterError, L1Error, LogError, OSError, RuntimeError, ValueError) as error:
        raise fail(str(error)) from error


@cluster.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host",
    "hosts",
    type=HOST,
    multiple=True,
    required=True,
    help="Host name or IP address of a node, as gateways write it in tls://HOST:PORT; may be repeated.",
)
@click.option(
    "--gateway",
    "gateways",
    type=HOST,
    multiple=True,
    default=("1",),
    show_default=True,
    help="Name of a gateway; may be repeated.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 3_650),
    default=365,
    show_default=True,
    help="Days that they are valid.",
)
@click.option("--renew", is_flag=True, help="Replace certificates that are there; the authority stays.")
@with_json
def certificates(
    folder: Path, hosts: tuple[str, ...], gateways: tuple[str, ...], days: int, renew: bool, as_json: bool
) -> None:
    """Write the certificates of a cluster into FOLDER: an authority, and one for each node and gateway."""
    from sequencer.api.certificates import CA_KEY, CertificateError, write_cluster

    try:
        written = write_cluster(folder, hosts, gateways, days, renew)
    except (CertificateError, OSError) as error:
        raise fail(str(error)) from error
    result = {"folder": str(folder), "authority": str(folder / CA_KEY)}
    print_result("cluster", result | {path.stem: str(path) for path in written}, as_json)
