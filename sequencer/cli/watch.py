"""For anyone: watch an exchange from L1 alone, raise alarms, challenge what is wrong."""

import contextlib
import logging
import signal
import threading
from pathlib import Path

import click

from sequencer.cli.archive import blobs_in, with_archive
from sequencer.cli.options import l1_url_of, on_l1, with_params
from sequencer.cli.output import bars, fail, people, show, write_json
from sequencer.config import with_config
from sequencer.wire.option_types import HOST_PORT, PAUSE_S
from sequencer.wire.peer_options import check_loopback, with_peers

STATUS_FOLDER = Path("var/watch")
WRONG = 2  # exit status of --once when a batch is wrong


@click.command()
@with_config("watch")
@on_l1
@with_params
@with_archive
@click.option(
    "--receipts",
    type=click.Path(path_type=Path, file_okay=False),
    help="a folder where traders leave receipts, which are compared with each other and with L1",
)
@click.option(
    "--receipts-listen",
    type=HOST_PORT,
    help="HOST:PORT at which receipts are taken over HTTP into the folder of --receipts",
)
@with_peers
@click.option("--public", is_flag=True, help="allow --receipts-listen and --peers-listen beyond this machine")
@click.option(
    "--challenge",
    is_flag=True,
    help="challenge a wrong batch, and take the bond for a broken receipt; needs a key with some ETH",
)
@click.option("--keystore", type=click.Path(path_type=Path, exists=True), help="web3 keystore file")
@click.option("--devnet-key", type=click.IntRange(0, 9), help="a development account")
@click.option(
    "--status-port",
    type=click.IntRange(0, 65_535),
    help="serve the status on 127.0.0.1: a page, /status.json, /metrics, /health; 0: a free port",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=STATUS_FOLDER,
    show_default=True,
    help="archive of the payloads, and snapshots",
)
@click.option("--confirmations", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--late",
    "late_s",
    type=click.IntRange(1),
    default=3_600,
    show_default=True,
    help="seconds an inbox message may wait before it raises an alarm",
)
@click.option(
    "--poll", "poll_s", type=PAUSE_S, default=1.0, show_default=True, help="seconds between polls of L1"
)
@click.option(
    "--once", is_flag=True, help="check once, print the status, and end: status 0 when all is correct, else 2"
)
def watch(
    l1_url: str | None,
    deployment: Path,
    params_path: Path | None,
    challenge: bool,
    keystore: Path | None,
    devnet_key: int | None,
    status_port: int | None,
    folder: Path,
    confirmations: int,
    late_s: int,
    poll_s: float,
    once: bool,
    archive: Path | None,
    receipts: Path | None,
    receipts_listen: str | None,
    peers: tuple[str, ...],
    peers_listen: tuple[str, ...],
    public: bool,
) -> None:
    """Rebuild the state from L1, compare every root, report or challenge wrong batches. Ends with Ctrl-C."""
    from sequencer.cli.options import key_of
    from sequencer.engine.engine import ReplayError
    from sequencer.l1 import parameters
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer
    from sequencer.proof.challenger import Challenger
    from sequencer.proof.receipt_box import PATH as RECEIPTS_PATH
    from sequencer.proof.receipt_watch import ReceiptSources
    from sequencer.proof.status_page import serve, summary
    from sequencer.proof.watcher import WatchConfig, Watcher

    check_loopback(peers_listen, public)
    gossip = None
    if peers or peers_listen:
        from sequencer.proof.gossip import GossipConfig

        gossip = GossipConfig(peers, peers_listen)
    if receipts_listen is not None:
        check_loopback((f"tcp/{receipts_listen}",), public, "--receipts-listen")
        if receipts is None:
            raise click.UsageError("--receipts-listen goes with --receipts")
    sources = ReceiptSources(receipts, receipts_listen is not None, gossip)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc, contextlib.ExitStack() as stack:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            params = parameters.of_deployment(at, params_path)
            challenger = None
            if challenge:
                challenger = Challenger(rpc, at, Signer(key_of(keystore, devnet_key)), folder)
            config = WatchConfig(confirmations=confirmations, late_s=late_s, poll_s=poll_s)
            kept = stack.enter_context(blobs_in(archive))
            with bars() as progress:
                watcher = Watcher(rpc, at, params, folder, config, challenger, progress, kept, sources)
                stack.callback(watcher.close)
                watcher.start()
                watcher.look()
        except (L1Error, ReplayError, ValueError, OSError) as error:
            raise fail(str(error)) from error
        watcher.progress = lambda _stage, _done, _total: None
        if once:
            write_json("-", watcher.status)
            raise SystemExit(0 if watcher.status["ok"] else WRONG)
        stop = threading.Event()
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, lambda *_: stop.set())
        if status_port is not None:
            port = stack.enter_context(serve(lambda: watcher.status, status_port))
            people.print(f"status: http://127.0.0.1:{port}/")
        if receipts_listen is not None and watcher.receipts is not None:
            host, _, wanted = receipts_listen.rpartition(":")
            host = host.strip("[]")
            try:
                port = stack.enter_context(watcher.receipts.serve(host, int(wanted)))
            except OSError as error:
                raise fail(f"--receipts-listen {receipts_listen}: {error.strerror or error}") from error
            people.print(f"receipts: http://{host}:{port}{RECEIPTS_PATH}")
        if challenger is None:
            people.print("alarms only: nothing is challenged without --challenge")
        show("watching; Ctrl-C ends it", summary(watcher.status))
        watcher.run(stop)
