"""Takes the bond of who has broken a receipt: commits to the proof, and sends it from a block later, each once.

A proof is asked of the judge before anything is sent. The salt is derived from the key and the proof, so a restart goes
on with the same commitment. One proof takes the whole bond of a member: of others of that member nothing is sent.
"""

import time
from dataclasses import dataclass
from typing import Final

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcError, RpcReverted
from sequencer.l1.rpc import Rpc, to_hex, to_int
from sequencer.l1.sequencers import SEQUENCERS
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxManager
from sequencer.l1.txstore import State as TxState
from sequencer.proof.receipts import Proof, Verdict, ask, judge
from sequencer.protocol.hashing import keccak

COMMIT_GAS: Final = 100_000
SETTLE_GAS: Final = 300_000
SLASH_GAS: Final = 500_000  # beside that of the check
CHECK_GAS_MAX: Final = 8_000_000
TRIES_MAX: Final = 8
SETTLE_EVERY_BLOCKS: Final = 25
AGAIN_S: Final = 30.0  # before a proof that the judge refuses is shown again: time may make it one

COMMITTED: Final = "committed"
SENT: Final = "sent"
SLASHED: Final = "slashed"
FAILED: Final = "failed"
TAKEN: Final = "taken"  # the bond, by another


@dataclass(frozen=True, slots=True)
class Slashed:
    """How a proof stands: committed, sent, slashed, failed or taken (`why`). `tx_hash`: of the slashing."""

    member: str
    state: str
    tx_hash: str = ""
    gas: int = 0
    why: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be done."""
        return self.state in (SLASHED, TAKEN)


class Slasher:
    """One key's proofs at one deployment. `manager`: the one owner of the key's nonces."""

    def __init__(self, rpc: Rpc, at: Deployment, signer: Signer, manager: TxManager) -> None:
        self._rpc = rpc
        self._at = at
        self._signer = signer
        self._manager = manager
        self._told: dict[str, Slashed] = {}
        self._again: dict[str, float] = {}
        self._settle: dict[str, int] = {}  # of whom we have slashed: the block from which it is tried

    def step(self, name: str, shown: Proof) -> Slashed:
        """The next step of a proof, or how it ended. Raises RpcError when L1 does not answer."""
        told = self._told.get(name)
        if told is None or (not told.is_done and time.monotonic() >= self._again.get(name, 0.0)):
            told = self._told[name] = self._step(shown)
            if told.state == FAILED:
                self._again[name] = time.monotonic() + AGAIN_S
        if told.state == SLASHED:
            self._settle.setdefault(told.member, 0)
        return told

    def tend(self) -> None:
        """Settles what can be: the finder's part is paid once all batches of the member are final."""
        head = self._rpc.block_number() if self._settle else 0
        for member, block in list(self._settle.items()):
            if head < block:
                continue
            data = judge().encode("settle", member)
            try:
                self._rpc.eth_call(self._at.receipts, data, "latest", self._signer.address)
            except RpcReverted:  # not yet, or somebody else has
                self._settle[member] = head + SETTLE_EVERY_BLOCKS
                continue
            self._manager.send(f"settle-{member}-{head}", self._at.receipts, data, 0, SETTLE_GAS)
            self._settle[member] = head + SETTLE_EVERY_BLOCKS

    def _step(self, shown: Proof) -> Slashed:
        self._manager.poll()
        hashed = keccak(shown.call)
        try:
            verdict = ask(self._rpc, self._at, shown)
        except RpcReverted as error:
            return Slashed("", FAILED, why=error.reason or error.message)
        if not verdict.broken:
            return Slashed(verdict.member, FAILED, why="the judge finds it kept")
        for number in range(TRIES_MAX):
            told = self._try(f"{hashed.hex()[:16]}-{number}", hashed, shown, verdict)
            if told is not None:
                return told
        return Slashed(verdict.member, FAILED, why=f"{TRIES_MAX} proofs were mined and failed")

    def _try(self, name: str, hashed: bytes, shown: Proof, verdict: Verdict) -> Slashed | None:
        """The next step or the result of one attempt; None when it has failed for good."""
        salt, member = self._salt(hashed), verdict.member
        sent = self._manager.get(f"slash-{name}")
        if sent is None:
            if int(SEQUENCERS.read(self._rpc, self._at.sequencers, "bond_of", member)) == 0:
                return Slashed(member, TAKEN, why="the member has no bond any more")
            commitment = shown.commitment(self._signer.address, salt, verdict)
            if not self._stands(commitment):
                committed = self._manager.get(f"slash-commit-{name}")
                if committed is None:
                    data = judge().encode("commit", commitment)
                    self._manager.send(f"slash-commit-{name}", self._at.receipts, data, 0, COMMIT_GAS)
                elif committed.is_done:
                    return None  # it failed, or it is too old by now
                return Slashed(member, COMMITTED)
            sent = self._manager.send(
                f"slash-{name}", self._at.receipts, shown.slash(salt), 0, self._gas(shown)
            )
        if sent.state is TxState.FAILED:
            return None
        state = SLASHED if sent.state is TxState.CONFIRMED else SENT
        return Slashed(member, state, sent.tx_hash or "", sent.gas_used or 0)

    def _stands(self, commitment: bytes) -> bool:
        """Whether L1 has the commitment, and a proof sent now would be in time for it."""
        at = int(judge().read(self._rpc, self._at.receipts, "committed_at", commitment))
        reveal_blocks = int(judge().read(self._rpc, self._at.receipts, "reveal_blocks"))
        return at > 0 and self._rpc.block_number() < at + reveal_blocks

    def _gas(self, shown: Proof) -> int:
        call = {"from": self._signer.address, "to": self._at.receipts, "data": to_hex(shown.call)}
        try:
            estimated = to_int(self._rpc.call("eth_estimateGas", call))
        except RpcError:
            return CHECK_GAS_MAX
        return min(estimated * 5 // 4 + SLASH_GAS, CHECK_GAS_MAX)

    def _salt(self, hashed: bytes) -> bytes:
        _, r, s = self._signer.sign_digest(keccak(b"fairstrike slash" + hashed))
        return keccak(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
