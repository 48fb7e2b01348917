"""Limits of a gateway: of a connection, of a client's address, of all together."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

ADDRESSES_MAX: Final = 65_536  # remembered; those without connections and debts are forgotten first
SEEN_S: Final = 10.0  # what a client was shown that long ago every node has that may be asked
IPV6_PREFIX: Final = 64  # bits: what one customer has


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a gateway. Rates: 0 sets none. An address is an IPv4 address or an IPv6 /64."""

    connections: int = 4_096
    connections_per_address: int = 256
    outstanding: int = 1_000  # requests of one connection that await their answer
    pending: int = 100_000  # of all connections
    unread_bytes: int = 1024 * 1024  # of one connection, before it is cut off
    unread_bytes_per_address: int = 8 * 1024 * 1024
    unread_bytes_in_all: int = 128 * 1024 * 1024
    stalled_s: float = 20.0  # with something unread, and not a byte read
    submits_per_s: float = 0.0  # of one connection
    address_submits_per_s: float = 5_000.0
    queries_per_s: float = 500.0  # of one connection
    address_queries_per_s: float = 2_000.0
    address_answer_bytes_per_s: float = 8 * 1024 * 1024
    queries_in_flight: int = 64  # between gateway and sequencer
    queries_in_flight_per_address: int = 16
    queries_in_flight_per_connection: int = 4  # the largest answers together stay below `unread_bytes`
    answer_timeout_s: float = 30.0
    retry_s: float = 15.0  # that requests wait for a sequencer; 0: not at all
    retry_records: int = 20_000  # that wait for a leader
    retry_bytes: int = 16 * 1024 * 1024
    trusted_proxies: frozenset[str] = frozenset()  # whose X-Forwarded-For names the client


class Bucket:
    """A token bucket: `rate` a second, twice that at once; a rate of 0 is no limit."""

    __slots__ = ("_clock", "_then", "_tokens", "rate")

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._then = clock()
        self._tokens = 2.0 * rate

    def take(self) -> bool:
        """Takes a token, if there is one."""
        if not self.rate:
            return True
        self._fill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    @property
    def next_s(self) -> float:
        """Seconds until there is a token again."""
        if not self.rate:
            return 0.0
        self._fill()
        return max(0.0, (1.0 - self._tokens) / self.rate)

    def spend(self, tokens: float) -> None:
        """Takes `tokens`, also beyond what there is: then the bucket is in debt."""
        if self.rate:
            self._fill()
            self._tokens -= tokens

    @property
    def wait_s(self) -> float:
        """Seconds until it is out of debt; 0 when it is not in debt."""
        if not self.rate:
            return 0.0
        self._fill()
        return max(0.0, -self._tokens / self.rate)

    @property
    def is_full(self) -> bool:
        """Whether forgetting it would change nothing."""
        if not self.rate:
            return True
        self._fill()
        return self._tokens >= 2.0 * self.rate

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(2.0 * self.rate, self._tokens + (now - self._then) * self.rate)
        self._then = now


class Address:
    """What the connections of one client's address have used up together."""

    __slots__ = (
        "_clock",
        "answers",
        "connections",
        "in_flight",
        "is_queued",
        "name",
        "queries",
        "seen",
        "seen_at",
        "submits",
        "unread",
        "waiting",
    )

    def __init__(self, name: str, limits: Limits, clock: Callable[[], float]) -> None:
        self.name = name
        self.connections = 0
        self.unread = 0  # bytes
        self.queries = Bucket(limits.address_queries_per_s, clock)
        self.submits = Bucket(limits.address_submits_per_s, clock)
        self.answers = Bucket(limits.address_answer_bytes_per_s, clock)
        self.waiting: deque[Any] = deque()  # queries (turns.Asked) that wait for their turn
        self.is_queued = False  # among those whose turn comes
        self.in_flight = 0
        self.seen = 0  # records below it have been shown over HTTP
        self.seen_at = float("-inf")
        self._clock = clock

    def saw(self, seq: int) -> None:
        """A client of it has been shown the records below `seq`."""
        self.seen, self.seen_at = seq, self._clock()

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost with it."""
        if self._clock() - self.seen_at < SEEN_S:
            return False
        return not (self.connections or self.waiting or self.in_flight) and (
            self.answers.is_full and self.queries.is_full and self.submits.is_full
        )


class Addresses:
    """The addresses that are connected, or have been of late."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._by_name: dict[str, Address] = {}
        self.unread = 0  # bytes, of all

    def __len__(self) -> int:
        return len(self._by_name)

    def of(self, host: str) -> Address:
        """The address that `host` (an IP address) counts to."""
        name = group_of(host)
        found = self._by_name.get(name)
        if found is None:
            if len(self._by_name) >= ADDRESSES_MAX:
                self.forget_idle()
            found = self._by_name[name] = Address(name, self._limits, self._clock)
        return found

    def forget_idle(self) -> None:
        """Forgets those that owe nothing; when too many are left, those that are not connected, too."""
        for name in [name for name, one in self._by_name.items() if one.is_idle]:
            del self._by_name[name]
        if len(self._by_name) >= ADDRESSES_MAX:
            for name in [name for name, one in self._by_name.items() if not one.connections]:
                del self._by_name[name]


def group_of(host: str) -> str:
    """IPv4 addresses as they are, IPv6 by their /64; what is no IP address by itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
