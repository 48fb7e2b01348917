"""Signers of many records: those that decoding each gives, whatever is in the signature, on any thread, in C or not."""

import random
import threading

import pytest

from sequencer.protocol import codec, signers
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import CURVE_ORDER, address_of, public_key_of

DOMAIN = bytes(range(32))
SIGNED = [Kind(kind) for kind, layout in codec.LAYOUTS.items() if layout.signed]
KEY = b"\x07" * 32


def any_record(draw: random.Random, kind: Kind) -> bytes:
    """Any values that the fields hold; of negative ones, too."""
    fields: dict[str, int | bytes] = {}
    for name, of_type in codec.LAYOUTS[kind].fields:
        size = codec.field_bytes(of_type)
        data = draw.choice((bytes(size), b"\xff" * size, draw.randbytes(size)))
        fields[name] = data if of_type == "address" else int.from_bytes(data, "big", signed=of_type[0] == "i")
    if kind == Kind.PLACE_IN_WORDS:  # its text needs a market and a side that there are
        fields |= {"instrument": draw.randrange(2) << 28 | 20_000 << 12, "flags": 0, "terms": 4_600_000}
    return codec.encode(kind, **fields)


def with_signature(raw: bytes, r: int, s: int, parity: int) -> bytes:
    return raw[:-64] + r.to_bytes(32, "big") + (parity << 255 | s).to_bytes(32, "big")


def decoded(raws: list[bytes]) -> list[bytes | None]:
    records = [codec.decode(raw, DOMAIN) for raw in raws]
    return [one.signer for one in records if isinstance(one, codec.Record)]


@pytest.fixture(params=["in C", "in Python"])
def either_way(request, monkeypatch):
    if request.param == "in Python":
        monkeypatch.setattr(signers, "_kernel", None)
    elif signers._kernel is None:
        pytest.skip("the kernel is not built")


@pytest.mark.parametrize("kind", SIGNED)
def test_signers__of_every_kind__are_those_who_signed(kind, either_way):
    draw = random.Random(kind)
    keys = [draw.randbytes(32) for _ in range(16)]
    raws = [codec.sign(any_record(draw, kind), DOMAIN, key) for key in keys]
    assert signers.signers(raws, DOMAIN) == [address_of(public_key_of(key)) for key in keys]
    assert signers.signers(raws, DOMAIN) == decoded(raws)
    assert set(signers.signers(raws, bytes(32))).isdisjoint(signers.signers(raws, DOMAIN))


def test_signers__of_any_signature__are_those_of_decoding(either_way):
    draw = random.Random(5)
    half, raw = CURVE_ORDER // 2, any_record(draw, Kind.PLACE)
    edges = [0, 1, 2, half - 1, half, half + 1, CURVE_ORDER - 1, CURVE_ORDER, 2**255 - 1]
    raws = [
        with_signature(raw, r, s, parity) for r in [*edges, 2**256 - 1] for s in edges for parity in (0, 1)
    ]
    raws += [raw[:-64] + draw.randbytes(64) for _ in range(200)]
    found = signers.signers(raws, DOMAIN)
    assert found == decoded(raws)
    assert None in found
    assert any(found)


def test_signers__on_several_threads__do_not_disturb_each_other(either_way):
    draw = random.Random(6)
    raws = [codec.sign(any_record(draw, Kind.AMEND), DOMAIN, draw.randbytes(32)) for _ in range(64)]
    wanted, found = decoded(raws), []

    def work() -> None:
        for _ in range(10):
            found.append(signers.signers(raws, DOMAIN))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 40


def test_signers__of_none__are_none(either_way):
    assert signers.signers([], DOMAIN) == []


def test_well_formed__says_what_decoding_says():
    draw = random.Random(7)
    for kind, layout in codec.LAYOUTS.items():
        raw = draw.randbytes(0)
        fields = {name: bytes(20) if of_type == "address" else 1 for name, of_type in layout.fields}
        if kind != Kind.PLACE_IN_WORDS:
            raw = codec.encode(Kind(kind), **fields)
            assert codec.well_formed(raw) is Reason.OK
        end = len(raw) - c.SIGNATURE_BYTES * layout.signed
        dirty = raw[: end - 1] + b"\x01" + raw[end:]
        for one in (raw, raw[:-1], raw + b"\0", dirty, bytes([kind]), draw.randbytes(31)):
            record = codec.decode(one, DOMAIN, bytes(20))
            reason = record if isinstance(record, Reason) else Reason.OK
            assert codec.well_formed(one) is reason, (kind, one.hex())


@pytest.mark.skipif(signers._kernel is None, reason="the kernel is not built")
def test_kernel__given_what_cannot_be__says_so():
    kernel, library = signers._kernel, signers._library
    raw = codec.sign(any_record(random.Random(8), Kind.PLACE), DOMAIN, KEY)
    plan = signers._plans[Kind.PLACE]
    with pytest.raises(TypeError):
        kernel(library, DOMAIN, [raw], [None])
    with pytest.raises(TypeError):
        kernel(library, DOMAIN, [raw[-64:]], [plan])
    with pytest.raises(TypeError):
        kernel(library, DOMAIN[:31], [raw], [plan])
    with pytest.raises(ValueError, match="as many plans"):
        kernel(library, DOMAIN, [raw], [])
    with pytest.raises(ValueError, match="more fields"):
        kernel(library, DOMAIN, [raw], [plan + bytes([32])])
    with pytest.raises(ValueError, match="zero"):
        kernel((0, 0, 0, 0), DOMAIN, [raw], [plan])
