"""`fairstrike demo --lie`: a lying sequencer on a chain of its own, and a watcher that starts from L1 alone.

The watcher has to find the lie, challenge it and see it rolled back; then the sequencer makes up its bond, executes the
honest records again, and the same watcher has to find that right.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sequencer.contracts import load
from sequencer.development import devnet_params
from sequencer.engine.engine import Engine, Submission, class_of
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.batch import Batch
from sequencer.l1.chains import Chain, start
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.errors import RpcReverted
from sequencer.l1.follower import Follower
from sequencer.l1.inbox import INBOX, ROLLUP
from sequencer.l1.poster import Poster, PosterConfig
from sequencer.l1.rpc import to_bytes
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.local.liar import Lie, LyingEngine
from sequencer.local.lies import LIES
from sequencer.local.play import DEPOSITS, OPENING, PAYLOAD_MAX_BYTES, Play, batches_of
from sequencer.log.interface import Entry
from sequencer.log.sqlite import SqliteLog
from sequencer.market.tape import Tape, open_tape
from sequencer.proof.challenger import Challenger
from sequencer.proof.watcher import WatchConfig, Watcher, as_json
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.transition import apply
from sequencer.rollup.batcher import EMPTY_HASH

SEQUENCER: Final = 0
CHALLENGER: Final = 8
HEADER_LIE_BATCH: Final = 2
BOND_WEI: Final = 10**18
LOOKS: Final = 40
DELAY_MIN_S: Final = 7_200
LATE_S: Final = DELAY_MIN_S + 1  # past a deadline: what is fraud

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class LieReport:
    """What became of a lie. `refused`: why records of the batches rolled back did not hold in the honest execution.

    `refused_by_l1`: why Rollup did not even take the batch; told of a lie that is one where L1 cannot see the payload.
    """

    lie: str
    what: str
    chain: str
    data: str = "calldata"
    caught: bool = False
    fault: dict[str, Any] | None = None
    challenge_gas: int = 0
    challenge_bytes: int = 0
    slashed: bool = False
    rolled_back: bool = False
    honest_records_kept: int = 0
    refused: list[str] = field(default_factory=list)
    watcher_agrees: bool = False
    batches: int = 0
    records: int = 0
    seconds: float = 0.0
    error: str = field(default="")
    refused_by_l1: str = ""

    @property
    def held(self) -> bool:
        """Whether all went as it must."""
        if self.refused_by_l1:
            return self.data == "calldata" and self.refused_by_l1 == LIES[self.lie].refusal
        was_undone = self.caught and self.slashed and self.rolled_back and self.watcher_agrees
        return was_undone and self.honest_records_kept > 0


def as_object(report: LieReport) -> dict[str, Any]:
    """The report as one object."""
    return asdict(report)


def summary(reports: Sequence[LieReport]) -> dict[str, Any]:
    """What became of many lies. `not_held`: those that were not caught, slashed and rolled back as they must be."""
    challenged = [one for one in reports if not one.refused_by_l1]
    return {
        "lies": len(reports),
        "challenged": len(challenged),
        "refused_by_l1": {one.lie: one.refused_by_l1 for one in reports if one.refused_by_l1},
        "not_held": [one.lie for one in reports if not one.held],
        "challenge_gas_min": min((one.challenge_gas for one in challenged), default=0),
        "challenge_gas_max": max((one.challenge_gas for one in challenged), default=0),
        "challenge_bytes_max": max((one.challenge_bytes for one in challenged), default=0),
        "honest_records_kept_min": min((one.honest_records_kept for one in challenged), default=0),
        "seconds": round(sum(one.seconds for one in reports), 3),
    }


@contextmanager
def stage(chain_name: str, tape: Tape, data: str = "calldata") -> Iterator["Stage"]:
    """A chain with the contracts and the play's deposits on it."""
    start_s = tape.trades[0].time_s // 60 * 60 - 3_600
    with (
        tempfile.TemporaryDirectory(prefix="fairstrike-lie-") as name,
        start(chain_name, genesis_time_s=start_s, log_dir=Path(name)) as chain,
    ):
        yield Stage(chain, Path(name), tape, data)


