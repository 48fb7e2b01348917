"""Subscription: iterates over the events of the subscribed channels."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

EVENTS_KEPT_MAX: Final = 10_000  # of a subscription that is not read
_CLOSED: Final = object()


@dataclass(frozen=True, slots=True)
class Event:
    """What a subscription yields.

    `is_gap`: events before this one may have been missed (`data` is None, or says why). `is_end`: the channel brings
    nothing more, for the reason in `data` (its instrument is not known any more, say); the other channels go on.
    """

    channel: str
    data: Any
    is_gap: bool = False
    is_end: bool = False


class Subscription:
    """Events of some channels, as an async iterator. Unread, it forgets the oldest and says so by a gap.

    `refused`: channels that were asked for and cannot be had, each with the reason.
    """

    def __init__(self, channels: frozenset[str], kept_max: int = EVENTS_KEPT_MAX) -> None:
        self.channels = channels
        self.refused: Mapping[str, str] = {}
        self._events: deque[Event | object] = deque()
        self._kept_max = kept_max
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        """Called by the client."""
        if len(self._events) >= self._kept_max:
            self._events.clear()
            self._events.append(Event("", None, is_gap=True))
        self._events.append(event)
        self._arrived.set()

    def end_channel(self, channel: str, why: str) -> None:
        """Called by the client: `channel` brings nothing more."""
        self.channels -= {channel}
        self.put(Event(channel, why, is_end=True))

    def end(self) -> None:
        """Ends the iteration after what has arrived."""
        self._events.append(_CLOSED)
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                event = self._events.popleft()
                if not isinstance(event, Event):
                    return
                yield event
            self._arrived.clear()
            await self._arrived.wait()
