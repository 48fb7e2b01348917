"""The one owner of a key's nonces on L1.

`send` stores an intent; `poll` does the rest, and is both the normal loop and the recovery after a crash: it
gives nonces in order, signs, stores, sends, looks for receipts, bumps fees of what is stuck, sends again what a
reorganisation threw out, and fills nonce gaps. An intent keeps the nonce it was first signed with, so that
however often it is signed, at most one of its transactions can be mined.

Of a key that has blobs pending nodes take nothing but blobs, and blobs only behind blobs: what is of the other sort
keeps its nonce, and waits until the pool has let go of those before it.

    queued → sent → mined → confirmed
                          ↘ failed (reverted; or refused by the node for good; or its nonce was used by others)

Long because every step of a round works on the same intents, nonces and refusals, and their order is what keeps one
from being sent twice.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sequencer.l1 import blobs
from sequencer.l1 import fees as fee
from sequencer.l1.errors import (
    RpcError,
    RpcRejected,
    RpcReverted,
    RpcUnavailable,
    TransactionFailed,
    TransactionTimeout,
)
from sequencer.l1.fees import DEFAULT_CAPS, FeeCaps, Market, bumped, ether, gwei, market
from sequencer.l1.refusals import Refusal, meaning
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.signing import Content, Fees, SignedTransaction, Signer
from sequencer.l1.txstore import Attempt, Intent, State, TxStore
from sequencer.protocol.constants import ELEMENT_BYTES

SIDECARS_KEPT: Final = 4
FILLER_GAS: Final = 21_000
FILLER_PAYLOAD: Final = bytes(ELEMENT_BYTES)  # one blob, where a nonce is to be filled among blobs
SUSPICIONS_MAX: Final = 3

RETRY_FIRST_S: Final = 0.25  # before a refused transaction is sent again; doubled from time to time
RETRY_MAX_S: Final = 4.0
REFUSED_BUMPS_MAX: Final = (
    4  # of what no node has taken, for reasons that nobody knows: money may not be what it wants
)


@dataclass(frozen=True, slots=True)
class TxConfig:
    """`confirmations` counts the block itself. Unmined for `stall_s`, a transaction's fee is bumped; every
    `rebroadcast_s` it is sent again. Fees in wei a unit of gas (see FeeCaps): none is ever signed above the caps.
    """

    confirmations: int = 1
    stall_s: float = 30.0
    rebroadcast_s: float = 10.0
    max_fee_cap: int = DEFAULT_CAPS.max_fee
    blob_fee_cap: int = DEFAULT_CAPS.blob_fee
    tip_cap: int = DEFAULT_CAPS.tip
    tip_min: int = DEFAULT_CAPS.tip_min

    @classmethod
    def under(cls, caps: FeeCaps, confirmations: int) -> "TxConfig":
        """The defaults, with these caps."""
        return cls(
            confirmations,
            max_fee_cap=caps.max_fee,
            blob_fee_cap=caps.blob_fee,
            tip_cap=caps.tip,
            tip_min=min(caps.tip_min, caps.tip),
        )

    @property
    def caps(self) -> FeeCaps:
        """All of them."""
        return FeeCaps(self.max_fee_cap, self.tip_cap, self.blob_fee_cap, self.tip_min)


@dataclass(frozen=True, slots=True)
class TxMetrics:
    states: dict[State, int]
    sends: int
    bumps: int
    reorgs: int
    gaps_filled: int
    gas_used: int
    l1_down: bool
    last_error: str
    problem: str  # what keeps the next transaction from being mined, in words; empty: nothing that is known


@dataclass(frozen=True, slots=True)
class Funds:
    """As last read, wei: what the key has; what a unit of gas may cost in a transaction of now."""

    balance: int
    gas_price: int


@dataclass(frozen=True, slots=True)
class _Refused:
    """A node's last word on an intent; sent again `again_s` (monotonic)."""

    kind: Refusal
    message: str
    again_s: float
    wait_s: float


