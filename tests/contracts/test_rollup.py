"""Rollup: what `post` lets in, what it keeps, and when it is final."""

from dataclasses import replace
from typing import Any

import boa
import pytest
from contract_support import ETHER, USD, Batch, Exchange, deploy, events_of, naive_data_root, pack, reverts
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.l1.deploy import VERIFIERS
from sequencer.protocol import work
from sequencer.protocol.codec import domain_separator

PAYLOAD_MAX = 122_016
GENESIS = b"\x11" * 32
SILENCE = 3 * 86_400
ROLE = "0x" + "c4" * 20
WORK = (33_000, 400_000)  # a second, at most
BURN = "0x000000000000000000000000000000000000dEaD"


def deploy_rollup(exchange: Exchange, sequencer: Any) -> Any:
    """One of its own set."""
    sequencers = deploy("Sequencers", sequencer, ETHER, 50, value=ETHER)
    rollup = deploy("Rollup", GENESIS, sequencers, exchange.inbox, 600, 15, SILENCE, *WORK)
    sequencers.set_rollup(rollup.address)
    return rollup


def deploy_arbiter(rollup: Any) -> Any:
    anything = deploy("DataSourceCalldata")
    return deploy("Arbiter", rollup, anything, *[anything] * len(VERIFIERS), 10)


def post(exchange: Exchange, sequencer: Any, batch: Batch) -> None:
    meant = batch.upon(exchange.rollup, exchange.inbox)
    exchange.rollup.post(*meant.arguments(), sender=sequencer)


# ------------------------------------------------------------------------------------------ what it keeps


def test_post__two_batches__chain_and_are_kept(exchange: Exchange, sequencer: Any, trader: Any) -> None:
    rollup = exchange.rollup
    now = boa.env.timestamp
    exchange.vault.deposit(5 * USD, sender=trader)
    exchange.vault.deposit(6 * USD, sender=trader)
    first = Batch(1, b"\x22" * 32, segments=2, records=5, time=now, inbox_count=1, work=70, ticks=3)
    post(exchange, sequencer, first)
    event = events_of(rollup, "BatchPosted")[0]
    inbox_hash = exchange.inbox.hash_at(1)
    assert tuple(event)[-15:] == (
        *first.header(GENESIS, inbox_hash),
        first.header_hash(GENESIS, inbox_hash),
    )
    boa.env.time_travel(seconds=7)
    second = Batch(2, b"\x33" * 32, segments=1, records=1, first_seq=5, time=now + 7, inbox_count=2, work=79)
    second = replace(second, ticks=1, payload=b"", tick_before=3)
    post(exchange, sequencer, second)
    assert rollup.tip_tick() == 4
    assert rollup.next_batch() == 3
    assert rollup.tip() == (6, now + 7, 2)
    assert rollup.end(rollup.next_batch() - 1) == (6, now + 7, 2, boa.env.timestamp, 0, 79, 4)
    assert rollup.end(1).tick == 3
    assert tuple(rollup.batch(0)) == (bytes(32), GENESIS, rollup.batch(0).posted_at)
    assert tuple(rollup.batch(1)) == (
        first.header_hash(GENESIS, exchange.inbox.hash_at(1)),
        first.post_root,
        now,
    )
    assert tuple(rollup.batch(2)) == (
        second.header_hash(first.post_root, exchange.inbox.hash_at(2)),
        second.post_root,
        now + 7,
    )


