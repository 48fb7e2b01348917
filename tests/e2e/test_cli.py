"""The command line as people and programs use it: every answer from a process of its own, or from click's runner."""

import json
import signal
import sys
import time
from math import log, sqrt
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sequencer.cli import main
from sequencer.market.quant import price_option

sys.path.insert(0, str(Path(__file__).resolve().parent))
from up_support import alive, an_option, answer, clean_up, retry, run, start_up, up  # noqa: F401  # a fixture

YEAR_S = 365 * 86_400


# --- quants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "forward", "strike", "iv", "seconds"),
    [
        ("call", "46219.79", "48000", "67.48%", 115_180),
        ("put", "46219.79", "30000", "1.1", 86_400 * 27),
        ("call", "46219.79", "46219.79", "0.35", 3_600),  # with --any: off the grid
        ("put", "1000", "60000", "0.8", YEAR_S),  # and too far away
    ],
)
def test_price__any_option__is_the_cores_and_the_textbooks(kind, forward, strike, iv, seconds):
    norm = pytest.importorskip("scipy.stats").norm
    got = answer(
        "price", "--type", kind, "--forward", forward, "--strike", strike, "--iv", iv, "--expires-in", str(seconds),
        "--json", "--any",
    )  # fmt: skip
    core = price_option(kind, forward, strike, iv, seconds)
    assert got["mark"] == f"{core['mark']:f}"
    assert got["mark_ticks"] == core["mark_ticks"]
    assert got["scenarios"] == [f"{one:f}" for one in core["scenarios"]]
    f, k = float(forward), float(strike)
    volatility = float(iv.removesuffix("%")) / (100 if iv.endswith("%") else 1)
    s = volatility * sqrt(seconds / YEAR_S)
    d1 = log(f / k) / s + s / 2
    sign = 1 if kind == "call" else -1
    mark = sign * (f * norm.cdf(sign * d1) - k * norm.cdf(sign * (d1 - s)))
    assert float(got["mark"]) == pytest.approx(mark, abs=1e-4)
    assert float(got["delta"]) == pytest.approx(sign * norm.cdf(sign * d1), abs=1e-4)
    assert float(got["vega"]) == pytest.approx(f * norm.pdf(d1) * sqrt(seconds / YEAR_S) / 100, abs=1e-4)


@pytest.mark.parametrize(("option", "value"), [("--iv", "much"), ("--forward", "-1"), ("--strike", "1e400")])
def test_price__a_number_out_of_range__is_an_error_of_one_line(option, value):
    options = {"--forward": "46000", "--strike": "46000", "--iv": "0.6"} | {option: value}
    result = run(
        "price", "--type", "call", "--expires-in", "60", *(x for pair in options.items() for x in pair)
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def portfolio(**changes: Any) -> str:
    position = {
        "type": "put", "forward": "46219.79", "strike": "45000", "iv": "0.67", "expires_in": 86400, "quantity": "-1.5",
    } | changes  # fmt: skip
    return json.dumps({"cash": "10000.00", "index": "46219.79", "positions": [position]})


def test_margin__a_short_put_from_standard_input__is_worst_scenario_and_floor():
    got = answer("margin", "-", "--json", stdin=portfolio())
    one = price_option("put", "46219.79", "45000", "0.67", 86_400)
    scenarios = [-1.5 * float(pnl) for pnl in one["scenarios"]]
    got = {name: float(got[name]) for name in ("initial_margin", "maintenance_margin", "equity")} | {
        "scenarios": [float(one) for one in got["scenarios"]],
        "worst_scenario": got["worst_scenario"],
    }
    assert got["scenarios"] == pytest.approx(scenarios)
    assert got["worst_scenario"] == min(range(16), key=scenarios.__getitem__)
    floor = 1.5 * 46219.79 * 0.01
    assert got["initial_margin"] == pytest.approx(floor - min(scenarios), abs=1e-5)
    assert got["maintenance_margin"] == pytest.approx(0.8 * got["initial_margin"], abs=1e-5)
    assert got["equity"] == pytest.approx(10_000 - 1.5 * one["mark_ticks"] / 100)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "portfolio"),
        (portfolio(quantity="0.00001"), "positions[0].quantity"),
        (portfolio(iv="x"), "positions[0].iv"),
    ],
)
def test_margin__a_portfolio_that_is_none__names_the_field(text, names):
    result = run("margin", "-", stdin=text)
    assert result.exit_code == 1
    assert names in result.stderr


