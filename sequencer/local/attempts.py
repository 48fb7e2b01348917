"""Attempts to challenge what is right: what `fairstrike demo --attempts N` does to an honest day.

First a watcher that would challenge goes over every batch, from L1 alone. Then N challenges of honest segments and
headers are made all the same, over all batches and kinds of record, with true witnesses and with tampered ones; each
has to fail, at no cost to the sequencer. They are made while every batch can still be rolled back, and behind a
commitment of their own, so that they fail for what they say and not for the hour or the form.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sequencer.contracts import load
from sequencer.genesis import genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcReverted, TransactionFailed
from sequencer.l1.follower import Follower, PostedBatch
from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.l1.signing import Signer
from sequencer.l1.wallet import Wallet
from sequencer.proof import challenge as challenges
from sequencer.proof.audit import name_of
from sequencer.proof.challenge import (
    Challenge,
    arbiter,
    challenge_form,
    challenge_header,
    challenge_late,
    challenge_segment,
)
from sequencer.proof.challenger import CHALLENGE_GAS_MAX, COMMIT_GAS, Challenger
from sequencer.proof.watcher import WatchConfig, Watcher
from sequencer.proof.witness import Tracer
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

PYEVM_TRANSACTIONS: Final = 100  # of the attempts on py-evm, which is slow
SALT_BYTES: Final = 32
CANDIDATES: Final = 8

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class AttemptsReport:
    """What came of it. `attempts_sent` were committed and revealed in transactions, `attempts_called` in an eth_call.

    `challenges`: what the watcher itself challenged. `attempts_by_record`: attempts about a segment, by the kind of
    record in it; a segment may hold several. Costs in wei: of the sequencer, what its key and its bond have lost.
    """

    watched_batches: int = 0
    watched_records: int = 0
    alarms: int = 0
    alarms_told: list[str] = field(default_factory=list)
    challenges: int = 0
    attempted_challenges: int = 0
    failed_challenges: int = 0
    succeeded_challenges: int = 0
    attempts_sent: int = 0
    attempts_called: int = 0
    attempted_batches: int = 0
    sequencer_cost_wei: int = 0
    challenger_cost_wei: int = 0
    changed: list[str] = field(default_factory=list)
    attempts_by_kind: dict[str, int] = field(default_factory=dict)
    attempts_by_record: dict[str, int] = field(default_factory=dict)
    attempts_by_reason: dict[str, int] = field(default_factory=dict)

    @property
    def is_unchanged(self) -> bool:
        """Whether L1 keeps of batches, bonds and the sequencer what it kept before the attempts."""
        return self.attempted_challenges > 0 and not self.changed

    @property
    def why(self) -> str:
        """What keeps this from having held, for people."""
        return (
            f"{self.alarms} alarms {self.alarms_told[:3]}, {self.challenges} challenges, "
            f"{self.succeeded_challenges} of {self.attempted_challenges} attempts succeeded, "
            f"cost {self.sequencer_cost_wei} wei, changed {self.changed}"
        )

    @property
    def held(self) -> bool:
        """Whether honesty has cost nothing."""
        return (
            self.watched_batches > 0
            and self.alarms == self.challenges == 0
            and self.attempted_challenges == self.failed_challenges > 0
            and self.succeeded_challenges == self.sequencer_cost_wei == 0
            and self.is_unchanged
        )


def as_object(report: AttemptsReport) -> dict[str, Any]:
    """The report as one object."""
    return asdict(report) | {"is_unchanged": report.is_unchanged}


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt that is planned: a way of `WAYS`, a batch by its place, a segment of it (of a header: 0)."""

    way: str
    batch: int
    segment: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What an attempt is made of. `tracer()` stands where the segment begins, `end()` where the batch has ended."""

    posted: PostedBatch
    other: PostedBatch  # the batch after it; of the last, the one before it
    segment: int
    tracer: Callable[[], Tracer]
    end: Callable[[], State]
    draw: random.Random


# --- the ways --------------------------------------------------------------------------------------


def _segment(on: Scene) -> Challenge:
    return challenge_segment(on.posted, on.segment, on.tracer())


def _form(on: Scene) -> Challenge:
    return challenge_form(on.posted, on.segment)


def _header(on: Scene) -> Challenge:
    return challenge_header(on.posted, on.end())


def _with(
    on: Scene,
    index: int | None = None,
    pre_root: Callable[[bytes], bytes] = lambda root: root,
    proof: Callable[[bytes], bytes] = lambda proof: proof,
    witness: Callable[[bytes], bytes] = lambda witness: witness,
) -> Challenge:
    """`check_segment` with one of its arguments bent."""
    tracer = on.tracer()
    root = pre_root(tracer.root())
    messages = witness(challenges.segment_witness(on.posted, on.segment, tracer))
    place = on.segment if index is None else index
    shown = proof(challenges.proof(on.posted, on.segment))
    return challenges.challenge_by(on.posted, "check_segment", place, place, root, shown, messages)


def _flipped(on: Scene, data: bytes, first: int = 0) -> bytes:
    """`data` with one bit of it, from byte `first` on, another."""
    at = on.draw.randrange(first, len(data))
    return data[:at] + bytes([data[at] ^ 1 << on.draw.randrange(8)]) + data[at + 1 :]


def _witness_bit(on: Scene) -> Challenge:
    head = 32 + 196  # length and head of the first record's message: what follows are its witness words
    return _with(on, witness=lambda data: _flipped(on, data, head))


def _witness_short(on: Scene) -> Challenge:
    return _with(on, witness=lambda data: data[:-32])


def _witness_long(on: Scene) -> Challenge:
    return _with(on, witness=lambda data: data + bytes(32))


def _witness_of_another_record(on: Scene) -> Challenge:
    """The message says another record than the one that was posted: the last byte of its fields differs."""
    at = 32 + 4 + 32 + 32 + 30
    return _with(on, witness=lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def _pre_root(on: Scene) -> Challenge:
    return _with(on, pre_root=lambda root: bytes([root[0] ^ 1]) + root[1:])


def _proof_bit(on: Scene) -> Challenge:
    return _with(on, proof=lambda data: _flipped(on, data))


def _other_segment(on: Scene) -> Challenge:
    """Proof and witness of this segment, said to be the next one's."""
    return _with(on, index=(on.segment + 1) % max(on.posted.segments, 2))


