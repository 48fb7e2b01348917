"""A slow source: whoever polls it goes on, and hears of it later."""

import threading

import pytest

from sequencer.market.background import BackgroundSource
from sequencer.market.feeds import FeedError, IndexReport, Report
from sequencer.market.sources import feed_source

NOW = 1_700_000_000


class Slow:
    """Answers when `gate` is open, with an error if there is one."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked: list[int] = []
        self.error: FeedError | None = None

    def poll(self, now_s: int) -> list[Report]:
        self.asked.append(now_s)
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        return [IndexReport(0, now_s, 4_600_000)]


def until_done(background: BackgroundSource) -> None:
    assert background._polling is not None
    background._polling.exception(60)


def test_poll__while_the_source_takes_its_time__comes_back_at_once() -> None:
    slow = Slow()
    background = BackgroundSource(slow)
    assert [background.poll(NOW + second) for second in range(5)] == [[]] * 5
    slow.gate.set()
    until_done(background)
    assert slow.asked == [NOW]  # it was asked once
    assert background.poll(NOW + 5) == [IndexReport(0, NOW, 4_600_000)]
    until_done(background)
    slow.error = FeedError("it is gone")
    background.poll(NOW + 6)
    until_done(background)
    with pytest.raises(FeedError, match="it is gone"):
        background.poll(NOW + 7)
    until_done(background)
    background.close()


@pytest.mark.parametrize("feed", ["http://127.0.0.1:1/prices", "file:/nowhere/prices.jsonl"])
def test_feed_of_a_node__that_may_be_slow__is_not_polled_by_its_loop(feed: str) -> None:
    source = feed_source(feed, [])
    assert isinstance(source, BackgroundSource)
    source.close()
