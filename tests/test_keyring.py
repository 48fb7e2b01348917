"""A ring of keys finds the signers that recovery finds, whatever comes; most of them together."""

import random
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from sequencer import keyring
from sequencer.keyring import KeyRing, hints_of
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import CURVE_ORDER, address_of, public_key_of
from sequencer.protocol.signers import signers

DOMAIN = bytes(range(32))
KEYS = [bytes([number]) * 32 for number in range(1, 41)]
OWNERS = [address_of(public_key_of(key)) for key in KEYS]
needs_kernel = pytest.mark.skipif(keyring._verify is None, reason="the kernel is not built")


def record(account: int, nonce: int, key: bytes | None = None, kind: Kind = Kind.TRANSFER) -> bytes:
    fields = {"to": 2, "amount": 1} if kind is Kind.TRANSFER else {"nonce_floor": 5}
    raw = codec.encode(kind, account=account, nonce=nonce, expires=0, **fields)
    return codec.sign(raw, DOMAIN, key or KEYS[account])


def records(count: int, accounts: int = 40, first: int = 0) -> list[bytes]:
    return [record(number % accounts, number) for number in range(first, first + count)]


def spoilt(raw: bytes, draw: random.Random) -> bytes:
    """With a signature of another kind, or one that no key has made."""
    kind = draw.randrange(6)
    if kind == 0:
        return raw[:-64] + draw.randbytes(64)
    if kind == 1:
        return raw[:-64] + bytes(64)
    if kind == 2:  # of the upper half
        s = CURVE_ORDER - (int.from_bytes(raw[-32:], "big") & 2**255 - 1)
        return raw[:-32] + s.to_bytes(32, "big")
    if kind == 3:
        return raw[:-32] + bytes([raw[-32] ^ 0x80]) + raw[-31:]  # another parity, another key
    at = draw.randrange(1, len(raw) - 64 if kind == 4 else len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :]


class _Verify:
    """Counts what the kernel is asked."""

    def __init__(self, verify: Callable[..., bytes]) -> None:
        self._verify = verify
        self.sizes: list[int] = []
        self.failed: list[int] = []

    def __call__(self, *args) -> bytes:
        known = self._verify(*args)
        self.sizes.append(len(known))
        if 2 in known:
            self.failed.append(len(known))
        return known


def found(ring: KeyRing, raws: list[bytes]) -> list[bytes | None]:
    return ring.signers(raws, DOMAIN, hints_of(raws))


@pytest.fixture
def verify(monkeypatch) -> _Verify:
    counted = _Verify(keyring._verify)
    monkeypatch.setattr(keyring, "_verify", counted)
    return counted


@pytest.fixture(params=["in C", "in Python"])
def either_way(request, monkeypatch):
    if request.param == "in Python":
        monkeypatch.setattr(keyring, "_verify", None)
    elif keyring._verify is None:
        pytest.skip("the kernel is not built")


def test_hint__is_the_account_or_the_feed():
    assert hints_of([record(7, 1), record(8, 1, kind=Kind.CANCEL_ALL)]) == [b"\0\0\0\7", b"\0\0\0\x08"]
    feed = codec.encode(Kind.FEED, underlying=1, feed=3, time=5, price=7)
    assert hints_of([feed]) == [b"\3"]
    for kind, layout in codec.LAYOUTS.items():
        names = [name for name, _ in layout.fields]
        assert not layout.signed or names[0] == "account" or (kind in keyring._REPORTS and names[1] == "feed")


def test_no_records__have_no_signers(either_way):
    assert found(KeyRing(), []) == []


@pytest.mark.parametrize("seed", range(4))
def test_signers__of_any_records_in_any_batches__are_those_of_recovery(seed, either_way):
    draw = random.Random(seed)
    ring = KeyRing(keys_max=draw.choice((8, 32, 1_000)))
    wrong = draw.choice((0, 0.003, 0.05, 0.5))
    for _ in range(60):
        raws = []
        for _ in range(draw.choice((0, 1, 3, 4, 17, 64, 300))):
            account = draw.randrange(draw.choice((3, 40)))
            key = KEYS[draw.randrange(40)] if draw.random() < wrong else None
            raw = record(account, draw.randrange(2**32), key, draw.choice((Kind.TRANSFER, Kind.CANCEL_ALL)))
            raws.append(spoilt(raw, draw) if draw.random() < wrong else raw)
            if draw.random() < 0.02:
                raws.append(draw.choice(raws))
        hints = draw.choice((hints_of(raws), [draw.randrange(5) for _ in raws], [b"one"] * len(raws)))
        assert ring.signers(raws, DOMAIN, hints) == signers(raws, DOMAIN)
    assert len(ring._keys) <= ring._keys_max
    assert len(ring._candidates) <= ring._keys_max


@needs_kernel
def test_records_of_known_keys__are_verified_together(verify):
    ring = KeyRing()
    found(ring, records(40 * keyring.TIMES_MIN))
    assert not verify.sizes
    for _ in range(3):
        assert found(ring, records(100)) == [OWNERS[number % 40] for number in range(100)]
    assert found(ring, records(600)) == [OWNERS[number % 40] for number in range(600)]
    assert verify.sizes == [100, 100, 100, 256, 256, 88]
    assert (ring.verified, ring.recovered) == (900, 40 * keyring.TIMES_MIN)