def _form_proof_bit(on: Scene) -> Challenge:
    shown = _flipped(on, challenges.proof(on.posted, on.segment))
    return challenges.challenge_by(on.posted, "check_form", on.segment, on.segment, shown)


def _form_beyond(on: Scene) -> Challenge:
    index = on.posted.segments
    shown = challenges.proof(on.posted, on.segment)
    return challenges.challenge_by(on.posted, "check_form", index, index, shown)


def _another_header(on: Scene) -> Challenge:
    """A header that was not posted: its time is a second more, and GLOBAL would contradict it."""
    return challenge_header(replace(on.posted, time_s=on.posted.time_s + 1), on.end())


def _other_batch(on: Scene) -> Challenge:
    """GLOBAL of this batch against the header of another."""
    return challenge_header(on.other, on.end())


def _global_bent(on: Scene) -> Challenge:
    """GLOBAL with another inbox count than the one that is in the state."""
    true = challenge_header(on.posted, on.end())
    check = arbiter().function("check_header")
    _, words, bitmap, siblings = check.decode_input(true.call)
    bent = [*words[:2], words[2] ^ 1, *words[3:]]
    return challenges.challenge_by(on.posted, "check_header", 0, bent, bitmap, siblings)


def _late(on: Scene) -> Challenge:
    """A message that the batch was the first to take, or, if it took none, any: it was in time for it."""
    return challenge_late(on.posted, max(on.posted.inbox_count, 1) - 1)


def _late_for_none(on: Scene) -> Challenge:
    """A message that nobody has sent yet."""
    return challenge_late(on.posted, 2**40)


def _no_check(on: Scene) -> Challenge:
    """Another function of the Arbiter's in the place of a check."""
    return Challenge(on.posted.batch_id, bytes(32), arbiter().encode("collect", 0))


WAYS: Final[dict[str, tuple[int, Callable[[Scene], Challenge]]]] = {
    "check_segment": (12, _segment),
    "check_form": (5, _form),
    "check_header": (5, _header),
    "check_segment, a bit of the witness flipped": (4, _witness_bit),
    "check_segment, witness cut short": (1, _witness_short),
    "check_segment, witness too long": (2, _witness_long),
    "check_segment, another record than the posted one": (2, _witness_of_another_record),
    "check_segment, another pre-root": (2, _pre_root),
    "check_segment, a bit of the proof flipped": (2, _proof_bit),
    "check_segment, of the segment beside it": (3, _other_segment),
    "check_form, a bit of the proof flipped": (2, _form_proof_bit),
    "check_form, of a segment that there is not": (1, _form_beyond),
    "check_header, a header that was not posted": (2, _another_header),
    "check_header, of the batch beside it": (2, _other_batch),
    "check_header, another inbox count in GLOBAL": (2, _global_bent),
    "check_late": (4, _late),
    "check_late, of a message that there is not": (1, _late_for_none),
    "no check at all": (1, _no_check),
}
"""By name: how often among the others, and what makes it."""
HONEST: Final = frozenset({"check_segment", "check_form", "check_header", "check_late"})
"""The ways in which nothing is tampered with: the Arbiter has to look, and to find no fraud."""


