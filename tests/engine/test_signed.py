"""Signers recovered ahead are those that `decode` recovers, each at its record."""

import os
import random

import pytest

from sequencer.engine import signed
from sequencer.engine.signed import is_signed, signers_of
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Kind
from tests.simulation.little import DOMAIN, Little


def records(count: int) -> list[bytes]:
    """Signed, unsigned, unknown, cut off, padded, forged and empty ones."""
    little, dice = Little(), random.Random(5)
    good = [one.raw for one in little.orders(count)]
    good += little.keeper.pass_one(little.now + 1)
    good += [raw for entry in little.entries for raw in entry.raws()]
    bad = [b"", b"\xff" * 31, good[0][:40], bytes(93)]
    raw = good[0]
    end = len(raw) - c.SIGNATURE_BYTES
    bad += [raw[: end - 1] + b"\1" + raw[end:], raw[:end] + bytes(c.SIGNATURE_BYTES)]
    bad.append(raw[:5] + bytes([raw[5] ^ 1]) + raw[6:])
    out = good + bad * 5
    dice.shuffle(out)
    return out


def expected(raw: bytes) -> bytes | None:
    found = codec.decode(raw, DOMAIN)
    return found.signer if isinstance(found, Record) else None


@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize("count", [4, 40, 600])
def test_signers_of__are_what_decode_recovers(
    monkeypatch: pytest.MonkeyPatch, count: int, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    monkeypatch.setattr(signed, "CHUNK_RECORDS", 100)
    signed._threads.cache_clear()
    raws = records(count)
    found = list(signers_of(raws, DOMAIN))
    assert found == [expected(raw) for raw in raws]
    assert sum(one is not None for one in found) > count
    assert None in found
    signed._threads.cache_clear()


def test_is_signed__by_kind() -> None:
    assert [is_signed(bytes([kind])) for kind in (Kind.PLACE, Kind.FEED, Kind.AMEND)] == [True] * 3
    assert not any(is_signed(raw) for raw in (b"", bytes([Kind.TICK]), bytes([Kind.DEPOSIT]), b"\xff"))