def test_match__commands_from_standard_input__trade_at_the_makers_price():
    lines = [
        {"op": "place", "id": 1, "side": "sell", "price": "101.00", "qty": "2"},
        {"op": "place", "id": 2, "side": "sell", "price": "100.50", "qty": "1"},
        {"op": "place", "id": 3, "side": "buy", "price": "101.00", "qty": "1.5", "tif": "IOC"},
    ]
    result = run("match", "-", "--json", stdin="\n".join(map(json.dumps, lines)))
    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"maker": 2, "taker": 3, "price": "100.50", "qty": "1"},
        {"maker": 1, "taker": 3, "price": "101.00", "qty": "0.5"},
    ]


# --- help and mistakes ---------------------------------------------------------------------------


def test_help__of_each_command__shows_its_options():
    listed = run("--help").stdout
    for command in main.list_commands(None):  # type: ignore[arg-type]  # it needs none
        assert f"\n  {command} " in listed
        shown = run(command, "--help")
        assert shown.exit_code == 0
        assert "Usage: " in shown.stdout
    demo = run("demo", "--help").stdout
    assert all(option in demo for option in ("--chain", "--tape", "--seed", "--json"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["account"], "no key"),
        (["account", "1", "--api", "nowhere"], "must be http://"),
        (["account", "1", "--api", "http://127.0.0.1:1"], "no connection to http://127.0.0.1:1"),
        (["withdraw", "1", "--devnet-key", "1", "--api", "nowhere"], "must be http://"),
        (["withdraw", "0", "--devnet-key", "1"], "a multiple of 0.000001"),
        (
            ["order", "place", "BTC-1JAN30-1-C", "buy", "0.00001", "1", "--devnet-key", "1"],
            "a multiple of 0.0001",
        ),
        (["deposit", "abc"], "a decimal number"),
        (["deposit", "1", "--devnet-key", "1", "--deployment", "/nowhere/deployment.json"], "give --l1"),
        (["replay", "--l1", "http://127.0.0.1:1", "--deployment", "/nowhere"], "not a deployment"),
        (["margin", "/nowhere"], "No such file"),
        (["up", "--feed", "smoke:1"], "--feed must be"),
        (["up", "--feed", "flat:much"], "a price in USD"),
        (["up", "--feed", "flat:BTC=46000,DOGE=1"], "one for each of BTC, ETH"),
        (["chain", "later", "7d"], "`fairstrike devchain later 7d` now"),
        (["chain", "run"], "`fairstrike devchain run` now"),
        (
            ["order", "place", "BTC-1JAN30-1-C", "hold", "1", "1", "--devnet-key", "1"],
            "SIDE must be buy or sell",
        ),
        (["signer", "grant", "0x12", "--devnet-key", "1"], "must be an address"),
        (["faucet", "--ether", "0"], "above 0"),
        (["faucet", "0x" + "11" * 20, "--devnet-key", "1"], "not both"),
        (["up", "--feed", "file:/nowhere"], "no such file"),
        (["up", "--chain", "http://127.0.0.1:1"], "no answer from http://127.0.0.1:1"),
    ],
)
def test_command__that_cannot_run__says_why_in_words(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = ["--folder", str(tmp_path), "--port", "0"] if args[0] == "up" else []
    result = run(*args, *folder)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)  # no traceback
    assert says in result.stderr


# --- the exchange on one machine -----------------------------------------------------------------


