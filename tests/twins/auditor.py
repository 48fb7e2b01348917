"""The auditor: what must hold of a state after every record, computed anew from all that is in it."""

from sequencer.protocol import codec, margin, plans
from sequencer.protocol import constants as c
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.book import order_key, order_value
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import NEVER
from sequencer.protocol.hashing import keccak
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State

_TYPE = 15 << c.TYPE_SHIFT


class Auditor:
    """Counts what came in, and checks a state."""

    def __init__(self) -> None:
        self.deposited = 0

    def count(self, raw: bytes, out: Outcome) -> None:
        """Takes note of one record's outcome."""
        if out.reason is Reason.OK and raw[0] == Kind.DEPOSIT:
            record = codec.decode(raw, b"")
            assert isinstance(record, codec.Record)
            self.deposited += record.fields[2]

    def check(self, state: State) -> None:
        """Raises AssertionError when anything does not add up."""
        self.check_money(state)
        check_positions(state)
        check_orders(state)
        check_caches(state)
        check_bounds(state)
        check_plan(state)

    def check_money(self, state: State) -> None:
        """Claims equal the pool and the deficit; all money is somewhere."""
        g = state.globals
        claims = sum(
            account.cash + unsettled(state, account.positions) for account in state.accounts.values()
        )
        assert claims - g.deficit == g.pool
        assert g.holes == sum(account.hole for account in state.accounts.values())
        withdrawn = [value & c.U64_MAX for key, value in state.map.items() if key & _TYPE == c.KEY_WITHDRAWAL]
        assert len(withdrawn) == g.withdrawals
        assert g.pool + g.fund + g.treasury + sum(withdrawn) == self.deposited


def unsettled(state: State, positions: dict[int, int]) -> int:
    """What positions of fixed expiries will be paid (1e-6 USD)."""
    total = 0
    for instrument, quantity in positions.items():
        expiry = state.expiries[instrument >> 12]
        if expiry.settled:
            terms = state.pages[instrument >> 5].terms[instrument & 31]
            total += quantity * intrinsic(expiry.settlement, terms & 0x7FFF_FFFF, bool(terms >> 31))
    return total


def check_positions(state: State) -> None:
    """Longs and shorts of every instrument cancel out, inside the limits."""
    open_lots: dict[int, int] = {}
    for account in state.accounts.values():
        assert len(account.positions) <= c.POSITIONS_MAX
        assert len({instrument >> 5 for instrument in account.positions}) <= c.PAGES_MAX
        for instrument, quantity in account.positions.items():
            assert 0 < abs(quantity) <= c.POSITION_LOTS_MAX
            assert instrument & 31 < len(state.pages[instrument >> 5].terms)
            open_lots[instrument] = open_lots.get(instrument, 0) + quantity
    # While SETTLE goes round, those who have been paid are missing from the sum.
    assert not any(lots for one, lots in open_lots.items() if not state.expiries[one >> 12].settled)


def check_orders(state: State) -> None:
    """Books and leaves agree; reserves are those of the live orders; nothing rests crossed without a pending taker."""
    leaves = {key: value for key, value in state.map.items() if key & _TYPE == c.KEY_ORDER}
    reserved = dict.fromkeys(state.accounts, 0)
    orders = dict.fromkeys(state.accounts, 0)
    taker = state.globals.taker
    for instrument, book in state.books.items():
        for side in (c.BUY, c.SELL):
            for order in book.orders(side):
                assert leaves.pop(order_key(instrument, side, order.price, order.seq)) == order_value(order)
                assert order.quantity > 0
                assert order.flags & 1 == side
                orders[order.account] += 1
                if order.seq >= state.accounts[order.account].order_floor:
                    reserved[order.account] += order.reserve_rate * order.quantity
        bid, ask = book.best_price(c.BUY), book.best_price(c.SELL)
        assert bid is None or ask is None or bid < ask
        if taker is not None and taker.instrument == instrument:
            best = ask if taker.flags & 1 == c.BUY else bid
            assert best is not None
            assert taker.quantity > 0
    assert not leaves
    assert reserved == {number: account.reserved for number, account in state.accounts.items()}
    assert orders == {number: account.orders for number, account in state.accounts.items()}


