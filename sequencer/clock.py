"""Where time comes from: the machine's clock, or one that a replay or a devnet sets."""

import time
from datetime import UTC, datetime
from typing import Protocol


def utc(time_s: int) -> str:
    """A time as people read it, to the second."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Clock(Protocol):
    """Seconds since 1970 for the exchange; monotonic nanoseconds for ages and latencies."""

    def now_s(self) -> int:
        """Exchange time, whole seconds."""
        ...

    def monotonic_ns(self) -> int:
        """For differences only."""
        ...


class SystemClock:
    """The machine's."""

    def now_s(self) -> int:
        """See Clock."""
        return int(time.time())

    def monotonic_ns(self) -> int:
        """See Clock."""
        return time.monotonic_ns()


class ManualClock(SystemClock):
    """Stands until it is set; never goes back."""

    def __init__(self, now_s: int) -> None:
        self._now_s = now_s

    def now_s(self) -> int:
        """See Clock."""
        return self._now_s

    def set(self, now_s: int) -> None:
        """Moves on to `now_s`; an earlier time is ignored."""
        self._now_s = max(self._now_s, now_s)
