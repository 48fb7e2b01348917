"""The keeper proposes time-driven system records; the transition decides whether each is valid.

Reports of the feeds, listings, risk arrays, settlement prices; then liquidations, settlements, dead orders. Each kind
has its own limit per pass, so none can crowd out another; the rest follows in the next pass. Nothing is searched for:
`index.py` and `looks.py` find the work.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from sequencer.engine.engine import Submission
from sequencer.keeper.index import Index
from sequencer.keeper.liquidator import Liquidator
from sequencer.market.feeds import (
    FeedError,
    FeedSource,
    IndexReport,
    News,
    Report,
    SignedReport,
    sign_reports,
)
from sequencer.protocol import codec, margin, work
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State, expiry_time

logger = logging.getLogger(__name__)

Terms = tuple[int, int, int, bool]  # underlying, day, strike in ticks, is put
FEED_BYTE = 2  # of a FEED or SURFACE record: the feed's number
ALL_FEEDS = -1  # whose reports are signed here, with every key


@dataclass(frozen=True, slots=True)
class KeeperConfig:
    """Marks are made anew after `risk_move_ppm` of the index, or `risk_refresh_s`. The rest is what a pass may do.

    All of a pass at once is some 47,000 units of work (protocol/work.py), without listings: what L1 takes in a second
    and a half. RISK is most of it, and 3 ms of a tick each; `risk_work_*` are its units a second, and at once: half of
    what L1 takes, for orders need some, too.
    """

    risk_move_ppm: int = 1_000
    risk_refresh_s: int = 900
    listings_max: int = 256  # LIST; expiries whose surfaces are reported
    risks_max: int = 32
    risk_work_per_s: int = 16_500
    risk_work_max: int = 200_000
    looks_max: int = 2_048  # accounts valued
    liquidations_max: int = 256
    settlements_max: int = 256
    sweeps_max: int = 512  # a second, however many ticks it has
    auctions_max: int = 512  # portfolios that the liquidator looks at


@dataclass(slots=True)
class Keeper:
    """The keeper of one state.

    `wanted`: options to list; `feed_keys`: private keys of the feeds that sign in this process.
    """

    state: State
    sources: list[FeedSource] = field(default_factory=list)
    feed_keys: list[bytes] = field(default_factory=list)
    config: KeeperConfig = field(default_factory=KeeperConfig)
    wanted: list[Terms] = field(default_factory=list)
    liquidator: Liquidator | None = None
    feed_errors: dict[int, str] = field(default_factory=dict)  # by source, while it fails
    index: Index = field(init=False)
    _surfaces_wait: dict[tuple[int, int, int], News] = field(default_factory=dict)  # underlying, day, feed
    _risk_work: tuple[int, int] = (0, 0)  # units that RISK may still cost, and as of when
    _swept: tuple[int, int] = (0, 0)  # second of the last sweeps, and their number in it

    def __post_init__(self) -> None:
        """Builds the indexes of `state`."""
        self.adopt(self.state)

    def adopt(self, state: State) -> None:
        """Continues with `state`."""
        self.state = state
        self.index = Index(state, self.config.risk_move_ppm, self.config.risk_refresh_s)

    @property
    def feed_error(self) -> str:
        """Errors of the sources that fail now; empty when none does."""
        return "; ".join(self.feed_errors[number] for number in sorted(self.feed_errors))

    def pass_one(self, now_s: int) -> list[bytes]:
        """Reports, listings, surfaces, marks and settlement prices, for the tick at `now_s`."""
        reports: list[News] = []
        for number, source in enumerate(self.sources):
            try:
                reports += source.poll(now_s)
                self.feed_errors.pop(number, None)
            except FeedError as error:  # a feed that fails is silent; the index goes stale by rule
                self.feed_errors[number] = str(error)
            except Exception as error:  # a source must never stop the exchange
                logger.exception("feed source %d", number)
                self.feed_errors[number] = f"{type(error).__name__}: {error}"
        out: list[bytes] = []
        moved: dict[int, int] = {}
        for news in reports:
            report = _content(news)
            if isinstance(report, IndexReport):
                out += self._signed([news])
                moved[report.underlying] = report.price_ticks
            else:  # a surface of an expiry that is not listed yet waits for the listing
                feed = news.raw[FEED_BYTE] if isinstance(news, SignedReport) else ALL_FEEDS
                self._surfaces_wait[report.underlying, report.day, feed] = news
        self.index.update()
        listed = self._listings(now_s)
        out += listed
        opening: dict[int, int] = {}  # expiry -> listings of this very tick
        for raw in listed:
            key = raw[1] << 16 | int.from_bytes(raw[2:4], "big")
            opening[key] = opening.get(key, 0) + 1
        ready: list[News] = []
        for one in sorted(self._surfaces_wait):
            key = one[0] << 16 | one[1]
            if now_s >= expiry_time(one[1]):
                del self._surfaces_wait[one]
            elif (key in self.state.expiries or key in opening) and len(ready) < self.config.listings_max:
                ready.append(self._surfaces_wait.pop(one))
        out += self._signed(ready)
        out += self._fixes(now_s)
        out += self._risks(now_s, moved, opening)
        return out

    def pass_two(self, now_s: int) -> list[bytes]:
        """Liquidations, settlements and dead orders, at the present marks."""
        index, config = self.index, self.config
        index.update()
        index.looks.look(now_s, config.looks_max)
        out = [
            codec.encode(Kind.LIQUIDATE, account=number)
            for number in index.looks.proposals(config.liquidations_max)
        ]
        for key, number in index.expiries.holders(index.looks, config.settlements_max):
            out.append(codec.encode(Kind.SETTLE, underlying=key >> 16, day=key & 0xFFFF, account=number))
        return out + self.sweeps(now_s)

    def sweeps(self, now_s: int) -> list[bytes]:
        """SWEEPs of dead orders at `now_s`: for every tick, before a taker can meet them."""
        if now_s != self._swept[0]:
            self._swept = now_s, 0
        orders, (_, swept) = self.index.orders, self._swept
        orders.update()
        found = orders.dead(now_s, self.config.sweeps_max - swept)
        self._swept = now_s, swept + len(found)
        return [
            codec.encode(Kind.SWEEP, instrument=instrument, side=side, price=price, seq=seq)
            for instrument, side, price, seq in found
        ]

    def bids(self, now_s: int) -> list[Submission]:
        """Bids of the liquidator for portfolios on auction, the most under-margined first."""
        if self.liquidator is None:
            return []
        return self.liquidator.bids(self.state, self._under_auction(), now_s)

    def _signed(self, news: Iterable[News]) -> list[bytes]:
        """Records of reports: as signed by their feed, else signed with every local key."""
        listed = list(news)
        out = [one.raw for one in listed if isinstance(one, SignedReport)]
        bare = [one for one in listed if not isinstance(one, SignedReport)]
        for feed, key in enumerate(self.feed_keys):
            out += sign_reports(bare, feed, key, self.state.domain)
        return out

    def _listings(self, now_s: int) -> list[bytes]:
        state = self.state
        self.wanted = [
            (underlying, day, strike, is_put)
            for underlying, day, strike, is_put in self.wanted
            if underlying << 48 | day << 32 | is_put << 31 | strike not in state.instruments
            and expiry_time(day) > now_s + c.TWAP_S
        ]
        ready = [one for one in self.wanted if state.underlyings[one[0]].index][: self.config.listings_max]
        if len(ready) < len(self.wanted):  # refused proposals must not block the rest
            taken = set(ready)
            self.wanted = [one for one in self.wanted if one not in taken] + ready
        return [
            codec.encode(Kind.LIST, underlying=underlying, day=day, put=int(is_put), strike=strike)
            for underlying, day, strike, is_put in ready
        ]

    def _fixes(self, now_s: int) -> Iterator[bytes]:
        self.index.expiries.advance(now_s)
        for key in self.index.expiries.unfixed:
            underlying, day = key >> 16, key & 0xFFFF
            snapshot = self.state.underlyings[underlying].snapshots[day % c.SNAPSHOT_DAYS]
            if snapshot.day == day and snapshot.has_start and snapshot.has_end:
                yield codec.encode(Kind.FIX, underlying=underlying, day=day)

    def _risks(self, now_s: int, moved: dict[int, int], opening: dict[int, int]) -> Iterator[bytes]:
        state, config = self.state, self.config
        left, since_s = self._risk_work
        left = min(config.risk_work_max, left + config.risk_work_per_s * max(0, now_s - since_s))
        count = min(config.risks_max, left // work.of_risk(c.PAGE_ROWS))
        indexes = {
            number: moved.get(number, underlying.index) for number, underlying in state.underlyings.items()
        }
        pages = dict.fromkeys(self.index.pages.due(now_s, indexes, self.index.looks, count))
        for key, listings in opening.items():  # pages that this tick's listings open or continue
            row = state.expiries[key].listed if key in state.expiries else 0
            for number in range(row >> 5, (row + listings - 1 >> 5) + 1):
                pages[key << 7 | number] = None
        for page_id in islice(pages, count):
            page = state.pages.get(page_id)  # which a listing of this tick may be about to open
            left -= work.of_risk(len(page.terms)) if page is not None else work.of_risk(c.PAGE_ROWS)
            day, number = page_id >> 7 & 0xFFFF, page_id & 127
            yield codec.encode(Kind.RISK, underlying=page_id >> 23, day=day, page=number)
        self._risk_work = left, now_s

    def _under_auction(self) -> list[tuple[int, Account]]:
        self.index.update()
        numbers = self.index.looks.some_auctions(self.config.auctions_max)
        found = [(number, self.state.accounts[number]) for number in numbers]
        for _, account in found:
            margin.refresh(self.state, account)
        return sorted(found, key=lambda one: margin.equity(one[1]) - margin.maintenance(self.state, one[1]))


def _content(news: News) -> Report:
    return news.report if isinstance(news, SignedReport) else news
