"""Builds a node's keys, deployment and feeds from options, files and the environment."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sequencer.development import FEEDS as FEEDS_OF_A_DEVNET
from sequencer.development import devnet_params, feed_key
from sequencer.keeper.keeper import Terms
from sequencer.l1 import parameters
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import DeploymentError, L1Error, RpcUnavailable
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.market.feeds import FeedSource
from sequencer.market.sources import UnknownSource, feed_source
from sequencer.market.tape import TapeError, parse_instrument
from sequencer.node.check import INDEX_REMEDY, REMEDIES, check_folder
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params

KEY_VARIABLE = "FAIRSTRIKE_SEQUENCER_KEY"
OLD_PASSWORD_VARIABLE = "FAIRSTRIKE_KEYSTORE_PASSWORD"  # noqa: S105  # as it was called here before
PASSWORD_VARIABLE = "FAIRSTRIKE_PASSWORD"  # noqa: S105  # the name of a variable
FEED_KEYS_VARIABLE = "FAIRSTRIKE_FEED_KEYS"
FEEDS = (
    "signed:URL (a `fairstrike feed run`), or, signed by this process with the keys in "
    f"{FEED_KEYS_VARIABLE}: file:PATH (JSON lines), http(s)://…, deribit:URL, flat:USD (drills)"
)

STORES = ("log.sqlite", "batches.sqlite", "l1.sqlite")  # without which there is no start
MADE_AGAIN = (INDEX_REMEDY, REMEDIES["batches"])

logger = logging.getLogger(__name__)


class NodeError(Exception):
    """The node cannot start: the message names the option, variable or file, and the fault."""


def check_stores(folder: Path) -> None:
    """Checks the stores before anything uses them.

    Damage that opening a store repairs is no error. Raises NodeError.
    """
    if not any(folder.glob("*.sqlite")):
        return
    for one in check_folder(folder, whole_log=False):
        for found in one.findings:
            logger.error("%s: %s", one.store, found.what)
            if one.store in STORES and found.remedy not in MADE_AGAIN:
                raise NodeError(f"--folder {folder}: {one.store}: {found.what}: {found.remedy}")


def sequencer_key(keystore: Path | None, devnet: bool) -> Signer:
    """The bonded key: from the keystore file, else the environment, else, on a devnet, the first well-known one."""
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
    """Private keys of the feeds that sign in this process, in PARAMS' order: from the environment, else a devnet's.

    Raises NodeError for a malformed key, or one that differs from PARAMS at its position.
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


def named_source(
    feed: str, wanted: list[Terms], keys: Sequence[bytes] = (), domain: bytes = b""
) -> FeedSource:
    """The source that `--feed` names (market/sources.py). Raises NodeError."""
    try:
        return feed_source(feed, wanted, keys, domain)
    except UnknownSource:
        raise NodeError(f"--feed must be {FEEDS}, got {feed!r}") from None
    except ValueError as error:
        raise NodeError(f"--feed {feed}: {error}") from None


def feed_sources(
    feeds: Sequence[str], wanted: list[Terms], at: Deployment, params: Params
) -> list[FeedSource]:
    """One source for each `--feed`."""
    domain = domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
    return [named_source(feed, wanted, params.feed_keys, domain) for feed in feeds if feed != "none"]


def checked_deployment(
    path: Path, l1_url: str, params_path: Path | None, devnet: bool
) -> tuple[Deployment, Params]:
    """The deployment and its parameters, if they belong together. L1 is also asked, if it answers."""
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
