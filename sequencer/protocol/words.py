"""PLACE_IN_WORDS: an order whose signature is about a text that a person can read (order_text.py).

Twin: `contracts/lib/words.vy`. The record has PLACE's fields, and the option's strike and type, which PLACE leaves to
the page: so the text follows from the bytes alone. They must be those of the instrument.
"""

from sequencer.protocol import constants as c
from sequencer.protocol import matching
from sequencer.protocol.auth import authorise
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Taker
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def place(state: State, record: Record, out: Outcome) -> Reason:
    """PLACE_IN_WORDS: as PLACE; after its authority, the instrument's terms must be those of the text."""
    number, instrument, flags, price, quantity, nonce, expires, fee_max, terms = record.fields
    reason = matching.check_form(flags, price, quantity)
    if reason:
        return reason
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    page = state.page(instrument >> 5)
    if page is None or instrument & 31 >= len(page.terms):
        return Reason.UNKNOWN_INSTRUMENT
    if page.terms[instrument & 31] != terms:
        return Reason.TERMS
    taker = Taker(number, instrument, flags, price, quantity, expires, state.globals.seq)
    return matching.enter(state, taker, found, nonce, fee_max, out)