@pytest.mark.parametrize(
    "records", [1, 30, 31, 32, 61, 62, 63, 64, 94, 95, 127, 1000, 3_900, PAYLOAD_MAX // 31 - 2]
)
def test_data_root__at_chunk_edges__equals_the_naive_one(
    exchange: Exchange, sequencer: Any, records: int
) -> None:
    batch = Batch(records=records)
    post(exchange, sequencer, batch)
    assert events_of(exchange.rollup, "BatchPosted")[0].data_root == naive_data_root(batch.payload)


@settings(max_examples=30, deadline=None)
@given(
    segments=st.integers(1, 45),
    more=st.integers(0, 60),
    noise=st.binary(min_size=31, max_size=31),
)
def test_data_root__any_shape__equals_the_naive_one(
    pristine: Exchange, sequencer: Any, segments: int, more: int, noise: bytes
) -> None:
    records = segments + more
    root = b"\x44" * 32
    payload = pack([noise] * (segments - 1) + [root], [1] * (segments - 1) + [records], noise * records)
    batch = Batch(1, root, segments, records, payload=payload)
    with boa.env.anchor():
        post(pristine, sequencer, batch)
        assert pristine.rollup.batch(1).header_hash == batch.header_hash(GENESIS, bytes(32))


@pytest.mark.parametrize("records", range(1, 33))
def test_post__dirt_in_the_abi_padding__reverts(exchange: Exchange, sequencer: Any, records: int) -> None:
    """Each length modulo a word, a bit at either end of the padding: no follower could decode what Rollup took."""
    batch = Batch(records=records)
    calldata = bytearray(exchange.rollup.post.prepare_calldata(*batch.arguments()))
    padding = -len(batch.payload) % 32
    for at, bit in ((-padding, 0x80), (-1, 1)) if padding else ():
        dirty = calldata.copy()
        dirty[at] ^= bit
        with reverts("rollup: padding is not zero"):
            boa.env.raw_call(exchange.rollup.address, sender=sequencer, data=bytes(dirty))
    boa.env.raw_call(exchange.rollup.address, sender=sequencer, data=bytes(calldata))
    assert exchange.rollup.batch(1).header_hash == batch.header_hash(GENESIS, bytes(32))


def test_post__last_root_matches_in_its_top_248_bits(exchange: Exchange, sequencer: Any) -> None:
    batch = Batch(post_root=b"\x22" * 31 + b"\x99", payload=Batch(post_root=b"\x22" * 32).payload)
    post(exchange, sequencer, batch)
    assert exchange.rollup.batch(1).post_root == batch.post_root


# ----------------------------------------------------------------------------------------- what it refuses


def test_post__by_others__reverts(exchange: Exchange, stranger: Any) -> None:
    with reverts("sequencers: caller is not the leader"):
        post(exchange, stranger, Batch())


def test_post__sequencer_behind_code__reverts(
    exchange: Exchange, hostile: Any, sequencer: Any, stranger: Any
) -> None:
    contract = hostile("Proxy")
    rollup = deploy_rollup(exchange, contract)
    rollup.set_arbiter(deploy_arbiter(rollup).address)
    message = rollup.post.prepare_calldata(*Batch().arguments())
    with reverts("rollup: payload is not transaction calldata"):
        contract.forward(rollup.address, message, sender=stranger)
    # An account that delegates by EIP-7702 could call itself first and make the payload in memory.
    boa.env.set_code(sequencer, b"\xef\x01\x00" + bytes.fromhex(str(contract.address)[2:]))
    with reverts("rollup: payload is not transaction calldata"):
        post(exchange, sequencer, Batch())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_id": 0}, "rollup: not the next batch"),
        ({"batch_id": 2}, "rollup: not the next batch"),
        ({"batch_id": 2**256 - 1}, "rollup: not the next batch"),
        ({"first_seq": 1}, "rollup: first seq is not the next"),
        ({"inbox_count": 1}, "inbox: unknown message"),
        ({"inbox_count": 2**256 - 1}, "inbox: unknown message"),
        ({"segments": 0}, "rollup: no segment"),
        ({"segments": 2**256 - 1}, "rollup: payload shorter than its tables"),
        ({"segments": 3, "payload": bytes(93)}, "rollup: payload shorter than its tables"),
        ({"segments": 4, "payload": bytes(93)}, "rollup: payload shorter than its tables"),
        ({"payload": bytes(92)}, "rollup: payload is not whole elements"),
        ({"payload": bytes(62)}, "rollup: record count does not fit"),
        ({"records": 0, "payload": Batch().payload}, "rollup: record count does not fit"),
        ({"records": 2, "payload": Batch().payload}, "rollup: record count does not fit"),
        ({"records": 2**256 - 1, "payload": Batch().payload}, "rollup: record count does not fit"),
        ({"ticks": 2, "payload": Batch().payload}, "rollup: more ticks than records"),
        ({"ticks": 1, "payload": Batch().payload}, "rollup: record count does not fit"),
        ({"ticks": 2, "records": 2, "payload": Batch().payload}, "rollup: payload shorter than its tables"),
        ({"ticks": 1, "payload": pack([b"\x22" * 31], [2], bytes(62))}, "rollup: last offset is not the end"),
        (
            {"post_root": b"\x23" + b"\x22" * 31, "payload": Batch().payload},
            "rollup: last root is not the post-root",
        ),
        ({"payload": pack([b"\x22" * 31], [2], bytes(31))}, "rollup: last offset is not the end"),
        ({"payload": pack([b"\x22" * 31], [1], bytes(62))}, "rollup: last offset is not the end"),
    ],
)
def test_post__wrong_header__reverts(
    exchange: Exchange, sequencer: Any, change: dict[str, Any], reason: str
) -> None:
    with reverts(reason):
        post(exchange, sequencer, replace(Batch(), **change))