def _is_of_segment(way: str) -> bool:
    return way.startswith(("check_segment", "check_form"))


def _is_at_end(way: str) -> bool:
    """Whether it takes the state after the batch."""
    return way.startswith("check_header")


# --- which ------------------------------------------------------------------------------------------


def plan(posted: list[PostedBatch], count: int, draw: random.Random) -> list[Trial]:
    """`count` trials in the order of the batches: ways by their shares, kinds of record in turn, batches evenly."""
    names = [name for name, (share, _) in WAYS.items() for _ in range(share)]
    draw.shuffle(names)
    by_record: dict[str, list[tuple[int, int]]] = {}
    for place, one in enumerate(posted):
        for number, segment in enumerate(batches.decode(one.payload, one.segments, one.ticks)):
            for kind in {name_of(raw) for raw in segment.records}:
                by_record.setdefault(kind, []).append((place, number))
    kinds = sorted(by_record)
    used: Counter[int] = Counter()
    trials: list[Trial] = []
    turns = Counter({way: 5 * place for place, way in enumerate(WAYS)})  # few attempts meet many kinds, too
    for turn in range(count):
        way = names[turn % len(names)]
        pool = by_record[kinds[turns[way] % len(kinds)]]
        if not _is_of_segment(way):
            pool = [(place, 0) for place in range(len(posted))]
        turns[way] += 1
        some = draw.sample(pool, min(CANDIDATES, len(pool)))
        batch, at = min(some, key=lambda one: used[one[0]])
        used[batch] += 1
        trials.append(Trial(way, batch, at))
    return sorted(trials, key=lambda one: (one.batch, one.segment))


def made(
    posted: list[PostedBatch], trials: list[Trial], genesis: State, draw: random.Random
) -> Iterator[tuple[Trial, Challenge]]:
    """The challenges of the trials, from the batches alone: every record is executed once."""
    state = genesis
    waiting = list(reversed(trials))
    for place, one in enumerate(posted):
        for number, segment in enumerate(batches.decode(one.payload, one.segments, one.ticks)):
            yield from _made_here(posted, place, number, waiting, state, draw, is_end=False)
            for raw in segment.records:
                apply(state, raw)
        yield from _made_here(posted, place, 0, waiting, state, draw, is_end=True)


def _made_here(
    posted: list[PostedBatch],
    place: int,
    number: int,
    waiting: list[Trial],
    state: State,
    draw: random.Random,
    is_end: bool,
) -> Iterator[tuple[Trial, Challenge]]:
    """Those that can be made where the state stands now: before segment `number`, or at the end of the batch."""
    here = [
        one
        for one in waiting
        if one.batch == place and _is_at_end(one.way) is is_end and (is_end or one.segment == number)
    ]
    other = posted[place + 1 if place + 1 < len(posted) else place - 1]
    for trial in here:
        waiting.remove(trial)
        on = Scene(posted[place], other, trial.segment, lambda: Tracer.of(state), lambda: state, draw)
        yield trial, WAYS[trial.way][1](on)


# --- doing it ---------------------------------------------------------------------------------------


