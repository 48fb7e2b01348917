"""Nonces of one account: each is used once; one with an unknown outcome is queried before it is used again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

from sequencer.protocol import constants as c


class Nonces:
    """Nonces of one account: each is used once, and a refused record returns its nonce.

    The lowest free nonce goes first, so that the floor advances. Nonces in flight stay within NONCE_WINDOW of the
    lowest nonce not known to be used. While some are doubtful, `take` awaits `settle`, which queries the exchange and
    calls `reset`, or raises: then `take` raises too, so that no caller waits for nonces that will not be freed.
    """

    def __init__(self, settle: Callable[[], Awaitable[None]] | None = None) -> None:
        self._settle = settle
        self._floor = 0
        self._taken: set[int] = set()  # used or on their way, at or above the floor
        self._used: set[int] = set()
        self._lost: set[int] = set()  # on their way when the connection was lost
        self._next = 0  # none below is free
        self._changed = asyncio.Event()
        self.is_shared = False  # another signer uses the same account: draw at random

    @property
    def is_doubtful(self) -> bool:
        """Whether the outcome of a nonce is unknown; `reset` decides it."""
        return bool(self._lost)

    @property
    def doubtful(self) -> frozenset[int]:
        """The nonces with unknown outcomes."""
        return frozenset(self._lost)

    def reset(self, floor: int, bitmap: int, decided: Iterable[int] | None = None) -> None:
        """Applies the exchange's answer.

        Nonces in flight stay taken; doubtful ones are decided by it. `decided`: those that were doubtful when the query
        was sent (None: all); later ones stay doubtful.
        """
        known = self._lost & set(self._lost if decided is None else decided)
        in_flight = self._taken - self._used - known
        self._lost -= known
        self._floor = self._next = floor
        self._used = {floor + bit for bit in range(c.NONCE_WINDOW) if bitmap >> bit & 1}
        self._taken = self._used | {nonce for nonce in in_flight if nonce >= floor}
        self._lost = {nonce for nonce in self._lost if nonce >= floor}
        self._changed.set()

    async def take(self) -> int:
        """A free nonce of the window; waits for one. Raises what `settle` raises."""
        while True:
            if self._lost and self._settle is not None:
                await self._settle()
            nonce = self._free()
            if nonce is not None:
                self._taken.add(nonce)
                return nonce
            self._changed.clear()
            await self._changed.wait()

    def _free(self) -> int | None:
        end = self._floor + c.NONCE_WINDOW
        if self.is_shared:
            free = [nonce for nonce in range(self._floor, end) if nonce not in self._taken]
            return random.choice(free) if free else None  # noqa: S311  # spreads, no secret
        nonce = self._next
        while nonce in self._taken:
            nonce += 1
        self._next = nonce
        return nonce if nonce < end else None

    def use(self, nonce: int) -> None:
        """The record that carried `nonce` was applied."""
        if nonce < self._floor:
            return
        self._used.add(nonce)
        while self._floor in self._used:
            self._used.discard(self._floor)
            self._taken.discard(self._floor)
            self._floor += 1
        self._next = max(self._next, self._floor)
        self._changed.set()

    def lose(self, nonce: int) -> None:
        """The outcome of the record with `nonce` is unknown."""
        self._lost.add(nonce)
        self._changed.set()  # whoever waits for a nonce asks the exchange

    def give_back(self, nonce: int) -> None:
        """The record that carried `nonce` was refused."""
        self._taken.discard(nonce)
        self._next = max(min(self._next, nonce), self._floor)
        self._changed.set()
