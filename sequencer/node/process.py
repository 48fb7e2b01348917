"""The sequencer process, on a chain where the exchange is deployed: the operator's command.

    FAIRSTRIKE_SEQUENCER_KEY=0x… python -m sequencer.node.process --folder /var/lib/fairstrike \
        --deployment deployment.json --l1 http://127.0.0.1:8545 --socket /run/fairstrike.sock

SIGTERM and SIGINT end it in order: waiting submissions get their tick and their answer. After SIGKILL, or a power
failure, the next start of the same command recovers from the newest snapshot and the log, and posts the batches that L1
lacks. Exit status 1 means that it stopped by itself, with the reason; the same command starts it again.

`--standby` makes it follow while another member of the set leads (standby.py), lead when its turn has come, and follow
again when another has taken over. Without it, a sequencer that does not lead ends. `--hand-over` posts the remaining
batches, lets the next member lead, and ends.

With `--log` and `--node` it is a node of a cluster (cluster.py): it follows the log that all nodes of one member share,
and leads when none other is heard.

Long because a third of it declares the command's options.
"""

import asyncio
import contextlib
import json
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop

from sequencer import _compiled
from sequencer.api import admission
from sequencer.api.tls import tls_of
from sequencer.clock import Clock, L1Clock, ManualClock
from sequencer.config import with_config
from sequencer.engine.engine import ReplayError
from sequencer.history import history as histories
from sequencer.keeper.keeper import Terms
from sequencer.l1.errors import L1Error
from sequencer.l1.fees import GWEI, FeeCaps
from sequencer.l1.rpc import Rpc
from sequencer.l1.sequencers import CALL_GAS, ROLLUP, SEQUENCERS, Standing, standing
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.log.interface import LogError
from sequencer.log.sqlite import SqliteLog
from sequencer.market.background import BackgroundSource
from sequencer.market.feeds import FeedSource
from sequencer.node import archiver
from sequencer.node.cluster import cluster_config, run_node
from sequencer.node.folder import FolderHeld, only_process
from sequencer.node.following import ClusterConfig
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.node.standby import StandbyConfig
from sequencer.node.standby_service import StandbyService
from sequencer.node.startup import (
    FEEDS,
    PASSWORD_VARIABLE,
    NodeError,
    check_stores,
    checked_deployment,
    feed_keys,
    feed_sources,
    listing,
    sequencer_key,
)
from sequencer.node.succession import NotOfL1, succeed
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.queue.driver import DriverConfig
from sequencer.queue.intake import IntakeLimits
from sequencer.rollup.batcher import BATCHES_FILE, stored_post_root
from sequencer.rollup.l1_link import Children
from sequencer.rollup.l1_messages import L1Config
from sequencer.rollup.l1_worker import Deposed, deposed
from sequencer.sdk.trader import load_key
from sequencer.wire.option_types import (
    COUNT,
    COUNT_OR_NONE,
    FILE,
    KEY_SOURCE,
    LOG_SERVER,
    NODE_NAME,
    PAUSE_S,
    SOCKET,
    TLS_SCHEME,
    URL,
    Number,
)

HAND_OVER_TIMEOUT_S = 600.0

GWEI_AMOUNT = Number(0.0, 1e6, is_open=True)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Settings of a node, secrets included. `standby`: follows while another leads."""

    service: ServiceConfig
    sockets: tuple[str, ...]
    clock: Clock
    signer: Signer
    sources: list[FeedSource]
    feed_keys: list[bytes]
    wanted: list[Terms]
    standby: bool = False
    hand_over: bool = False
    cluster: ClusterConfig | None = None
    follows: bool = False  # the stream of another member


async def run(config: NodeConfig) -> None:
    """Runs until SIGTERM or SIGINT. Raises the error that ended the ticks, if they ended by themselves."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if config.hand_over:
        await _hand_over(config, stop)
        return
    if config.cluster is not None:
        await _in_cluster(config, config.cluster, stop)
        return
    while not stop.is_set():
        if config.standby and not await _goes_on(config, stop) and not await _stand_by(config, stop):
            return
        try:
            await _lead(config, stop)
        except Deposed as error:
            if not config.standby:
                raise NodeError(f"{error}: start it with --standby to follow") from error
            logger.warning("%s: this sequencer follows from now on", error)


