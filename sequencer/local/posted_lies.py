"""Lies about what is posted: other data than what was executed, and headers that the payload does not bear out."""

from dataclasses import replace
from typing import Final

from sequencer.l1.batch import Batch
from sequencer.local.liar import Scene
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.outcome import Outcome

OTHER: Final = 4  # the account that gets another's deposit


def class_order(scene: Scene) -> Outcome | None:
    """A system record after a taker's order of the same tick, in the place of the next order."""
    g = scene.state.globals
    if g.last_class != c.CLASS_TAKER:
        return None
    scene.keep[:] = [codec.encode(Kind.COLLECT)]
    g.last_class = c.CLASS_SYSTEM
    out = scene.apply(scene.keep[0])
    g.last_class = c.CLASS_TAKER
    return out


def other_data(scene: Scene) -> Outcome:
    """The posted order is for one lot more than the one that was executed."""
    raw = scene.raw
    quantity = int.from_bytes(raw[14:19], "big") + 1
    scene.keep[:] = [raw[:14] + quantity.to_bytes(5, "big") + raw[19:]]
    return scene.apply()


def deposit_altered(scene: Scene) -> Outcome:
    raw = scene.raw
    amount = int.from_bytes(raw[25:31], "big") * 2
    altered = raw[:25] + amount.to_bytes(6, "big")
    scene.keep[:] = [altered]
    return scene.apply(altered)


def deposit_diverted(scene: Scene) -> Outcome:
    altered = scene.raw[:21] + OTHER.to_bytes(4, "big") + scene.raw[25:]
    scene.keep[:] = [altered]
    return scene.apply(altered)


def deposit_dropped(scene: Scene) -> Outcome:
    scene.keep.clear()
    return Outcome(scene.state.globals.seq)


def overweight(scene: Scene) -> Outcome:
    return scene.apply()


def header_time(batch: Batch) -> Batch:
    return replace(batch, time_s=batch.time_s + 1)


def header_records(batch: Batch) -> Batch:
    return replace(batch, records=batch.records - 1)


def header_work(batch: Batch) -> Batch:
    """The batch costs a unit more than it has taken from the budget."""
    return replace(batch, work=batch.work - 1)


def root_tail(batch: Batch) -> Batch:
    return replace(batch, post_root=batch.post_root[:31] + bytes([batch.post_root[31] ^ 1]))


def empty_segment(batch: Batch) -> Batch:
    segments = batches.decode(batch.payload, batch.segments, batch.ticks)
    ids = batches.ids_in(batch.payload, batch.segments, batch.ticks)
    segments.insert(1, batches.Segment(segments[0].root, ()))
    return replace(batch, segments=batch.segments + 1, payload=batches.encode(segments, ids))


def header_tick(batch: Batch) -> Batch:
    """The batch has one tick less than has begun in it: the ids of headers after it would stand elsewhere."""
    segments = batches.decode(batch.payload, batch.segments, batch.ticks)
    ids = batches.ids_in(batch.payload, batch.segments, batch.ticks)[:-1]
    return replace(batch, tick=batch.tick - 1, ticks=batch.ticks - 1, payload=batches.encode(segments, ids))


def bounds_disordered(batch: Batch) -> Batch:
    """The second segment ends before it begins."""
    at = batch.segments * c.ELEMENT_BYTES + 3
    payload = batch.payload[:at] + (0).to_bytes(3, "big") + batch.payload[at + 3 :]
    return replace(batch, payload=payload)


def last_root(batch: Batch) -> Batch:
    """The payload's last root is not the header's."""
    at = batch.segments * c.ELEMENT_BYTES - 1
    payload = batch.payload[:at] + bytes([batch.payload[at] ^ 1]) + batch.payload[at + 1 :]
    return replace(batch, payload=payload)


def last_offset(batch: Batch) -> Batch:
    """The last segment ends an element before the payload."""
    return replace(batch, payload=batch.payload + bytes(c.ELEMENT_BYTES))
