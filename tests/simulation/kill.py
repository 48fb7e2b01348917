"""Kills the sequencer with SIGKILL at random moments under load, and looks whether anything was lost or done twice.

    python -m tests.simulation.kill --kills 200 --seed 1 --json report.json

In some lives its L1 process is killed first, and the sequencer has to go on with another. After each kill the log as it
lies on the disk is read on (a copy: the next start must do its own recovery) and replayed into a state that was never
interrupted. A client then does what a client must: it sends again what it has no answer to; what was executed has the
answer that was lost, receipt included. Records that were answered come again, too, in any later life, and have the same
answer. At the end all is posted, and the state is rebuilt from L1 alone. One seed gives one sequence of orders and
moments.

Long because what is killed, what has to hold after it, and how it is counted are one run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sequencer.contracts import load
from sequencer.engine.engine import ReplayError, replay
from sequencer.errors import REFUSAL_BASE
from sequencer.genesis import genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.follower import Follower
from sequencer.l1.rpc import to_bytes
from sequencer.log.interface import LogError
from sequencer.log.sqlite import SqliteLog
from sequencer.proof.replay import replay as replay_posted
from sequencer.protocol import cmap
from sequencer.protocol import constants as c
from sequencer.protocol.codec import LAYOUTS, Record, decode
from sequencer.protocol.constants import Reason
from tests.history.compare import assert_is_of_log
from tests.history.compare import content as history_of

from .faulty_node import POINTS
from .world import RECEIPT_KEY, Client, Node, World, order, withdrawal

HISTORY = "history.sqlite"
TRADERS = 8
OUTSTANDING = 12
WITHDRAWAL_EACH = 25
REFUSAL_EACH = 31  # a quantity of none
STARTING_SHARE = 0.2  # of the kills: before the process listens
STARTING_S = 0.7
SERVING_S = 0.25
L1_KILLED_SHARE = (
    0.4  # of the lives that serve: its L1 process is killed, perhaps again, and it lives on for longer
)
SERVING_ON_S = 2.5
SEND_AGAIN_S = 0.02
POINT_WAIT_S = 2.5
TOLD_KEPT = 400  # answers, to be compared with those of later lives
REPEATS = 8  # of them in a life
SIGNED_BYTES_MIN = 93
SPENT = (REFUSAL_BASE + Reason.NONCE_USED, REFUSAL_BASE + Reason.NONCE_WINDOW)


@dataclass(slots=True)
class Report:
    """Counts over the whole run. `lost`: acknowledged and not in the log at its place."""

    seed: int
    kills: int = 0
    kills_while_starting: int = 0
    kills_at_points: int = 0
    kills_of_l1_processes: int = 0
    points: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    acked: int = 0
    refused: int = 0
    sent_again: int = 0
    sent_again_and_executed_before: int = 0
    repeats_compared: int = 0  # records that came again after their answer, in a later life
    lost: int = 0
    executed_twice: int = 0
    refused_and_executed: int = 0
    recoveries_compared: int = 0
    histories_compared: int = 0  # after a kill; those that lacked ticks of the log
    histories_behind: int = 0
    history_orders: int = 0
    log_entries: int = 0
    records: int = 0
    withdrawals: int = 0
    withdrawals_proven: int = 0
    batches: int = 0
    batches_posted_twice: int = 0
    post_transactions: int = 0
    next_batch: int = 0
    root: str = ""
    root_of_log: str = ""
    root_of_l1: str = ""
    roots_equal: bool = False
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not self.failures and self.roots_equal


class Simulation:
    """One run."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.report = Report(seed)
        self.instruments: list[int] = []
        self.acked: dict[int, bytes] = {}
        self.refused: dict[bytes, int] = {}
        self.open: dict[bytes, bytes] = {}  # sent, and no answer yet: record -> signer
        self.told: dict[bytes, tuple[bytes, dict[str, Any]]] = {}  # the latest: record -> signer, answer
        self.free_nonces: list[list[int]] = [[] for _ in world.accounts]
        self.next_nonce = [0] * len(world.accounts)
        self.numbers = 0
        # what a replay of the log from genesis gives
        self.state = genesis_state(world.domain, world.params)
        self.offset = 0
        self.head_hash = b""
        self.seq_of: dict[bytes, int] = {}
        self.signed_at: dict[int, bytes] = {}
        self.roots: dict[int, bytes] = {0: self.state.root()}
        self.recovered: list[tuple[int, str]] = []

    def fail(self, what: str) -> None:
        self.report.failures.append(f"seed {self.report.seed}, kill {self.report.kills}: {what}")

    # --- load ---------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Funds, listings, marks."""
        node = self.world.start_node(receipt_key=RECEIPT_KEY)
        client = await node.connect()
        assert client is not None, self.world.log_tail()
        await client.until(lambda one: one["accounts"] == TRADERS and one["instruments"] == 8, 30, "accounts")
        self.instruments = [one["number"] for one in await client.ask("instruments")]
        while (await client.ask("ticker", instrument=self.instruments[-1]))["marked_at"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        client.close()
        node.kill()

    def fresh(self) -> tuple[bytes, bytes]:
        """A signed order that was never sent."""
        number = self.numbers
        self.numbers += 1
        place = number // 4 % len(self.free_nonces)
        if self.free_nonces[place]:
            nonce = self.free_nonces[place].pop()
        else:
            nonce = self.next_nonce[place]
            self.next_nonce[place] += 1
        world = self.world
        if number % WITHDRAWAL_EACH == 0:
            return withdrawal(world.domain, place, world.accounts[place], nonce)
        return order(
            world.domain,
            place,
            world.accounts[place],
            nonce,
            self.instruments[number // 4 % len(self.instruments)],
            number,
            is_good=number % REFUSAL_EACH != 0,
        )

    async def load(self, client: Client) -> None:
        """Orders until the sequencer is gone; first what has no answer."""
        again = list(self.open.items())
        self.dice.shuffle(again)
        self.report.sent_again += len(again)
        repeated = {raw for raw, _ in again}
        answered = self.dice.sample(sorted(self.told), min(REPEATS, len(self.told)))
        again += [(raw, self.told[raw][0]) for raw in answered]
        while not client.lost.is_set():
            room = OUTSTANDING - len(client.waiting)
            batch = [again.pop() for _ in range(min(room, len(again)))]
            while len(batch) < room:
                one = self.fresh()
                self.open[one[0]] = one[1]
                batch.append(one)
            if batch:
                self.report.sent += len(batch)
                client.submit(batch)
            client.answered.clear()
            if not client.answers:
                await client.answered.wait()
            busy = self.take_answers(client, repeated)
            if busy:  # as it is told to
                again += [(raw, self.open.get(raw) or self.told[raw][0]) for raw in busy]
                await asyncio.sleep(SEND_AGAIN_S)
        self.take_answers(client, repeated)

    def take_answers(self, client: Client, repeated: set[bytes]) -> list[bytes]:
        """Orders that are to be sent again, as none were taken."""
        busy = []
        while client.answers:
            raw, ok, body = client.answers.popleft()
            if raw in self.told:
                if not ok and body["code"] < REFUSAL_BASE:
                    busy.append(raw)
                    continue
                self.report.repeats_compared += 1
                if not ok or body != self.told[raw][1]:
                    self.fail(f"a record was answered {self.told[raw][1]}, and then {body}")
            elif ok:
                if body["seq"] in self.acked:
                    self.fail(f"seq {body['seq']} was acknowledged twice")
                self.acked[body["seq"]] = raw
                self.report.acked += 1
                self.told[raw] = self.open.pop(raw), body
                if len(self.told) > TOLD_KEPT:
                    del self.told[next(iter(self.told))]
                if (seq := self.seq_of.get(raw)) is not None:
                    self.report.sent_again_and_executed_before += 1
                    if seq != body["seq"]:
                        self.fail(f"record {seq} came again, and is acknowledged as {body['seq']}")
                if "receipt" not in body:
                    self.fail(f"record {body['seq']} is acknowledged without a receipt")
            elif body["code"] in SPENT and raw in repeated:
                del self.open[raw]
                if raw in self.seq_of:
                    self.fail(f"record {self.seq_of[raw]} came again, and is refused with {body['code']}")
                else:
                    self.report.lost += 1
                    self.fail("the nonce of an order is spent, and the order is not in the log")
            elif body["code"] < REFUSAL_BASE:
                busy.append(raw)
            else:
                self.report.refused += 1
                self.refused[raw] = body["code"]
                del self.open[raw]
                place = self.world.accounts.index(int.from_bytes(raw[1:5], "big"))
                if body["code"] not in SPENT:
                    self.free_nonces[place].append(nonce_of(raw))
        return busy

    # --- kills --------------------------------------------------------------------------------------

    async def live(self, fault: tuple[str, int] | None) -> None:
        """One life of the process, from its start to its end."""
        dice = self.dice
        while_starting = fault is None and dice.random() < STARTING_SHARE
        delay_s = dice.uniform(0, STARTING_S) if while_starting else dice.uniform(0, SERVING_S)
        kills_l1 = fault is None and not while_starting and dice.random() < L1_KILLED_SHARE
        if kills_l1:
            delay_s += dice.uniform(0, SERVING_ON_S)
        node = self.world.start_node(fault, receipt_key=RECEIPT_KEY)
        killing: asyncio.Task[int] | None = None
        if while_starting:
            ending = asyncio.create_task(_kill_later(node, delay_s))
            client = await node.connect()
        else:
            client = await node.connect()
            ending = asyncio.create_task(_kill_later(node, POINT_WAIT_S if fault else delay_s))
            if kills_l1:
                killing = asyncio.create_task(_kill_l1_processes(node, dice.uniform(0, delay_s)))
        if client is not None:
            try:
                status = await client.ask("status")
                self.recovered.append((status["seq"], status["root"]))
                await self.load(client)
            except ConnectionError:
                pass
            client.close()
        elif while_starting:
            self.report.kills_while_starting += 1
        elif fault is None:
            self.fail(f"the sequencer did not start:\n{self.world.log_tail()}")
        killed_by_us = await ending
        if killing is not None:
            self.report.kills_of_l1_processes += await killing
        self.report.kills += 1
        if fault is not None:
            self.report.kills_at_points += 1
            self.report.points.setdefault(fault[0], 0)
            self.report.points[fault[0]] += not killed_by_us

    def check(self) -> None:
        """Reads the log on from where the last check ended, and compares it with what clients were told."""
        with tempfile.TemporaryDirectory(dir=self.world.folder) as name:
            copy = Path(name)
            for path in (*self.world.data.glob("log.sqlite*"), *self.world.data.glob(f"{HISTORY}*")):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, copy)
            if (copy / HISTORY).exists():
                self._check_history(copy)
            try:
                self._read_on(SqliteLog(copy / "log.sqlite"))
            except (LogError, ReplayError, sqlite3.Error) as error:
                self.fail(f"the log does not replay: {error}")
        for seq, raw in self.acked.items():
            if self.signed_at.get(seq) != raw:
                self.report.lost += 1
                self.fail(f"seq {seq} was acknowledged and is not in the log with this order")
        self.acked.clear()  # compared; that entries stay as they are is checked by the hash of the head
        for raw, code in self.refused.items():
            if raw in self.seq_of:
                self.report.refused_and_executed += 1
                self.fail(f"an order was refused with {code} and is in the log at {self.seq_of[raw]}")
        for seq, root in self.recovered:
            if seq in self.roots:
                self.report.recoveries_compared += 1
                if "0x" + self.roots[seq].hex() != root:
                    self.fail(f"the sequencer recovered a root at seq {seq} that a replay does not give")
        self.recovered.clear()

    def _check_history(self, folder: Path) -> None:
        """As the kill has left it, every row is sound, and none is of a tick that the log does not have."""
        try:
            ((next_seq, offset, log_hash),) = history_of(folder)["meta"] or [(0, 0, "")]
        except sqlite3.OperationalError:  # killed before its tables were there
            return
        except (AssertionError, sqlite3.Error) as error:
            self.fail(f"the history is damaged: {error!r}")
            return
        log = SqliteLog(folder / "log.sqlite")
        if offset > log.end or (offset and log.hash_before(offset).hex() != log_hash):
            self.fail(
                f"the history stands at log entry {offset}, record {next_seq}; the log ends at {log.end}"
            )
        self.report.histories_behind += offset < log.end
        self.report.histories_compared += 1
        log.close()

    def _read_on(self, log: SqliteLog) -> None:
        try:
            if self.offset > log.end:
                self.fail(f"the log ends at {log.end}, it had {self.offset} entries before")
                return
            if self.offset and log.hash_before(self.offset) != self.head_hash:
                self.fail(f"log entry {self.offset - 1} is not what it was")
            for entry in log.read(self.offset):
                replay(self.state, entry)
                seq = entry.first_seq
                for raw in entry.raws():
                    if len(raw) >= SIGNED_BYTES_MIN:
                        if raw in self.seq_of:
                            self.report.executed_twice += 1
                            self.fail(f"the record at seq {seq} stands at {self.seq_of[raw]}, too")
                        self.seq_of[raw] = seq
                        self.signed_at[seq] = raw
                    seq += 1
                self.roots[self.state.globals.seq] = self.state.root()
                self.offset += 1
            self.head_hash = log.hash_before(log.end)
        finally:
            log.close()

    # --- end ----------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Posts all that there is, ends in order, and rebuilds the state from L1."""
        world, report = self.world, self.report
        node = world.start_node(feed="none", receipt_key=RECEIPT_KEY)
        client = await node.connect()
        if client is None:
            self.fail(f"the sequencer did not start:\n{world.log_tail()}")
            return
        await client.until(
            lambda one: self._all_in_batches(one["log_end"])
            and one["batches_posted"] == one["batches_stored"],
            300,
            "all batches on L1",
        )
        status = await client.ask("status")
        self.recovered.append((status["seq"], status["root"]))
        proofs = [await client.ask("withdrawal", number=number) for number in range(status["withdrawals"])]
        client.close()
        code = await asyncio.to_thread(node.terminate)
        if code:
            self.fail(f"SIGTERM ended it with status {code}:\n{world.log_tail()}")
        self.check()
        report.root = status["root"]
        report.root_of_log = "0x" + self.state.root().hex()
        report.log_entries = self.offset
        report.records = self.state.globals.seq
        log = SqliteLog(world.data / "log.sqlite")
        try:
            found = assert_is_of_log(world.data, log, genesis_state(world.domain, world.params))
            report.history_orders = len(found["orders"])
        except AssertionError as error:
            self.fail(f"the history is not what the log gives: {error}")
        log.close()
        self._compare_l1(proofs)
        report.roots_equal = report.root == report.root_of_log == report.root_of_l1

    def _all_in_batches(self, log_end: int) -> bool:
        db = sqlite3.connect(f"file:{self.world.data / 'batches.sqlite'}?mode=ro", uri=True)
        try:
            row = db.execute("SELECT next_offset FROM batches ORDER BY id DESC LIMIT 1").fetchone()
        finally:
            db.close()
        return row is not None and row[0] == log_end

    def _compare_l1(self, proofs: list[dict[str, Any]]) -> None:
        world, report = self.world, self.report
        at, rpc = world.deployment, world.chain.rpc
        rollup = Contract(load("Rollup").abi)
        follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0)
        posted = list(follower.batches(at.deploy_block))
        report.batches = len(posted)
        report.next_batch = int(rollup.read(rpc, at.rollup, "next_batch"))
        if [one.batch_id for one in posted] != list(range(1, report.next_batch)):
            self.fail(f"batch ids on L1 have gaps or come twice, next_batch is {report.next_batch}")
        self._check_proofs(proofs, {one.batch_id: one.post_root for one in posted})
        calls = posts(world)
        report.post_transactions = sum(calls.values())
        report.batches_posted_twice = sum(count - 1 for count in calls.values())
        if report.batches_posted_twice:
            self.fail(f"posted twice: {[one for one, count in calls.items() if count > 1]}")
        try:
            report.root_of_l1 = "0x" + replay_posted(posted, world.domain, world.params).final_root.hex()
        except ReplayError as error:
            self.fail(f"what L1 holds does not replay: {error}")

    def _check_proofs(self, proofs: list[dict[str, Any]], roots: dict[int, bytes]) -> None:
        """Every withdrawal can be claimed under the root of the batch that it names."""
        self.report.withdrawals = len(proofs)
        for number, one in enumerate(proofs):
            value = int(one["owner"], 16) << 64 | one["amount"]
            path = cmap.Path(int(one["bitmap"], 16), tuple(to_bytes(part) for part in one["siblings"]))
            root = roots.get(one["batch_id"], b"")
            if one["posted"] and cmap.read(root, c.KEY_WITHDRAWAL | number, value, path):
                self.report.withdrawals_proven += 1
            else:
                self.fail(f"withdrawal {number} has no proof under batch {one['batch_id']}")


