"""The keeper: what has to be done in time, as system records. It decides by looking; the transition decides what holds.

Reports of the feeds, listings, risk arrays, settlement prices, settlements, dead orders, liquidations.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sequencer.engine import Submission
from sequencer.market.feeds import FeedError, FeedSource, IndexReport, Report, SurfaceReport, sign_reports
from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Account
from sequencer.protocol.hashing import recover
from sequencer.protocol.state import State, expiry_time, instrument_expiry_time

Terms = tuple[int, int, int, bool]  # underlying, day, strike in ticks, is put


@dataclass(frozen=True, slots=True)
class KeeperConfig:
    """Marks are made anew after `risk_move_ppm` of the index, or `risk_refresh_s`. At most `records_max` a pass."""

    risk_move_ppm: int = 1_000
    risk_refresh_s: int = 900
    records_max: int = 2_000


@dataclass(slots=True)
class Liquidator:
    """An account that bids in auctions: `fraction` of 256 a bid, as soon as the discount reaches `discount_min_ppm`."""

    account: int
    private_key: bytes
    fraction: int = 64
    discount_min_ppm: int = 50_000


@dataclass(slots=True)
class Keeper:
    """Looks at one state. `wanted`: options to list; `feed_keys`: the private keys of the feeds that run here."""

    state: State
    sources: list[FeedSource] = field(default_factory=list)
    feed_keys: list[bytes] = field(default_factory=list)
    config: KeeperConfig = field(default_factory=KeeperConfig)
    wanted: list[Terms] = field(default_factory=list)
    liquidator: Liquidator | None = None
    feed_error: str = ""
    _surfaces_wait: dict[tuple[int, int], SurfaceReport] = field(default_factory=dict)

    def pass_one(self, now_s: int) -> list[bytes]:
        """Reports, listings, surfaces, marks and settlement prices, for the tick at `now_s`."""
        reports: list[Report] = []
        for source in self.sources:
            try:
                reports += source.poll(now_s)
                self.feed_error = ""
            except FeedError as error:  # a feed that fails is silent; the index goes stale by rule
                self.feed_error = str(error)
        out = self._signed(report for report in reports if isinstance(report, IndexReport))
        moved = {
            report.underlying: report.price_ticks for report in reports if isinstance(report, IndexReport)
        }
        for report in reports:
            if isinstance(report, SurfaceReport):
                # A surface of an expiry that is not listed yet waits for the listing.
                self._surfaces_wait[report.underlying, report.day] = report
        listed = list(self._listings(now_s))
        out += listed
        ready: list[Report] = []
        opening = {(raw[1], int.from_bytes(raw[2:4], "big")) for raw in listed}
        for key in sorted(self._surfaces_wait):
            report = self._surfaces_wait[key]
            if now_s >= expiry_time(key[1]):
                del self._surfaces_wait[key]
            elif key[0] << 16 | key[1] in self.state.expiries or key in opening:
                ready.append(report)
                del self._surfaces_wait[key]
        out += self._signed(ready)
        out += self._fixes(now_s)
        out += self._risks(now_s, moved, opening)
        return out[: self.config.records_max]

    def pass_two(self, now_s: int) -> list[bytes]:
        """Settlements, dead orders and liquidations, by the marks that now stand."""
        out: list[bytes] = []
        out += self._settlements()
        out += self._sweeps(now_s)
        out += self._liquidations()
        return out[: self.config.records_max]

    def bids(self, now_s: int) -> list[Submission]:
        """Bids of the liquidator for the portfolios that are on auction, the most under-margined first."""
        who = self.liquidator
        bidder = self.state.accounts.get(who.account) if who else None
        if who is None or bidder is None or bidder.auction_start:
            return []
        params = self.state.params
        out: list[Submission] = []
        nonce = bidder.nonce_floor
        for number, account in self._under_auction():
            margin.refresh(self.state, account)
            elapsed = min(now_s - account.auction_start, params.auction_duration_s)
            discount = params.auction_discount_max_ppm * elapsed // params.auction_duration_s
            if discount < who.discount_min_ppm and elapsed < params.auction_duration_s:
                continue
            while bidder.nonce_bitmap >> (nonce - bidder.nonce_floor) & 1:
                nonce += 1
            fraction = who.fraction if margin.equity(account) > 0 else 256
            raw = codec.encode(
                Kind.BID,
                account=who.account,
                target=number,
                fraction=min(fraction, params.auction_fraction_max if margin.equity(account) > 0 else 256),
                cash_max=2**63 - 1,
                nonce=nonce,
                expires=0,
            )
            raw = codec.sign(raw, self.state.domain, who.private_key)
            digest = codec.signing_digest(raw, self.state.domain)
            assert digest is not None
            out.append(Submission(raw, recover(digest, raw[-64:]), None, 0, c.CLASS_TAKER))
            nonce += 1
        return out

    def _signed(self, reports: Iterable[Report]) -> list[bytes]:
        listed = list(reports)
        out: list[bytes] = []
        for feed, key in enumerate(self.feed_keys):
            out += sign_reports(listed, feed, key, self.state.domain)
        return out

    def _listings(self, now_s: int) -> Iterator[bytes]:
        state = self.state
        kept: list[Terms] = []
        for underlying, day, strike, is_put in self.wanted:
            if underlying << 48 | day << 32 | is_put << 31 | strike in state.instruments:
                continue
            if expiry_time(day) <= now_s + c.TWAP_S:
                continue
            kept.append((underlying, day, strike, is_put))
            if state.underlyings[underlying].index:
                yield codec.encode(Kind.LIST, underlying=underlying, day=day, put=int(is_put), strike=strike)
        self.wanted = kept

    def _fixes(self, now_s: int) -> Iterator[bytes]:
        for key, expiry in self.state.expiries.items():
            underlying, day = key >> 16, key & 0xFFFF
            if not expiry.settled and now_s >= expiry_time(day):
                snapshot = self.state.underlyings[underlying].snapshots[day % c.SNAPSHOT_DAYS]
                if snapshot.day == day and snapshot.has_start and snapshot.has_end:
                    yield codec.encode(Kind.FIX, underlying=underlying, day=day)

    def _risks(self, now_s: int, moved: dict[int, int], opening: set[tuple[int, int]]) -> Iterator[bytes]:
        state, config = self.state, self.config
        held = {instrument >> 5 for account in state.holders.values() for instrument in account.positions}
        pages = set(state.pages)
        for underlying, day in sorted(opening):  # a page that a listing of this very tick opens
            pages.add(underlying << 23 | day << 7)
        for page_id in sorted(pages):
            underlying, day, number = page_id >> 23, page_id >> 7 & 0xFFFF, page_id & 127
            page = state.pages.get(page_id)
            expiry = state.expiries.get(underlying << 16 | day)
            index = moved.get(underlying, state.underlyings[underlying].index)
            if now_s >= expiry_time(day) and page_id not in held:
                continue
            due = (
                page is None
                or expiry is None
                or page.marked < len(page.terms)
                or (underlying, day) in opening
                or now_s - page.time >= config.risk_refresh_s
                or abs(index - page.index) * c.PPM >= config.risk_move_ppm * page.index
                or page.time < expiry_time(day) <= now_s
            )
            if due:
                yield codec.encode(Kind.RISK, underlying=underlying, day=day, page=number)

    def _settlements(self) -> Iterator[bytes]:
        state = self.state
        settled = {key for key, expiry in state.expiries.items() if expiry.settled}
        for number, account in state.holders.items():
            for key in sorted({one >> 12 for one in account.positions} & settled):
                yield codec.encode(Kind.SETTLE, underlying=key >> 16, day=key & 0xFFFF, account=number)

    def _sweeps(self, now_s: int) -> Iterator[bytes]:
        for instrument, book in self.state.books.items():
            if len(book) and now_s >= instrument_expiry_time(instrument):
                for side in (c.BUY, c.SELL):
                    for order in book.orders(side):
                        yield codec.encode(
                            Kind.SWEEP, instrument=instrument, side=side, price=order.price, seq=order.seq
                        )

    def _liquidations(self) -> Iterator[bytes]:
        """Accounts below MM, the most under-margined (as a part of its MM) first, and auctions that may end."""
        state = self.state
        short: list[tuple[int, int]] = []
        for number, account in state.holders.items():
            margin.refresh(state, account)
            equity = margin.equity(account)
            if account.auction_start:
                if equity >= margin.initial(state, account):
                    yield codec.encode(Kind.LIQUIDATE, account=number)
                continue
            need = margin.maintenance(state, account) + account.reserved
            if equity < need:
                short.append(((equity - need) * c.PPM // max(need, 1), number))
        for _, number in sorted(short):
            yield codec.encode(Kind.LIQUIDATE, account=number)

    def _under_auction(self) -> list[tuple[int, Account]]:
        found = [(number, account) for number, account in self.state.holders.items() if account.auction_start]
        for _, account in found:
            margin.refresh(self.state, account)
        return sorted(found, key=lambda one: margin.equity(one[1]) - margin.maintenance(self.state, one[1]))
