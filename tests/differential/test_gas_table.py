"""What a challenge costs, by kind of record and by positions of the account: a snapshot, its limits, and its page.

Two worlds: 131,072 accounts and 20,000 resting orders, four positions to a page; and the deepest that keys allow. All
records of each are posted in one batch as large as a batch may be; before each stands a segment whose root is honest,
and its own root is wrong, so that each of them is challenged by itself, in a copy of one chain: the real Rollup, data
source, Arbiter and verifiers.

FAIRSTRIKE_UPDATE_SNAPSHOTS=1 rewrites gas_table.json and the table in docs/GAS.md.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

import worlds
from exchange import DOMAIN, START
from fuzz import VERIFIER_OF, Judge
from gas_scenes import SIZES, DeepScript, Scene, Script
from runner import GAS, ROOT, creation_code

from sequencer.contracts import NAMES, load
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import VERIFIERS, DeployConfig
from sequencer.l1.follower import PostedBatch
from sequencer.proof.challenge import Challenge, challenge_by, message, segment_proof
from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.batch import Segment, data_root
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import keccak

pyrevm = pytest.importorskip("pyrevm", reason="a hundred challenges are too slow on py-evm")

SNAPSHOT: Final = Path(__file__).with_name("gas_table.json")
PAGE: Final = ROOT / "docs" / "GAS.md"
MARKS: Final = ("<!-- table: begin -->\n", "<!-- table: end -->\n")
ACCOUNTS: Final = 131_072
ORDERS: Final = 20_000
PAYLOAD_BYTES: Final = 122_016
MEDIAN_MAX: Final = 1_000_000
WORST_MAX: Final = 8_000_000
CALLDATA_MAX: Final = 110_000
WITNESS_MAX: Final = 100_000  # of check_segment
EIP_170_BYTES: Final = 24_576
TX_GAS_MAX: Final = 16_777_216  # EIP-7825
SEQUENCER, CHALLENGER = ("0x" + byte * 20 for byte in ("a1", "b2"))
SALT: Final = b"\x5a" * 32
DRIFT: Final = 0.03  # a snapshot shows what has changed, not every opcode


# ---------------------------------------------------------------------------------------------- chains


class Chain:
    """Rollup, data source and Arbiter on revm, where what was touched stays warm: so each challenge goes to a copy."""

    def __init__(self, genesis: bytes) -> None:
        self.names: dict[str, str] = {}
        self.evm = new_evm(1)
        for one in (SEQUENCER, CHALLENGER):
            self.evm.set_balance(one, 10**20)
        sequencers = {"leader_": SEQUENCER, "bond_min_": 10**18}
        rollup = {
            "genesis_root": genesis,
            "sequencers_": self.deploy("Sequencers", sequencers, 10**18),
            "inbox_": self.deploy("Inbox", {"message_fee_": 1}),
        }
        limits = {"challenge_window_s_": 86_400, "drift_max_s_": 60}
        self.rollup = self.deploy("Rollup", rollup | limits)
        settings = {"rollup_": self.rollup, "reveal_blocks_": 50}
        settings["data_source_"] = self.deploy("DataSourceCalldata", {})
        known = {"domain": DOMAIN, "order_text_": self.deploy("OrderText", {})}
        for name in VERIFIERS:
            settings[f"verifier_{name.removeprefix('Verifier').lower()}_"] = self.deploy(name, known)
        self.arbiter = self.deploy("Arbiter", settings)
        send(self.evm, SEQUENCER, self.rollup, encoded("Rollup", "set_arbiter", self.arbiter))
        send(self.evm, SEQUENCER, rollup["sequencers_"], encoded("Sequencers", "set_rollup", self.rollup))

    def deploy(self, name: str, arguments: dict[str, Any], value: int = 0) -> str:
        abi = load(name).abi
        inputs = next((entry["inputs"] for entry in abi if entry["type"] == "constructor"), [])
        known = {f"{field.name}_": field.default for field in fields(DeployConfig)} | arguments
        values = [known[one["name"]] for one in inputs]
        code = creation_code(name) + Contract(abi).encode_constructor(*values)
        address = str(self.evm.deploy(SEQUENCER, code, value=value))
        self.names[address.lower()] = name
        return address

    def post(self, posted: PostedBatch) -> None:
        head = (posted.batch_id, posted.pre_root, posted.post_root, posted.segments, posted.records, 0)
        tail = (posted.time_s, 0, bytes(32), posted.work, posted.tick, posted.payload)
        send(self.evm, SEQUENCER, self.rollup, encoded("Rollup", "post", *head, *tail))

    def copied(self, block: int) -> Any:
        """A machine in the same state, to which everything is cold."""
        other = new_evm(block)
        for address, info in self.evm.journal_state.items():
            name = self.names.get(address.lower())
            code = info.code if name else None
            balance = self.evm.get_balance(address)
            other.insert_account_info(
                address, pyrevm.AccountInfo(balance=balance, nonce=info.nonce, code=code)
            )
            for slot in slots(name) if name else ():
                if value := self.evm.storage(address, slot):
                    other.insert_account_storage(address, slot, value)
        return other

    def challenge(self, check: Challenge) -> tuple[int, int]:
        """Commits and challenges, each in a machine of its own; gas of the two."""
        commitment = check.commitment(CHALLENGER, SALT)
        committed = send(self.copied(2), CHALLENGER, self.arbiter, encoded("Arbiter", "commit", commitment))
        evm = self.copied(3)
        layout = load_layout("Arbiter")["committed_at"]
        evm.insert_account_storage(self.arbiter, mapped(layout["slot"], commitment), 2)
        challenged = send(evm, CHALLENGER, self.arbiter, check.calldata(SALT))
        assert evm.get_balance(self.arbiter) == 10**18 * 3 // 8  # the bond is slashed: PAID_EIGHTHS of it
        return committed, challenged


def new_evm(block: int) -> Any:
    evm = pyrevm.EVM(gas_limit=GAS, spec_id="CANCUN")
    evm.set_block_env(pyrevm.BlockEnv(number=block, timestamp=START + 12 * block, gas_limit=GAS))
    return evm


def send(evm: Any, sender: str, to: str, data: bytes, value: int = 0) -> int:
    """Gas of a transaction by EIP-7623, refunds taken off."""
    evm.message_call(sender, to, calldata=data, value=value, gas=GAS, gas_price=0)
    evm.reset_transient_storage()
    standard = sum(16 if byte else 4 for byte in data)
    return 21_000 + max(int(evm.result.gas_used) - 21_000, standard * 10 // 4)


def load_layout(name: str) -> dict[str, Any]:
    path = ROOT / "sequencer" / "artifacts" / f"{name}.json"
    return dict(json.loads(path.read_text())["storage_layout"].get("storage_layout", {}))


def mapped(slot: int, key: bytes) -> int:
    """Where Vyper keeps a mapping's value."""
    return int.from_bytes(keccak(slot.to_bytes(32, "big") + key), "big")


