"""What a record costs a watcher, beside the units that it counts, and how long the heaviest permitted slot takes it.

    python benchmarks/watcher.py

The whole way of a batch: payload, decoding, recovery, handler, a root for each segment; seconds of CPU. Records are
those of the gas table (tests/differential/gas_scenes.py): each kind on an exchange in use and on the deepest keys, each
after a change of marks, so that nothing is in any cache. Last, batches of RISK as large as calldata, six blobs and the
bound allow.
"""

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from rich.console import Console
from rich.table import Table

from sequencer.l1 import blobs
from sequencer.l1.deploy import DeployConfig
from sequencer.l1.follower import PostedBatch
from sequencer.proof.execution import Execution, HeaderFacts
from sequencer.protocol import batch as batches
from sequencer.protocol import codec, work
from sequencer.protocol import constants as c
from sequencer.protocol.batch import Segment
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import SurfaceReport
from sequencer.protocol.hashing import address_of, keccak, public_key_of, recover, sign
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "differential"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "protocol"))
import worlds
from exchange import NEAR
from gas_scenes import SIZES, DeepScript, Scene, Script

ACCOUNTS: Final = 16_384
ORDERS: Final = 5_000
CALLDATA_ELEMENTS: Final = 3_936
BLOBS_ELEMENTS: Final = blobs.BLOBS_MAX * blobs.BLOB_ELEMENTS
SIGNATURES: Final = 2_000
PER_RISK: Final = (
    2 + 1 / batches.OFFSETS_PER_ELEMENT
)  # elements: the record, its root, its part of the offsets


def recovery_us() -> float:
    """What recovers a signer, on this core."""
    key = keccak(b"watcher")
    digests = [keccak(b"%d" % number) for number in range(SIGNATURES)]
    signatures = [sign(digest, key) for digest in digests]
    begun = time.process_time()
    for digest, signature in zip(digests, signatures, strict=True):
        assert recover(digest, signature) is not None
    took_s = time.process_time() - begun
    assert recover(digests[0], signatures[0]) == address_of(public_key_of(key))
    return took_s / SIGNATURES * 1e6


def commitment_us() -> float:
    """What a blob costs by itself: the commitment that names it."""
    blob = blobs.to_blobs(bytes(range(31)) * blobs.BLOB_ELEMENTS)[0]
    blobs.setup()
    begun = time.process_time()
    for _ in range(3):
        blobs.commitment_of(blob)
    return (time.process_time() - begun) / 3 * 1e6


def posted(state: State, segments: list[list[bytes]]) -> PostedBatch:
    """What L1 would show of these segments after `state`, which stands behind them now."""
    listed = []
    first_seq = state.globals.seq
    for records in segments:
        for raw in records:
            apply(state, raw)
        listed.append(Segment(state.root(), tuple(records)))
    payload, g = batches.encode(listed), state.globals
    return PostedBatch(
        batch_id=1,
        pre_root=b"",
        post_root=state.root(),
        data_root=b"",
        header_hash=b"",
        elements=len(payload) // c.ELEMENT_BYTES,
        segments=len(listed),
        records=g.seq - first_seq,
        first_seq=first_seq,
        time_s=g.time,
        inbox_count=g.inbox_count,
        inbox_hash=g.inbox_hash,
        work=g.work,
        tick=g.tick,
        ticks=sum(batches.ticks_in(records) for records in segments),
        payload=payload,
        block_number=1,
        block_hash="",
        tx_hash="",
    )


