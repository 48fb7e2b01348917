"""The load generator of `fairstrike bench`: sends pre-signed PLACE records over WebSocket and times their acks.

Arguments: file of 93-byte records, ws URL, records outstanding, connections, records a second. Prints one JSON object.
With a rate the records go out when they are due, whatever has been acknowledged, and each is timed from then: an
exchange that stands still for a second makes every order late that was due in it, not one.
"""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

RECORD_BYTES = 93
ID_BYTES = 8


class Run:
    """What all connections share: the records, the next one to send, and when each was sent and acknowledged."""

    def __init__(self, raws: list[bytes]) -> None:
        self.raws = raws
        self.next = 0
        self.sent_ns = [0] * len(raws)  # or due
        self.late_ns = [0] * len(raws)
        self.took_ns = [0] * len(raws)
        self.done = 0
        self.refused = 0
        self.fills = 0
        self.first_refusal = b""
        self.finished = asyncio.Event()


class Load(WSListener):
    """One connection: a new record for each ack, unless they go out at a rate."""

    def __init__(self, run: Run, sends_on_ack: bool) -> None:
        self.run = run
        self.sends_on_ack = sends_on_ack
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Keeps the transport."""
        self.transport = transport

    def send_next(self, due_ns: int = 0) -> None:
        """Sends the next record, if one is left; `due_ns`: when it should have been, if not now."""
        run = self.run
        number = run.next
        if number >= len(run.raws) or self.transport is None:
            return
        run.next = number + 1
        now_ns = time.perf_counter_ns()
        run.sent_ns[number] = due_ns or now_ns
        run.late_ns[number] = now_ns - due_ns if due_ns else 0
        self.transport.send(WSMsgType.BINARY, number.to_bytes(ID_BYTES, "big") + run.raws[number])

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """An ack."""
        if frame.msg_type != WSMsgType.BINARY:
            return
        payload = frame.get_payload_as_bytes()
        run = self.run
        number = int.from_bytes(payload[:ID_BYTES], "big")
        run.took_ns[number] = time.perf_counter_ns() - run.sent_ns[number]
        if b'"error":' in payload[:60] or b'"code":' in payload[:60]:
            run.refused += 1
            run.first_refusal = run.first_refusal or payload[ID_BYTES:]
        elif b'"fills":[]' not in payload:
            run.fills += 1
        run.done += 1
        if run.done == len(run.raws):
            run.finished.set()
        elif self.sends_on_ack:
            self.send_next()


async def offer(run: Run, listeners: list[Load], per_s: int) -> None:
    """Sends all records at a constant rate."""
    began_ns = time.perf_counter_ns()
    while (number := run.next) < len(run.raws):
        due_ns = began_ns + number * 1_000_000_000 // per_s
        ahead_ns = due_ns - time.perf_counter_ns()
        if ahead_ns <= 0:
            listeners[number % len(listeners)].send_next(due_ns)
        else:  # the loop's timers count milliseconds; to spin instead would take a core from what is measured
            await asyncio.sleep(0.001)


async def drive(path: str, url: str, outstanding: int, connections: int, per_s: int) -> dict[str, Any]:
    """Runs the load; its figures."""
    data = Path(path).read_bytes()  # before anything is timed
    run = Run([data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)])
    listeners: list[Load] = []
    for _ in range(connections):
        _, listener = await ws_connect(lambda: Load(run, not per_s), url)
        assert isinstance(listener, Load)
        listeners.append(listener)
    began = time.perf_counter()
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    if per_s:
        await offer(run, listeners, per_s)
    for i in range(outstanding):
        listeners[i % connections].send_next()
    await asyncio.wait_for(run.finished.wait(), 300)
    took = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    for listener in listeners:
        assert listener.transport is not None
        listener.transport.disconnect()
        await listener.transport.wait_disconnected()
    if run.first_refusal:
        sys.stderr.write(run.first_refusal.decode() + "\n")
    latencies = sorted(run.took_ns)
    return {
        "orders_per_s": len(run.raws) / took,
        "ack_ms_p50": round(latencies[len(latencies) // 2] / 1e6, 3),
        "ack_ms_p99": round(latencies[len(latencies) * 99 // 100] / 1e6, 3),
        "sent_late_ms_p99": round(sorted(run.late_ns)[len(latencies) * 99 // 100] / 1e6, 3),
        "refused": run.refused,
        "fills": run.fills,
        "cpu_s": used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime,
    }


if __name__ == "__main__":
    uvloop.install()
    figures = asyncio.run(drive(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
    sys.stdout.write(json.dumps(figures) + "\n")
