"""Vault: deposits in, proven withdrawals out, nothing else."""

from typing import Any

import boa
import pytest
from contract_support import USD, Batch, Exchange, deploy, deploy_exchange, events_of, reverts, sign_permit
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol.cmap import Map

ZERO = "0x" + "00" * 20


def as_word(address: Any) -> int:
    return int(str(address), 16)


def post_state(exchange: Exchange, sequencer: Any, state: Map) -> int:
    """Posts `state` as the next batch and lets it become final; returns the batch id."""
    rollup = exchange.rollup
    batch_id = rollup.next_batch()
    seq, time, inbox_count = rollup.tip()
    batch = Batch(batch_id, state.root(), first_seq=seq, time=time, inbox_count=inbox_count)
    rollup.post(*batch.upon(rollup, exchange.inbox).arguments(), sender=sequencer)
    boa.env.time_travel(seconds=rollup.challenge_window_s())
    return int(batch_id)


def state_with(withdrawals: dict[int, tuple[Any, int]], others: int = 40) -> Map:
    """A map with these withdrawals, n -> (owner, amount), among other entries."""
    state = Map()
    for index in range(others):
        state.put(c.KEY_ACCOUNT | index * 7919, index + 1)
        state.put(c.KEY_WITHDRAWAL | 1_000 + index, index)
    for n, (owner, amount) in withdrawals.items():
        state.put(c.KEY_WITHDRAWAL | n, as_word(owner) << 64 | amount)
    return state


def proof_of(state: Map, n: int) -> tuple[int, list[bytes]]:
    path = state.path(c.KEY_WITHDRAWAL | n)
    return path.bitmap, list(path.siblings)


# ------------------------------------------------------------------------------------------- deposits


def test_deposit__first_of_an_owner__opens_the_next_account(
    exchange: Exchange, trader: Any, other_trader: Any
) -> None:
    vault = exchange.vault
    assert vault.deposit(5 * USD, sender=trader) == 0
    event = events_of(vault, "Deposited")[0]
    assert (event.owner, event.account, event.amount, event.inbox_index) == (trader, 1, 5 * USD, 0)
    assert vault.deposit(7 * USD, sender=other_trader) == 1
    assert vault.deposit(USD, sender=trader) == 2
    assert (vault.account_of(trader), vault.account_of(other_trader), vault.accounts()) == (1, 2, 2)
    assert (vault.owner_of(1), vault.owner_of(2), vault.owner_of(3)) == (trader, other_trader, ZERO)
    assert vault.deposits_total() == exchange.token.balanceOf(vault.address) == 13 * USD


def test_deposit__below_the_minimum__reverts(exchange: Exchange, trader: Any) -> None:
    with reverts("vault: amount below the minimum"):
        exchange.vault.deposit(USD - 1, sender=trader)


def test_deposit__of_2_48__reverts_and_one_less_does_not(
    exchange: Exchange, sequencer: Any, trader: Any
) -> None:
    roomy = deploy_exchange(sequencer, deposits_total_max=2**62)
    roomy.token.mint(trader, 2**50)
    roomy.token.approve(roomy.vault.address, 2**50, sender=trader)
    with reverts("vault: amount above 48 bits"):
        roomy.vault.deposit(2**48, sender=trader)
    roomy.vault.deposit(2**48 - 1, sender=trader)
    assert roomy.inbox.count() == 1


def test_deposit__above_the_cap__reverts(exchange: Exchange, sequencer: Any, trader: Any) -> None:
    tight = deploy_exchange(sequencer, token=exchange.token, deposits_total_max=10 * USD)
    exchange.token.approve(tight.vault.address, 10**6 * USD, sender=trader)
    tight.vault.deposit(4 * USD, sender=trader)
    with reverts("vault: deposits above the cap"):
        tight.vault.deposit(6 * USD + 1, sender=trader)
    tight.vault.deposit(6 * USD, sender=trader)


def test_deposit__without_money__reverts_and_leaves_nothing(exchange: Exchange, stranger: Any) -> None:
    exchange.token.approve(exchange.vault.address, USD, sender=stranger)
    with reverts("token: balance too small"):
        exchange.vault.deposit(USD, sender=stranger)
    assert (exchange.vault.account_of(stranger), exchange.inbox.count()) == (0, 0)


