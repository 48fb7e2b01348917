"""Explains refusals: the field, its limit and the value given; the amount needed and available; the next step.

`explain` reads the state that the refused record met, and changes nothing. Amounts are decimal strings in the
units of the API: USD, contracts. Times are seconds since 1970, in messages beside the date (UTC). Reasons that only
the system's own records can have are explained by `errors.REFUSALS` alone.
"""

import logging
from typing import Final

from sequencer import errors
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.refusals import funds, trading, who
from sequencer.refusals.case import Case, Explainer, Explanation

__all__ = ["EXPLAINERS", "Explanation", "explain", "explanation"]

EXPLAINERS: Final[dict[Reason, Explainer]] = {**who.EXPLAINERS, **trading.EXPLAINERS, **funds.EXPLAINERS}
"""Reasons for which a client's record can be refused -> their explanations."""

logger = logging.getLogger(__name__)


def explain(
    state: State, raw: bytes, signer: bytes | None, reason: Reason, out: Outcome | None = None
) -> bytes:
    """The error object of a record that was refused for `reason`."""
    found = explanation(state, raw, signer, reason, out)
    if found is None:
        return errors.refusal(reason)
    code = errors.REFUSAL_BASE + reason
    return errors.error_body(code, found.text, reason=reason.name, **found.data())


def explanation(
    state: State, raw: bytes, signer: bytes | None, reason: Reason, out: Outcome | None = None
) -> Explanation | None:
    """Explanation of a refusal; None: `errors.REFUSALS` says all."""
    explainer = EXPLAINERS.get(reason)
    if explainer is None:
        return None
    try:
        record = codec.decode(raw, state.domain, signer or bytes(20))
        if isinstance(record, Reason):
            return None
        needed, there = (out.needed, out.there) if out is not None else (0, 0)
        return explainer(Case(state, Kind(record.kind), record.named(), signer, needed, there))
    except Exception:  # an explanation must never stop the exchange
        logger.exception("cannot explain refusal %s of %s", reason.name, raw.hex())
        return None
