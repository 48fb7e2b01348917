"""How much a node answers for at once: halved when it refuses, grown again after a while."""

from collections.abc import Iterator
from typing import Final

from sequencer.l1.errors import RpcError, RpcRejected, RpcUnavailable

BATCH_MAX: Final = 100
LOG_BLOCKS_MAX: Final = 2_000
GROWS_AFTER: Final = 16  # answers at a halved limit, before twice as much is asked for again


class Limit:
    """How much is asked for at once: halved when it is refused, doubled after a while."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = most
        self._good = 0

    def took(self) -> None:
        """That much was answered."""
        self._good += 1
        if self.now < self._most and self._good >= GROWS_AFTER:
            self.now, self._good = min(2 * self.now, self._most), 0

    def halve(self, size: int) -> bool:
        """`size` was refused; False when it cannot be less."""
        self._good = 0
        if size <= 1:
            self.now = self._most  # it was not for the size
            return False
        self.now = max(1, min(self.now, size) // 2)
        return True


class LogRange:
    """Blocks `first` to `last`, for one eth_getLogs."""

    def __init__(self, limit: Limit, first: int, last: int) -> None:
        self._limit = limit
        self.first = first
        self.last = last
        self.is_taken = False

    @property
    def bounds(self) -> dict[str, str]:
        """What the query says of them."""
        return {"fromBlock": hex(self.first), "toBlock": hex(self.last)}

    def took(self) -> None:
        """The logs are there."""
        self._limit.took()
        self.is_taken = True

    def refused(self, error: RpcError) -> None:
        """Asks for half of them, where that may help; else raises `error`."""
        if isinstance(error, RpcRejected):
            may_help = error.method == "eth_getLogs"
        else:
            may_help = isinstance(error, RpcUnavailable) and error.too_large
        if not may_help or not self._limit.halve(self.last - self.first + 1):
            raise error


def log_ranges(limit: Limit, first: int, last: int) -> Iterator[LogRange]:
    """Ranges of blocks from `first` to `last`, each as long as the node answers for: whoever asks for the logs of one
    tells it with `took` or `refused`, and gets the same blocks in smaller ranges after the latter.
    """
    while first <= last:
        one = LogRange(limit, first, min(first + limit.now - 1, last))
        yield one
        if one.is_taken:
            first = one.last + 1