def posts(world: World) -> Counter[int]:
    """Mined transactions that call Rollup.post, by batch id, reverted ones too."""
    function = Contract(load("Rollup").abi).function("post")
    found: Counter[int] = Counter()
    rpc = world.chain.rpc
    for number in range(world.deployment.deploy_block, rpc.block_number() + 1):
        for one in rpc.call("eth_getBlockByNumber", hex(number), True)["transactions"]:
            data = to_bytes(one["input"])
            if (one.get("to") or "").lower() == world.deployment.rollup.lower() and data[
                :4
            ] == function.selector:
                found[int(function.decode_input(data)[0])] += 1
    return found


def nonce_of(raw: bytes) -> int:
    record = decode(raw, bytes(32), bytes(20))
    assert isinstance(record, Record)
    names = [name for name, _ in LAYOUTS[record.kind].fields]
    return int(record.fields[names.index("nonce")])


async def _kill_later(node: Node, delay_s: float) -> bool:
    """Kills it after `delay_s`, unless it ends by itself before; whether it was killed from here."""
    until = time.monotonic() + delay_s
    while node.is_alive and time.monotonic() < until:  # noqa: ASYNC110  # a process sets no Event
        await asyncio.sleep(min(0.005, max(0.0, until - time.monotonic())))
    alive = node.is_alive
    node.kill()
    return alive


