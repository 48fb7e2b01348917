"""Verification of many signatures at once, in C: its arithmetic, and that it says of a batch what recovery would.

Of every signature here the discrete logarithm of R is known, so that the sum that the kernel takes can be taken of
integers: it is zero if and only if the kernel says that all hold, for any coefficients.
"""

import itertools
import random

import pytest

from sequencer.protocol.hashing import CURVE_ORDER as N
from sequencer.protocol.hashing import public_key_of, recover, sign

kernel = pytest.importorskip("sequencer._kernel.cmap_kernel", reason="the kernel is not built")

P = 2**256 - 0x1000003D1
LAMBDA = 0x5363AD4CC05C30E0A5261C028812645A122E22EA20816678DF02967C1B23BD72
IMPOSSIBLE, HOLDS, UNDECIDED = range(3)
DOMAIN = bytes(32)
EDGES = [0, 1, 2, 3, P - 1, P - 2, N - 1, N - 2, N, N + 1, P, P + 1, 2**256 - 1, 2**255, 2**64 - 1, 2**64]
EDGES += [
    2**128 - 1,
    2**208 - 1,
    2**52,
    2**52 - 1,
    (P - 1) // 2,
    (P + 1) // 2,
    N // 2,
    2**62,
    2**248,
    2**256 - 2**32,
]


@pytest.fixture(autouse=True, params=[1, 8], ids=["alone", "in lanes"])
def _lanes(request):
    """Without vectors, and with as wide ones as the machine has."""
    kernel.use_lanes(request.param)
    yield
    kernel.use_lanes(8)


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def pairs(seed: int, count: int) -> list[tuple[int, int]]:
    draw = random.Random(seed)
    drawn = [(draw.getrandbits(256), draw.getrandbits(draw.randrange(1, 257))) for _ in range(count)]
    return [*itertools.product(EDGES, EDGES), *drawn]


def test_field__is_that_of_integers_modulo_p():
    def of(operation: str) -> int:
        return int.from_bytes(kernel.arithmetic(f"field {operation}", word(a), word(b)), "big")

    for a, b in pairs(1, 1_000):
        assert of("mul") == a * b % P
        assert of("sqr") == a * a % P
        assert of("subtract") == (a - b) % P
        assert of("large") == -32 * a * b % P
        assert of("inverse") == pow(a, P - 2, P)


