"""Exponential backoff with jitter."""

import random
import time
from collections.abc import Callable


class Backoff:
    """Waits of `first_s`, twice that, ... up to `most_s`, each shortened by up to half at random.

    After `steady_s` without a failure waits start over from `first_s`.
    """

    def __init__(
        self,
        first_s: float = 0.1,
        most_s: float = 5.0,
        steady_s: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._steady_s = steady_s
        self._monotonic = monotonic
        self._wait_s = first_s
        self._worked_at: float | None = None

    def worked(self) -> None:
        """Notes a success."""
        self._worked_at = self._monotonic()

    def next_s(self) -> float:
        """Notes a failure; seconds to wait."""
        if self._worked_at is not None and self._monotonic() - self._worked_at >= self._steady_s:
            self._wait_s = self._first_s
        self._worked_at = None
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads, no secret
        self._wait_s = min(2.0 * self._wait_s, self._most_s)
        return wait_s
