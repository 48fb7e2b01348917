"""A second sequencer waits beside the first, and goes on from L1 when it is gone, lies, or hands over."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.api.ipc import connect
from sequencer.cli import main
from sequencer.contracts import load
from sequencer.errors import Code
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.chains import start
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.follower import Follower
from sequencer.l1.sequencers import leader
from sequencer.l1.signing import Signer
from sequencer.l1.wallet import Wallet
from sequencer.local.bench import key_of
from sequencer.local.devnet import devnet_params, devnet_signer
from sequencer.node.pace import BEATS
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.node.standby import Standby, StandbyConfig
from sequencer.proof.replay import replay
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.rollup.l1_messages import L1Config
from sequencer.rollup.l1_worker import Deposed
from tests.history.compare import assert_is_of_log
from tests.simulation.desk import Desk, until
from tests.simulation.test_rollback import challenge
from tests.simulation.world import Client, Node, World, order, withdrawal

TAKEOVER_S = DeployConfig(b"", "", 0, 0).takeover_s
STANDBY = 1  # its devnet key
TRADERS = 4


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.build(tmp_path, TRADERS)
    try:
        yield made
    finally:
        made.stop()


class Nodes:
    """Processes of one world, ended with the test; each with a folder and a socket of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.started: list[Node] = []

    def start(self, key: int, *flags: str, **changed: object) -> Node:
        folder = self.world.folder / f"node-{key}"
        node = self.world.start_node(
            flags=flags, key=key, folder=folder, socket=self.world.folder / f"{key}.sock", **changed
        )
        self.started.append(node)
        return node

    async def open(self, key: int, *flags: str) -> tuple[Node, Client]:
        node = self.start(key, *flags)
        client = await node.connect()
        assert client is not None, self.world.log_tail()
        return node, client

    def end(self) -> None:
        for node in self.started:
            if node.is_alive:
                node.kill()


class Crowd:
    """Four traders, their nonces, and what was acknowledged."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nonces = [0] * TRADERS
        self.count = 0
        self.instrument = 0

    async def ready(self, client: Client) -> None:
        await client.until(lambda one: one["accounts"] >= TRADERS and one["instruments"] == 8, 60, "accounts")
        self.instrument = (await client.ask("instruments"))[0]["number"]
        while (await client.ask("ticker", instrument=self.instrument))["marked_at"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def trade(self, client: Client, count: int) -> int:
        """Sends orders, all of which must be taken; how many fills there were."""
        items = []
        for _ in range(count):
            place = self.count % TRADERS
            items.append(
                order(self.world.domain, place, place + 1, self.nonces[place], self.instrument, self.count)
            )
            self.nonces[place] += 1
            self.count += 1
        client.submit(items)
        fills = 0
        for _ in items:
            _, ok, body = await client.answer()
            assert ok, body
            fills += len(body.get("fills", []))
        return fills

    async def withdraw(self, client: Client, place: int) -> None:
        nonce, self.nonces[place] = self.nonces[place], self.nonces[place] + 1
        client.submit([withdrawal(self.world.domain, place, place + 1, nonce)])
        _, ok, body = await client.answer()
        assert ok, body


def cli(world: World, *arguments: str, key: int | None = None) -> dict[str, Any]:
    args = ["sequencer", *arguments, "--l1", world.chain.url, "--json"]
    args += ["--deployment", str(world.folder / "deployment.json")]
    args += [] if key is None else ["--devnet-key", str(key)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    out: dict[str, Any] = json.loads(result.output)
    return out


def root_of_l1(world: World) -> tuple[str, int]:
    """(root, batches) of a replay of all that was posted."""
    at = world.deployment
    follower = Follower(world.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
    rebuilt = replay(follower.batches(at.deploy_block), world.domain, world.params)
    return "0x" + rebuilt.final_root.hex(), rebuilt.batches


async def all_posted(client: Client) -> dict[str, Any]:
    return await client.until(
        lambda one: one["batches_posted"] == one["batches_stored"] > 0, 60, "all batches to be posted"
    )


async def follows(client: Client, batches: int) -> dict[str, Any]:
    return await client.until(lambda one: one["batches_posted"] >= batches, 60, f"batch {batches}")


async def leads(nodes: Nodes, key: int, chain_moves: bool = True) -> Client:
    """A client of the node once it leads: its socket changes hands in between."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        if chain_moves:
            await asyncio.to_thread(nodes.world.chain.mine)
        client = Client()
        try:
            path = str(nodes.world.folder / f"{key}.sock")
            client.connection = await connect(path, client.on_message, client.on_lost)
            if (await client.ask("status"))["leads"]:
                return client
            client.close()
        except (OSError, ConnectionError):
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("nobody leads: " + nodes.world.log_tail())


