"""The gateway as a process: its command line, and how it is started in another one.

    python -m sequencer.api.gateway --sequencer SOCKET

What answers is in handler.py, the port in frontdoor.py, the side of the sequencers in upstream.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Final

import click
import uvloop

from sequencer.api import admission, ipc
from sequencer.api.exchange import Exchange
from sequencer.api.frontdoor import FrontDoor
from sequencer.api.handler import Gateway
from sequencer.api.limits import Limits, group_of
from sequencer.api.link import LinkSettings
from sequencer.api.peers import KEYS_MAX, GatewayPeer
from sequencer.api.recovery import SWITCH_S
from sequencer.api.tls import TlsError, tls_of
from sequencer.config import with_config
from sequencer.wire import jsonrpc
from sequencer.wire.option_types import (
    COUNT,
    COUNT_OR_NONE,
    ETH_ADDRESS,
    FILE,
    HOST_PORT,
    IP,
    RATE,
    SOCKETS,
    Number,
)
from sequencer.wire.peer_options import check_loopback, with_peers

__all__ = ["Exchange", "Gateway", "Limits", "main", "parse_listen", "serve"]

logger = logging.getLogger(__name__)
_LIMITS: Final = Limits()
_SETTINGS: Final = LinkSettings()


async def serve(gateway: Gateway, host: str, port: int, started: Callable[[int], None] | None = None) -> None:
    """Serves until cancelled; `started` gets the port."""
    door = FrontDoor(gateway)
    link = asyncio.create_task(gateway.run())
    try:
        bound = await door.start(host, port)
        if started is not None:
            started(bound)
        await link
    finally:
        await door.close()
        link.cancel()
        await asyncio.wait([link])


def parse_listen(listen: str, public: bool) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:8545`. ValueError for another machine's reach without `public`."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{listen}: must be HOST:PORT with a port from 0 to 65535")
    if not public and host != "localhost":
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(f"{listen}: reachable from other machines; give --public if that is meant")
    return host, int(port)


@click.command()
@with_config("gateway")
@click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:9545", show_default=True, help="HOST:PORT for clients."
)
@click.option(
    "--sequencer",
    "sequencers",
    type=SOCKETS,
    required=True,
    multiple=True,
    help=f"Where the sequencer listens: a path, 127.0.0.1:PORT (with {admission.LINK_SECRET}), or tls://HOST:PORT; "
    "of a cluster all nodes that may lead, with commas or repeated.",
)
@click.option(
    "--follower",
    "followers",
    type=SOCKETS,
    multiple=True,
    help="Likewise, nodes that never lead: for queries and events; with commas or repeated.",
)
@click.option("--tls-ca", type=FILE, help="PEM file: authority that signs the certificates of sequencers.")
@click.option("--tls-cert", type=FILE, help="PEM file: this gateway's certificate.")
@click.option("--tls-key", type=FILE, help="PEM file: its key, mode 0600.")
@click.option(
    "--ping-s",
    type=Number(0.01, 60.0),
    default=_SETTINGS.ping_s,
    show_default=True,
    help="Seconds between questions to a sequencer whether it is there.",
)
@click.option(
    "--silent-s",
    type=Number(0.1, 600.0),
    default=_SETTINGS.silent_s,
    show_default=True,
    help="Seconds of silence after which a sequencer is left.",
)
@click.option(
    "--level-s",
    type=Number(0.0, 600.0),
    default=_SETTINGS.level_s,
    show_default=True,
    help="Seconds that a follower may be behind to be asked.",
)
@click.option(
    "--retry-s",
    type=Number(0.0, 25.0),
    default=_LIMITS.retry_s,
    show_default=True,
    help="Seconds that requests wait for a leader, and are sent again to it; 0: not at all.",
)
@click.option(
    "--sequencer-user",
    "sequencer_users",
    multiple=True,
    help="User of the sequencer, if not this one; a socket of any other user is refused.",
)
@click.option("--public", is_flag=True, help="Allow --listen and --peers-listen beyond this machine.")
@with_peers
@click.option(
    "--receipt-key",
    "receipt_keys",
    type=ETH_ADDRESS,
    multiple=True,
    help="Address that signs tick headers, for --peers; may be repeated.  [default: what the sequencer names]",
)
@click.option(
    "--chain-id",
    type=click.IntRange(1, 2**64 - 1),
    help="Serve this chain only (default: ask the sequencer).",
)
@click.option(
    "--verifying-contract", type=ETH_ADDRESS, help="Serve this Rollup only (default: ask the sequencer)."
)
@click.option(
    "--connections", type=COUNT, default=_LIMITS.connections, show_default=True, help="Clients at once."
)
@click.option(
    "--connections-per-address",
    type=COUNT_OR_NONE,
    default=_LIMITS.connections_per_address,
    show_default=True,
    help="Clients at once of one IPv4 address or IPv6 /64; 0: any.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    type=IP,
    multiple=True,
    help="Address of a reverse proxy whose X-Forwarded-For names the client; may be repeated.",
)
@click.option(
    "--submits-per-s",
    type=RATE,
    default=_LIMITS.submits_per_s,
    show_default=True,
    help="Per connection; 0: any.",
)
@click.option(
    "--address-submits-per-s",
    type=RATE,
    default=_LIMITS.address_submits_per_s,
    show_default=True,
    help="Per address; 0: any.",
)
@click.option(
    "--queries-per-s",
    type=RATE,
    default=_LIMITS.queries_per_s,
    show_default=True,
    help="Per connection; 0: any.",
)
@click.option(
    "--address-queries-per-s",
    type=RATE,
    default=_LIMITS.address_queries_per_s,
    show_default=True,
    help="Per address; 0: any.",
)
@click.option(
    "--address-answer-bytes-per-s",
    type=RATE,
    default=_LIMITS.address_answer_bytes_per_s,
    show_default=True,
    help="Answers to queries, per address; 0: any.",
)
@click.option(
    "--recovery-threads",
    type=COUNT,
    help="Threads that recover signers.  [default: one a core]",
)
def main(
    listen: str,
    sequencers: tuple[tuple[str, ...], ...],
    followers: tuple[tuple[str, ...], ...],
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    ping_s: float,
    silent_s: float,
    level_s: float,
    retry_s: float,
    sequencer_users: tuple[str, ...],
    public: bool,
    peers: tuple[str, ...],
    peers_listen: tuple[str, ...],
    receipt_keys: tuple[str, ...],
    chain_id: int | None,
    verifying_contract: str | None,
    connections: int,
    connections_per_address: int,
    trusted_proxies: tuple[str, ...],
    submits_per_s: float,
    address_submits_per_s: float,
    queries_per_s: float,
    address_queries_per_s: float,
    address_answer_bytes_per_s: float,
    recovery_threads: int | None,
) -> None:
    """Run a gateway between clients and the sequencer."""
    try:
        host, port = parse_listen(listen, public)
        leading, following = (tuple(chain.from_iterable(given)) for given in (sequencers, followers))
        places = list(map(ipc.parse_address, leading + following))
        if any(isinstance(one, tuple) for one in places):
            admission.link_secret()
        needs_tls = any(isinstance(one, ipc.TlsAddress) for one in places)
        files = tls_of(tls_ca, tls_cert, tls_key, needs_tls)
        users = admission.trusted_users(sequencer_users)
    except (TlsError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    check_loopback(peers_listen, public)
    if len(receipt_keys) > KEYS_MAX:
        raise click.UsageError(f"--receipt-key: at most {KEYS_MAX}, not {len(receipt_keys)}")
    if receipt_keys and not (peers or peers_listen):
        raise click.UsageError("--receipt-key goes with --peers or --peers-listen")
    if (chain_id is None) != (verifying_contract is None):
        raise click.UsageError("--chain-id and --verifying-contract go together")
    expected = None
    if chain_id is not None and verifying_contract is not None:
        try:
            expected = Exchange(chain_id, "0x" + jsonrpc.from_hex(verifying_contract, (20,)).hex())
        except ValueError:
            raise click.UsageError("--verifying-contract: must be 0x and 40 hex digits") from None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    limits = Limits(
        connections=connections,
        connections_per_address=connections_per_address,
        trusted_proxies=frozenset(map(group_of, trusted_proxies)),
        submits_per_s=submits_per_s,
        address_submits_per_s=address_submits_per_s,
        queries_per_s=queries_per_s,
        address_queries_per_s=address_queries_per_s,
        address_answer_bytes_per_s=address_answer_bytes_per_s,
        retry_s=retry_s,
    )
    if silent_s < 2 * ping_s:
        raise click.UsageError(f"--silent-s: must be at least twice --ping-s ({ping_s:g}), not {silent_s:g}")
    settings = LinkSettings(ping_s, silent_s, level_s=level_s, users=users, files=files)

    headers = None
    if peers or peers_listen:
        from sequencer.proof.gossip import GossipConfig  # zenoh is loaded by who has peers

        keys = frozenset(bytes.fromhex(one.removeprefix("0x")) for one in receipt_keys)
        headers = GatewayPeer(GossipConfig(peers, peers_listen), keys)

    async def run() -> None:
        gateway = Gateway(
            leading, expected, limits, settings, recovery_threads or 0, headers, followers=following
        )
        task = asyncio.create_task(
            serve(gateway, host, port, lambda bound: click.echo(f"http://{host}:{bound}"))
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            logger.info("stopped")

    sys.setswitchinterval(SWITCH_S)
    try:
        uvloop.run(run())
    except OSError as error:
        raise click.ClickException(f"--listen {listen}: {error.strerror or error}") from None


if __name__ == "__main__":
    main()
