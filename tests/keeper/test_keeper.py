"""The keeper: what has to be done in time, in the order in which it can be done, and no more than a tick bears."""

import pytest

from sequencer.engine.engine import Engine
from sequencer.keeper.keeper import Keeper, KeeperConfig
from sequencer.keeper.liquidator import Bidder, Liquidator
from sequencer.local.bench import key_of
from sequencer.local.devnet import FEEDS, feed_key
from sequencer.market.feeds import IndexReport, Report, SurfaceReport
from sequencer.protocol import constants as c
from sequencer.protocol import margin, work
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time
from tests.simulation.little import DOMAIN, NOW, TODAY, Little, deposit, genesis
from tests.simulation.world import MID

INDEX = 4_600_000
DAY = TODAY + 1  # expires at 08:00 tomorrow, 22 hours after NOW
CALL = (0, DAY, INDEX, False)
PUT = (0, DAY, INDEX, True)


class Source:
    """Reports that a test puts there."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def poll(self, now_s: int) -> list[Report]:
        out, self.reports = self.reports, []
        return out


class Rig:
    """A keeper that watches an engine; every pass is a tick."""

    def __init__(self, wanted: list[tuple[int, int, int, bool]], **config: int) -> None:
        self.engine = Engine(genesis())
        self.source = Source()
        self.now = NOW
        self.index = INDEX
        self.keeper = Keeper(
            self.engine.state,
            [self.source],
            [feed_key(one) for one in range(FEEDS)],
            KeeperConfig(**config),
            list(wanted),
        )
        self.engine.run(NOW, [deposit(number) for number in range(4)], [])

    def report(self, surface: bool = False) -> None:
        self.source.reports.append(IndexReport(0, self.now, self.index))
        if surface:
            years = (expiry_time(DAY) - self.now) / (365 * c.DAY_S)
            variance = max(1, int(0.65**2 * years * 1e12))
            self.source.reports.append(
                SurfaceReport(0, DAY, self.now, self.index, self.index, variance, 0, 0, 0, 10**11)
            )

    def one(self) -> list[bytes]:
        """Pass one as a tick; its records, all of which held."""
        records = self.keeper.pass_one(self.now)
        self.run(records)
        return records

    def two(self) -> list[bytes]:
        records = self.keeper.pass_two(self.now)
        self.run(records)
        return records

    def run(self, records: list[bytes]) -> None:
        tick = self.engine.run(self.now, list(records), [])
        assert {result.reason for result in tick.system} <= {Reason.OK}, [
            (Kind(result.submission.raw[0]).name, result.reason) for result in tick.system
        ]

    def open(self) -> None:
        """Lists and marks what is wanted."""
        self.report()
        self.one()
        self.now += 1
        self.report(surface=True)
        self.one()
        assert all(page.time for page in self.engine.state.pages.values())
        assert self.engine.state.pages


def kinds(records: list[bytes]) -> list[Kind]:
    return [Kind(raw[0]) for raw in records]


def test_first_pass__reports_then_lists_then_marks_each_when_it_can() -> None:
    rig = Rig([CALL, PUT])
    rig.report(surface=True)
    assert kinds(rig.one()) == [Kind.FEED] * FEEDS  # nothing is listed before there is an index
    rig.now += 1
    rig.report()
    assert kinds(rig.one()) == [Kind.FEED] * FEEDS + [Kind.LIST] * 2 + [Kind.SURFACE] * FEEDS + [Kind.RISK]
    assert len(rig.engine.state.instruments) == 2
    rig.now += 1
    rig.report()
    assert kinds(rig.one()) == [Kind.FEED] * FEEDS
    assert rig.keeper.wanted == []


def test_option__that_expires_too_soon__is_not_listed_and_not_wanted_any_more() -> None:
    rig = Rig([CALL])
    rig.now = expiry_time(DAY) - c.TWAP_S
    for _ in range(2):
        rig.report()
        assert kinds(rig.one()) == [Kind.FEED] * FEEDS
        rig.now += 1
    assert rig.keeper.wanted == []


@pytest.mark.parametrize(
    ("move_ticks", "later_s", "is_due"),
    [
        (0, 10, False),
        (INDEX // 1_000 - 1, 10, False),
        (INDEX // 1_000, 10, True),
        (0, 900, True),
        (0, 899, False),
    ],
)
def test_marks__are_made_anew_when_the_index_has_moved_or_time_has_passed(
    move_ticks: int, later_s: int, is_due: bool
) -> None:
    rig = Rig([CALL, PUT])
    rig.open()
    rig.now += later_s
    rig.index += move_ticks
    rig.report(surface=True)
    assert (Kind.RISK in kinds(rig.one())) is is_due


def traded(rig: Rig) -> Little:
    """Accounts 1 and 2 hold the call, one long and one short; account 3 has an order at rest."""
    little = Little.__new__(Little)
    little.engine, little.entries, little.nonces, little.now = rig.engine, [], [0] * 4, rig.now
    little.instruments = sorted(rig.engine.state.instruments.values())
    tick = little.run(
        [
            little.rest(0, c.SELL, MID, 50_000),
            little.place(1, c.BUY, MID, 50_000),
            little.rest(2, c.BUY, MID // 2, 10_000),
        ]
    )
    assert [result.reason for result in tick.results] == [Reason.OK] * 3
    rig.now = little.now
    return little


def test_expiry__is_fixed_then_settled_then_its_orders_are_swept() -> None:
    rig = Rig([CALL, PUT], risk_move_ppm=10**9, risk_refresh_s=10**9)
    rig.open()
    traded(rig)
    for at in (expiry_time(DAY) - c.TWAP_S, expiry_time(DAY) - 60):
        rig.now = at
        rig.report(surface=True)
        assert Kind.FIX not in kinds(rig.one())
        assert rig.two() == []
    rig.now = expiry_time(DAY)
    rig.report()
    before = kinds(rig.one())
    assert Kind.FIX not in before  # the snapshot at the end comes with this very report
    swept = kinds(rig.two())
    assert swept == [Kind.SWEEP]
    rig.now += 1
    rig.report()
    assert Kind.FIX in kinds(rig.one())
    assert kinds(rig.two()) == [Kind.SETTLE] * 2
    assert not any(account.positions for account in rig.engine.state.accounts.values())
    assert not any(len(book) for book in rig.engine.state.books.values())
    rig.now += 1
    rig.report()
    assert kinds(rig.one()) == [Kind.FEED] * FEEDS
    assert rig.two() == []


def short_of_margin(rig: Rig) -> None:
    """Takes cash from both holders of a position until they are below MM, account 2 the further."""
    state = rig.engine.state
    for number in (1, 2):
        margin.refresh(state, state.accounts[number])
    missing = margin.maintenance(state, state.accounts[2]) // 2
    for number, part in ((1, 4), (2, 1)):
        account = state.accounts[number]
        account.cash -= margin.equity(account) - margin.maintenance(state, account) + missing // part
        state.put_account(number, account)


def test_liquidation__takes_the_most_under_margined_first_and_bids_when_the_discount_is_there() -> None:
    rig = Rig([CALL, PUT], risk_move_ppm=10**9, risk_refresh_s=10**9)
    rig.open()
    traded(rig)
    rig.keeper.liquidator = Liquidator([Bidder(4, key_of(3))])
    assert rig.two() == []
    assert rig.keeper.bids(rig.now) == []
    short_of_margin(rig)
    records = rig.keeper.pass_two(rig.now)
    assert kinds(records) == [Kind.LIQUIDATE] * 2
    assert [int.from_bytes(raw[1:5], "big") for raw in records] == [2, 1]
    rig.run(records)
    assert rig.keeper.pass_two(rig.now) == []  # they are on auction
    assert rig.keeper.bids(rig.now) == []  # and the discount is not there yet
    rig.now += rig.engine.state.params.auction_duration_s // 2
    bids = rig.keeper.bids(rig.now)
    assert len(bids) == 2
    tick = rig.engine.run(rig.now, [], bids)
    assert [result.reason for result in tick.results] == [Reason.OK] * 2
    accounts = rig.engine.state.accounts
    assert [sum(accounts[number].positions.values()) for number in (1, 2)] == [-37_500, 37_500]
    assert accounts[4].positions == {}  # a quarter of the one and a quarter of the other


def test_auction__of_an_account_that_has_margin_again__is_ended() -> None:
    rig = Rig([CALL, PUT], risk_move_ppm=10**9, risk_refresh_s=10**9)
    rig.open()
    traded(rig)
    short_of_margin(rig)
    rig.two()
    state = rig.engine.state
    state.accounts[1].cash += 10**12
    state.put_account(1, state.accounts[1])
    assert kinds(rig.two()) == [Kind.LIQUIDATE]
    assert state.accounts[1].auction_start == 0
    assert state.accounts[2].auction_start > 0


def test_passes__are_bounded_and_go_on_with_the_rest_next_time() -> None:
    strikes = [INDEX + step * 100_000 for step in range(-8, 9)]
    wanted = [(0, DAY, strike, is_put) for strike in strikes for is_put in (False, True)]
    rig = Rig(wanted, listings_max=10, risks_max=1)
    rig.report()
    rig.one()
    for _ in range(8):
        rig.now += 1
        rig.report()
        records = rig.keeper.pass_one(rig.now)
        assert kinds(records).count(Kind.LIST) <= 10
        assert kinds(records).count(Kind.RISK) <= 1
        rig.engine.run(rig.now, list(records), [])
    assert len(rig.engine.state.instruments) == len(wanted)


def test_risk__costs_no_more_than_its_part_of_what_l1_takes() -> None:
    strikes = [INDEX + step * 100_000 for step in range(-8, 9)]
    wanted = [(0, DAY, strike, is_put) for strike in strikes for is_put in (False, True)]
    most = work.of_risk(c.PAGE_ROWS)
    rig = Rig(wanted, risk_work_per_s=most // 4, risk_work_max=most)
    rig.report()
    rig.one()
    rig.now += 1
    rig.report(surface=True)
    assert kinds(rig.one()).count(Kind.RISK) == 1
    spent = 0
    for _ in range(40):
        rig.now += 1
        rig.index += INDEX // 100  # all marks are old at once
        rig.report()
        before = rig.engine.state.globals.work
        risks = [raw for raw in rig.one() if raw[0] == Kind.RISK]
        spent += rig.engine.state.globals.work - before if risks else 0
    assert 40 * most // 8 < spent < 42 * most // 4 + 40 * 1_000


def test_report_of_feeds__is_signed_by_each_feed_for_this_exchange() -> None:
    from sequencer.protocol.codec import Record, decode
    from sequencer.protocol.hashing import address_of, public_key_of

    rig = Rig([])
    rig.report()
    for number, raw in enumerate(rig.one()):
        record = decode(raw, DOMAIN)
        assert isinstance(record, Record)
        assert record.signer == address_of(public_key_of(feed_key(number)))