@pytest.mark.slow
def test_up__a_trading_day_from_the_shell__ends_cleanly(up, tmp_path):  # noqa: F811
    seller, buyer = ["--devnet-key", "1"], ["--devnet-key", "2"]
    name = an_option(up)

    # trade
    mark = retry(lambda: up.call("book", name), lambda got: float(got["mark"]) > 0)["mark"]
    ask = f"{float(mark) + 20:.2f}"
    placed = up.call("order", "place", name, "sell", "0.5", ask, *seller)
    assert placed["order"]["quantity"] == "0.5000"
    bought = up.call("order", "place", name, "buy", "0.1", ask, "--tif", "IOC", *buyer)
    assert [(fill["price"], fill["quantity"]) for fill in bought["fills"]] == [(ask, "0.1000")]
    rests = up.call("order", "list", *seller)
    assert [(one["seq"], one["quantity"]) for one in rests] == [(placed["seq"], "0.4000")]
    assert up.call("book", name)["asks"] == [[ask, "0.4000", 1]]
    less = up.call("order", "amend", str(placed["seq"]), "--quantity", "0.3", *seller)
    assert (less["order"]["quantity"], less["order"]["filled"]) == ("0.2000", "0.1000")
    more = up.call("order", "amend", str(placed["seq"]), "--quantity", "0.5", *seller)
    assert (more["amended"], more["order"]["quantity"]) == (placed["seq"], "0.4000")
    assert "give --quantity, --price, or both" in run("order", "amend", str(more["seq"]), *seller).stderr
    placed = more
    up.call("order", "cancel", name, "sell", ask, str(placed["seq"]), *seller)
    assert up.call("order", "list", *seller) == []
    up.call("order", "place", name, "buy", "1", "1.00", "--post-only", *buyer)
    up.call("order", "cancel-all", *buyer)
    assert up.call("order", "list", *buyer) == []
    again = run("order", "cancel", name, "sell", ask, str(placed["seq"]), "--api", up.info["api"], *seller)
    assert again.exit_code == 1
    assert "No such order rests" in again.stderr

    # money in
    before = up.call("account", *buyer)
    assert before["positions"][0]["quantity"] == "0.1000"
    assert up.call("account", "--owner", before["owner"]) == before
    credited = answer("deposit", "5000.5", "--mint", *up.on_l1(), "--json", "--devnet-key", "4")
    opened = retry(
        lambda: run("account", str(credited["account"]), "--api", up.info["api"], "--json"),
        lambda got: got.exit_code == 0,
    )
    assert json.loads(opened.stdout)["cash"] == "5000.500000"

    # and out
    withdrawn = up.call("withdraw", "1000", "--devnet-key", "4")
    assert withdrawn["amount"] == "1000.000000"
    number = str(withdrawn["number"])
    claim = ["claim", number, *up.on_l1(), "--api", up.info["api"], "--devnet-key", "3"]
    early = retry(lambda: run(*claim), lambda got: "number must be that of a withdrawal" not in got.stderr)
    assert early.exit_code == 1
    from sequencer.l1.rpc import Rpc

    rpc = Rpc(up.info["l1"])
    if "not final" not in early.stderr:  # stored, and not on L1 yet
        retry(lambda: run(*claim), lambda got: "not final" in got.stderr)
    rpc.call("evm_increaseTime", 61)  # the challenge window
    rpc.call("evm_mine")
    claimed = retry(lambda: run(*claim, "--json"), lambda got: got.exit_code == 0)
    rpc.close()
    assert json.loads(claimed.stdout)["owner"] == opened_owner(opened)
    assert "Error" in run(*claim).stderr  # once

    # replay, against the root at the same sequence number
    roots = {}

    def look() -> dict[str, Any]:
        got = up.call("status")
        roots[got["seq"]] = got["root"]
        return got

    seen = look()
    retry(look, lambda got: got["batches_posted"] == got["batches_stored"] and got["seq"] > seen["seq"])

    def replayed() -> Any:
        deadline = time.monotonic() + 7  # a batch's interval, and what it takes to post
        while time.monotonic() < deadline:
            look()
        return answer("replay", *up.on_l1(), "--json", "-")

    got = retry(replayed, lambda got: got["records"] in roots, seconds=150)
    assert got["root"] == roots[got["records"]]
    assert got["accounts"] == look()["accounts"]

    # the end
    assert (tmp_path / "devnet" / "up.json").exists()
    assert len(up.children) in (2, 3)  # chain, gateway, and soon the process that talks to L1
    assert up.end() == 0
    assert not any(alive(pid) for pid in up.children)
    assert up.process.stderr.read() == ""


def opened_owner(opened: Result) -> str:
    owner: str = json.loads(opened.stdout)["owner"]
    return owner


