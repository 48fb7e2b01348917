"""The stage of the lies: a chain with the contracts and the play's deposits, and what is reported of a lie."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sequencer.contracts import load
from sequencer.development import devnet_params
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
from sequencer.local.play import DEPOSITS, OPENING, Play, batches_of
from sequencer.log.sqlite import SqliteLog
from sequencer.market.tape import Tape
from sequencer.proof.challenger import Challenger
from sequencer.proof.watcher import WatchConfig, Watcher
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.rollup.batcher import EMPTY_HASH

SEQUENCER: Final = 0
CHALLENGER: Final = 8
BOND_WEI: Final = 10**18
DELAY_MIN_S: Final = 7_200
LATE_S: Final = DELAY_MIN_S + 1  # past a deadline: what is fraud

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class LieReport:
    """What became of a lie. `refused`: why records of the batches rolled back did not hold in the honest execution.

    `refused_by_l1`: why Rollup did not even take the batch; told of a lie that is one where L1 cannot see the payload.
    `is_receipt`: it is told in a receipt, whose holder takes the bond; no batch is rolled back for it.
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
    is_receipt: bool = False

    @property
    def held(self) -> bool:
        """Whether all went as it must."""
        if self.refused_by_l1:
            return self.data == "calldata" and self.refused_by_l1 == LIES[self.lie].refusal
        if self.is_receipt:
            return self.caught and self.slashed
        was_undone = self.caught and self.slashed and self.rolled_back and self.watcher_agrees
        return was_undone and self.honest_records_kept > 0


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


_BATCH_FIELDS: Final = tuple(
    name for name in Batch.__dataclass_fields__ if name != "ticks"
)  # as `post` takes them
