"""When snapshots are due."""

import asyncio
from pathlib import Path

import pytest

from sequencer.engine.snapshots import load
from sequencer.node import pace
from tests.simulation.desk import until
from tests.simulation.test_lost_log import client_of, make_orders, start

ORDERS = 24


def test_snapshot__is_due_after_so_many_records_whatever_the_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick may have hundreds of them, and a start executes each."""
    monkeypatch.setattr(pace, "SNAPSHOT_RECORDS", ORDERS)

    async def play() -> None:
        service = start(tmp_path, 60.0)
        client = await client_of(service, str(tmp_path / "s"))
        assert not list((tmp_path / "snapshots").glob("*"))
        client.submit(make_orders(service, ORDERS))
        for _ in range(ORDERS):
            assert (await client.answer())[1]
        await until(lambda: list((tmp_path / "snapshots").glob("state-*.zst")), "a snapshot")
        state, offset = load(max((tmp_path / "snapshots").glob("state-*.zst")), service.domain)
        assert 0 < offset <= service.log.end < service.config.snapshot_ticks
        assert state.globals.seq >= ORDERS
        await service.stop()

    asyncio.run(play())
