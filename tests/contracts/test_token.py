"""TestToken: ERC-20, free minting, EIP-2612."""

from typing import Any

import boa
import pytest
from contract_support import USD, Exchange, events_of, reverts, sign_permit
from eth_account import Account

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def signer() -> Any:
    return Account.from_key(b"\x07" * 32)


def test_permit__of_eth_account__gives_the_allowance_once(
    exchange: Exchange, signer: Any, stranger: Any
) -> None:
    token = exchange.token
    deadline = boa.env.timestamp + 60
    signature = sign_permit(token, signer, stranger, 5 * USD, deadline)
    token.permit(signer.address, stranger, 5 * USD, deadline, *signature)
    assert token.allowance(signer.address, stranger) == 5 * USD
    assert token.nonces(signer.address) == 1
    with reverts("token: wrong signature"):
        token.permit(signer.address, stranger, 5 * USD, deadline, *signature)


def test_permit__other_amount__reverts(exchange: Exchange, signer: Any, stranger: Any) -> None:
    deadline = boa.env.timestamp + 60
    signature = sign_permit(exchange.token, signer, stranger, 5 * USD, deadline)
    with reverts("token: wrong signature"):
        exchange.token.permit(signer.address, stranger, 6 * USD, deadline, *signature)


def test_permit__unrecoverable_signature_of_zero__reverts(exchange: Exchange, stranger: Any) -> None:
    with reverts("token: wrong signature"):
        exchange.token.permit("0x" + "00" * 20, stranger, 1, 2**255, 27, bytes(32), bytes(32))


def test_permit__after_the_deadline__reverts(exchange: Exchange, signer: Any, stranger: Any) -> None:
    deadline = boa.env.timestamp - 1
    signature = sign_permit(exchange.token, signer, stranger, 1, deadline)
    with reverts("token: permit expired"):
        exchange.token.permit(signer.address, stranger, 1, deadline, *signature)


def test_permit__high_s__reverts(exchange: Exchange, signer: Any, stranger: Any) -> None:
    deadline = boa.env.timestamp + 60
    v, r, s = sign_permit(exchange.token, signer, stranger, 1, deadline)
    high = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    with reverts("token: malleable signature"):
        exchange.token.permit(signer.address, stranger, 1, deadline, 55 - v, r, high)


def test_mint__by_anybody__adds_to_the_supply(exchange: Exchange, stranger: Any) -> None:
    token = exchange.token
    supply = token.totalSupply()
    token.mint(stranger, 3 * USD, sender=stranger)
    assert events_of(token, "Transfer")[0].value == 3 * USD
    assert (token.balanceOf(stranger), token.totalSupply()) == (3 * USD, supply + 3 * USD)
    assert token.decimals() == 6


def test_transfer__more_than_held__reverts(exchange: Exchange, trader: Any, stranger: Any) -> None:
    with reverts("token: balance too small"):
        exchange.token.transfer(trader, 1, sender=stranger)


def test_transfer__to_nobody__reverts(exchange: Exchange, trader: Any) -> None:
    with reverts("token: receiver is zero"):
        exchange.token.transfer("0x" + "00" * 20, 1, sender=trader)


def test_transfer_from__uses_up_the_allowance_unless_infinite(
    exchange: Exchange, trader: Any, stranger: Any
) -> None:
    token = exchange.token
    token.approve(stranger, 5, sender=trader)
    token.transferFrom(trader, stranger, 3, sender=stranger)
    assert token.allowance(trader, stranger) == 2
    with reverts("token: allowance too small"):
        token.transferFrom(trader, stranger, 3, sender=stranger)
    token.approve(stranger, 2**256 - 1, sender=trader)
    token.transferFrom(trader, stranger, 3, sender=stranger)
    assert token.allowance(trader, stranger) == 2**256 - 1
    assert token.balanceOf(stranger) == 6
