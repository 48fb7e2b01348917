"""Rows that the ledger passes to the store: plain lists in the order of the tables' columns."""

from enum import IntEnum
from typing import Any, Final

from sequencer.protocol.outcome import Fill

ROWS_MAX: Final = 200  # of a page
ROWS: Final = 50  # where none are asked for
PLACES: Final = 512  # trade rows that one record may make, both sides: a bid moves 64 positions


class State(IntEnum):
    """State of an order in the store."""

    OPEN = 0
    FILLED = 1
    CANCELLED = 2


class Why(IntEnum):
    """Why an order ended without being filled."""

    NONE = 0
    USER = 1  # CANCEL, or an AMEND to less than had traded
    CANCEL_ALL = 2
    LIQUIDATION = 3  # its account was liquidated, or its debts were covered
    SELF_TRADE = 4
    EXPIRED = 5  # its own time, or its instrument's
    REDUCE_ONLY = 6  # nothing left to reduce
    UNBACKED = 7  # the marks had passed it, and its reserve no longer bore its fill
    IOC = 8  # the rest of an order that may not rest
    LIMIT = 9  # its account could hold no more, or its margin bore no more
    NOT_WHOLE = 10  # a FOK or post-only order of several records, undone by its last one


class TradeKind(IntEnum):
    """Kinds of a position's change."""

    TRADE = 0
    SETTLEMENT = 1
    LIQUIDATION = 2  # a bid has moved it at the mark


class MoveKind(IntEnum):
    """Kinds of a change of cash, except trades."""

    DEPOSIT = 0
    WITHDRAWAL = 1
    TRANSFER = 2
    SETTLEMENT = 3
    LIQUIDATION = 4  # what a bid has paid or received, and its fee
    COVER = 5  # a debt that the fund and all others have borne
    COLLECT = 6
    SWEEP_FEE = 7


def amend_key(seq: int, place: int) -> int:
    """Key of a change of an order by record `seq`: by an AMEND (0), by what reduce-only has left of it (1)."""
    return seq * 2 + place


def trade_key(seq: int, place: int, is_taker: bool) -> int:
    """Key of one side of the `place`-th trade of record `seq`; half of it names the trade."""
    return seq * PLACES + place * 2 + is_taker


TRADE: Final = "trade"
ORDER_FEE: Final = "order_fee"
AMEND_FEE: Final = "amend_fee"
TRANSACTIONS: Final = (TRADE, ORDER_FEE, AMEND_FEE, *(one.name.lower() for one in MoveKind))
"""Kinds of rows of the transaction log."""


class Kept:
    """A resting order that has a label, or another number than it was placed with."""

    __slots__ = ("id", "label")

    def __init__(self, id: int, label: str) -> None:  # noqa: A002  # the field's own word
        self.id = id
        self.label = label


class OwnFill:
    """One side of a trade: its row (tables.py, `trades`), and the trade. Prices in ticks, quantities in lots (the
    position's signed), money in 1e-6 USD.
    """

    __slots__ = ("fill", "is_taker", "row")

    def __init__(self, row: list[Any], is_taker: bool, fill: Fill) -> None:
        self.row = row
        self.is_taker = is_taker
        self.fill = fill

    @property
    def account(self) -> int:
        """Whose side it is."""
        return self.fill.taker if self.is_taker else self.fill.maker


class Batch:
    """Rows of some ticks, each in the order of its table's columns (store.py), and what `Ledger.undo` needs."""

    __slots__ = (
        "amends",
        "before_seq",
        "closes",
        "floors",
        "floors_before",
        "is_open",
        "kept_added",
        "kept_gone",
        "moves",
        "next_seq",
        "orders",
        "positions",
        "times",
        "totals",
        "touched_accounts",
        "touched_positions",
        "trades",
    )

    def __init__(self, before_seq: int = 0) -> None:
        self.orders: list[list[int | str]] = []
        self.trades: list[list[int | str]] = []  # one a side
        self.closes: list[list[int]] = []
        self.amends: list[list[int]] = []
        self.floors: list[list[int]] = []
        self.moves: list[list[int]] = []
        self.times: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.totals: list[list[int]] = []
        self.next_seq = 0
        self.is_open = False  # an order that may still be undone is on its way, and not in
        # As they were before: lots, cost, realised; totals, None of a new account.
        self.touched_positions: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.touched_accounts: dict[int, tuple[int, int, int, int, int] | None] = {}
        self.before_seq = before_seq
        self.floors_before: list[tuple[int, int]] = []
        self.kept_added: list[int] = []
        self.kept_gone: dict[int, Kept] = {}

    def at(self, time: int, seq: int) -> None:
        """A record of `time`."""
        if not self.times or self.times[-1][0] != time:
            self.times.append([time, seq])

    @property
    def rows(self) -> int:
        """Number of rows, replacements not counted."""
        of_orders = len(self.orders) + len(self.closes) + len(self.amends) + len(self.floors)
        return of_orders + len(self.trades) + len(self.moves)