def check_caches(state: State) -> None:
    """Kept sums are the fresh ones; the index of holders is what it says."""
    for account in state.accounts.values():
        if account.epoch == state.epoch:
            fresh = account.clone()
            fresh.epoch = NEVER
            margin.refresh(state, fresh)
            assert account.sums == fresh.sums
    assert state.holders == {
        number: account
        for number, account in state.accounts.items()
        if account.positions or account.cash < account.reserved
    }


def check_plan(state: State) -> None:
    """An open plan is an atomic taker's, and what is kept of before gives the root that GLOBAL remembers."""
    g = state.globals
    assert bool(g.plan_root) == (state.undo is not None)
    fits(g, 16, "plan_records", "plan_fee_max")
    if state.undo is None:
        assert g.plan_records == g.plan_fee_max == 0
        return
    assert g.taker is not None
    assert plans.is_atomic(g.taker.flags)
    assert 0 < g.plan_records < c.PLAN_RECORDS_MAX
    twin = State.from_preimages(state.domain, iter(list(state.preimages())))
    twin.globals, _ = twin.rewind(g.taker.account)
    assert twin.root() == g.plan_root


def check_bounds(state: State) -> None:
    """Every field fits its bits, so that no word bleeds into its neighbour."""
    g = state.globals
    fits(g, 40, "seq", "tick", "excess", "inbox_count")
    fits(g, 32, "time", "breaker_until", "withdrawals")
    fits(g, 64, "fund", "treasury", "pool", "holes")
    assert -(2**127) <= g.deficit < 2**127
    fits(g, 8, "last_class", "queue_state", "breaker_level")
    assert g.last_class <= c.CLASS_TAKER
    assert g.queue_state <= c.QueueState.HALTED
    if g.taker is not None:
        fits(g.taker, 40, "quantity", "seq")
        fits(g.taker, 32, "price", "expires", "account", "instrument")
        fits(g.taker, 8, "flags")
    for account in state.accounts.values():
        fits(account, 64, "reserved", "hole")
        fits(account, 40, "order_floor")
        fits(account, 32, "auction_start", "nonce_floor", "orders")
        fits(account, 256, "nonce_bitmap")
        assert not account.nonce_bitmap & 1
        assert -(2**127) < account.cash < 2**127
        assert len(account.signers) <= c.SIGNERS_MAX
        assert len({one for one, _, _ in account.signers}) == len(account.signers)
        assert account.order_floor <= g.seq
        if account.auction_start:
            assert account.positions
            assert account.reserved == 0
        else:
            assert account.hole == 0
    for page in state.pages.values():
        fits(page, 32, "time", "index", "forward")
        assert 0 < len(page.terms) == len(page.rows) <= c.PAGE_ROWS
        for mark, pnl in page.rows:
            assert 0 <= mark < 2**32
            assert all(-(2**31) <= one < 2**31 for one in pnl)
    for underlying in state.underlyings.values():
        fits(underlying, 32, "index", "time", "reference_price", "reference_time")
        fits(underlying, 64, "cumulative")
        for snapshot in underlying.snapshots:
            fits(snapshot, 64, "cumulative_start", "cumulative_end")
            fits(snapshot, 16, "day")
    for expiry in state.expiries.values():
        fits(expiry, 16, "listed")
        fits(expiry, 32, "settlement")


def fits(entry: object, bits: int, *names: str) -> None:
    """Asserts that each named field is an integer of that many bits."""
    for name in names:
        assert 0 <= getattr(entry, name) < 1 << bits, name


def naive_root(state: State) -> bytes:
    """Root from the preimages alone: every leaf hashed anew, the map built by its definition."""
    inline = (c.KEY_ORDER, c.KEY_INSTRUMENT, c.KEY_WITHDRAWAL)
    leaves = sorted(
        (key, words if key & _TYPE in inline else keccak(words))
        for key, words in state.preimages()
        if key < c.UNDO
    )
    return _subtree(leaves) if leaves else bytes(32)


def _subtree(leaves: list[tuple[int, bytes]]) -> bytes:
    if len(leaves) == 1:
        key, value = leaves[0]
        return keccak(key.to_bytes(32, "big") + value)
    bit = 1 << ((leaves[0][0] ^ leaves[-1][0]).bit_length() - 1)
    left = [leaf for leaf in leaves if not leaf[0] & bit]
    return keccak(bit.to_bytes(32, "big") + _subtree(left) + _subtree(leaves[len(left) :]))
