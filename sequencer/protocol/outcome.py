"""What applying a record did: for the people who wait for it. No part of the state."""

from sequencer.protocol.book import Order
from sequencer.protocol.constants import Reason


class Fill:
    """One trade. Price in ticks, quantity in lots, fees in 1e-6 USD; `side` is the taker's."""

    __slots__ = (
        "instrument",
        "maker",
        "maker_fee",
        "maker_price",
        "maker_seq",
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


class Outcome:
    """`reason` OK or why the record was a no-op; what it traded, rested and removed.

    `pending`: the taker still crosses, CONTINUE must follow. `amount`: cash that a DEPOSIT credited, a WITHDRAW will
    pay, a BID paid (negative: received), a SETTLE paid to the account, a COLLECT collected. `number`: the new
    instrument, withdrawal, account or settlement price. `amended`: the order that an AMEND has changed; `removed`
    has it, too, unless it is smaller and keeps its place.
    """

    __slots__ = (
        "amended",
        "amount",
        "fee",
        "fills",
        "number",
        "pending",
        "reason",
        "removed",
        "rested",
        "seq",
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
        self.fee = 0
        self.amount = 0
        self.number = 0
