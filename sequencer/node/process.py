"""The sequencer as a process of its own, on a chain that is there already: what an operator runs.

    FAIRSTRIKE_SEQUENCER_KEY=0x… python -m sequencer.node.process --folder /var/lib/fairstrike \
        --deployment deployment.json --l1 http://127.0.0.1:8545 --socket /run/fairstrike.sock

SIGTERM and SIGINT end it in order: what waits gets its tick and its answer. After SIGKILL, or a power failure, the
next start of the same command recovers: from the newest snapshot and the log, and posts the batches that L1 lacks.
Exit status 1 says that it stopped by itself, and why; then too the same command is the way on.

`--standby` makes it wait while another member of the set leads (standby.py), lead when its turn has come, and wait
again when another has taken over. Without it, a sequencer that does not lead ends. `--hand-over` posts what there is,
lets the next member lead, and ends.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import uvloop

from sequencer.api import admission
from sequencer.clock import Clock, L1Clock, ManualClock
from sequencer.config import with_config
from sequencer.development import FEEDS as FEEDS_OF_A_DEVNET
from sequencer.development import devnet_params, feed_key
from sequencer.engine.engine import ReplayError
from sequencer.history import history as histories
from sequencer.keeper.keeper import Terms
from sequencer.l1 import parameters
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import DeploymentError, L1Error, RpcUnavailable
from sequencer.l1.fees import GWEI, FeeCaps
from sequencer.l1.rpc import Rpc
from sequencer.l1.sequencers import CALL_GAS, ROLLUP, SEQUENCERS, standing
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.log.interface import LogError
from sequencer.market.background import BackgroundSource
from sequencer.market.feeds import FeedSource, FileSource, HttpSource
from sequencer.market.flat import FlatSource, flat_indices
from sequencer.market.public import DeribitSource
from sequencer.market.signed import SignedSource
from sequencer.market.tape import TapeError, parse_instrument
from sequencer.node.check import check_folder
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.node.standby import StandbyConfig
from sequencer.node.standby_service import StandbyService
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params
from sequencer.queue.driver import DriverConfig
from sequencer.queue.intake import IntakeLimits
from sequencer.rollup.batcher import BATCHES_FILE, stored_post_root
from sequencer.rollup.l1_worker import Deposed, L1Config, deposed
from sequencer.wire.option_types import COUNT, COUNT_OR_NONE, PAUSE_S, SOCKET, URL, Number

KEY_VARIABLE = "FAIRSTRIKE_SEQUENCER_KEY"
OLD_PASSWORD_VARIABLE = "FAIRSTRIKE_KEYSTORE_PASSWORD"  # noqa: S105  # as it was called here before
PASSWORD_VARIABLE = "FAIRSTRIKE_PASSWORD"  # noqa: S105  # the name of a variable
FEED_KEYS_VARIABLE = "FAIRSTRIKE_FEED_KEYS"
HAND_OVER_TIMEOUT_S = 600.0
FEEDS = (
    "signed:URL (a `fairstrike feed run`), or what this process signs itself, with the keys in "
    f"{FEED_KEYS_VARIABLE}: file:PATH (JSON lines), http(s)://…, deribit:URL, flat:USD (drills)"
)

GWEI_AMOUNT = Number(0.0, 1e6, is_open=True)

logger = logging.getLogger(__name__)


class NodeError(Exception):
    """It cannot start: the message says what is wrong with which option, variable or file."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node is started with; all secrets are in here already. `standby`: waits while others lead."""

    service: ServiceConfig
    socket: str
    clock: Clock
    signer: Signer
    sources: list[FeedSource]
    feed_keys: list[bytes]
    wanted: list[Terms]
    standby: bool = False
    hand_over: bool = False


@contextlib.contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process alone; the kernel lets go when it ends, however. Raises NodeError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NodeError(f"--folder {folder}: another sequencer holds it") from None
        yield


