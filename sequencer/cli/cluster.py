"""`fairstrike cluster`: what the nodes and gateways of one member share."""

from pathlib import Path

import click

from sequencer.cli.options import print_result, with_json
from sequencer.cli.output import fail
from sequencer.wire.option_types import HOST


@click.group()
def cluster() -> None:
    """Prepare the nodes and gateways of a cluster."""


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
