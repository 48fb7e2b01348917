"""A source of prices on a thread of its own, so that a slow one holds nobody up."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from sequencer.market.feeds import FeedError, FeedSource, News
from sequencer.market.signed import SignedSource

SILENT_S: Final = 30.0  # of one poll, after which the source counts as failing


class BackgroundSource:
    """A source that may be slow, polled on a thread of its own: the exchange goes on meanwhile."""

    def __init__(self, source: FeedSource, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._monotonic = monotonic
        self._asked_at = 0.0
        self._error = ""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._polling: Future[Sequence[News]] | None = None

    @property
    def is_signed(self) -> bool:
        """Whether what comes is signed already."""
        return isinstance(self._source, SignedSource)

    def poll(self, now_s: int) -> Sequence[News]:
        """What the poll before this one has brought, if it has ended. Raises its FeedError, until a poll works."""
        ended = self._polling
        if ended is not None and not ended.done():
            silent_s = self._monotonic() - self._asked_at
            if silent_s > SILENT_S:
                self._error = f"{type(self._source).__name__}: no answer for {silent_s:.0f} s"
            if self._error:
                raise FeedError(self._error)
            return []
        self._polling = self._executor.submit(self._source.poll, now_s)
        self._asked_at = self._monotonic()
        if ended is None:
            return []
        try:
            reports = ended.result()
        except FeedError as error:
            self._error = str(error)
            raise
        self._error = ""
        return reports

    def close(self) -> None:
        """Ends the thread after its present poll."""
        self._executor.shutdown(wait=True, cancel_futures=True)
