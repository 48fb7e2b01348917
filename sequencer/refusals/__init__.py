"""Refusals in words: which field, what it must be, what was given; what was needed and what was there; what to do next.

`explain` looks at the state as the refused record has found it, and changes nothing. Amounts are decimal strings in the
units of the API: USD, contracts. Times are seconds since 1970, in messages beside the date (UTC). Reasons that only the
system's own records meet have no words but those of `errors.REFUSALS`.
"""

import logging
from typing import Final

from sequencer import errors
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.refusals import funds, trading, who
from sequencer.refusals.case import Case, Teller, Why

__all__ = ["TOLD", "Why", "explain", "why"]

TOLD: Final[dict[Reason, Teller]] = {**who.TOLD, **trading.TOLD, **funds.TOLD}
"""The reasons that a client's record can be refused for -> what tells them."""

logger = logging.getLogger(__name__)


def explain(
    state: State, raw: bytes, signer: bytes | None, reason: Reason, out: Outcome | None = None
) -> bytes:
    """The error object of a record that was refused for `reason`."""
    found = why(state, raw, signer, reason, out)
    if found is None:
        return errors.refusal(reason)
    code = errors.REFUSAL_BASE + reason
    return errors.error_body(code, found.text, reason=reason.name, **found.data())


def why(
    state: State, raw: bytes, signer: bytes | None, reason: Reason, out: Outcome | None = None
) -> Why | None:
    """What there is to say of a refusal; None: no more than `errors.REFUSALS` does."""
    teller = TOLD.get(reason)
    if teller is None:
        return None
    try:
        record = codec.decode(raw, state.domain, signer or bytes(20))
        if isinstance(record, Reason):
            return None
        needed, there = (out.needed, out.there) if out is not None else (0, 0)
        return teller(Case(state, Kind(record.kind), record.named(), signer, needed, there))
    except Exception:  # words must never stop an exchange
        logger.exception("no words for %s of %s", reason.name, raw.hex())
        return None
