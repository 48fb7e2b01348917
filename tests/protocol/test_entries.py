"""Entries and their words: inverse of each other, and in the bits that docs/PROTOCOL.md names."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import entries, margin
from sequencer.protocol.entries import (
    Account,
    Expiry,
    Global,
    Page,
    Snapshot,
    SurfaceReport,
    Taker,
    Underlying,
)
from sequencer.protocol.exposure import Sums
from sequencer.protocol.surface import Surface

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import examples

MANY = settings(max_examples=examples(150))


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([0, 1, 2**bits - 1]), st.integers(0, 2**bits - 1))


def sint(bits: int) -> st.SearchStrategy[int]:
    half = 2 ** (bits - 1)
    return st.one_of(st.sampled_from([-half, -1, 0, half - 1]), st.integers(-half, half - 1))


def packed(entry: object, places: dict[str, tuple[int, int]]) -> int:
    """The word that docs/PROTOCOL.md describes: field -> (lowest bit, highest bit)."""
    word = 0
    for name, (low, high) in places.items():
        value = int(getattr(entry, name))
        assert 0 <= value < 1 << (high - low + 1)
        word += value << low
    return word


def word(data: bytes, index: int) -> int:
    return int.from_bytes(data[32 * index : 32 * index + 32], "big")


TAKER_BITS = {
    "quantity": (0, 39), "price": (40, 71), "expires": (72, 103), "flags": (104, 111),
    "account": (112, 143), "instrument": (144, 175), "seq": (176, 215), "filled": (216, 255),
}  # fmt: skip
GLOBAL_BITS = {
    0: {
        "seq": (0, 39), "time": (40, 71), "tick": (72, 111), "last_class": (112, 119), "queue_state": (120, 127),
        "breaker_level": (128, 135), "breaker_until": (136, 167), "excess": (168, 207), "withdrawals": (208, 239),
    },
    2: {
        "inbox_count": (0, 39), "fund": (40, 103), "treasury": (104, 167), "work": (168, 215),
        "plan_fee_max": (216, 231), "plan_records": (232, 247),
    },
    3: {"pool": (0, 63), "deficit": (64, 191), "holes": (192, 255)},
}  # fmt: skip


@st.composite
def takers(draw: st.DrawFn) -> Taker:
    values = {name: draw(uint(high - low + 1)) for name, (low, high) in TAKER_BITS.items()}
    return Taker(**{**values, "quantity": max(values["quantity"], 1)})


@st.composite
def globals_(draw: st.DrawFn) -> Global:
    one = Global()
    for places in GLOBAL_BITS.values():
        for name, (low, high) in places.items():
            setattr(one, name, draw(uint(high - low + 1)))
    one.inbox_hash = draw(st.binary(min_size=32, max_size=32))
    one.taker = draw(st.none() | takers())
    one.plan_root = draw(st.just(b"") | st.binary(min_size=32, max_size=32).filter(any))
    return one


@MANY
@given(globals_())
def test_global__stands_in_the_documented_bits__and_comes_back(one: Global) -> None:
    data = one.words()
    assert len(data) == 6 * 32
    for index, places in GLOBAL_BITS.items():
        assert word(data, index) == packed(one, places)
    assert data[32:64] == one.inbox_hash
    assert word(data, 4) == (packed(one.taker, TAKER_BITS) if one.taker else 0)
    assert data[160:] == (one.plan_root or bytes(32))
    assert Global.from_words(data).words() == data
    assert one.copy().words() == data


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    one = Account(draw(st.binary(min_size=20, max_size=20)))
    one.cash = draw(sint(256))
    one.reserved = draw(uint(64))
    one.order_floor = draw(uint(40))
    one.auction_start = draw(uint(32))
    one.hole = draw(uint(64))
    one.orders = draw(uint(32))
    one.nonce_floor = draw(uint(32))
    one.nonce_bitmap = draw(uint(256))
    one.signers = draw(
        st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.integers(1, 3), uint(32)), max_size=4)
    )
    quantity = st.integers(-c.POSITION_LOTS_MAX, c.POSITION_LOTS_MAX).filter(bool)
    one.positions = draw(st.dictionaries(uint(32), quantity, max_size=c.POSITIONS_MAX))
    return one


@MANY
@given(accounts())
def test_account__stands_in_the_documented_bits__and_comes_back(one: Account) -> None:
    data = one.words()
    assert len(data) == 32 * (4 + len(one.signers) + len(one.positions))
    assert word(data, 0) == (
        len(one.positions)
        + (len(one.signers) << 8)
        + (one.auction_start << 16)
        + (one.order_floor << 56)
        + (int.from_bytes(one.owner, "big") << 96)
    )
    assert word(data, 1) == one.cash % 2**256
    assert word(data, 2) == one.reserved + (one.nonce_floor << 64) + (one.hole << 96) + (one.orders << 160)
    assert word(data, 3) == one.nonce_bitmap
    held = [word(data, 4 + len(one.signers) + i) for i in range(len(one.positions))]
    assert held == [
        (instrument << 64) + quantity + 2**63 for instrument, quantity in sorted(one.positions.items())
    ]
    back = Account.from_words(data)
    assert back.words() == data
    assert (back.cash, back.positions, back.signers) == (one.cash, one.positions, one.signers)


@given(accounts(), st.randoms(use_true_random=False))
def test_account__whatever_order_its_positions_came_in__has_the_same_words(
    one: Account, random: object
) -> None:
    data = one.words()
    items = list(one.positions.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    one.positions = dict(items)
    assert one.words() == data


@given(st.dictionaries(uint(32), sint(64).filter(bool), max_size=255))
def test_position_words__in_the_kernel__are_those_of_python(positions: dict[int, int]) -> None:
    words = entries.position_words(positions)
    assert entries._position_words(positions) == words
    assert len(words) == 32 * len(positions)


@pytest.mark.skipif(entries._in_kernel is None, reason="the C kernel is not built, or is hidden")
@pytest.mark.parametrize(
    "positions", [{2**32: 1}, {-1: 1}, {1: 2**63}, {"1": 1}, {1: None}, [1], dict.fromkeys(range(256), 1)]
)
def test_position_words__of_anything_else__raises(positions: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        entries._position_words(positions)  # type: ignore[arg-type]


@given(accounts())
def test_clone__of_an_account__shares_nothing_that_changes(one: Account) -> None:
    data = one.words()
    twin = one.clone()
    assert twin.words() == data
    page, instrument = Page(), 7
    page.terms, page.rows = list(range(8)), [(5, (-1,) * c.SCENARIOS)] * 8
    twin.epoch = one.epoch + 1  # its sums are fresh, and a trade moves them
    margin.move(twin, page, instrument, 1 - one.positions.get(instrument, 0) or 2)
    twin.signers = [*twin.signers, (bytes(20), 1, 1)]
    twin.cash += 1
    assert one.words() == data
    assert one.sums == Sums(0, {}) != twin.sums


@st.composite
def pages(draw: st.DrawFn) -> Page:
    one = Page()
    one.time, one.index, one.forward = draw(uint(32)), draw(uint(32)), draw(uint(32))
    count = draw(st.integers(0, c.PAGE_ROWS))
    one.marked = draw(st.integers(0, count))
    for _ in range(count):
        one.terms.append(draw(uint(32)))
        one.rows.append((draw(uint(32)), tuple(draw(st.lists(sint(32), min_size=16, max_size=16)))))
    return one


@settings(max_examples=examples(40))
@given(pages())
def test_page__stands_in_the_documented_bits__and_comes_back(one: Page) -> None:
    data = one.words()
    count = len(one.terms)
    table = -(-count // 8)
    assert len(data) == 32 * (1 + 2 * table + 2 * count)
    assert word(data, 0) == count + (one.time << 8) + (one.index << 40) + (one.forward << 72) + (
        one.marked << 104
    )
    for row in range(count):
        low = 32 * (row % 8)
        assert word(data, 1 + row // 8) >> low & c.U32_MAX == one.terms[row]
        assert word(data, 1 + table + row // 8) >> low & c.U32_MAX == one.rows[row][0]
        for scenario in range(16):
            at = word(data, 1 + 2 * table + 2 * row + scenario // 8) >> 32 * (scenario % 8) & c.U32_MAX
            assert at == one.rows[row][1][scenario] % 2**32
    back = Page.from_words(data)
    assert back.words() == data
    assert back.rows == one.rows


SNAPSHOT_BITS = {
    "cumulative_start": (0, 63), "cumulative_end": (64, 127), "has_start": (128, 128), "has_end": (129, 129),
    "day": (130, 145),
}  # fmt: skip


@st.composite
def underlyings(draw: st.DrawFn) -> Underlying:
    one = Underlying()
    for name, bits in (
        ("index", 32), ("time", 32), ("cumulative", 64), ("reference_price", 32), ("reference_time", 32)
    ):  # fmt: skip
        setattr(one, name, draw(uint(bits)))
    one.reports = [(draw(uint(32)), draw(uint(32))) for _ in range(c.FEEDS_MAX)]
    for place in range(c.SNAPSHOT_DAYS):
        snapshot = one.snapshots[place] = Snapshot(draw(uint(16)))
        snapshot.cumulative_start, snapshot.cumulative_end = draw(uint(64)), draw(uint(64))
        snapshot.has_start, snapshot.has_end = draw(st.booleans()), draw(st.booleans())
    return one


@MANY
@given(underlyings())
def test_underlying__stands_in_the_documented_bits__and_comes_back(one: Underlying) -> None:
    data = one.words()
    assert len(data) == 10 * 32
    places = {
        "index": (0, 31), "time": (32, 63), "cumulative": (64, 127), "reference_price": (128, 159),
        "reference_time": (160, 191),
    }  # fmt: skip
    assert word(data, 0) == packed(one, places)
    for feed, (price, time) in enumerate(one.reports):
        assert word(data, 1 + feed) == price + (time << 32)
    for place, snapshot in enumerate(one.snapshots):
        assert word(data, 6 + place) == packed(snapshot, SNAPSHOT_BITS)
    assert Underlying.from_words(data).words() == data


@st.composite
def expiries(draw: st.DrawFn) -> Expiry:
    one = Expiry()
    one.listed, one.settled, one.settlement = draw(uint(16)), draw(st.booleans()), draw(uint(32))
    for feed in range(c.FEEDS_MAX):
        if draw(st.booleans()):
            shape = Surface(*(draw(sint(64)) for _ in range(5)))
            time = max(draw(uint(32)), 1)  # a report of second 0 is refused: the word 0 means none
            one.reports[feed] = SurfaceReport(time, draw(uint(32)), draw(uint(32)), shape)
    return one


@MANY
@given(expiries())
def test_expiry__stands_in_the_documented_bits__and_comes_back(one: Expiry) -> None:
    data = one.words()
    assert len(data) == 11 * 32
    assert word(data, 0) == one.listed + (one.settled << 16) + (one.settlement << 24)
    for feed, report in enumerate(one.reports):
        first, second = word(data, 1 + 2 * feed), word(data, 2 + 2 * feed)
        if report is None:
            assert first == second == 0
            continue
        s = report.surface
        assert first == (
            report.time
            + (report.forward << 32)
            + (report.index << 64)
            + (s.a_e12 % 2**64 << 96)
            + (s.b_e12 % 2**64 << 160)
        )
        assert second == s.rho_e12 % 2**64 + (s.m_e12 % 2**64 << 64) + (s.sigma_e12 % 2**64 << 128)
    back = Expiry.from_words(data)
    assert back.words() == data
    assert [report and report.surface for report in back.reports] == [
        report and report.surface for report in one.reports
    ]


@pytest.mark.parametrize("entry", [Global, Account, Page, Underlying, Expiry])
@pytest.mark.parametrize("length", [0, 31, 33, 32 * 3, 32 * 12 + 1])
def test_from_words__of_a_wrong_length__is_a_value_error(entry: type[Global], length: int) -> None:
    with pytest.raises(ValueError, match="word"):
        entry.from_words(b"\xff" * length)
