"""`fairstrike exit`: out of a frozen exchange, without its operator."""

import contextlib
from pathlib import Path
from typing import Any

import click

from sequencer.cli.output import PRICE, bars, fail, people, show, write_json
from sequencer.cli.trade import _key, _with_key, l1_url_of, on_l1

STEPS = ("now", "fix", "declare", "claim", "all")


@click.command("exit")
@click.option("--step", type=click.Choice(STEPS), default="all", show_default=True)
@click.option("--all", "everybody", is_flag=True, help="for every account: payouts always go to the owners")
@click.option(
    "--reports", type=click.Path(path_type=Path, exists=True), help="signed FEED records, one in hex a line"
)
@click.option("--freeze", "freezes", is_flag=True, help="call Rollup.freeze first")
@click.option(
    "--devnet-price", type=PRICE, help="let the development feeds sign this price, USD, of what has expired"
)
@click.option("--dry-run", is_flag=True, help="say what would be sent, send nothing; needs no key")
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
@_with_key
@on_l1
def exit_command(
    step: str,
    everybody: bool,
    reports: Path | None,
    freezes: bool,
    devnet_price: str | None,
    dry_run: bool,
    json_target: str | None,
    keystore: Path | None,
    devnet_key: int | None,
    l1_url: str | None,
    deployment: Path,
) -> None:
    """Leave a frozen exchange: money at once, then the rest when settlement prices are fixed.

    Rebuilds the last final state from L1 alone. Run it again at any time: it goes on where things stand.
    """
    from sequencer.api.jsonrpc import PRICE_DECIMALS, to_units
    from sequencer.engine import ReplayError
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer
    from sequencer.l1.wallet import Wallet
    from sequencer.local.devnet import devnet_params
    from sequencer.proof.leaving import Leaving, Row, development_reports, exit_state, freeze, read_reports

    needs_key = not (dry_run and everybody)
    signer = Signer(_key(keystore, devnet_key)) if needs_key else None

    def told(row: Row) -> None:
        paid = f", {row.paid / 10**6:,.6f} USD" if row.paid else ""
        people.print(f"{row.step}: {row.what}: {row.result}{paid}", highlight=False, markup=False)

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            records = read_reports(reports.read_text()) if reports else []
            at = Deployment.load(deployment)
            at.check(rpc)
            wallet = Wallet(rpc, signer, at) if signer else None
            if freezes and wallet and not dry_run:
                freeze(wallet)
            with bars() as progress:
                state = exit_state(rpc, at, devnet_params(), progress)
            leaving = Leaving(rpc, at, state, None if dry_run else wallet, told)
            if devnet_price is not None:
                ticks = to_units(devnet_price, PRICE_DECIMALS)
                records += development_reports(state, leaving.now_s(), ticks)
            own = [wallet.account()] if wallet else []
            accounts = sorted(state.accounts) if everybody else own
            run(leaving, step, accounts, records, None if everybody or signer is None else signer.address)
        except (L1Error, ReplayError, RuntimeError, OSError, ValueError) as error:
            raise fail(str(error)) from error
    result: dict[str, Any] = {
        "root": "0x" + leaving.proofs.root.hex(),
        "accounts": len(accounts),
        "paid": sum(row.paid for row in leaving.rows),
        "gas": sum(row.gas for row in leaving.rows),
        "refused": sum(row.result.startswith("refused") for row in leaving.rows),
    }
    rows = [
        {"step": r.step, "what": r.what, "result": r.result, "paid": r.paid, "gas": r.gas}
        for r in leaving.rows
    ]
    write_json(json_target, result | {"dry_run": dry_run, "steps": rows})
    if json_target != "-":
        show("exit" + (" (dry run)" if dry_run else ""), result)


def run(leaving: Any, step: str, accounts: list[int], records: list[bytes], owner: str | None) -> None:
    """The steps that `step` names, for `accounts`; refunds for `owner`, None: for everybody."""
    leaving.begin()
    if step in ("now", "all"):
        leaving.money(accounts)
        leaving.refunds(None if owner is None else {owner.lower()})
        leaving.now(accounts)
    if step in ("fix", "all"):
        leaving.fix(records)
    if step in ("declare", "all"):
        leaving.declare(accounts)
    if step in ("claim", "all"):
        leaving.claim(accounts)
