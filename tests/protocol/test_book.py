"""The fast order book equals its naive twin after every command, and the leaf shapes are exact."""

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sequencer.protocol import book as book_module
from sequencer.protocol.book import (
    ASK,
    BID,
    ORDER_LOW_MASK,
    Book,
    Order,
    book_prefix,
    crosses,
    order_from,
    order_key,
    order_leaf,
    order_value,
    plan,
    split_key,
    split_value,
)

# By its path, because an installed package may own the name `tests`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "twins"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import values_of

from naive_book import NaiveBook

WORD32 = st.integers(0, 2**32 - 1)
WORD40 = st.integers(0, 2**40 - 1)
SIDES = st.sampled_from((BID, ASK))
PRICES = st.integers(95, 105)
QUANTITIES = st.integers(1, 20)


def depth(book: Book, side: int) -> list[tuple[int, int, int]]:
    levels = [(price, list(book.level(side, price))) for price in book.prices(side)]
    return [(price, sum(order.quantity for order in level), len(level)) for price, level in levels]


def place(book: Book, side: int, price: int, seq: int, quantity: int = 10) -> Order:
    order = Order(1, 7, side, price, seq, quantity)
    book.insert(order)
    return order


def rows(book: Book, side: int) -> list[tuple[int, int, int]]:
    return [(order.price, order.seq, order.quantity) for order in book.orders(side)]


