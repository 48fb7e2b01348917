"""Drives both twins with the same records: roots and reasons must be equal, and no correct witness may revert.

`fuzz(records, seed)` builds random worlds with the Python core and lets an adversary draw records against them; each
goes through `Tracer`, and its witness through the bytecode of the verifier contract of its kind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "property"))

from corners import TRADERS, Corners
from crowd import Crowd, Giants, crowded, giant
from exchange import CALM, DOMAIN, FEEDS, address, key_of, reopened
from hostile import ROLES, Adversary, Drawn, populated
from runner import creation_code, new_evm

from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import codec, receipts
from sequencer.protocol import constants as c
from sequencer.protocol.codec import LAYOUTS
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import keccak
from sequencer.protocol.transition import apply

if TYPE_CHECKING:
    from collections.abc import Iterable

TRADE: Final = (Kind.PLACE, Kind.CONTINUE)
AUCTION: Final = (Kind.FORCED_LIQUIDATE, Kind.FORCED_BID, Kind.LIQUIDATE, Kind.BID)
LEDGER: Final = (
    *(Kind.DEPOSIT, Kind.FORCED_CANCEL_ALL, Kind.COLLECT, Kind.SWEEP),
    *(Kind.CANCEL, Kind.CANCEL_ALL, Kind.SET_SIGNER),
)
RISK: Final = (Kind.TICK, Kind.FEED, Kind.SURFACE, Kind.LIST, Kind.RISK, Kind.FIX)
VERIFIER_OF: Final = {
    **dict.fromkeys(LAYOUTS, "VerifierAccount"),
    **dict.fromkeys(TRADE, "VerifierTrade"),
    **dict.fromkeys(AUCTION, "VerifierAuction"),
    Kind.AMEND: "VerifierAmend",
    Kind.PLACE_IN_WORDS: "VerifierWords",
    Kind.FORCED_ORDER: "VerifierForced",
    **dict.fromkeys(LEDGER, "VerifierLedger"),
    **dict.fromkeys(RISK, "VerifierRisk"),
}
RECORD_BYTES_MAX: Final = 124
WITNESS_AT: Final = 196
SELECTOR: Final = keccak(b"apply(bytes32,uint256,bytes32,bytes32,bytes32,bytes32)")[:4]
KEYS: Final = {
    address(role): key_of(role)
    for role in (*ROLES, *TRADERS, "session", "stranger", *(f"feed {i}" for i in range(FEEDS + 1)))
}
RENEW_EVERY: Final = 800  # draws, of a small world
VISIT_EVERY: Final = 400  # draws, before the first and between two visits to the vast one
VISIT: Final = 16  # draws
VISITS: Final = 40  # after which the vast world is another one
SCENE_EVERY: Final = 100  # draws
SCENES: Final = 30  # after which the corners' world is another one


SIZES: Final = ("records_vast", "positions_max", "pages_max", "book_depth_max", "leaves_max", "surfaces")


def verifier_of(raw: bytes) -> str:
    """Contract that judges a record."""
    return VERIFIER_OF.get(raw[0], "VerifierRisk") if raw else "VerifierRisk"  # type: ignore[call-overload]


def calldata(witness: Witness) -> bytes:
    """Call of `apply` on a verifier."""
    length = len(witness.record)
    record = witness.record[:RECORD_BYTES_MAX].ljust(128, b"\0")
    return b"".join((SELECTOR, witness.pre_root, length.to_bytes(32, "big"), record, witness.data()))


class Judge:
    """The verifier contracts, deployed."""

    def __init__(self, domain: bytes = DOMAIN, only: tuple[str, ...] = ()) -> None:
        self.evm = new_evm()
        names = only or tuple(sorted(set(VERIFIER_OF.values())))
        text = self.evm.deploy(creation_code("OrderText"))
        told = lambda name: domain + bytes(12) + text if name == "VerifierWords" else domain  # noqa: E731
        self.addresses = {name: self.evm.deploy(creation_code(name) + told(name)) for name in names}

    def call(self, witness: Witness, data: bytes | None = None) -> Any:
        """What the contract of the record's kind makes of it."""
        return self.evm.call(
            self.addresses[verifier_of(witness.record)], calldata(witness) if data is None else data
        )


def expected(witness: Witness) -> bytes:
    """Return data that equals what Python says."""
    outcome = witness.outcome
    return witness.post_root + int(outcome.reason).to_bytes(32, "big") + receipts.outcome_hash(outcome)


def name_of(raw: bytes) -> str:
    """Name of the record's kind."""
    return Kind(raw[0]).name if raw and raw[0] in LAYOUTS else "UNKNOWN"


