"""A little exchange on which everything happens that the history tells of: every kind of order and of its end."""

import random

from sequencer.engine.engine import Submission, Tick
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import instrument_expiry_time
from tests.simulation.little import Little, deposit, reasons
from tests.simulation.world import MID

LABELS = ("", "a1", "grid:7", "hedge")


class Busy(Little):
    """`step` trades at random; `settle` lets the first expiry come."""

    def __init__(self, seed: int = 1, traders: int = 4) -> None:
        super().__init__(traders)
        self.dice = random.Random(seed)

    def labelled(self, one: Submission, label: str) -> Submission:
        one.label = label
        return one

    def some_order(self) -> Submission:
        dice = self.dice
        trader, side = dice.randrange(len(self.nonces)), dice.randrange(2)
        flags = dice.choice([0, 0, 0, c.FLAG_POST_ONLY, c.TIF_IOC << 1, c.TIF_FOK << 1, c.FLAG_REDUCE_ONLY])
        flags |= c.FLAG_STP_TAKER * (dice.random() < 0.2)
        price = MID + dice.randrange(-20, 21)
        placed = self.place(
            *(trader, side, price, dice.randrange(1, 60), flags),
            instrument=dice.choice(self.instruments[:3]),
            expires=dice.choice([0, 0, self.now + dice.randrange(2, 12)]),
        )
        return self.labelled(placed, dice.choice(LABELS))

    def some_change(self) -> Submission | None:
        """A cancel or an amendment of something that rests."""
        dice = self.dice
        resting = [one for held in self.state.orders_of.values() for one in held.values()]
        if not resting:
            return None
        order = dice.choice(sorted(resting, key=lambda one: one.seq))
        key = {"instrument": order.instrument, "price": order.price, "seq": order.seq}
        if dice.random() < 0.4:
            return self.signed(Kind.CANCEL, order.account - 1, side=order.side, **key)
        return self.signed(
            *(Kind.AMEND, order.account - 1),
            **key,
            flags=order.flags,
            new_price=order.price + dice.choice([0, 0, 0, -3, 3]),
            quantity=max(1, order.quantity + order.filled + dice.randrange(-30, 20)),
            fee_max=65_535,
        )

    def step(self) -> Tick:
        """A tick of orders, changes, and now and then something else."""
        dice = self.dice
        sent = [self.some_order() for _ in range(dice.randrange(1, 7))]
        sent += [one for _ in range(dice.randrange(0, 3)) if (one := self.some_change()) is not None]
        trader = dice.randrange(len(self.nonces))
        match dice.randrange(14):
            case 0:
                sent.append(self.signed(Kind.CANCEL_ALL, trader, nonce_floor=self.nonces[trader]))
            case 1:
                sent.append(self.signed(Kind.WITHDRAW, trader, amount=dice.randrange(1, 10**7)))
            case 2:
                to = (trader + 1) % len(self.nonces) + 1
                sent.append(self.signed(Kind.TRANSFER, trader, to=to, amount=10**6))
            case 3:
                return self.run(sent, [deposit(trader, amount=5 * 10**6)])
        return self.run(sent, self.keeper.sweeps(self.now + 1))

    def settle(self) -> None:
        """The first expiry comes: its price, and what the accounts get."""
        expiry = min(instrument_expiry_time(one) for one in self.instruments)
        self.now = max(self.now, expiry - 2_400)
        for _ in range(50):
            self.now += 60
            system = self.keeper.pass_one(self.now + 1) + self.keeper.pass_two(self.now + 1)
            tick = self.run([], system)
            assert Reason.MALFORMED not in [one.reason for one in tick.system]
        assert any(one.settled for one in self.state.expiries.values())
        assert not any(
            instrument_expiry_time(instrument) <= self.now
            for account in self.state.accounts.values()
            for instrument in account.positions
        )


__all__ = ["LABELS", "Busy", "codec", "reasons"]