def check_stores(folder: Path) -> None:
    """Before anything acts on them. What the stores' openers make again is let pass. Raises NodeError."""
    if not any(folder.glob("*.sqlite")):
        return
    for one in check_folder(folder, whole_log=False):
        for found in one.findings:
            logger.error("%s: %s", one.store, found.what)
            if one.store in ("log.sqlite", "l1.sqlite"):
                raise NodeError(f"--folder {folder}: {one.store}: {found.what}: {found.remedy}")


async def run(config: NodeConfig) -> None:
    """Runs until SIGTERM or SIGINT. Raises what ended the ticking, when that ended by itself."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if config.hand_over:
        await _hand_over(config, stop)
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


async def _goes_on(config: NodeConfig, stop: asyncio.Event) -> bool:
    """Whether to lead at once: what the folder holds beyond L1 was acknowledged, and a standby would cut it off.

    Waits for L1's word.
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
    service = StandbyService(waiting, of.l1_url, config.signer, of.l1.poll_s, of.gateway_users)
    click.echo(json.dumps({"standby": config.signer.address, "socket": config.socket}))
    return await service.run(config.socket, stop)


async def _lead(config: NodeConfig, stop: asyncio.Event) -> None:
    """Runs the sequencer. Raises Deposed when another leads."""
    await asyncio.to_thread(_check_leads, config)
    service = Service(
        config.service, config.clock, config.signer, config.sources, config.feed_keys, config.wanted
    )
    await service.start(config.socket)
    click.echo(
        json.dumps(
            {
                "socket": config.socket,
                "seq": service.state.globals.seq,
                "log_end": service.log.end,
                "replayed": service.replayed,
            }
        )
    )
    asked = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(service.ended.wait())
    await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    ended.cancel()
    await service.stop()
    for source in config.sources:
        if isinstance(source, BackgroundSource):
            await asyncio.to_thread(source.close)
    if service.failure is not None:
        raise service.failure
    logger.info("stopped at seq %d", service.state.globals.seq)


def _check_leads(config: NodeConfig) -> None:
    """Raises Deposed when L1 says that another leads; without L1 the log's word counts until it answers."""
    try:
        if not _is_leading(config):
            logger.warning("nobody leads, or the folder is behind L1: see l1_error of the status")
    except L1Error as error:
        logger.warning("L1: %s: whether this sequencer leads is not known", error)