@pytest.mark.slow
def test_up__a_second_one_in_the_folder_and_on_the_port__is_refused_and_disturbs_nothing(up, tmp_path):  # noqa: F811
    second = run("up", "--folder", str(tmp_path), "--port", "0")
    assert second.exit_code == 1
    assert "another `fairstrike up` runs" in second.stderr
    port = up.info["api"].rpartition(":")[2]
    third = run("up", "--folder", str(tmp_path / "other"), "--port", port, "--l1-port", "0")
    assert third.exit_code == 1
    assert f"port {port}, of the API" in third.stderr
    l1_port = up.info["l1"].rpartition(":")[2]
    fourth = run("up", "--folder", str(tmp_path / "other"), "--port", "0", "--l1-port", l1_port)
    assert fourth.exit_code == 1
    assert f"port {l1_port}, of L1" in fourth.stderr
    assert "give another --l1-port" in fourth.stderr
    assert up.call("status")["accounts"] == 5
    assert up.end(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in up.children)


@pytest.mark.slow
def test_up__killed_on_a_chain_that_goes_on__comes_back_with_the_order(tmp_path):
    from sequencer.l1.chains import start

    with start("pyevm", log_dir=tmp_path) as chain:
        first = start_up(tmp_path, "--chain", chain.url)
        try:
            name = an_option(first)
            retry(lambda: first.call("book", name), lambda got: float(got["mark"]) > 0)
            placed = first.call("order", "place", name, "buy", "0.3", "10.00", "--devnet-key", "1")
            first.end(signal.SIGKILL)
        finally:
            clean_up(first)
        second = start_up(tmp_path, "--chain", chain.url)
        try:
            assert second.info["accounts"] == first.info["accounts"]
            assert second.call("order", "list", "--devnet-key", "1") == [placed["order"]]
            second.call("order", "cancel", name, "buy", "10.00", str(placed["seq"]), "--devnet-key", "1")
            assert second.end() == 0
        finally:
            clean_up(second)


@pytest.mark.slow
def test_up__with_parameters_of_its_own__is_replayed_and_watched_with_them(tmp_path):
    from sequencer.l1.chains import start

    path = tmp_path / "params.json"
    path.write_text('{"taker_fee_ppm": 1000, "fee_cap_ppm": 1000000}')
    with start("pyevm", log_dir=tmp_path) as chain:
        first = start_up(tmp_path, "--chain", chain.url, "--params", str(path))
        try:
            name = an_option(first)
            retry(lambda: first.call("book", name), lambda got: float(got["mark"]) > 0)
            first.call("order", "place", name, "sell", "0.1", "1000.00", "--devnet-key", "1")
            bought = first.call("order", "place", name, "buy", "0.1", "1000.00", "--devnet-key", "2")
            assert bought["fills"][0]["taker_fee"] == "4.600000"  # 0.1 % of 0.1 x 46,000
            wanted = first.call("status")["seq"]
            rebuilt = retry(
                lambda: answer("replay", *first.on_l1(), "--json", "-"), lambda got: got["records"] >= wanted
            )
            once = ["--once", "--confirmations", "0", "--folder", str(tmp_path / "watch")]
            status = answer("watch", *first.on_l1(), *once)
            assert status["ok"] is True
            assert status["records_checked"] >= rebuilt["records"]
            assert first.end() == 0
        finally:
            clean_up(first)
        path.write_text('{"taker_fee_ppm": 1001}')
        other = run(
            "up", "--folder", str(tmp_path), "--port", "0", "--chain", chain.url, "--params", str(path)
        )
        assert other.exit_code == 1
        assert "deployment.json is of other parameters: its genesis root is 0x" in other.stderr
        second = start_up(tmp_path, "--chain", chain.url)  # with those of the file
        try:
            assert second.info["accounts"] == first.info["accounts"]
            assert second.end() == 0
        finally:
            clean_up(second)
    with start("pyevm", log_dir=tmp_path) as chain:
        moved = run("up", "--folder", str(tmp_path), "--port", "0", "--chain", chain.url)
        assert moved.exit_code == 1
        assert "deployment.json is of another chain, move it away: no token at 0x" in moved.stderr