def signed(raw: bytes, signer: bytes | None) -> bytes:
    """`raw` with a true signature of `signer`, where there is a key and a place for it."""
    key = KEYS.get(signer) if signer else None
    return codec.sign(raw, DOMAIN, key) if key and codec.signing_digest(raw, DOMAIN) else raw


def compare(judge: Judge, witness: Witness, report: dict[str, Any]) -> None:
    """Runs one witness and writes into the report what came of it."""
    data = calldata(witness)
    result = judge.call(witness, data)
    name = name_of(witness.record)
    report["records"] += 1
    report["kinds"][name] = report["kinds"].get(name, 0) + 1
    outcome = f"{name} {witness.outcome.reason.name}"
    report["outcomes"][outcome] = report["outcomes"].get(outcome, 0) + 1
    report["max_gas"][name] = max(report["max_gas"].get(name, 0), result.gas)
    report["max_calldata"][name] = max(report["max_calldata"].get(name, 0), len(data))
    if result.ok and result.output == expected(witness):
        return
    found = (
        f"reason {int.from_bytes(result.output[32:], 'big')}" if result.ok else f"revert '{result.reason()}'"
    )
    where = f"{outcome}: {found}, record {witness.record.hex()}"
    report["divergences" if result.ok else "python_ok_vyper_revert"].append(where)


def tampered(data: bytes, random: Random) -> bytes:
    """A call whose pre-root or witness is not what it was: a bit, a word, the number or the order of words."""
    words = [data[at : at + 32] for at in range(WITNESS_AT, len(data), 32)]
    at = random.randrange(len(words))
    value = int.from_bytes(words[at], "big")
    way = random.randrange(9)
    if way == 0:
        root = bytearray(data[4:36])
        root[random.randrange(32)] ^= 1 << random.randrange(8)
        return data[:4] + bytes(root) + data[36:]
    if way == 1:
        del words[at]
    elif way == 2:
        words.insert(at, random.choice(words))
    elif way == 3:
        words[at] = random.choice((*words, bytes(32), b"\xff" * 32))
    elif way == 4:
        other = random.randrange(len(words))
        words[at], words[other] = words[other], words[at]
    elif way == 5:
        words.append(random.choice((bytes(32), words[at])))
    elif way == 6:
        words = words[: random.randrange(len(words))]
    else:
        words[at] = (value ^ 1 << random.randrange(256)).to_bytes(32, "big")
        if way == 7:  # a bit of a bitmap comes with a sibling
            words.insert(min(at + 1 + random.randrange(20), len(words)), random.randbytes(32))
    return data[:WITNESS_AT] + b"".join(words)


def attack(judge: Judge, witness: Witness, random: Random, report: dict[str, Any], times: int = 1) -> None:
    """Runs wrong witnesses of a record, each of which must revert."""
    data = calldata(witness)
    for _ in range(times):
        wrong = tampered(data, random)
        if wrong == data:
            continue
        report["attacks"] += 1
        result = judge.call(witness, wrong)
        if result.ok:
            report["attacks_accepted"].append(f"{name_of(witness.record)}: {wrong.hex()}")


def corner_world(random: Random) -> Corners:
    """Corners over a tracing state."""
    corners = Corners(random)
    corners.exchange.state = Tracer.of(corners.exchange.state)
    return corners


def new_report() -> dict[str, Any]:
    """An empty report."""
    return {
        "records": 0,
        "kinds": {},
        "outcomes": {},
        "divergences": [],
        "python_ok_vyper_revert": [],
        "attacks": 0,
        "attacks_accepted": [],  # wrong witnesses that did not revert
        "max_gas": {},
        "max_calldata": {},
        "records_vast": 0,  # of worlds with 60,000 accounts
        "positions_max": 0,  # of an account
        "pages_max": 0,  # likewise
        "book_depth_max": 0,  # orders on one side
        "leaves_max": 0,
        "surfaces": 0,  # shapes that were accepted
    }


