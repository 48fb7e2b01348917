"""A trader's receipts after they have come: left with watchers, and held against what L1 has posted, now and then."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sequencer.errors import FairstrikeError
from sequencer.l1.errors import L1Error
from sequencer.sdk.receipt_post import WATCHERS_MAX, ReceiptPost
from sequencer.sdk.receipts import ReceiptKeeper

if TYPE_CHECKING:
    from sequencer.sdk.l1_view import L1View

LOOK_S: Final = 10.0  # between two looks at what is posted

logger = logging.getLogger(__name__)


class Asks(Protocol):
    """What answers queries; `Client` does."""

    async def call(self, method: str, /, **params: Any) -> Any:
        """Result of a method."""


class ReceiptFollower:
    """Where a keeper's receipts go. Create it with `open`; `came` is for each acknowledgement, and returns at once."""

    def __init__(
        self,
        client: Asks,
        keeper: ReceiptKeeper,
        posts: Sequence[ReceiptPost],
        ask_l1: Callable[[], "L1View"] | None,
        takes_keys: bool = False,
    ) -> None:
        self.keeper = keeper
        self.posts = list(posts)
        self._client = client
        self._ask_l1 = ask_l1
        self._takes_keys = takes_keys  # of L1, also those that come later
        self._look_at = 0.0  # monotonic
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        client: Asks,
        info: dict[str, Any],
        path: Path | None,
        keys: frozenset[bytes] | None,
        watchers: Sequence[str],
        l1_url: str | None,
    ) -> "ReceiptFollower":
        """For the exchange that `system_info` describes; see Trader.open. Raises ValueError and L1Error."""
        if len(watchers) > WATCHERS_MAX:
            raise ValueError(f"watchers: must be at most {WATCHERS_MAX}, got {len(watchers)}")
        chain_id, rollup = int(info["chain_id"]), str(info["verifying_contract"])
        ask_l1, view, takes_keys = None, None, l1_url is not None and keys is None
        if l1_url is not None:
            from sequencer.sdk.l1_view import look  # web3 is loaded by who asks L1

            ask_l1 = partial(look, l1_url, rollup, chain_id)
            view = await asyncio.to_thread(ask_l1)
            keys = view.keys if keys is None else keys
        if keys is None:
            named = info.get("receipt_key")
            keys = frozenset([bytes.fromhex(named[2:])]) if named else frozenset()
        posts = [ReceiptPost(url) for url in watchers]
        keeper = ReceiptKeeper(chain_id, rollup, keys, path, [post.add for post in posts])
        if view is not None:
            keeper.saw_l1(view.epoch, view.roll_backs, view.time_s)
        return cls(client, keeper, posts, ask_l1, takes_keys)

    def came(self) -> None:
        """Looks in the background, every LOOK_S at most, which receipts are on L1."""
        if self.keeper.waits and time.monotonic() >= self._look_at and self._looking is None:
            self._look_at = time.monotonic() + LOOK_S
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            if self._ask_l1 is None:
                self.keeper.posted(int((await self._client.call("status"))["tick_posted"]))
            else:
                view = await asyncio.to_thread(self._ask_l1)
                if self._takes_keys:
                    self.keeper.keys |= view.keys
                self.keeper.saw_l1(view.epoch, view.roll_backs, view.time_s)
                self.keeper.posted(view.tick)
        except (
            FairstrikeError,
            L1Error,
            OSError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # trading goes on
            logger.warning("which receipts are on L1 is not known: %s", error)
        finally:
            self._looking = None

    def close(self) -> None:
        """Waits a little for what is on its way to watchers, and makes the file durable. It blocks."""
        for post in self.posts:
            post.close()
        self.keeper.close()
