"""What applying a record did: for the people who wait for it. No part of the state."""

from collections.abc import Sequence

from sequencer.protocol.book import Order
from sequencer.protocol.constants import Reason


class Fill:
    """One trade. Prices in ticks, quantities in lots, fees in 1e-6 USD; `side` is the taker's.

    `maker_left`: what still rests of the maker's order. `mark`, `index`: the page's, as the trade found them.
    """

    __slots__ = (
        "index",
        "instrument",
        "maker",
        "maker_fee",
        "maker_left",
        "maker_price",
        "maker_seq",
        "mark",
        "quantity",
        "side",
        "taker",
        "taker_fee",
        "taker_seq",
    )

    def __init__(
        self,
        instrument: int,
        side: int,
        maker: int,
        maker_seq: int,
        taker: int,
        taker_seq: int,
        price: int,
        quantity: int,
        maker_fee: int,
        taker_fee: int,
        maker_left: int = 0,
        mark: int = 0,
        index: int = 0,
    ) -> None:
        self.instrument = instrument
        self.side = side
        self.maker = maker
        self.maker_seq = maker_seq
        self.taker = taker
        self.taker_seq = taker_seq
        self.maker_price = price
        self.quantity = quantity
        self.maker_fee = maker_fee
        self.taker_fee = taker_fee
        self.maker_left = maker_left
        self.mark = mark
        self.index = index


class Outcome:
    """`reason` OK or why the record was a no-op; what it traded, rested and removed.

    `pending`: the taker still crosses, CONTINUE must follow. `amount`: cash that a DEPOSIT credited, a WITHDRAW will
    pay, a BID paid (negative: received), a SETTLE paid to the account, a COLLECT collected. `number`: the new
    instrument, withdrawal, account or settlement price. `debited`: what a withdrawal has cost its account.

    `amended`: the order that an AMEND has changed; `removed` has it, too, unless it is smaller and keeps its place.
    `found`: the lots that had traded of it, and those that rested. Of an order or a bid that is refused for MARGIN:
    the free margin that it `needed`, and what was `there` (1e-6 USD). `moved`: positions that a BID or SETTLE has taken
    from an account: (instrument, lots, ticks a lot). `ended`: the account all of whose orders died of it together.
    `failed`: why a FOK or post-only order of several records is undone by this one, whole; OK: it is not. `paid`: all
    fees of the account whose order was executed, its trades' included; None: no order was. `rests`: lots of it in the
    book after the record, whatever later ones make of them.
    """

    __slots__ = (
        "amended",
        "amount",
        "debited",
        "ended",
        "failed",
        "fee",
        "fills",
        "found",
        "moved",
        "needed",
        "number",
        "paid",
        "pending",
        "reason",
        "removed",
        "rested",
        "rests",
        "seq",
        "there",
    )

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.reason = Reason.OK
        self.fills: list[Fill] = []
        self.rested: Order | None = None
        self.removed: list[
            Order
        ] = []  # resting orders that left without a fill: cancelled, amended, dead when met, self-trade
        self.amended: Order | None = None
        self.pending = False
        self.failed = Reason.OK
        self.fee = 0
        self.paid: int | None = None
        self.rests = 0
        self.amount = 0
        self.number = 0
        self.debited = 0
        self.moved: Sequence[tuple[int, int, int]] = ()
        self.ended: int | None = None
        self.found = (0, 0)
        self.needed = 0
        self.there = 0
