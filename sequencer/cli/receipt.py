"""`fairstrike receipt`: what a receipt says, whether it was signed, and what L1 says of it."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sequencer.cli.options import (
    key_of,
    l1_url_of,
    on_l1,
    print_result,
    wallet_of,
    with_json,
    with_keystore,
    with_params,
)
from sequencer.cli.output import fail
from sequencer.wire.option_types import ETH_ADDRESS

if TYPE_CHECKING:
    from sequencer.proof.receipts import Answer
    from sequencer.sdk.receipts import Opened

SLASH_GAS = 8_000_000
SETTLED = ("honoured", "pending")


@click.group()
def receipt() -> None:
    """Check the receipts that acknowledgements carry."""


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key", type=ETH_ADDRESS, help="address that may have signed  [default: any; with --l1: a member's]"
)
@click.option(
    "--against-l1", is_flag=True, help="also ask L1: honoured, pending or broken; needs --deployment"
)
@click.option("--slash", "slashes", is_flag=True, help="send the proof of a broken one; needs a key for L1")
@on_l1
@with_params
@with_keystore
@with_json
def verify(
    file: Path,
    key: str | None,
    against_l1: bool,
    slashes: bool,
    l1_url: str | None,
    deployment: Path,
    params_path: Path | None,
    as_json: bool,
    keystore: Path | None,
    devnet_key: int | None,
) -> None:
    """Check the receipts in FILE: form, signature, path, record and outcome; with --l1 URL what L1 says of them.

    Exits with 1 when one is not valid, or broken. `--slash` first commits to the proof, then sends it a block later.
    """
    from sequencer.sdk.receipts import ReceiptWrong, load

    against_l1 = against_l1 or l1_url is not None or slashes
    if against_l1:
        _check_deployment(l1_url, deployment)
    try:
        kept = load(file)
    except ReceiptWrong as error:
        raise fail(str(error)) from error
    rows: list[dict[str, Any]] = []
    for one in kept:
        row: dict[str, Any] = {"valid": False, "state": None, "misdeed": None}
        rows.append(row)
        try:
            opened = one.open()
        except ReceiptWrong as error:
            row["why"] = str(error)
            continue
        signer = "0x" + opened.signer.hex()
        row |= {"valid": key is None or signer == key.lower(), "signer": signer, "tick": opened.header.tick}
        row |= {"seqs": opened.seqs, "time_ns": opened.header.time_ns, "epoch": opened.header.epoch}
        if not row["valid"]:
            row["why"] = f"{signer} has signed, not {key}"
        elif against_l1:
            answer = _ask_l1(opened, l1_url, deployment, params_path)
            if isinstance(answer, str):
                row |= {"valid": False, "why": answer}
                continue
            row |= {"state": answer.state, "misdeed": answer.misdeed or None, "why": answer.why}
            row |= {"due_s": answer.due_s, "batch_id": answer.batch_id or None}
            if answer.proof is not None and slashes:
                row["tx"] = _slash(answer, deployment, l1_url, key_of(keystore, devnet_key))
    print_result("receipt", rows[0] if len(rows) == 1 else rows, as_json)
    if not all(row["valid"] and row["state"] in (None, *SETTLED) for row in rows):
        raise click.exceptions.Exit(1)


def _check_deployment(l1_url: str | None, deployment: Path) -> None:
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            Deployment.load(deployment).check(rpc)
        except L1Error as error:
            raise fail(str(error)) from error


def _ask_l1(
    opened: "Opened", l1_url: str | None, deployment: Path, params_path: Path | None
) -> "Answer | str":
    """L1's word on a receipt, or why it is none."""
    from sequencer.genesis import genesis_state
    from sequencer.l1 import parameters
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.proof.receipts import inquire
    from sequencer.sdk.receipts import ReceiptWrong

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            if (at.chain_id, at.rollup.lower()) != (opened.receipt.chain_id, opened.receipt.rollup.lower()):
                named = f"chain {opened.receipt.chain_id}, rollup {opened.receipt.rollup}"
                return f"it is of another exchange ({named}) than {deployment}"
            params = parameters.of_deployment(at, params_path)
            return inquire(rpc, at, opened, genesis_state(opened.receipt.domain(), params))
        except ReceiptWrong as error:
            return str(error)
        except L1Error as error:
            raise fail(str(error)) from error


def _slash(answer: "Answer", deployment: Path, l1_url: str | None, key: bytes) -> str:
    """Commits to the proof, and sends it from a block later; the transaction's hash."""
    import secrets

    from sequencer.l1.deploy import Deployment
    from sequencer.l1.rpc import Rpc
    from sequencer.proof.receipts import ask, judge

    assert answer.proof is not None
    at = Deployment.load(deployment)
    with (
        wallet_of(deployment, l1_url, key) as wallet,
        contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc,
    ):
        verdict = ask(rpc, at, answer.proof)
        salt = secrets.token_bytes(32)
        commitment = answer.proof.commitment(wallet.address, salt, verdict)
        wallet.transact("commit", at.receipts, judge().encode("commit", commitment), 0, 100_000)
        # it is mined when this returns, so that the next transaction is of a later block
        return str(wallet.transact("slash", at.receipts, answer.proof.slash(salt), 0, SLASH_GAS).tx_hash)
