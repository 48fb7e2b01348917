"""Where time comes from: the machine's clock, held against L1's, or one that a replay or a devnet sets."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

JUMP_S: Final = (
    1.0  # of the clock against the monotonic one, between two readings; more than a clock is slewed by
)
AGREES_S: Final = 30.0  # from L1's time, which comes with its blocks


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

    def see_l1(self, time_s: int, ahead_max_s: int) -> None:
        """L1's time is this; by how much the exchange's may be ahead of it."""
        ...


class SystemClock:
    """The machine's."""

    def now_s(self) -> int:
        """See Clock."""
        return int(time.time())

    def monotonic_ns(self) -> int:
        """See Clock."""
        return time.monotonic_ns()

    def see_l1(self, time_s: int, ahead_max_s: int) -> None:
        """See Clock: this one is believed as it is."""


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


class ClockStopped(Exception):
    """There is no time that can be trusted: the text says why. It passes."""


class L1Clock(SystemClock):
    """The machine's clock, held against its monotonic one and against L1's time.

    The exchange's time is written into TICKs, and cannot go back: an hour ahead for a moment would keep batches from L1
    for that hour, and a day ends every option of that day. So there is no time (ClockStopped)

    * while the clock is more than JUMP_S off from where it was and what has passed since;
    * while it is ahead of L1's newest block, and what has passed since that was first seen, by more than the Rollup
      takes;
    * until L1 has said its time once.

    A clock that has jumped is believed again when it is back, or when L1's time agrees with where it is now: it was
    wrong before. `wall` and `monotonic` give seconds.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._at = (wall(), monotonic())  # of the last reading that was believed
        self._jumped_at_s: float | None = None  # monotonic
        self._l1: tuple[int, float] | None = None  # L1's time, and when it was first seen, monotonic
        self._ahead_max_s = 0

    def see_l1(self, time_s: int, ahead_max_s: int) -> None:
        """See Clock."""
        with self._lock:
            self._ahead_max_s = ahead_max_s
            now_s = self._monotonic()
            before_s = self._l1[0] if self._l1 is not None else None
            # A little earlier: of a node that lags behind the one that answered before.
            if before_s is None or time_s > before_s or time_s < before_s - AGREES_S:
                self._l1 = time_s, now_s

    def now_s(self) -> int:
        """See Clock. Raises ClockStopped."""
        with self._lock:
            now_s, passed_s = self._wall(), self._monotonic()
            off_s = now_s - (self._at[0] + passed_s - self._at[1])
            if abs(off_s) > JUMP_S and not self._is_right_by_l1(now_s, passed_s):
                if self._jumped_at_s is None:
                    self._jumped_at_s = passed_s
                raise ClockStopped(
                    f"the machine's clock has jumped by {off_s:+.0f} s: no tick until it is back, or L1's time agrees"
                )
            self._at, self._jumped_at_s = (now_s, passed_s), None
            if self._l1 is None:
                raise ClockStopped("L1 has not said its time yet: no tick before")
            ahead_s = now_s - (self._l1[0] + passed_s - self._l1[1])
            if ahead_s > self._ahead_max_s:
                raise ClockStopped(
                    f"the machine's clock is {ahead_s:.0f} s ahead of L1, which takes {self._ahead_max_s} s: "
                    "no tick until they agree"
                )
            return int(now_s)

    def _is_right_by_l1(self, now_s: float, passed_s: float) -> bool:
        """Whether L1 has made a block since the jump, and its time is that of the clock as it is now."""
        if self._l1 is None or self._jumped_at_s is None or self._l1[1] <= self._jumped_at_s:
            return False
        return abs(now_s - (self._l1[0] + passed_s - self._l1[1])) <= AGREES_S
