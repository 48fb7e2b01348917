"""The dishonest engine: honest but for one record, in which it tells a lie."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sequencer.engine.engine import Engine
from sequencer.l1.batch import Batch
from sequencer.proof.audit import FaultKind
from sequencer.protocol import batch as batches
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

CROWD: Final = "one position too many"  # a scene of its own, which other plays leave out


@dataclass(slots=True)
class Scene:
    """Where a lie is told: the record, and the state before it. `keep` what is to be posted instead of the record."""

    state: State
    raw: bytes
    cancelled: Order | None
    keep: list[bytes]

    @property
    def account(self) -> Account:
        """The account that the record speaks of (bytes 1 to 4)."""
        return self.state.accounts[int.from_bytes(self.raw[1:5], "big")]

    def apply(self, raw: bytes | None = None, signer: bytes | None = None) -> Outcome:
        """The transition."""
        return apply(self.state, self.raw if raw is None else raw, signer)

    def pay(self, number: int, amount: int) -> None:
        """Changes an account's cash."""
        account = self.state.accounts[number]
        account.cash += amount
        self.state.put_account(number, account)

    def touch(self, number: int) -> None:
        """Says that an account has changed."""
        self.state.put_account(number, self.state.accounts[number])


@dataclass(frozen=True, slots=True)
class Lie:
    """Told in the first record of `kind` in the tick called `where`. `tell` gives None when it cannot be told there.

    A lie about the header is told `of` the batch that is posted, once its records are more than a few. `refusal`: the
    reason with which Rollup does not take such a batch when it sees the payload, in calldata; in blobs it does not.
    `is_late`: nothing is wrong but the hour, the last inbox messages being taken when their deadline is over.
    """

    what: str
    where: str = ""
    kind: Kind = Kind.TICK
    tell: Callable[[Scene], Outcome | None] | None = None
    of: Callable[[Batch], Batch] | None = None
    fault: FaultKind = FaultKind.ROOT
    refusal: str = ""
    is_late: bool = False


class LyingEngine(Engine):
    """Honest but for one record. The play says in `here` what tick it is."""

    def __init__(self, state: State, lie: Lie | None) -> None:
        super().__init__(state)
        self.lie = lie
        self.here = ""
        self.told_seq: int | None = None
        self._cancelled: Order | None = None

    def _try(self, raw: bytes, signer: bytes | None) -> Outcome:
        lie = self.lie
        if (
            lie is None
            or lie.tell is None
            or self.told_seq is not None
            or self.here != lie.where
            or raw[0] != lie.kind
        ):
            out = super()._try(raw, signer)
            if raw[0] == Kind.CANCEL and out.removed:
                self._cancelled = out.removed[0]
            return out
        if self._records:
            self._close()
        scene = Scene(self.state, raw, self._cancelled, [raw])
        seq, spent = self.state.globals.seq, self.state.globals.work
        told = lie.tell(scene)
        if told is None:
            self.state.globals.seq, self.state.globals.work = seq, spent
            return super()._try(raw, signer)
        told.reason = Reason.OK
        self.told_seq = seq
        self._records += scene.keep
        # Whoever wants two heavy records in one segment has to forget what the first one weighed.
        self._weight = 0 if lie.fault is FaultKind.WEIGHT else sum(map(batches.weight, scene.keep))
        return told
