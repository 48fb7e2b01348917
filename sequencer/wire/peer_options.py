"""The command-line options of a program that exchanges headers with peers."""

import ipaddress
from collections.abc import Callable

import click

from sequencer.wire.option_types import ENDPOINTS


def with_peers(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --peers and --peers-listen; both give a tuple of endpoints."""
    command = click.option(
        "--peers-listen",
        type=ENDPOINTS,
        default=(),
        help="Endpoints at which peers may connect.  [default: none]",
    )(command)
    return click.option(
        "--peers",
        type=ENDPOINTS,
        default=(),
        help="Peers with whom signed tick headers are exchanged, tcp/HOST:PORT and more after commas.",
    )(command)


def check_loopback(listen: tuple[str, ...], is_public: bool, option: str = "--peers-listen") -> None:
    """Refuses to listen for other machines unless that is meant. Raises click.UsageError."""
    for one in () if is_public else listen:
        host = one.partition("/")[2].rpartition(":")[0].strip("[]")
        try:
            is_near = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_near = False
        if not is_near:
            raise click.UsageError(
                f"{option} {one.removeprefix('tcp/')}: reachable from other machines; give --public if that is meant"
            )
