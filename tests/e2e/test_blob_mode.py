"""An exchange whose batches lie in blobs: every command on it, and what is left when beacon nodes have pruned them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sequencer.cli import main
from sequencer.clock import ManualClock
from sequencer.l1.beacon import BEACON_VARIABLE
from sequencer.l1.follower import Follower, PostedBatch
from sequencer.l1.rpc import to_int
from sequencer.local.bench import FlatSource
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_params, devnet_signer
from sequencer.node.pace import BATCHES_AHEAD_MAX
from sequencer.proof.replay import replay
from sequencer.queue.driver import DriverConfig
from sequencer.sdk.client import Client
from sequencer.sdk.trader import Trader
from tests.e2e.test_cli import an_option, answer, clean_up, retry, start_up
from tests.simulation.world import World, order

USD = 10**6
START_S = 20_000 * 86_400
WANTED = [(0, 20_001, strike, put) for strike in (4_400_000, 4_600_000) for put in (False, True)]
SILENCE_S = 7_000
HELPER = "9"
KNOWN = {
    "/eth/v1/config/spec": {"SECONDS_PER_SLOT": "1"},
    "/eth/v1/beacon/genesis": {"genesis_time": "0"},
}


@pytest.fixture
def pruned() -> Iterator[str]:
    """URL of a beacon node, of slots of a second since 1970, that has no blob any more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in KNOWN:
                self.send_error(404)
                return
            body = json.dumps({"data": KNOWN[self.path]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


async def trade(devnet: Devnet) -> bytes:
    """A fill in the first batch, an order that rests and a withdrawal in the second; the last root."""
    client = await Client.connect(devnet.ws_url)
    traders = []
    for index in (1, 2):
        account = await devnet.fund(devnet_signer(index), 100_000 * USD)
        traders.append(await Trader.open(client, devnet_key(index), account))
    for second in range(1, 4):
        await devnet.service.advance(START_S + second)
    call = 20_001 << 12
    await traders[0].place(call, "sell", "2100.00", "0.5")
    ack = await traders[1].place(call, "buy", "2100.00", "0.5")
    assert ack.ack["fills"]
    await devnet.set_chain_time(START_S + 60)
    assert await devnet.post_all() == 1
    await traders[0].place(call, "sell", "2200.00", "0.5")
    await traders[1].withdraw("500")
    assert await devnet.post_all() == 2
    await client.close()
    return devnet.service.state.root()


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_blobs__that_are_pruned__are_named_and_replay_watch_and_exit_go_on_from_an_archive(
    tmp_path: Path, pruned: str
) -> None:
    config = DevnetConfig(
        chain="anvil",
        data="blob",
        folder=tmp_path,
        params=devnet_params(),
        genesis_time_s=START_S - 3_600,
        delay_min_s=3_600,
        delay_max_s=SILENCE_S,
        silence_max_s=SILENCE_S,
        takeover_s=56,
        service={"driver": DriverConfig(tick_ms=0.5), "batch_interval_s": 1e9},
    )

    def go_on(devnet: Devnet, root: bytes) -> None:
        on_l1 = ["--l1", devnet.chain.url, "--deployment", str(tmp_path / "deployment.json")]
        archive = ["--archive", str(tmp_path / "watch")]

        def run(command: str, *options: str, beacon: str = pruned) -> Result:
            args = [command, *on_l1, *options]
            return CliRunner().invoke(main, args, env={BEACON_VARIABLE: beacon, "FAIRSTRIKE_KEY": ""})

        def look(folder: str, *options: str, beacon: str = pruned) -> tuple[int, dict[str, object]]:
            done = run("watch", "--once", "--folder", str(tmp_path / folder), *options, beacon=beacon)
            return done.exit_code, json.loads(done.output[done.output.index("{") :])

        devnet.chain.mine(2)
        code, status = look("watch", beacon="")
        assert (code, status["batches_checked"], status["root"]) == (0, 2, "0x" + root.hex())

        # the blobs are gone from the beacon node, and nobody has kept them
        block = Follower(devnet.chain.rpc, devnet.deployment.inbox, devnet.deployment.rollup, 0, 0)
        found = devnet.chain.rpc.block(next(iter(block.batches(0))).block_number)
        assert found is not None
        slot = to_int(found["timestamp"])
        says = f"batch 1: the beacon node {pruned} does not have its blobs: slot {slot}: HTTP 404"
        without = run("replay")
        assert without.exit_code == 1
        assert says in without.output
        assert "--archive FOLDER" in without.output
        code, status = look("other")
        assert (code, status["batches_checked"]) == (2, 0)
        assert says in str(status["error"])
        assert "no archive in" in run("replay", "--archive", str(tmp_path / "nowhere")).output

        # somebody has
        target = tmp_path / "replay.json"
        assert run("replay", *archive, "--json", str(target)).exit_code == 0
        assert json.loads(target.read_text())["root"] == "0x" + root.hex()
        code, status = look("third", *archive)
        assert (code, status["root"]) == (0, "0x" + root.hex())
        code, status = look("watch")  # its own
        assert (code, status["batches_checked"]) == (0, 2)

        # and out, without the operator
        devnet.chain.set_time(devnet.chain.head_time_s() + SILENCE_S + 200)
        leave = ["--all", "--devnet-key", HELPER, "--freeze"]
        without = run("exit", *leave)
        assert without.exit_code == 1
        assert says in without.output
        target = tmp_path / "exit.json"
        done = run("exit", *leave, *archive, "--json", str(target))
        assert done.exit_code == 0, done.output
        left = json.loads(target.read_text())
        assert left["root"] == "0x" + root.hex()
        assert left["paid"] > 500 * USD
        assert left["refused"] == 0

    async def play() -> None:
        async with Devnet(config, ManualClock(START_S), [FlatSource(WANTED, 4_600_000)], WANTED) as devnet:
            root = await trade(devnet)
            await devnet.stop_exchange()
            await asyncio.to_thread(go_on, devnet, root)

    asyncio.run(play())


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_l1_away__lets_what_comes_wait_in_the_log_and_fill_more_of_one_batch(tmp_path: Path) -> None:
    full_bytes = 1_500
    config = DevnetConfig(
        chain="anvil",
        data="blob",
        folder=tmp_path,
        genesis_time_s=START_S - 3_600,
        service={
            "driver": DriverConfig(tick_ms=0.5),
            "batch_interval_s": 0.05,
            "batch_payload_bytes": full_bytes,
        },
    )

    async def play() -> list[PostedBatch]:
        async with Devnet(config, ManualClock(START_S), [FlatSource(WANTED, 4_600_000)], WANTED) as devnet:
            service = devnet.service
            assert service.worker is not None
            await devnet.fund(devnet_signer(1), USD)
            for second in range(1, 4):
                await service.advance(START_S + second)
            await devnet.set_chain_time(START_S + 60)
            before = await devnet.post_all()
            service.worker.paused = True
            for second in range(4, 64):  # reports and marks of each second
                await service.advance(START_S + second)
            waiting = service.status.read()["ticks_unbatched"]
            stored = service.batcher.cursor.batch_id - 1
            assert stored - before == BATCHES_AHEAD_MAX
            assert waiting > 0
            service.worker.paused = False
            last = await devnet.post_all()
            assert stored < last < stored + BATCHES_AHEAD_MAX
            at = devnet.deployment
            follower = Follower(devnet.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
            posted = list(await asyncio.to_thread(lambda: list(follower.batches(at.deploy_block))))
            assert replay(posted, service.domain, devnet.config.params).final_root == service.state.root()
            return posted[stored:]

    after = asyncio.run(play())
    assert len(after[0].payload) > 2 * full_bytes
    assert all(len(one.payload) <= 6 * full_bytes for one in after)


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up__with_batches_in_blobs__trades_posts_and_is_replayed_and_watched(tmp_path: Path) -> None:
    up = start_up(tmp_path, "--chain", "anvil", "--data", "blob")
    try:
        assert up.info["data"] == "blob"
        name = an_option(up)
        retry(lambda: up.call("book", name), lambda got: float(got["mark"]) > 0)
        placed = up.call("order", "place", "sell", name, "0.5", "9000.00", "--devnet-key", "1")

        def is_posted(got: dict[str, object]) -> bool:
            return got["records"] > placed["seq"]  # type: ignore[operator]

        replayed = retry(lambda: answer("replay", *up.on_l1(), "--json", "-"), is_posted, seconds=120.0)
        assert replayed["batches"] >= 1
        watched = answer("watch", "--once", *up.on_l1(), "--folder", str(tmp_path / "watch"))
        assert watched["ok"] is True
        assert up.end() == 0
    finally:
        clean_up(up)


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_node__killed_while_it_posts_in_blobs__posts_the_rest_and_nothing_twice(tmp_path: Path) -> None:
    world = World.build(tmp_path, 2, "anvil", data="blob")
    count = 24

    async def play() -> None:
        nonces = [0, 0]
        sent = 0
        for start in range(3):
            node = world.start_node(batch_interval=0.3)
            client = await node.connect()
            assert client is not None, world.log_tail()
            status = await client.until(
                lambda got: got["inbox_count"] >= 2 and got["instruments"] >= 8, 120, "listings"
            )
            marked = int(status["seq"]) + 8
            await client.until(lambda got, seq=marked: got["seq"] > seq, 120, "marks")
            listed = await client.ask("instruments")
            instrument = min(one["number"] for one in listed)
            for _ in range(count):
                place = sent % 2
                client.submit([order(world.domain, place, place + 1, nonces[place], instrument, sent)])
                nonces[place] += 1
                sent += 1
                _, ok, body = await client.answer(60.0)
                assert ok, body
            await client.until(
                lambda got, least=2 * start: got["batches_posted"] > least, 120, "a batch on L1"
            )
            if start < 2:
                node.kill()
                client.close()
        stored = (await client.ask("status"))["batches_stored"]
        await client.until(lambda got: got["batches_posted"] >= stored, 120, "what is stored to be on L1")
        client.close()
        assert node.terminate() == 0

    try:
        asyncio.run(play())
        at = world.deployment
        posted = list(
            Follower(world.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0).batches(at.deploy_block)
        )
        assert all(one.blob_hashes for one in posted)
        assert [one.batch_id for one in posted] == list(range(1, len(posted) + 1))
        assert replay(posted, world.domain, world.params).records >= 3 * count
    finally:
        world.stop()
