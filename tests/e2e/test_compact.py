"""`fairstrike compact`: what L1 holds for final goes to the archive, and the sequencer starts on it as before."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.clock import ManualClock
from sequencer.engine.snapshots import recover
from sequencer.genesis import genesis_state
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_params, devnet_signer
from sequencer.log.sqlite import SqliteLog
from sequencer.queue.driver import DriverConfig

USD = 10**6
START_S = 20_000 * 86_400


async def compacted(devnet: Devnet) -> dict[str, int]:
    target = devnet.folder / "compact.json"
    where = ["--l1", devnet.chain.url, "--deployment", str(devnet.folder / "deployment.json")]
    args = ["compact", str(devnet.folder / "sequencer"), *where, "--json", str(target)]
    result = await asyncio.to_thread(CliRunner().invoke, main, args)
    assert result.exit_code == 0, result.output
    found: dict[str, int] = json.loads(target.read_text())
    return found


async def before_and_after_the_window(folder: Path) -> None:
    clock = ManualClock(START_S)
    config = DevnetConfig(
        folder=folder,
        params=devnet_params(),
        genesis_time_s=START_S - 3_600,
        service={"driver": DriverConfig(tick_ms=0.5), "batch_interval_s": 1e9},
    )
    async with Devnet(config, clock) as devnet:
        for index in (1, 2):
            await devnet.fund(devnet_signer(index), 1_000 * USD)
        await devnet.set_chain_time(START_S + 60)
        await devnet.post_all()
        root, end = devnet.service.state.root(), devnet.service.log.end
        first = await compacted(devnet)
        assert (first["last_final"], first["moved_packs"], first["shortened"]) == (0, 0, False)
        await devnet.stop_exchange()
        await devnet.set_chain_time(START_S + 120 + devnet.deployment.challenge_window_s)
        await asyncio.to_thread(devnet.chain.mine, 1)
        second = await compacted(devnet)
        assert second["last_final"] >= 1
        assert second["archived_before_offset"] == end
        assert second["moved_packs"] > 0
        assert second["shortened"] is True
        log = SqliteLog(folder / "sequencer" / "log.sqlite")
        state, replayed = recover(folder / "none", log, genesis_state(devnet.service.domain, config.params))
        assert (state.root(), replayed) == (root, end)
        assert not log._db.execute("SELECT 1 FROM ticks").fetchall()
        log.close()
        assert (await compacted(devnet))["moved_packs"] == 0
        where = ["--l1", devnet.chain.url, "--deployment", str(folder / "deployment.json")]
        result = await asyncio.to_thread(CliRunner().invoke, main, ["compact", str(folder), *where])
        assert result.exit_code == 1
        assert "no log in it: give the folder of a sequencer" in result.output.replace("\n", " ")


@pytest.mark.timeout(300)
def test_compact__moves_final_batches_alone(tmp_path: Path) -> None:
    asyncio.run(before_and_after_the_window(tmp_path))