def test_deposit__token_with_a_fee__reverts(
    exchange: Exchange, hostile: Any, sequencer: Any, trader: Any
) -> None:
    token = hostile("FeeToken")
    token.mint(trader, 10 * USD)
    vault = deploy_exchange(sequencer, token=token).vault
    with reverts("vault: fee-on-transfer token"):
        vault.deposit(5 * USD, sender=trader)


def test_deposit__token_that_reenters__reverts(
    exchange: Exchange, hostile: Any, sequencer: Any, trader: Any
) -> None:
    token = hostile("ReentrantToken")
    token.mint(trader, 10 * USD)
    fresh = deploy_exchange(sequencer, token=token)
    token.arm(fresh.vault.address, fresh.vault.deposit.prepare_calldata(5 * USD))
    with reverts("(no reason)"):  # the compiler's lock
        fresh.vault.deposit(5 * USD, sender=trader)
    assert (fresh.inbox.count(), fresh.vault.deposits_total()) == (0, 0)


def test_deposit__token_that_returns_nothing_or_false(
    exchange: Exchange, hostile: Any, sequencer: Any, trader: Any
) -> None:
    token = hostile("SilentToken")
    token.mint(trader, 10 * USD)
    vault = deploy_exchange(sequencer, token=token).vault
    vault.deposit(5 * USD, sender=trader)
    assert token.balanceOf(vault.address) == 5 * USD
    token.set_refuses(True)
    with reverts("vault: transfer failed"):
        vault.deposit(5 * USD, sender=trader)


# -------------------------------------------------------------------------------------------- permits


@pytest.fixture
def signer(exchange: Exchange) -> Any:
    key = Account.from_key(b"\x07" * 32)
    exchange.token.mint(key.address, 100 * USD)
    return key


def test_permit__of_the_depositor__replaces_the_approval(exchange: Exchange, signer: Any) -> None:
    deadline = boa.env.timestamp + 60
    signature = sign_permit(exchange.token, signer, exchange.vault.address, 5 * USD, deadline)
    exchange.vault.deposit_with_permit(5 * USD, deadline, *signature, sender=signer.address)
    assert exchange.vault.deposits_total() == 5 * USD
    assert exchange.token.allowance(signer.address, exchange.vault.address) == 0


def test_permit__used_up_by_a_front_runner__still_deposits(
    exchange: Exchange, signer: Any, stranger: Any
) -> None:
    deadline = boa.env.timestamp + 60
    signature = sign_permit(exchange.token, signer, exchange.vault.address, 5 * USD, deadline)
    exchange.token.permit(
        signer.address, exchange.vault.address, 5 * USD, deadline, *signature, sender=stranger
    )
    exchange.vault.deposit_with_permit(5 * USD, deadline, *signature, sender=signer.address)
    assert exchange.vault.account_of(signer.address) == 1


def test_permit__of_somebody_else__reverts(exchange: Exchange, signer: Any, stranger: Any) -> None:
    deadline = boa.env.timestamp + 60
    signature = sign_permit(exchange.token, signer, exchange.vault.address, 5 * USD, deadline)
    exchange.token.mint(stranger, 5 * USD)
    with reverts("vault: permit gave no allowance"):
        exchange.vault.deposit_with_permit(5 * USD, deadline, *signature, sender=stranger)


# --------------------------------------------------------------------------------------------- claims


def test_claim__by_anybody__pays_the_owner_once(
    exchange: Exchange, sequencer: Any, trader: Any, stranger: Any
) -> None:
    vault = exchange.vault
    vault.deposit(50 * USD, sender=trader)
    before = exchange.token.balanceOf(trader)
    state = state_with({257: (trader, 20 * USD)})
    batch_id = post_state(exchange, sequencer, state)
    vault.claim(batch_id, 257, trader, 20 * USD, *proof_of(state, 257), sender=stranger)
    event = events_of(vault, "Claimed")[0]
    assert (event.n, event.owner, event.amount) == (257, trader, 20 * USD)
    assert exchange.token.balanceOf(trader) == before + 20 * USD
    assert vault.deposits_total() == exchange.token.balanceOf(vault.address) == 30 * USD
    assert [vault.claimed(n) for n in (1, 256, 257, 258)] == [False, False, True, False]
    with reverts("vault: claimed already"):
        vault.claim(batch_id, 257, trader, 20 * USD, *proof_of(state, 257))
    later = post_state(exchange, sequencer, state)
    with reverts("vault: claimed already"):
        vault.claim(later, 257, trader, 20 * USD, *proof_of(state, 257))