class BookEqualsTwin(RuleBasedStateMachine):
    """Random commands to both books; few prices make levels long and let them empty and refill."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book(7)
        self.twin = NaiveBook()
        self.live: list[Order] = []
        self.seq = 1000

    def drop_filled(self) -> None:
        self.live = [order for order in self.live if order.quantity]

    @rule(side=SIDES, price=PRICES, quantity=QUANTITIES)
    def insert_newest(self, side: int, price: int, quantity: int) -> None:
        self.seq += 1
        self.live.append(place(self.book, side, price, self.seq, quantity))
        self.twin.insert(side, price, self.seq, quantity)

    @rule(side=SIDES, price=PRICES, quantity=QUANTITIES, seq=st.integers(0, 1010))
    def insert_out_of_turn(self, side: int, price: int, quantity: int, seq: int) -> None:
        if self.twin.find(side, price, seq) is not None:
            with pytest.raises(ValueError, match="rests already"):
                place(self.book, side, price, seq, quantity)
            return
        self.live.append(place(self.book, side, price, seq, quantity))
        self.twin.insert(side, price, seq, quantity)
        self.seq = max(self.seq, seq)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        order = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.book.remove(order)
        self.twin.remove(order.side, order.price, order.seq)
        with pytest.raises(KeyError):
            self.book.remove(order)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def reduce(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(self.live))
        lots = data.draw(st.integers(1, order.quantity))
        self.book.reduce(order, lots)
        self.twin.reduce(order.side, order.price, order.seq, lots)
        self.drop_filled()

    @rule(side=SIDES, price=PRICES, quantity=st.integers(1, 80))
    def match(self, side: int, price: int, quantity: int) -> None:
        fills, left = plan(self.book, side, price, quantity)
        shown = [(maker.seq, maker.price, lots) for maker, lots in fills]
        assert (shown, left) == self.twin.match(side, price, quantity)
        for maker, lots in fills:
            self.book.reduce(maker, lots)
        self.drop_filled()

    @invariant()
    def books_are_equal(self) -> None:
        book, twin = self.book, self.twin
        for side in (BID, ASK):
            expected = twin.rows(side)
            assert rows(book, side) == expected
            best = book.best(side)
            assert (best and (best.price, best.seq, best.quantity)) == (expected[0] if expected else None)
            assert book.best_price(side) == (expected[0][0] if expected else None)
            assert depth(book, side)[:3] == twin.depth(side, 3)
            for price in (95, 100, 105):
                crossing = [row for row in twin.rows(1 - side) if crosses(side, price, row[0])]
                assert [(o.price, o.seq, o.quantity) for o in book.crossing(side, price)] == crossing
            keys = [order_key(7, side, order.price, order.seq) for order in book.orders(side)]
            assert keys == sorted(keys)
        assert len(book) == len(twin.rows(BID)) + len(twin.rows(ASK))
        for order in self.live:
            assert book.get(order.side, order.price, order.seq) is order


class BookThatTidiesOften(BookEqualsTwin):
    """The same with no patience for empty levels."""

    def __init__(self) -> None:
        super().__init__()
        self.patience = book_module.IDLE_LEVELS_MIN
        book_module.IDLE_LEVELS_MIN = 0  # type: ignore[misc]  # a constant, lowered to reach the tidying early

    def teardown(self) -> None:
        book_module.IDLE_LEVELS_MIN = self.patience  # type: ignore[misc]  # and put back


TestBookEqualsTwin = BookEqualsTwin.TestCase
TestBookEqualsTwin.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestBookThatTidiesOften = BookThatTidiesOften.TestCase
TestBookThatTidiesOften.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def test_best__of_a_level__is_the_oldest_at_the_best_price() -> None:
    book = Book(7)
    place(book, BID, 100, 1)
    place(book, BID, 101, 3)
    place(book, BID, 101, 2)
    place(book, ASK, 104, 4)
    place(book, ASK, 103, 5)
    best_bid, best_ask = book.best(BID), book.best(ASK)
    assert best_bid is not None
    assert best_ask is not None
    assert (best_bid.seq, best_ask.seq) == (2, 5)


def test_empty_book__has_no_best_no_depth_no_orders() -> None:
    book = Book(7)
    assert (book.best(BID), book.best_price(ASK), book.get(ASK, 1, 1)) == (None, None, None)
    assert (depth(book, BID), list(book.orders(ASK)), len(book)) == ([], [], 0)
    assert plan(book, BID, 2**32 - 1, 5) == ([], 5)


def test_insert__same_key_twice__is_refused_and_changes_nothing() -> None:
    book = Book(7)
    place(book, ASK, 100, 1)
    with pytest.raises(ValueError, match="book: order 1/100/1 rests already"):
        place(book, ASK, 100, 1)
    assert rows(book, ASK) == [(100, 1, 10)]
    assert len(book) == 1


@pytest.mark.parametrize("lots", [0, -1, 11])
def test_reduce__by_what_is_not_there__is_refused(lots: int) -> None:
    book = Book(7)
    order = place(book, ASK, 100, 1, 10)
    with pytest.raises(ValueError, match="book: cannot take"):
        book.reduce(order, lots)
    assert rows(book, ASK) == [(100, 1, 10)]


def test_plan__with_a_limit_of_steps__stops_there_and_leaves_the_book_alone() -> None:
    book = Book(7)
    for seq in range(5):
        place(book, ASK, 100 + seq, seq, 2)
    fills, left = plan(book, BID, 110, 9, steps_max=3)
    assert [(maker.seq, lots) for maker, lots in fills] == [(0, 2), (1, 2), (2, 2)]
    assert left == 3
    assert plan(book, BID, 99, 9) == ([], 9)
    assert len(book) == 5


def test_levels__of_a_side__are_those_with_orders_best_first() -> None:
    book = Book(7)
    place(book, BID, 100, 1, 3)
    place(book, BID, 100, 2, 4)
    place(book, BID, 99, 3, 5)
    assert depth(book, BID) == [(100, 7, 2), (99, 5, 1)]
    assert list(book.level(BID, 98)) == []


def test_book__with_many_prices_come_and_gone__keeps_no_garbage() -> None:
    book = Book(7)
    place(book, ASK, 1, 0)
    for seq in range(1, 5000):
        book.remove(place(book, ASK, 10 + seq, seq))
    assert len(book._levels[ASK]) == len(book._ranks[ASK]) < 200


@pytest.mark.parametrize(
    ("side", "price", "best_price", "expected"),
    [(BID, 100, 100, True), (BID, 99, 100, False), (ASK, 100, 100, True), (ASK, 101, 100, False)],
)
def test_crosses__at_and_beside_the_best_price(
    side: int, price: int, best_price: int, expected: bool
) -> None:
    assert crosses(side, price, best_price) is expected


def test_order_key__has_the_documented_layout() -> None:
    assert order_key(5, ASK, 100, 9) == 4 << 252 | 5 << 73 | 1 << 72 | 100 << 40 | 9
    assert order_key(5, BID, 100, 9) == 4 << 252 | 5 << 73 | (2**32 - 1 - 100) << 40 | 9
    assert book_prefix(5, ASK) == 4 << 252 | 5 << 73 | 1 << 72
    order = Order(3, 5, ASK, 100, 9, quantity=11, expires=13, reserve_rate=17, flags=19, filled=23)
    assert order_value(order) == 23 << 144 | 3 << 112 | 19 << 104 | 13 << 72 | 17 << 40 | 11


@given(WORD32, SIDES, WORD32, WORD40, WORD40, WORD32, WORD32, st.integers(0, 255), WORD32, WORD40)
def test_leaf__of_any_order__can_be_read_back(
    instrument: int,
    side: int,
    price: int,
    seq: int,
    quantity: int,
    rate: int,
    expires: int,
    flags: int,
    account: int,
    filled: int,
) -> None:
    order = Order(account, instrument, side, price, seq, quantity, expires, rate, flags, filled)
    key, value = order_key(instrument, side, price, seq), order_value(order)
    assert order_leaf(order) == key.to_bytes(32, "big") + value.to_bytes(32, "big")
    assert key & ~ORDER_LOW_MASK == book_prefix(instrument, side)
    assert split_key(key) == (instrument, side, price, seq)
    assert split_value(value) == (quantity, rate, expires, flags, account, filled)
    read = order_from(key, value)
    assert values_of(read) == values_of(order)


@given(SIDES, st.tuples(WORD32, WORD40), st.tuples(WORD32, WORD40))
def test_order_key__of_the_better_order__is_smaller(
    side: int, one: tuple[int, int], two: tuple[int, int]
) -> None:
    better = min(one, two, key=lambda order: (order[0] if side else -order[0], order[1]))
    assert order_key(1, side, *better) == min(order_key(1, side, *one), order_key(1, side, *two))


@pytest.mark.parametrize(
    "fields",
    [(2**32, 0, 1, 1), (1, 2, 1, 1), (1, 0, 2**32, 1), (1, 0, 1, 2**40), (-1, 0, 1, 1), (1, 1, -1, 1)],
)
def test_order_key__beyond_a_field__is_refused(fields: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="book: no key"):
        order_key(*fields)


@pytest.mark.parametrize("name", ["quantity", "reserve_rate", "expires", "flags", "account", "filled"])
def test_order_value__beyond_a_field__is_refused(name: str) -> None:
    order = Order(1, 1, 0, 1, 1, 1)
    setattr(order, name, 2**40)
    with pytest.raises(ValueError, match="does not fit its leaf"):
        order_value(order)
    with pytest.raises(struct.error):
        order_leaf(order)


@pytest.mark.parametrize("key", [0, 5 << 252, 4 << 252 | 1 << 105, -1, 1 << 256])
def test_split_key__of_another_leaf__is_refused(key: int) -> None:
    with pytest.raises(ValueError, match="is no order key"):
        split_key(key)


def test_split_value_and_prefix__beyond_their_bits__are_refused() -> None:
    with pytest.raises(ValueError, match="is no order value"):
        split_value(1 << 184)
    with pytest.raises(ValueError, match="book: no prefix"):
        book_prefix(1, 2)
