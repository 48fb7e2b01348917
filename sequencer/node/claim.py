"""The transaction by which a member of the set takes over from one that is silent."""

import logging
from typing import Final

from sequencer.l1.deploy import Deployment
from sequencer.l1.sequencers import CALL_GAS, SEQUENCERS, Standing
from sequencer.l1.txmgr import TxManager
from sequencer.l1.txstore import State as TxState

_OPEN: Final = (TxState.QUEUED, TxState.SENT, TxState.MINED)

logger = logging.getLogger(__name__)


class Claim:
    """Sends it once while it is pending, and again when a batch of the leader's came first and made it fail."""

    def __init__(self, manager: TxManager, at: Deployment) -> None:
        self._manager = manager
        self._at = at
        self._attempt = 0

    def send(self, now: Standing) -> None:
        """Takes over in the epoch of `now`, at whose head the leader has been silent for long enough."""
        name = f"take-over-{now.epoch}"
        while True:
            known = self._manager.get(f"{name}-{self._attempt}")
            if known is None or known.state in _OPEN:
                break
            self._attempt += 1
        if known is None:
            logger.warning("silent since %d: taking over from %s", now.silent_since, now.leader)
            data = SEQUENCERS.encode("take_over")
            # Batches that it sent as leader have no effect now: a stuck one must not block this transaction.
            self._manager.send_over(
                *(f"{name}-{self._attempt}", self._at.sequencers, data, 0, CALL_GAS),
                lambda intent_id: intent_id.startswith("batch-"),
            )
