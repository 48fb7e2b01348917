"""`fairstrike feed`: the keys that sign prices, and the process that signs them."""

import contextlib
import json
import logging
import os
import secrets
import signal
import threading
from pathlib import Path

import click

from sequencer.cli.options import DEPLOYMENT, password
from sequencer.cli.output import fail, people, show, write_json
from sequencer.config import with_config
from sequencer.market.feeds import FeedSource
from sequencer.wire.option_types import HOST_PORT

KEY_VARIABLE = "FAIRSTRIKE_FEED_KEY"


@click.group()
def feed() -> None:
    """Create feed keys, or run a price feed as a separate process."""


@feed.command()
@click.option("--count", type=click.IntRange(1, 5), default=3, show_default=True, help="number of feeds")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/feeds"),
    show_default=True,
    help="folder for feed-0.json, feed-1.json …",
)
@click.option(
    "--json", "json_target", help="write the addresses as an object to a file (- for standard output)"
)
def keygen(count: int, folder: Path, json_target: str | None) -> None:
    """Create feed keys, each in its own keystore file, and print their addresses for PARAMS.

    All use one password (FAIRSTRIKE_PASSWORD, else a prompt). Existing files are not overwritten.
    """
    from eth_account import Account

    paths = [folder / f"feed-{number}.json" for number in range(count)]
    there = [path for path in paths if path.exists()]
    if there:
        raise fail(f"{there[0]} exists already, and a feed key is never overwritten: give another --folder")
    secret_word = password("password of the key files", confirms=True)
    addresses = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            key = secrets.token_bytes(32)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(Account.encrypt(key, secret_word), file)
            addresses.append(str(Account.from_key(key).address))
    except OSError as error:
        raise fail(f"{error.filename or folder}: {error.strerror}") from None
    result = {"feed_keys": addresses}
    write_json(json_target, result)
    if json_target != "-":
        show("keys of feeds", {str(path): address for path, address in zip(paths, addresses, strict=True)})
        people.print("for the file that `deploy --params` takes:", highlight=False)
        click.echo(json.dumps(result))


@feed.command()
@with_config("feed")
@click.option(
    "--source",
    required=True,
    help="file:PATH (JSON lines), http(s)://… (an array of reports), deribit:URL (that API's shape), flat:USD (drills)",
)
@click.option("--deployment", type=click.Path(path_type=Path), default=DEPLOYMENT, show_default=True)
@click.option(
    "--keystore",
    type=click.Path(path_type=Path),
    help=f"key file  [default: {KEY_VARIABLE} in the environment]",
)
@click.option(
    "--devnet-feed", type=click.IntRange(0, 2), help="sign with the well-known devnet key of this feed"
)
@click.option(
    "--list",
    "list_path",
    type=click.Path(path_type=Path),
    help="JSON list: names of options, for flat:USD alone",
)
@click.option(
    "--listen", type=HOST_PORT, help="HOST:PORT  [default: 127.0.0.1, port 9650 + the feed's number]"
)
@click.option(
    "--public", is_flag=True, help="allow --listen beyond this machine; use a reverse proxy for TLS"
)
def run(
    source: str,
    deployment: Path,
    keystore: Path | None,
    devnet_feed: int | None,
    list_path: Path | None,
    listen: str | None,
    public: bool,
) -> None:
    """Sign the reports of a source and serve the records to sequencers (`--feed signed:URL`). Ends with Ctrl-C."""
    from sequencer.api.gateway import parse_listen
    from sequencer.l1 import parameters
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.market.signed import PORT, FeedProcess, serve
    from sequencer.protocol import codec

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    found = source_of(source, list_path)
    secret, address = _key(keystore, devnet_feed)
    try:
        at = Deployment.load(deployment)
        params = parameters.of_deployment(at, None)
    except (L1Error, ValueError) as error:
        raise fail(f"--deployment: {error}") from None
    if address not in params.feed_keys:
        raise fail(
            f"0x{address.hex()} is no feed of this exchange; PARAMS has "
            + ", ".join("0x" + one.hex() for one in params.feed_keys if any(one))
        )
    number = params.feed_keys.index(address)
    try:
        host, port = parse_listen(listen or f"127.0.0.1:{PORT + number}", public)
    except ValueError as error:
        raise click.UsageError(f"--listen {error}") from None
    domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
    process = FeedProcess(found, number, secret, domain)
    stop = threading.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        try:
            bound = stack.enter_context(serve(process, host, port))
        except OSError as error:
            raise fail(f"--listen {host}:{port}: {error.strerror}") from None
        click.echo(
            json.dumps({"feed": number, "address": "0x" + address.hex(), "url": f"http://{host}:{bound}"})
        )
        process.run(stop)


def _key(keystore: Path | None, devnet_feed: int | None) -> tuple[bytes, bytes]:
    """The private key and its address (20 bytes). Never shown."""
    from sequencer.development import feed_key
    from sequencer.protocol.hashing import address_of, public_key_of

    if keystore is not None:
        from eth_account import Account

        try:
            secret = bytes(Account.decrypt(keystore.read_text(), password(f"password of {keystore}")))
        except OSError as error:
            raise fail(f"--keystore {keystore}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise fail(f"--keystore {keystore}: no web3 key file, or another password") from None
    elif devnet_feed is not None:
        secret = feed_key(devnet_feed)
    else:
        try:
            secret = bytes.fromhex(os.environ.get(KEY_VARIABLE, "").strip().removeprefix("0x"))
        except ValueError:
            secret = b"-"
        if not secret:
            raise fail(
                f"no key: give --keystore FILE (`fairstrike feed keygen` creates it), or set {KEY_VARIABLE}"
            )
    try:
        return secret, address_of(public_key_of(secret))
    except ValueError:
        raise fail(f"{keystore or KEY_VARIABLE}: must hold a private key, 64 hex digits") from None


def source_of(source: str, list_path: Path | None) -> FeedSource:
    """The source that a text names, on a thread of its own where it can be slow. Raises click's errors."""
    from sequencer.node.startup import NodeError, listing, named_source

    if source == "none" or source.startswith("signed:"):
        raise fail(
            f"--source {source}: a feed signs unsigned reports: file:PATH, http(s)://…, deribit:URL, flat:USD"
        )
    try:
        return named_source(source, listing(list_path))
    except NodeError as error:
        raise fail(str(error).replace("--feed", "--source")) from None
