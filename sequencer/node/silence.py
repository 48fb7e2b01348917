"""For how long a node has heard nothing of its leader, by its own clock.

Time in which the node itself stood still (it was paused, or the machine was) is no silence of the leader: what the
leader said then is still to be read.
"""

import time
from collections.abc import Callable
from typing import Final

STILL_S: Final = 0.5  # between two looks; the loop looks every 50 ms


class Silence:
    """Seconds without a word of the leader. `clock_s`: monotonic, in seconds."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._heard_s = self._looked_s = clock_s()

    @property
    def silent_s(self) -> float:
        """Since the leader was heard, without what this node has slept."""
        return self._clock_s() - self._heard_s

    def heard(self) -> None:
        """The leader has said something."""
        self._heard_s = self._clock_s()

    def look(self) -> None:
        """The node runs: called every few hundredths of a second."""
        now_s = self._clock_s()
        still_s = now_s - self._looked_s
        if still_s > STILL_S:
            self._heard_s = min(now_s, self._heard_s + still_s)
        self._looked_s = now_s