async def _kill_l1_processes(node: Node, each_s: float) -> int:
    """Kills its L1 process, and the next one, each `each_s` after it is there, until the node ends; how many."""
    killed = 0
    while node.is_alive:
        number = node.l1_process()
        await asyncio.sleep(each_s if number is not None else 0.02)
        if number is not None and node.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
                killed += 1
    return killed


async def simulate(kills: int, points: list[str], seed: int, folder: Path) -> Report:
    """`kills` at random moments and one at each of `points`, in random order; the report, with what did not hold."""
    began = time.monotonic()
    world = await asyncio.to_thread(World.build, folder, TRADERS)
    try:
        run = Simulation(world, seed)
        await run.prepare()
        run.check()
        plan: list[tuple[str, int] | None] = [None] * kills
        plan += [(point, run.dice.randint(1, POINTS[point][1])) for point in points]
        run.dice.shuffle(plan)
        for done, fault in enumerate(plan, 1):
            await run.live(fault)
            await asyncio.to_thread(run.check)
            if run.report.failures:
                break
            if sys.stderr.isatty():
                print(f"\r{done}/{len(plan)} kills, {run.report.acked} acks", end="", file=sys.stderr)
        if not run.report.failures:
            try:
                await run.finish()
            except (AssertionError, ConnectionError) as error:
                run.fail(f"the end: {error}\n{world.log_tail()}")
        run.report.seconds = round(time.monotonic() - began, 1)
        return run.report
    finally:
        await asyncio.to_thread(world.stop)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument(
        "--points", type=int, default=1, help="rounds of kills at each named point, in addition"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep everything here; a temporary one when not given")
    parser.add_argument("--json", type=Path, dest="target", help="write the report here, too")
    given = parser.parse_args()
    points = list(POINTS) * given.points
    with tempfile.TemporaryDirectory(prefix="fairstrike-kill-") as name:
        report = asyncio.run(simulate(given.kills, points, given.seed, given.folder or Path(name)))
    text = json.dumps(asdict(report), indent=2)
    if given.target is not None:
        given.target.write_text(text + "\n")
    print(text)
    if not report.held:
        sys.exit(f"did not hold; again with --seed {given.seed}")


if __name__ == "__main__":
    main()