async def _in_cluster(config: NodeConfig, cluster: ClusterConfig, stop: asyncio.Event) -> None:
    """Runs a node of a cluster (cluster.py)."""
    of = config.service

    def new_service(log: SqliteLog) -> Service:
        of.children.prepare()
        parts = (of, config.clock, config.signer, config.sources, config.feed_keys, config.wanted)
        return Service(*parts, log=log)

    if not config.follows:
        await run_node(of, cluster, new_service, config.sockets, lambda: _standing(config), stop)
    elif await _goes_on(config, stop):
        await _lead(config, stop)  # it has taken over before
    elif not stop.is_set():
        await succeed(of, cluster, new_service, config.sockets, config.signer, stop)


def _standing(config: NodeConfig) -> Standing | None:
    """The set while this member leads; None when nobody does, or L1 does not say. Raises Deposed.

    The clock gets L1's time with it, so that a node that takes over need not wait for it.
    """
    of = config.service
    assert of.deployment is not None
    try:
        with contextlib.closing(Rpc(of.l1_url, timeout_s=of.l1.timeout_s, attempts=1)) as rpc:
            now = standing(rpc, of.deployment, config.signer.address)
            why, lasts = deposed(rpc, of.deployment, now, of.l1.confirmations)
            drift_max_s = int(ROLLUP.read(rpc, of.deployment.rollup, "drift_max_s"))
    except L1Error:
        return None
    config.clock.see_l1(now.head_time_s, drift_max_s)
    if lasts:
        raise Deposed(why)
    return now if now.leads else None


async def _goes_on(config: NodeConfig, stop: asyncio.Event) -> bool:
    """Whether to lead at once: records of the folder that are not on L1 were acknowledged, and a standby would remove
    them.

    Waits for L1.
    """
    while not stop.is_set():
        try:
            return await asyncio.to_thread(_is_leading, config)
        except Deposed:
            return False
        except L1Error as error:
            logger.warning("L1: %s: whether this sequencer leads is not known", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(config.service.l1.poll_s, 1.0))
    return False


async def _stand_by(config: NodeConfig, stop: asyncio.Event) -> bool:
    """Follows until this sequencer leads; False when `stop` came first."""
    of = config.service
    assert of.deployment is not None
    waiting = StandbyConfig(
        of.folder, of.params, of.deployment, of.l1.confirmations, of.l1.caps, history_days=of.history_days
    )
    of.children.prepare()  # to lead without delay
    service = StandbyService(waiting, of.l1_url, config.signer, of.l1.poll_s, of.gateway_users, of.tls)
    click.echo(json.dumps({"standby": config.signer.address, "socket": ", ".join(config.sockets)}))
    return await service.run(config.sockets, stop)


async def _lead(config: NodeConfig, stop: asyncio.Event) -> None:
    """Runs the sequencer. Raises Deposed when another leads."""
    epoch = await asyncio.to_thread(_check_leads, config)
    service = Service(
        config.service, config.clock, config.signer, config.sources, config.feed_keys, config.wanted
    )
    service.epoch = epoch or service.epoch
    await service.start(*config.sockets)
    click.echo(
        json.dumps(
            {
                "socket": ", ".join(config.sockets),
                "seq": service.state.globals.seq,
                "log_end": service.log.end,
                "replayed": service.replayed,
                "transition": _compiled.status(),
            }
        )
    )
    await service.serve(stop)
    await service.stop()
    for source in config.sources:
        if isinstance(source, BackgroundSource):
            await asyncio.to_thread(source.close)
    if service.failure is not None:
        raise service.failure
    logger.info("stopped at seq %d", service.state.globals.seq)


