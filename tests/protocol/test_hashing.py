"""Keccak and signatures against eth_utils and eth_account, and totality of `recover`."""

from __future__ import annotations

import threading

import pytest
import tiny_keccak
from eth_account import Account
from eth_utils.crypto import keccak as reference_keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import hashing

PRIVATE_KEYS = st.integers(1, hashing.CURVE_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
DIGESTS = st.binary(min_size=32, max_size=32)
PARITY = 1 << 255
KEY = bytes(31) + b"\x07"
DIGEST = bytes(range(32))


def compact(r: int, s: int, parity: int) -> bytes:
    return r.to_bytes(32, "big") + (parity << 255 | s).to_bytes(32, "big")


def parts(signature: bytes) -> tuple[int, int, int]:
    packed = int.from_bytes(signature[32:], "big")
    return int.from_bytes(signature[:32], "big"), packed & (PARITY - 1), packed >> 255


@given(st.binary(max_size=600))
def test_keccak__of_any_bytes__equals_eth_utils(data: bytes) -> None:
    assert hashing.keccak(data) == tiny_keccak.keccak256(data) == reference_keccak(data)


@pytest.mark.parametrize("data", ["text", 5, None, bytearray(3)])
def test_keccak__of_anything_but_bytes__raises(data: object) -> None:
    with pytest.raises(TypeError):
        hashing.keccak(data)  # type: ignore[arg-type]  # wrong types are the point


@pytest.mark.parametrize("length", [0, 31, 32, 64, 96, 134, 135, 136, 137, 271, 272, 273, 5000])
def test_keccak__around_block_boundaries__equals_eth_utils(length: int) -> None:
    data = (bytes(range(256)) * 20)[:length]
    assert hashing.keccak(data) == reference_keccak(data)


@settings(max_examples=50, deadline=None)
@given(DIGESTS, PRIVATE_KEYS)
def test_sign__of_any_digest__equals_eth_account_and_recovers(digest: bytes, private_key: bytes) -> None:
    signature = hashing.sign(digest, private_key)
    account = Account.from_key(private_key)
    signed = account.unsafe_sign_hash(digest)
    assert parts(signature) == (signed.r, signed.s, signed.v - 27)
    assert hashing.recover(digest, signature) == bytes.fromhex(account.address[2:])
    assert hashing.address_of(hashing.public_key_of(private_key)) == bytes.fromhex(account.address[2:])


@settings(max_examples=100, deadline=None)
@given(DIGESTS, st.binary(min_size=64, max_size=64))
def test_recover__of_arbitrary_signature__equals_eth_account_or_is_none(
    digest: bytes, signature: bytes
) -> None:
    r, s, parity = parts(signature)
    got = hashing.recover(digest, signature)
    if not (0 < r < hashing.CURVE_ORDER and 0 < s <= hashing.CURVE_ORDER // 2):
        assert got is None
        return
    try:
        expected = Account._recover_hash(digest, vrs=(parity + 27, r, s))  # the raw-digest form
    except Exception:  # noqa: BLE001 (an r off the curve: the reference raises several kinds)
        assert got is None
    else:
        assert got == bytes.fromhex(expected[2:])


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_recover__of_any_bytes_of_any_length__never_raises(digest: bytes, signature: bytes) -> None:
    got = hashing.recover(digest, signature)
    assert got is None or (len(got) == 20 and len(digest) == 32 and len(signature) == 64)


def test_recover__of_high_s_twin__is_none() -> None:
    r, s, parity = parts(hashing.sign(DIGEST, KEY))
    # n - s itself may not fit under the parity bit; the least and greatest high s that do must be refused.
    assert hashing.recover(DIGEST, compact(r, hashing.CURVE_ORDER // 2 + 1, parity)) is None
    assert hashing.recover(DIGEST, compact(r, PARITY - 1, parity)) is None
    assert s <= hashing.CURVE_ORDER // 2


@pytest.mark.parametrize(
    ("r", "s"),
    [
        (0, 1),
        (1, 0),
        (0, 0),
        (hashing.CURVE_ORDER, 1),
        (hashing.CURVE_ORDER + 1, 1),
        (2**256 - 1, 1),
        (5, 1),  # 5 is no x of a curve point
    ],
)
@pytest.mark.parametrize("parity", [0, 1])
def test_recover__of_out_of_range_parts__is_none(r: int, s: int, parity: int) -> None:
    assert hashing.recover(DIGEST, compact(r, s, parity)) is None


@pytest.mark.parametrize("s", [1, hashing.CURVE_ORDER // 2])
def test_recover__of_extreme_s__equals_eth_account(s: int) -> None:
    expected = Account._recover_hash(DIGEST, vrs=(28, 1, s))  # the raw-digest form
    assert hashing.recover(DIGEST, compact(1, s, 1)) == bytes.fromhex(expected[2:])


def test_recover__after_a_refusal__is_not_stale() -> None:
    good = hashing.sign(DIGEST, KEY)
    address = hashing.recover(DIGEST, good)
    assert hashing.recover(DIGEST, compact(5, 1, 0)) is None
    assert hashing.recover(DIGEST, good) == address == hashing.address_of(hashing.public_key_of(KEY))


def test_recover__from_many_threads__does_not_mix_signers() -> None:
    keys = [number.to_bytes(32, "big") for number in range(1, 5)]
    wrong: list[int] = []

    def work(private_key: bytes) -> None:
        signature = hashing.sign(DIGEST, private_key)
        address = hashing.address_of(hashing.public_key_of(private_key))
        wrong.extend(turn for turn in range(500) if hashing.recover(DIGEST, signature) != address)

    threads = [threading.Thread(target=work, args=(private_key,)) for private_key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_address_of__accepts_raw_and_sec_forms() -> None:
    raw = hashing.public_key_of(KEY)
    compressed = bytes((2 + (raw[63] & 1),)) + raw[:32]
    assert hashing.address_of(raw) == hashing.address_of(b"\x04" + raw) == hashing.address_of(compressed)


@pytest.mark.parametrize(
    "public_key", [b"", bytes(64), bytes(65), bytes(63), b"\x04" + bytes(64), b"\xff" * 64]
)
def test_address_of__no_curve_point__raises(public_key: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        hashing.address_of(public_key)


@pytest.mark.parametrize(
    "private_key", [b"", bytes(32), b"\x01", bytes(33), b"\xff" * 32, hashing.CURVE_ORDER.to_bytes(32, "big")]
)
def test_sign__with_bad_private_key__raises(private_key: bytes) -> None:
    with pytest.raises(ValueError, match="private key"):
        hashing.sign(DIGEST, private_key)


def test_sign__of_digest_of_wrong_length__raises() -> None:
    with pytest.raises(ValueError, match="digest"):
        hashing.sign(b"short", KEY)
