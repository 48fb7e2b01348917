"""`fairstrike exit`: out of a frozen exchange, without its operator."""

import contextlib
from pathlib import Path
from typing import Any

import click

from sequencer.cli.archive import blobs_in, with_archive
from sequencer.cli.options import journalled, key_of, l1_url_of, on_l1, with_keystore, with_params
from sequencer.cli.output import bars, fail, people, show, show_rows, usd, write_json

STEPS = ("now", "fix", "declare", "claim", "all")
LINES_SHOWN = 50  # of the statement, to people; JSON has them all


@click.command("exit")
@click.option("--step", type=click.Choice(STEPS), default="all", show_default=True)
@click.option("--all", "everybody", is_flag=True, help="for every account: payouts always go to the owners")
@click.option("--freeze", "freezes", is_flag=True, help="freeze the rollup first, unless it is frozen")
@click.option("--dry-run", is_flag=True, help="print the transactions, send nothing; needs no key with --all")
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
@with_keystore
@with_archive
@on_l1
@with_params
def exit_command(
    step: str,
    everybody: bool,
    freezes: bool,
    dry_run: bool,
    json_target: str | None,
    keystore: Path | None,
    devnet_key: int | None,
    l1_url: str | None,
    deployment: Path,
    params_path: Path | None,
    archive: Path | None,
) -> None:
    """Exit a frozen exchange: positions are closed at the last proven marks, and accounts are paid out.

    Rebuilds the last final state from L1 alone, runs every step that is possible, and prints the payments made, and
    what is still due and when. It can be run again at any time, and continues from there.
    """
    from sequencer.clock import utc
    from sequencer.engine.engine import ReplayError
    from sequencer.l1 import parameters
    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.rpc import Rpc
    from sequencer.l1.signing import Signer
    from sequencer.proof.leaving import Leaving, Row, exit_state, freeze
    from sequencer.proof.statement import statement

    needs_key = not (dry_run and everybody)
    signer = Signer(key_of(keystore, devnet_key)) if needs_key else None

    def told(row: Row) -> None:
        paid = f", {usd(row.paid)} USD" if row.paid else ""
        people.print(
            f"{row.step}: {row.what}: {row.result}{paid}", highlight=False, markup=False, soft_wrap=True
        )

    with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
        try:
            at = Deployment.load(deployment)
            at.check(rpc)
            params = parameters.of_deployment(at, params_path)
            wallet = journalled(rpc, signer, at) if signer else None
            if freezes and wallet and not dry_run:
                told(Row("freeze", "rollup", "done" if freeze(rpc, at, wallet) else "frozen already"))
            with bars() as progress, blobs_in(archive) as kept:
                state = exit_state(rpc, at, params, progress, kept)
            leaving = Leaving(rpc, at, state, None if dry_run else wallet, told)
            owner = None if everybody or signer is None else signer.address.lower()
            accounts = [n for n, one in state.accounts.items() if owner in (None, "0x" + one.owner.hex())]
            if not accounts:
                people.print(
                    f"the exit state has no account of {owner or 'anybody'}: only deposits to refund"
                )
            leaving.run(step, sorted(accounts), owner)
            if wallet is not None:
                wallet.told()
            known = statement(rpc, at, leaving)
        except (L1Error, ReplayError, RuntimeError, OSError, ValueError) as error:
            raise fail(str(error)) from error
    lines = [line for line in known.lines if owner in (None, line.owner)]
    is_over = all(line.to_come == 0 for line in lines)
    next_s = min((row.until_s for row in leaving.rows if row.until_s), default=0)
    result: dict[str, Any] = {
        "root": "0x" + leaving.proofs.root.hex(),
        "frozen_at": known.frozen_at,
        "accounts": len(accounts),
        "paid": sum(row.paid for row in leaving.rows),
        "paid_since_freeze": sum(line.paid for line in lines),
        "vault": known.vault,
        "is_over": is_over,
        "run_again_at": next_s,
        "gas": sum(row.gas for row in leaving.rows),
        "refused": sum(row.result.startswith("refused") for row in leaving.rows),
    }
    rows = [
        {"step": r.step, "what": r.what, "result": r.result, "paid": r.paid, "gas": r.gas, "until": r.until_s}
        for r in leaving.rows
    ]
    statement_json = [one for one in known.as_json() if owner in (None, one["owner"])]
    write_json(json_target, result | {"dry_run": dry_run, "steps": rows, "statement": statement_json})
    if json_target == "-":
        return
    for name in ("paid", "paid_since_freeze", "vault"):
        result[name] = f"{usd(result[name])} USD"
    result["frozen_at"] = utc(known.frozen_at)
    result["run_again_at"] = utc(next_s) if next_s else "nothing waits for a time"
    show("exit" + (" (dry run)" if dry_run else ""), result)
    show_statement(statement_json)


def show_statement(lines: list[dict[str, Any]]) -> None:
    """Who got what, for people."""
    show_rows("who got what since the freeze, USD", [_row(line) for line in lines[:LINES_SHOWN]])
    if len(lines) > LINES_SHOWN:
        people.print(f"... and {len(lines) - LINES_SHOWN} more: --json has them all")


def _row(line: dict[str, Any]) -> dict[str, str]:
    to_come = line["to_come"]
    what = usd(to_come) if to_come else "-"
    return {
        "account": str(line["account"] or "-"),
        "owner": f"{line['owner'][:8]}…{line['owner'][-4:]}",
        "on its way": usd(line["withdrawals"] + line["refunds"]),
        "at once": usd(line["at_once"]),
        "rest": usd(line["rest"] + line["house"]),
        "together": usd(line["paid"]),
        "to come": what,
        "when": line["waits_for"] or ("now" if to_come else "-"),
    }
