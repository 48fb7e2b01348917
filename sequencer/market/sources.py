"""From the text of an option, such as `deribit:URL`, to the source that it names."""

from collections.abc import Sequence
from pathlib import Path

from sequencer.market.background import BackgroundSource
from sequencer.market.feeds import FeedSource
from sequencer.market.flat import FlatSource, Terms, flat_indices
from sequencer.market.polled import FileSource, HttpSource
from sequencer.market.public import DeribitSource
from sequencer.market.signed import SignedSource


class UnknownSource(ValueError):
    """The text names no kind of source."""


def feed_source(
    feed: str, wanted: list[Terms], keys: Sequence[bytes] = (), domain: bytes = b""
) -> FeedSource:
    """The source that `flat:`, `file:`, `http:`, `https:`, `deribit:` or `signed:` names; on a thread of its own where
    it may be slow. `keys`, `domain`: of PARAMS and the exchange, for records signed elsewhere.

    Raises UnknownSource, or ValueError for what follows the colon.
    """
    kind, _, rest = feed.partition(":")
    match kind:
        case "flat":
            return FlatSource(wanted, flat_indices(rest))
        case "file":
            return BackgroundSource(FileSource(Path(rest)))
        case "http" | "https":
            return BackgroundSource(HttpSource(feed))
        case "deribit":
            return BackgroundSource(DeribitSource(rest))
        case "signed":
            return BackgroundSource(SignedSource(rest, keys, domain))
        case _:
            raise UnknownSource(feed)