@pytest.mark.parametrize("segments", [9, 10, 11, 20, 21])
def test_post__last_offset_is_read_where_it_stands(exchange: Exchange, sequencer: Any, segments: int) -> None:
    root = b"\x22" * 32
    for end in (segments - 1, segments + 1):
        payload = pack([root] * segments, [*range(1, segments), end], bytes(31 * segments))
        with reverts("rollup: last offset is not the end"):
            post(exchange, sequencer, Batch(1, root, segments, segments, payload=payload))
    post(exchange, sequencer, Batch(1, root, segments, segments))
    assert exchange.rollup.tip()[0] == segments


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pre_root": GENESIS[:31] + b"\x12"}, "rollup: pre-root is not the last root"),
        ({"pre_root": bytes(32)}, "rollup: pre-root is not the last root"),
        ({"inbox_hash": b"\1" * 32}, "rollup: inbox hash is not the inbox's"),
        ({"inbox_count": 1, "inbox_hash": bytes(32)}, "rollup: inbox hash is not the inbox's"),
    ],
)
def test_post__made_upon_another_past__reverts(
    exchange: Exchange, sequencer: Any, trader: Any, change: dict[str, Any], reason: str
) -> None:
    """What the sender has signed on one branch of L1 is no fraud on another: it is nothing there."""
    exchange.vault.deposit(USD, sender=trader)
    with reverts(reason):
        exchange.rollup.post(*replace(Batch(), **change).arguments(), sender=sequencer)


def test_post__time_and_inbox_count_never_fall(exchange: Exchange, sequencer: Any, trader: Any) -> None:
    now = boa.env.timestamp
    exchange.vault.deposit(USD, sender=trader)
    with reverts("rollup: time ahead of the block"):
        post(exchange, sequencer, Batch(time=now + 16, inbox_count=1))
    post(exchange, sequencer, Batch(time=now + 15, inbox_count=1))
    with reverts("rollup: time falls"):
        post(exchange, sequencer, Batch(2, first_seq=1, time=now + 14, inbox_count=1))
    with reverts("rollup: inbox count falls"):
        post(exchange, sequencer, Batch(2, first_seq=1, time=now + 15, inbox_count=0))
    post(exchange, sequencer, Batch(2, first_seq=1, time=now + 15, inbox_count=1))


@pytest.mark.parametrize("ticks", [1, 30, 31, 32, 200])
def test_post__with_ids_of_ticks__looks_for_the_records_behind_them(
    exchange: Exchange, sequencer: Any, ticks: int
) -> None:
    batch = Batch(segments=11, records=ticks + 11, ticks=ticks)
    post(exchange, sequencer, batch)
    event = events_of(exchange.rollup, "BatchPosted")[0]
    assert exchange.rollup.batch(1).header_hash == batch.header_hash(GENESIS, bytes(32))
    assert (event.tick, event.ticks, event.elements) == (ticks, ticks, 11 + 2 + ticks + ticks + 11)


