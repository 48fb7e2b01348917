"""A number that becomes part of a key, opened under another name: one account declared twice, or a leaf of another type
declared as an account.

Profit without the bound on account numbers: the treasury's owner takes 300,749 of 382,087 USD, the honest accounts
nothing; or one empty account stands for a victim of the attacker's choice, or makes the count of declared accounts pass
by the one that it must equal. With it: 0, nothing of it is declared.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from contract_support import USD, reverts
from exit_support import NUMBER, World, boa_address, build

from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import address_of, public_key_of


@pytest.fixture
def world() -> Iterator[World]:
    with boa.env.anchor():
        yield build()


def open_empty_accounts(world: World, count: int) -> list[int]:
    """Accounts of one attacker, who has withdrawn what they had."""
    world.do(codec.encode(Kind.TICK, time=world.state.globals.time + 1))
    keys = [bytes([0x40 + index]) * 32 for index in range(count)]
    numbers = []
    for key in keys:
        owner = address_of(public_key_of(key))
        world.token.mint(boa_address(owner), USD)
        world.token.approve(world.vault.address, USD, sender=boa_address(owner))
        world.vault.deposit(USD, sender=boa_address(owner))
        numbers.append(int(world.vault.accounts()))
        world.do(codec.encode(Kind.DEPOSIT, owner=owner, account=numbers[-1], amount=USD))
    for key, number in zip(keys, numbers, strict=True):
        world.do(world.signed(Kind.WITHDRAW, key, account=number, amount=USD, nonce=0, expires=0))
    return numbers


def refuses(world: World, number: int, witness: bytes) -> None:
    """No account of this number is declared, whatever is shown."""
    before = world.exit.declared()
    with reverts("exit: no such account"):
        world.exit.declare(number, witness)
    assert world.exit.declared() == before


def test_declare__under_a_number_that_opens_the_same_leaf__reverts(world: World) -> None:
    mine = open_empty_accounts(world, 6)
    world.begin()
    for number in mine:
        witness = world.proofs.declare(number)
        refuses(world, c.KEY_ACCOUNT | number, witness)
        world.exit.declare(number, witness)
        refuses(world, c.KEY_ACCOUNT | number, witness)
    assert world.exit.declared() == len(mine)
    with reverts("exit: accounts are not declared"):  # no honest one is
        world.exit.claim_house()


def test_declare__with_any_bit_above_the_number_set__reverts(world: World) -> None:
    world.begin()
    number = NUMBER["house"]  # it holds no positions
    for bit in range(32, 256):
        refuses(world, 1 << bit | number, world.proofs.declare(number))


def test_declare__of_a_leaf_of_another_type_as_an_account__reverts(world: World) -> None:
    world.begin()
    proofs, state = world.proofs, world.state
    leaves: list[tuple[int, Any]] = [
        (c.KEY_UNDERLYING | 1, state.underlyings[1]),  # has had no feed: it reads as an account of nothing
        (c.KEY_UNDERLYING, state.underlyings[0]),
        (c.KEY_GLOBAL, state.globals),
        (c.KEY_PARAMS, state.params),
        *((c.KEY_EXPIRY | key, expiry) for key, expiry in state.expiries.items()),
        *((c.KEY_PAGE | key, page) for key, page in state.pages.items()),
    ]
    for key, entry in leaves:
        refuses(world, key ^ c.KEY_ACCOUNT, proofs._leaf(key, entry.words()))


def test_declare__of_no_account__reverts(world: World) -> None:
    world.begin()
    for number in (0, len(NUMBER) + 1, 2**32 - 1):
        refuses(world, number, world.proofs._absent(c.KEY_ACCOUNT | number))
