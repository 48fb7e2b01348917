"""The resting orders of one instrument, best first, and their shape as leaves of the state map.

Side 0 buys (bids), side 1 sells (asks). Price in ticks of 0.01 USD, quantity in lots of 0.0001 contract. Of
two orders of a side the better price comes first, and at one price the smaller sequence number: the order in
which their leaf keys sort. The book knows nothing of dead orders, self-trades or margin: whoever walks it
does.

Each side is a dict price -> level and a list of the levels' prices, best last, kept sorted by bisection; a
level is a dict sequence number -> order, which its insertion order makes a FIFO. A level that empties stays
until it is the best one or half of all are empty, because orders come back to the same prices: a sixth
faster on recorded flow than removing it at once. A heap is faster still to change, and cannot be walked past
its first price.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, Protocol

from sequencer.protocol.constants import KEY_ORDER

BID: Final = 0
ASK: Final = 1

ORDER_LOW_BITS: Final = 72
ORDER_LOW_MASK: Final = (1 << 72) - 1
"""Bits of a key below its `book_prefix`: price priority and sequence number."""

PRICE_MAX: Final = (1 << 32) - 1
SEQ_MAX: Final = (1 << 40) - 1
QUANTITY_MAX: Final = (1 << 40) - 1

_LEAF: Final = Struct(">B17xBIIBI 9xBIIBIIBI")  # fields of 33 and 40 bits in two, the high byte first

IDLE_LEVELS_MIN: Final = 64
"""Empty levels that a side may keep, beside half of all its levels."""


class Order:
    """A resting order. `quantity` is what remains (lots, > 0 while it rests), `filled` what has traded of it.

    `expires` in seconds (0: never), `reserve_rate` in price ticks per lot, `flags` 8 bits.
    """

    __slots__ = (
        "account",
        "expires",
        "filled",
        "flags",
        "instrument",
        "price",
        "quantity",
        "reserve_rate",
        "seq",
        "side",
    )

    def __init__(
        self,
        account: int,
        instrument: int,
        side: int,
        price: int,
        seq: int,
        quantity: int,
        expires: int = 0,
        reserve_rate: int = 0,
        flags: int = 0,
        filled: int = 0,
    ) -> None:
        self.account = account
        self.instrument = instrument
        self.side = side
        self.price = price
        self.seq = seq
        self.quantity = quantity
        self.expires = expires
        self.reserve_rate = reserve_rate
        self.flags = flags
        self.filled = filled

    def __repr__(self) -> str:
        side = "ask" if self.side else "bid"
        return f"Order({side} {self.quantity} @ {self.price} seq={self.seq} account={self.account})"


class Follower(Protocol):
    """Hears what comes, goes and shrinks in a book, once it has; for sums that are kept beside it."""

    def inserted(self, order: Order) -> None:
        """`order` rests."""

    def removed(self, order: Order, is_last: bool) -> None:
        """`order` rests no more; `is_last`: its level is empty."""

    def reduced(self, order: Order, lots: int) -> None:
        """`lots` of `order` have gone, fewer than there were; negative: they are back."""


class Book:
    """Price-time priority book of one instrument; answers follow from the orders in it, not from history."""

    __slots__ = ("_count", "_idle", "_levels", "_newest", "_ranks", "follower", "instrument")

    def __init__(self, instrument: int) -> None:
        self.instrument = instrument
        self.follower: Follower | None = None
        self._count = 0
        self._newest = -1
        self._levels: tuple[dict[int, dict[int, Order]], dict[int, dict[int, Order]]] = ({}, {})
        # Sorted, best last: prices of bids, negated prices of asks. The last one's level is never empty.
        self._ranks: tuple[list[int], list[int]] = ([], [])
        self._idle = [0, 0]

    def __len__(self) -> int:
        """Orders that rest on both sides."""
        return self._count

    def insert(self, order: Order) -> None:
        """Rest `order`. Constant time for the newest order of the book; an older one costs its level.

        Raises ValueError if an order with the same side, price and sequence number rests already.
        """
        side = order.side
        price = order.price
        seq = order.seq
        levels = self._levels[side]
        level = levels.get(price)
        if level is None:
            levels[price] = {seq: order}
            ranks = self._ranks[side]
            rank = -price if side else price
            if not ranks or rank > ranks[-1]:
                ranks.append(rank)
            else:
                ranks.insert(bisect_left(ranks, rank), rank)
            self._newest = max(self._newest, seq)
        else:
            if not level:
                self._idle[side] -= 1
            if seq > self._newest:
                level[seq] = order
                self._newest = seq
            else:
                if seq in level:
                    raise ValueError(f"book: order {side}/{price}/{seq} rests already")
                # Re-inserting the later ones in order keeps the dict a FIFO.
                later = [known for known in level if known > seq]
                level[seq] = order
                for known in later:
                    level[known] = level.pop(known)
        self._count += 1
        if self.follower is not None:
            self.follower.inserted(order)

    def remove(self, order: Order) -> None:
        """Take `order` out. Raises KeyError if no order with its side, price and sequence number rests."""
        side = order.side
        price = order.price
        level = self._levels[side][price]
        del level[order.seq]
        self._count -= 1
        if self.follower is not None:
            self.follower.removed(order, not level)
        if not level:
            if self._ranks[side][-1] == (-price if side else price):
                self._drop_best(side)
            else:
                self._idle[side] += 1
                if self._idle[side] > IDLE_LEVELS_MIN + len(self._ranks[side]) // 2:
                    self._drop_idle(side)

    def _drop_best(self, side: int) -> None:
        """Forget the empty best level of `side`, and the empty ones that follow it."""
        ranks = self._ranks[side]
        levels = self._levels[side]
        rank = ranks.pop()
        del levels[-rank if side else rank]
        while ranks and not levels[-ranks[-1] if side else ranks[-1]]:
            rank = ranks.pop()
            del levels[-rank if side else rank]
            self._idle[side] -= 1

    def _drop_idle(self, side: int) -> None:
        """Forget all empty levels of `side`: as many as emptied since, so it costs a constant each."""
        ranks = self._ranks[side]
        levels = self._levels[side]
        for rank in ranks:
            price = -rank if side else rank
            if not levels[price]:
                del levels[price]
        ranks[:] = [rank for rank in ranks if (-rank if side else rank) in levels]
        self._idle[side] = 0

    def reduce(self, order: Order, quantity: int) -> None:
        """Take `quantity` lots off what remains of `order`, which leaves the book with its last lot.

        Raises ValueError unless 0 < quantity <= order.quantity, and KeyError as `remove` does.
        """
        left = order.quantity - quantity
        if quantity <= 0 or left < 0:
            raise ValueError(f"book: cannot take {quantity} off {order.quantity}")
        if left == 0:
            self.remove(order)
        elif self.follower is not None:
            self.follower.reduced(order, quantity)
        order.quantity = left

    def regain(self, order: Order, quantity: int) -> None:
        """A resting `order` has `quantity` lots again, as before a plan that is undone."""
        if self.follower is not None:
            self.follower.reduced(order, order.quantity - quantity)
        order.quantity = quantity

    def best(self, side: int) -> Order | None:
        """First order of `side` in priority, or None if the side is empty."""
        ranks = self._ranks[side]
        if not ranks:
            return None
        level = self._levels[side][-ranks[-1] if side else ranks[-1]]
        return level[next(iter(level))]

    def best_price(self, side: int) -> int | None:
        """Price of the first order of `side` in ticks, or None if the side is empty."""
        ranks = self._ranks[side]
        if not ranks:
            return None
        return -ranks[-1] if side else ranks[-1]

    def get(self, side: int, price: int, seq: int) -> Order | None:
        """The resting order with this key, or None."""
        level = self._levels[side].get(price)
        return None if level is None else level.get(seq)

    def prices(self, side: int) -> Iterator[int]:
        """Prices of `side` at which orders rest, in ticks, best first. As `orders`."""
        levels = self._levels[side]
        for rank in reversed(self._ranks[side]):
            price = -rank if side else rank
            if levels[price]:
                yield price

    def level(self, side: int, price: int) -> Iterable[Order]:
        """Orders of `side` at `price` (ticks), the oldest first. As `orders`."""
        level = self._levels[side].get(price)
        return () if level is None else level.values()

    def orders(self, side: int) -> Iterator[Order]:
        """Orders of `side`, best first. The book must not change while the iterator is in use."""
        levels = self._levels[side]
        for rank in reversed(self._ranks[side]):
            yield from levels[-rank if side else rank].values()

    def crossing(self, side: int, price: int) -> Iterator[Order]:
        """Resting orders that a taker of `side` limited to `price` can trade with, best first.

        Costs what is consumed of it, not what rests. The book must not change while the iterator is in use:
        take the steps wanted, then apply them.
        """
        opposite = 1 - side
        levels = self._levels[opposite]
        limit = price if opposite else -price
        for rank in reversed(self._ranks[opposite]):
            # `rank` is the negated ask, or the bid: it crosses while it is no worse than the limit.
            if rank < -limit:
                return
            yield from levels[-rank if opposite else rank].values()


def crosses(side: int, price: int, best_price: int) -> bool:
    """Whether a taker of `side` limited to `price` trades with a resting order at `best_price` (ticks)."""
    return price <= best_price if side else price >= best_price


def plan(
    book: Book, side: int, price: int, quantity: int, steps_max: int | None = None
) -> tuple[list[tuple[Order, int]], int]:
    """Fills that a taker would make by price-time priority alone, and the lots that they leave of it.

    Each fill is (maker, lots) at the maker's price; at most `steps_max` of them (None: no limit). Nothing
    changes in the book: `reduce` each maker by its lots to apply the plan.
    """
    fills: list[tuple[Order, int]] = []
    best_price = book.best_price(1 - side)
    if best_price is None or not crosses(side, price, best_price):
        return fills, quantity
    for maker in book.crossing(side, price):
        if quantity == 0 or len(fills) == steps_max:
            break
        lots = min(maker.quantity, quantity)
        fills.append((maker, lots))
        quantity -= lots
    return fills, quantity


def order_key(instrument: int, side: int, price: int, seq: int) -> int:
    """Leaf key of an order: type, instrument, side, price priority, seq; the better order's is smaller.

    4 << 252 | instrument << 73 | side << 72 | priority << 40 | seq, where priority is the price of an ask and
    2^32 - 1 - price of a bid. Raises ValueError if a field is out of its range (32, 1, 32 and 40 bits).
    """
    if instrument >> 32 or side >> 1 or price >> 32 or seq >> 40:
        raise ValueError(f"book: no key for instrument {instrument}, side {side}, price {price}, seq {seq}")
    priority = price if side else PRICE_MAX - price
    return KEY_ORDER | instrument << 73 | side << 72 | priority << 40 | seq


def book_prefix(instrument: int, side: int) -> int:
    """The bits above ORDER_LOW_MASK that all keys of one side of one instrument share; the rest is 0."""
    if instrument >> 32 or side >> 1:
        raise ValueError(f"book: no prefix for instrument {instrument}, side {side}")
    return KEY_ORDER | instrument << 73 | side << 72


def split_key(key: int) -> tuple[int, int, int, int]:
    """(instrument, side, price, seq) of a key that `order_key` made. Raises ValueError for others."""
    side = key >> 72 & 1
    priority = key >> 40 & PRICE_MAX
    if key >> 105 != KEY_ORDER >> 105:
        raise ValueError(f"book: {key:#x} is no order key")
    return key >> 73 & PRICE_MAX, side, priority if side else PRICE_MAX - priority, key & SEQ_MAX


def order_value(order: Order) -> int:
    """Leaf value of an order, 184 bits: quantity, then at bits 40 reserve rate, 72 expiry, 104 flags, 112 account,
    144 filled.

    Raises ValueError if a field is out of its range (40, 32, 32, 8, 32 and 40 bits).
    """
    quantity = order.quantity
    reserve_rate = order.reserve_rate
    expires = order.expires
    flags = order.flags
    account = order.account
    filled = order.filled
    if quantity >> 40 or reserve_rate >> 32 or expires >> 32 or flags >> 8 or account >> 32 or filled >> 40:
        raise ValueError(f"book: {order!r} does not fit its leaf")
    return filled << 144 | account << 112 | flags << 104 | expires << 72 | reserve_rate << 40 | quantity


def order_leaf(order: Order) -> bytes:
    """The words of `order_key` and `order_value`, 64 bytes. Raises struct.error if a field is out of its range."""
    seq, quantity, filled, place = order.seq, order.quantity, order.filled, order.instrument << 1 | order.side
    return _LEAF.pack(
        KEY_ORDER >> 248,
        place >> 32,
        place & PRICE_MAX,
        order.price if order.side else PRICE_MAX - order.price,
        seq >> 32,
        seq & PRICE_MAX,
        filled >> 32,
        filled & PRICE_MAX,
        order.account,
        order.flags,
        order.expires,
        order.reserve_rate,
        quantity >> 32,
        quantity & PRICE_MAX,
    )


def split_value(value: int) -> tuple[int, int, int, int, int, int]:
    """(quantity, reserve rate, expiry, flags, account, filled) of a leaf value. Raises ValueError beyond 184 bits."""
    if value >> 184:
        raise ValueError(f"book: {value:#x} is no order value")
    return (
        value & QUANTITY_MAX,
        value >> 40 & PRICE_MAX,
        value >> 72 & PRICE_MAX,
        value >> 104 & 0xFF,
        value >> 112 & PRICE_MAX,
        value >> 144,
    )


def order_from(key: int, value: int) -> Order:
    """The order of a leaf: inverse of `order_key` and `order_value`, with their errors."""
    instrument, side, price, seq = split_key(key)
    quantity, reserve_rate, expires, flags, account, filled = split_value(value)
    return Order(account, instrument, side, price, seq, quantity, expires, reserve_rate, flags, filled)
