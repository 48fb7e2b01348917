"""The text of an order: OrderText's bytecode gives what Python gives, at the ends of every field and in between."""

import sys
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent))
from runner import creation_code, new_evm

from sequencer.protocol import constants as c
from sequencer.protocol.hashing import keccak
from sequencer.protocol.order_text import order_text, struct_hash

ORDER = "(uint256,uint256,uint256,uint256,uint256,uint256,uint256)"
TEXT = keccak(f"text({ORDER})".encode())[:4]
STRUCT_HASH = keccak(f"struct_hash({ORDER},uint256,uint256)".encode())[:4]
CASES = 600
GAS_MAX = 30_000  # of a hash, the call itself included


def drawn(random: Random) -> tuple[int, ...]:
    """Fields of PLACE_IN_WORDS; each at an end of its width, or anywhere."""

    def some(bits: int) -> int:
        ends = (0, 1, 2**bits - 1, random.getrandbits(bits), 10 ** random.randint(0, bits // 4))
        return random.choice(ends) % 2**bits

    fields = [some(bits) for bits in (32, 32, 8, 32, 40, 32, 32, 16, 32)]
    if random.random() < 0.5:
        fields[4] = random.randint(1, 9) * 10 ** random.randint(0, 8)
    if random.random() < 0.5:  # a day beside the turn of a month or a year
        day = random.choice((0, 58, 59, 60, 364, 365, 789, 790, 11_016, 11_017, 47_540, 47_541, 65_535))
        fields[1] = random.randrange(3) << 28 | day << 12
        fields[6] = min(day * c.DAY_S + random.choice((0, 1, 3_599, 86_399)), c.U32_MAX)
    return tuple(fields)


def test_text_and_hash__of_any_fields__are_pythons() -> None:
    evm, random = new_evm(), Random(46)
    address = evm.deploy(creation_code("OrderText"))
    most = 0
    for _ in range(CASES):
        fields = drawn(random)
        account, instrument, flags, price, quantity, nonce, expires, fee_max, terms = fields
        order = (instrument, flags, price, quantity, expires, fee_max, terms)
        words = b"".join(one.to_bytes(32, "big") for one in order)
        found = evm.call(address, TEXT + words)
        assert found.ok, (fields, found.reason())
        length = int.from_bytes(found.output[32:64], "big")
        assert found.output[64 : 64 + length].decode() == order_text(fields)
        tail = account.to_bytes(32, "big") + nonce.to_bytes(32, "big")
        hashed = evm.call(address, STRUCT_HASH + words + tail)
        assert hashed.output == struct_hash(fields), fields
        most = max(most, hashed.gas)
    assert 0 < most < GAS_MAX, most
