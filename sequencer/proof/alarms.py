"""Alarms of a watcher, for its operator and for traders."""

import logging
import time
from collections import deque
from dataclasses import dataclass

ALARMS_KEPT = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition for an operator or a trader. `at_s`: the watcher's clock."""

    at_s: int
    what: str


class Alarms:
    """Alarms since the start: the newest ALARMS_KEPT, and the `count` of all. Each is logged."""

    def __init__(self) -> None:
        self.newest: deque[Alarm] = deque(maxlen=ALARMS_KEPT)
        self.count = 0
        self._keys: set[str] = set()

    def once(self, key: str, what: str, level: int = logging.WARNING) -> None:
        """Raises an alarm, the first time that `key` is given."""
        if key not in self._keys:
            self._keys.add(key)
            self.add(what, level)

    def add(self, what: str, level: int = logging.WARNING) -> None:
        """Raises an alarm."""
        logger.log(level, "%s", what)
        self.count += 1
        self.newest.append(Alarm(int(time.time()), what))
