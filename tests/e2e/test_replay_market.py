"""`fairstrike replay-market`: a generated day of ETH in Deribit's own format, recorded from a server, runs whole."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.cli import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "market"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from deribit_day import bars, index_at, server, trades

ROWS = trades(60)
EXPIRY_MS = 1_683_878_400_000


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run on what scripts/record_tape.py has recorded."""
    folder = tmp_path_factory.mktemp("day")
    script = Path(__file__).resolve().parents[2] / "scripts" / "record_tape.py"
    with server(ROWS, bars(), page=25) as url:
        command = [sys.executable, str(script), "ETH", "2023-05-12", str(folder), "--pause", "0.001"]
        subprocess.run([*command, "--trades-url", url, "--chart-url", url], check=True, capture_output=True)
    arguments = [str(folder / "trades.jsonl"), "--index", str(folder / "index.jsonl"), "--json", "-"]
    result = CliRunner(mix_stderr=False).invoke(main, ["replay-market", *arguments])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.slow
def test_day__of_ether__runs_whole(report: dict[str, Any]) -> None:
    assert all(report["checks"].values())
    assert report["underlyings"] == ["ETH"]
    assert (report["tape_trades"], report["real_trades"], report["trades_refused"]) == (60, 60, {})
    assert report["instruments"] == len({row["instrument_name"] for row in ROWS})
    assert report["replayed_root"] == report["final_root"]
    assert report["vault_balance"] == report["l2_liabilities"]
    assert report["fills"] == 60 + sum("quantity" in one for one in report["over_sold"])


@pytest.mark.slow
def test_day__settles_what_expires_in_it_at_the_bars_average(report: dict[str, Any]) -> None:
    names = [(one["underlying"], one["expiry"]) for one in report["settlements"]]
    assert names == [("ETH", "2023-05-12 08:00:00 UTC"), ("ETH", "2023-05-13 08:00:00 UTC")]
    minutes = [index_at(EXPIRY_MS - 60_000 * back) for back in range(30, 0, -1)]
    average = sum(minutes, Decimal(0)) / 30
    assert abs(Decimal(report["settlements"][0]["price"]) - average) <= Decimal("0.02")
    assert report["settlements"][0]["accounts_paid"] >= 2


@pytest.mark.slow
def test_day__liquidates_who_falls(report: dict[str, Any]) -> None:
    puts = next(one for one in report["over_sold"] if one["sells"] == "puts")
    assert puts["instrument"].startswith("ETH-26MAY23-")
    assert report["liquidations"] >= 1
    assert report["auction_bids"] >= 1


def test_path__that_does_not_fit__fails_with_what_was_expected(tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        result = CliRunner(mix_stderr=False).invoke(main, ["replay-market", *arguments])
        assert result.exit_code == 1
        assert result.stdout == ""
        return result.stderr

    tape = tmp_path / "trades.jsonl"
    tape.write_text("\n".join(map(json.dumps, ROWS)))
    assert "is expected; there is nothing of that name" in told(str(tmp_path / "none"), "--index", str(tape))
    assert "is expected; given: BTC=" in told(str(tape), "--index", f"BTC={tape}")
    assert "No such file" in told(str(tape), "--index", "/nowhere.csv")
