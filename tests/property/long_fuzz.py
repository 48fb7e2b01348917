"""Throws records at an exchange and looks whether it stands: `python -m tests.property.long_fuzz --records N --seed S`.

Every run is told by its seed. The state is audited, rooted from scratch and built anew from its leaves every
thousand records; a difference or an exception names the record at which to look.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hostile import Adversary, populated

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "twins"))
from auditor import naive_root

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, START, Exchange, reopened

AUDIT_EVERY = 1_000
RENEW_EVERY = 20_000  # a new exchange, lest books and pages grow without end
YEAR_S = 365 * 86_400  # further on, little can be listed: a record has jumped there
Tally = Counter[tuple[int, int]]


def fuzz(records: int, seed: int, progress: int = 0) -> Tally:
    """Applies `records` records; returns how often each (kind, reason) came. Raises whatever the transition raises."""
    random = Random(seed)
    tally: Tally = Counter()
    exchange, adversary = _new(random)
    begun = time.perf_counter()
    for number in range(records):
        ages = exchange.state.globals.time > START + YEAR_S and random.random() < 0.01
        if ages or number % RENEW_EVERY == RENEW_EVERY - 1:
            audit(exchange, f"seed {seed}, record {number}")
            exchange, adversary = _new(random)
        batch = adversary.keep_going() if number % 80 == 79 else [adversary.draw()]
        for raw, signer in batch:
            try:
                seq = exchange.state.globals.seq
                out = exchange.apply(raw, signer)
                assert exchange.state.globals.seq == seq + 1
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, record {number}: {raw.hex()} signed by {signer.hex() if signer else None}"
                ) from error
            tally[raw[0] if raw else -1, int(out.reason)] += 1
        if number % AUDIT_EVERY == AUDIT_EVERY - 1:
            audit(exchange, f"seed {seed}, record {number}")
        if progress and number % progress == progress - 1:
            rate = (number + 1) / (time.perf_counter() - begun)
            print(f"{number + 1:>12,} records, {rate:,.0f}/s, {len(tally)} kinds of outcome", flush=True)
    return tally


def audit(exchange: Exchange, where: str) -> None:
    """Raises AssertionError, naming `where`, when the state does not add up; leaves one that is built anew."""
    try:
        exchange.auditor.check(exchange.state)
        assert naive_root(exchange.state) == exchange.state.root()
        fresh = reopened(exchange.state)
        assert fresh.root() == exchange.state.root()
    except AssertionError as error:
        raise AssertionError(where) from error
    exchange.state = fresh


def _new(random: Random) -> tuple[Exchange, Adversary]:
    changes = random.choice(
        (
            {},
            CALM,
            {"maker_fee_ppm": 200, **CALM},
            {"target_per_s": 1, "congested_excess": 10, "restricted_excess": 90},
        )
    )
    exchange = populated(**changes)
    return exchange, Adversary(exchange, random)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tally = fuzz(arguments.records, arguments.seed, progress=max(arguments.records // 20, 1))
    for (kind, reason), count in sorted(tally.items()):
        print(f"kind {kind:#04x} reason {reason:>3}: {count:,}")


if __name__ == "__main__":
    main()