class Stage:
    """One chain and deployment; the lying sequencer posts to it what a play gives."""

    def __init__(self, chain: Chain, folder: Path, tape: Tape, data: str = "calldata") -> None:
        self.chain = chain
        self.folder = folder
        self.tape = tape
        self.params = devnet_params()
        self.signer = devnet_signer(SEQUENCER)
        self.at: Deployment = deploy(
            chain.rpc,
            self.signer,
            DeployConfig(
                genesis_root=genesis_root(self.params),
                params=self.params,
                sequencer=self.signer.address,
                challenge_window_s=c.DAY_S,
                drift_max_s=600,
                bond_min_wei=BOND_WEI,
                bond_wei=BOND_WEI,
                delay_min_s=DELAY_MIN_S,
                takeover_s=DELAY_MIN_S // 64,
                data=data,
            ),
        )
        self.domain = codec.domain_separator(self.at.chain_id, to_bytes(self.at.rollup))
        for index, amount in DEPOSITS:
            wallet = Wallet(chain.rpc, devnet_signer(index), self.at)
            wallet.mint(amount)
            wallet.deposit_with_permit(amount)
        self.inbox = [message.record for message in self.follower().messages_after(0)]
        self._postings = 0

    def follower(self) -> Follower:
        """A fresh one."""
        return Follower(self.chain.rpc, self.at.inbox, self.at.rollup, self.at.deploy_block, 0)

    def perform(self, lie: Lie | None) -> tuple[LyingEngine, list[Batch]]:
        """The play with a lying engine, and its batches."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            log = SqliteLog(Path(name) / "log.sqlite")
            engine = LyingEngine(genesis_state(self.domain, self.params), lie)
            Play(engine, log, self.tape, self.inbox).run()
            made = batches_of(Path(name), log, genesis_root(self.params))
            log.close()
        # Whoever lies about the inbox has to name the Inbox's own hash all the same: Rollup takes no other.
        return engine, [replace(one, inbox_hash=self.inbox_hash(one.inbox_count)) for one in made]

    def inbox_hash(self, count: int) -> bytes:
        """The Inbox's, after so many of the messages that the play knows."""
        running = EMPTY_HASH
        for record in self.inbox[:count]:
            running = codec.inbox_hash(running, record)
        return running

    def post(self, made: list[Batch], late_s: int | None = None) -> None:
        """Posts the batches, each at its own time. `late_s`: that which takes the day's last messages so much after the
        deadline of the first of them, or rather before it.
        """
        self._postings += 1
        manager = TxManager(
            self.chain.rpc, self.signer, self.folder / f"posting-{self._postings}.sqlite", TxConfig()
        )
        config = PosterConfig(confirmations=0, in_blobs=self.at.in_blobs)
        posting = Poster(self.chain.rpc, manager, self.at.rollup, config)
        for one in made:
            self.chain.set_time(one.time_s)
            taken = int(ROLLUP.read(self.chain.rpc, self.at.rollup, "tip")[2])
            if late_s is not None and one.inbox_count > OPENING >= taken:
                self.chain.set_next_time(self.deadline_s(OPENING) + late_s)
            if not posting.offer(one):
                raise RuntimeError(f"batch {one.batch_id} was not taken")
            posting.drain(30.0)
            if posting.status().queued:
                raise RuntimeError(f"batch {one.batch_id}: {posting.status().reason}")
        manager.close()

    def refusal(self, one: Batch) -> str:
        """Why Rollup would not take a batch in calldata now; empty when it would."""
        self.chain.set_time(one.time_s)
        values = [getattr(one, name) for name in _BATCH_FIELDS]
        data = Contract(load("Rollup").abi).encode("post", *values)
        try:
            self.chain.rpc.eth_call(self.at.rollup, data, "latest", self.signer.address)
        except RpcReverted as error:
            return error.reason
        return ""

    def deadline_s(self, message: int) -> int:
        """Until when an inbox message must be taken."""
        return int(INBOX.read(self.chain.rpc, self.at.inbox, "deadline_at", message))

    def bond(self) -> None:
        """Makes up the bond, and leads again: nobody else is in the set."""
        data = Contract(load("Sequencers").abi).encode("join")
        Wallet(self.chain.rpc, self.signer, self.at).transact(
            "join", self.at.sequencers, data, value=BOND_WEI
        )

    def read(self, name: str) -> int:
        """A number of the Rollup's."""
        return int(Contract(load("Rollup").abi).read(self.chain.rpc, self.at.rollup, name))

    def watcher(
        self, challenger: Signer | None, name: str = "watcher", config: WatchConfig | None = None
    ) -> Watcher:
        """A watcher that knows the chain, the deployment and its own folder `name`, nothing else."""
        rpc, folder = self.chain.rpc, self.folder / name
        return Watcher(
            rpc,
            self.at,
            self.params,
            folder,
            config or WatchConfig(confirmations=0),
            None if challenger is None else Challenger(rpc, self.at, challenger, folder),
        )


