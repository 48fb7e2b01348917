"""The answer to the `status` query."""

from dataclasses import dataclass
from typing import Any

from sequencer.clock import Clock, ClockStopped
from sequencer.engine.views import Views
from sequencer.history.history import History
from sequencer.keeper.keeper import Keeper
from sequencer.node.check import Scrub
from sequencer.node.gate import STOPPING, Gate
from sequencer.node.pace import Pace
from sequencer.node.roll_backs import RollBacks
from sequencer.queue.driver import Driver
from sequencer.rollup.batcher import Batcher
from sequencer.rollup.rollback import Recovery
from sequencer.rollup.vouched import Vouched


@dataclass(frozen=True, slots=True)
class Status:
    """Collects the status from the parts of a sequencer."""

    clock: Clock
    driver: Driver
    views: Views
    keeper: Keeper
    history: History
    batcher: Batcher
    recovery: Recovery
    vouched: Vouched
    scrub: Scrub
    pace: Pace
    roll_backs: RollBacks
    gate: Gate

    def read(self) -> dict[str, Any]:
        """The fields, as docs/API.md and docs/OPERATIONS.md describe them."""
        worker = self.pace.worker
        standing = worker.standing if worker else None
        metrics = self.driver.metrics
        proof = self.pace.proof()
        refuses = self.gate.refuses()
        looks = self.keeper.index.looks
        return {
            "log_end": self.driver.log.end,
            "waiting": len(self.driver.intake),
            "refused": self.driver.intake.refused + metrics.refused,
            "tick_apply_ms": round(metrics.apply_ms, 3),
            "log_append_ms": round(metrics.append_ms, 3),
            "log_error": metrics.last_error,
            "store_error": self.scrub.error,
            "history_error": self.history.error,
            "history_behind": self.history.behind,
            "signature_error": self.vouched.error,
            "signatures_waiting": self.vouched.backlog,
            "forged": self.roll_backs.forged,
            "ticks_unbatched": self.batcher.waiting(),
            "batches_stored": self.batcher.cursor.batch_id - 1,
            "batches_posted": self.pace.last_posted,
            "tick_posted": self.pace.tick_posted(),
            "work_waiting": self.pace.work_waiting(),
            "feed_error": self.keeper.feed_error,
            **self.views.feed_ages(self._now_s()),
            "accounts_short": len(looks.short),
            "auctions": len(looks.auctions),
            "looks_are_behind": looks.is_behind,
            "messages_waiting_for_marks": self.driver.waiting_messages,
            "accepts_orders": not refuses and not self.gate.is_stopping,
            "refuses_because": refuses or (STOPPING if self.gate.is_stopping else ""),
            "clock_error": metrics.clock_error,
            "l1_error": (worker.last_error or refuses) if worker else "",
            "l1_seen_s": None if proof is None or proof.unseen_s is None else round(proof.unseen_s, 1),
            "l1_head_age_s": worker.head_age_s() if worker else None,
            "l1_unproved_s": round(proof.unproved_s, 1) if proof else 0.0,
            "l1_balance_wei": str(proof.balance_wei) if proof and proof.balance_wei is not None else None,
            "l1_needed_wei": str(proof.needed_wei) if proof else "0",
            "l1_restarts": worker.restarts if worker else 0,
            "l1_looks": worker.looks if worker else 0,
            "l1_gas": worker.gas_used if worker else 0,
            "bond_wei": str(standing.bond_wei if standing else 0),
            "bond_min_wei": str(standing.bond_min_wei if standing else 0),
            "roll_backs": self.recovery.epoch,
            "leads": bool(standing and standing.leads),
            "leader": standing.leader if standing else "",
            "epoch": standing.epoch if standing else 0,
            "members": len(standing.members) if standing else 0,
        }

    def _now_s(self) -> int:
        """The time against which ages are shown: the last of the exchange where there is no trusted clock."""
        try:
            return self.clock.now_s()
        except ClockStopped:
            return self.driver.engine.state.globals.time