def _check_leads(config: NodeConfig) -> int | None:
    """The epoch of the set. Raises Deposed when L1 says that another leads; while L1 does not answer (None), the log's
    last state counts.
    """
    of = config.service
    assert of.deployment is not None
    try:
        with contextlib.closing(Rpc(of.l1_url, timeout_s=of.l1.timeout_s)) as rpc:
            epoch = int(SEQUENCERS.read(rpc, of.deployment.sequencers, "epoch"))
            _check_receipt_key(rpc, config)
        if not _is_leading(config):
            logger.warning("nobody leads, or the folder is behind L1: see l1_error of the status")
    except L1Error as error:
        logger.warning("L1: %s: whether this sequencer leads is not known", error)
        return None
    return epoch


def _check_receipt_key(rpc: Rpc, config: NodeConfig) -> None:
    """Warns of receipts that L1 would take for nobody's."""
    of = config.service
    if of.receipt_key is None or of.deployment is None:
        return
    key = "0x" + address_of(public_key_of(of.receipt_key)).hex()
    member = str(SEQUENCERS.read(rpc, of.deployment.sequencers, "member_of_key", key))
    if member.lower() != config.signer.address.lower():
        logger.warning("L1 does not know %s as a receipt key: run `fairstrike sequencer receipt-key`", key)


def _is_leading(config: NodeConfig) -> bool:
    """Whether this sequencer leads and its folder holds L1's last batch, so that its next batch follows that one.

    Raises Deposed when another leads, deep enough to be final; L1Error.
    """
    of = config.service
    assert of.deployment is not None
    with contextlib.closing(Rpc(of.l1_url, timeout_s=of.l1.timeout_s)) as rpc:
        now = standing(rpc, of.deployment, config.signer.address)
        why, lasts = deposed(rpc, of.deployment, now, of.l1.confirmations)
        if lasts:
            raise Deposed(why)
        last = int(ROLLUP.read(rpc, of.deployment.rollup, "next_batch")) - 1
        root = bytes(ROLLUP.read(rpc, of.deployment.rollup, "batch", last)[1])
    return now.leads and (last == 0 or stored_post_root(of.folder / BATCHES_FILE, last) == root)


async def _hand_over(config: NodeConfig, stop: asyncio.Event) -> None:
    """Posts everything in the log, accepts nothing more, and hands over to the next member."""
    of = config.service
    assert of.deployment is not None
    await asyncio.to_thread(_check_leads, config)
    service = Service(of, config.clock, config.signer)
    service.take_no_more()
    service.pace.make_batches()
    last = service.batcher.cursor.batch_id - 1
    await service.start(*config.sockets, run=False)
    try:
        while service.pace.last_posted < last and not stop.is_set() and service.failure is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), of.l1.poll_s)
    finally:
        await service.stop()
    if service.failure is not None:
        raise service.failure
    if stop.is_set():
        raise NodeError(f"stopped before batch {last} was posted: nothing is handed over")
    mined = await asyncio.to_thread(_send_hand_over, config)
    click.echo(json.dumps({"handed_over": mined, "batches": last}))


def _send_hand_over(config: NodeConfig) -> str | None:
    of = config.service
    assert of.deployment is not None
    with contextlib.closing(Rpc(of.l1_url, timeout_s=of.l1.timeout_s)) as rpc:
        epoch = standing(rpc, of.deployment, config.signer.address).epoch
        how = TxConfig.under(of.l1.caps, of.l1.confirmations)
        manager = TxManager(rpc, config.signer, of.folder / "l1.sqlite", how)
        try:
            name = f"hand-over-{epoch}"
            manager.send(name, of.deployment.sequencers, SEQUENCERS.encode("hand_over"), 0, CALL_GAS)
            return manager.wait(name, HAND_OVER_TIMEOUT_S).tx_hash
        finally:
            manager.close()


