"""Inbox messages from L1 to the log: each once and in order, however often the L1 process delivers them."""

from sequencer.engine.engine import Tick
from sequencer.l1.follower import InboxMessage
from sequencer.protocol import codec
from sequencer.protocol.constants import INBOX_KINDS
from sequencer.protocol.state import State
from sequencer.queue.driver import Driver


class Inbox:
    """Queues messages as system records and counts the durable ones."""

    def __init__(self, driver: Driver, state: State) -> None:
        self._driver = driver
        self._durable = (0, b"")
        self._next = 0  # index of the next message to queue
        self.adopt(state)

    def adopt(self, state: State) -> None:
        """Continues after the messages in `state`, which is durable; messages queued beyond it are dropped."""
        g = state.globals
        self._durable = (g.inbox_count, g.inbox_hash)
        self._next = g.inbox_count

    def position(self) -> tuple[int, bytes]:
        """Number of messages in the log, and their running hash."""
        return self._durable

    def queue(self, messages: list[InboxMessage]) -> None:
        """Queues each message once and in order, however often it is delivered."""
        fresh = []
        for message in messages:
            if message.index == self._next:
                fresh.append(message.record)
                self._next += 1
        self._driver.offer_system(fresh)

    def settle(self, tick: Tick) -> bool:
        """Counts the messages of a durable tick; whether there were any."""
        before = self._durable
        for result in tick.system:
            raw = result.submission.raw
            if raw[0] in INBOX_KINDS:
                count, running = self._durable
                self._durable = (count + 1, codec.inbox_hash(running, raw))
        return self._durable != before
