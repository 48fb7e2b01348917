"""How fast it is: signed orders a second from WebSocket to acknowledgement, beside what one core recovers signers at.

The load comes from a process of its own, over the public port: pre-signed records in binary frames, a fixed number
outstanding, or as many a second as are asked for (`offered`). The exchange is the real one: durable log, matching,
margin, a root after each order, batches stored. The second part is the engine alone, at growing numbers of accounts.

Long because the loads, the report and what each process has spent on them are one measurement.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from sequencer import _compiled
from sequencer.development import FEEDS, devnet_params, feed_key, receipt_key
from sequencer.engine.engine import Engine, Submission
from sequencer.genesis import genesis_state
from sequencer.keeper.keeper import Keeper, Terms
from sequencer.local.bench_stages import stages_of
from sequencer.local.devnet import Devnet, DevnetConfig, wait_for
from sequencer.log.interface import Entry
from sequencer.market.flat import FlatSource
from sequencer.protocol import codec, receipts
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, keccak, public_key_of, recover, sign
from sequencer.protocol.outcome import Fill, Outcome
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.queue.driver import DriverConfig, TickTimes
from sequencer.queue.intake import IntakeLimits
from sequencer.queue.receipts import Issuer
from sequencer.wire.receipts import with_receipt

INDEX_TICKS = 4_600_000
CASH = 1_000_000_000_000
STRIKES = (4_400_000, 4_600_000, 4_800_000, 5_000_000)
ACCOUNTS_SIGNING = 64
RECOVERIES = 4_000
ENGINE_ORDERS = 4_000
LIGHT_ORDERS = 2_000
WARM_UP_ORDERS = (
    512  # processes and threads that begin with the first order do so before anything is measured
)
RECEIPT_RECORDS = 512  # of the tick by which receipts are measured
LOG_SERVERS = 3
OFFERED_S = 10  # how long orders are offered at a rate
OFFERED_CONNECTIONS = 32  # so that what an exchange leaves waiting is late, and not refused
CHECKED_S = 300.0  # in which the second check of all signatures has to come to its end
THREADS = ("MainThread", "log", "history", "signatures")  # of the sequencer, by how their names begin
Progress = Any


def options(now_s: int) -> list[Terms]:
    """Eight options that expire in a month."""
    day = now_s // c.DAY_S + 30
    return [(0, day, strike, is_put) for strike in STRIKES for is_put in (False, True)]


def key_of(number: int) -> bytes:
    """Private key of load account `number`."""
    return keccak(b"fairstrike load %d" % number)


def owner_of(number: int) -> bytes:
    """Its address."""
    return address_of(public_key_of(key_of(number)))


def signed_orders(
    count: int, accounts: list[int], instruments: list[int], domain: bytes, first: int = 0
) -> list[bytes]:
    """Pre-signed orders: of each four, two rest post-only beside the market and two cross it with IOC.

    The accounts take turns, so that their nonces stay inside the window however the ticks sort them. `first`: how many
    orders have been made before.
    """
    out = []
    mids = dict.fromkeys(instruments, 200000)
    for i in range(first, first + count):
        turn, place = divmod(i, len(accounts))
        instrument = instruments[i // 4 % len(instruments)]
        mid = mids[instrument]
        step = i % 4
        side = (c.BUY, c.SELL)[step % 2]
        if step < 2:
            price = mid + (200 if side else -200) + (i % 50) * (1 if side else -1)
            flags = side | c.FLAG_POST_ONLY
            quantity = 20
        else:
            price = mid + (400 if side == c.BUY else -400)
            flags = side | c.TIF_IOC << c.FLAG_TIF_SHIFT
            quantity = 15
        raw = codec.encode(
            Kind.PLACE,
            account=accounts[place],
            instrument=instrument,
            flags=flags,
            price=price,
            quantity=quantity,
            nonce=turn,
            expires=0,
            fee_max=65_535,
        )
        out.append(codec.sign(raw, domain, key_of(place)))
    return out


def ecrecover_per_s() -> float:
    """Signers recovered a second on one core, median of five rounds."""
    digests = [keccak(b"%d" % i) for i in range(64)]
    signatures = [sign(digest, key_of(1)) for digest in digests]
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        for i in range(RECOVERIES // 5):
            recover(digests[i & 63], signatures[i & 63])
        rates.append(RECOVERIES / 5 / (time.perf_counter() - began))
    return median(rates)


def fsync_per_s(folder: Path) -> float:
    """Small durable writes a second in `folder`, median of three rounds."""
    rates = []
    with (folder / "fsync-probe").open("wb") as file:
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(50):
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
            rates.append(50 / (time.perf_counter() - began))
    return median(rates)


@dataclass(slots=True)
class BenchReport:
    """Rates per second, times as named.

    `ack_ms_*`: with `offered_per_s` orders a second sent at a constant rate, each timed from when it was due; without,
    with `outstanding` orders on their way at all times. `checked_again_per_s`: signatures that were recovered a second
    time, a second of the heavy load; `checked_again_left` of its orders had not been when the last was acknowledged,
    and `checked_again_behind_s` later they had. `offered_stages_ms`: median and 99th percentile of what an offered
    order spends in the sequencer, in all and by stage (`stages_of`); the rest of `ack_ms_*` is gateway and network.
    """

    orders_per_s: float = 0.0
    ecrecover_per_s: float = 0.0
    ratio_to_ecrecover: float = 0.0
    ack_ms_p50: float = 0.0
    ack_ms_p99: float = 0.0
    offered_per_s: int = 0
    with_receipts: bool = False
    orders_per_s_without: float = 0.0
    receipt_bytes: int = 0
    receipt_us: float = 0.0
    replicated_orders_per_s: float = 0.0
    replicated_ack_ms_p50: float = 0.0
    replicated_ack_ms_p99: float = 0.0
    replicated_servers_us_per_order: float = 0.0  # of CPU, all three, at `orders_per_s`
    log_servers: int = 0
    offered_sent_late_ms_p99: float = 0.0  # by the load generator itself
    offered_stages_ms: dict[str, list[float]] = field(default_factory=dict)
    heavy_load_ack_ms_p50: float = 0.0
    heavy_load_ack_ms_p99: float = 0.0
    light_load_orders_per_s: float = 0.0
    light_load_ack_ms_p50: float = 0.0
    light_load_ack_ms_p99: float = 0.0
    checked_again_per_s: float = 0.0
    checked_again_left: int = 0
    checked_again_behind_s: float = 0.0
    fsync_per_s: float = 0.0
    orders: int = 0
    refused: int = 0
    fills: int = 0
    ticks: int = 0
    outstanding: int = 0
    kernel: bool = False
    transition: str = ""  # compiled, or pure Python and why
    cpu_us_per_order: dict[str, float] = field(default_factory=dict)
    sequencer_threads_us_per_order: dict[str, float] = field(default_factory=dict)
    by_accounts: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """`orders` to send, `outstanding` at a time over `connections`; `offered` orders a second after that (0: none);
    engine table up to `accounts_max` (0: none). `posts`: the batches go to the embedded chain meanwhile.
    `receipts`: acknowledgements carry them; a run without comes before and another after. `replicated`: at the end the
    same once more with the log on three servers of this machine, for `replicated_*`.
    """

    orders: int = 60_000
    outstanding: int = 768
    connections: int = 4
    offered: int = 0
    receipts: bool = False
    replicated: bool = False
    accounts_max: int = 1_000_000
    posts: bool = False


def funded_state(params: Params, accounts: int, signing: int) -> State:
    """A state with `accounts` funded accounts, of which the first `signing` have the load keys."""
    state = genesis_state(bytes(32), params)
    for number in range(1, accounts + 1):
        # beyond the signing ones any address will do, and deriving a key for a million takes minutes
        owner = owner_of(number - 1) if number <= signing else keccak(b"%d" % number)[12:]
        raw = codec.encode(Kind.DEPOSIT, owner=owner, account=number, amount=CASH // 1_000_000 * 1_000)
        apply(state, raw)
    state.root()
    return state


def engine_table(accounts_max: int, progress: Progress) -> list[dict[str, float]]:
    """Engine alone, signers given: µs a record with matching, margin and a root after each, at growing state sizes."""
    table = []
    size = 1_000
    while size <= accounts_max:
        progress("accounts", size, accounts_max)
        params = devnet_params(target_per_s=1_000_000)
        state = funded_state(params, size, ACCOUNTS_SIGNING)
        for number in range(1, ACCOUNTS_SIGNING + 1):
            state.accounts[number].cash += CASH  # enough for every order of the load
            state.globals.pool += CASH
            state.put_account(number, state.accounts[number])
        now_s = int(time.time())
        wanted = options(now_s)
        keeper = Keeper(state, [FlatSource(wanted)], [feed_key(n) for n in range(FEEDS)], wanted=wanted)
        engine = Engine(state)
        for at in (now_s, now_s + 1):
            engine.run(at, keeper.pass_one(at), [])
        raws = signed_orders(
            ENGINE_ORDERS,
            list(range(1, ACCOUNTS_SIGNING + 1)),
            sorted(state.instruments.values()),
            state.domain,
        )
        submissions = [
            Submission(raw, owner_of(i % ACCOUNTS_SIGNING), None, 0, 2 if raw[9] & c.FLAG_POST_ONLY else 3)
            for i, raw in enumerate(raws)
        ]
        gc.collect()
        gc.freeze()  # as the service does at its start
        began = time.perf_counter()
        refused = 0
        for start in range(0, len(submissions), 64):
            tick = engine.run(now_s + 1, [], submissions[start : start + 64])
            refused += sum(result.reason is not Reason.OK for result in tick.results)
        took = time.perf_counter() - began
        table.append(
            {
                "accounts": size,
                "us_per_record": round(took / len(raws) * 1e6, 2),
                "records_per_s": round(len(raws) / took),
                "refused": refused,
                "leaves": len(state.map),
            }
        )
        gc.unfreeze()
        size *= 10
    return table


def receipt_cost() -> tuple[int, float]:
    """(bytes of a receipt, µs of CPU an order for all that makes it) in ticks of RECEIPT_RECORDS, median of 21."""
    out = Outcome(1)
    out.paid, out.rests = 1_234, 20
    out.fills = [Fill(1, 0, 2, 3, 4, 5, 200_000, 15, 10, 20)]
    raws = [i.to_bytes(93, "big") for i in range(RECEIPT_RECORDS)]
    issuer = Issuer(bytes(32), receipt_key())
    spent, size = [], 0
    for _ in range(21):
        began = time.process_time()
        leaves = [receipts.leaf(i, raw, 0, receipts.outcome_hash(out)) for i, raw in enumerate(raws)]
        made = issuer.header(Entry(0, 1, bytes(32), []), 1, leaves)
        issuer.sign(made)
        made_receipts = [
            with_receipt(b"", made.head + receipts.item(i, made.levels)) for i in range(len(raws))
        ]
        spent.append((time.process_time() - began) / len(raws) * 1e6)
        size = len(made_receipts[-1]) - 1
    return size, round(median(spent), 2)


async def end_to_end(config: BenchConfig, report: BenchReport, progress: Progress) -> None:
    """The public port under load."""
    now_s = int(time.time())
    wanted = options(now_s)
    with tempfile.TemporaryDirectory(prefix="fairstrike-bench-") as name:
        folder = Path(name)
        report.fsync_per_s = round(fsync_per_s(folder), 1)
        devnet_config = DevnetConfig(
            folder=folder,
            log_servers=report.log_servers,
            params=devnet_params(target_per_s=50_000, risk_age_max_s=86_400),
            service={
                "driver": DriverConfig(tick_ms=2.0, tick_records=256),
                "intake": IntakeLimits(rate_per_s=1_000_000, burst=1_000_000),
                "batch_interval_s": 5.0,
                "receipt_key": receipt_key() if report.with_receipts else None,
            },
        )
        async with Devnet(devnet_config, None, [FlatSource(wanted)], wanted) as devnet:
            accounts = []
            for number in range(ACCOUNTS_SIGNING):
                progress("fund", number, ACCOUNTS_SIGNING)
                accounts.append(await devnet.fund_key(key_of(number), CASH))
            await wait_for(lambda: len(devnet.service.state.instruments) == len(wanted), 30.0, "the listings")
            await asyncio.sleep(1.5)
            loads = {
                "warm-up": WARM_UP_ORDERS,
                "heavy": config.orders,
                "offered": config.offered * OFFERED_S,
                "light": LIGHT_ORDERS,
            }
            first = 0
            for load, count in loads.items():
                progress(f"sign ({load} load)", 0, count)
                await asyncio.to_thread(_write_orders, folder / load, devnet, count, accounts, first)
                first += count
            progress("load", 0, config.orders)
            # Batches are built and stored as ever; the embedded chain, which would be elsewhere, need not get them.
            assert devnet.service.worker is not None
            devnet.service.worker.paused = not config.posts
            await _load(folder / "warm-up", devnet.ws_url, 16, config.connections)
            await _checked_again(devnet)
            await _heavy_load(config, report, devnet, folder / "heavy")
            if config.offered:
                progress(f"{config.offered} orders a second", 0, loads["offered"])
                ticks: list[TickTimes] = []
                devnet.service.driver.on_timed = ticks.append
                offered = await _load(
                    folder / "offered", devnet.ws_url, 0, OFFERED_CONNECTIONS, config.offered
                )
                devnet.service.driver.on_timed = None
                report.offered_stages_ms = stages_of(ticks)
                report.offered_per_s = config.offered
                report.ack_ms_p50, report.ack_ms_p99 = offered["ack_ms_p50"], offered["ack_ms_p99"]
                report.offered_sent_late_ms_p99 = offered["sent_late_ms_p99"]
                report.refused += int(offered["refused"])
                await _checked_again(devnet)
            quiet = await _load(folder / "light", devnet.ws_url, 4, 1)
            report.light_load_orders_per_s = round(quiet["orders_per_s"], 1)
            report.light_load_ack_ms_p50 = quiet["ack_ms_p50"]
            report.light_load_ack_ms_p99 = quiet["ack_ms_p99"]


def _write_orders(path: Path, devnet: Devnet, count: int, accounts: list[int], first: int) -> None:
    """Signs `count` orders, and writes them where the load generator reads them."""
    instruments = sorted(devnet.service.state.instruments.values())
    raws = signed_orders(count, accounts, instruments, devnet.service.domain, first)
    path.write_bytes(b"".join(raws))


async def _heavy_load(config: BenchConfig, report: BenchReport, devnet: Devnet, path: Path) -> None:
    """As many orders as there is room for; which process and thread has spent how much on them."""
    metrics, vouched, count = devnet.service.driver.metrics, devnet.service.vouched, config.orders
    before, threads, checked = _cpu_s(devnet), _threads_cpu_s(), vouched.checked
    records, apply_s, append_s = metrics.records, metrics.apply_cpu_s_total, metrics.append_s_total
    began = time.perf_counter()
    heavy = await _load(path, devnet.ws_url, config.outstanding, config.connections)
    ended = time.perf_counter()
    after, threads_after = _cpu_s(devnet), _threads_cpu_s()
    report.orders, report.outstanding = count, config.outstanding
    report.orders_per_s = round(heavy["orders_per_s"], 1)
    report.heavy_load_ack_ms_p50 = report.ack_ms_p50 = heavy["ack_ms_p50"]
    report.heavy_load_ack_ms_p99 = report.ack_ms_p99 = heavy["ack_ms_p99"]
    report.refused, report.fills, report.ticks = int(heavy["refused"]), int(heavy["fills"]), metrics.ticks
    report.checked_again_per_s = round((vouched.checked - checked) / (count / heavy["orders_per_s"]), 1)
    report.checked_again_left = vouched.backlog
    await _checked_again(devnet)
    report.checked_again_behind_s = round(time.perf_counter() - ended, 2)
    await wait_for(lambda: not devnet.service.history.behind, CHECKED_S, "the history")
    behind = _cpu_s(devnet)
    done = max(metrics.records - records, 1)
    report.cpu_us_per_order = (
        {
            name: round((after[name] - before[name]) / count * 1e6, 1)
            for name in ("gateway", "sequencer", "l1", "chain", "log_servers")
        }
        | {
            # all of it, also what comes after the last acknowledgement
            name: round((behind[name] - before[name]) / count * 1e6, 1)
            for name in ("signatures", "history")
        }
        | {
            "load": round(heavy["cpu_s"] / count * 1e6, 1),
            "engine": round((metrics.apply_cpu_s_total - apply_s) / done * 1e6, 1),
            "log_append_wall": round((metrics.append_s_total - append_s) / done * 1e6, 1),
            "wall": round((ended - began) / count * 1e6, 1),
        }
    )
    report.sequencer_threads_us_per_order = {
        name: round((spent - threads.get(name, 0.0)) / count * 1e6, 1)
        for name, spent in threads_after.items()
    }


async def _checked_again(devnet: Devnet) -> None:
    """Waits until every signature has been checked a second time."""
    await wait_for(lambda: not devnet.service.vouched.backlog, CHECKED_S, "the second check of signatures")


def _spent_s(path: Path) -> float:
    """CPU seconds so far, user and system, of a process or thread by its `stat` file."""
    parts = path.read_text().rsplit(")", 1)[1].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_s(devnet: Devnet) -> dict[str, float]:
    """CPU seconds so far of the gateway, of this process (the sequencer), of those beside it, of the chain."""

    def of(pid: int | None) -> float:
        return 0.0 if pid is None else _spent_s(Path(f"/proc/{pid}/stat"))

    return {
        "gateway": of(devnet.gateway.pid if devnet.gateway else None),
        "sequencer": of(os.getpid()),
        "signatures": of(devnet.service.vouched.pid),
        "l1": of(devnet.service.worker.pid if devnet.service.worker else None),
        "history": of(devnet.service.history.pid),
        "chain": of(devnet.chain.process.pid if devnet.chain.process else None),
        "log_servers": sum(of(server.pid) for server in devnet.servers),
    }


def _threads_cpu_s() -> dict[str, float]:
    """CPU seconds so far of this process's threads, the sequencer's by name, all others together."""
    spent = dict.fromkeys((*THREADS, "other"), 0.0)
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        name = names.get(int(task.name), "")
        found = next((known for known in THREADS if name.startswith(known)), "other")
        try:
            spent[found] += _spent_s(task / "stat")
        except OSError:  # it has ended
            continue
    return spent


async def _load(path: Path, url: str, outstanding: int, connections: int, per_s: int = 0) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sequencer.local.bench_load",
        *(str(path), url, str(outstanding), str(connections), str(per_s)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator failed with status {process.returncode}")
    return dict(json.loads(out))


def run_bench(config: BenchConfig, progress: Progress) -> BenchReport:
    """Runs both parts. Raises BenchFailed when an order was refused."""
    from sequencer.protocol.cmap import Map, PureMap

    report = BenchReport(kernel=Map is not PureMap, transition=_compiled.status())
    report.ecrecover_per_s = round(ecrecover_per_s(), 1)
    if config.receipts:
        report.with_receipts = True
        report.receipt_bytes, report.receipt_us = receipt_cost()
    # without, with, without: the machine's speed drifts
    without = [BenchReport(), BenchReport()] if config.receipts else []
    for one in [*without[:1], report, *without[1:]]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `fairstrike node` runs it
            runner.run(end_to_end(config, one, progress))
    if without:
        report.orders_per_s_without = round(sum(one.orders_per_s for one in without) / len(without), 1)
    if config.replicated:
        _run_replicated(config, report, progress)
    # measured before and after: the machine's speed drifts
    report.ecrecover_per_s = round((report.ecrecover_per_s + ecrecover_per_s()) / 2, 1)
    report.ratio_to_ecrecover = round(report.orders_per_s / report.ecrecover_per_s, 3)
    if config.accounts_max:
        report.by_accounts = engine_table(config.accounts_max, progress)
    if report.refused:
        sent = report.orders + report.offered_per_s * OFFERED_S
        raise BenchFailed(f"{report.refused} of {sent} orders were refused", report)
    return report


def _run_replicated(config: BenchConfig, report: BenchReport, progress: Progress) -> None:
    one = BenchReport(log_servers=LOG_SERVERS, with_receipts=report.with_receipts)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(end_to_end(config, one, progress))
    report.log_servers = LOG_SERVERS
    report.replicated_orders_per_s = one.orders_per_s
    report.replicated_ack_ms_p50, report.replicated_ack_ms_p99 = one.ack_ms_p50, one.ack_ms_p99
    report.replicated_servers_us_per_order = one.cpu_us_per_order.get("log_servers", 0.0)
    report.refused += one.refused


class BenchFailed(Exception):
    """The run was not what it should measure; carries the report."""

    def __init__(self, reason: str, report: BenchReport) -> None:
        super().__init__(reason)
        self.report = report


def as_json(report: BenchReport) -> dict[str, Any]:
    """The report as one object."""
    return asdict(replace(report))
