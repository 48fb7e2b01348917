"""Whether orders are accepted now, and the reason if not."""

from sequencer import errors
from sequencer.node.pace import Pace
from sequencer.node.roll_backs import RollBacks
from sequencer.queue.driver import Driver

STOPPING = "the sequencer is stopping"


class Gate:
    """Decides whether orders are accepted. `deposed`: why another sequencer leads now; `is_stopping`: for good."""

    def __init__(self, driver: Driver, pace: Pace, roll_backs: RollBacks) -> None:
        self.deposed = ""
        self.is_stopping = False
        self._metrics = driver.metrics
        self._pace = pace
        self._roll_backs = roll_backs

    def closed(self) -> tuple[errors.Code, str] | None:
        """Why no order is accepted now, for clients and for /health; None: orders are accepted."""
        if self.deposed:
            return errors.Code.NOT_LEADER, self.deposed
        if self.is_stopping:
            return errors.Code.NOT_READY, STOPPING
        if why := self._pace.unproved() or self._metrics.clock_error or self._roll_backs.why:
            return errors.Code.NOT_READY, why
        return None

    def refusal(self) -> bytes | None:
        """The error with which a record is refused now; None: it is accepted."""
        closed = self.closed()
        if closed is None:
            return None
        kind, why = closed
        again = "" if kind == errors.Code.NOT_LEADER or self.is_stopping else "; send again later"
        return errors.error_body(kind, f"Not accepted: {why}{again}.", reason=why)

    def health(self) -> tuple[bool, str]:
        """Whether orders are accepted, and why not."""
        closed = self.closed()
        if closed is None and self._metrics.last_error:
            return False, f"the log is unavailable: {self._metrics.last_error}"
        return closed is None, closed[1] if closed else ""

    def refuses(self) -> str:
        """Why orders are refused, for the operator; empty during a stop or a roll-back, which end by themselves."""
        return self.deposed or self._pace.unproved() or self._metrics.clock_error
