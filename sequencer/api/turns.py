"""Turns of the clients' queries on the one connection to the sequencer.

A bounded number is on its way at a time, of one address fewer; the addresses take turns. What an address is sent counts
against its budget of bytes: while it is in debt its queries wait, and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from sequencer.api.limits import Address, Limits
from sequencer.api.peer import Peer


class Asked:
    """A query that waits for its turn, or for its answer."""

    __slots__ = ("address", "method", "params", "peer", "rid")

    def __init__(self, peer: Peer, rid: int, method: str, params: dict[str, Any]) -> None:
        self.peer = peer
        self.address: Address = peer.address
        self.rid = rid
        self.method = method
        self.params = params


class Turns:
    """Queries in the order in which they may go. `send` forwards one; False when it is not wanted any more."""

    def __init__(self, limits: Limits, send: Callable[[int, str, dict[str, Any]], bool]) -> None:
        self._limits = limits
        self._send = send
        self._ring: deque[Address] = deque()  # those who have something that may go
        self._in_flight: dict[int, Asked] = {}
        self._timers: dict[Address, asyncio.TimerHandle] = {}
        self._is_due = False

    def __len__(self) -> int:
        """Queries on their way."""
        return len(self._in_flight)

    def ask(self, asked: Asked) -> None:
        """Has a query go in its turn."""
        asked.address.waiting.append(asked)
        self._enqueue(asked.address)
        self._go_soon()

    def answered(self, rid: int, size: int) -> None:
        """The answer to query `rid`, of `size` bytes, has come, or will not come any more (0)."""
        asked = self._in_flight.pop(rid, None)
        if asked is None:
            return
        address = asked.address
        address.in_flight -= 1
        asked.peer.in_flight -= 1
        address.answers.spend(size)
        self._enqueue(address)
        self._go_soon()

    def wake(self, address: Address) -> None:
        """A connection of `address` can be written to again."""
        self._enqueue(address)
        self._go_soon()

    def forget_all(self) -> None:
        """The connection is lost: nothing is on its way any more. What waits finds that nobody waits for it."""
        for asked in self._in_flight.values():
            asked.address.in_flight = asked.peer.in_flight = 0
            self._enqueue(asked.address)
        self._in_flight.clear()
        self._go_soon()

    def _enqueue(self, address: Address) -> None:
        if address.waiting and not address.is_queued:
            address.is_queued = True
            self._ring.append(address)

    def _go_soon(self) -> None:
        if not self._is_due and self._ring:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        self._is_due = False
        limits, ring = self._limits, self._ring
        while ring and len(self._in_flight) < limits.queries_in_flight:
            address = ring.popleft()
            address.is_queued = False
            if address.in_flight >= limits.queries_in_flight_per_address:
                continue  # an answer puts it back
            wait_s = address.answers.wait_s
            if wait_s:
                self._wait(address, wait_s)
                continue
            asked = self._next_of(address)
            if asked is None:
                continue  # an answer, or a connection that catches up, puts it back
            if self._send(asked.rid, asked.method, asked.params):
                self._in_flight[asked.rid] = asked
                address.in_flight += 1
                asked.peer.in_flight += 1
            self._enqueue(address)

    def _next_of(self, address: Address) -> Asked | None:
        """The first whose connection may have another answer; those of connections that have gone are dropped."""
        waiting = address.waiting
        most = self._limits.queries_in_flight_per_connection
        for _ in range(len(waiting)):
            asked: Asked = waiting.popleft()
            if asked.peer.is_gone:
                continue
            if not asked.peer.is_slow and asked.peer.in_flight < most:
                return asked
            waiting.append(asked)
        return None

    def _wait(self, address: Address, wait_s: float) -> None:
        if address in self._timers:
            return

        def again() -> None:
            del self._timers[address]
            self.wake(address)

        self._timers[address] = asyncio.get_running_loop().call_later(wait_s, again)
