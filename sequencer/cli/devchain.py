"""A development chain by itself, and its clock: for drills, where a chain outlives its exchange and days must pass."""

import contextlib
import signal
import threading
from pathlib import Path

import click

from sequencer.cli.options import DEPLOYMENT, l1_url_of, print_result, with_json
from sequencer.cli.output import Duration, fail, people
from sequencer.wire.option_types import URL


@click.group()
def devchain() -> None:
    """Run a development chain, or advance its clock."""


@devchain.command()
@click.argument("name", type=click.Choice(["pyevm", "anvil", "hardhat"]), default="pyevm")
@click.option("--port", type=click.IntRange(1, 65_535), default=8545, show_default=True, help="on 127.0.0.1")
def run(name: str, port: int) -> None:
    """Run a development chain until Ctrl-C: NAME is pyevm (embedded), anvil or hardhat (from npm, pinned)."""
    from sequencer.l1.chains import start
    from sequencer.l1.errors import L1Error

    stop = threading.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: stop.set())
    try:
        with start(name, port=port) as started:
            people.print(
                f"{name} on {started.url}, chain id {started.chain_id}; Ctrl-C ends it", highlight=False
            )
            while not stop.wait(0.5):
                if started.process is not None and started.process.poll() is not None:
                    raise fail(
                        f"{name} has ended, status {started.process.returncode} (log: {started.log_path})"
                    )
    except (L1Error, OSError) as error:
        raise fail(str(error)) from error


@devchain.command()
@click.argument("duration", type=Duration())
@click.option(
    "--l1", "l1_url", type=URL, help="JSON-RPC URL of the chain  [default: that of `fairstrike up`]"
)
@click.option("--deployment", type=click.Path(path_type=Path), default=DEPLOYMENT, show_default=True)
@with_json
def later(duration: int, l1_url: str | None, deployment: Path, as_json: bool) -> None:
    """Advance the clock of a development chain by DURATION (7d, 3d2h, 600s): it mines a block that much later."""
    from sequencer.clock import utc
    from sequencer.l1.chains import Chain
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc

    url = l1_url_of(deployment, l1_url)
    with contextlib.closing(Rpc(url)) as rpc:
        try:
            attached = Chain("url", url, rpc.chain_id(), rpc)
            now_s = attached.set_time(attached.head_time_s() + duration)
        except L1Error as error:
            raise fail(f"{url}: not a development chain's clock: {error}") from error
    print_result("L1", {"time": now_s, "utc": utc(now_s)}, as_json)
