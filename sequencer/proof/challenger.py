"""Files challenges: from a fault to a commitment, the challenge and its reward, each sent once by the txmgr.

A check is simulated with `eth_call` before anything is sent, so a challenge that would fail costs nothing. The salt of
a commitment is derived from the key, so a restart continues with the same one. L1 tells whether the commitment exists,
since anybody can copy it out of the pool and send it first; a copied challenge that is mined first leaves a third of
the reward to the older commitment. Rewards are collected once neither a contest nor the challenge of an earlier batch
can move them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcError, RpcReverted
from sequencer.l1.follower import PostedBatch
from sequencer.l1.rpc import Rpc, to_hex, to_int
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.txstore import Intent
from sequencer.l1.txstore import State as TxState
from sequencer.proof.audit import FORM_KINDS, SEGMENT_KINDS, Fault
from sequencer.proof.challenge import (
    Challenge,
    arbiter,
    challenge_form,
    challenge_header,
    challenge_late,
    challenge_segment,
)
from sequencer.proof.witness import Tracer
from sequencer.protocol.hashing import keccak
from sequencer.protocol.state import State

COMMIT_GAS: Final = 100_000
COLLECT_GAS: Final = 150_000
ROLL_BACK_GAS: Final = 500_000  # with the slashing, and what Rollup keeps of each roll-back
CHALLENGE_GAS_MAX: Final = 16_000_000  # below the transaction's cap of 2^24
TRIES_MAX: Final = 8
COLLECT, COLLECT_CONTEST = "collect", "collect_contest"  # the revealer's; the oldest commitment's
NO_REWARD: Final = "arbiter: no such reward"


@dataclass(frozen=True, slots=True)
class Challenged:
    """State of a challenge: committed, filed, won or failed (`why`). `gas`: of the challenge alone."""

    batch_id: int
    state: str
    gas: int = 0
    calldata_bytes: int = 0
    tx_hash: str = ""
    why: str = ""


class Challenger:
    """One key's challenges at one deployment; `folder` holds its transactions, all by `manager`."""

    def __init__(self, rpc: Rpc, deployment: Deployment, signer: Signer, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rpc = rpc
        self._at = deployment
        self.signer = signer
        self.manager = TxManager(rpc, signer, folder / "challenges.sqlite", TxConfig())
        self._made: dict[str, Challenge] = {}
        self._reveal_blocks = int(arbiter().read(rpc, deployment.arbiter, "reveal_blocks"))
        self._rewards = self._known_rewards()

    def close(self) -> None:
        """Closes the store."""
        self.manager.close()

    def challenge(self, fault: Fault, batch: PostedBatch, state: Callable[[], State]) -> Challenged:
        """Runs the next step of the challenge of `batch`, if it is due. `state` builds the state of `state_for`."""
        self.manager.poll()
        name = f"{batch.header_hash.hex()[:16]}-{batch.block_number}"
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = _made(fault, batch, state())
        for number in range(TRIES_MAX):
            told = self._step(f"{name}-{number}", made)
            if told is not None:
                return told
        return Challenged(batch.batch_id, "failed", why=f"{TRIES_MAX} challenges were mined and failed")

    def tend(self) -> None:
        """Collects rewards that nobody else can claim any more."""
        self.manager.poll()
        head = self._rpc.block_number()
        for (number, function), block in list(self._rewards.items()):
            if head <= block + self._reveal_blocks:
                continue
            data = arbiter().encode(function, number)
            try:
                self._rpc.eth_call(self._at.arbiter, data, "latest", self.signer.address)
            except RpcReverted as error:
                if error.reason == NO_REWARD:  # an earlier batch's challenger has it
                    del self._rewards[number, function]
                continue
            self.manager.send(f"{function}-{number}", self._at.arbiter, data, 0, COLLECT_GAS)
            del self._rewards[number, function]

    def _step(self, name: str, made: Challenge) -> Challenged | None:
        """The next step or the result of one attempt; None when it has failed for good."""
        salt = self._salt(made)
        filed = self.manager.get(f"challenge-{name}")
        if filed is None:
            commitment = made.commitment(self.signer.address, salt)
            if not self._stands(commitment):
                committed = self.manager.get(f"commit-{name}")
                if committed is None:
                    if why := self._refusal(made):
                        return Challenged(made.batch_id, "failed", why=why)
                    data = arbiter().encode("commit", commitment)
                    self.manager.send(f"commit-{name}", self._at.arbiter, data, 0, COMMIT_GAS)
                elif committed.is_done:
                    return None  # it failed, or it is too old by now
                return Challenged(made.batch_id, "committed")
            filed = self.manager.send(
                f"challenge-{name}", self._at.arbiter, made.calldata(salt), 0, self._gas(made)
            )
        if filed.state is TxState.FAILED:
            return self._contest(made, salt)
        state = "won" if filed.state is TxState.CONFIRMED else "filed"
        if state == "won":
            self._remember(filed)
        size = len(made.calldata(salt))
        return Challenged(made.batch_id, state, filed.gas_used or 0, size, filed.tx_hash or "")

    def _stands(self, commitment: bytes) -> bool:
        """Whether L1 has the commitment, and a challenge sent now would be in time for it."""
        committed_at = int(arbiter().read(self._rpc, self._at.arbiter, "committed_at", commitment))
        return committed_at > 0 and self._rpc.block_number() < committed_at + self._reveal_blocks

    def _contest(self, made: Challenge, salt: bytes) -> Challenged | None:
        """After a failed challenge: takes a third from an equal challenge on a younger commitment."""
        event = arbiter().event("Challenged")
        batch = "0x" + made.batch_id.to_bytes(32, "big").hex()
        query = {"address": self._at.arbiter, "topics": [event.topic, batch]}
        head = self._rpc.block_number()
        first = max(self._at.deploy_block, head - self._reveal_blocks)
        for log in reversed(self._rpc.logs(query, first, head)):
            told = event.decode(log)
            if told["challenge_id"] != made.challenge_id:
                continue
            number, block = int(told["reward"]), to_int(log["blockNumber"])
            contest = self.manager.get(f"contest-{number}")
            if contest is None:
                data = arbiter().encode("contest", number, salt)
                try:
                    self._rpc.eth_call(self._at.arbiter, data, "latest", self.signer.address)
                except RpcReverted:
                    return None
                contest = self.manager.send(f"contest-{number}", self._at.arbiter, data, 0, COLLECT_GAS)
            if contest.state is TxState.FAILED:
                return None
            state = "filed"
            if contest.state is TxState.CONFIRMED:
                state, self._rewards[number, COLLECT_CONTEST] = "won", block
            return Challenged(
                made.batch_id,
                state,
                contest.gas_used or 0,
                len(made.calldata(salt)),
                contest.tx_hash or "",
                f"another has revealed it on a younger commitment: a third of reward {number} is ours",
            )
        return None

    def _refusal(self, made: Challenge) -> str:
        """Why the Arbiter would find no fraud now; empty when it would."""
        try:
            answer = self._rpc.eth_call(self._at.arbiter, made.call, "latest", self.signer.address)
        except RpcReverted as error:
            return error.reason or error.message
        return "" if any(answer[:32]) else "the Arbiter finds no fraud"

    def _gas(self, made: Challenge) -> int:
        """Estimated gas of the check plus a quarter, and of the roll-back."""
        call = {"from": self.signer.address, "to": self._at.arbiter, "data": to_hex(made.call)}
        try:
            estimated = to_int(self._rpc.call("eth_estimateGas", call))
        except RpcError:
            return CHALLENGE_GAS_MAX
        return min(estimated * 5 // 4 + ROLL_BACK_GAS, CHALLENGE_GAS_MAX)

    def _salt(self, made: Challenge) -> bytes:
        _, r, s = self.signer.sign_digest(keccak(b"fairstrike challenge" + made.challenge_id))
        return keccak(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def _remember(self, filed: Intent) -> None:
        receipt = self._rpc.receipt(filed.tx_hash) if filed.tx_hash else None
        event = arbiter().event("Challenged")
        for log in receipt["logs"] if receipt else ():
            if log["topics"][0] == event.topic:
                number = int(event.decode(log)["reward"])
                if self.manager.get(f"{COLLECT}-{number}") is None:
                    self._rewards[number, COLLECT] = to_int(log["blockNumber"])

    def _known_rewards(self) -> dict[tuple[int, str], int]:
        """Rewards of earlier runs: number and collecting function, to block."""
        address = "0x" + self.signer.address[2:].lower().rjust(64, "0")
        found: dict[tuple[int, str], int] = {}
        for name, function in (("Challenged", COLLECT), ("Contested", COLLECT_CONTEST)):
            event = arbiter().event(name)
            query = {
                "address": self._at.arbiter,
                "topics": [event.topic, None, address],
            }
            try:
                logs = self._rpc.logs(query, self._at.deploy_block, self._rpc.block_number())
            except RpcError:  # the rewards can still be collected by hand
                return {}
            for log in logs:
                number = int(event.decode(log)["reward"])
                if self.manager.get(f"{function}-{number}") is None:
                    found[number, function] = to_int(log["blockNumber"])
        return found


def _made(fault: Fault, batch: PostedBatch, state: State) -> Challenge:
    if fault.message is not None:
        return challenge_late(batch, fault.message)
    if fault.kind in FORM_KINDS:
        return challenge_form(batch, fault.segment)
    if fault.kind in SEGMENT_KINDS:
        return challenge_segment(batch, fault.segment, Tracer.of(state))
    return challenge_header(batch, state)