def gas_min(content: Content) -> int:
    """The least gas that a transaction may name: EIP-7623's floor or the intrinsic gas."""
    zeros = content.data.count(0)
    others = len(content.data) - zeros
    create = 0 if content.to else 32_000 + 2 * -(-len(content.data) // 32)
    return 21_000 + max(10 * zeros + 40 * others, 4 * zeros + 16 * others + create)


class TxManager:
    """Sends transactions of one key, each intent once. `clock` gives seconds; `checkpoint` is called with the name
    of each step just passed, for tests that crash there.
    """

    def __init__(
        self,
        rpc: Rpc,
        signer: Signer,
        path: Path,
        config: TxConfig | None = None,
        clock: Callable[[], float] = time.time,
        checkpoint: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._rpc = rpc
        self._signer = signer
        self._config = config or TxConfig()
        self._clock = clock
        self._checkpoint = checkpoint
        self._store = TxStore(path)
        self._lock = threading.RLock()
        self._chain_id: int | None = None
        self._suspicions: dict[int, tuple[int, float]] = {}
        self._rebroadcast_s: dict[int, float] = {}
        self._sidecars: dict[bytes, blobs.Sidecar] = {}
        self._sends = self._bumps = self._reorgs = self._gaps_filled = 0
        self._refused: dict[int, _Refused] = {}
        self._capped: set[int] = set()  # intents whose next bump would pass a cap
        self._balance, self._base_fee = 0, 0
        self._has_looked = False
        self._problem = ""
        self._last_error = ""
        self._l1_down = False

    @property
    def address(self) -> str:
        return self._signer.address

    def close(self) -> None:
        with self._lock:
            self._store.close()

    # --- for callers ------------------------------------------------------------------------------

    def send(
        self, intent_id: str, to: str, data: bytes, value: int, gas: int, payload: bytes = b""
    ) -> Intent:
        """Store an intent and try to get it on its way. Idempotent; when this returns, it will be sent, whatever
        happens to this process or to L1. Raises IntentConflict when the id stands for something else. `payload` goes
        in blobs.
        """
        content = Content(bytes.fromhex(to.removeprefix("0x")), data, value, gas, payload)
        with self._lock:
            with self._store.transaction():
                intent = self._store.add(intent_id, content)
            self._checkpoint("intent stored")
            if intent.state is State.QUEUED:
                self._guarded(self._advance)
            return self._store.by_seq(intent.seq)

    def send_over(
        self, intent_id: str, to: str, data: bytes, value: int, gas: int, is_void: Callable[[str], bool]
    ) -> Intent:
        """`send`, in the place of the transaction that the others wait for, if `is_void` of its intent: its nonce is
        taken, by a blob where it has blobs, so that a stuck one holds nothing up. If it is mined all the same, this
        intent is gone, and `get` knows nothing of it.
        """
        with self._lock:
            if self._store.get(intent_id) is None:
                self._guarded(lambda: self._replace(intent_id, to, data, value, gas, is_void))
            known = self._store.get(intent_id)
            return known if known is not None else self.send(intent_id, to, data, value, gas)

    def _replace(
        self, intent_id: str, to: str, data: bytes, value: int, gas: int, is_void: Callable[[str], bool]
    ) -> None:
        unmined = [one for one in self._store.open_intents() if one.state is not State.MINED]
        if not unmined or unmined[0].nonce is None or not is_void(unmined[0].intent_id):
            return
        old, nonce = unmined[0], unmined[0].nonce
        attempts = self._store.attempts(nonce)
        has_blobs = any(one.fees.blob_fee for one in attempts)
        fees = self._suggested_fees(has_blobs)
        for attempt in attempts:
            fees = bumped(attempt.fees, fees)
        if self._config.caps.within(fees) != fees:
            return  # a node would not take it: it goes behind
        content = Content(
            bytes.fromhex(to.removeprefix("0x")), data, value, gas, FILLER_PAYLOAD if has_blobs else b""
        )
        with self._store.transaction():
            self._store.update(old.seq, state=State.FAILED, nonce=None, error=f"given up for {intent_id}")
            intent = self._store.add(intent_id, content)
            self._store.update(intent.seq, nonce=nonce)
            signed = self._signed(intent.seq, nonce, fees)
            assert signed is not None  # its content has just been stored
            self._store.add_attempt(Attempt(signed.hash, intent.seq, nonce, fees, None))
        self._checkpoint("nonce stored")
        self._broadcast(self._store.by_seq(intent.seq))

    def get(self, intent_id: str) -> Intent | None:
        with self._lock:
            return self._store.get(intent_id)

    def poll(self) -> bool:
        """One round over everything open; False when L1 did not answer."""
        with self._lock:
            return self._guarded(self._round)

    def wait(self, intent_id: str, timeout_s: float, interval_s: float = 0.05) -> Intent:
        """Poll until confirmed. Raises TransactionFailed or TransactionTimeout."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.poll()
            intent = self.get(intent_id)
            if intent is not None and intent.state is State.CONFIRMED:
                return intent
            if intent is not None and intent.state is State.FAILED:
                raise TransactionFailed(intent_id, intent.error, intent.tx_hash)
            if time.monotonic() > deadline:
                raise TransactionTimeout(intent_id, intent.state if intent else "unknown", self._last_error)
            time.sleep(interval_s)

    def metrics(self) -> TxMetrics:
        with self._lock:
            return TxMetrics(
                self._store.counts(),
                self._sends,
                self._bumps,
                self._reorgs,
                self._gaps_filled,
                self._store.gas_used(),
                self._l1_down,
                self._last_error,
                self._problem,
            )

    def funds(self) -> Funds | None:
        """None before the first round."""
        with self._lock:
            if not self._has_looked:
                return None
            offer = min(2 * self._base_fee + self._config.tip_min, self._config.max_fee_cap)
            return Funds(self._balance, offer)

    # --- the round --------------------------------------------------------------------------------

    def _guarded(self, step: Callable[[], None]) -> bool:
        try:
            self._connect()
            step()
        except RpcUnavailable as error:
            self._l1_down, self._last_error = True, str(error)
            return False
        except RpcError as error:
            self._last_error = str(error)
            return False
        self._l1_down = False
        return True

    def _connect(self) -> None:
        if self._chain_id is None:
            chain_id = self._rpc.chain_id()
            genesis = self._rpc.block(0)
            name = genesis["hash"] if genesis else "pruned"
            self._store.bind(f"{self._signer.address} on chain {chain_id}, genesis {name}")
            self._chain_id = chain_id

    def _round(self) -> None:
        number, count, balance, block = self._rpc.batch_strict(
            [
                ("eth_blockNumber", ()),
                ("eth_getTransactionCount", (self._signer.address, "latest")),
                ("eth_getBalance", (self._signer.address, "latest")),
                ("eth_getBlockByNumber", ("latest", False)),
            ]
        )
        head, used = to_int(number), to_int(count)
        self._balance, self._base_fee = to_int(balance), to_int(block.get("baseFeePerGas") or "0x0")
        self._has_looked = True
        self._heal_gaps(used)
        self._collect_receipts(head, used)
        self._advance()
        self._resend_and_bump(used)
        self._problem = self._find_problem()
        self._store.drop_old_data()

    def _find_problem(self) -> str:
        """What keeps the next transaction from being mined."""
        unmined = [one for one in self._store.open_intents() if one.state is not State.MINED]
        if not unmined:
            return ""
        first, caps = unmined[0], self._config.caps
        if self._base_fee > caps.max_fee:
            return (
                f"L1's base fee is {gwei(self._base_fee)}, above the cap of {gwei(caps.max_fee)}: "
                f"{first.intent_id} waits until it falls"
            )
        needed = sum(self._cost(one) for one in unmined)
        if needed > self._balance:
            return (
                f"the key {self._signer.address} has {ether(self._balance)}, and what waits may cost {ether(needed)}: "
                f"{first.intent_id} waits until it gets more"
            )
        refused = self._refused.get(first.seq)
        if refused is not None and refused.kind is not Refusal.OTHER_SORT:
            return f"the node refuses {first.intent_id}: {refused.message}; it is sent again"
        if first.seq in self._capped:
            return (
                f"{first.intent_id} is not mined, and a further bump would pass the fee cap "
                f"({gwei(caps.max_fee)}, tip {gwei(caps.tip)}, blobs {gwei(caps.blob_fee)})"
            )
        return ""

    def _cost(self, intent: Intent) -> int:
        """The most that an intent may cost as it was last signed, wei."""
        content = self._store.content(intent.seq)
        if content is None or intent.nonce is None:
            return 0
        signed = [one for one in self._store.attempts(intent.nonce) if one.seq == intent.seq]
        return fee.cost(content, signed[-1].fees) if signed else 0

    def _advance(self) -> None:
        """Nonce, first signature and first sending for what is queued, in order."""
        waiting = [intent for intent in self._store.open_intents() if intent.state is State.QUEUED]
        if not waiting:
            return
        fees: dict[bool, Fees] = {}
        for intent in waiting:
            if intent.nonce is None:
                content = self._store.content(intent.seq)
                if content is not None and content.gas < gas_min(content):
                    # some nodes take such a transaction and never mine it
                    self._refuse(intent, f"gas {content.gas} is below the least, {gas_min(content)}")
                    continue
                has_blobs = content is not None and bool(content.payload)
                if has_blobs not in fees:
                    fees[has_blobs] = self._suggested_fees(has_blobs)
                self._sign_first(intent, self._nonce_free(), fees[has_blobs])
        for intent in waiting:
            fresh = self._store.by_seq(intent.seq)
            if fresh.state is not State.QUEUED:
                continue
            refused = self._refused.get(fresh.seq)
            if (refused is not None and time.monotonic() < refused.again_s) or not self._broadcast(fresh):
                return  # later nonces would only wait behind this one

    def _nonce_free(self) -> int:
        """The next nonce: above all of ours, and not below the chain's, where others may have used the key before us.
        Before the first, pending ones count too: they may be ours from a lost store.
        """
        ours = self._store.nonce_next()
        if ours is None:
            return self._rpc.nonce(self._signer.address, "pending")
        return max(ours, self._rpc.nonce(self._signer.address, "latest"))

    def _sign_first(self, intent: Intent, nonce: int, fees: Fees) -> None:
        signed = self._signed(intent.seq, nonce, fees)
        if signed is None:
            return
        with self._store.transaction():
            self._store.update(intent.seq, nonce=nonce)
            self._store.add_attempt(Attempt(signed.hash, intent.seq, nonce, fees, None))
        self._checkpoint("nonce stored")

    def _signed(self, seq: int, nonce: int, fees: Fees) -> SignedTransaction | None:
        content = self._store.content(seq)
        assert self._chain_id is not None
        if content is None:
            return None
        sidecar = self.sidecar(content.payload) if content.payload else None
        return self._signer.sign_transaction(self._chain_id, nonce, fees, content, sidecar)

    def sidecar(self, payload: bytes) -> blobs.Sidecar:
        """Made once for all attempts at a batch."""
        found = self._sidecars.pop(payload, None) or blobs.sidecar(payload)
        self._sidecars[payload] = found
        if len(self._sidecars) > SIDECARS_KEPT:
            del self._sidecars[next(iter(self._sidecars))]
        return found

    def _broadcast(self, intent: Intent) -> bool:
        """Send the newest attempt; True when a node has it, or has had its nonce."""
        assert intent.nonce is not None
        attempt = [item for item in self._store.attempts(intent.nonce) if item.seq == intent.seq][-1]
        signed = self._signed(intent.seq, intent.nonce, attempt.fees)
        if signed is None:
            return True
        self._checkpoint("before sending")
        sent_s = self._clock()
        try:
            self._rpc.send_raw(signed.raw)
        except RpcReverted:
            pass  # hardhat mines a reverting transaction and reports the revert here
        except RpcRejected as error:
            kind = meaning(error.message)
            if kind is Refusal.NEVER:
                self._refuse(intent, error.message)
                return False
            if kind not in (Refusal.KNOWN, Refusal.USED):
                self._note_refusal(intent, kind, error)
                if kind is Refusal.UNKNOWN and attempt.sent_s is None:
                    # from here on it stalls, whatever the words mean: a node may have it all the same
                    self._store.mark_sent(signed.hash, sent_s)
                if kind is not Refusal.CHEAP:
                    return False
                sent_s -= self._config.stall_s  # counts as stalled: the next round bumps it
            else:
                self._refused.pop(intent.seq, None)
        else:
            self._refused.pop(intent.seq, None)
        self._checkpoint("after sending")
        self._sends += 1
        with self._store.transaction():
            self._store.mark_sent(signed.hash, sent_s)
            self._store.update(intent.seq, state=State.SENT, tx_hash=signed.hash)
        self._checkpoint("sending stored")
        return True

    def _note_refusal(self, intent: Intent, kind: Refusal, error: RpcRejected) -> None:
        """Remembers it, and when to send again."""
        if kind is not Refusal.OTHER_SORT:
            self._last_error = str(error)
        before = self._refused.get(intent.seq)
        wait_s = RETRY_FIRST_S if before is None else min(2 * before.wait_s, RETRY_MAX_S)
        self._refused[intent.seq] = _Refused(kind, error.message, time.monotonic() + wait_s, wait_s)

    def _refuse(self, intent: Intent, reason: str) -> None:
        """The node will never take it: fail the intent and give its nonce away (the next round fills the gap)."""
        with self._store.transaction():
            self._store.update(intent.seq, state=State.FAILED, nonce=None, error=reason)

    def _collect_receipts(self, head: int, used: int) -> None:
        watched: list[tuple[Intent, Attempt]] = []
        for intent in self._store.open_intents():
            if intent.nonce is not None:
                watched += [(intent, attempt) for attempt in self._store.attempts(intent.nonce)]
        receipts = self._rpc.batch_strict(
            [("eth_getTransactionReceipt", (attempt.tx_hash,)) for _, attempt in watched]
        )
        found: dict[int, tuple[Attempt, dict[str, Any]]] = {}
        canonical = self._canonical(receipts)
        for (intent, attempt), receipt in zip(watched, receipts, strict=True):
            if receipt is not None and receipt.get("blockHash") in canonical:
                found[intent.seq] = (attempt, receipt)
        for intent in {intent.seq: intent for intent, _ in watched}.values():
            if intent.seq in found:
                self._mined(intent, *found[intent.seq], head)
            elif intent.state is State.MINED:
                self._reorgs += 1
                self._store.update(
                    intent.seq, state=State.QUEUED, block_number=None, block_hash=None, gas_used=None
                )
            else:
                self._suspect_foreign_use(intent, used)

    def _canonical(self, receipts: list[dict[str, Any] | None]) -> set[str]:
        """Which of the receipts' blocks are in the chain: nodes may keep receipts of blocks that no longer are."""
        numbers = sorted(
            {receipt["blockNumber"] for receipt in receipts if receipt and receipt.get("blockNumber")}
        )
        blocks = self._rpc.batch_strict([("eth_getBlockByNumber", (number, False)) for number in numbers])
        return {block["hash"] for block in blocks if block is not None}

    def _mined(self, intent: Intent, attempt: Attempt, receipt: dict[str, Any], head: int) -> None:
        if attempt.seq != intent.seq:
            # what the node had refused was mined after all: the filler goes, the intent it stood in for lives
            with self._store.transaction():
                self._store.delete(intent.seq)
                self._store.update(attempt.seq, nonce=attempt.nonce, state=State.MINED, error="")
            intent = self._store.by_seq(attempt.seq)
        self._suspicions.pop(intent.seq, None)
        self._refused.pop(intent.seq, None)
        self._capped.discard(intent.seq)
        block_number = to_int(receipt["blockNumber"])
        deep = head - block_number + 1 >= self._config.confirmations
        succeeded = to_int(receipt["status"]) == 1
        state = State.MINED if not deep else State.CONFIRMED if succeeded else State.FAILED
        self._store.update(
            intent.seq,
            state=state,
            tx_hash=attempt.tx_hash,
            block_number=block_number,
            block_hash=receipt["blockHash"],
            gas_used=to_int(receipt["gasUsed"]),
            gas_price=str(to_int(receipt.get("effectiveGasPrice") or "0x0")),
            error="" if succeeded else intent.error or self._why(intent, block_number),
        )

    def _why(self, intent: Intent, block_number: int) -> str:
        """Reason of a revert, asked for by calling again on the state before the block (best effort)."""
        content = self._store.content(intent.seq)
        if content is None:
            return "reverted"
        try:
            hashes = self.sidecar(content.payload).hashes if content.payload else ()
            to, tag = "0x" + content.to.hex(), block_number - 1
            self._rpc.eth_call(to, content.data, tag, self._signer.address, hashes)
        except RpcReverted as error:
            return f"reverted: {error.reason}" if error.reason else "reverted"
        except RpcError:
            pass
        return "reverted"

    def _suspect_foreign_use(self, intent: Intent, used: int) -> None:
        """Its nonce is used and none of its transactions is mined: after a few rounds, others have used the key."""
        assert intent.nonce is not None
        if used <= intent.nonce:
            self._suspicions.pop(intent.seq, None)
            return
        rounds, since_s = self._suspicions.get(intent.seq, (0, self._clock()))
        self._suspicions[intent.seq] = (rounds + 1, since_s)
        if rounds >= SUSPICIONS_MAX and self._clock() - since_s >= self._config.stall_s:
            reason = f"nonce {intent.nonce} was used by a transaction that is not ours"
            self._store.update(intent.seq, state=State.FAILED, error=reason)

    def _heal_gaps(self, used: int) -> None:
        """Every nonce from the chain's to our highest must have an open intent, or all later ones wait for ever."""
        ours = self._store.nonce_next()
        for nonce in range(used, ours if ours is not None else 0):
            owner = self._store.by_nonce(nonce)
            if owner is not None and not owner.is_done:
                continue
            self._reorgs += owner is not None
            if owner is not None and self._store.content(owner.seq) is not None:
                # confirmed once, thrown out by a reorganisation deeper than the confirmations
                self._store.update(
                    owner.seq, state=State.QUEUED, block_number=None, block_hash=None, gas_used=None
                )
                continue
            attempts = self._store.attempts(nonce)
            has_blobs = any(one.fees.blob_fee for one in attempts) or self._has_blobs_pending()
            fees = self._suggested_fees(has_blobs)
            for attempt in attempts:
                fees = self._config.caps.within(bumped(attempt.fees, fees))
            with self._store.transaction():
                if owner is not None:
                    self._store.update(owner.seq, nonce=None)
                filler = self._store.add(
                    f"gap-{nonce}-{ours}",
                    Content(
                        self._signer.address_bytes, b"", 0, FILLER_GAS, FILLER_PAYLOAD if has_blobs else b""
                    ),
                )
                self._store.update(filler.seq, state=State.QUEUED)
            self._sign_first(filler, nonce, fees)
            self._gaps_filled += 1

    def _has_blobs_pending(self) -> bool:
        """Whether nodes hold blobs of this key: until those are mined they take nothing else of it, nor a filler."""
        for intent in self._store.open_intents():
            if intent.state is State.SENT and intent.nonce is not None:
                return any(one.fees.blob_fee for one in self._store.attempts(intent.nonce))
        return False

    def _resend_and_bump(self, used: int) -> None:
        """Nodes forget: what is unmined is sent again now and then. Only the lowest nonce can be what the others
        wait for: it alone is bumped.
        """
        now_s = self._clock()
        lowest = True
        for intent in self._store.open_intents():
            if intent.state is State.MINED or intent.nonce is None or intent.nonce < used:
                continue
            last = [item for item in self._store.attempts(intent.nonce) if item.seq == intent.seq][-1]
            seen_s = max(last.sent_s or 0.0, self._rebroadcast_s.get(intent.seq, 0.0))
            if intent.state is State.QUEUED:  # `_advance` sends it; refused for so long, it is a stall
                if lowest and last.sent_s is not None and now_s - last.sent_s >= self._config.stall_s:
                    self._bump(intent, last)
            elif last.sent_s is None:  # a bump that was stored and, by a crash or an error, not sent
                self._broadcast(intent)
            elif lowest and now_s - last.sent_s >= self._config.stall_s:
                self._bump(intent, last)
            elif now_s - seen_s >= self._config.rebroadcast_s:
                self._rebroadcast(intent, last)
            lowest = False

    def _bump(self, intent: Intent, last: Attempt) -> None:
        assert intent.nonce is not None
        signed_before = [one for one in self._store.attempts(intent.nonce) if one.seq == intent.seq]
        if intent.state is State.QUEUED and len(signed_before) > REFUSED_BUMPS_MAX:
            return
        fees, caps = bumped(last.fees, self._suggested_fees(bool(last.fees.blob_fee))), self._config.caps
        content = self._store.content(intent.seq)
        can_pay = content is None or fee.cost(content, fees) <= self._balance
        self._capped.discard(intent.seq)
        if fees.max_fee > caps.max_fee or fees.tip > caps.tip or fees.blob_fee > caps.blob_fee:
            self._last_error = f"{intent.intent_id}: a further bump would pass the fee cap"
            self._capped.add(intent.seq)
        if intent.seq in self._capped or not can_pay:
            if intent.state is State.SENT:
                self._rebroadcast(intent, last)
            return
        signed = self._signed(intent.seq, intent.nonce, fees)
        if signed is None:
            return
        with self._store.transaction():
            self._store.add_attempt(Attempt(signed.hash, intent.seq, intent.nonce, fees, None))
        self._checkpoint("bump stored")
        self._bumps += 1
        self._broadcast(intent)

    def _rebroadcast(self, intent: Intent, last: Attempt) -> None:
        """Nodes forget; sending again what they know costs nothing. The clock of the bump goes on."""
        signed = self._signed(intent.seq, last.nonce, last.fees)
        self._rebroadcast_s[intent.seq] = self._clock()
        if signed is not None:
            try:
                self._rpc.send_raw(signed.raw)
            except RpcRejected as error:
                if meaning(error.message) is not Refusal.KNOWN:
                    self._last_error = str(error)

    def _suggested_fees(self, has_blobs: bool = False) -> Fees:
        """What L1 asks now, within the caps."""
        return self._market(has_blobs).fees

    def _market(self, has_blobs: bool) -> Market:
        return market(self._rpc, self._config.caps, has_blobs)
