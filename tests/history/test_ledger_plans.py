"""The ledger and orders of several records: what an order that was undone had done is in nobody's sums, its fee is."""

import pytest

from sequencer.engine.engine import Tick
from sequencer.engine.ledger import Ledger
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.wire.rows import Batch, State, Why
from tests.simulation.little import Little
from tests.simulation.world import MID

FOK = c.TIF_FOK << c.FLAG_TIF_SHIFT
POST = c.FLAG_POST_ONLY


class Kept(Little):
    """Whose ledger takes each tick."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        super().__init__()

    def run(self, *args: object, **names: object) -> Tick:
        tick = super().run(*args, **names)  # type: ignore[arg-type]
        for result in sorted(tick.system + tick.results, key=lambda one: one.outcomes[0].seq):
            raw = result.submission.raw
            for out in result.outcomes if result.outcomes[0].reason is Reason.OK else ():
                self.ledger.apply(raw, out, self.now)
                raw = codec.encode(Kind.CONTINUE)
        return tick

    def batch(self) -> Batch:
        """The rows since the last time; each account's sums are those of the state."""
        for number, account in self.state.accounts.items():
            assert self.ledger.total(number).cash == account.cash, number
            held = {one: basis.lots for one, basis in self.ledger.positions.get(number, {}).items()}
            assert held == account.positions
        return self.ledger.take()


def forced(flags: int, price: int, lots: int, fee_max: int = 100) -> bytes:
    fields = {"account": 4, "instrument": 0, "flags": flags, "price": price, "quantity": lots}
    return codec.encode(Kind.FORCED_ORDER, **fields | {"expires": 0, "fee_max": fee_max})


def force(little: Kept, flags: int, price: int, lots: int) -> bytes:
    raw = bytearray(forced(flags, price, lots))
    raw[5:9] = little.instruments[0].to_bytes(4, "big")
    return bytes(raw)


def test_forced_fok__that_fails_at_its_last_record__has_traded_nothing_and_has_paid() -> None:
    little = Kept()
    little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(40)])
    before = little.batch()
    assert len(before.orders) == 40
    cash = little.ledger.total(4).cash
    tick = little.run([], [force(little, FOK, MID + 50, 401)])
    (result,) = tick.system
    assert result.reason is Reason.FOK_UNFILLED
    assert len(result.outcomes) == 14
    assert tick.entry is not None
    assert [raw[0] for raw in tick.entry.raws()] == [Kind.TICK, Kind.FORCED_ORDER, *[Kind.CONTINUE] * 13]
    batch = little.batch()
    assert batch.trades == [] == batch.amends
    seq = result.outcomes[0].seq
    assert batch.closes == [[seq, State.CANCELLED, Why.NOT_WHOLE, little.now, result.outcomes[-1].seq]]
    fee = result.outcomes[-1].fee
    assert cash - little.ledger.total(4).cash == fee == batch.orders[0][-2] > 0
    assert little.replayed().root() == little.state.root()


@pytest.mark.parametrize("lots", [3, 40, 400])
def test_forced_fok__that_holds__is_in_the_sums_with_all_its_trades(lots: int) -> None:
    little = Kept()
    little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(40)])
    little.batch()
    little.run([], [force(little, FOK, MID + 50, lots)])
    assert len(little.batch().trades) == 2 * -(-lots // 10)


def test_plan__that_is_open_when_rows_are_taken__is_asked_for_again_from_its_first_record() -> None:
    little = Kept()
    little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(6)])
    little.batch()
    tick = little.run([little.place(3, c.BUY, MID + 50, 60, FOK)])
    (result,) = tick.results
    first, last = result.outcomes
    fresh = Ledger()
    assert fresh.apply(result.submission.raw, first, little.now) == []
    batch = fresh.take()
    assert (batch.trades, batch.orders, batch.next_seq) == ([], [], first.seq)
    assert len(fresh.apply(codec.encode(Kind.CONTINUE), last, little.now)) == 12
    assert fresh.take().next_seq == last.seq + 1


def test_amend__of_a_post_only_order_that_would_trade__leaves_the_order_as_it_was() -> None:
    little = Kept()
    little.run([little.place(0, c.SELL, MID + number, 1) for number in range(8)])
    seq = little.state.globals.seq + 1
    tick = little.run([little.rest(3, c.BUY, MID - 20)])
    assert tick.results[0].outcomes[0].seq == seq
    little.run([little.rest(1, c.SELL, MID + 9)])
    little.run([little.signed(Kind.CANCEL_ALL, 0, nonce_floor=0)])
    little.batch()
    fields = {"instrument": little.instruments[0], "flags": c.BUY | POST, "price": MID - 20, "seq": seq}
    amend = little.signed(Kind.AMEND, 3, **fields, new_price=MID + 9, quantity=10, fee_max=65_535)
    root = little.state.root()
    tick = little.run([amend])
    assert tick.results[0].reason is Reason.POST_ONLY_CROSSES
    assert (tick.entry, little.state.root(), tick.results[0].undone) == (None, root, 3)
    assert little.batch().rows == 0
    fields["nonce"] = little.nonces[3]
    amend = little.signed(Kind.AMEND, 3, **fields, new_price=MID + 8, quantity=10, fee_max=65_535)
    tick = little.run([amend])
    (result,) = tick.results
    assert (result.reason, len(result.outcomes)) == (Reason.OK, 3)
    assert result.outcomes[-1].rested is not None
    batch = little.batch()
    assert len(batch.amends) == 1
    assert len(batch.closes) == 0
    assert little.replayed().root() == little.state.root()
