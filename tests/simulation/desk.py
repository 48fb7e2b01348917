"""A service on a chain of its own, with four traders, and a client that remembers what was acknowledged."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sequencer.api.ipc import connect
from sequencer.contracts import load
from sequencer.engine.snapshots import recover
from sequencer.errors import Code
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.chains import start
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.follower import Follower
from sequencer.local.bench import FlatSource, key_of, options, owner_of
from sequencer.local.devnet import FEEDS, devnet_params, devnet_signer, feed_key
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.proof.challenge import records_of
from sequencer.proof.replay import replay
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.queue.driver import DriverConfig
from sequencer.rollup.l1_messages import L1Config
from tests.history.compare import assert_is_of_log
from tests.simulation.liar import LyingEngine
from tests.simulation.world import Client, World, order

WINDOW_S = 3_600


@contextlib.contextmanager
def started_world(folder: Path, chain: str = "pyevm", data: str = "calldata") -> Iterator[World]:
    """Chain, contracts and four deposits."""
    of = devnet_params(target_per_s=1_000_000, risk_age_max_s=86_400)
    started = start(chain, log_dir=folder)
    try:
        signer = devnet_signer(0)
        config = DeployConfig(genesis_root(of), signer.address, WINDOW_S, 600, data=data)
        at = deploy(started.rpc, signer, config)
        domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
        made = World(folder, started, at, of, domain)
        for number in range(4):
            made.fund(number)
        started.mine()
        yield made
    finally:
        started.stop()


class Desk:
    """A service on a world, with a client, and what has been acknowledged by sequence number."""

    def __init__(
        self,
        world: World,
        rebond: bool = True,
        confirmations: int = 1,
        snapshot_ticks: int = 20,
        receipt_key: bytes | None = None,
    ) -> None:
        self.world = world
        self.confirmations = confirmations
        self.snapshot_ticks = snapshot_ticks
        self.receipt_key = receipt_key
        self.acked: dict[int, bytes] = {}
        self.told: dict[bytes, tuple[bytes, dict[str, Any]]] = {}  # record -> signer, acknowledgement
        self.nonces = [0] * 4
        self.count = 0
        self.rebond = rebond
        self.service: Service
        self.client: Client

    def build(self) -> Service:
        world = self.world
        config = ServiceConfig(
            world.data,
            world.params,
            world.deployment,
            world.chain.url,
            L1Config(self.confirmations, 0.05, self.rebond),
            DriverConfig(tick_ms=2.0),
            batch_interval_s=60.0,
            snapshot_ticks=self.snapshot_ticks,
            receipt_key=self.receipt_key,
        )
        wanted = options(int(time.time()))
        keys = [feed_key(one) for one in range(FEEDS)]
        return Service(config, None, devnet_signer(0), [FlatSource(wanted)], keys, wanted, engine=LyingEngine)

    async def open(self) -> None:
        self.service = self.build()
        await self.service.start(self.world.socket)
        self.client = Client()
        self.client.connection = await connect(self.world.socket, self.client.on_message, self.client.on_lost)

        def is_ready() -> bool:
            state = self.service.state
            are_marked = all(page.time for page in state.pages.values())
            worker = self.service.worker
            assert worker is not None
            is_heard = worker.unseen_s() is not None  # before, nothing is acknowledged
            return is_heard and state.globals.inbox_count >= 4 and len(state.instruments) >= 8 and are_marked

        await until(is_ready, "listings with marks")

    async def orders(self, count: int, may_wait: bool = False) -> None:
        """Sends orders; each must be acknowledged, or `may_wait`: be told to come later."""
        instrument = min(self.service.state.instruments.values())
        items = []
        for _ in range(count):
            place = self.count % 4
            items.append(
                order(self.world.domain, place, place + 1, self.nonces[place], instrument, self.count)
            )
            self.nonces[place] += 1
            self.count += 1
        await self.send(items, may_wait)

    async def withdraw(self, place: int, amount: int) -> int:
        """The sequence number of the withdrawal."""
        nonce, self.nonces[place] = self.nonces[place], self.nonces[place] + 1
        raw = codec.encode(Kind.WITHDRAW, account=place + 1, amount=amount, nonce=nonce, expires=0)
        signed = codec.sign(raw, self.world.domain, key_of(place))
        await self.send([(signed, owner_of(place))])
        return next(seq for seq, one in self.acked.items() if one == signed)

    async def again(self, raws: list[bytes]) -> dict[bytes, tuple[bool, dict[str, Any]]]:
        """What they are answered when they come again."""
        self.client.submit([(raw, self.told[raw][0]) for raw in raws])
        answers = [await self.client.answer() for _ in raws]
        return {raw: (ok, body) for raw, ok, body in answers}

    async def send(self, items: list[tuple[bytes, bytes]], may_wait: bool = False) -> None:
        signers = dict(items)
        self.client.submit(items)
        for _ in items:
            raw, ok, body = await self.client.answer()
            if may_wait and not ok:
                assert body["code"] == Code.NOT_READY, body
                continue
            assert ok, body
            assert body["seq"] not in self.acked
            self.acked[body["seq"]] = raw
            self.told[raw] = signers[raw], body

    async def post(self) -> int:
        service = self.service
        await service.driver.flush()
        stored = service.batcher.cursor.batch_id
        if service.batcher.waiting():
            service.pace.request_batches()
            await until(lambda: service.batcher.cursor.batch_id > stored, "a batch")
        last = service.batcher.cursor.batch_id - 1
        await until(lambda: service.pace.last_posted >= last, f"batch {last} to be posted")
        return last

    def lie(self) -> None:
        engine = self.service.engine
        if not isinstance(engine, LyingEngine):  # a roll-back has put an honest one there
            engine = self.service.driver.engine = LyingEngine(self.service.state)
        engine.is_armed = True

    async def rolled_back(self, epoch: int) -> None:
        """Waits until that many roll-backs have been answered and all is on L1 again."""
        service = self.service
        await until(
            lambda: service.recovery.epoch == epoch and not service.roll_backs.is_running, "the answer"
        )
        last = service.batcher.cursor.batch_id - 1
        assert last > 0
        await until(
            lambda: service.pace.last_posted >= service.batcher.cursor.batch_id - 1 > 0, "L1 to have it again"
        )

    async def looked(self) -> None:
        """Waits until the sequencer has looked at L1 as it is now, and been through with it."""
        worker = self.service.worker
        assert worker is not None
        async with asyncio.timeout(200):
            await worker.looked()

    async def close(self) -> None:
        self.client.close()
        await self.service.stop()

    async def check(self, refused: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """Posts all; log, state and L1 are one, every receipt holds, and the money adds up."""
        service, world = self.service, self.world
        service.driver._collectors.clear()
        await service.driver.flush()
        await self.post()
        raws = [raw for entry in service.log.read(0) for raw in entry.raws()]
        assert all(raws[seq] == raw for seq, raw in self.acked.items())
        empty = empty_state(world)
        assert recover(world.folder / "none", service.log, empty)[0].root() == service.state.root()
        rebuilt = replay(posted(world), world.domain, world.params)
        assert rebuilt.final_root == service.state.root()
        assert not is_wrong(world)
        honest = genesis_state(world.domain, world.params)
        no_ops = {seq for seq, raw in enumerate(raws) if apply(honest, raw).reason is not Reason.OK}
        assert no_ops & self.acked.keys() == refused
        g = service.state.globals
        token = Contract(load("TestToken").abi)
        held = token.read(world.chain.rpc, world.deployment.token, "balanceOf", world.deployment.vault)
        assert g.pool == sum(account.cash for account in service.state.accounts.values())
        owed = sum((service.withdrawals.proof(number) or {})["amount"] for number in range(g.withdrawals))
        assert g.pool + g.fund + g.treasury + owed == held
        await service.history.run(int)
        assert len(assert_is_of_log(world.data, service.log, empty_state(world))["orders"]) > 0
        assert service.views.is_whole
        for number, account in service.state.accounts.items():
            assert service.history.ledger.total(number).cash == account.cash


def empty_state(world: World) -> State:
    return genesis_state(world.domain, world.params)


async def until(condition: Any, what: str, timeout_s: float = 200.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.01)


def posted(world: World) -> list[Any]:
    at = world.deployment
    follower = Follower(world.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
    return list(follower.batches(at.deploy_block))


def is_wrong(world: World) -> tuple[Any, int] | None:
    """The first (batch, segment) on L1 whose root is not what its records give."""
    state = genesis_state(world.domain, world.params)
    for one in posted(world):
        for index in range(one.segments):
            for raw in records_of(one.payload, one.segments, one.ticks, index):
                apply(state, raw)
            if state.root()[:31] != one.payload[31 * index : 31 * index + 31]:
                return one, index
    return None
