"""What a trader keeps of its receipts: which L1 is not known to have, and which of them are overdue."""

import json
from pathlib import Path

import pytest

from sequencer.protocol import receipts as rules
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.hashing import address_of, keccak, public_key_of
from sequencer.protocol.receipts import Header
from sequencer.sdk.receipts import ReceiptKeeper, ReceiptWrong, load
from sequencer.wire.receipts import in_json, with_receipt

KEY = keccak(b"receipt key")
SIGNER = address_of(public_key_of(KEY))
ROLLUP = "0x" + "11" * 20
RECORD = b"\x23" + bytes(92)  # a CANCEL_ALL: it executes no order


def ack(tick: int, time_s: int, domain: bytes) -> dict[str, object]:
    """As a gateway gives it: of the one record of its tick."""
    root = rules.leaf(tick * 10, RECORD, 0, rules.NO_OUTCOME)
    header = Header(1, 0, 0, tick, bytes(31), tick * 10, 1, root, bytes(32), time_s * 10**9)
    signed = rules.pack(header, header.sign(domain, KEY)) + (0).to_bytes(3, "big")
    body = b'{"seq":%d,"tick":%d,"fee":"0","fills":[],"order":null}' % (tick * 10, tick)
    found: dict[str, object] = json.loads(in_json(with_receipt(body, signed)))
    return found


def test_keeper__knows_what_is_overdue__until_l1_has_it(tmp_path: Path) -> None:
    domain = domain_separator(31_337, bytes.fromhex("11" * 20))
    keeper = ReceiptKeeper(31_337, ROLLUP, frozenset([SIGNER]), tmp_path / "kept.jsonl")
    for tick in (1, 2, 3):
        assert keeper.take(RECORD, ack(tick, 1_000 + tick, domain)) is not None
    assert [one.header.tick for one in keeper.overdue(1_603.5, 601)] == [1, 2]
    keeper.posted(1)
    assert [one.header.tick for one in keeper.overdue(1_603.5, 601)] == [2]
    keeper.posted(3)
    assert keeper.overdue(10**9, 601) == []
    keeper.close()
    assert [one.open().header.tick for one in load(tmp_path / "kept.jsonl")] == [1, 2, 3]


def test_keeper__gives_the_ack_of_a_record_whose_receipt_is_wrong(tmp_path: Path) -> None:
    domain = domain_separator(31_337, bytes.fromhex("11" * 20))
    keeper = ReceiptKeeper(31_337, ROLLUP, frozenset([SIGNER]))
    told = ack(1, 1_001, domain)
    for wrong in (
        {**told, "seq": 11},
        {**told, "tick": 2},
        {**told, "receipt": None},
        {**told, "receipt": "AA=="},
    ):
        with pytest.raises(ReceiptWrong) as caught:
            keeper.take(RECORD, wrong)
        assert caught.value.ack == wrong
    assert ReceiptKeeper(31_337, ROLLUP, frozenset()).take(RECORD, told) is None
