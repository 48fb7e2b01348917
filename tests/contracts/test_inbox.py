"""Inbox: order, running hash, who may push."""

from typing import Any

import pytest
from contract_support import INBOX, USD, Exchange, deploy, events_of, reverts

from sequencer.protocol.codec import encode, inbox_hash
from sequencer.protocol.constants import Kind

ZERO = "0x" + "00" * 20


def test_push__of_the_vault__keeps_every_running_hash(
    exchange: Exchange, trader: Any, other_trader: Any
) -> None:
    inbox = exchange.inbox
    expected = [bytes(32)]
    for index, (owner, account, amount) in enumerate(
        [(trader, 1, USD), (other_trader, 2, 2**20 + 1), (trader, 1, 999_999 * USD)]
    ):
        exchange.vault.deposit(amount, sender=owner)
        record = encode(Kind.DEPOSIT, owner=bytes.fromhex(str(owner)[2:]), account=account, amount=amount)
        expected.append(inbox_hash(expected[-1], record))
        message = events_of(exchange.vault, "Message")[0]
        assert (message.index, message.record, message.hash) == (index, record, expected[-1])
    assert inbox.count() == 3
    assert [inbox.hash_at(index) for index in range(4)] == expected


def test_hash_at__beyond_the_count__reverts(exchange: Exchange) -> None:
    assert exchange.inbox.hash_at(0) == bytes(32)
    with reverts("inbox: unknown message"):
        exchange.inbox.hash_at(1)


def test_push__by_others__reverts(exchange: Exchange, stranger: Any, sequencer: Any) -> None:
    for caller in (stranger, sequencer, exchange.inbox.vault_setter(), str(exchange.rollup.address)):
        with reverts("inbox: caller is not the vault"):
            exchange.inbox.push_deposit(stranger, 1, USD, sender=caller)


def test_push__before_a_vault_is_set__reverts(exchange: Exchange, stranger: Any) -> None:
    with reverts("inbox: caller is not the vault"):
        deploy("Inbox", *INBOX).push_deposit(stranger, 1, USD, sender=stranger)


@pytest.mark.parametrize(("account", "amount"), [(2**32, 1), (1, 2**48)])
def test_push__field_too_wide__reverts_even_for_the_vault(
    exchange: Exchange, stranger: Any, account: int, amount: int
) -> None:
    with reverts("(no reason)"):
        exchange.inbox.push_deposit(stranger, account, amount, sender=str(exchange.vault.address))


def test_set_vault__twice__reverts(exchange: Exchange) -> None:
    with reverts("inbox: vault is set already"):
        exchange.inbox.set_vault(exchange.vault.address)


def test_set_vault__by_others__reverts(exchange: Exchange, stranger: Any) -> None:
    with reverts("inbox: caller is not the deployer"):
        deploy("Inbox", *INBOX).set_vault(exchange.vault.address, sender=stranger)


def test_set_vault__that_points_elsewhere__reverts(exchange: Exchange, stranger: Any) -> None:
    inbox = deploy("Inbox", *INBOX)
    for vault in (exchange.vault.address, stranger, ZERO):
        with reverts("inbox: vault has another inbox"):
            inbox.set_vault(vault)
    assert inbox.vault() == ZERO
