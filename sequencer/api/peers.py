"""A gateway among the peers that exchange tick headers: what it passes on to traders, it tells the others.

On the way of an acknowledgement it costs one look whether the tick is known; a tick's header is made out of its first
acknowledgement, on the peer's thread. It asks L1 nothing: the receipt keys count that are given, or that the sequencer
names.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sequencer.api.exchange import Exchange
from sequencer.protocol import receipts as rules
from sequencer.sdk.receipts import ReceiptWrong, of_ack
from sequencer.wire.jsonrpc import RequestError
from sequencer.wire.receipts import MARK, in_json

if TYPE_CHECKING:
    from sequencer.proof.gossip import Gossip, GossipConfig, Times
    from sequencer.proof.headers import Pair

WAITING_MAX: Final = 4_096  # ticks whose header is to be made
TICKS_KNOWN: Final = 4_096
KEYS_MAX: Final = 64
REPORTED_MAX: Final = 8  # pairs in the log; one is worth a whole bond
_HEAD: Final = rules.HEAD_BYTES + rules.SIGNATURE_BYTES

logger = logging.getLogger(__name__)


class GatewayPeer:
    """One gateway's peer. `keys`: addresses whose headers count; empty: those that the sequencer names.

    Its calls are for the gateway's loop; `status` may be read there at any time.
    """

    def __init__(
        self,
        config: GossipConfig,
        keys: frozenset[bytes] = frozenset(),
        times: Times = lambda: (time.time(), time.time()),
    ) -> None:
        self._config = config
        self._keys = dict.fromkeys(keys)
        self._is_told_keys = bool(keys)
        self._times = times
        self._gossip: Gossip | None = None
        self._exchange: Exchange | None = None
        self._last = b""
        self._known: dict[bytes, None] = {}
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._missed = self._unreadable = self._reported = 0
        self._error = ""

    def introduced(self, exchange: Exchange, receipt_key: str | None) -> None:
        """The sequencer has said whose gateway this is, and who signs its receipts; starts the peer the first time."""
        if receipt_key is not None and not self._is_told_keys and len(self._keys) < KEYS_MAX:
            self._keys[bytes.fromhex(receipt_key.removeprefix("0x"))] = None
        if self._gossip is not None:
            return
        from sequencer.proof.gossip import Gossip, GossipError  # zenoh is loaded by who has peers
        from sequencer.proof.headers import HeaderStore

        domain = exchange.domain()
        gossip = Gossip(
            *(domain, HeaderStore(domain), self._config, self._member_of),
            times=self._times,
            sources=[self._headers],
            on_pair=self._report,
        )
        try:
            gossip.start()
        except GossipError as error:
            self._error = str(error)
            logger.error("%s", error)
            return
        self._error, self._gossip, self._exchange = "", gossip, exchange

    def saw(self, record: bytes, body: bytes) -> None:
        """An acknowledgement of `record` passes by; `body` as it came, its receipt behind it."""
        at = body.find(MARK) + 1
        head = body[at : at + _HEAD]
        if head == self._last or not at:
            return
        self._last = head
        if head in self._known:
            return
        self._known[head] = None
        if len(self._known) > TICKS_KNOWN:
            del self._known[next(iter(self._known))]
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append((record, body))
        else:
            self._missed += 1

    def status(self) -> dict[str, Any]:
        """Of the peer (Gossip.status); `missed`: ticks not told because too many waited; `unreadable`: receipts."""
        made = {} if self._gossip is None else self._gossip.status()
        of_own = {"missed": self._missed, "unreadable": self._unreadable}
        return made | of_own | {"error": self._error or made.get("error", "")}

    def stop(self) -> None:
        """Ends the peer."""
        if self._gossip is not None:
            self._gossip.stop()

    # --- the peer's thread ----------------------------------------------------------------------------

    def _member_of(self, signer: bytes) -> str | None:
        return "0x" + signer.hex() if signer in self._keys else None

    def _headers(self) -> Iterator[bytes]:
        """Signed headers of the ticks that have passed by since."""
        while self._waiting:
            try:
                yield self._header(*self._waiting.popleft())
            except (ReceiptWrong, RequestError, LookupError, TypeError, ValueError, StopIteration) as error:
                self._unreadable += 1
                logger.warning("a receipt cannot be read: %r", error)

    def _header(self, record: bytes, body: bytes) -> bytes:
        """The header that an acknowledgement's receipt speaks of, and its signature, whoever made it."""
        assert self._exchange is not None
        ack = msgspec.json.decode(in_json(body))
        kept = of_ack(record, ack, self._exchange.chain_id, self._exchange.verifying_contract)
        part, item = kept.parts()[0], kept.items[0]
        header, signature, _ = rules.unpack(part, item.raw, item.reason, item.outcome())
        return rules.stored(header) + signature

    def _report(self, pair: Pair) -> None:
        """Peers, and watchers among them, have both headers by now: each was told as it was new."""
        self._reported += 1
        if self._reported > REPORTED_MAX:
            return
        logger.error(
            "BROKEN RECEIPT (%s): %s has signed two headers that contradict each other, tick %d: %s and %s",
            pair.misdeed,
            pair.member,
            pair.second.header.tick,
            pair.first.pack().hex(),
            pair.second.pack().hex(),
        )
