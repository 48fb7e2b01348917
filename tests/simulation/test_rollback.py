"""A wrong batch is rolled back on L1: the sequencer executes what came after it again, and nobody's order is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sequencer.engine.engine import Engine
from sequencer.errors import Code
from sequencer.genesis import genesis_state
from sequencer.l1.signing import Signer
from sequencer.l1.wallet import Wallet
from sequencer.local.bench import key_of
from sequencer.local.devnet import devnet_signer
from sequencer.proof.challenge import arbiter, challenge_segment, records_of
from sequencer.proof.witness import Tracer
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.rollup.l1_messages import Notice
from sequencer.rollup.rollback import Recovery
from tests.simulation.desk import WINDOW_S, Desk, is_wrong, posted, started_world, until
from tests.simulation.kill import nonce_of
from tests.simulation.liar import LIAR, OVERDRAWN, event
from tests.simulation.little import deposit
from tests.simulation.world import World, order

RECEIPT_KEY = b"\x31" * 32
SALT = b"\x5a" * 32


class Crash(Exception):
    pass


# Tests that say so run on both: the world's chain, and where batches lie.
WORLDS: Any = [
    ("pyevm", "calldata"),
    pytest.param(("anvil", "blob"), marks=[pytest.mark.node, pytest.mark.timeout(600)]),
]
in_both = pytest.mark.parametrize("world", WORLDS, indirect=True, ids=["calldata", "blobs"])


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    chain, data = getattr(request, "param", ("pyevm", "calldata"))
    with started_world(tmp_path, chain, data) as made:
        yield made


def challenge(world: World) -> int:
    """Somebody replays L1, and has the first wrong batch rolled back; its id."""
    found = is_wrong(world)
    assert found is not None
    batch, wrong = found
    before: State = genesis_state(world.domain, world.params)
    for one in posted(world)[: batch.batch_id]:
        for index in range(one.segments if one.batch_id < batch.batch_id else wrong):
            for raw in records_of(one.payload, one.segments, one.ticks, index):
                apply(before, raw)
    check = challenge_segment(batch, wrong, Tracer.of(before))
    wallet = Wallet(world.chain.rpc, devnet_signer(8), world.deployment)
    at = world.deployment.arbiter
    wallet.transact("commit", at, arbiter().encode("commit", check.commitment(wallet.address, SALT)))
    wallet.transact("challenge", at, check.calldata(SALT), gas=12_000_000)
    return int(batch.batch_id)


@in_both
def test_lying_sequencer__is_rolled_back_and_recovers_by_itself_twice(world: World) -> None:
    async def play() -> None:
        desk = Desk(world)
        await desk.open()
        service = desk.service
        await desk.orders(8)
        early = await desk.withdraw(0, 2 * 10**6)
        assert await desk.post() == 1
        await desk.orders(5)
        desk.lie()
        await desk.orders(8)
        assert await desk.post() == 2
        overdrawn = await desk.withdraw(LIAR - 1, OVERDRAWN)
        late = await desk.withdraw(2, 3 * 10**6)
        await desk.orders(8)
        assert await desk.post() == 3
        await desk.orders(4)
        await desk.post()
        await desk.orders(4)
        assert early < overdrawn < late

        assert await asyncio.to_thread(challenge, world) == 2
        await desk.rolled_back(1)
        assert type(service.engine) is Engine
        assert service.roll_backs.report is not None
        assert [seq for seq, _ in service.roll_backs.report.refused] == [overdrawn]
        await told_of_the_void(desk, overdrawn)
        await desk.orders(8)
        status = await desk.client.ask("status")
        assert (status["roll_backs"], status["l1_error"]) == (1, "")
        assert status["bond_wei"] == status["bond_min_wei"] == str(10**18)

        await desk.post()
        desk.lie()
        await desk.orders(4)
        again = await desk.post()
        await desk.orders(4)
        await desk.post()
        assert await asyncio.to_thread(challenge, world) == again
        await desk.rolled_back(2)
        await desk.orders(8)
        await desk.check({overdrawn})

        proofs = [service.withdrawals.proof(number) for number in range(service.state.globals.withdrawals)]
        assert len(proofs) == 2
        later = await asyncio.to_thread(world.chain.head_time_s) + WINDOW_S
        await asyncio.to_thread(world.chain.set_time, later)
        for place, proof in ((0, proofs[0]), (2, proofs[1])):
            assert proof is not None
            wallet = Wallet(world.chain.rpc, Signer(key_of(place)), world.deployment)
            siblings = [bytes.fromhex(one[2:]) for one in proof["siblings"]]
            await asyncio.to_thread(
                wallet.claim,
                *(proof["batch_id"], proof["number"], proof["owner"], proof["amount"]),
                *(int(proof["bitmap"], 16), siblings),
            )
            assert wallet.balance() == proof["amount"]
        await desk.close()

    asyncio.run(play())


def test_repeat__after_a_roll_back__has_the_answer_of_what_stands_now(world: World) -> None:
    """What stands has its first answer; what was executed again that of its execution, also after a restart."""

    async def play() -> None:
        desk = Desk(world, receipt_key=RECEIPT_KEY)
        await desk.open()
        await desk.orders(8)
        await desk.withdraw(0, 2 * 10**6)
        assert await desk.post() == 1
        await desk.orders(5)
        desk.lie()
        await desk.orders(8)
        assert await desk.post() == 2
        overdrawn = await desk.withdraw(LIAR - 1, OVERDRAWN)
        await desk.orders(8)
        await desk.post()
        await desk.orders(4)
        assert await asyncio.to_thread(challenge, world) == 2
        await desk.rolled_back(1)
        report = desk.service.roll_backs.report
        assert report is not None
        void = desk.acked.pop(overdrawn)
        seq_of = {raw: seq for seq, raw in desk.acked.items()}

        async def compare() -> dict[bytes, tuple[bool, dict[str, Any]]]:
            answers = await desk.again(list(seq_of))
            for raw, (ok, body) in answers.items():
                first = desk.told[raw][1]
                assert ok, body
                if seq_of[raw] < report.first_seq:
                    assert body == first
                else:  # executed again; the header says after how many roll-backs
                    receipt, before = body.pop("receipt"), first["receipt"]
                    assert receipt != before
                    assert body == {name: value for name, value in first.items() if name != "receipt"}
                    body["receipt"] = receipt
            asked = {"account": LIAR, "nonce": nonce_of(void)}
            assert await desk.client.ask("outcome", **asked) == {"status": "unused"}
            return answers

        answers = await compare()
        await desk.close()
        await desk.open()
        assert await compare() == answers
        await desk.orders(4)
        await desk.close()

    asyncio.run(play())


async def told_of_the_void(desk: Desk, seq: int) -> None:
    """The owner of the record that holds no more hears of it, and anybody who asks."""
    channel = f"account.{LIAR}"
    await until(lambda: any("void" in body for _, body in desk.client.events), "the event")
    told = [(name, body) for name, body in desk.client.events if "void" in body]
    assert [name for name, _ in told] == [channel]
    void = told[0][1]["void"]
    assert (void["seq"], void["kind"], void["reason"], void["order"]) == (seq, "WITHDRAW", "MARGIN", None)
    assert await desk.client.ask("order", seq=seq) == {"status": "void", **void}
    report = desk.service.roll_backs.report
    assert report is not None
    backs = [(name, body) for name, body in desk.client.events if "rolled_back" in body]
    assert (channel, {"rolled_back": {"batch_id": 2, "first_seq": report.first_seq}}) in backs


@in_both
def test_crash_in_the_middle__and_a_bond_that_is_made_up_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        desk = Desk(
            world, rebond=False, snapshot_ticks=10**6
        )  # or a start may believe one that holds the lie
        await desk.open()
        await desk.orders(8)
        await desk.post()
        desk.lie()
        await desk.orders(8)
        assert await desk.post() == 2
        await desk.orders(8)
        await desk.post()

        def crash(step: str) -> None:
            if step == steps[0]:
                raise Crash

        steps = ["executed again"]
        monkeypatch.setattr(Recovery, "checkpoint", staticmethod(crash))
        assert await asyncio.to_thread(challenge, world) == 2
        await asyncio.wait_for(desk.service.ended.wait(), 200)
        assert isinstance(desk.service.failure, Crash)
        await desk.close()
        for step in ("executed again", "log rewritten", "batches forgotten"):
            steps[0] = step
            with pytest.raises(Crash):
                desk.build()
        steps[0] = ""
        await desk.open()
        service = desk.service
        assert service.recovery.epoch == 1
        with pytest.raises(AssertionError, match="of an order that rests, or of a record that is void"):
            await desk.client.ask("order", seq=0)
        await desk.orders(8)
        service.pace.request_batches()
        assert service.worker is not None
        await until(lambda: "the bond is 0 of" in service.worker.last_error, "the bond to be missed")
        assert service.pace.last_posted <= 1

        await desk.close()
        desk.rebond = True
        await desk.open()
        await desk.rolled_back(1)
        await desk.check()
        await desk.close()

    asyncio.run(play())


def test_roll_back_that_is_wrong__stops_the_posting_and_nothing_else(world: World) -> None:
    async def play() -> None:
        desk = Desk(world)
        await desk.open()
        await desk.orders(4)
        await desk.post()
        service = desk.service
        worker = service.worker
        assert worker is not None
        entries = list(service.log.read(0))
        service.roll_backs.note(Notice([event(1)], [deposit(number) for number in range(4)]))
        await until(lambda: worker._refused, "the refusal")
        await until(lambda: worker.last_error == worker._refused, "the status")
        assert list(service.log.read(0))[: len(entries)] == entries
        await desk.orders(4)
        service.pace.request_batches()
        await until(lambda: service.batcher.cursor.batch_id > 2, "a batch")
        await desk.looked()
        assert service.pace.last_posted == 1
        status = await desk.client.ask("status")
        assert "executing it again gives the same" in status["l1_error"]
        await desk.close()

    asyncio.run(play())


def test_roll_back__that_a_reorganisation_takes_away__is_never_answered(world: World) -> None:
    async def play() -> None:
        desk = Desk(world, confirmations=3)
        await asyncio.to_thread(world.chain.mine, 3)
        await desk.open()
        await desk.orders(4)
        desk.lie()
        await desk.orders(4)
        posting = asyncio.create_task(desk.post())
        while not posting.done():
            await asyncio.sleep(0.1)
            await asyncio.to_thread(world.chain.mine)
        service, before = desk.service, await asyncio.to_thread(world.chain.snapshot)
        assert await asyncio.to_thread(challenge, world) == 1
        await desk.orders(4)
        await desk.looked()
        assert (service.recovery.epoch, service.roll_backs.notice, service.pace.last_posted) == (0, None, 1)
        await asyncio.to_thread(world.chain.revert, before)
        await asyncio.to_thread(world.chain.mine, 5)
        await desk.looked()
        assert service.recovery.epoch == 0

        assert await asyncio.to_thread(challenge, world) == 1
        await asyncio.to_thread(world.chain.mine, 3)
        answer = asyncio.create_task(desk.rolled_back(1))
        while not answer.done():
            await asyncio.sleep(0.1)
            await asyncio.to_thread(world.chain.mine)
        await answer
        assert not is_wrong(world)
        await desk.close()

    asyncio.run(play())


def test_submission__while_records_are_executed_again__is_refused_with_1102(world: World) -> None:
    async def play() -> None:
        desk = Desk(world)
        await desk.open()
        await desk.service.driver.flush()
        desk.service.driver._quiet.clear()  # nothing ends it but this test
        desk.service.roll_backs.is_running = True
        instrument = min(desk.service.state.instruments.values())
        desk.client.submit([order(world.domain, 0, 1, 0, instrument, 0)])
        _, ok, body = await desk.client.answer()
        assert (ok, body["code"]) == (False, Code.NOT_READY)
        assert "executed again" in body["message"]
        desk.service.roll_backs.is_running = False
        await desk.orders(1)
        await desk.close()

    asyncio.run(play())