@click.command()
@with_config("node")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    required=True,
    help="data folder: log, batches, snapshots",
)
@click.option("--deployment", type=click.Path(path_type=Path), required=True, help="deployment.json")
@click.option("--l1", "l1_url", type=URL, required=True, help="JSON-RPC URL of the chain")
@click.option(
    "--socket",
    "sockets",
    type=SOCKET,
    required=True,
    multiple=True,
    help=f"socket for gateways: a path, 127.0.0.1:PORT (with {admission.LINK_SECRET}), or tls://HOST:PORT (with "
    "--tls-ca, --tls-cert, --tls-key); may be repeated",
)
@click.option("--tls-ca", type=FILE, help="PEM file: authority that signs the certificates of gateways")
@click.option("--tls-cert", type=FILE, help="PEM file: this node's certificate")
@click.option("--tls-key", type=FILE, help="PEM file: its key, mode 0600")
@click.option(
    "--gateway-user",
    "gateway_users",
    multiple=True,
    help="user of the gateways, if not this one: processes that may write to the socket vouch for signers",
)
@click.option("--devnet", is_flag=True, help="use well-known development keys where none are given")
@click.option(
    "--keystore", type=click.Path(path_type=Path), help=f"key file (password in {PASSWORD_VARIABLE})"
)
@click.option(
    "--receipt-key",
    "receipt_source",
    type=KEY_SOURCE,
    help="key that signs receipts, env:NAME or keystore:PATH, not the bonded one  [default: none are signed]",
)
@click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    help="JSON object: parameters of the deployment  [default: those in its file]",
)
@click.option("--feed", "feeds", multiple=True, help=f"source of prices, once for each feed: {FEEDS}")
@click.option(
    "--list", "list_path", type=click.Path(path_type=Path), help="JSON list: names of options to list"
)
@click.option(
    "--confirmations",
    type=click.IntRange(0, 10_000),
    default=1,
    show_default=True,
    help="blocks before a deposit counts or a batch is settled",
)
@click.option(
    "--poll", "poll_s", type=PAUSE_S, default=0.5, show_default=True, help="seconds between polls of L1"
)
@click.option(
    "--max-fee",
    "max_fee_gwei",
    type=GWEI_AMOUNT,
    default=500.0,
    show_default=True,
    help="fee cap, gwei a unit of gas: above it batches wait",
)
@click.option(
    "--max-tip",
    "max_tip_gwei",
    type=GWEI_AMOUNT,
    default=20.0,
    show_default=True,
    help="cap of the tip, gwei a unit of gas; the tip follows recent blocks",
)
@click.option(
    "--max-blob-fee",
    "max_blob_fee_gwei",
    type=GWEI_AMOUNT,
    default=500.0,
    show_default=True,
    help="fee cap, gwei a unit of blob gas",
)
@click.option(
    "--tick",
    "tick_ms",
    type=Number(0.0, 60_000.0),
    default=5.0,
    show_default=True,
    help="length of a tick, milliseconds",
)
@click.option("--tick-records", type=COUNT, default=512, show_default=True, help="records per tick, at most")
@click.option(
    "--rate",
    "rate_per_s",
    type=COUNT,
    default=2_000,
    show_default=True,
    help="submissions per second and account",
)
@click.option(
    "--batch-interval",
    "batch_interval_s",
    type=PAUSE_S,
    default=2.0,
    show_default=True,
    help="seconds between batches",
)
@click.option(
    "--idle-interval",
    "idle_interval_s",
    type=PAUSE_S,
    default=60.0,
    show_default=True,
    help="seconds between batches that hold prices and marks only; a quarter of the deployment's takeover_s, if less",
)
@click.option(
    "--batch-bytes",
    type=COUNT,
    help="payload that fills a batch  [default: 100,000 in calldata, 126,976 in blobs: one blob]",
)
@click.option(
    "--snapshot-ticks", type=COUNT, default=5_000, show_default=True, help="log entries between snapshots"
)
@click.option(
    "--history-days",
    type=COUNT_OR_NONE,
    default=histories.DAYS,
    show_default=True,
    help=f"days that ended orders, trades and cash are kept; 0: for ever, else at least {histories.DAYS_MIN}",
)
@click.option(
    "--archive-after",
    "archive_after_s",
    type=COUNT_OR_NONE,
    default=archiver.AFTER_S,
    show_default=True,
    help="seconds after its challenge window that a batch's records stay in log.sqlite, then in archive/; 0 for ever",
)
@click.option(
    "--log",
    "log_servers",
    type=LOG_SERVER,
    multiple=True,
    help="server of the cluster's log, nats://HOST:PORT, once for each  [default: this folder is the only log]",
)
@click.option(
    "--follow",
    "followed",
    type=LOG_SERVER,
    multiple=True,
    help="server of the log of the member that leads: follow it, and go on from it when L1 gives this member the lead",
)
@click.option("--node", "node_name", type=NODE_NAME, help="name of this node in the cluster")
@click.option(
    "--lease",
    "lease_s",
    type=PAUSE_S,
    default=2.0,
    show_default=True,
    help="seconds of a leader's silence after which another node of the cluster takes over",
)
@click.option(
    "--reader", "is_reader", is_flag=True, help="follow the cluster's log and answer queries; never lead"
)
@click.option("--rebond", is_flag=True, help="after a roll-back, make up the bond with this key")
@click.option("--standby", is_flag=True, help="follow while another leads; take over when it is silent")
@click.option("--hand-over", is_flag=True, help="post what there is, let the next member lead, and end")
@click.option(
    "--manual-clock",
    "manual_s",
    type=click.IntRange(0, 2**32 - 1),
    help="fix the exchange's time at this second (tests)",
)
def main(
    folder: Path,
    deployment: Path,
    l1_url: str,
    sockets: tuple[str, ...],
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    gateway_users: tuple[str, ...],
    devnet: bool,
    keystore: Path | None,
    receipt_source: str | None,
    params_path: Path | None,
    feeds: tuple[str, ...],
    list_path: Path | None,
    confirmations: int,
    poll_s: float,
    max_fee_gwei: float,
    max_tip_gwei: float,
    max_blob_fee_gwei: float,
    tick_ms: float,
    tick_records: int,
    rate_per_s: int,
    batch_interval_s: float,
    idle_interval_s: float,
    batch_bytes: int | None,
    snapshot_ticks: int,
    history_days: int,
    archive_after_s: int,
    log_servers: tuple[str, ...],
    followed: tuple[str, ...],
    node_name: str | None,
    lease_s: float,
    is_reader: bool,
    rebond: bool,
    standby: bool,
    hand_over: bool,
    manual_s: int | None,
) -> None:
    """Run the sequencer on a chain where the exchange is deployed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with only_process(folder) as lock, contextlib.closing(Children(held=(lock,))) as children:
            children.prepare()
            check_stores(folder)
            signer = sequencer_key(keystore, devnet)
            at, params = checked_deployment(deployment, l1_url, params_path, devnet)
            wanted = listing(list_path)
            service = ServiceConfig(
                folder=folder,
                params=params,
                deployment=at,
                l1_url=l1_url,
                l1=L1Config(
                    confirmations=confirmations,
                    poll_s=poll_s,
                    rebond=rebond,
                    caps=FeeCaps(
                        *(round(one * GWEI) for one in (max_fee_gwei, max_tip_gwei, max_blob_fee_gwei))
                    ),
                ),
                driver=DriverConfig(tick_ms=tick_ms, tick_records=tick_records),
                intake=IntakeLimits(rate_per_s=rate_per_s, burst=5 * rate_per_s),
                batch_interval_s=batch_interval_s,
                idle_interval_s=idle_interval_s,
                batch_payload_bytes=batch_bytes,
                snapshot_ticks=snapshot_ticks,
                history_days=history_days,
                archive_after_s=archive_after_s,
                gateway_users=admission.trusted_users(gateway_users),
                tls=tls_of(tls_ca, tls_cert, tls_key, any(one.startswith(TLS_SCHEME) for one in sockets)),
                receipt_key=None if receipt_source is None else load_key(receipt_source),
                children=children,
            )
            sources = feed_sources(feeds, wanted, at, params)
            signs = any(not isinstance(one, BackgroundSource) or not one.is_signed for one in sources)
            clock: Clock = L1Clock() if manual_s is None else ManualClock(manual_s)
            config = NodeConfig(
                *(
                    service,
                    sockets,
                    clock,
                    signer,
                    sources,
                    feed_keys(devnet, params) if signs else [],
                    wanted,
                ),
                standby,
                hand_over,
                cluster_config(log_servers, node_name, lease_s, is_reader, followed),
                bool(followed),
            )
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(config))
    except (
        NodeError,
        NotOfL1,
        FolderHeld,
        Deposed,
        LogError,
        ReplayError,
        L1Error,
        OSError,
        ValueError,
    ) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
