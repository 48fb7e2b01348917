"""FIX and SETTLE: an expiry's price by TWAP, and positions turned into cash at it."""

from sequencer.protocol import constants as c
from sequencer.protocol import insurance
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import NEVER
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State, expiry_time


def fix(state: State, record: Record, out: Outcome) -> Reason:
    """FIX: settlement price = (cumulative at 08:00 - cumulative at 07:30) / 1800 s, rounded half up, in ticks."""
    number, day = record.fields
    key = number << 16 | day
    expiry = state.expiry(key)
    if expiry is None:
        return Reason.UNKNOWN_INSTRUMENT
    if expiry.settled:
        return Reason.ALREADY_SETTLED
    if state.globals.time < expiry_time(day):
        return Reason.NOT_EXPIRED
    underlying = state.underlying(number)
    assert underlying is not None  # an expiry has one
    snapshot = underlying.snapshots[day % c.SNAPSHOT_DAYS]
    if snapshot.day != day or not (snapshot.has_start and snapshot.has_end):
        return Reason.NO_SNAPSHOT
    elapsed = (snapshot.cumulative_end - snapshot.cumulative_start) & c.U64_MAX
    expiry.settlement = min((2 * elapsed + c.TWAP_S) // (2 * c.TWAP_S), c.U32_MAX)
    expiry.settled = True
    state.touch(c.KEY_EXPIRY | key, expiry)
    out.number = expiry.settlement
    return Reason.OK


def settle(state: State, record: Record, out: Outcome) -> Reason:
    """SETTLE: pays an account's positions of a fixed expiry their intrinsic value; exact, no rounding.

    An account that is left without positions and owes money is covered by the fund, then by all. A hole of one that
    keeps some stays until it is marked again.
    """
    underlying, day, number = record.fields
    key = underlying << 16 | day
    expiry = state.expiry(key)
    if expiry is None:
        return Reason.UNKNOWN_INSTRUMENT
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    if not expiry.settled:
        return Reason.NOT_SETTLED
    settled = [instrument for instrument in sorted(account.positions) if instrument >> 12 == key]
    if not settled:
        return Reason.NOTHING_TO_SETTLE
    paid = 0
    moved: list[tuple[int, int, int]] = []
    positions = account.positions = account.positions.copy()
    for instrument in settled:
        terms = state.page_of(instrument).terms[instrument & 31]
        value = intrinsic(expiry.settlement, terms & 0x7FFF_FFFF, bool(terms >> 31))
        lots = positions.pop(instrument)
        moved.append((instrument, lots, value))
        paid += lots * value
    account.cash += paid
    account.epoch = NEVER
    if insurance.cover(state, account):
        out.ended = number
    if not account.positions:
        account.auction_start = 0
    state.put_account(number, account)
    out.amount = paid
    out.moved = moved
    return Reason.OK
