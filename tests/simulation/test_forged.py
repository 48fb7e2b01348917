"""A gateway vouches for what nobody has signed: nothing of it comes to L1, and the exchange goes on without it."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sequencer.api.ipc import connect
from sequencer.local.bench import key_of, owner_of
from sequencer.node.acks import claims
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.rollup import signatures
from sequencer.rollup.vouched import Vouched
from tests.simulation.desk import Desk, started_world, until
from tests.simulation.little import DOMAIN, Little
from tests.simulation.world import MID, Client, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with started_world(tmp_path) as made:
        yield made


VICTIM = 3  # by account; the world's accounts are those of the first four keys


def forged_order(world: World, instrument: int, nonce: int) -> tuple[bytes, bytes]:
    """(record, signer) of an order of the victim, signed with another's key; the signer that is named is the victim."""
    raw = codec.encode(
        Kind.PLACE,
        account=VICTIM,
        instrument=instrument,
        flags=c.SELL | c.TIF_IOC << c.FLAG_TIF_SHIFT,
        price=MID - 1_000,
        quantity=50,
        nonce=nonce,
        expires=0,
        fee_max=65_535,
    )
    return codec.sign(raw, world.domain, key_of(0)), owner_of(VICTIM - 1)


async def another_gateway(world: World) -> Client:
    client = Client()
    client.connection = await connect(world.socket, client.on_message, client.on_lost)
    return client


