"""The naive twin of the order book: one sorted list a side, nothing else."""

from dataclasses import dataclass


@dataclass(slots=True)
class NaiveOrder:
    """What priority and matching need to know of an order."""

    side: int
    price: int
    seq: int
    quantity: int


def priority(order: NaiveOrder) -> tuple[int, int]:
    """Sort key: higher bids and lower asks first, then older ones."""
    return (order.price if order.side else -order.price, order.seq)


class NaiveBook:
    """Sorted lists, sorted again after every insertion."""

    def __init__(self) -> None:
        self.sides: tuple[list[NaiveOrder], list[NaiveOrder]] = ([], [])

    def insert(self, side: int, price: int, seq: int, quantity: int) -> None:
        self.sides[side].append(NaiveOrder(side, price, seq, quantity))
        self.sides[side].sort(key=priority)

    def find(self, side: int, price: int, seq: int) -> NaiveOrder | None:
        for order in self.sides[side]:
            if (order.price, order.seq) == (price, seq):
                return order
        return None

    def remove(self, side: int, price: int, seq: int) -> None:
        self.sides[side][:] = [
            order for order in self.sides[side] if (order.price, order.seq) != (price, seq)
        ]

    def reduce(self, side: int, price: int, seq: int, quantity: int) -> None:
        order = self.find(side, price, seq)
        assert order is not None
        order.quantity -= quantity
        if order.quantity == 0:
            self.remove(side, price, seq)

    def match(self, side: int, price: int, quantity: int) -> tuple[list[tuple[int, int, int]], int]:
        """Fill a taker; returns the fills as (maker's seq, price, lots) and what is left of the taker."""
        fills = []
        makers = self.sides[1 - side]
        while quantity and makers and (price <= makers[0].price if side else price >= makers[0].price):
            maker = makers[0]
            lots = min(quantity, maker.quantity)
            fills.append((maker.seq, maker.price, lots))
            quantity -= lots
            self.reduce(1 - side, maker.price, maker.seq, lots)
        return fills, quantity

    def rows(self, side: int) -> list[tuple[int, int, int]]:
        """(price, seq, quantity) of a side, best first."""
        return [(order.price, order.seq, order.quantity) for order in self.sides[side]]

    def depth(self, side: int, levels: int) -> list[tuple[int, int, int]]:
        totals: dict[int, tuple[int, int]] = {}
        for order in self.sides[side]:
            quantity, count = totals.get(order.price, (0, 0))
            totals[order.price] = (quantity + order.quantity, count + 1)
        return [(price, *total) for price, total in totals.items()][:levels]