@needs_kernel
def test_few_records__are_recovered(verify):
    ring = KeyRing()
    found(ring, records(40 * keyring.TIMES_MIN))
    assert found(ring, records(keyring.BATCH_MIN - 1)) == OWNERS[: keyring.BATCH_MIN - 1]
    assert not verify.sizes
    assert found(ring, records(keyring.BATCH_MIN)) == OWNERS[: keyring.BATCH_MIN]
    assert verify.sizes == [keyring.BATCH_MIN]


def test_unknown__counts_what_will_be_recovered(either_way):
    ring = KeyRing()
    assert ring.unknown([]) == 0
    assert ring.unknown(hints_of(records(10))) == 10
    found(ring, records(20 * keyring.TIMES_MIN, accounts=20))
    for count in (keyring.BATCH_MIN - 1, keyring.BATCH_MIN, 20, 30):
        before = ring.recovered
        unknown = ring.unknown(hints_of(records(count)))
        found(ring, records(count))
        assert unknown == (count if keyring._verify is None else ring.recovered - before)


@needs_kernel
def test_unknown_accounts_among_known_ones__are_recovered_alone(verify):
    ring = KeyRing()
    found(ring, records(20 * keyring.TIMES_MIN, accounts=20))
    assert found(ring, records(40)) == OWNERS
    assert verify.sizes == [20]


@needs_kernel
def test_one_forged_record__costs_a_few_batches_and_few_recoveries(verify):
    ring = KeyRing()
    found(ring, records(40 * keyring.TIMES_MIN))
    raws = records(128)
    raws[77] = record(77 % 40, 77, KEYS[0])
    recovered = ring.recovered
    assert found(ring, raws) == [OWNERS[0] if n == 77 else OWNERS[n % 40] for n in range(128)]
    assert sorted(verify.sizes) == [16, 16, 32, 32, 64, 64, 128]
    assert ring.recovered - recovered == 16
    verify.sizes.clear()
    found(ring, records(40))
    assert verify.sizes == [39]  # the account whose record it was is recovered for a while
    for _ in range(2 * keyring.TIMES_MIN):
        found(ring, [record(77 % 40, 5)])
    found(ring, records(40))
    assert verify.sizes == [39, 40]


@needs_kernel
def test_flood_of_wrong_signatures__costs_little_more_than_recovering_all(verify, monkeypatch):
    monkeypatch.setattr(keyring, "CREDIT_FIRST_US", 3_000)
    draw = random.Random(9)
    ring = KeyRing()
    found(ring, records(40 * keyring.TIMES_MIN))
    count = 0
    for turn in range(60):
        raws = records(64, first=64 * turn)
        for place in draw.sample(range(64), 8):  # enough to spoil each part
            raws[place] = spoilt(raws[place], draw)
        assert found(ring, raws) == signers(raws, DOMAIN)
        count += 64
    wasted_us = sum(keyring.BATCH_US + keyring.EACH_US * size for size in verify.failed)
    spent_us = sum(keyring.BATCH_US + keyring.EACH_US * size for size in verify.sizes)
    assert wasted_us > keyring.CREDIT_FIRST_US
    recovered_us = keyring.RECOVERY_US * (ring.recovered - 40 * keyring.TIMES_MIN)
    everything_us = keyring.RECOVERY_US * count
    assert spent_us + recovered_us <= everything_us * 1.05 + keyring.CREDIT_FIRST_US


@needs_kernel
def test_key_that_becomes_known__and_a_wrong_signature_behind_it_in_the_same_batch(verify):
    ring = KeyRing()
    raws = [record(1, n) for n in range(keyring.TIMES_MIN)]
    wrong = raws[0][:-64] + bytes(64)
    assert found(ring, [*raws, wrong]) == [*[OWNERS[1]] * len(raws), None]
    assert found(ring, [*raws, wrong]) == [*[OWNERS[1]] * len(raws), None]
    assert verify.sizes == [len(raws) + 1]


@needs_kernel
def test_account_with_two_keys_by_turns__is_recovered(verify):
    ring = KeyRing()
    for turn in range(30):
        raws = [record(1, 2 * turn, KEYS[turn % 2])]
        assert found(ring, raws) == [OWNERS[turn % 2]]
    assert found(ring, [record(1, n) for n in range(keyring.BATCH_MIN)]) == [OWNERS[1]] * keyring.BATCH_MIN
    assert not verify.sizes


@needs_kernel
def test_hints__may_be_the_signers_themselves(verify):
    """Then an account may have many keys."""
    raws = [record(1, n, KEYS[n % 8]) for n in range(64)]
    ring = KeyRing()
    named = [OWNERS[n % 8] for n in range(64)]
    assert ring.signers(raws, DOMAIN, named) == named
    assert ring.signers(raws, DOMAIN, named) == named
    assert verify.sizes == [64]
    named[5] = OWNERS[6]  # is said to be, and is not
    assert ring.signers(raws, DOMAIN, named) == [OWNERS[n % 8] for n in range(64)]


@needs_kernel
def test_full_ring__forgets_the_oldest():
    ring = KeyRing(keys_max=4)
    for account in range(8):
        found(ring, [record(account, n) for n in range(keyring.TIMES_MIN)])
    assert list(ring._keys) == [account.to_bytes(4, "big") for account in range(4, 8)]


@needs_kernel
def test_threads__share_a_ring():
    ring, raws = KeyRing(), records(200)
    raws[13] = record(13, 13, KEYS[0])
    wanted, seen = signers(raws, DOMAIN), []

    def work() -> None:
        for _ in range(20):
            seen.append(found(ring, raws))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(map(tuple, seen)) == {tuple(wanted): 80}
