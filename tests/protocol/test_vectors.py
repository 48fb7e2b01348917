"""docs/vectors against the transition, and read again by means that share nothing with it but keccak and ecrecover."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from sequencer.protocol import black76

sys.path.insert(0, str(Path(__file__).resolve().parent))
import vector_files

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "vectors"
IS_UPDATE = os.environ.get("FAIRSTRIKE_UPDATE_SNAPSHOTS", "0") not in ("", "0")


def text(made: Any) -> str:
    """One element a line, so that a change shows where it is."""
    if isinstance(made, list):
        return "[\n" + ",\n".join(json.dumps(one) for one in made) + "\n]\n"
    parts = []
    for name, value in made.items():
        long = isinstance(value, list) and len(value) > 8
        shown = (
            "[\n  " + ",\n  ".join(json.dumps(one) for one in value) + "\n]" if long else json.dumps(value)
        )
        parts.append(f"{json.dumps(name)}: {shown}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


@cache
def made() -> dict[str, Any]:
    return vector_files.files()


def committed(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["digests", "genesis", "map", "numbers", "rows", "records", "payload"])
def test_file__equals_what_the_transition_says(name: str) -> None:
    path = FOLDER / f"{name}.json"
    if IS_UPDATE:
        path.write_text(text(made()[name]))
    is_equal = path.read_text() == text(made()[name])  # no diff of such files
    assert is_equal


def test_files__are_all_there_and_named_in_the_readme() -> None:
    names = {path.stem for path in FOLDER.glob("*.json")}
    assert names == set(made())
    page = (FOLDER / "README.md").read_text()
    assert all(f"`{name}.json`" in page for name in names)


def naive_root(entries: list[tuple[int, int]]) -> bytes:
    """The rule of docs/PROTOCOL.md, by recursion over sorted keys."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        key, value = entries[0]
        return keccak(key.to_bytes(32, "big") + value.to_bytes(32, "big"))
    first, last = entries[0][0], entries[-1][0]
    bit = 1 << ((first ^ last).bit_length() - 1)
    left = [one for one in entries if not one[0] & bit]
    right = [one for one in entries if one[0] & bit]
    return keccak(bit.to_bytes(32, "big") + naive_root(left) + naive_root(right))


def number(word: str) -> int:
    return int(word, 16)


def test_map__root_and_path_follow_from_the_rule() -> None:
    for one in committed("map"):
        entries = sorted((number(key), number(value)) for key, value in one["entries"])
        assert naive_root(entries).hex() == one["root"][2:]
        if "present" not in one:
            continue
        key = number(one["present"])
        bitmap, *siblings = map(number, one["path_words"])
        node = keccak(key.to_bytes(32, "big") + dict(entries)[key].to_bytes(32, "big"))
        bits = [position for position in range(256) if bitmap >> position & 1]
        assert len(bits) == len(siblings)
        for position, sibling in zip(bits, siblings, strict=True):
            other = sibling.to_bytes(32, "big")
            pair = other + node if key >> position & 1 else node + other
            node = keccak((1 << position).to_bytes(32, "big") + pair)
        assert node.hex() == one["root"][2:]


@pytest.mark.parametrize("name", ["genesis", "records"])
def test_leaves__hash_to_their_values_and_to_the_root(name: str) -> None:
    found = committed(name)
    for leaf in found["leaves"]:
        words = b"".join(bytes.fromhex(word[2:]) for word in leaf["words"])
        kind = number(leaf["key"]) >> 252
        assert leaf["value"] == "0x" + (words if kind in (2, 4, 8) else keccak(words)).hex()
    root = found["root"] if name == "genesis" else found["records"][-1]["root"]
    entries = sorted((number(leaf["key"]), number(leaf["value"])) for leaf in found["leaves"])
    assert naive_root(entries).hex() == root[2:]


def test_digests__are_those_of_any_eip712_library() -> None:
    found = committed("digests")
    for one in found["records"]:
        name, members = one["type"][:-1].split("(")
        fields = [
            dict(zip(("type", "name"), member.split(" "), strict=True)) for member in members.split(",")
        ]
        message = {
            field["name"]: bytes.fromhex(value[2:]) if field["type"] == "address" else value
            for field, value in zip(fields, one["message"].values(), strict=True)
        }
        signable = encode_typed_data(
            {
                "name": "Fairstrike",
                "version": "1",
                "chainId": found["chain_id"],
                "verifyingContract": found["verifying_contract"],
            },
            {name: fields},
            message,
        )
        assert signable.header.hex() == found["domain_separator"][2:]
        assert keccak(b"\x19\x01" + signable.header + signable.body).hex() == one["digest"][2:]
        signed = Account.sign_message(signable, found["private_key"])
        compact = signed.r.to_bytes(32, "big") + (signed.s | (signed.v - 27) << 255).to_bytes(32, "big")
        assert one["record"][-128:] == compact.hex()
        assert Account.recover_message(signable, signature=signed.signature).lower() == found["signer"]


def test_records__reach_most_kinds_and_reasons() -> None:
    found = committed("records")["records"]
    kinds = {one["record"][2:4] for one in found if one["code"] == 0}
    reasons = {one["reason"] for one in found}
    assert len(kinds) >= 15
    assert len(reasons) >= 25


def test_payload__data_root_and_inbox_hash_follow_from_the_rule() -> None:
    found = committed("payload")
    data = bytes.fromhex(found["payload"][2:])
    ids = "".join(one[2:] for one in found["ids"])
    records = "".join(raw[2:] for one in found["segments"] for raw in one["records"])
    assert ids
    assert data.hex().endswith(ids + records)
    level = [keccak(data[at : at + 992].ljust(992, b"\0")) for at in range(0, len(data), 992)]
    while len(level) & len(level) - 1:
        level.append(bytes(32))
    while len(level) > 1:
        level = [keccak(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    assert level[0].hex() == found["data_root"][2:]
    running = bytes(32)
    for one in found["inbox"]:
        running = keccak(running + bytes.fromhex(one["record"][2:]) + b"\0")
        assert running.hex() == one["hash"][2:]


def test_arithmetic_page__holds_every_constant_of_the_code() -> None:
    root = FOLDER.parents[1]
    page = (root / "docs" / "ARITHMETIC.md").read_text()
    tree = ast.parse((root / "sequencer" / "protocol" / "black76.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    wanted = {"ln_ratio_q56", "exp_neg_q56", "hart_ratio_q56", "stdev_q56", "time_value_q56"}
    numbers = {
        node.value
        for function in functions
        if function.name in wanted
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, int)
    }
    numbers |= {black76.LN2_Q56, black76.HART_SPLIT_Q56, black76.SQRT_TWO_PI_Q56, black76.CF_TAIL_Q56}
    assert {function.name for function in functions} >= wanted
    assert all(re.search(rf"\b{one}\b", page) or one == 10**6 for one in numbers if one > 256)
