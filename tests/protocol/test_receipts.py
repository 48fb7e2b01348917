"""Receipts: headers, leaves, paths, and what they bind."""

from dataclasses import replace
from random import Random

import pytest

from sequencer.protocol import receipts
from sequencer.protocol.hashing import address_of, keccak, public_key_of
from sequencer.protocol.outcome import Fill, Outcome
from sequencer.protocol.receipts import NO_OUTCOME, Header

DOMAIN = keccak(b"domain")
KEY = keccak(b"receipt key")
SIGNER = address_of(public_key_of(KEY))


def header(records: int = 5, root: bytes = bytes(24)) -> Header:
    return Header(
        7,
        2,
        1,
        1_000,
        keccak(b"parent")[:31],
        40_000,
        records,
        root,
        keccak(b"state"),
        1_700_000_000_123_456_789,
    )


def leaves(count: int) -> list[bytes]:
    return [receipts.leaf(40_000 + i, b"record %d" % i, 0, keccak(b"%d" % i)) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 31, 512, 513])
def test_path__every_leaf__leads_to_the_root_and_no_other_does(count: int) -> None:
    listed = leaves(count)
    levels = receipts.tree(listed)
    root = levels[-1][0]
    for index in {0, count // 2, count - 1}:
        siblings = receipts.path(levels, index)
        assert len(siblings) == receipts.depth(count) * receipts.NODE_BYTES
        assert receipts.fold(listed[index], index, siblings) == root
        assert receipts.fold(keccak(b"other")[:24], index, siblings) != root
        if count > 1:
            assert receipts.fold(listed[index], index ^ 1, siblings) != root


@pytest.mark.parametrize("count", [1, 2, 7, 512, 1_000])
def test_receipt__packed_and_unpacked__is_signed_by_the_key_and_within_400_bytes(count: int) -> None:
    levels = receipts.tree(leaves(count))
    signed = header(count, levels[-1][0])
    signature = signed.sign(DOMAIN, KEY)
    index = count - 1
    data = receipts.pack(signed, signature) + receipts.item(index, levels)
    assert len(data) <= 400
    found, found_signature, seq = receipts.unpack(data, b"record %d" % index, 0, keccak(b"%d" % index))
    assert (found, found_signature, seq) == (signed, signature, 40_000 + index)
    assert found.signer(DOMAIN, found_signature) == SIGNER
    for record, reason, outcome in (
        (b"another", 0, keccak(b"%d" % index)),
        (b"record %d" % index, 1, keccak(b"%d" % index)),
        (b"record %d" % index, 0, NO_OUTCOME),
    ):
        wrong, signature, _ = receipts.unpack(data, record, reason, outcome)
        assert wrong.signer(DOMAIN, signature) != SIGNER


def test_receipt__any_bit_changed__is_not_signed_by_the_key_or_does_not_parse() -> None:
    random = Random(3)
    levels = receipts.tree(leaves(9))
    signed = header(9, levels[-1][0])
    data = receipts.pack(signed, signed.sign(DOMAIN, KEY)) + receipts.item(4, levels)
    assert len(data) == receipts.HEAD_BYTES + 64 + 3 + 4 * 24
    for _ in range(300):
        place = random.randrange(len(data) * 8)
        changed = bytearray(data)
        changed[place >> 3] ^= 1 << (place & 7)
        try:
            found, signature, _ = receipts.unpack(bytes(changed), b"record 4", 0, keccak(b"4"))
        except ValueError:
            continue
        assert found.signer(DOMAIN, signature) != SIGNER


@pytest.mark.parametrize("size", [0, 91, 156, 158, 159 + 24, 159 + 5 * 24])
def test_unpack__a_wrong_size__is_named(size: int) -> None:
    levels = receipts.tree(leaves(9))
    signed = header(9, levels[-1][0])
    data = receipts.pack(signed, signed.sign(DOMAIN, KEY)) + receipts.item(4, levels)
    with pytest.raises(ValueError, match="receipt: "):
        receipts.unpack(data.ljust(size, b"\0")[:size], b"record 4", 0, keccak(b"4"))


def test_header__every_field__changes_what_is_signed() -> None:
    signed = header()
    for field, value in {
        "epoch": 8,
        "term": 3,
        "roll_backs": 2,
        "tick": 1_001,
        "parent": bytes(31),
        "first_seq": 40_001,
        "records": 6,
        "records_root": keccak(b"x")[:24],
        "state_root": bytes(32),
        "time_ns": 1,
    }.items():
        assert replace(signed, **{field: value}).digest(DOMAIN) != signed.digest(DOMAIN), field
    assert signed.digest(keccak(b"another chain")) != signed.digest(DOMAIN)
    assert signed.sign(DOMAIN, KEY) == signed.sign(DOMAIN, KEY)


def fill(price: int, quantity: int, maker_seq: int) -> Fill:
    return Fill(33, 0, 2, maker_seq, 1, 9, price, quantity, 0, 5)


def test_outcome__price_quantity_order_of_trades_fee_and_rest__each_count() -> None:
    def out(fills: list[Fill], paid: int | None = 11) -> Outcome:
        made = Outcome(9)
        made.fills, made.paid = fills, paid
        return made

    base = [fill(100, 5, 3), fill(101, 6, 4)]
    hashes = [
        receipts.outcome_hash(out(fills, paid))
        for fills, paid in (
            (base, 11),
            (base, 12),
            (base[::-1], 11),
            (base[:1], 11),
            ([fill(100, 5, 3), fill(101, 6, 5)], 11),
            ([fill(100, 5, 3), fill(102, 6, 4)], 11),
            ([fill(100, 5, 3), fill(101, 7, 4)], 11),
            ([], 11),
            ([], None),
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert hashes[-1] == NO_OUTCOME


def test_unpack__of_a_tick_that_no_judge_could_open__is_refused() -> None:
    signed = header((1 << receipts.DEPTH_MAX) + 1)
    data = receipts.pack(signed, bytes(64)) + bytes(3 + (receipts.DEPTH_MAX + 1) * receipts.NODE_BYTES)
    with pytest.raises(ValueError, match="at most 1048576 can be judged"):
        receipts.unpack(data, b"record", 0, NO_OUTCOME)
