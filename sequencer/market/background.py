"""A source of prices on a thread of its own, so that a slow one holds nobody up."""

from concurrent.futures import Future, ThreadPoolExecutor

from sequencer.market.feeds import FeedSource, Report


class BackgroundSource:
    """A source that may be slow, polled on a thread of its own: the exchange goes on meanwhile."""

    def __init__(self, source: FeedSource) -> None:
        self._source = source
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._polling: Future[list[Report]] | None = None

    def poll(self, now_s: int) -> list[Report]:
        """What the poll before this one has brought, if it has ended. Raises its FeedError."""
        ended = self._polling
        if ended is not None and not ended.done():
            return []
        self._polling = self._executor.submit(self._source.poll, now_s)
        return [] if ended is None else ended.result()

    def close(self) -> None:
        """Ends the thread after its present poll."""
        self._executor.shutdown(wait=True, cancel_futures=True)