def test_claim__only_leaf_of_the_map__needs_no_sibling(
    exchange: Exchange, sequencer: Any, trader: Any
) -> None:
    exchange.vault.deposit(50 * USD, sender=trader)
    state = state_with({0: (trader, USD)}, others=0)
    batch_id = post_state(exchange, sequencer, state)
    with reverts("vault: wrong proof"):
        exchange.vault.claim(batch_id, 0, trader, USD, 1, [])
    exchange.vault.claim(batch_id, 0, trader, USD, 0, [])
    assert exchange.vault.claimed(0)


def test_claim__before_finality__reverts(exchange: Exchange, sequencer: Any, trader: Any) -> None:
    exchange.vault.deposit(50 * USD, sender=trader)
    state = state_with({3: (trader, USD)})
    exchange.rollup.post(*Batch(1, state.root()).arguments(), sender=sequencer)
    boa.env.time_travel(seconds=exchange.rollup.challenge_window_s() - 1)
    with reverts("rollup: not final"):
        exchange.vault.claim(1, 3, trader, USD, *proof_of(state, 3))
    with reverts("rollup: unknown batch"):
        exchange.vault.claim(2, 3, trader, USD, *proof_of(state, 3))
    boa.env.time_travel(seconds=1)
    exchange.vault.claim(1, 3, trader, USD, *proof_of(state, 3))
    assert exchange.vault.claimed(3)


def test_claim__anything_tampered__reverts(
    exchange: Exchange, sequencer: Any, trader: Any, stranger: Any
) -> None:
    vault = exchange.vault
    vault.deposit(50 * USD, sender=trader)
    state = state_with({3: (trader, USD), 4: (trader, USD)})
    batch_id = post_state(exchange, sequencer, state)
    bitmap, siblings = proof_of(state, 3)
    lowest = bitmap & -bitmap
    for arguments in [
        (batch_id, 4, trader, USD, bitmap, siblings),
        (batch_id, 3, stranger, USD, bitmap, siblings),
        (batch_id, 3, trader, USD + 1, bitmap, siblings),
        (batch_id, 3, trader, USD, bitmap ^ lowest, siblings),
        (batch_id, 3, trader, USD, bitmap ^ lowest, siblings[1:]),
        (batch_id, 3, trader, USD, bitmap, siblings[:-1]),
        (batch_id, 3, trader, USD, bitmap, [*siblings, bytes(32)]),
        (batch_id, 3, trader, USD, bitmap, [bytes(32), *siblings[1:]]),
        (batch_id, 3, trader, USD, bitmap, siblings[::-1]),
        (batch_id, 3, trader, USD, 2**256 - 1, [bytes(32)] * 256),
        (0, 3, trader, USD, bitmap, siblings),
    ]:
        with reverts("vault: wrong proof"):
            vault.claim(*arguments)
    vault.claim(batch_id, 3, trader, USD, bitmap, siblings)


def test_claim__key_of_another_type__reverts(exchange: Exchange, sequencer: Any, trader: Any) -> None:
    exchange.vault.deposit(50 * USD, sender=trader)
    state = state_with({})
    other = c.KEY_PARAMS  # differs from KEY_WITHDRAWAL in bits that `n` must not reach
    state.put(other, as_word(trader) << 64 | USD)
    path = state.path(other)
    batch_id = post_state(exchange, sequencer, state)
    with reverts("vault: withdrawal number above 32 bits"):
        exchange.vault.claim(
            batch_id, other ^ c.KEY_WITHDRAWAL, trader, USD, path.bitmap, list(path.siblings)
        )