def fuzz(records: int, seed: int, only: tuple[str, ...] = (), progress: int = 0) -> dict[str, Any]:
    """Compares the twins on `records` records; `only` names contracts whose records are compared.

    The report: records compared, {kind: count}, {kind and reason: count}, divergences and reverts of correct witnesses
    (texts that hold the record), greatest gas and calldata by kind, sizes of the largest states met. Every VISIT_EVERY
    draws go to small worlds, where records meet each other, then some to a vast one, where they stand at their limits.
    """
    random = Random(seed)
    judge = Judge(only=only)
    report = new_report()
    vast: Any = None

    def step(exchange: Any, drawn: Iterable[Drawn]) -> int:
        """Applies, and compares the tracer with the contract, and with a state that keeps the sequencer's caches."""
        count = 0
        for raw, signer in drawn:
            count += 1
            record = signed(raw, signer)
            if exchange is not vast and exchange.cached is None:
                exchange.cached = reopened(exchange.state)
            witness = exchange.state.witness(record)
            if exchange is not vast:
                outcome = apply(exchange.cached, record)
                if (outcome.reason, receipts.outcome_hash(outcome), exchange.cached.root()) != (
                    witness.outcome.reason,
                    receipts.outcome_hash(witness.outcome),
                    witness.post_root,
                ):
                    report["divergences"].append(f"{name_of(record)}: caches differ, record {record.hex()}")
            if only and verifier_of(record) not in only:
                continue
            before = report["records"]
            compare(judge, witness, report)
            if random.random() < 0.25:
                attack(judge, witness, random, report)
            if progress and before % progress == progress - 1:
                bad = len(report["divergences"]) + len(report["python_ok_vyper_revert"])
                print(f"{before + 1} records, {bad} divergences", flush=True)
        return count

    made = 0
    exchange, adversary = _new(random)
    giants: Any = None
    scenes: Any = None
    while report["records"] < records:
        if made and made % RENEW_EVERY == 0:
            exchange, adversary = _new(random)
        made += 1
        step(exchange, adversary.keep_going() if made % 60 == 59 else [adversary.draw()])
        if made % SCENE_EVERY == SCENE_EVERY // 2:
            if made // SCENE_EVERY % SCENES == 0:
                corners = corner_world(random)
                scenes = corners.scenes()
            step(corners.exchange, next(scenes))
        if made % VISIT_EVERY == 0:
            if made // VISIT_EVERY % VISITS == 1:
                vast = giant(random)
                giants = Giants(vast, random)
            measure(exchange.state, report)
            measure(vast.state, report)
            report["records_vast"] += step(vast, giants.keep_going())
            for _ in range(VISIT):
                report["records_vast"] += step(vast, [giants.draw()])
            measure(vast.state, report)
    report["surfaces"] = report["outcomes"].get("SURFACE OK", 0)
    return report


def measure(state: Any, report: dict[str, Any]) -> None:
    """Writes into the report how large a state is."""

    def most(name: str, sizes: Iterable[int]) -> None:
        report[name] = max(report[name], *sizes, 0)

    most("positions_max", (len(account.positions) for account in state.holders.values()))
    most("pages_max", (len({one >> 5 for one in each.positions}) for each in state.holders.values()))
    sides = (c.BUY, c.SELL)
    most(
        "book_depth_max",
        (sum(1 for _ in book.orders(side)) for book in state.books.values() for side in sides),
    )
    most("leaves_max", (len(state.map),))


def _new(random: Random) -> tuple[Any, Adversary]:
    if random.random() < 0.6:
        exchange = crowded(random)
        exchange.state = Tracer.of(reopened(exchange.state))
        return exchange, Crowd(exchange, random)
    changes: dict[str, int] = random.choice(
        (
            {},
            CALM,
            {"maker_fee_ppm": 200, **CALM},
            {"target_per_s": 1, "congested_excess": 10, "restricted_excess": 90},
        )
    )
    exchange = populated(**changes)
    exchange.state = Tracer.of(exchange.state)
    return exchange, Adversary(exchange, random)


def main() -> int:
    """Command line: records, seed."""
    report = fuzz(int(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3:]), progress=1_000)
    for outcome, count in sorted(report["outcomes"].items()):
        print(f"{count:>7}  {outcome}")
    for name, count in sorted(report["kinds"].items()):
        gas, size = report["max_gas"][name], report["max_calldata"][name]
        print(f"{name:<12} {count:>6}  gas <= {gas:>9,}  calldata <= {size:>7,}")
    for text in (*report["divergences"][:20], *report["python_ok_vyper_revert"][:20]):
        print("DIFFERS", text)
    for name in SIZES:
        print(f"{name:<14} {report[name]:>9,}")
    print(report["attacks"], "wrong witnesses,", len(report["attacks_accepted"]), "accepted")
    print(
        report["records"],
        "records,",
        len(report["divergences"]),
        "divergences,",
        len(report["python_ok_vyper_revert"]),
        "reverts",
    )
    return (
        1
        if any(report[what] for what in ("divergences", "python_ok_vyper_revert", "attacks_accepted"))
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
