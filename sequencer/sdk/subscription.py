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
    """An event of a subscription.

    `is_gap`: events before this one may have been missed (`data` is None, or has the reason). `is_end`: the channel
    ends, for the reason in `data` (for example, its instrument is no longer known); the other channels continue.
    """

    channel: str
    data: Any
    is_gap: bool = False
    is_end: bool = False


class Subscription:
    """Iterates over the events of the subscribed channels.

    A slow reader loses the oldest events, and gets a gap. `refused`: channels that were refused, each with the reason.
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
        """Called by the client: `channel` has ended."""
        self.channels -= {channel}
        self.put(Event(channel, why, is_end=True))

    def end(self) -> None:
        """Ends the iteration after the events that have arrived."""
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
