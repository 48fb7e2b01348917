"""`sequencer.node.process` with a bug in it: `python -m tests.simulation.planted NAME FILE …`.

The simulation of a cluster must find each of them. NAME `none` is the node as it is. FILE: see shifted_node.py. The
rest of the arguments are the node's.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sequencer.log import jetstream
from sequencer.log.jetstream import Stream
from sequencer.node import process as node
from sequencer.node.pace import Pace
from sequencer.queue.driver import Driver

from .shifted_node import Shifted


def signs_before_durable() -> None:
    """A tick is acknowledged, with its receipts, before the log has it."""
    whole = Driver._make_durable

    async def early(self: Driver, tick: Any, *rest: Any) -> None:
        service = getattr(self.on_tick, "__self__")  # noqa: B009  # mypy knows no such attribute
        if tick.entry is not None and tick.receipts is not None:
            self.issuer.sign(tick.receipts)
            service.acks.send(tick, tick.told)
            tick.told.replies.clear()
            tick.told.accepted.clear()
            await asyncio.sleep(0.05)  # what lies between, at its longest
        await whole(self, tick, *rest)

    Driver._make_durable = early  # type: ignore[method-assign]


def forgets_to_fence() -> None:
    """An append takes the place that is next, whoever has the one that it expected."""
    whole = Stream.append

    def append(self: Stream, place: int, bodies: Sequence[bytes]) -> None:
        whole(self, max(place, self.last()), bodies)

    Stream.append = append  # type: ignore[method-assign]


def posts_twice() -> None:
    """A node that takes over ends batches where it likes, and does not know those that the leader has ended."""
    Pace.followed = lambda *_: None  # type: ignore[method-assign]


def executes_uncommitted() -> None:
    """Followers get an entry before a majority has it, and execute it."""
    whole = Stream.append

    def append(self: Stream, place: int, bodies: Sequence[bytes]) -> None:
        for at, body in enumerate(bodies, start=place):
            headers = {"Nats-Sequence": str(at + 1), "Nats-Msg-Id": jetstream.body_id(at, body)}
            self._link.run(self._early(body, headers))  # type: ignore[attr-defined]
        whole(self, place, bodies)

    async def early(self: Stream, body: bytes, headers: dict[str, str]) -> None:
        client = await self._link.client(1.0)
        await client.publish(self._copy, body, headers=headers)
        await asyncio.sleep(0.05)

    Stream.append = append  # type: ignore[method-assign]
    Stream._early = early  # type: ignore[attr-defined]


PLANTED: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "signs-before-durable": signs_before_durable,
    "forgets-to-fence": forgets_to_fence,
    "posts-twice": posts_twice,
    "executes-uncommitted": executes_uncommitted,
}


if __name__ == "__main__":
    PLANTED[sys.argv[1]]()
    node.L1Clock = lambda: Shifted(Path(sys.argv[2]))  # type: ignore[misc,assignment]
    node.main(sys.argv[3:], prog_name="planted")