@cache
def slots(name: str) -> tuple[int, ...]:
    """Slots of a contract that can be in use after one batch: its variables, and what its mappings say of 0, 1 and the
    leader.
    """
    found: list[int] = []
    for one in load_layout(name).values():
        found += range(one["slot"], one["slot"] + one["n_slots"])
        if one["type"].startswith("HashMap"):
            found += (
                mapped(one["slot"], key.to_bytes(32, "big")) + word
                for key in (0, 1, int(SEQUENCER, 16))
                for word in range(4)
            )
    return tuple(found)


def encoded(contract: str, function: str, *arguments: Any) -> bytes:
    return Contract(load(contract).abi).encode(function, *arguments)


# ---------------------------------------------------------------------------------------------- the table


def staged(
    world: Tracer, scenes: Iterator[Scene]
) -> tuple[list[tuple[Scene, bytes, list[Witness]]], list[Segment]]:
    """The scenes with root and witnesses, and the segments of the batch: scene i stands in segment 2i + 1."""
    played, segments = [], []
    noop = b"\xff" * 31

    def play(records: tuple[bytes, ...]) -> list[Witness]:
        return [world.witness(raw) for raw in records]

    for scene in scenes:
        tick = codec.encode(Kind.TICK, time=world.globals.time)
        if not scene.name:
            play((() if world.globals.taker else (tick,)) + scene.records)
            continue
        play((noop,))
        before = world.root()
        segments.append(Segment(before, (noop,)))
        opens = (tick,) if scene.opens else ()
        records = (*opens, *scene.records)
        witnesses = play(records)
        for witness in witnesses[len(opens) :]:
            assert witness.outcome.reason is scene.reason, (scene.name, scene.size, witness.outcome.reason)
        wrong = bytes(byte ^ 1 for byte in world.root())
        segments.append(Segment(wrong, records))
        played.append((scene, before, witnesses))
    used = len(batches.encode(segments))
    for _ in range((PAYLOAD_BYTES - used) // (2 * c.ELEMENT_BYTES + 4)):
        segments.append(Segment(b"\x11" * 32, (noop,)))
    return played, segments


def measured() -> dict[str, Any]:
    """The tables of both worlds."""
    world = worlds.standing(Random(11), SIZES, ACCOUNTS, ORDERS)
    assert (len(world.accounts), sum(map(len, world.books.values()))) == (ACCOUNTS, ORDERS)
    table = measured_in(world, Script(world).scenes())
    world = worlds.deepest(Random(12))
    deepest = measured_in(world, DeepScript(world).scenes())
    return {**table, "deepest": {name: row["any"] for name, row in deepest["rows"].items()}}


def measured_in(world: Tracer, scenes: Iterator[Scene]) -> dict[str, Any]:
    """What the challenges of the scenes cost, each by itself."""
    genesis = world.root()
    played, segments = staged(world, scenes)
    payload = batches.encode(segments)
    records = sum(len(segment.records) for segment in segments)
    ticks = sum(batches.ticks_in(segment.records) for segment in segments)
    post_root = segments[-1].root
    posted = PostedBatch(
        batch_id=1, pre_root=genesis, post_root=post_root, data_root=data_root(payload), header_hash=b"",
        elements=len(payload) // c.ELEMENT_BYTES, segments=len(segments), records=records, first_seq=0,
        time_s=START, inbox_count=0, inbox_hash=bytes(32), work=0, tick=ticks, ticks=ticks, payload=payload,
        block_number=0, block_hash="", tx_hash="",
    )  # fmt: skip
    judge = Judge(DOMAIN)
    chain = Chain(genesis)
    chain.post(posted)
    rows: dict[str, dict[str, Any]] = {}
    commits = []
    for place, (scene, pre_root, witnesses) in enumerate(played):
        index = 2 * place + 1
        messages = [message(witness) for witness in witnesses]
        joined = b"".join(len(one).to_bytes(32, "big") + one for one in messages)
        proof = segment_proof(payload, len(segments), ticks, index)
        check = challenge_by(posted, "check_segment", index, index, pre_root, proof, joined)
        committed, challenged = chain.challenge(check)
        commits.append(committed)
        own = witnesses[-1:] if scene.name != "TICK" else witnesses
        results = [judge.call(witness) for witness in (own if len(scene.records) < 2 else witnesses)]
        assert all(result.ok for result in results)
        rows.setdefault(scene.name, {})["any" if scene.size is None else str(scene.size)] = {
            "apply_gas": sum(result.gas for result in results),
            "witness_bytes": sum(len(one.data()) for one in (own if len(scene.records) < 2 else witnesses)),
            "challenge_gas": challenged,
            "challenge_bytes": len(check.calldata(SALT)),
        }
    return {"commit_gas": max(commits), "rows": rows}


def cells(table: dict[str, Any]) -> list[dict[str, int]]:
    return [cell for row in table["rows"].values() for cell in row.values()]


def median_gas(table: dict[str, Any]) -> int:
    """Of a whole challenge in an exchange in use, commitment included, over all rows and columns."""
    return round(statistics.median(cell["challenge_gas"] for cell in cells(table)) + table["commit_gas"])


def worst(table: dict[str, Any], what: str) -> int:
    return max(cell[what] for cell in (*cells(table), *table["deepest"].values()))


def rendered(table: dict[str, Any]) -> str:
    """The tables of docs/GAS.md."""

    def lines(what: Callable[[dict[str, int]], str]) -> Iterator[str]:
        yield "| record | " + " | ".join(f"{size} positions" for size in SIZES) + " |"
        yield "|---|" + "---:|" * len(SIZES)
        for name, row in table["rows"].items():
            if "any" not in row:
                yield (
                    f"| {name} | "
                    + " | ".join(what(row[str(s)]) if str(s) in row else "" for s in SIZES)
                    + " |"
                )

    def number(cell: dict[str, int], name: str) -> str:
        return f"{cell[name]:,}"

    def of_one(name: str, cell: dict[str, int]) -> str:
        whole = f"{number(cell, 'challenge_gas')} ({number(cell, 'challenge_bytes')})"
        return f"| {name} | {whole} | {number(cell, 'apply_gas')} ({number(cell, 'witness_bytes')}) |"

    out = ["**A whole challenge** (gas of the transaction; bytes of its calldata)\n"]
    out += lines(lambda cell: f"{number(cell, 'challenge_gas')} ({number(cell, 'challenge_bytes')})")
    out += ["", "**The verifier's part** (gas of `apply`; bytes of the witness)\n"]
    out += lines(lambda cell: f"{number(cell, 'apply_gas')} ({number(cell, 'witness_bytes')})")
    out += ["", "**Records that show no account, and segments of many records**\n"]
    out += ["| record | challenge: gas (bytes) | `apply`: gas (witness bytes) |", "|---|---:|---:|"]
    for name, row in table["rows"].items():
        if "any" in row:
            out.append(of_one(name, row["any"]))
    out += ["", "**The heaviest there can be**: every path as long as its key\n"]
    out += ["| record | challenge: gas (bytes) | `apply`: gas (witness bytes) |", "|---|---:|---:|"]
    out += [of_one(name, cell) for name, cell in table["deepest"].items()]
    out += ["", "| | found | limit |", "|---|---:|---:|"]
    out.append(
        f"| median challenge, commitment of {table['commit_gas']:,} included | {median_gas(table):,} | {MEDIAN_MAX:,} |"
    )
    out.append(f"| worst challenge | {worst(table, 'challenge_gas'):,} | {WORST_MAX:,} |")
    out.append(f"| its calldata | {worst(table, 'challenge_bytes'):,} bytes | {CALLDATA_MAX:,} bytes |")
    return "\n".join(out) + "\n"


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    found = measured()
    if os.environ.get("FAIRSTRIKE_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n")
        text = PAGE.read_text()
        head, rest = text.split(MARKS[0])
        PAGE.write_text(head + MARKS[0] + rendered(found) + MARKS[1] + rest.split(MARKS[1])[1])
    return found


def test_gas__is_that_of_the_snapshot(table: dict[str, Any]) -> None:
    known = json.loads(SNAPSHOT.read_text())
    assert table["commit_gas"] == pytest.approx(known["commit_gas"], rel=DRIFT)
    assert {name: set(row) for name, row in table["rows"].items()} == {
        name: set(row) for name, row in known["rows"].items()
    }
    for name, row in known["rows"].items():
        for size, cell in row.items():
            assert table["rows"][name][size] == pytest.approx(cell, rel=DRIFT), (name, size)
    assert set(table["deepest"]) == set(known["deepest"])
    for name, cell in known["deepest"].items():
        assert table["deepest"][name] == pytest.approx(cell, rel=DRIFT), name


def test_page__shows_the_snapshot() -> None:
    shown = PAGE.read_text().split(MARKS[0])[1].split(MARKS[1])[0]
    assert shown == rendered(json.loads(SNAPSHOT.read_text()))


def test_kinds__are_all_in_the_table(table: dict[str, Any]) -> None:
    names = {name.split(",")[0] for name in table["rows"]}
    assert {kind.name for kind in VERIFIER_OF} <= names  # type: ignore[attr-defined]


def test_challenges__stay_within_the_limits(table: dict[str, Any]) -> None:
    assert median_gas(table) <= MEDIAN_MAX
    assert worst(table, "challenge_gas") <= WORST_MAX < TX_GAS_MAX
    assert worst(table, "challenge_bytes") <= CALLDATA_MAX


def test_contracts__fit_eip_170() -> None:
    assert max(load(name).deployed_bytes for name in NAMES) < EIP_170_BYTES


def test_limit_of_a_witness__is_the_arbiters() -> None:
    source = (ROOT / "contracts" / "Arbiter.vy").read_text()
    assert f"WITNESS_BYTES_MAX: constant(uint256) = {WITNESS_MAX:_}" in source