def test_post__tick_never_falls_and_grows_by_no_more_than_the_records(
    exchange: Exchange, sequencer: Any
) -> None:
    post(exchange, sequencer, Batch(records=4, ticks=3))
    for tick, reason in (
        (2, "rollup: tick falls"),
        (0, "rollup: tick falls"),
        (5, "rollup: more ticks than records"),
        (2**64, "rollup: more ticks than records"),
        (2**256 - 1, "rollup: more ticks than records"),
    ):
        arguments = list(Batch(2, first_seq=4).upon(exchange.rollup, exchange.inbox).arguments())
        arguments[10] = tick
        with reverts(reason):
            exchange.rollup.post(*arguments, sender=sequencer)
    post(exchange, sequencer, Batch(2, first_seq=4))
    assert exchange.rollup.tip_tick() == 3


def test_post__calldata_in_another_form__reverts(exchange: Exchange, sequencer: Any) -> None:
    calldata = exchange.rollup.post.prepare_calldata(*Batch().arguments())
    head = 4 + 11 * 32
    shifted = calldata[:head] + (13 * 32).to_bytes(32, "big") + bytes(32) + calldata[head + 32 :]
    # The contract would read one payload here, and whoever decodes the ABI another.
    elsewhere = calldata[:head] + bytes(32) + calldata[head + 32 :]
    for form in (calldata + b"\0", calldata + bytes(32), shifted, elsewhere, calldata[:-32]):
        with reverts("rollup: calldata is not canonical"):
            boa.env.raw_call(exchange.rollup.address, sender=sequencer, data=form)
    boa.env.raw_call(exchange.rollup.address, sender=sequencer, data=calldata)
    assert exchange.rollup.next_batch() == 2


def test_post__payload_above_its_bound__reverts(exchange: Exchange, sequencer: Any) -> None:
    with reverts("(no reason)"):  # the compiler's check of the argument
        post(exchange, sequencer, Batch(payload=bytes(PAYLOAD_MAX + 31)))


# ------------------------------------------------------------------------------------------------ finality


def test_finality__comes_with_the_window_and_in_order(exchange: Exchange, sequencer: Any) -> None:
    rollup = exchange.rollup
    for number in range(1, 20):
        post(exchange, sequencer, Batch(number, bytes([number]) * 32, first_seq=number - 1))
        boa.env.time_travel(seconds=10)
    window = rollup.challenge_window_s()
    assert rollup.last_final() == 0
    assert rollup.final_root(0) == GENESIS
    boa.env.time_travel(seconds=window - 190 - 1)
    assert (rollup.last_final(), rollup.is_final(1)) == (0, False)
    with reverts("rollup: not final"):
        rollup.final_root(1)
    boa.env.time_travel(seconds=1)
    for number in range(1, 20):
        assert rollup.last_final() == number
        assert (rollup.is_final(number), rollup.is_final(number + 1)) == (True, False)
        assert rollup.final_root(number) == bytes([number]) * 32
        boa.env.time_travel(seconds=10)
    assert rollup.last_final() == 19


def test_views__unknown_batch__revert(exchange: Exchange) -> None:
    for view in (exchange.rollup.batch, exchange.rollup.final_root):
        for number in (1, 2**256 - 1):
            with reverts("rollup: unknown batch"):
                view(number)
    assert not exchange.rollup.is_final(2**256 - 1)


# ------------------------------------------------------------------------------------------------ roll-back


def roll_back(exchange: Exchange, batch_id: int) -> int:
    """As the arbiter does on a fraud."""
    _, paid = exchange.rollup.roll_back(batch_id, ROLE, sender=str(exchange.arbiter.address))
    return int(paid)


