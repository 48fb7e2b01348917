"""The benchmark: its load comes at the rate that was asked for, and an order is timed from when it was due."""

import asyncio
import time

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from sequencer.local import bench
from sequencer.local.bench_load import RECORD_BYTES, drive

STALL_S = 0.5
ACK = b'{"result":{"fills":[]}}'


class Exchange(WSListener):
    """Acknowledges at once, but for a time after the first order, in which it stands still."""

    def __init__(self) -> None:
        self.until = 0.0
        self.came: list[float] = []
        self.gone = asyncio.Event()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.gone.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.BINARY:
            return
        loop = asyncio.get_running_loop()
        self.came.append(loop.time())
        self.until = self.until or loop.time() + STALL_S
        ack = frame.get_payload_as_bytes()[:8] + ACK
        loop.call_later(max(0.0, self.until - loop.time()), transport.send, WSMsgType.BINARY, ack)


def offer(tmp_path, count: int, per_s: int) -> tuple[dict, list[float]]:
    path = tmp_path / "orders"
    path.write_bytes(bytes(RECORD_BYTES) * count)
    exchange = Exchange()

    async def main() -> dict:
        def listener(_: WSUpgradeRequest) -> WSListener:
            return exchange

        server = await ws_create_server(listener, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await drive(str(path), f"ws://127.0.0.1:{port}/", 0, 1, per_s)
        finally:
            await exchange.gone.wait()
            server.close()

    return asyncio.run(main()), exchange.came


def test_load__at_a_rate__comes_at_it_also_when_nothing_is_acknowledged(tmp_path):
    began = time.monotonic()
    figures, came = offer(tmp_path, 200, 500)
    assert time.monotonic() - began < 5.0
    # None has waited for an ack: the last was due 0.398 s after the first, the stall takes longer.
    assert 0.3 < came[-1] - came[0] < STALL_S
    assert (figures["refused"], figures["fills"]) == (0, 0)


def test_load__at_a_rate__counts_a_stall_against_every_order_that_was_due_in_it(tmp_path):
    figures, _ = offer(tmp_path, 200, 500)
    # Due evenly over 0.4 s, all acknowledged at 0.5 s: the median has waited 0.3 s, the first nearly 0.5.
    assert 230 < figures["ack_ms_p50"] < 400
    assert 440 < figures["ack_ms_p99"] < 600


@pytest.mark.slow
def test_bench__with_a_rate__reports_its_acks_the_ratio_and_every_process():
    report = bench.run_bench(
        bench.BenchConfig(orders=2_000, outstanding=64, offered=50, accounts_max=1_000), lambda *_: None
    )
    shown = bench.as_json(report)
    assert shown["ratio_to_ecrecover"] == round(report.orders_per_s / report.ecrecover_per_s, 3)
    assert shown["offered_per_s"] == 50
    assert 0.0 < report.ack_ms_p50 <= report.ack_ms_p99
    assert report.checked_again_per_s > 0.0
    for process in ("gateway", "sequencer", "engine", "signatures", "wall"):
        assert report.cpu_us_per_order[process] > 0.0, process
    assert [row["accounts"] for row in report.by_accounts] == [1_000]
    assert report.refused == 0