_BATCH_FIELDS: Final = tuple(Batch.__dataclass_fields__)


def bent(made: list[Batch], lie: Lie) -> list[Batch]:
    """The batches with a lie in the header of one; what follows it fits its header."""
    return chained(
        lie.of(one) if one.batch_id == HEADER_LIE_BATCH and lie.of is not None else one for one in made
    )


def chained(made: Iterable[Batch]) -> list[Batch]:
    """The batches, each made to follow the one before it: Rollup takes no other."""
    out: list[Batch] = []
    for one in made:
        if out:
            last = out[-1]
            one = replace(one, first_seq=last.first_seq + last.records, pre_root=last.post_root)
        out.append(one)
    return out


def tell(
    name: str,
    chain_name: str = "pyevm",
    tape: Path | None = None,
    seed: int = 1,
    progress: Progress = lambda _stage, _done, _total: None,
    data: str = "calldata",
) -> LieReport:
    """Tells a lie and lets it be found."""
    with stage(chain_name, open_tape(tape, seed), data) as on:
        return tell_on(on, name, progress)


def tell_all(
    names: Iterable[str],
    chain_name: str = "pyevm",
    tape: Path | None = None,
    seed: int = 1,
    progress: Progress = lambda _stage, _done, _total: None,
    data: str = "calldata",
) -> Iterator[LieReport]:
    """Tells lies one after the other, each to the same deployment: the chain is taken back between them."""
    listed = list(names)
    with stage(chain_name, open_tape(tape, seed), data) as on:
        for done, name in enumerate(listed):
            progress("lies", done, len(listed))
            before = on.chain.snapshot()
            yield tell_on(on, name)
            on.chain.revert(before)
        progress("lies", len(listed), len(listed))


def tell_on(on: "Stage", name: str, progress: Progress = lambda _stage, _done, _total: None) -> LieReport:
    """Tells a lie on a stage where nothing has been posted yet."""
    began, lie = time.monotonic(), LIES[name]
    report = LieReport(name, lie.what, on.chain.name, on.at.data)
    progress("lie", 1, 5)
    _, made = on.perform(lie)
    told = bent(made, lie)
    report.batches, report.records = len(made), sum(one.records for one in made)
    if lie.refusal and not on.at.in_blobs:
        on.post(told[: HEADER_LIE_BATCH - 1])
        report.refused_by_l1 = on.refusal(told[HEADER_LIE_BATCH - 1])
    else:
        on.post(told, LATE_S if lie.is_late else None)
        progress("lie", 2, 5)
        watcher = on.watcher(devnet_signer(CHALLENGER), f"watcher-{name}")
        catch(on, watcher, report, progress)
        if report.rolled_back:
            execute_again(on, made, report)
            watcher.step()
            report.watcher_agrees = watcher.fault is None and watcher.batches == on.read("next_batch") - 1 > 0
        watcher.close()
    progress("lie", 5, 5)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def catch(on: Stage, watcher: Watcher, report: LieReport, progress: Progress) -> None:
    """Lets the watcher look until the wrong batch is gone."""
    for _ in range(LOOKS):
        watcher.step()
        if watcher.fault is not None and not report.caught:
            report.caught, report.fault = True, as_json(watcher.fault)
            progress("lie", 3, 5)
        if not report.caught or (
            watcher.challenged is not None and watcher.challenged.state in ("won", "failed")
        ):
            break
        on.chain.mine()
    challenged = watcher.challenged
    if challenged is None:
        return
    report.challenge_gas, report.challenge_bytes = challenged.gas, challenged.calldata_bytes
    report.error = challenged.why
    report.slashed = on.chain.rpc.balance(on.at.sequencers) == 0
    report.rolled_back = report.fault is not None and on.read("next_batch") == report.fault["batch"]
    watcher.step()
    progress("lie", 4, 5)