def test_claim__amount_that_spells_another_owner__reverts(exchange: Exchange, trader: Any) -> None:
    with reverts("vault: amount above 64 bits"):
        exchange.vault.claim(0, 0, ZERO, as_word(trader) << 64 | USD, 0, [])


def test_claim__more_than_was_deposited__reverts(exchange: Exchange, sequencer: Any, trader: Any) -> None:
    exchange.vault.deposit(50 * USD, sender=trader)
    exchange.token.mint(exchange.vault.address, 100 * USD)  # a gift is nobody's
    state = state_with({0: (trader, 50 * USD + 1)})
    batch_id = post_state(exchange, sequencer, state)
    with reverts("vault: claims exceed deposits"):
        exchange.vault.claim(batch_id, 0, trader, 50 * USD + 1, *proof_of(state, 0))


def test_claim__token_that_reenters__pays_once(
    exchange: Exchange, hostile: Any, sequencer: Any, trader: Any
) -> None:
    token = hostile("ReentrantToken")
    token.mint(trader, 10 * USD)
    fresh = deploy_exchange(sequencer, token=token)
    fresh.vault.deposit(10 * USD, sender=trader)
    state = state_with({0: (trader, USD), 1: (trader, USD)})
    batch_id = post_state(fresh, sequencer, state)
    for n in (0, 1):
        again = fresh.vault.claim.prepare_calldata(batch_id, n, trader, USD, *proof_of(state, n))
        token.arm(fresh.vault.address, again)
        with reverts("(no reason)"):  # the compiler's lock
            fresh.vault.claim(batch_id, 0, trader, USD, *proof_of(state, 0))
    assert token.balanceOf(trader) == 0


def test_claim__token_that_refuses__can_be_tried_again(
    exchange: Exchange, hostile: Any, sequencer: Any, trader: Any
) -> None:
    token = hostile("SilentToken")
    token.mint(trader, 10 * USD)
    fresh = deploy_exchange(sequencer, token=token)
    fresh.vault.deposit(10 * USD, sender=trader)
    state = state_with({0: (trader, USD)})
    batch_id = post_state(fresh, sequencer, state)
    token.set_refuses(True)
    with reverts("vault: transfer failed"):
        fresh.vault.claim(batch_id, 0, trader, USD, *proof_of(state, 0))
    token.set_refuses(False)
    fresh.vault.claim(batch_id, 0, trader, USD, *proof_of(state, 0))
    assert token.balanceOf(trader) == USD


@settings(max_examples=15, deadline=None)
@given(entries=st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=60), data=st.data())
def test_claim__any_withdrawal_of_any_map__is_paid(
    pristine: Exchange, sequencer: Any, trader: Any, stranger: Any, entries: set[int], data: st.DataObject
) -> None:
    n = data.draw(st.sampled_from(sorted(entries)))
    state = state_with({entry: (stranger, 1 + entry % USD) for entry in entries}, others=0)
    with boa.env.anchor():
        pristine.vault.deposit(50 * USD, sender=trader)
        batch_id = post_state(pristine, sequencer, state)
        pristine.vault.claim(batch_id, n, stranger, 1 + n % USD, *proof_of(state, n))
        assert pristine.token.balanceOf(stranger) == 1 + n % USD


# --------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("minimum", "cap", "reason"),
    [
        (0, USD, "vault: deposit minimum is zero"),
        (2**48, 2**60, "vault: deposit minimum above 48 bits"),
        (2, 1, "vault: deposit minimum above the cap"),
        (1, 2**62 + 1, "vault: cap above 2^62"),
    ],
)
def test_constructor__inconsistent_limits__revert(
    exchange: Exchange, minimum: int, cap: int, reason: str
) -> None:
    with reverts(reason):
        deploy("Vault", exchange.token, exchange.rollup, minimum, cap)


def test_constructor__addresses_without_code__revert(exchange: Exchange, stranger: Any) -> None:
    with reverts("vault: token is not a contract"):
        deploy("Vault", stranger, exchange.rollup, 1, 1)
    with reverts("vault: rollup is not a contract"):
        deploy("Vault", exchange.token, stranger, 1, 1)