def _is_leading(config: NodeConfig) -> bool:
    """Whether this sequencer leads and its folder holds L1's last batch, so that what it has not posted follows that.

    Raises Deposed when another leads, deep enough to last; L1Error.
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
    """Posts all that the log holds, takes nothing more, and lets the next member lead."""
    of = config.service
    assert of.deployment is not None
    await asyncio.to_thread(_check_leads, config)
    service = Service(of, config.clock, config.signer)
    service.take_no_more()
    service.pace.make_batches()
    last = service.batcher.cursor.batch_id - 1
    await service.start(config.socket, run=False)
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


# --- options to objects ---------------------------------------------------------------------------


def sequencer_key(keystore: Path | None, devnet: bool) -> Signer:
    """The bonded key: of the keystore file, else of the environment, else, on a devnet, the first well-known one."""
    from sequencer.l1.wallet import key_from_environment, key_from_keystore, key_of_devnet

    try:
        if keystore is not None:
            name = PASSWORD_VARIABLE if PASSWORD_VARIABLE in os.environ else OLD_PASSWORD_VARIABLE
            return key_from_keystore(keystore, os.environ[name])
        if KEY_VARIABLE in os.environ:
            return key_from_environment(KEY_VARIABLE)
    except KeyError:
        raise NodeError(
            f"--keystore: its password is taken from {PASSWORD_VARIABLE}, which is not set"
        ) from None
    except (OSError, ValueError) as error:
        raise NodeError(f"the sequencer's key: {error}") from None
    if devnet:
        return key_of_devnet(0)
    raise NodeError(f"no key: give --keystore, or {KEY_VARIABLE} in the environment")


def feed_keys(devnet: bool, params: Params) -> list[bytes]:
    """Private keys of the feeds that sign in this process, in PARAMS' order: of the environment, else a devnet's.

    Raises NodeError where a key's form is wrong, or it is not the one that PARAMS has at that place.
    """
    given = os.environ.get(FEED_KEYS_VARIABLE)
    if given is None:
        if not devnet:
            raise NodeError(
                f"--feed: what it brings is to be signed here: set {FEED_KEYS_VARIABLE} to the feeds' private keys, "
                "with commas between; or let each feed sign in its own process (`fairstrike feed run`), "
                "and give --feed signed:URL"
            )
        return [feed_key(number) for number in range(FEEDS_OF_A_DEVNET)]
    keys = []
    for number, text in enumerate(given.split(",")):
        try:
            key = bytes.fromhex(text.strip().removeprefix("0x"))
            address = address_of(public_key_of(key))
        except ValueError:
            raise NodeError(
                f"{FEED_KEYS_VARIABLE}: key {number} (from 0) must be a private key, 64 hex digits"
            ) from None
        if number >= len(params.feed_keys) or address != params.feed_keys[number]:
            there = "none" if number >= len(params.feed_keys) else "0x" + params.feed_keys[number].hex()
            raise NodeError(
                f"{FEED_KEYS_VARIABLE}: key {number} (from 0) is that of 0x{address.hex()}; PARAMS has {there} there"
            )
        keys.append(key)
    return keys


def listing(path: Path | None) -> list[Terms]:
    """Options to list: a JSON list of names such as BTC-2JAN22-48000-C."""
    if path is None:
        return []
    try:
        names = msgspec.json.decode(path.read_bytes(), type=list[str])
        terms = [parse_instrument(name) for name in names]
    except (OSError, msgspec.MsgspecError, TapeError) as error:
        raise NodeError(f"--list {path}: {error}") from None
    return [(one.underlying, one.day, one.strike_ticks, one.is_put) for one in terms]


def feed_source(
    feed: str, wanted: list[Terms], keys: Sequence[bytes] = (), domain: bytes = b""
) -> FeedSource:
    """The source that `--feed` names; `keys`, `domain`: of PARAMS and the exchange, for records signed elsewhere."""
    kind, _, rest = feed.partition(":")
    try:
        if kind == "flat":
            return FlatSource(wanted, flat_indices(rest))
        if kind == "file":
            return BackgroundSource(FileSource(rest))
        if kind in ("http", "https"):
            return BackgroundSource(HttpSource(feed))
        if kind == "deribit":
            return BackgroundSource(DeribitSource(rest))
        if kind == "signed":
            return BackgroundSource(SignedSource(rest, keys, domain))
    except ValueError as error:
        raise NodeError(f"--feed {feed}: {error}") from None
    raise NodeError(f"--feed must be {FEEDS}, got {feed!r}")


def feed_sources(
    feeds: Sequence[str], wanted: list[Terms], at: Deployment, params: Params
) -> list[FeedSource]:
    """One source for each `--feed`."""
    domain = domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
    return [feed_source(feed, wanted, params.feed_keys, domain) for feed in feeds if feed != "none"]


def checked_deployment(
    path: Path, l1_url: str, params_path: Path | None, devnet: bool
) -> tuple[Deployment, Params]:
    """The deployment and its parameters, if it was made for them. L1 is asked when it answers."""
    try:
        deployment = Deployment.load(path)
        with contextlib.closing(Rpc(l1_url, attempts=1)) as rpc, contextlib.suppress(RpcUnavailable):
            deployment.check(rpc)
    except L1Error as error:
        raise NodeError(f"--deployment: {error}") from None
    try:
        params = parameters.of_deployment(deployment, params_path, devnet_params() if devnet else None)
    except (DeploymentError, ValueError) as error:
        raise NodeError(str(error)) from None
    return deployment, params


@click.command()
@with_config("node")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    required=True,
    help="log, snapshots, batches: all that it must not lose",
)
@click.option("--deployment", type=click.Path(path_type=Path), required=True, help="deployment.json")
@click.option("--l1", "l1_url", type=URL, required=True, help="JSON-RPC URL of the chain")
@click.option(
    "--socket",
    "socket_path",
    type=SOCKET,
    required=True,
    help=f"where gateways connect: a path, or 127.0.0.1:PORT (with {admission.LINK_SECRET})",
)
@click.option(
    "--gateway-user",
    "gateway_users",
    multiple=True,
    help="user that gateways run as, if not this one: who may write to the socket vouches for signers",
)
@click.option("--devnet", is_flag=True, help="well-known keys of development chains where none are given")
@click.option(
    "--keystore", type=click.Path(path_type=Path), help=f"key file (password in {PASSWORD_VARIABLE})"
)
@click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    help="JSON object: parameters of the deployment  [default: those in its file]",
)
@click.option("--feed", "feeds", multiple=True, help=f"where prices come from, once for each feed: {FEEDS}")
@click.option(
    "--list", "list_path", type=click.Path(path_type=Path), help="JSON list: names of options to list"
)
@click.option(
    "--confirmations",
    type=click.IntRange(0, 10_000),
    default=1,
    show_default=True,
    help="before a deposit counts or a batch is settled",
)
@click.option(
    "--poll", "poll_s", type=PAUSE_S, default=0.5, show_default=True, help="seconds between looks at L1"
)
@click.option(
    "--max-fee",
    "max_fee_gwei",
    type=GWEI_AMOUNT,
    default=500.0,
    show_default=True,
    help="gwei a unit of gas that a transaction may cost: with a base fee above it batches wait",
)
@click.option(
    "--max-tip",
    "max_tip_gwei",
    type=GWEI_AMOUNT,
    default=20.0,
    show_default=True,
    help="gwei of it that may be a tip; it follows what blocks of late have taken, whatever the node suggests",
)
@click.option(
    "--max-blob-fee",
    "max_blob_fee_gwei",
    type=GWEI_AMOUNT,
    default=500.0,
    show_default=True,
    help="gwei a unit of blob gas",
)
@click.option(
    "--tick",
    "tick_ms",
    type=Number(0.0, 60_000.0),
    default=5.0,
    show_default=True,
    help="milliseconds to collect orders",
)
@click.option("--tick-records", type=COUNT, default=512, show_default=True, help="orders a tick, at most")
@click.option(
    "--rate", "rate_per_s", type=COUNT, default=2_000, show_default=True, help="orders a second, an account"
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
    help="seconds between batches of prices alone; a quarter of the deployment's takeover_s, if that is less",
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
    help=f"how long ended orders, trades and cash are kept; 0 for ever, else at least {histories.DAYS_MIN}",
)
@click.option("--rebond", is_flag=True, help="after a roll-back, make up the bond with this key")
@click.option("--standby", is_flag=True, help="follow while another leads; take over when it is silent")
@click.option("--hand-over", is_flag=True, help="post what there is, let the next member lead, and end")
@click.option(
    "--manual-clock",
    "manual_s",
    type=click.IntRange(0, 2**32 - 1),
    help="the exchange's time stands at this second (tests)",
)
def main(
    folder: Path,
    deployment: Path,
    l1_url: str,
    socket_path: str,
    gateway_users: tuple[str, ...],
    devnet: bool,
    keystore: Path | None,
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
    rebond: bool,
    standby: bool,
    hand_over: bool,
    manual_s: int | None,
) -> None:
    """Run the sequencer on a chain that the exchange is deployed on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with only_process(folder):
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
                gateway_users=admission.trusted_users(gateway_users),
            )
            sources = feed_sources(feeds, wanted, at, params)
            signs = any(not isinstance(one, BackgroundSource) or not one.is_signed for one in sources)
            clock: Clock = L1Clock() if manual_s is None else ManualClock(manual_s)
            config = NodeConfig(
                *(
                    service,
                    socket_path,
                    clock,
                    signer,
                    sources,
                    feed_keys(devnet, params) if signs else [],
                    wanted,
                ),
                standby,
                hand_over,
            )
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(config))
    except (NodeError, Deposed, LogError, ReplayError, L1Error, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
