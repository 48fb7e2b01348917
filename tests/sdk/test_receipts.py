"""What a trader keeps of its receipts: which L1 is not known to have, and which of them are overdue."""

import json
import time
from pathlib import Path

import pytest

from sequencer.protocol import receipts as rules
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.hashing import address_of, keccak, public_key_of
from sequencer.protocol.receipts import Header
from sequencer.sdk.receipts import LEAD_PATIENCE_S, TIME_SLACK_S, ReceiptKeeper, ReceiptWrong, load
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


def signed_ack(tick: int, epoch: int, roll_backs: int, time_s: float, domain: bytes) -> dict[str, object]:
    root = rules.leaf(tick * 10, RECORD, 0, rules.NO_OUTCOME)
    header = Header(epoch, 0, roll_backs, tick, bytes(31), tick * 10, 1, root, bytes(32), int(time_s * 10**9))
    signed = rules.pack(header, header.sign(domain, KEY)) + (0).to_bytes(3, "big")
    body = b'{"seq":%d,"tick":%d,"fee":"0","fills":[],"order":null}' % (tick * 10, tick)
    found: dict[str, object] = json.loads(in_json(with_receipt(body, signed)))
    return found


def test_keeper__refuses_a_lead_that_goes_back_and_keeps_the_proof() -> None:
    domain = domain_separator(31_337, bytes.fromhex("11" * 20))
    left: list[object] = []
    keeper = ReceiptKeeper(31_337, ROLLUP, frozenset([SIGNER]), keep=[left.append])
    keeper.take(RECORD, signed_ack(1, 2, 1, 1_000, domain))
    for epoch, roll_backs in ((1, 1), (2, 0)):
        with pytest.raises(ReceiptWrong, match=f"signed in epoch {epoch} after {roll_backs} roll-backs"):
            keeper.take(RECORD, signed_ack(2, epoch, roll_backs, 1_000, domain))
    assert keeper.take(RECORD, signed_ack(2, 3, 1, 1_000, domain)) is not None
    assert len(left) == 4


def test_keeper__that_has_seen_l1__refuses_old_leads_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = domain_separator(31_337, bytes.fromhex("11" * 20))
    keeper = ReceiptKeeper(31_337, ROLLUP, frozenset([SIGNER]))
    now_s = int(time.time())
    keeper.saw_l1(4, 1, now_s)
    assert keeper.take(RECORD, signed_ack(1, 4, 1, now_s, domain)) is not None
    with pytest.raises(ReceiptWrong, match="it is epoch 4 after 1"):
        keeper.take(RECORD, signed_ack(2, 4, 0, now_s, domain))
    for off_s in (-TIME_SLACK_S - 60, TIME_SLACK_S + 60):
        with pytest.raises(ReceiptWrong, match="of the time"):
            keeper.take(RECORD, signed_ack(2, 4, 1, now_s + off_s, domain))
    keeper.saw_l1(4, 2, now_s)  # a roll-back: the signer may not have heard of it yet
    assert keeper.take(RECORD, signed_ack(3, 4, 1, now_s, domain)) is not None
    later = time.monotonic() + LEAD_PATIENCE_S + 1
    monkeypatch.setattr("sequencer.sdk.receipts.time.monotonic", lambda: later)
    with pytest.raises(ReceiptWrong, match="it is epoch 4 after 2"):
        keeper.take(RECORD, signed_ack(4, 4, 1, now_s, domain))
    assert keeper.take(RECORD, signed_ack(4, 4, 2, now_s, domain)) is not None