def test_forged_order__at_the_socket__never_comes_to_l1__and_what_came_after_stands(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        desk = Desk(world, snapshot_ticks=5)
        await desk.open()
        service = desk.service
        await desk.orders(8)
        assert await desk.post() == 1
        await desk.orders(6)
        thief = await another_gateway(world)
        instrument = min(service.state.instruments.values())
        thief.submit([forged_order(world, instrument, 100)])
        # Honest orders in the same moment, of the victim too, and a batch at once: none may be ahead of the check.
        await desk.orders(8, may_wait=True)
        service.pace.request_batches()
        forged = await thief.answer()
        assert forged[1], forged  # acknowledged, and filled: the engine believes its gateway
        assert forged[2]["fills"]
        await until(
            lambda: service.recovery.epoch == 1 and service.gate.closed() is None, "the forgery to be undone"
        )
        await asyncio.wait_for(thief.lost.wait(), 10)  # who vouched for it is let go
        await desk.orders(8)

        status = await desk.client.ask("status")
        (told,) = status["forged"]
        assert (told["kind"], told["account"]) == ("PLACE", VICTIM)
        assert f"process {os.getpid()} of user" in told["vouched_by"]
        assert told["seq"] not in desk.acked
        assert status["roll_backs"] == 1
        alarm = next(one for one in caplog.records if "FORGED SIGNATURE" in one.message)
        assert alarm.levelno == logging.CRITICAL
        assert f"record {told['seq']}, a PLACE of account {VICTIM}" in alarm.message

        # A second one finds an engine that recovers by itself.
        thief = await another_gateway(world)
        thief.submit([forged_order(world, instrument, 101)])
        _, ok, body = await thief.answer()
        assert (ok, body["data"]["reason"]) == (False, Reason.BAD_SIGNATURE.name)
        thief.close()
        before = service.recovery.epoch
        await desk.check()  # L1 has no wrong batch, and every honest receipt holds, under its number
        assert service.recovery.epoch == before
        assert service.worker is not None
        assert service.worker.standing is not None
        assert service.worker.standing.bond_wei == 10**18
        await desk.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(play())


def test_forged_order__in_the_log_of_one_that_was_killed__is_undone_at_the_start(
    world: World,
) -> None:
    """As if the power had gone between the acknowledgement and the check, a snapshot of it all taken meanwhile."""

    async def play() -> None:
        desk = Desk(world, snapshot_ticks=2)
        await desk.open()
        await desk.orders(8)
        await desk.post()
        desk.service.vouched._ask = lambda _question: None  # type: ignore[method-assign]  # it hangs
        instrument = min(desk.service.state.instruments.values())
        thief = await another_gateway(world)
        thief.submit([forged_order(world, instrument, 100)])
        raw, ok, body = await thief.answer()
        assert ok, body
        await desk.orders(8)
        await desk.service.driver.flush()
        desk.service.pace.request_batches()
        await until(lambda: desk.service.batcher.cursor.batch_id > 2, "a batch that holds it")
        await desk.looked()
        assert desk.service.pace.last_posted == 1  # nothing goes that has not been checked
        assert desk.service.worker is not None
        assert desk.service.worker.unverified == 2
        await until(lambda: desk.service.pace.snapshots.written > 0, "a snapshot")
        thief.close()
        await desk.close()

        await desk.open()
        service = desk.service
        assert service.recovery.epoch == 1
        assert service.roll_backs.report is not None
        assert (body["seq"], Reason.BAD_SIGNATURE) in service.roll_backs.report.refused
        await desk.orders(4)
        await desk.check()
        assert raw in [one for entry in service.log.read(0) for one in entry.raws()]  # in its place, a no-op
        await desk.close()

    asyncio.run(play())


# --- the check by itself -------------------------------------------------------------------------


class Checked:
    """A `Vouched` on the records of a little exchange."""

    def __init__(self) -> None:
        self.forged: list[Any] = []
        self.vouched = Vouched(DOMAIN, self.forged.append)
        self.vouched.begin(0, 0)

    def add(self, little: Little, count: int, wrong: int | None = None) -> None:
        """A tick of so many orders; number `wrong` of what held is not by whom it says."""
        tick = little.run(little.orders(count))
        assert tick.entry is not None
        named = claims(tick)
        assert len(named) == count
        if wrong is not None:
            one = named[wrong]
            named[wrong] = type(one)(one.seq, one.raw[:-1] + bytes([one.raw[-1] ^ 1]), one.signer)
        self.vouched.add(named, len(little.entries), tick.entry.first_seq + tick.entry.records)


def test_ticks__are_verified_in_order__up_to_the_first_that_holds_a_forgery() -> None:
    async def play() -> None:
        checked, little = Checked(), Little()
        first = len(little.entries) + 1
        for _ in range(3):
            checked.add(little, 300)
        checked.add(little, 300, wrong=270)
        checked.add(little, 10)
        await until(lambda: checked.forged, "the forgery")
        vouched = checked.vouched
        assert vouched.offset == first + 2
        entry = little.entries[first + 2]
        assert entry.first_seq == vouched.seq <= checked.forged[0].seq < vouched.seq + entry.records
        await asyncio.sleep(0.2)
        assert (len(checked.forged), vouched.offset) == (1, first + 2)
        vouched.begin(len(little.entries), little.state.globals.seq)
        checked.add(little, 20)
        await until(lambda: vouched.offset == len(little.entries), "what comes after it")
        assert (vouched.backlog, vouched.seq) == (0, little.state.globals.seq)
        await asyncio.to_thread(vouched.stop)

    asyncio.run(play())


def test_process_that_checks__is_killed__and_nothing_is_lost_or_passed_over() -> None:
    async def play() -> None:
        checked, little = Checked(), Little()
        vouched = checked.vouched
        checked.add(little, 10)
        await until(lambda: vouched.checked == 10, "the first")
        assert vouched._process is not None
        os.kill(vouched._process.pid, signal.SIGKILL)
        checked.add(little, 10)
        await until(lambda: vouched.error, "the alarm")
        checked.add(little, 10, wrong=3)
        await until(lambda: checked.forged, "the forgery")
        assert (vouched.checked, vouched.error) == (23, "")
        await asyncio.to_thread(vouched.stop)

    asyncio.run(play())


def test_every_signed_kind__is_told_from_a_forgery() -> None:
    little = Little()
    good = [(one.raw, bytes(one.signer or b"")) for one in little.orders(4)]
    assert signatures.first_forged(good, DOMAIN) is None
    for bad in (
        (good[0][0], owner_of(9)),
        (good[0][0][:-64] + bytes(64), good[0][1]),
        (b"", good[0][1]),
        (good[0][0][:-1], good[0][1]),
    ):
        assert signatures.first_forged([*good, bad], DOMAIN) == 4
    assert signatures.first_forged(good, bytes(32)) == 0  # of another exchange
