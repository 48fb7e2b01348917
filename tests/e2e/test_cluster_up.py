"""`fairstrike cluster up`: what it prints is there, traders go on without its leader, and nothing stays behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sequencer.development import receipt_key
from sequencer.local.devnet import devnet_key
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.sdk.client import Client
from sequencer.sdk.trader import Trader

FAILOVER_S = 15


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def of_folder(folder: Path) -> list[str]:
    """Command lines of the processes that were started for a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(folder) in line]


@pytest.mark.timeout(240)
def test_cluster_up__ended_while_it_starts__leaves_no_process_and_starts_again(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for _ in range(2):
        with (tmp_path / "err").open("wb") as err:
            up = subprocess.Popen(
                [str(Path(sys.executable).parent / "fairstrike"), "cluster", "up", "--folder", str(folder)],
                stdout=err,
                stderr=err,
            )
        until = time.monotonic() + 60
        while not any("nats-server" in line for line in of_folder(folder)):
            assert time.monotonic() < until, (tmp_path / "err").read_text()
            time.sleep(0.05)
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, (tmp_path / "err").read_text()
        assert not of_folder(folder)


@pytest.mark.timeout(240)
def test_cluster_up__killed_leader__traders_go_on_with_receipts_and_sigterm_ends_all(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "fairstrike")
    command = [program, "cluster", "up", "--json", "--folder", str(tmp_path / "c")]
    with (tmp_path / "err").open("wb") as err:
        up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err)
    try:
        assert up.stdout is not None
        first = up.stdout.readline()
        assert first, (tmp_path / "err").read_text()
        text = first
        while True:  # one JSON value, over several lines
            try:
                info = json.loads(text)
                break
            except ValueError:
                text += up.stdout.readline()
        assert len(info["log"]) == 3
        assert len(info["api"]) == 2
        assert all(is_alive(pid) for pid in info["pids"].values())
        asyncio.run(trade(info))
        pids = list(info["pids"].values())
    finally:
        up.send_signal(signal.SIGTERM)
        status = up.wait(60)
        if up.stdout is not None:
            up.stdout.close()
    assert status == 0, (tmp_path / "err").read_text()
    assert not [pid for pid in pids if is_alive(pid)]


async def trade(info: dict[str, Any]) -> None:
    key = {address_of(public_key_of(receipt_key()))}
    clients = [await Client.connect(url.replace("http", "ws") + "/ws") for url in info["api"]]
    try:
        maker, taker = [
            await Trader.open(client, devnet_key(index), receipt_keys=key, receipt_file=None)
            for client, index in zip(clients, (1, 2), strict=True)
        ]
        name = await marked(clients[0])
        price = (await clients[0].call("ticker", instrument=name))["mark"]
        resting = await maker.place(name, "sell", "3000", "1")
        assert resting.rests
        os.kill(info["pids"][info["leader"]], signal.SIGKILL)
        began = time.monotonic()
        crossing = await taker.place(name, "buy", "3000", "0.4", tif="IOC")
        assert time.monotonic() - began < FAILOVER_S, price
        assert len(crossing.ack["fills"]) == 1
        assert crossing.ack["receipt"]
        left = await maker.order(resting.seq)
        assert left.rests
        await maker.cancel(left)
    finally:
        for client in clients:
            await client.close()


async def marked(client: Client) -> str:
    """An option far in the money that has marks."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for one in await client.call("instruments"):
            if (await client.call("ticker", instrument=one["instrument"]))["marked_at"]:
                return str(one["instrument"])
        await asyncio.sleep(0.2)
    raise AssertionError("no marks")
