"""Durable appends: SQLite (an fsync each), and the replicated log on one server and on three, each syncing always.

All files lie in one folder, so that three servers here share one disk, which three machines would not. Fsyncs
are measured before each part, on a file beside: the ratio to them says more than the appends a second.

    python benchmarks/log.py [--folder FOLDER] [--seconds 5]
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sequencer.log.interface import Entry
from sequencer.log.jetstream import Stream
from sequencer.log.nats_server import NatsServer, cluster_configs, start_all
from sequencer.log.sqlite import LOG_FILE, SqliteLog

SIZES = (8 << 10, 64 << 10)
STREAM = "bench"


def cpu_s(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fsync_ms(folder: Path, size: int, seconds: float) -> list[float]:
    """Times of a write of `size` bytes at the end of a file, and its fsync."""
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        data = os.urandom(size)

        def once(_: int) -> None:
            file.write(data)
            os.fsync(file.fileno())

        times = timed(once, seconds)
    path.unlink()
    return times


def timed(once: Callable[[int], None], seconds: float) -> list[float]:
    """Milliseconds of each call, for that long."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        once(len(times))
        times.append(1000 * (time.perf_counter() - start))
    return times


def report(what: str, size: int, times: list[float], fsync: list[float], cpu: str) -> None:
    """One row."""
    cuts = statistics.quantiles(times, n=100)
    mean, base = statistics.fmean(times), statistics.fmean(fsync)
    ratio = cuts[49] / statistics.median(fsync)
    print(
        f"{what:22} {size >> 10:3} KiB  p50 {cuts[49]:7.2f} ms  p99 {cuts[98]:7.2f} ms  "
        f"{1000 / mean:6.0f}/s  fsync p50 {statistics.median(fsync):5.2f} mean {base:5.2f} ms  "
        f"p50 / fsync's {ratio:4.1f}  {cpu}",
        flush=True,
    )


def with_sqlite(folder: Path, size: int, seconds: float) -> None:
    """One entry a commit."""
    fsync = fsync_ms(folder, size, seconds / 5)
    log = SqliteLog(folder / f"sqlite{size}" / LOG_FILE)
    segments = [(bytes(32), [os.urandom(size)], 0)]
    before = resource.getrusage(resource.RUSAGE_SELF)

    def once(offset: int) -> None:
        log.append(Entry(offset, offset, bytes(32), segments), offset)
        log.tidy()

    times = timed(once, seconds)
    log.close()
    report("SQLite FULL", size, times, fsync, own_cpu(before, len(times)))


def own_cpu(before: resource.struct_rusage, count: int) -> str:
    """CPU of this process for each append since `before`."""
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"own CPU {1e6 * spent / count:5.0f} µs"


def with_stream(folder: Path, size: int, seconds: float, replicas: int) -> None:
    """One body an acknowledgement; then as many as fit one batch."""
    fsync = fsync_ms(folder, size, seconds / 5)
    configs = cluster_configs(folder / f"r{replicas}-{size}", STREAM, size=3)
    servers = [NatsServer(config) for config in configs]
    start_all(servers)
    stream = Stream([config.url for config in configs], STREAM, replicas=replicas, patience_s=60.0)
    try:
        stream.open()
        body = os.urandom(size)
        before = resource.getrusage(resource.RUSAGE_SELF)
        servers_before = sum(cpu_s(server.pid) for server in servers)
        times = timed(lambda place: stream.append(place, [body]), seconds)
        spent = sum(cpu_s(server.pid) for server in servers) - servers_before
        cpu = f"{own_cpu(before, len(times))}, servers' {1e6 * spent / len(times):5.0f} µs"
        report(f"JetStream R{replicas} always", size, times, fsync, cpu)
        place = stream.last()
        start = time.perf_counter()
        stream.append(place, [body] * 64)
        print(f"{'':22} {size >> 10:3} KiB  64 in one batch: {64 / (time.perf_counter() - start):6.0f}/s")
        start = time.perf_counter()
        count = len(stream.read(0, 1000))
        print(f"{'':22} {size >> 10:3} KiB  read: {count / (time.perf_counter() - start):6.0f}/s")
    finally:
        stream.close()
        for server in servers:
            server.stop()


def main() -> None:
    """Prints a row for each backend and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the files go (a temporary folder)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for size in SIZES:
            with_sqlite(folder, size, arguments.seconds)
            for replicas in (1, 3):
                with_stream(folder, size, arguments.seconds, replicas)


if __name__ == "__main__":
    main()