def test_roll_back__deletes_the_batch_and_all_after_it(
    exchange: Exchange, sequencer: Any, trader: Any
) -> None:
    rollup = exchange.rollup
    now = boa.env.timestamp
    exchange.vault.deposit(5 * USD, sender=trader)
    for number in (1, 2, 3):
        post(
            exchange, sequencer, Batch(number, bytes([number]) * 32, first_seq=number - 1, time=now + number)
        )
    post(exchange, sequencer, Batch(4, b"\4" * 32, first_seq=3, time=now + 4, inbox_count=1))
    roll_back(exchange, 2)
    event = events_of(rollup, "RolledBack")[0]
    assert (event.batch_id, str(event.challenger).lower(), event.slashed) == (2, ROLE, ETHER)
    assert rollup.next_batch() == 2
    assert rollup.tip() == (1, now + 1, 0)
    for number in (2, 3, 4):
        with reverts("rollup: unknown batch"):
            rollup.batch(number)
    assert rollup.batch(1).post_root == b"\1" * 32


def test_roll_back__posting_goes_on_with_a_new_bond_and_a_new_clock(
    exchange: Exchange, sequencer: Any
) -> None:
    rollup = exchange.rollup
    window = rollup.challenge_window_s()
    post(exchange, sequencer, Batch())
    boa.env.time_travel(seconds=window - 1)
    roll_back(exchange, 1)
    with reverts("sequencers: caller is not the leader"):
        post(exchange, sequencer, Batch())
    exchange.sequencers.join(value=ETHER, sender=sequencer)
    honest = Batch(1, b"\x33" * 32)
    post(exchange, sequencer, honest)
    assert rollup.batch(1).header_hash == honest.header_hash(GENESIS, bytes(32))
    boa.env.time_travel(seconds=window - 1)
    assert not rollup.is_final(1)
    boa.env.time_travel(seconds=1)
    assert rollup.final_root(1) == honest.post_root


def test_roll_back__keeps_when_it_was_and_the_tick_that_it_left(exchange: Exchange, sequencer: Any) -> None:
    """Every place in a word of ticks, whatever a roll-back has left there."""
    rollup = exchange.rollup
    bond = {"value": ETHER, "sender": sequencer}
    with reverts("rollup: no such roll-back"):
        rollup.roll_back_at(0)
    ticks = [1, 0, 3, 2, 1, 4, 0, 1, 2]
    for number, count in enumerate(ticks, 1):
        post(exchange, sequencer, Batch(number, records=4, first_seq=4 * number - 4, ticks=count))
    assert [rollup.end(number).tick for number in range(10)] == [sum(ticks[:number]) for number in range(10)]
    boa.env.time_travel(seconds=5)
    roll_back(exchange, 7)
    at = boa.env.timestamp
    assert (rollup.roll_backs(), rollup.tip_tick()) == (1, 11)
    assert rollup.roll_back_at(0) == (at, 11)
    exchange.sequencers.join(**bond)
    post(exchange, sequencer, Batch(7, records=4, first_seq=24, ticks=2))
    assert [rollup.end(number).tick for number in range(4, 8)] == [6, 7, 11, 13]
    boa.env.time_travel(seconds=5)
    roll_back(exchange, 1)
    assert (rollup.roll_back_at(0), rollup.roll_back_at(1)) == ((at, 11), (at + 5, 0))
    assert rollup.tip_tick() == 0
    with reverts("rollup: no such roll-back"):
        rollup.roll_back_at(2)