def execute_again(on: Stage, made: list[Batch], report: LieReport) -> None:
    """The sequencer, honest now: from the last right batch, all its records once more; what holds is posted."""
    right = on.read("next_batch") - 1
    state = genesis_state(on.domain, on.params)
    for one in made[:right]:
        for raw in _records([one]):
            apply(state, raw)
    start_batch, pre_root = right + 1, state.root()
    seq, taken = state.globals.seq, state.globals.inbox_count
    inbox = on.inbox[taken:]
    engine = Engine(state)
    entries: list[Entry] = []
    for time_s, records in [*_ticks(_records(made[right:])), (0, [_DEPOSIT] * len(inbox))]:
        # What the lying sequencer has made of the inbox is not to be believed; L1 has the messages.
        wanted = [
            inbox.pop(0) if raw[0] == Kind.DEPOSIT else raw
            for raw in records
            if raw[0] != Kind.DEPOSIT or inbox
        ]
        tick = engine.run(
            time_s,
            [raw for raw in wanted if class_of(raw) == c.CLASS_SYSTEM],
            [
                Submission(raw, None, of_class=class_of(raw))
                for raw in wanted
                if class_of(raw) != c.CLASS_SYSTEM
            ],
        )
        if tick.entry is not None:
            entries.append(tick.entry)
        results = tick.system + tick.results
        report.honest_records_kept += sum(1 for one in results if one.reason is Reason.OK)
        report.refused += [Reason(one.reason).name for one in results if one.reason is not Reason.OK]
    on.bond()
    on.post(_batches(on, entries, start_batch, pre_root, seq, taken))


_DEPOSIT: Final = bytes([Kind.DEPOSIT])
_MADE_ANEW: Final = (Kind.TICK, Kind.CONTINUE)


def _records(made: list[Batch]) -> list[bytes]:
    return [
        raw
        for one in made
        for segment in batches.decode(one.payload, one.segments)
        for raw in segment.records
    ]


def _ticks(records: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(time, records) of each tick; the first may have begun in the batch before."""
    time_s = 0
    waiting: list[bytes] = []
    for raw in records:
        if raw[0] == Kind.TICK:
            if waiting:
                yield time_s, waiting
            time_s, waiting = int.from_bytes(raw[1:5], "big"), []
        elif raw[0] not in _MADE_ANEW:
            waiting.append(raw)
    if waiting:
        yield time_s, waiting


def _batches(
    on: Stage, entries: list[Entry], batch_id: int, pre_root: bytes, seq: int, inbox_count: int
) -> list[Batch]:
    """Ticks as batches, from `batch_id` on."""
    out: list[Batch] = []
    waiting: list[Entry] = []
    for number, entry in enumerate(entries):
        waiting.append(entry)
        size = sum(len(raw) for one in waiting for raw in one.raws())
        if size < PAYLOAD_MAX_BYTES and number < len(entries) - 1:
            continue
        segments = [segment for one in waiting for segment in one.batch_segments()]
        records = sum(one.records for one in waiting)
        inbox_count += sum(1 for one in waiting for raw in one.raws() if raw[0] == Kind.DEPOSIT)
        payload = batches.encode(segments)
        out.append(
            Batch(
                *(batch_id + len(out), pre_root, entry.root, len(segments), records, seq, entry.time),
                *(inbox_count, on.inbox_hash(inbox_count), waiting[-1].segments[-1][2], payload),
            )
        )
        pre_root = entry.root
        seq += records
        waiting = []
    return out
