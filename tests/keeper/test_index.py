"""What the keeper's indexes say after every record is what a scan of the whole state finds; and they stay small."""

import sys
from collections import Counter
from pathlib import Path
from random import Random

from sequencer.keeper.dead import OrderKey
from sequencer.keeper.index import Index
from sequencer.keeper.keeper import Keeper
from sequencer.keeper.looks import shortfall
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.matching import is_idle
from sequencer.protocol.state import State, expiry_time, instrument_expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "differential"))
from crowd import Crowd
from exchange import CALM, INDEX, NEAR, examples
from hostile import populated

ALL = 1 << 40
MOVE_PPM, REFRESH_S = 2_000, 600


class Scans:
    """The naive twin: it searches the whole state, every time."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.due: dict[int, object] = {}  # page -> the rows that it had when it became due

    def held(self) -> set[int]:
        return {one >> 5 for account in self.state.accounts.values() for one in account.positions}

    def pages(self) -> set[int]:
        """A page stays due until it is marked, wherever the index goes meanwhile."""
        now, held = self.state.globals.time, self.held()
        for page_id, page in self.state.pages.items():
            expires = expiry_time(page_id >> 7 & 0xFFFF)
            index = self.state.underlyings[page_id >> 23].index
            is_due = (
                page.marked < len(page.terms)
                or now - page.time >= REFRESH_S
                or (
                    page.time != c.MARKED_FOR_GOOD
                    and abs(index - page.index) * c.PPM >= MOVE_PPM * page.index
                )
                or page.time < expires <= now
            )
            if is_due:
                self.due[page_id] = page.rows
            elif self.due.get(page_id) is not page.rows:
                self.due.pop(page_id, None)
            if now >= expires and page_id not in held:
                self.due.pop(page_id, None)
        return set(self.due)

    def unfixed(self) -> set[int]:
        now = self.state.globals.time
        return {
            key
            for key, expiry in self.state.expiries.items()
            if not expiry.settled
            and expiry_time(key & 0xFFFF) <= now <= expiry_time((key & 0xFFFF) + c.SNAPSHOT_DAYS)
        }

    def to_settle(self) -> set[tuple[int, int]]:
        expiries = self.state.expiries
        return {
            (one >> 12, number)
            for number, account in self.state.accounts.items()
            for one in account.positions
            if expiries[one >> 12].settled
        }

    def dead(self) -> set[OrderKey]:
        return {key for kind in self.dead_by_kind().values() for key in kind}

    def dead_by_kind(self) -> dict[str, set[OrderKey]]:
        now, state = self.state.globals.time, self.state
        found: dict[str, set[OrderKey]] = {
            kind: set() for kind in ("lapsed", "expired", "floored", "idle", "unbacked")
        }
        for instrument, book in state.books.items():
            page = state.pages[instrument >> 5]
            for side in (c.BUY, c.SELL):
                for order in book.orders(side):
                    account = state.accounts[order.account]
                    kinds = {
                        "lapsed": 0 < order.expires <= now,
                        "expired": now >= instrument_expiry_time(instrument),
                        "floored": order.seq < account.order_floor,
                        "idle": is_idle(account, order),
                        "unbacked": not margin.is_backed(state, page, account, order),
                    }
                    for kind, is_so in kinds.items():
                        if is_so:
                            found[kind].add((instrument, side, order.price, order.seq))
        return found

    def short(self) -> set[int]:
        return {number for number, one in self.state.accounts.items() if shortfall(self.state, one) > 0}


def compare(index: Index, scans: Scans) -> Counter[str]:
    """Equal in all; how many of each were found."""
    state = scans.state
    now = state.globals.time
    index.update()
    while index.looks.look(now, 7):
        pass
    assert set(index.looks.proposals(ALL)) == scans.short() == index.looks.short.keys()
    assert index.looks.by_page.keys() == scans.held()
    assert {page for one in index.looks.by_expiry.values() for page in one} == scans.held()
    auctions = {number for number, one in state.accounts.items() if one.auction_start}
    assert index.looks.auctions.keys() == auctions
    indexes = {number: one.index for number, one in state.underlyings.items()}
    due = index.pages.due(now, indexes, index.looks, ALL)
    assert len(due) == len(set(due))
    by_themselves, apart = scans.pages(), state.params.mark_skew_max_s // 2
    assert set(due) >= by_themselves
    assert all(now - state.pages[one].time > apart for one in set(due) - by_themselves)  # in a wave
    index.expiries.advance(now)
    assert index.expiries.unfixed.keys() == scans.unfixed()
    pairs = list(index.expiries.holders(index.looks, ALL))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == scans.to_settle()
    index.orders.update()
    dead = index.orders.dead(now, ALL)
    assert len(dead) == len(set(dead))
    assert set(dead) == scans.dead()
    kinds = {kind: len(keys) for kind, keys in scans.dead_by_kind().items()}
    return Counter(due=len(due), settle=len(pairs), auctions=len(auctions), **kinds)


def run(seed: int) -> Counter[str]:
    """Compares after every record of a crowd; half-way the indexes are made anew."""
    exchange = populated(**CALM)
    exchange.audits = False
    random = Random(seed)
    scans = Scans(exchange.state)
    index = Index(exchange.state, MOVE_PPM, REFRESH_S)
    found: Counter[str] = Counter()
    for number in range(1_500):
        if number == 750:
            index = Index(exchange.state, MOVE_PPM, REFRESH_S)
            scans.due.clear()
        if number % 50 == 0:
            crowd = Crowd(exchange, random)
            now = exchange.state.globals.time
            crowd.instruments = [
                one
                for terms, one in exchange.state.instruments.items()
                if instrument_expiry_time(one) > now and terms & 0x7FFF_FFFF == INDEX
            ] or sorted(exchange.state.instruments.values())
        for raw, signer in crowd.keep_going() if number % 25 == 24 else [crowd.draw()]:
            exchange.apply(raw, signer)
            found += compare(index, scans)
    return found


def test_index__after_every_record__is_what_a_scan_finds() -> None:
    """Expiries come and are settled, auctions run, orders lapse."""
    found: Counter[str] = Counter()
    for seed in range(examples(6)):
        found += run(6 + seed)
    kinds = ("due", "settle", "auctions", "lapsed", "expired", "floored", "idle", "unbacked")
    assert min(found[one] for one in kinds) > 0, found


def test_pages__come_in_waves_so_that_those_of_an_account_are_marked_together() -> None:
    exchange = populated(**CALM)
    state, apart = exchange.state, exchange.state.params.mark_skew_max_s // 2
    index = Index(state, MOVE_PPM, REFRESH_S)
    first, second = sorted(state.pages)
    exchange.tick(apart + 1)
    exchange.remark()
    exchange.tick(apart)
    exchange.risk(first << 5)
    index.update()
    now, indexes = state.globals.time, {0: state.underlyings[0].index}
    assert index.pages.due(now, indexes, index.looks, ALL) == []
    later = state.pages[second].time + REFRESH_S
    assert index.pages.due(later - 1, indexes, index.looks, ALL) == []
    assert sorted(index.pages.due(later, indexes, index.looks, ALL)) == [first, second]


def late(seed: int) -> Counter[Kind]:
    """Half of the keeper's records, in any order; then all of them. What held, by kind."""
    held: Counter[Kind] = Counter()
    exchange = populated(**CALM)
    random = Random(seed)
    keeper = Keeper(exchange.state)
    crowd = Crowd(exchange, random)
    bounds = {150: expiry_time(NEAR) - c.TWAP_S, 200: expiry_time(NEAR), 210: expiry_time(NEAR) + 60}
    for number in range(300):
        if number in bounds:
            while exchange.state.globals.taker is not None:
                exchange.unsigned(Kind.CONTINUE)
            exchange.tick_at(bounds[number])
            exchange.feeds(exchange.state.underlyings[0].index * random.choice((7, 14)) // 10)
            crowd = Crowd(exchange, random)
        raw, signer = crowd.draw()
        if raw[:1] == bytes([Kind.TICK]) and int.from_bytes(raw[1:5], "big") > bounds[210] + c.DAY_S:
            continue  # at the end of all time nothing comes late
        exchange.apply(raw, signer)
        if number % 10 == 9:
            now = exchange.state.globals.time
            records = keeper.pass_one(now) + keeper.pass_two(now)
            for raw in random.sample(records, len(records) // 2):
                if exchange.state.globals.taker is None:
                    exchange.tick(0)
                held[Kind(raw[0])] += exchange.apply(raw).reason is Reason.OK
    while exchange.state.globals.taker is not None:
        exchange.unsigned(Kind.CONTINUE)
    exchange.audits = False
    exchange.tick(1)
    scans = Scans(exchange.state)
    for _ in range(8):
        exchange.remark()
        for raw in keeper.pass_one(exchange.state.globals.time) + keeper.pass_two(
            exchange.state.globals.time
        ):
            held[Kind(raw[0])] += exchange.apply(raw).reason is Reason.OK
        exchange.tick(1)
    exchange.auditor.check(exchange.state)
    assert not scans.dead()
    assert not scans.to_settle()
    assert not scans.short()
    return held


def test_keeper__whose_records_come_late_in_any_order_or_never__catches_up() -> None:
    """Nothing in the transition relies on the keeper: the auditor is content throughout, in the end nothing is left."""
    held: Counter[Kind] = Counter()
    for seed in range(examples(6)):
        held += late(seed)
    assert held.keys() >= {Kind.RISK, Kind.LIQUIDATE, Kind.SWEEP, Kind.SETTLE, Kind.FIX}, held