def test_roll_back__several_wrong_batches__needs_no_bond_for_the_earlier(
    exchange: Exchange, sequencer: Any
) -> None:
    for number in (1, 2, 3):
        post(exchange, sequencer, Batch(number, bytes([number]) * 32, first_seq=number - 1))
    assert [roll_back(exchange, number) for number in (3, 2, 1)] == [ETHER * 3 // 8, 0, 0]
    assert exchange.rollup.next_batch() == 1
    assert exchange.rollup.tip() == (0, 0, 0)


def test_roll_back__of_what_is_final_or_unknown__reverts(exchange: Exchange, sequencer: Any) -> None:
    window = exchange.rollup.challenge_window_s()
    post(exchange, sequencer, Batch())
    for number in (2, 2**256 - 1):
        with reverts("rollup: unknown batch"):
            roll_back(exchange, number)
    boa.env.time_travel(seconds=window)
    for number in (0, 1):
        with reverts("rollup: batch is final"):
            roll_back(exchange, number)


def test_roll_back__by_others__reverts(exchange: Exchange, sequencer: Any, stranger: Any) -> None:
    post(exchange, sequencer, Batch())
    for caller in (stranger, sequencer, exchange.rollup.arbiter_setter()):
        with reverts("rollup: caller is not the arbiter"):
            exchange.rollup.roll_back(1, ROLE, sender=caller)


def test_post__without_an_arbiter__reverts(exchange: Exchange, sequencer: Any) -> None:
    rollup = deploy_rollup(exchange, sequencer)
    with reverts("rollup: no arbiter"):
        rollup.post(*Batch().arguments(), sender=sequencer)


def test_set_arbiter__once_by_the_deployer_and_only_its_own(exchange: Exchange, stranger: Any) -> None:
    with reverts("rollup: arbiter is set already"):
        exchange.rollup.set_arbiter(exchange.arbiter.address)
    rollup = deploy_rollup(exchange, stranger)
    with reverts("rollup: caller is not the deployer"):
        rollup.set_arbiter(exchange.arbiter.address, sender=stranger)
    for other in (exchange.arbiter.address, stranger):
        with reverts("rollup: arbiter has another rollup"):
            rollup.set_arbiter(other)


# -------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("position", "wrong", "reason"),
    [
        (0, bytes(32), "rollup: genesis root is zero"),
        (1, "0x" + "01" * 20, "rollup: sequencers are not a contract"),
        (2, "0x" + "01" * 20, "rollup: inbox is not a contract"),
        (3, 0, "rollup: challenge window is zero"),
        (3, 30 * 86_400 + 1, "rollup: challenge window above 30 days"),
        (4, 601, "rollup: drift above the challenge window"),
        (5, 30 * 86_400 + 1, "rollup: silence above 30 days"),
        (5, 86_399, "rollup: silence below the inbox's delay"),
        (6, 0, "rollup: no work"),
        (6, work.SLOT_MAX // work.SLOT_S + 1, "rollup: work above a slot's"),
        (7, work.of_batch(work.SEGMENT_MAX, 1) - 1, "rollup: work below a segment's"),
        (7, work.SLOT_MAX + 1, "rollup: work above a slot's"),
    ],
)
def test_constructor__inconsistent_arguments__revert(
    exchange: Exchange, position: int, wrong: Any, reason: str
) -> None:
    arguments: list[Any] = [GENESIS, exchange.sequencers, exchange.inbox, 600, 15, SILENCE, *WORK]
    arguments[position] = wrong
    with reverts(reason):
        deploy("Rollup", *arguments)


def test_constructor__take_over_that_comes_too_late__reverts(exchange: Exchange, sequencer: Any) -> None:
    """32 take-over times within half the inbox's shortest delay, 3,600 s."""
    late = deploy("Sequencers", sequencer, ETHER, 57, value=ETHER)
    with reverts("rollup: last take-over after a deadline"):
        deploy("Rollup", GENESIS, late, exchange.inbox, 600, 15, SILENCE, *WORK)
    sooner = deploy("Sequencers", sequencer, ETHER, 56, value=ETHER)
    deploy("Rollup", GENESIS, sooner, exchange.inbox, 600, 15, SILENCE, *WORK)


def test_domain_separator__equals_the_sequencers(exchange: Exchange) -> None:
    rollup = exchange.rollup
    expected = domain_separator(boa.env.evm.patch.chain_id, bytes.fromhex(str(rollup.address)[2:]))
    assert rollup.domain_separator() == expected