def test_leader_killed__the_standby_goes_on_from_the_last_batch_and_the_old_one_follows(world: World) -> None:
    async def play(nodes: Nodes) -> None:
        crowd = Crowd(world)
        first, client = await nodes.open(0)
        await crowd.ready(client)
        assert await crowd.trade(client, 40) > 0
        await crowd.withdraw(client, 0)

        joined = await asyncio.to_thread(cli, world, "join", key=STANDBY)
        assert joined["value_wei"] == str(10**18)
        second, waiting = await nodes.open(STANDBY, "--standby")
        posted = await all_posted(client)
        level = await follows(waiting, posted["batches_posted"])
        assert (level["leads"], level["leader"], level["members"]) == (
            *(False, devnet_signer(0).address.lower(), 2),
        )
        late = order(world.domain, 0, 1, 900, crowd.instrument, 0)
        waiting.submit([late])
        _, ok, body = await waiting.answer()
        assert (ok, body["code"]) == (False, Code.NOT_LEADER)
        assert devnet_signer(0).address.lower() in body["message"]

        assert await crowd.trade(client, 20) > 0
        first.kill()
        before, batches = await asyncio.to_thread(root_of_l1, world)
        level = await follows(waiting, batches)
        assert level["root"] == before
        for place in range(TRADERS):  # what the dead one acknowledged and did not post is gone
            account = await waiting.ask("account", account=place + 1)
            crowd.nonces[place] = max(crowd.nonces[place], account["nonce_floor"] + 1)
        await asyncio.to_thread(world.fund, TRADERS)  # nobody leads, and the message waits
        waiting.close()
        await asyncio.to_thread(world.chain.increase_time, TAKEOVER_S)
        client = await leads(nodes, STANDBY)
        assert (await asyncio.to_thread(cli, world, "status"))["epoch"] == 2

        await client.until(lambda one: one["accounts"] == TRADERS + 1, 30, "the message that waited")
        await crowd.ready(client)
        assert await crowd.trade(client, 40) > 0
        await crowd.withdraw(client, 1)
        status = await client.until(lambda one: one["withdrawals"] == 2, 30, "the withdrawal")

        refused = nodes.start(0)
        assert await asyncio.to_thread(refused.process.wait, 60) == 1
        assert "leads in epoch 2" in world.log_tail(400)
        old, following = await nodes.open(0, "--standby")
        proof: dict[str, Any] = {}
        while not proof.get("posted"):
            await asyncio.sleep(0.05)
            try:
                proof = await client.ask("withdrawal", number=1)
            except AssertionError:
                continue
        client.close()
        assert second.terminate() == 0
        root, batches = await asyncio.to_thread(root_of_l1, world)
        status = await follows(following, batches)
        assert (status["root"], status["leads"]) == (root, False)
        again = await following.ask("withdrawal", number=1)
        assert again["owner"] == proof["owner"]
        following.close()

        later = await asyncio.to_thread(world.chain.head_time_s) + 61
        await asyncio.to_thread(world.chain.set_time, later)
        wallet = Wallet(world.chain.rpc, Signer(key_of(1)), world.deployment)
        siblings = [bytes.fromhex(one[2:]) for one in again["siblings"]]
        await asyncio.to_thread(
            wallet.claim,
            *(again["batch_id"], 1, again["owner"], again["amount"], int(again["bitmap"], 16), siblings),
        )
        assert wallet.balance() == again["amount"] == 10**6
        assert old.terminate() == 0

    run(world, play)


