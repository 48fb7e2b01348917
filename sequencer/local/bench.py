"""How fast it is: signed orders a second from WebSocket to acknowledgement, beside what one core recovers signers at.

The load comes from a process of its own, over the public port: pre-signed records in binary frames, a fixed number
outstanding. The exchange is the real one: durable log, matching, margin, a root after each
order, batches stored. The second part is the engine alone, at growing numbers of accounts.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from sequencer.development import FEEDS, devnet_params, feed_key
from sequencer.engine.engine import Engine, Submission
from sequencer.genesis import genesis_state
from sequencer.keeper.keeper import Keeper, Terms
from sequencer.local.devnet import Devnet, DevnetConfig, wait_for
from sequencer.market.flat import FlatSource
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, keccak, public_key_of, recover, sign
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.queue.driver import DriverConfig
from sequencer.queue.intake import IntakeLimits

INDEX_TICKS = 4_600_000
CASH = 1_000_000_000_000
STRIKES = (4_400_000, 4_600_000, 4_800_000, 5_000_000)
ACCOUNTS_SIGNING = 64
NONCES_AHEAD = 128
RECOVERIES = 4_000
ENGINE_ORDERS = 4_000
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
    count: int, accounts: list[int], instruments: list[int], domain: bytes, first_nonce: int = 0
) -> list[bytes]:
    """Pre-signed orders: of each four, two rest post-only beside the market and two cross it with IOC.

    The accounts take turns, so that their nonces stay inside the window however the ticks sort them.
    """
    out = []
    mids = dict.fromkeys(instruments, 200000)
    for i in range(count):
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
            nonce=first_nonce + turn,
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
    """Rates per second, times as named."""

    orders_per_s: float = 0.0
    ecrecover_per_s: float = 0.0
    ratio_to_ecrecover: float = 0.0
    ack_ms_p50: float = 0.0
    ack_ms_p99: float = 0.0
    light_load_orders_per_s: float = 0.0
    light_load_ack_ms_p50: float = 0.0
    light_load_ack_ms_p99: float = 0.0
    fsync_per_s: float = 0.0
    orders: int = 0
    refused: int = 0
    fills: int = 0
    ticks: int = 0
    outstanding: int = 0
    kernel: bool = False
    cpu_us_per_order: dict[str, float] = field(default_factory=dict)
    by_accounts: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """`orders` to send, `outstanding` at a time over `connections`; engine table up to `accounts_max` (0: none)."""

    orders: int = 60_000
    outstanding: int = 768
    connections: int = 4
    accounts_max: int = 1_000_000


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


async def end_to_end(config: BenchConfig, report: BenchReport, progress: Progress) -> None:
    """The public port under load."""
    now_s = int(time.time())
    wanted = options(now_s)
    with tempfile.TemporaryDirectory(prefix="fairstrike-bench-") as name:
        folder = Path(name)
        report.fsync_per_s = round(fsync_per_s(folder), 1)
        devnet_config = DevnetConfig(
            folder=folder,
            params=devnet_params(target_per_s=50_000, risk_age_max_s=86_400),
            service={
                "driver": DriverConfig(tick_ms=2.0, tick_records=256),
                "intake": IntakeLimits(rate_per_s=1_000_000, burst=1_000_000),
                "batch_interval_s": 5.0,
            },
        )
        async with Devnet(devnet_config, None, [FlatSource(wanted)], wanted) as devnet:
            accounts = []
            for number in range(ACCOUNTS_SIGNING):
                progress("fund", number, ACCOUNTS_SIGNING)
                accounts.append(await devnet.fund_key(key_of(number), CASH))
            await wait_for(lambda: len(devnet.service.state.instruments) == len(wanted), 30.0, "the listings")
            await asyncio.sleep(1.5)
            instruments = sorted(devnet.service.state.instruments.values())
            progress("sign", 0, config.orders)
            raws = await asyncio.to_thread(
                signed_orders, config.orders, accounts, instruments, devnet.service.domain
            )
            light = await asyncio.to_thread(
                signed_orders,
                2_000,
                accounts,
                instruments,
                devnet.service.domain,
                -(-config.orders // len(accounts)),
            )
            (folder / "heavy.bin").write_bytes(b"".join(raws))
            (folder / "light.bin").write_bytes(b"".join(light))
            progress("load", 0, config.orders)
            # Batches are built and stored as ever; only the embedded chain, which would be elsewhere, gets none.
            assert devnet.service.worker is not None
            devnet.service.worker.paused = True
            before = _cpu_s(devnet)
            wall = time.perf_counter()
            heavy = await _load(folder / "heavy.bin", devnet.ws_url, config.outstanding, config.connections)
            wall = time.perf_counter() - wall
            after = _cpu_s(devnet)
            quiet = await _load(folder / "light.bin", devnet.ws_url, 4, 1)
            metrics = devnet.service.driver.metrics
            report.orders = config.orders
            report.outstanding = config.outstanding
            report.orders_per_s = round(heavy["orders_per_s"], 1)
            report.ack_ms_p50, report.ack_ms_p99 = heavy["ack_ms_p50"], heavy["ack_ms_p99"]
            report.light_load_orders_per_s = round(quiet["orders_per_s"], 1)
            report.light_load_ack_ms_p50 = quiet["ack_ms_p50"]
            report.light_load_ack_ms_p99 = quiet["ack_ms_p99"]
            report.refused = int(heavy["refused"])
            report.fills = int(heavy["fills"])
            report.ticks = metrics.ticks
            done = config.orders
            report.cpu_us_per_order = {
                "gateway": round((after["gateway"] - before["gateway"]) / done * 1e6, 1),
                "sequencer": round((after["sequencer"] - before["sequencer"]) / done * 1e6, 1),
                "chain": round((after["chain"] - before["chain"]) / done * 1e6, 1),
                "load": round(heavy["cpu_s"] / done * 1e6, 1),
                "engine_apply_and_roots": round(metrics.apply_s_total / max(metrics.records, 1) * 1e6, 1),
                "log_append_wall": round(metrics.append_s_total / max(metrics.records, 1) * 1e6, 1),
                "wall": round(wall / done * 1e6, 1),
            }


def _cpu_s(devnet: Devnet) -> dict[str, float]:
    """CPU seconds so far of the gateway, of this process (the sequencer) and of the chain."""
    ticks = os.sysconf("SC_CLK_TCK")

    def of(pid: int | None) -> float:
        if pid is None:
            return 0.0
        parts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / ticks

    return {
        "gateway": of(devnet.gateway.pid if devnet.gateway else None),
        "sequencer": of(os.getpid()),
        "chain": of(devnet.chain.process.pid if devnet.chain.process else None),
    }


async def _load(path: Path, url: str, outstanding: int, connections: int) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sequencer.local.bench_load",
        str(path),
        url,
        str(outstanding),
        str(connections),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator failed with status {process.returncode}")
    return dict(json.loads(out))


def run_bench(config: BenchConfig, progress: Progress) -> BenchReport:
    """Runs both parts. Raises BenchFailed when an order was refused."""
    from sequencer.protocol.cmap import Map, PureMap

    report = BenchReport(kernel=Map is not PureMap)
    report.ecrecover_per_s = round(ecrecover_per_s(), 1)
    asyncio.run(end_to_end(config, report, progress))
    # measured before and after: the machine's speed drifts
    report.ecrecover_per_s = round((report.ecrecover_per_s + ecrecover_per_s()) / 2, 1)
    report.ratio_to_ecrecover = round(report.orders_per_s / report.ecrecover_per_s, 3)
    if config.accounts_max:
        report.by_accounts = engine_table(config.accounts_max, progress)
    if report.refused:
        raise BenchFailed(f"{report.refused} of {report.orders} orders were refused", report)
    return report


class BenchFailed(Exception):
    """The run was not what it should measure; carries the report."""

    def __init__(self, reason: str, report: BenchReport) -> None:
        super().__init__(reason)
        self.report = report


def as_json(report: BenchReport) -> dict[str, Any]:
    """The report as one object."""
    return asdict(replace(report))
