"""CPU time of a signature: recovered, and verified together with others by keys that are known.

    python benchmarks/signatures.py [rounds]

For batches of 8, 64 and 512 records, all of one account and of 64: the least of `rounds` rounds, in vector lanes where
the processor has them and without. Last, what two floods cost: wrong signatures among good ones, and keys
that are never used again once they are known.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from rich.console import Console
from rich.table import Table

from sequencer import keyring
from sequencer._kernel import cmap_kernel
from sequencer.keyring import KeyRing, hints_of
from sequencer.local.bench import key_of
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.signers import signers

DOMAIN: Final = bytes(range(32))
ACCOUNTS: Final = 64
SIZES: Final = (4, 8, 16, 64, 128, 512)
RECORDS: Final = 2_048  # of a round
WRONG_EACH: Final = 16


def record(account: int, nonce: int, key: bytes) -> bytes:
    """A signed order."""
    fields = {"instrument": 81_920_000, "flags": 1, "price": 150_000, "quantity": 7, "fee_max": 100}
    raw = codec.encode(Kind.PLACE, account=account, nonce=nonce, expires=0, **fields)
    return codec.sign(raw, DOMAIN, key)


def found(ring: KeyRing, raws: list[bytes]) -> list[bytes | None]:
    """Their signers, as a gateway finds them."""
    return ring.signers(raws, DOMAIN, hints_of(raws))


def us_of(work: Callable[[list[bytes]], object], raws: list[bytes], size: int, rounds: int) -> float:
    """µs of CPU a record, in batches of `size`."""
    batches = [raws[at : at + size] for at in range(0, len(raws), size)]
    least = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        for batch in batches:
            work(batch)
        least = min(least, time.process_time() - begun)
    return least / len(raws) * 1e6


def main() -> None:
    """See the module."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    raws = {
        count: [record(number % count, number, key_of(number % count)) for number in range(RECORDS)]
        for count in (1, ACCOUNTS)
    }
    recovered = us_of(lambda batch: signers(batch, DOMAIN), raws[1], 256, rounds)
    table = Table("records at a time", "recovered", *(f"{n} account{'s' * (n > 1)}" for n in raws))
    for lanes in dict.fromkeys((cmap_kernel.use_lanes(8), 1)):
        cmap_kernel.use_lanes(lanes)
        for size in SIZES:
            row = []
            for some in raws.values():
                ring = KeyRing()
                found(ring, some[: ACCOUNTS * keyring.TIMES_MIN])
                row.append(us_of(partial(found, ring), some, size, rounds))
            verified = [f"{us:.2f} ({recovered / us:.1f})" for us in row]
            table.add_row(f"{size}{'' if lanes > 1 else ', no lanes'}", f"{recovered:.1f}", *verified)
    cmap_kernel.use_lanes(8)
    Console().print("µs of CPU a record, and how many times less than a recovery")
    Console().print(table)
    floods = {
        f"one in {WRONG_EACH} wrong, of any account": [
            record(
                number * 7 % ACCOUNTS, number, key_of((number * 7 + (number % WRONG_EACH == 0)) % ACCOUNTS)
            )
            for number in range(RECORDS)
        ],
        f"accounts of {keyring.TIMES_MIN} records each": [
            record(number // keyring.TIMES_MIN, number, key_of(number // keyring.TIMES_MIN))
            for number in range(ACCOUNTS * keyring.TIMES_MIN, RECORDS)
        ],
    }
    for name, flood in floods.items():
        ring = KeyRing()
        found(ring, raws[ACCOUNTS][: ACCOUNTS * keyring.TIMES_MIN])
        us = us_of(partial(found, ring), flood, 128, 1)
        Console().print(f"{name}: {us:.1f} µs, {us / recovered:.2f} of recovering all")


if __name__ == "__main__":
    main()