def test_hand_over__posts_all_first_and_the_next_leads_at_once(world: World) -> None:
    async def play(nodes: Nodes) -> None:
        crowd = Crowd(world)
        first, client = await nodes.open(0)
        await crowd.ready(client)
        await asyncio.to_thread(cli, world, "join", key=STANDBY)
        await crowd.trade(client, 40)
        root = (await client.ask("status"))["seq"]
        client.close()
        assert first.terminate() == 0
        nodes.start(STANDBY, "--standby")
        handing = nodes.start(0, "--hand-over")
        assert await asyncio.to_thread(handing.process.wait, 60) == 0, world.log_tail()
        client = await leads(nodes, STANDBY)
        assert (await client.ask("status"))["seq"] >= root
        assert await crowd.trade(client, 40) > 0
        client.close()
        left = await asyncio.to_thread(cli, world, "leave", key=0)
        assert left["member"] == devnet_signer(0).address
        status = await asyncio.to_thread(cli, world, "status", "--address", devnet_signer(0).address)
        assert (status["bond_wei"], status["members"]) == (str(10**18), [status["leader"]])

    run(world, play)


def test_leader__started_again_as_a_standby__keeps_what_it_has_not_posted(world: World) -> None:
    async def play(nodes: Nodes) -> None:
        crowd = Crowd(world)
        first = nodes.start(0, "--standby")
        client = await leads(nodes, 0)
        await crowd.ready(client)
        client.close()
        assert first.terminate() == 0
        first = nodes.start(0, "--standby", batch_interval=3_600)
        client = await leads(nodes, 0, chain_moves=False)
        await crowd.trade(client, 40)
        status = await client.ask("status")
        client.close()
        first.kill()
        assert int(status["seq"]) > 40
        root, _ = await asyncio.to_thread(root_of_l1, world)
        assert root != status["root"]
        nodes.start(0, "--standby")
        client = await leads(nodes, 0, chain_moves=False)
        assert (await client.ask("status"))["seq"] >= status["seq"]
        status = await all_posted(client)
        client.close()

    run(world, play)


def run(world: World, play: Any) -> None:
    nodes = Nodes(world)
    try:
        asyncio.run(play(nodes))
    finally:
        nodes.end()


# ------------------------------------------------------------------------------- one process, step by step


def standby_of(world: World, key: int = STANDBY, confirmations: int = 1) -> Standby:
    config = StandbyConfig(world.folder / f"standby-{key}", world.params, world.deployment, confirmations)
    return Standby(config, world.chain.rpc, devnet_signer(key))


def join(world: World, key: int = STANDBY) -> None:
    wallet = Wallet(world.chain.rpc, devnet_signer(key), world.deployment)
    data = Contract(load("Sequencers").abi).encode("join")
    wallet.transact("join", world.deployment.sequencers, data, 10**18)


def service_of(world: World, folder: Path, key: int, **changed: Any) -> Service:
    config = ServiceConfig(
        folder, world.params, world.deployment, world.chain.url, L1Config(1, 0.05), **changed
    )
    return Service(config, None, devnet_signer(key))


