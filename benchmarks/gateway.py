"""CPU time of the gateway per order: WebSocket frame in, signer recovered, forwarded, ack spliced, frame out.

    python benchmarks/gateway.py [orders] [window]

Three processes: a client that keeps `window` signed orders on their way, the gateway, and a sequencer that acknowledges
at once. What is measured is the gateway's process (user and system time), for JSON and for binary frames.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from sequencer.api.ipc import Connection
from sequencer.api.ipc_server import IpcServer
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind

CONTRACT = "0x" + "5f" * 20
DOMAIN = codec.domain_separator(1, bytes.fromhex(CONTRACT[2:]))
ACK = (
    b'{"seq":%d,"tick":2,"fee":"0.000100","fills":[],"order":{"instrument":"BTC-4OCT24-48000-C","number":81920000,'
    b'"side":"sell","price":"1500.00","quantity":"1.0000","seq":13,"expires":0}}'
)


async def sequence(address: str) -> None:
    """A sequencer that says yes."""

    def on_submit(connection: Connection, items: list[tuple[int, bytes, bytes, str]]) -> None:
        connection.send_acks([(rid, True, ACK % rid) for rid, *_ in items])

    def on_query(connection: Connection, rid: int, method: str, params: dict[str, object]) -> None:
        info = {"chain_id": 1, "verifying_contract": CONTRACT}
        connection.send_answer(rid, True, msgspec.json.encode(info if method == "system_info" else []))

    await IpcServer(on_submit, on_query).start(address)
    await asyncio.Event().wait()


class Load(WSListener):
    """Keeps `window` orders on their way."""

    def __init__(self, frames: list[bytes], kind: WSMsgType, window: int) -> None:
        self.frames = frames
        self.kind = kind
        self.window = window
        self.sent = self.answered = self.refused = 0
        self.done = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.send(transport)

    def send(self, transport: WSTransport) -> None:
        end = min(len(self.frames), self.answered + self.window)
        for frame in self.frames[self.sent : end]:
            transport.send(self.kind, frame)
        self.sent = end

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.answered += 1
        self.refused += b'"error"' in frame.get_payload_as_bytes()
        if self.answered == len(self.frames):
            self.done.set_result(None)
        elif frame.last_in_buffer or self.answered + self.window // 2 >= self.sent:
            self.send(transport)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, pid: int, records: list[bytes], window: int) -> None:
    """Prints one line for each kind of frame."""
    for label, kind in (("json", WSMsgType.TEXT), ("binary", WSMsgType.BINARY)):
        if kind is WSMsgType.TEXT:
            frames = [
                b'{"jsonrpc":"2.0","id":%d,"method":"submit","params":{"record":"0x%b"}}'
                % (number, record.hex().encode())
                for number, record in enumerate(records)
            ]
        else:
            frames = [number.to_bytes(8, "big") + record for number, record in enumerate(records)]
        for part, name in ((frames[:1000], "warm-up"), (frames, label)):
            began, before = time.monotonic(), cpu_s(pid)
            transport, load = await ws_connect(lambda *_, p=part, k=kind: Load(p, k, window), url)  # type: ignore[misc]
            assert isinstance(load, Load)
            await load.done
            took_s, spent_s = time.monotonic() - began, cpu_s(pid) - before
            transport.disconnect()
            assert not load.refused, "an order was refused"
            if name == label:
                print(
                    f"{label:7} {len(part)} orders, window {window}: {spent_s / len(part) * 1e6:.1f} us of CPU "
                    f"an order in the gateway, {len(part) / took_s:,.0f} orders/s"
                )


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["sequence"]:
        uvloop.run(sequence(sys.argv[2]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    window = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    fields = {
        "account": 1,
        "instrument": 81_920_000,
        "flags": 1,
        "price": 150_000,
        "expires": 0,
        "fee_max": 100,
    }
    records = [
        codec.sign(codec.encode(Kind.PLACE, quantity=1 + n, nonce=n, **fields), DOMAIN, b"\x01" * 32)
        for n in range(count)
    ]
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/s.sock"
        sequencer = subprocess.Popen([sys.executable, __file__, "sequence", address])
        gateway = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sequencer.api.gateway",
                "--listen",
                "127.0.0.1:0",
                "--address-submits-per-s",
                "0",
                "--sequencer",
                address,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert gateway.stdout is not None
            url = gateway.stdout.readline().strip().replace("http", "ws") + "/ws"
            time.sleep(1)
            uvloop.run(measure(url, gateway.pid, records, window))
        finally:
            gateway.terminate()
            sequencer.terminate()
            gateway.wait()
            sequencer.wait()


if __name__ == "__main__":
    main()