class MoreScript(Script):
    """Orders that the gas table leaves out: another price, words that trade, what is refused for margin."""

    def of_an_account(self, number: int, size: int) -> Iterator[Scene]:
        world = self.world
        instrument = (sorted(world.accounts[number].positions) or sorted(world.books))[size // 2]
        asks = list(world.books[instrument].orders(c.SELL))
        order = {"instrument": instrument, "flags": c.BUY, "fee_max": 65_535}
        fills = {"price": asks[2].price, "quantity": sum(one.quantity for one in asks[:3])}
        words = {**order, **fills, "terms": world.pages[instrument >> 5].terms[instrument & 31]}
        raw = self.signed(Kind.PLACE_IN_WORDS, number, **words)
        yield Scene("PLACE_IN_WORDS, three fills", size, (raw,))
        seq = world.globals.seq + self.before
        yield Scene("PLACE, rests", size, (self.place(number, instrument, 1, 10),))
        amend = {**order, "price": 1, "seq": seq}
        raw = self.signed(Kind.AMEND, number, **amend, new_price=asks[3].price, quantity=c.U40_MAX)
        yield Scene("AMEND, more than margin bears", size, (raw,), Reason.MARGIN)
        self.nonces[number] -= 1
        raw = self.signed(Kind.AMEND, number, **amend, new_price=2, quantity=20)
        yield Scene("AMEND, at another price", size, (raw,))


class MoreDeepScript(DeepScript):
    """Likewise, on the deepest keys."""

    def scenes(self) -> Iterator[Scene]:
        for row in (0, 2):
            order = {"instrument": NEAR << 12 | row, "flags": c.SELL, "quantity": 7, "fee_max": 65_535}
            self.surround(order["instrument"])
            amend = {"price": c.U32_MAX, "seq": 0, "new_price": c.U32_MAX - 1}
            raw = self.signed(Kind.AMEND, worlds.DEEP_FROM, **order, **amend)
            yield Scene("AMEND, three fills, deep", None, (raw,))
            yield from self.rest_of_it()
            order["instrument"] += 1
            terms = self.world.pages[order["instrument"] >> 5].terms[row + 1]
            words = {"price": c.U32_MAX, "terms": terms}
            raw = self.signed(Kind.PLACE_IN_WORDS, worlds.DEEP_FROM, **order, **words)
            yield Scene("PLACE_IN_WORDS, three fills, deep", None, (raw,))
            yield from self.rest_of_it()
        order = {"price": c.U32_MAX, "seq": 0, "flags": c.BUY, "fee_max": 65_535}
        for row in (4, 5):
            where = {"instrument": NEAR << 12 | row, **order}
            raw = self.signed(Kind.AMEND, worlds.DEEP_FROM + 1, **where, new_price=3, quantity=1)
            yield Scene("AMEND, at another price", None, (raw,))
            seq = self.world.globals.seq - 1
            where |= {"price": 3, "seq": seq}
            raw = self.signed(Kind.AMEND, worlds.DEEP_FROM + 1, **where, new_price=3, quantity=1)
            yield Scene("AMEND, as much in its place", None, (raw,))

    def surround(self, instrument: int) -> None:
        """An ask of the first account, with neighbours that differ in each bit of its key."""
        for bit in (0, *(1 << place for place in range(40))):
            number = 1 if bit else worlds.DEEP_FROM
            worlds.rest_at(self.world, number, instrument, c.SELL, c.U32_MAX, bit, 7, c.SELL)
        for place in range(32):
            worlds.rest_at(self.world, 1, instrument, c.SELL, c.U32_MAX ^ 1 << place, 1, 7, c.SELL)


@dataclass(slots=True)
class Cost:
    """What a scene's records cost, each: the least in any round, µs; units."""

    us: float
    units: int

    @property
    def margin(self) -> float:
        """By how much the units are more than it takes."""
        return self.units * work.UNIT_US / self.us


def kinds(
    world: State, script: Callable[[State], Iterator[Scene]], rounds: int
) -> dict[tuple[int, str], Cost]:
    """The cost of each scene, by kind and scene."""
    leaves = list(world.preimages())
    out: dict[tuple[int, str], Cost] = {}
    for _ in range(rounds):
        state = State.from_preimages(world.domain, iter(leaves))
        state.root()
        gc.collect()
        gc.disable()
        for scene in script(state):
            if scene.opens:
                apply(state, codec.encode(Kind.TICK, time=state.globals.time))
            state.root()
            if not scene.records:
                continue
            state.epoch += 1  # as a RISK would
            payload = batches.encode([Segment(bytes(32), scene.records)])
            ticks = batches.ticks_in(scene.records)
            before = state.globals.work
            begun = time.process_time()
            (segment,) = batches.decode(payload, 1, ticks)
            for raw in segment.records:
                told = apply(state, raw)
            state.root()
            took_us = (time.process_time() - begun) / len(scene.records) * 1e6
            assert told.reason is scene.reason, (scene.name, scene.size, told.reason)
            units = (state.globals.work - before) // len(scene.records)
            key = scene.records[-1][0], scene.name + (f", {scene.size} positions" if scene.size else "")
            if scene.name and (key not in out or took_us < out[key].us):
                out[key] = Cost(took_us, units)
        gc.enable()
    return out


def disagreeing(world: State) -> State:
    """The world with its dearest RISK: 32 strikes a page, four feeds whose middle two disagree, so that the prices that
    both make are compared for each strike.
    """
    state = State.from_preimages(world.domain, iter(list(world.preimages())))
    keys = tuple(bytes([number + 1]) * 20 for number in range(c.FEEDS_MAX))
    spreads = {"variance_spread_max_ppm": 1, "mark_spread_max_ppm": c.U32_MAX}
    state.params = replace(state.params, feed_keys=keys, **spreads)
    for key, expiry in state.expiries.items():
        first = next(one for one in expiry.reports if one is not None)
        for feed in range(c.FEEDS_MAX):
            shape = replace(first.surface, a_e12=first.surface.a_e12 + feed * 3 * 10**9)
            report = SurfaceReport(first.time, first.forward, first.index, shape)
            expiry.reports[feed] = report if feed < 4 else None
        state.touch(c.KEY_EXPIRY | key, expiry)
    for page_id, page in state.pages.items():
        middle = state.underlyings[page_id >> 23].index
        page.terms = [(middle + (row - 16) * worlds.STEP) | (row & 1) << 31 for row in range(len(page.terms))]
        state.touch(c.KEY_PAGE | page_id, page)
    state.root()
    return state


def dearest_risk(state: State, rounds: int) -> Cost:
    """A RISK of the world above, each a second after the one before."""
    page = next(one for one in sorted(state.pages) if len(state.pages[one].terms) == c.PAGE_ROWS)
    raw = codec.encode(Kind.RISK, underlying=page >> 23, day=page >> 7 & 0xFFFF, page=page & 127)
    found = Cost(math.inf, 0)
    for _ in range(20 * rounds):  # milliseconds that somebody else disturbs must not be all there are
        apply(state, codec.encode(Kind.TICK, time=state.globals.time + 1))
        before, begun = state.globals.work, time.process_time()
        assert not apply(state, raw).reason
        state.root()
        found = min(
            found,
            Cost((time.process_time() - begun) * 1e6, state.globals.work - before),
            key=lambda one: one.us,
        )
    return found


def undone(rounds: int) -> Cost:
    """The CONTINUE that undoes a FOK of as many records as there may be, against orders of as many accounts."""
    world = worlds.standing(Random(1), SIZES, ACCOUNTS, ORDERS)
    leaves = list(world.preimages())
    found = Cost(math.inf, 0)
    for _ in range(rounds):
        state, random = State.from_preimages(world.domain, iter(leaves)), Random(1)
        instrument = min(state.books)
        page = state.pages[instrument >> 5]
        mark, far = page.rows[instrument & 31][0], 6_000
        there = sum(1 for _ in state.books[instrument].orders(c.SELL))
        for number in range(c.PLAN_RECORDS_MAX * c.STEPS_MAX - 1 - there):
            maker = worlds.CROWD_FROM + ORDERS + number
            worlds.rest(state, maker, instrument, c.SELL, mark + random.randint(1, far), 3)
        apply(state, codec.encode(Kind.TICK, time=state.globals.time))
        lots = sum(order.quantity for order in state.books[instrument].orders(c.SELL))
        flags = c.BUY | c.TIF_FOK << c.FLAG_TIF_SHIFT
        out = apply(state, Script(state).place(4 * len(SIZES) - 3, instrument, mark + far, lots + 1, flags))
        records = 1
        while out.pending:
            state.root()
            before, begun = state.globals.work, time.process_time()
            out, records = apply(state, codec.encode(Kind.CONTINUE)), records + 1
            state.root()
            cost = Cost((time.process_time() - begun) * 1e6, state.globals.work - before)
        assert out.failed, out.reason
        assert records == c.PLAN_RECORDS_MAX
        found = min(found, cost, key=lambda one: one.us)
    return found


def heaviest(elements: int, budget: int) -> tuple[PostedBatch, State]:
    """A batch of RISK of full pages, each time a second later, that fills so many elements or so many units."""
    state, other = (disagreeing(worlds.standing(Random(1), SIZES, ACCOUNTS, ORDERS)) for _ in range(2))
    pages = [page for page in sorted(state.pages) if len(state.pages[page].terms) == c.PAGE_ROWS]
    segments: list[list[bytes]] = []
    spent, at = work.of_batch(0, -(-elements // blobs.BLOB_ELEMENTS)), 0
    while PER_RISK * (len(segments) + 2) < elements:
        turn, place = divmod(at, len(pages))
        page = pages[place]
        where = {"underlying": page >> 23, "day": page >> 7 & 0xFFFF, "page": page & 127}
        records = [codec.encode(Kind.RISK, **where)]
        if not place:
            records.insert(0, codec.encode(Kind.TICK, time=state.globals.time + turn))
        spent += sum(map(work.of, records)) + work.RISK_ROW * c.PAGE_ROWS
        if spent > budget:
            break
        segments.append(records)
        at += 1
    return posted(state, segments), other


def slot_s(elements: int, in_blobs: bool, budget: int) -> tuple[int, float]:
    """RISK records of the heaviest batch, and the seconds that replaying it takes."""
    batch, state = heaviest(elements, budget)
    state.root()
    begun = time.process_time()
    if in_blobs:
        for blob in batch.blobs():
            blobs.commitment_of(blob)
    fault = Execution(state, HeaderFacts()).execute(batch, batch.batch_id)
    assert fault is None, fault
    return batch.segments, time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-batches", action="store_true", help="the table alone")
    arguments = parser.parse_args()
    print(f"a signer's recovery {recovery_us():.0f} µs; a blob's commitment {commitment_us() / 1e3:.0f} ms")

    found = kinds(
        worlds.standing(Random(1), SIZES, ACCOUNTS, ORDERS),
        lambda one: Script(one, before=1).scenes(),  # the TICK
        arguments.rounds,
    )
    found |= kinds(
        worlds.standing(Random(1), SIZES, ACCOUNTS, ORDERS),
        lambda one: MoreScript(one, before=1).scenes(),
        arguments.rounds,
    )
    for script in (DeepScript, MoreDeepScript):
        found |= kinds(worlds.deepest(Random(1)), lambda one, of=script: of(one).scenes(), arguments.rounds)
    world = disagreeing(worlds.standing(Random(1), SIZES, ACCOUNTS, ORDERS))
    found[Kind.RISK, "RISK, 32 rows, feeds that disagree"] = dearest_risk(world, arguments.rounds)
    found[Kind.CONTINUE, f"CONTINUE, undoes {c.PLAN_RECORDS_MAX} records"] = undone(arguments.rounds)
    table = Table("kind", "the dearest for its units", "µs", "units", "margin")
    worst: dict[int, tuple[float, str]] = {}
    for (kind, name), cost in found.items():
        worst[kind] = min(worst.get(kind, (math.inf, "")), (cost.margin, name))
    for kind, (margin, name) in sorted(worst.items()):
        cost = found[kind, name]
        title = Kind(kind).name if kind in c.LAYOUT else "no record"
        table.add_row(title, name, f"{cost.us:.0f}", str(cost.units), f"{margin:.2f}")
    Console(width=120).print(table)
    least = min(worst.values())
    print(f"least margin {least[0]:.2f}: {least[1]}")
    if arguments.no_batches:
        return
    limits = DeployConfig(b"", "", 0, 0)
    print(f"a slot by the table: {limits.work_max * work.UNIT_US * 1e-6:.1f} s of {work.SLOT_S}")
    for name, elements, in_blobs in (
        ("calldata", CALLDATA_ELEMENTS, False),
        ("six blobs", BLOBS_ELEMENTS, True),
    ):
        count, took_s = slot_s(elements, in_blobs, limits.work_max)
        print(f"{name}: {count:,} RISK permitted, {took_s:.2f} s, {took_s / work.SLOT_S:.2f} of a slot")
    count, took_s = slot_s(BLOBS_ELEMENTS, True, 1 << 62)
    print(f"six blobs without the bound: {count:,} RISK, {took_s:.1f} s, {took_s / work.SLOT_S:.2f} slots")


if __name__ == "__main__":
    main()
