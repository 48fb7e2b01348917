"""A freeze as a free option to an owner of both sides.

Profit when positions ran on to their expiry: the short side's loss ended at a day's margin, the long side's gain was
paid by all: 50,000 USD put in, 126,357 out at twice the price. With positions closed against each other at the last
proven mark: 50,000 in, less fees out, whatever the price does afterwards.
"""

import sys
from pathlib import Path

import boa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from contract_support import USD
from exit_support import INDEX, ROLES, World, boa_address, build

from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.transition import apply

DAYS_OUT = 30
PUT_IN = (40_000 * USD, 10_000 * USD)  # of the short side and of the long side
KEYS = (b"\x50" * 32, b"\x51" * 32)


def open_both_sides(world: World) -> int:
    """As many lots between two accounts of one owner as their margin bears; how many."""
    world.do(codec.encode(Kind.TICK, time=world.state.globals.time + 1))
    numbers = []
    for key, amount in zip(KEYS, PUT_IN, strict=True):
        owner = address_of(public_key_of(key))
        world.token.mint(boa_address(owner), amount)
        world.token.approve(world.vault.address, amount, sender=boa_address(owner))
        world.vault.deposit(amount, sender=boa_address(owner))
        numbers.append(int(world.vault.accounts()))
        world.do(codec.encode(Kind.DEPOSIT, owner=owner, account=numbers[-1], amount=amount))
    now = world.state.globals.time
    day = now // 86_400 + DAYS_OUT
    world.do(codec.encode(Kind.LIST, underlying=0, day=day, put=0, strike=INDEX))
    world.mark(day, INDEX, now)
    instrument = day << 12
    mark = world.state.pages[instrument >> 5].rows[0][0]
    nonces, lots, chunk = [0, 0], 0, 20_000
    while chunk >= 500:
        for side in (1, 0):
            fields = {"instrument": instrument, "flags": side, "price": mark, "quantity": chunk, "expires": 0}
            who = 1 - side
            order = {"account": numbers[who], "nonce": nonces[who], "fee_max": 0xFFFF} | fields
            reason = apply(world.state, world.signed(Kind.PLACE, KEYS[who], **order)).reason
            if reason is not Reason.OK:
                break
            nonces[who] += 1
        else:
            lots += chunk
            continue
        chunk //= 2
    return lots


def received(world: World, keys: tuple[bytes, ...]) -> int:
    return sum(int(world.token.balanceOf(boa_address(address_of(public_key_of(key))))) for key in keys)


def test_owner_of_both_sides__after_a_freeze__gets_no_more_than_was_put_in() -> None:
    with boa.env.anchor():
        world = build()
        assert open_both_sides(world) > 40_000
        others = world.values()
        world.begin()
        boa.env.timestamp += (
            400 * 86_400
        )  # every expiry has passed, at any price: nothing of it reaches the exit
        world.declare()
        world.claim()
        assert sum(PUT_IN) - 100 * USD < received(world, KEYS) <= sum(PUT_IN)  # fees
        assert {role: world.balance(role) for role in ROLES} == others