class Attempts:
    """Watches, then attempts, at one deployment; knows L1 and the parameters, and nothing of the sequencer's.

    `lag_s`: how far the exchange's clock may be behind L1's before the watcher's alarm, as in WatchConfig.
    """

    def __init__(
        self,
        rpc: Rpc,
        at: Deployment,
        params: Params,
        signer: Signer,
        folder: Path,
        progress: Progress = lambda _stage, _done, _total: None,
        lag_s: int = 3_600,
    ) -> None:
        self.report = AttemptsReport()
        self._config = WatchConfig(confirmations=0, lag_s=lag_s)
        self._rpc = rpc
        self._at = at
        self._params = params
        self._signer = signer
        self._folder = folder
        self._progress = progress
        self._wallet = Wallet(rpc, signer, at)
        self._rollup = Contract(load("Rollup").abi)

    def run(self, count: int, sent: int, seed: int = 1) -> AttemptsReport:
        """Watches, then makes `count` attempts, of which `sent` are transactions; the others are called."""
        self.watch()
        self.attempt(count, sent, seed)
        return self.report

    def watch(self) -> None:
        """A fresh watcher looks at every batch, and would challenge a wrong one."""
        challenger = Challenger(self._rpc, self._at, self._signer, self._folder)
        watcher = Watcher(
            self._rpc, self._at, self._params, self._folder, self._config, challenger, self._progress
        )
        try:
            watcher.step()
            self.report.watched_batches = watcher.batches
            self.report.watched_records = watcher.state.globals.seq
            self.report.alarms = len(watcher.alarms)
            self.report.alarms_told = [alarm.what for alarm in watcher.alarms]
            self.report.challenges = int(watcher.challenged is not None)
        finally:
            watcher.close()

    def attempt(self, count: int, sent: int, seed: int = 1) -> None:
        """The attempts alone."""
        before = self._held()
        self._attempt(count, min(sent, count), random.Random(seed))  # noqa: S311  # a choice, no secret
        after = self._held()
        self.report.changed = [name for name, value in after.items() if value != before[name]]
        self.report.sequencer_cost_wei = before["balance"] - after["balance"] + before["bond"] - after["bond"]

    def _attempt(self, count: int, transactions: int, draw: random.Random) -> None:
        report = self.report
        follower = Follower(self._rpc, self._at.inbox, self._at.rollup, self._at.deploy_block, 0)
        posted = list(follower.batches(self._at.deploy_block))
        trials = plan(posted, count, draw)
        domain = codec.domain_separator(self._at.chain_id, to_bytes(self._at.rollup))
        kinds, reasons, records = Counter[str](), Counter[str](), Counter[str]()
        spent = self._rpc.balance(self._signer.address)
        made_all = made(posted, trials, genesis_state(domain, self._params), draw)
        for number, (trial, challenge) in enumerate(made_all):
            self._progress("attempt", number, count)
            is_sent = number * transactions // count != (number + 1) * transactions // count
            reason = self._send(challenge, draw) if is_sent else self._call(challenge, draw)
            report.attempts_sent += is_sent
            report.failed_challenges += reason is not None
            kinds[trial.way] += 1
            reasons[reason or "it was rolled back"] += 1
            if _is_of_segment(trial.way):
                one = posted[trial.batch]
                segment = batches.decode(one.payload, one.segments, one.ticks)[trial.segment]
                records.update({name_of(raw) for raw in segment.records})
        self._progress("attempt", count, count)
        report.attempted_challenges = kinds.total()
        report.succeeded_challenges = report.attempted_challenges - report.failed_challenges
        report.attempts_called = report.attempted_challenges - report.attempts_sent
        report.attempted_batches = len({one.batch for one in trials})
        report.challenger_cost_wei = spent - self._rpc.balance(self._signer.address)
        report.attempts_by_kind = {name: kinds[name] for name in WAYS if kinds[name]}
        report.attempts_by_record = dict(sorted(records.items()))
        report.attempts_by_reason = dict(reasons.most_common())

    def _send(self, challenge: Challenge, draw: random.Random) -> str | None:
        """Commits and challenges; why it failed, None if it did not."""
        salt = draw.randbytes(SALT_BYTES)
        commitment = challenge.commitment(self._signer.address, salt)
        data = arbiter().encode("commit", commitment)
        self._wallet.transact("commit", self._at.arbiter, data, gas=COMMIT_GAS)
        try:
            self._wallet.transact(
                "challenge", self._at.arbiter, challenge.calldata(salt), gas=CHALLENGE_GAS_MAX
            )
        except TransactionFailed as error:
            return error.reason
        return None

    def _call(self, challenge: Challenge, draw: random.Random) -> str | None:
        """What the same transaction would come to, without a commitment: the verdict comes before it is asked for."""
        try:
            self._rpc.eth_call(
                self._at.arbiter,
                challenge.calldata(draw.randbytes(SALT_BYTES)),
                "latest",
                self._signer.address,
            )
        except RpcReverted as error:
            return error.reason or error.message
        return None

    def _held(self) -> dict[str, Any]:
        """All that a challenge could change: what L1 keeps of each batch, the bonds, and the sequencer's balance."""
        last = int(self._read("next_batch"))
        return {
            "next": last,
            "tip": self._read("tip"),
            "batches": [tuple(self._read("batch", number)) for number in range(last)],
            "bond": self._rpc.balance(self._at.sequencers),
            "rolled_back_at": self._read("rolled_back_at"),
            "frozen_at": self._read("frozen_at"),
            "rewards": arbiter().read(self._rpc, self._at.arbiter, "rewards_count"),
            "balance": self._rpc.balance(self._at.sequencer),
            "nonce": to_int(self._rpc.call("eth_getTransactionCount", self._at.sequencer, "latest")),
        }

    def _read(self, name: str, *arguments: int) -> Any:
        return self._rollup.read(self._rpc, self._at.rollup, name, *arguments)