def test_lying_leader__is_slashed_and_the_next_member_goes_on_at_once(world: World) -> None:
    async def play() -> None:
        desk = Desk(world, rebond=False)
        await desk.open()
        await asyncio.to_thread(join, world)
        standby = standby_of(world)
        await desk.orders(8)
        await desk.post()
        assert not standby.step()
        good = standby.state.root()
        desk.lie()
        await desk.orders(8)
        assert await desk.post() == 2
        for _ in range(2):
            assert not standby.step()
        assert "batch 2 is wrong" in standby.message
        assert standby.log.rolled_back() is None
        assert standby.state.root() == good

        assert await asyncio.to_thread(challenge, world) == 2
        await asyncio.wait_for(_stepped(standby), 60)
        assert standby.state.root() == good
        standby.close()
        assert leader(world.chain.rpc, world.deployment) == devnet_signer(STANDBY).address.lower()
        await asyncio.wait_for(desk.service.ended.wait(), 60)
        assert isinstance(desk.service.failure, Deposed)
        desk.client.submit([order(world.domain, 0, 1, 800, 0, 0)])
        _, ok, body = await desk.client.answer()
        assert (ok, body["code"]) == (False, Code.NOT_LEADER)
        await desk.close()

        service = service_of(world, standby.config.folder, STANDBY, batch_interval_s=0.05)
        await service.start(str(world.folder / "next.sock"))
        assert service.state.root() == good
        cancel = codec.encode(Kind.CANCEL_ALL, account=1, nonce_floor=0, nonce=2, expires=0)
        result = await service.submit(codec.sign(cancel, world.domain, key_of(0)), None)
        assert result.reason is Reason.OK
        service.driver.offer_system([])
        await until(lambda: service.pace.last_posted >= 1, "the new leader's batches")
        folder = service.config.folder
        await service.history.run(int)
        found = assert_is_of_log(folder, service.log, genesis_state(world.domain, world.params))
        assert len(found["orders"]) == 8  # what L1 has, and nothing of the lie
        await service.stop()

    asyncio.run(play())


async def _stepped(standby: Standby) -> None:
    while not await asyncio.to_thread(standby.step):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def test_folder_of_a_former_leader__is_cut_back_to_what_l1_has(world: World) -> None:
    async def play() -> None:
        desk = Desk(world)
        await desk.open()
        await desk.orders(8)
        await desk.post()
        assert desk.service.worker is not None
        desk.service.worker.paused = True
        await desk.orders(8)
        desk.service.pace.make_batches()
        await desk.orders(4)
        folder, root = desk.service.config.folder, desk.service.state.root()
        await desk.close()
        posted, batches = await asyncio.to_thread(root_of_l1, world)
        assert posted != "0x" + root.hex()

        standby = Standby(
            StandbyConfig(folder, world.params, world.deployment), world.chain.rpc, devnet_signer(0)
        )
        assert standby.state.root() == root
        assert standby.step()  # it leads still, and has what was posted and nothing else
        assert "0x" + standby.state.root().hex() == posted
        assert standby.batcher.cursor.batch_id == batches + 1
        assert standby.log.end == standby.batcher.cursor.offset
        standby.close()
        service = service_of(world, folder, 0, batch_interval_s=0.05)
        await service.start(str(world.folder / "again.sock"))
        assert "0x" + service.state.root().hex() == posted
        assert service.recovery.epoch == 1
        found = assert_is_of_log(folder, service.log, genesis_state(world.domain, world.params))
        assert len(found["orders"]) == 8  # those that were posted
        await service.stop()

    asyncio.run(play())


def test_idle_leader__keeps_posting_and_nobody_can_take_over(tmp_path: Path) -> None:
    """Feeds are silent, nobody trades: a TICK now and then."""

    async def play() -> None:
        of = devnet_params()
        with start("pyevm", log_dir=tmp_path) as chain:
            signer = devnet_signer(0)
            config = DeployConfig(genesis_root(of), signer.address, 60, 60, takeover_s=4)
            at = deploy(chain.rpc, signer, config)
            domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
            world = World(tmp_path, chain, at, of, domain)
            service = service_of(world, tmp_path / "idle", 0, batch_interval_s=1e9)
            await service.start(str(tmp_path / "s"))
            await until(lambda: service.pace.last_posted >= BEATS, "batches of an idle exchange")
            raws = [raw for entry in service.log.read(0) for raw in entry.raws()]
            assert {raw[0] for raw in raws} == {Kind.TICK}
            await service.stop()
            rebuilt, batches = root_of_l1(world)
            assert batches >= BEATS
            assert rebuilt == "0x" + service.state.root().hex()

    asyncio.run(play())