def test_square_root__is_there_for_squares_only():
    for a, _ in pairs(2, 500):
        root = kernel.arithmetic("field sqrt", word(a), word(0))
        if pow(a, (P - 1) // 2, P) == P - 1:
            assert root is None
        else:
            assert int.from_bytes(root, "big") ** 2 % P == a % P


def test_scalars__are_integers_modulo_the_order():
    def of(operation: str) -> int:
        return int.from_bytes(kernel.arithmetic(f"scalar {operation}", word(a), word(b)), "big")

    for a, b in pairs(3, 1_000):
        assert of("mul") == a * b % N
        assert of("add") == (a + b) % N
        assert of("negate") == -a % N
        assert of("inverse") == pow(a, N - 2, N)


def test_table__has_the_key_and_its_multiples_by_powers_of_256():
    for private in (
        1,
        2,
        3,
        N - 1,
        N // 2,
        N // 2 + 1,
        *(random.Random(4).randrange(1, N) for _ in range(5)),
    ):
        table = kernel.key_table(public_key_of(word(private)))
        for number in range(32):
            x, y = (table[at : at + 32][::-1] for at in (64 * number, 64 * number + 32))
            assert x + y == public_key_of(word((private << 8 * number) % N))


@pytest.mark.parametrize(
    "key",
    [bytes(64), bytes(63) + b"\1", word(P) + word(1), word(1) + word(P), b"\xff" * 64, word(5) + word(7)],
)
def test_table__of_what_is_no_key__is_refused(key):
    with pytest.raises(ValueError, match="no point of the curve"):
        kernel.key_table(key)


class Signature:
    """By private key `key`, with nonce `nonce`, of `digest`; `error` is added to s."""

    def __init__(self, key: int, nonce: int, digest: int, error: int = 0) -> None:
        point = public_key_of(word(nonce))
        self.r, parity = int.from_bytes(point[:32], "big"), point[63] & 1
        assert self.r < N
        self.s = (pow(nonce, -1, N) * (digest + self.r * key) + error) % N
        self.log = nonce
        if self.s > N // 2:
            self.s, self.log, parity = N - self.s, N - nonce, 1 - parity
        self.key, self.digest = key, digest
        self.raw = b"?" + word(self.r) + word(parity << 255 | self.s)

    def missing(self) -> int:
        """Logarithm of R - (z G + r Q) / s: zero if it holds."""
        return (self.log - pow(self.s, -1, N) * (self.digest + self.r * self.key)) % N


TABLES: dict[int, bytes] = {}


def table_of(private: int) -> bytes:
    if private not in TABLES:
        TABLES[private] = kernel.key_table(public_key_of(word(private)))
    return TABLES[private]


def verified(signatures: list[Signature], coefficients: list[tuple[int, int]]) -> set[int]:
    """What the kernel says of them, and that it is what the integers say."""
    halves = b"".join(half.to_bytes(8, "little", signed=True) for two in coefficients for half in two)
    known = kernel.verify(
        DOMAIN,
        [one.raw for one in signatures],
        [word(one.digest) for one in signatures],  # a plan of 32 bytes is the digest
        [table_of(one.key) for one in signatures],
        halves,
    )
    total = sum(
        (u + v * LAMBDA) * one.missing() for one, (u, v) in zip(signatures, coefficients, strict=True)
    )
    assert set(known) == {UNDECIDED if total % N else HOLDS}
    return set(known)


def drawn_coefficients(draw: random.Random, count: int) -> list[tuple[int, int]]:
    return [(draw.randrange(-(2**63), 2**63), draw.randrange(-(2**63), 2**63)) for _ in range(count)]


def drawn_signatures(draw: random.Random, count: int, keys: int) -> list[Signature]:
    private = [draw.randrange(1, N) for _ in range(keys)]
    return [
        Signature(draw.choice(private), draw.randrange(1, N), draw.getrandbits(256)) for _ in range(count)
    ]


SIZES = [*range(1, 20), 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 511, 512]


@pytest.mark.parametrize("keys", [1, 3, 64])
def test_batch__of_any_size__holds_and_with_one_wrong_signature_does_not(keys):
    draw = random.Random(keys)
    signatures = drawn_signatures(draw, 512, keys)
    for size in SIZES:
        batch, coefficients = signatures[:size], drawn_coefficients(draw, size)
        assert verified(batch, coefficients) == {HOLDS}
        wrong = draw.randrange(size)
        old = batch[wrong]
        batch[wrong] = Signature(
            old.key, draw.randrange(1, N), old.digest, error=draw.choice((1, -1, 2**128))
        )
        assert verified(batch, coefficients) == {UNDECIDED}


def test_batch__of_nothing__is_nothing():
    assert kernel.verify(DOMAIN, [], [], [], b"") == b""


EXTREMES = [-(2**63), -(2**63) + 1, -1, 0, 1, 2, 127, 128, 129, -128, 2**62, 2**63 - 1, 0x0808080808080808]


def test_coefficients__of_any_kind__give_the_sum_of_the_integers():
    draw = random.Random(5)
    signatures = drawn_signatures(draw, 6, 2)
    wrong = [Signature(one.key, one.log, one.digest, error=7) for one in signatures]
    for u, v in itertools.product(EXTREMES, EXTREMES):
        assert verified(signatures, [(u, v)] * 6) == {HOLDS}
        verified(wrong, [(u, v), (v, u), (-1, 1), (1, 0), (0, 1), (0, 0)])
    assert verified(wrong, [(0, 0)] * 6) == {HOLDS}


def test_same_signature__many_times__is_summed_as_often():
    """Every bucket gets the same point again and again: it is doubled, and cancels out."""
    draw = random.Random(6)
    for count in (2, 3, 8, 64, 300):
        for error in (0, 1):
            one = Signature(3, 5, 9, error)
            verified([one] * count, [(1, 0)] * count)
            verified([one] * count, [(1, -1)] * count)
            verified([one] * count, [(-1, 1), (1, -1)] * (count // 2) + [(1, 1)] * (count % 2))
            verified([one] * count, drawn_coefficients(draw, count))
    assert verified([Signature(3, 5, 9, 1)] * 2, [(1, 0), (-1, 0)]) == {HOLDS}  # two wrongs that cancel


def test_points__that_are_multiples_of_generator_and_keys__are_summed():
    """R is G, Q, their opposites, or stands in their tables; keys are opposite; a digest is zero."""
    draw = random.Random(7)
    key = 2**200 + 77
    keys = [1, 2, N - 1, N - 2, key, N - key]
    nonces = [one * 2**shift % N for one in (1, key) for shift in (0, 1, 7, 8, 16, 248)]
    nonces += [N - one for one in nonces] + [LAMBDA, LAMBDA * LAMBDA % N]
    nonces = [one for one in nonces if int.from_bytes(public_key_of(word(one))[:32], "big") < N]
    signatures = [
        Signature(key, nonce, digest)
        for key, nonce in itertools.product(keys, nonces)
        for digest in (0, 1, N - 1, 2**256 - 1)
    ]
    small = [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (128, -128), (256, 0), (0, -256)]
    for _ in range(150):
        batch = draw.choices(signatures, k=draw.choice((1, 2, 5, 16, 40)))
        assert verified(batch, draw.choices(small, k=len(batch))) == {HOLDS}
        assert verified(batch, drawn_coefficients(draw, len(batch))) == {HOLDS}
        at = draw.randrange(len(batch))
        batch[at] = Signature(batch[at].key, batch[at].log, batch[at].digest, error=1)
        verified(batch, draw.choices(small, k=len(batch)))


def test_signature__that_no_key_can_have_made__is_known_to_be_such():
    draw = random.Random(8)
    half = N // 2
    r_edges = [0, 1, 2, 3, 4, 5, 6, 7, N - 1, N, N + 1, P - 1, P, 2**256 - 1]
    s_edges = [0, 1, 2, half - 1, half, half + 1, N - 1, N, 2**255 - 1]
    digest, table = word(draw.getrandbits(256)), table_of(11)
    bodies = [word(r) + word(parity << 255 | s) for r in r_edges for s in s_edges for parity in (0, 1)]
    bodies += [draw.randbytes(64) for _ in range(250)]
    count = len(bodies)
    known = kernel.verify(
        DOMAIN, [b"?" + one for one in bodies], [digest] * count, [table] * count, draw.randbytes(16 * count)
    )
    for body, one in zip(bodies, known, strict=True):
        assert (one == IMPOSSIBLE) == (recover(digest, body) is None)
        assert one != HOLDS


def test_bit__turned_in_record_or_signature__is_never_accepted():
    draw = random.Random(9)
    private = [draw.randbytes(32) for _ in range(8)]
    tables = [kernel.key_table(public_key_of(one)) for one in private]
    digests = [draw.randbytes(32) for _ in private]
    raws = [b"?" + sign(digest, one) for digest, one in zip(digests, private, strict=True)]
    for _ in range(4_000):
        place = draw.randrange(8)
        turned = bytearray(digests[place] + raws[place][1:])
        bit = draw.randrange(8 * len(turned))
        turned[bit >> 3] ^= 1 << (bit & 7)
        some_digests, some_raws = [*digests], [*raws]
        some_digests[place], some_raws[place] = bytes(turned[:32]), b"?" + turned[32:]
        known = kernel.verify(DOMAIN, some_raws, some_digests, tables, draw.randbytes(16 * 8))
        assert known[place] != HOLDS
        assert known == bytes(
            IMPOSSIBLE if i == place and known[place] == IMPOSSIBLE else known[0 if place else 1]
            for i in range(8)
        )
        assert (known[0 if place else 1] == HOLDS) == (known[place] == IMPOSSIBLE)


def test_another_key__of_a_good_signature__is_not_accepted():
    draw = random.Random(10)
    signatures = drawn_signatures(draw, 16, 16)
    raws, digests = [one.raw for one in signatures], [word(one.digest) for one in signatures]
    tables = [table_of(one.key) for one in signatures]
    assert kernel.verify(DOMAIN, raws, digests, tables, draw.randbytes(256)) == bytes([HOLDS] * 16)
    tables[3], tables[5] = tables[5], tables[3]
    assert kernel.verify(DOMAIN, raws, digests, tables, draw.randbytes(256)) == bytes([UNDECIDED] * 16)
    assert kernel.verify(
        DOMAIN, raws, digests, [table_of(N - signatures[0].key)] * 16, draw.randbytes(256)
    ) == bytes([UNDECIDED] * 16)


def test_verify__given_what_cannot_be__says_so():
    raw, digest, table = b"?" + bytes(64), bytes(32), table_of(1)
    with pytest.raises(ValueError, match="16 bytes of coefficients each"):
        kernel.verify(DOMAIN, [raw], [digest], [table], bytes(15))
    with pytest.raises(ValueError, match="as many plans as records"):
        kernel.verify(DOMAIN, [raw], [], [table], bytes(16))
    with pytest.raises(ValueError, match="as many tables as records"):
        kernel.verify(DOMAIN, [raw], [digest], [], bytes(16))
    with pytest.raises(ValueError, match="at most 512 records, not 513"):
        kernel.verify(DOMAIN, [raw] * 513, [digest] * 513, [table] * 513, bytes(16 * 513))
    with pytest.raises(ValueError, match="more fields"):
        kernel.verify(DOMAIN, [raw], [digest + b"\x20"], [table], bytes(16))
    for wrong in (table[:-1], None):
        with pytest.raises(TypeError):
            kernel.verify(DOMAIN, [raw], [digest], [wrong], bytes(16))
    with pytest.raises(TypeError):
        kernel.verify(DOMAIN, [raw[1:]], [digest], [table], bytes(16))
    with pytest.raises(TypeError):
        kernel.verify(DOMAIN[1:], [raw], [digest], [table], bytes(16))
    with pytest.raises(TypeError):
        kernel.key_table(bytes(63))
    with pytest.raises(ValueError, match="no operation"):
        kernel.arithmetic("field guess", bytes(32), bytes(32))
