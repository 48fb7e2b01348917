"""Faults at random in a cluster under load, and what its traders were promised afterwards.

    python -m tests.simulation.cluster --faults 100 --seed 1 --json report.json [--planted NAME]

Three servers of the log, two nodes that may lead, one that reads, two gateways, a chain. Traders send signed orders
through the gateways, each again with the same bytes until it has an answer, and keep every receipt. Meanwhile processes
are killed and started again, stopped for longer than the lease, cut off from the log, slowed down, and clocks are put
wrong. At the end all is healed, and every receipt is looked for: in the log, once, at its number, under its header; and
on L1. `--planted`: a node with a bug in it (planted.py), which the run must find.

Long because what is broken, what has to hold after it, and how it is counted are one run.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from sequencer.development import devnet_params, receipt_key
from sequencer.errors import Busy, ConnectionFailed, FairstrikeError, OutcomeUnknown
from sequencer.l1.follower import Follower
from sequencer.local.bench import key_of, options
from sequencer.local.cluster import ClusterSettings, LocalCluster, Process
from sequencer.log.reader import LogReader
from sequencer.log.sqlite import LOG_FILE
from sequencer.protocol import codec, receipts
from sequencer.protocol import constants as c
from sequencer.protocol.batch import ids_in
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.queue.repeats import TOLD
from sequencer.sdk.http_client import HttpClient
from sequencer.sdk.receipts import ReceiptWrong, check_ack

from .proxies import Network
from .world import MID, World, option_name

TRADERS = 4
LEASE_S = 1.0
PAUSE_S = 0.02  # between a trader's orders
PATIENCE_S = 45.0  # for an answer; after it the outcome counts as unknown
QUIET_S = (0.5, 2.0)  # between faults
HEALS_S = (0.5, 4.0)  # of a fault
SETTLES_S = 60.0
REPEAT_S = 20.0
ENOUGH = 3  # wrong ones: the run has found something
REPEAT_EACH = 7  # of the answered records, one comes again
FAULTS = (
    *(
        "kill leader",
        "kill leader",
        "stop leader",
        "cut leader",
        "drop leader",
        "slow leader",
        "clock leader",
    ),
    *("kill standby", "stop standby", "cut standby", "kill server", "stop server", "kill gateway"),
    "kill leader and server",
)


@dataclass(slots=True)
class Report:
    """Counts of a run; everything between `receipts` and `faults` must be 0."""

    receipts: int = 0
    lost: int = 0  # receipts whose record is not in the log at its number, under its header
    not_on_l1: int = 0
    twice: int = 0  # records that were executed twice
    ticks_signed_twice: int = 0
    unknown: int = 0  # records without an answer
    refused: int = 0  # records that were refused by a rule: the first time was forgotten
    wrong: int = 0  # receipts that do not hold, and repeats that were answered otherwise
    unequal: int = 0  # nodes that give another state at the same place
    faults: dict[str, int] = field(default_factory=dict)
    terms: int = 0
    repeats: int = 0
    failover_s_median: float = 0.0
    failover_s_max: float = 0.0
    orders_per_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        bad = (self.lost, self.not_on_l1, self.twice, self.ticks_signed_twice, self.unknown, self.refused)
        return not any((*bad, self.wrong, self.unequal)) and not self.problems


@dataclass(slots=True)
class Answer:
    """What a trader was told of a record."""

    raw: bytes
    ack: dict[str, Any]
    header: receipts.Header
    seq: int
    at_s: float


class Trader(threading.Thread):
    """Sends orders one after the other, each until it is answered."""

    def __init__(self, number: int, load: "Load") -> None:
        super().__init__(name=f"trader-{number}", daemon=True)
        self._number, self._load = number, load
        self._draw = random.Random(number)
        self._clients: dict[str, HttpClient] = {}

    def run(self) -> None:
        try:
            nonce = 0
            while not self._load.ended.is_set():
                raw = self._load.order(self._number, nonce)
                self._send(raw)
                nonce += 1
                time.sleep(PAUSE_S)
        except Exception as error:  # noqa: BLE001  # the run must hear of it
            self._load.problems.append(f"{self.name}: {error!r}")
        finally:
            for client in self._clients.values():
                client.close()

    def _send(self, raw: bytes) -> None:
        load = self._load
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                ack = self._client().submit(raw)
            except (ConnectionFailed, OutcomeUnknown, Busy, OSError) as error:
                why = error
            except FairstrikeError as error:
                load.refused.append(f"{raw[:8].hex()}: {error}")
                return
            else:
                load.answered(raw, ack)
                return
            if time.monotonic() > until:
                load.unknown.append(f"{raw[:8].hex()}: {why!r}")
                return
            time.sleep(0.1)

    def _client(self) -> HttpClient:
        url = self._draw.choice([one for one in self._load.cluster.urls if one])
        if url not in self._clients:
            self._clients[url] = HttpClient(url, timeout_s=30.0)
        return self._clients[url]


class Load:
    """The traders, and what they were told."""

    def __init__(self, cluster: LocalCluster, world: World, instrument: int) -> None:
        self.cluster, self.world, self._instrument = cluster, world, instrument
        self.ended = threading.Event()
        self.answers: list[Answer] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.wrong: list[str] = []
        self.problems: list[str] = []
        self.repeats = 0
        self._key = address_of(public_key_of(receipt_key()))
        self._lock = threading.Lock()
        self._traders = [Trader(number, self) for number in range(TRADERS)]

    def order(self, number: int, nonce: int) -> bytes:
        side = c.BUY if number % 2 else c.SELL
        raw = codec.encode(
            Kind.PLACE, account=self.world.accounts[number], instrument=self._instrument, flags=side,
            price=MID, quantity=1 + nonce % 3, nonce=nonce, expires=0, fee_max=65_535,
        )  # fmt: skip
        return codec.sign(raw, self.world.domain, key_of(number))

    def answered(self, raw: bytes, ack: dict[str, Any]) -> None:
        at = self.world.deployment
        try:
            opened = check_ack(raw, ack, at.chain_id, at.rollup, {self._key})
        except ReceiptWrong as error:
            self.wrong.append(f"{raw[:8].hex()}: {error}")
            return
        with self._lock:
            self.answers.append(Answer(raw, ack, opened.header, ack["seq"], time.monotonic()))

    def start(self) -> None:
        for one in self._traders:
            one.start()

    def stop(self) -> None:
        self.ended.set()
        for one in self._traders:
            one.join(PATIENCE_S + 40)
            if one.is_alive():
                self.problems.append(f"{one.name} does not end")

    def repeat(self) -> None:
        """Sends some of the newest records once more: each must have the answer that it had.

        A node that has started since knows none of those before the last TOLD.
        """
        with contextlib.ExitStack() as ending:
            clients = [
                ending.enter_context(HttpClient(url, timeout_s=REPEAT_S)) for url in self.cluster.urls if url
            ]
            for place, one in enumerate(self.answers[-TOLD // 2 :: REPEAT_EACH]):
                if len(self.wrong) + len(self.unknown) >= ENOUGH:
                    return
                self.repeats += 1
                try:
                    ack = clients[place % len(clients)].submit(one.raw)
                except FairstrikeError as error:
                    self.wrong.append(f"repeat of {one.seq}: {error}")
                    continue
                if ack != one.ack:
                    self.wrong.append(f"repeat of {one.seq} was answered otherwise")


class Run:
    """One run of `faults` faults."""

    def __init__(self, folder: Path, seed: int, faults: int, planted: str = "") -> None:
        self.folder, self.faults = folder, faults
        self.draw = random.Random(seed)
        self.report = Report()
        self.network = Network()
        self.shift = folder / "shift"
        self.shift.write_text("0")
        self._struck: list[float] = []  # when a leader was struck
        module = ("tests.simulation.planted", planted or "none", str(self.shift))
        names = [option_name(day, strike, is_put) for _, day, strike, is_put in options(int(time.time()))]
        self.params = devnet_params(target_per_s=1_000_000, risk_age_max_s=86_400)
        self.settings = ClusterSettings(
            folder / "cluster", feed="flat:46000", listed=names, params=self.params, node_module=module,
            log_urls=self.network.urls,
            node_options=(
                *("--lease", str(LEASE_S), "--batch-interval", "0.5", "--poll", "0.1"),
                *("--snapshot-ticks", "200", "--rate", "1000000"),
            ),
        )  # fmt: skip

    async def run(self) -> Report:
        async with LocalCluster(self.settings) as cluster:
            world = await asyncio.to_thread(self._funded, cluster)
            load = Load(cluster, world, await asyncio.to_thread(self._instrument, cluster))
            mining = asyncio.create_task(self._mine(cluster))
            began = time.monotonic()
            load.start()
            await asyncio.sleep(2)
            for number in range(self.faults):
                await self._fault(cluster, number)
                await asyncio.sleep(self.draw.uniform(*QUIET_S))
            await self._heal(cluster)
            await asyncio.sleep(3)
            await asyncio.to_thread(load.stop)
            self.report.orders_per_s = round(len(load.answers) / (time.monotonic() - began), 1)
            await asyncio.to_thread(load.repeat)
            await self._settled(cluster, load)
            mining.cancel()
        await asyncio.to_thread(self._check, cluster, load)
        self.network.close()
        return self.report

    def _funded(self, cluster: LocalCluster) -> World:
        at = cluster.deployment
        domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
        world = World(self.settings.folder, cluster.chain, at, self.params, domain)
        for number in range(TRADERS):
            world.fund(number)
        cluster.chain.mine(2)
        return world

    def _instrument(self, cluster: LocalCluster) -> int:
        """The number of an option with marks, once all accounts are there."""
        with HttpClient(cluster.urls[0]) as client:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with contextlib.suppress(FairstrikeError):
                    if client.call("status")["accounts"] >= TRADERS:
                        for one in client.call("instruments"):
                            if client.call("ticker", instrument=one["instrument"])["marked_at"]:
                                return int(one["number"])
                time.sleep(0.2)
        raise TimeoutError("no marks")

    async def _mine(self, cluster: LocalCluster) -> None:
        while True:
            await asyncio.to_thread(cluster.chain.mine, 1)
            await asyncio.sleep(0.5)

    # --- faults ---------------------------------------------------------------------------------

    async def _fault(self, cluster: LocalCluster, number: int) -> None:
        kind = self.draw.choice(FAULTS)
        heals_s = self.draw.uniform(*HEALS_S)
        self.report.faults[kind] = self.report.faults.get(kind, 0) + 1
        print(f"{number + 1}/{self.faults}: {kind}, {heals_s:.1f} s", file=sys.stderr, flush=True)
        await asyncio.to_thread(self._strike, cluster, kind, heals_s)

    def _strike(self, cluster: LocalCluster, kind: str, heals_s: float) -> None:
        what, _, whom = kind.partition(" ")
        leader = cluster.leader or cluster.nodes[0]
        standby = next(one for one in cluster.nodes if one is not leader)
        if whom.startswith("leader"):
            self._struck.append(time.monotonic())
        if whom == "leader and server":
            self._kill_server(cluster, heals_s / 2)
        if whom.endswith("server") and whom == "server":
            server = self.draw.choice(cluster.servers)
            if what == "kill":
                self._kill_server(cluster, heals_s)
            else:
                server.pause()
                time.sleep(LEASE_S + heals_s)
                server.resume()
            return
        process: Process = standby
        if whom.startswith("leader"):
            process = leader
        elif whom == "gateway":
            process = self.draw.choice(cluster.gateways)
        if what == "kill":
            process.kill()
            time.sleep(heals_s)
            process.start()
        elif what == "stop":
            process.send(signal.SIGSTOP)
            time.sleep(2 * LEASE_S + heals_s)
            process.send(signal.SIGCONT)
        elif what == "cut":
            self.network.cut(process.name, True)
            time.sleep(2 * LEASE_S + heals_s)
            self.network.cut(process.name, False)
        elif what == "drop":
            self.network.drop(process.name)
        elif what == "slow":
            self.network.delay(process.name, self.draw.uniform(0.01, 0.3))
            time.sleep(heals_s)
            self.network.delay(process.name, 0.0)
        elif what == "clock":
            self.shift.write_text(str(self.draw.choice((-3600, -20, 20, 3600))))
            time.sleep(heals_s)
            self.shift.write_text("0")

    def _kill_server(self, cluster: LocalCluster, heals_s: float) -> None:
        server = self.draw.choice(cluster.servers)
        server.kill()
        time.sleep(heals_s)
        server.start()
        server.wait_ready()

    async def _heal(self, cluster: LocalCluster) -> None:
        for one in cluster.processes:
            one.send(signal.SIGCONT)
            if not one.is_running:
                self.report.problems.append(f"{one.name} has ended: {one.log_path.read_text()[-1500:]}")
                await asyncio.to_thread(one.start)

    # --- what must hold -------------------------------------------------------------------------

    async def _settled(self, cluster: LocalCluster, load: Load) -> None:
        """Waits until all nodes are level, and all that was receipted is on L1."""
        at = cluster.deployment
        follower = Follower(cluster.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
        last = max((one.header.tick for one in load.answers), default=0)
        until = time.monotonic() + SETTLES_S
        ids: list[bytes] = []
        while time.monotonic() < until:
            batches = await asyncio.to_thread(lambda: list(follower.batches(0)))
            ids = [one for batch in batches for one in ids_in(batch.payload, batch.segments, batch.ticks)]
            if len(ids) >= last:
                break
            await asyncio.sleep(0.5)
        for one in load.answers:
            if len(ids) < one.header.tick or ids[one.header.tick - 1] != one.header.id:
                self.report.not_on_l1 += 1
        ends: list[int] = []
        while time.monotonic() < until:
            ends = [self._end_of(node) for node in (*cluster.nodes, *cluster.readers)]
            if min(ends) > 0 and max(ends) - min(ends) <= 2:
                break
            await asyncio.sleep(0.5)
        else:
            self.report.problems.append(f"the nodes' logs end at {ends}")

    def _end_of(self, node: Process) -> int:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(self._log_of(node))) as db,
        ):
            return LogReader(db).end
        return 0

    def _log_of(self, node: Process) -> Path:
        return self.settings.folder / f"node-{node.name}" / LOG_FILE

    def _check(self, cluster: LocalCluster, load: Load) -> None:
        report = self.report
        report.receipts, report.repeats = len(load.answers), load.repeats
        report.unknown, report.refused, report.wrong = len(load.unknown), len(load.refused), len(load.wrong)
        report.problems += [*load.problems, *load.unknown[:3], *load.refused[:3], *load.wrong[:3]]
        logs = [self._read(node) for node in (*cluster.nodes, *cluster.readers)]
        records, heads, roots = logs[0]
        for one in load.answers:
            if records.get(one.seq) != one.raw or heads.get(one.header.tick) != one.header.id:
                report.lost += 1
        report.twice = sum(
            count - 1 for count in Counter(raw for raw in records.values() if raw[0] == Kind.PLACE).values()
        )
        signed: dict[int, set[bytes]] = {}
        for one in load.answers:
            signed.setdefault(one.header.tick, set()).add(one.header.id)
        report.ticks_signed_twice = sum(len(ids) - 1 for ids in signed.values())
        for _, _, others in logs[1:]:
            shared = min(len(roots), len(others))
            report.unequal += roots[:shared] != others[:shared]
        report.terms = max((one.header.term for one in load.answers), default=0)
        self._count_failovers(load)

    def _read(self, node: Process) -> tuple[dict[int, bytes], dict[int, bytes], list[bytes]]:
        """A node's log: record by number, id of the header by tick, root by offset."""
        records, heads, roots = {}, {}, []
        with contextlib.closing(sqlite3.connect(self._log_of(node))) as db:
            for entry in LogReader(db).read(0):
                roots.append(entry.root)
                for place, raw in enumerate(entry.raws()):
                    records[entry.first_seq + place] = raw
                for head in entry.heads:
                    if len(head) > receipts.ID_BYTES:
                        header = receipts.load(head)
                        heads[header.tick] = header.id
        return records, heads, roots

    def _count_failovers(self, load: Load) -> None:
        """From each blow to a leader to the first receipt of the next term, where there was one."""
        answers = sorted(load.answers, key=lambda one: one.at_s)
        taken = []
        for before, after in pairwise(answers):
            if after.header.term > before.header.term:
                blows = [at_s for at_s in self._struck if at_s <= after.at_s]
                since = blows[-1] if blows else before.at_s
                taken.append(after.at_s - min(since, after.at_s))
        if taken:
            self.report.failover_s_median = round(median(taken), 2)
            self.report.failover_s_max = round(max(taken), 2)


def simulate(seed: int, faults: int, planted: str = "", keep: bool = False) -> tuple[Report, Path]:
    """A run in a folder of its own, which is kept when something did not hold."""
    folder = Path(tempfile.mkdtemp(prefix="fairstrike-cluster-"))
    report = asyncio.run(Run(folder, seed, faults, planted).run())
    if report.is_good and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return report, folder


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults at random in a cluster under load.")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--planted", default="")
    parser.add_argument("--json", default="")
    given = parser.parse_args()
    report, folder = simulate(given.seed, given.faults, given.planted)
    text = json.dumps(asdict(report), indent=2)
    if given.json:
        Path(given.json).write_text(text)
    print(text)
    if not report.is_good:
        print(f"did not hold: see {folder}", file=sys.stderr)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
