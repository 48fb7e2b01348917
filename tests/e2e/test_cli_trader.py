"""What a new trader types: a faucet, the option chain, orders, session keys, live displays, the environment."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from up_support import Up, answer, retry, run, start_up, up  # noqa: F401  # a fixture


def live(up: Up, *args: str, meanwhile: Any) -> list[dict[str, Any]]:  # noqa: F811
    """The lines of a command with --watch, which ends by itself; `meanwhile()` runs once it has shown the start."""
    command = [sys.executable, "-c", "from sequencer.cli import main; main()", *args, "--watch", "--json"]
    environment = {**os.environ, "FAIRSTRIKE_API": up.info["api"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline())]
        threading.Timer(0.5, meanwhile).start()
        lines += [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 0
    return lines


@pytest.mark.slow
def test_new_trader__with_nothing_but_the_faucet__trades_and_lets_a_session_key_trade(up, tmp_path):  # noqa: F811
    def shell(*args: str, **variables: str) -> Any:
        result = run(
            *args, "--json", **{"API": up.info["api"], "DEPLOYMENT": up.info["deployment"]} | variables
        )
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    # both underlyings, a chain by expiry
    chain = retry(lambda: shell("chain"), lambda got: len(got) == 12)  # all is listed in the first seconds
    assert {one["underlying"] for one in chain} == {"BTC", "ETH"}
    assert [one["expiry"] for one in shell("chain", "ETH")] == [
        one["expiry"] for one in chain if one["underlying"] == "ETH"
    ]
    ether = shell("chain", "eth")[2]
    strikes = [one["strike"] for one in ether["strikes"]]
    assert strikes == sorted(strikes, key=float)
    assert "2500.00" in strikes
    middle = ether["strikes"][strikes.index("2500.00")]
    name = middle["call"]["instrument"]
    assert name.split("-")[0] == "ETH"
    assert shell("ticker", name)["number"] == middle["call"]["number"]
    shown = run("chain", "ETH", "--expiry", name.split("-")[1], API=up.info["api"]).stdout
    assert "C mark" in shown
    assert "C delta" in shown
    assert "2500.00" in shown
    assert "BTC" not in shown
    unknown = run("chain", "DOGE", API=up.info["api"])
    assert "there are BTC, ETH" in unknown.stderr

    # a fresh key, and one kept in a keystore
    first = shell("faucet", "--amount", "5000")
    assert (first["cash"], first["deposited"]) == ("5000.000000", "5000")
    key = first["use_it"].removeprefix("export FAIRSTRIKE_KEY=")
    file = str(tmp_path / "second.json")
    second = shell("faucet", "--new", file, "--amount", "7000", PASSWORD="word")
    assert "use_it" not in second
    assert os.stat(file).st_mode & 0o077 == 0
    again = run(
        "faucet", "--new", file, PASSWORD="word", API=up.info["api"], DEPLOYMENT=up.info["deployment"]
    )
    assert "File exists" in again.stderr
    assert shell("account", KEYSTORE=file, PASSWORD="word")["owner"] == second["address"]
    more = shell("faucet", KEY=key, PASSWORD="word")
    assert (more["account"], more["cash"]) == (first["account"], "15000.000000")
    stranger = "0x" + "12" * 20
    assert shell("faucet", stranger)["address"] == stranger

    # orders: INSTRUMENT first; the order of before is understood
    sold = shell("order", "place", name, "sell", "0.5", "90", "--label", "mine", KEY=key)
    assert [one["seq"] for one in shell("order", "list", "--label", "mine", KEY=key)] == [sold["seq"]]
    assert shell("order", "list", "--label", "other", KEY=key) == []
    seen = live(
        up, "book", name, "--updates", "1",
        meanwhile=lambda: shell("order", "place", "buy", name, "0.2", "90", KEYSTORE=file, PASSWORD="word"),
    )  # fmt: skip
    assert seen[0]["channel"] == f"ticker.{name}"
    assert seen[1]["data"]["asks"] == [["90.00", "0.5000", 1]]
    assert seen[2]["data"].get("asks", [["90.00", "0.3000", 1]]) == [["90.00", "0.3000", 1]]
    assert shell("trades", name)[0]["quantity"] == "0.2000"
    held = shell("positions", KEY=key)
    assert [(one["quantity"], one["average_price"]) for one in held] == [("-0.2000", "90.000000")]
    shown = run("order", "list", KEY=key, API=up.info["api"]).stdout
    assert f"{sold['order']['number']} " in shown  # never grouped
    assert "," not in shown

    seen = live(
        up, "trades", "--updates", "1",
        meanwhile=lambda: shell("order", "place", name, "buy", "0.1", "90", KEYSTORE=file, PASSWORD="word"),
    )  # fmt: skip
    assert seen[0]["data"][0]["quantity"] == "0.2000"
    assert seen[1]["data"]["quantity"] == "0.1000"
    seen = live(up, "chain", "ETH", "--expiry", name.split("-")[1], "--updates", "1",
        meanwhile=lambda: shell("order", "place", name, "buy", "0.1", "1", KEYSTORE=file, PASSWORD="word"),
    )  # fmt: skip
    assert len(seen) == 27
    assert (seen[-1]["channel"], seen[-1]["data"]["best_bid"]) == (f"ticker.{name}", "1.00")

    # a session key
    number, helper = str(first["account"]), "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
    shell("signer", "grant", helper, "--for", "1h", KEY=key)
    assert [(one["address"], one["scope"]) for one in shell("signer", "list", KEY=key)] == [(helper, "trade")]
    placed = shell("order", "place", name, "buy", "0.1", "2", "--devnet-key", "1", ACCOUNT=number)
    assert [one["seq"] for one in shell("order", "list", "--account", number)] == [sold["seq"], placed["seq"]]
    refused = run("withdraw", "1", "--devnet-key", "1", "--account", number, API=up.info["api"])
    assert "session key may not sign this" in refused.stderr
    shell("signer", "revoke", helper, KEY=key)
    assert shell("signer", "list", KEY=key) == []
    gone = run("signer", "revoke", helper, KEY=key, API=up.info["api"])
    assert "is no session key of this account" in gone.stderr

    # money between accounts
    before = shell("account", str(second["account"]))["cash"]
    shell("transfer", str(second["account"]), "12.5", KEY=key)
    after = shell("account", str(second["account"]))["cash"]
    assert round((float(after) - float(before)) * 10**6) == 12_500_000


@pytest.mark.slow
def test_up__says_what_to_type_into_a_wallet(up):  # noqa: F811
    wallet = up.info["wallet"]
    assert (wallet["rpc_url"], wallet["chain_id"], wallet["currency"]) == (up.info["l1"], 31_337, "ETH")
    from sequencer.l1.signing import Signer

    assert Signer(bytes.fromhex(wallet["test_key"][2:])).address == wallet["test_address"]
    assert wallet["test_address"] in up.info["accounts"]


@pytest.mark.slow
def test_up__by_default__has_its_chain_on_port_8545(tmp_path):
    with socket.socket() as holder:
        with contextlib.suppress(OSError):  # somebody else may hold it
            holder.bind(("127.0.0.1", 8545))
            holder.listen()
        taken = run("up", "--folder", str(tmp_path), "--port", "9599")
        assert taken.exit_code == 1
        assert "port 8545, of L1: Address already in use; give another --l1-port" in taken.stderr
