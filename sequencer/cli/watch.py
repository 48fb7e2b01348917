"""For anyone: watch an exchange from L1 alone, raise alarms, challenge what is wrong."""

import contextlib
import html
import http.server
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from sequencer.cli.archive import blobs_in, with_archive
from sequencer.cli.output import bars, fail, people, plain, show, write_json
from sequencer.cli.trade import l1_url_of, on_l1, with_params

STATUS_FOLDER = Path("var/watch")
WRONG = 2  # exit status of --once when a batch is wrong


@click.command()
@on_l1
@with_params
@with_archive
@click.option("--challenge", is_flag=True, help="challenge a wrong batch; needs a key with some ETH")
@click.option("--keystore", type=click.Path(path_type=Path, exists=True), help="web3 keystore file")
@click.option("--devnet-key", type=click.IntRange(0, 9), help="a development account")
@click.option(
    "--status-port", type=click.IntRange(0, 65_535), help="serve the status on 127.0.0.1 (/, /status.json)"
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
    help="seconds that an inbox message may wait before it is an alarm",
)
@click.option("--poll", "poll_s", type=float, default=1.0, show_default=True, help="seconds between looks")
@click.option(
    "--once", is_flag=True, help="look once, print the status, and end: 0 when all is right, else 2"
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
) -> None:
    """Rebuild the exchange from L1, compare every root, and say, or challenge, what is wrong. Ends with Ctrl-C."""
    from sequencer import parameters
    from sequencer.cli.trade import _key
    from sequencer.engine import ReplayError
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer
    from sequencer.proof.challenger import Challenger
    from sequencer.proof.watcher import WatchConfig, Watcher

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc, contextlib.ExitStack() as stack:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            params = parameters.of_deployment(at, params_path)
            challenger = None
            if challenge:
                challenger = Challenger(rpc, at, Signer(_key(keystore, devnet_key)), folder)
            config = WatchConfig(confirmations=confirmations, late_s=late_s, poll_s=poll_s)
            kept = stack.enter_context(blobs_in(archive))
            with bars() as progress:
                watcher = Watcher(rpc, at, params, folder, config, challenger, progress, kept)
                stack.callback(watcher.close)
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
            port = stack.enter_context(serve(watcher, status_port))
            people.print(f"status: http://127.0.0.1:{port}/")
        if challenger is None:
            people.print("alarms only: nothing is challenged without --challenge")
        show("watching; Ctrl-C ends it", summary(watcher.status))
        watcher.run(stop)


def summary(status: dict[str, Any]) -> dict[str, Any]:
    """The status without its lists."""
    return {name: value for name, value in status.items() if name != "alarms"}


@contextlib.contextmanager
def serve(watcher: Any, port: int) -> Iterator[int]:
    """Serves `watcher.status` on loopback, on a thread of its own; the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = watcher.status
            if self.path in ("/status.json", "/status.json?"):
                self._answer(200, "application/json", msgspec.json.encode(plain(status)))
            elif self.path == "/":
                self._answer(200, "text/html; charset=utf-8", page(status).encode())
            else:
                self._answer(404, "text/plain", b"/ or /status.json\n")

        def _answer(self, code: int, of_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", of_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def page(status: dict[str, Any]) -> str:
    """The status as a small page that loads itself anew."""

    def rows(values: dict[str, Any]) -> str:
        return "".join(
            f"<tr><th>{html.escape(name.replace('_', ' '))}<td>{html.escape(str(value))}"
            for name, value in values.items()
            if value is not None and value != ""
        )

    fault = status["fault"]
    head = "all batches are right" if status["ok"] else "look at the alarms"
    alarms = "".join(f"<li>{html.escape(alarm['what'])}" for alarm in reversed(status["alarms"]))
    plain_rows = {
        name: value for name, value in summary(status).items() if name not in ("fault", "challenge")
    }
    wrong = f"<h2>wrong batch</h2><table>{rows(fault)}</table>" if fault else ""
    challenged = status["challenge"]
    wrong += f"<h2>challenge</h2><table>{rows(challenged)}</table>" if challenged else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        "<title>Fairstrike watcher</title><style>body{font:15px/1.5 system-ui;margin:2em;max-width:60em}"
        "th{text-align:left;padding-right:2em;font-weight:500}td{font-family:monospace;word-break:break-all}"
        "h1{font-size:1.3em}</style>"
        f"<h1>Fairstrike watcher: {head}</h1>{wrong}<table>{rows(plain_rows)}</table>"
        + (f"<h2>alarms</h2><ul>{alarms}</ul>" if alarms else "")
    )
