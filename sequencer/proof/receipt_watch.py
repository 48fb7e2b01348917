"""What a watcher does about receipts: the desk that traders leave theirs at, its peers, and the bonds it takes."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer import pages
from sequencer.l1.deploy import Deployment
from sequencer.l1.follower import PostedBatch
from sequencer.l1.members import MemberKeys
from sequencer.l1.rpc import Rpc
from sequencer.proof.alarms import Alarms
from sequencer.proof.challenger import Challenger
from sequencer.proof.desk import Desk
from sequencer.proof.headers import HeaderStore
from sequencer.proof.receipt_box import BODY_BYTES_MAX, ReceiptBox
from sequencer.proof.slasher import Slasher
from sequencer.wire.headers import SignedHeader

if TYPE_CHECKING:
    from sequencer.proof.gossip import Gossip, GossipConfig

HEADERS_FILE = "headers.sqlite"  # in the watcher's folder


@dataclass(frozen=True, slots=True)
class ReceiptSources:
    """Where receipts and headers come from. `folder`: where traders leave receipts; `gossip`: what a peer is told.

    `takes`: receipts that come over HTTP are stored there, too (`serve`).
    """

    folder: Path | None = None
    takes: bool = False
    gossip: "GossipConfig | None" = None

    def __bool__(self) -> bool:
        return self.folder is not None or self.gossip is not None


class ReceiptWatch:
    """Receipts of one deployment, for its watcher: `read` before the batches of a look, `look` after them.

    `now_s`: L1's time. With a challenger, its key takes the bond that a proof is about.
    """

    def __init__(
        self,
        rpc: Rpc,
        at: Deployment,
        domain: bytes,
        folder: Path,
        sources: ReceiptSources,
        alarms: Alarms,
        challenger: Challenger | None,
        now_s: Callable[[], float],
    ) -> None:
        self._rpc = rpc
        self._now_s = now_s
        self._keys = MemberKeys(rpc, at)
        self.gossip: Gossip | None = None
        if sources.gossip is not None:
            from sequencer.proof import gossip  # zenoh is loaded by who has peers

            store = HeaderStore(domain, folder / HEADERS_FILE)
            self.gossip = gossip.Gossip(domain, store, sources.gossip, self._keys.member_of, self._times)
        self.box: ReceiptBox | None = None
        if sources.folder is not None and sources.takes:
            self.box = ReceiptBox(sources.folder / "left", domain, self._keys.member_of, self._state_of)
        self.desk = Desk(rpc, at, domain, sources.folder, alarms, self._keys, self._tell, self.box)
        self._slasher: Slasher | None = None
        if challenger is not None:
            self._slasher = Slasher(rpc, at, challenger.signer, challenger.manager)

    def _times(self) -> tuple[float, float]:
        """Between L1's time and this machine's: a development chain may be far from it."""
        return min(self._now_s(), time.time()), max(self._now_s(), time.time())

    def _state_of(self, name: str) -> dict[str, Any] | None:
        return self.desk.state_of(name)

    def _tell(self, signed: SignedHeader) -> None:
        if self.gossip is not None:
            self.gossip.offer(signed.pack())

    def start(self) -> None:
        """Opens the peer's endpoints, if it has any. Raises GossipError and RpcError."""
        if self.gossip is not None:
            self._keys.refresh(self._rpc.block_number())
            self.gossip.start()

    def read(self, head: int) -> None:
        """Takes new keys up to L1's block `head`, and the receipts that have come."""
        self._keys.refresh(head)
        self.desk.read()

    def look(self, late: list[PostedBatch], head_s: int) -> None:
        """Holds receipts that came late against their batches, takes what peers have found, and goes on slashing."""
        self.desk.look(late, head_s)
        for pair in self.gossip.pairs() if self.gossip is not None else ():
            self.desk.take_pair(pair)
        if self._slasher is not None:
            self.desk.slash(self._slasher)

    def status(self) -> dict[str, Any]:
        """See Desk and Gossip."""
        box = None if self.box is None else {"stored": len(self.box), "refused": self.box.refused}
        return self.desk.status() | {
            "box": box,
            "peers": None if self.gossip is None else self.gossip.status(),
        }

    def serve(self, host: str, port: int) -> contextlib.AbstractContextManager[int]:
        """Takes receipts over HTTP, on threads of its own; the port. Raises OSError."""
        assert self.box is not None
        return pages.serve(self.box.get, host, port, "receipts", None, self.box.post, BODY_BYTES_MAX)

    def close(self) -> None:
        """Ends the peer."""
        if self.gossip is not None:
            self.gossip.stop()
