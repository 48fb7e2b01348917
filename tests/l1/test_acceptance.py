"""Everything that Rollup and the Inbox take, every follower reads: calls at the edge of what is taken.

A call that Rollup takes and a follower cannot read is a batch that nobody challenges: it becomes final, whatever its
root says. So the calls are generated, those that are taken are mined, and Follower, replay, standby and watcher are
driven over them; of a wrong batch the watcher's challenge has to be won.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from sequencer.genesis import genesis_state
from sequencer.l1 import blobs
from sequencer.l1.batch import Batch
from sequencer.l1.blobs import Sidecar
from sequencer.l1.errors import RpcReverted, TransactionFailed
from sequencer.l1.inbox import ROLLUP
from sequencer.l1.payload import PAYLOAD_BYTES_MAX, PAYLOAD_HEAD, PAYLOAD_START
from sequencer.l1.signing import Content, Fees
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_stage import BOND_WEI, Stage, stage
from sequencer.market.tape import open_tape
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.transition import apply
from tests.l1.acceptance import WORD, beacon, blobs_with, drive, odd_payload, payload_of

USD = 10**6
GAS = 12_000_000
NOISE = bytes([0xEE]) * c.ELEMENT_BYTES  # no kind: one element, no-op
Calldata = bytes | bytearray


@pytest.fixture
def on() -> Iterator[Stage]:
    with stage("pyevm", open_tape(None, 1)) as built:
        yield built


def first_batch(on: Stage, records: list[bytes] | None = None) -> Batch:
    """An honest batch of these records, by default a tick and what waits in the inbox."""
    state = genesis_state(on.domain, on.params)
    pre_root, now_s = state.root(), on.chain.head_time_s()
    records = [codec.encode(Kind.TICK, time=now_s), *on.inbox] if records is None else records
    payload, segments = payload_of(state, records)
    g = state.globals
    return Batch(
        *(1, pre_root, state.root(), segments, len(records), 0, g.time),
        *(g.inbox_count, g.inbox_hash, g.work, g.tick, g.tick, payload),
    )


def calldata_of(batch: Batch) -> bytes:
    return ROLLUP.encode("post", *arguments(batch), batch.payload)


def arguments(batch: Batch) -> list[Any]:
    """Of `post` and `post_blobs`, but the last; Rollup counts the batch's ticks itself."""
    return [getattr(batch, name) for name in Batch.__dataclass_fields__ if name not in ("ticks", "payload")]


# --- what is generated --------------------------------------------------------------------------------


def forms_of(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The same call in every other form that somebody could think of: nearly all must be refused."""
    length = int.from_bytes(data[PAYLOAD_HEAD:PAYLOAD_START], "big")
    padding = len(data) - PAYLOAD_START - length
    for place in range(padding):
        for bit in (0, 7):
            dirty = bytearray(data)
            dirty[len(data) - 1 - place] ^= 1 << bit
            yield f"padding byte {place}, bit {bit}", bytes(dirty)
    for more in (b"\0", b"\1", bytes(31), bytes(32), b"\xff" * 32, bytes(64), bytes(992)):
        yield f"{len(more)} bytes behind", data + more
    for less in (1, padding or 1, padding + 1, 31, 32, length, len(data) - 4):
        yield f"{less} bytes too short", data[: len(data) - less]
    for value in (
        0,
        1,
        length - 31,
        length - 1,
        length + 1,
        length + 31,
        PAYLOAD_BYTES_MAX,
        2**255,
        2**256 - 1,
    ):
        yield f"length {value:#x}", _with_word(data, PAYLOAD_HEAD, value)
    for value in (
        0,
        32,
        PAYLOAD_HEAD - 5,
        PAYLOAD_HEAD - 3,
        PAYLOAD_HEAD + 28,
        2**255,
        2**256 - 32,
        2**256 - 1,
    ):
        yield f"offset {value:#x}", _with_word(data, PAYLOAD_HEAD - WORD, value)
    yield (
        "the payload a word further on",
        _with_word(
            data[:PAYLOAD_HEAD] + bytes(WORD) + data[PAYLOAD_HEAD:], PAYLOAD_HEAD - WORD, PAYLOAD_HEAD + 28
        ),
    )
    for place in range((PAYLOAD_HEAD - 4) // WORD):
        word = int.from_bytes(data[4 + place * WORD :][:WORD], "big")
        for bit in (0, 40, 64, 128, 255):
            yield f"argument {place}, bit {bit}", _with_word(data, 4 + place * WORD, word ^ 1 << bit)
    yield "a selector and garbage", data[:4] + b"\xff" * (len(data) - 4)
    yield "another selector", b"\0\0\0\1" + data[4:]
    yield "the selector of post_blobs", ROLLUP.function("post_blobs").selector + data[4:]
    yield "no calldata", b""


def _with_word(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + value.to_bytes(WORD, "big") + data[at + WORD :]


def is_taken(on: Stage, data: bytes) -> bool:
    try:
        on.chain.rpc.eth_call(on.at.rollup, data, "latest", on.signer.address)
    except RpcReverted:
        return False
    return True


def post_and_drive(on: Stage, data: bytes, name: str) -> str:
    """Mines the call, drives the followers over it, takes the chain back."""
    before = on.chain.snapshot()
    Wallet(on.chain.rpc, on.signer, on.at).transact("post", on.at.rollup, data, gas=GAS)
    found = drive(on, name)
    on.chain.revert(before)
    return found


# --- calldata -----------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_calls__in_every_other_form__are_refused_or_read_by_all(on: Stage) -> None:
    """An argument of 256 bits has no upper bits that could be dirty; what is taken is the one canonical form."""
    taken: Counter[str] = Counter()
    refused = 0
    tick = codec.encode(Kind.TICK, time=on.chain.head_time_s())
    short = first_batch(on, [tick])  # 28 bytes in the last word
    whole = first_batch(on, [tick] * 2 + [NOISE] * 12)  # 32 elements: no padding
    assert [len(one.payload) % WORD for one in (short, whole)] == [28, 0]
    for number, batch in enumerate((short, whole)):
        data = calldata_of(batch)
        assert is_taken(on, data)
        assert post_and_drive(on, data, f"canonical-{number}") == "right"
        for name, form in forms_of(data):
            if not is_taken(on, form):
                refused += 1
                continue
            taken[name] += 1
            post_and_drive(on, form, f"form-{number}-{len(taken)}")
    assert refused > 120
    # what another batch would say: the post-root's last bit, the time, and the work
    assert set(taken) == {"argument 2, bit 0", "argument 6, bit 0", "argument 9, bit 0"}, taken
    with pytest.raises(TransactionFailed):
        Wallet(on.chain.rpc, on.signer, on.at).transact("post", on.at.rollup, calldata_of(short), 1, GAS)


@pytest.mark.timeout(300)
def test_ticks__that_are_refused__have_no_id_and_are_read_by_all(on: Stage) -> None:
    """Going back, and of bytes that are no record: no-ops, which a batch may hold."""
    now_s = on.chain.head_time_s()
    tick, back = (codec.encode(Kind.TICK, time=time_s) for time_s in (now_s, now_s - 60))
    batch = first_batch(on, [tick, back, bytes([Kind.TICK]) + b"\xff" * 30, tick, back])
    assert (batch.tick, batch.ticks, batch.records) == (2, 2, 5)
    assert post_and_drive(on, calldata_of(batch), "refused") == "right"


@pytest.mark.timeout(600)
def test_payloads__of_noise_that_rollup_takes__are_read_by_all_and_challenged(on: Stage) -> None:
    draw = random.Random(20_261_129)
    honest = first_batch(on, [codec.encode(Kind.TICK, time=on.chain.head_time_s())])
    kinds: Counter[str] = Counter()
    tried = 0
    while kinds.total() < 16:
        tried += 1
        assert tried < 200
        state = genesis_state(on.domain, on.params)
        payload, segments, records, ticks = odd_payload(draw, state, honest.time_s)
        header = {"segments": segments, "records": records, "tick": ticks, "ticks": ticks}
        batch = replace(honest, post_root=state.root(), payload=payload, **header)
        data = calldata_of(batch)
        if is_taken(on, data):
            kinds[post_and_drive(on, data, f"noise-{tried}")] += 1
    assert len(kinds) >= 3, kinds
    assert "right" not in kinds


@pytest.mark.timeout(600)
def test_payloads__as_long_and_as_short_as_may_be__are_read_by_all(on: Stage) -> None:
    tick = codec.encode(Kind.TICK, time=on.chain.head_time_s())
    found = [post_and_drive(on, calldata_of(first_batch(on, [tick])), "short")]
    most = PAYLOAD_BYTES_MAX // c.ELEMENT_BYTES
    segments = 2  # far too heavy: a challenge of its form
    state = genesis_state(on.domain, on.params)
    id_ = bytes(c.ELEMENT_BYTES)
    area = most - batches.tables(segments, 1)
    table = ((1).to_bytes(3, "big") + area.to_bytes(3, "big")).ljust(c.ELEMENT_BYTES, b"\0")
    roots = bytes(c.ELEMENT_BYTES) + state.root()[: c.ELEMENT_BYTES]
    longest = replace(
        first_batch(on, [tick]), post_root=state.root(), segments=segments, records=area,
        payload=roots + table + id_ + NOISE * area,
    )  # fmt: skip
    assert len(longest.payload) == PAYLOAD_BYTES_MAX
    found.append(post_and_drive(on, calldata_of(longest), "long"))
    assert found == ["right", "weight"], found


# --- blobs --------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_blobs__with_anything_in_them_that_is_a_blob__are_read_by_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Upper bits set, field elements behind the payload, the same blob twice, more blobs of a table's length."""
    with stage("pyevm", open_tape(None, 1), "blob") as on, beacon(on.folder) as (url, held):
        monkeypatch.setenv("FAIRSTRIKE_BEACON", url)
        honest = first_batch(on)
        top = (0x70).to_bytes(1, "big")  # of the modulus' 0x73
        payload = honest.payload
        first, count = payload[: c.ELEMENT_BYTES], len(payload) // c.ELEMENT_BYTES
        twice = bytes(c.ELEMENT_BYTES) * blobs.BLOB_ELEMENTS * 2
        cases: dict[str, tuple[Batch, tuple[bytes, ...], str]] = {
            "plain": (honest, blobs.to_blobs(payload), "right"),
            "upper bits": (honest, blobs_with(payload, {0: top + first}), "right"),
            "elements behind": (
                honest,
                blobs_with(payload, {count: b"\0" + b"\7" * 31, blobs.BLOB_ELEMENTS - 1: top + b"\7" * 31}),
                "right",
            ),
            "the same blob twice": (
                replace(honest, segments=1, records=blobs.BLOB_ELEMENTS, payload=twice),
                blobs.to_blobs(twice),
                "bounds",
            ),
            "a last root that is not the post-root": (
                replace(honest, post_root=bytes([honest.post_root[0] ^ 1]) + honest.post_root[1:]),
                blobs.to_blobs(payload),
                "post_root",
            ),
            "a last offset that is not the end": (
                replace(honest, payload=payload + b"\1" * c.ELEMENT_BYTES),
                blobs.to_blobs(payload + b"\1" * c.ELEMENT_BYTES),
                "bounds",
            ),
        }
        for number, (name, (batch, made, verdict)) in enumerate(cases.items()):
            before = on.chain.snapshot()
            held[:] = made
            assert post_blobs(on, batch, made), name
            # py-evm opens field elements in Python, a minute each: challenged on anvil (test_blobs.py)
            assert drive(on, f"blobs-{number}", challenges=False) == verdict, name
            on.chain.revert(before)
        for change in (bytes(1), b"\1", bytes(WORD)):  # behind the arguments
            assert not post_blobs(on, honest, blobs.to_blobs(payload), lambda data, more=change: data + more)


def post_blobs(
    on: Stage, batch: Batch, made: tuple[bytes, ...], form: Callable[[bytes], bytes] = lambda data: data
) -> bool:
    """Posts a batch with these blobs; whether Rollup has taken it. The chain looks at no sidecar."""
    data = form(ROLLUP.encode("post_blobs", *arguments(batch), len(batch.payload) // c.ELEMENT_BYTES))
    sidecar = Sidecar(made, tuple(map(blobs.commitment_of, made)), ())
    rpc = on.chain.rpc
    content = Content(bytes.fromhex(on.at.rollup[2:]), data, 0, 1_000_000)
    signed = on.signer.sign_transaction(
        on.at.chain_id, rpc.nonce(on.signer.address), Fees(10**11, 10**9, 10**9), content, sidecar
    )
    rpc.send_raw(signed.raw)
    for _ in range(100):
        receipt = rpc.receipt(signed.hash)
        if receipt is not None:
            return bool(int(receipt["status"], 16))
        rpc.sleep(0.01)
    raise AssertionError("not mined")


# --- the inbox ----------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_messages__with_the_extreme_numbers_that_the_inbox_takes__are_read_and_executed_by_all(
    on: Stage,
) -> None:
    trader, other = (Wallet(on.chain.rpc, devnet_signer(number), on.at) for number in (5, 6))
    for wallet in (trader, other):
        wallet.mint(2**50)
    for amount in (1 * USD, 2**32, 2**47 + 1, 2**48 - 1):
        trader.deposit_with_permit(amount)
    other.deposit_with_permit(2**48 - 1)
    for amount in (2**48, 2**64, 2**256 - 1):
        with pytest.raises(TransactionFailed):
            trader.deposit_with_permit(amount)
    first = on.at.deploy_block
    for values in ((0, 0, 0, 0, 0, 0, 0), (2**32 - 1, 255, 2**32 - 1, 2**40 - 1, 2**32 - 1, 65_535, 0)):
        trader.force_order(*values)
    day = (on.chain.head_time_s() // c.DAY_S + 1) * c.DAY_S + c.EXPIRY_OF_DAY_S
    far = (2**256 - 1 - c.EXPIRY_OF_DAY_S) // c.DAY_S * c.DAY_S + c.EXPIRY_OF_DAY_S
    for expiry in (day, far):
        trader.force_order(1, 1, 1, 1, 0, 0, expiry)
    for amount in (0, 1, 2**63, 2**64 - 1):
        trader.force_withdraw(amount)
    trader.force_cancel_all()
    other.force_liquidate(trader.account(), far)

    messages = on.follower().messages_after(0)
    assert [one.index for one in messages] == list(range(len(on.inbox) + 5 + 4 + 4 + 2))
    state = genesis_state(on.domain, on.params)
    records = [codec.encode(Kind.TICK, time=on.chain.head_time_s()), *(one.record for one in messages)]
    reasons = [Reason(apply(state, raw).reason) for raw in records]
    assert state.globals.inbox_count == len(messages), reasons
    assert on.follower().messages_after(len(messages), state.globals.inbox_hash) == []
    assert {reasons[0], *reasons[1 : 1 + len(on.inbox) + 5]} == {Reason.OK}
    assert first < messages[-1].block_number
    batch = first_batch(on, records)
    assert post_and_drive(on, calldata_of(batch), "messages") == "right"
    assert on.chain.rpc.balance(on.at.sequencers) == BOND_WEI


def test_words__of_the_inbox_with_dirty_upper_bits__are_refused(on: Stage) -> None:
    """Narrow arguments: Vyper clamps them, so that a record never differs from what its sender has signed."""
    from sequencer.l1.inbox import INBOX

    trader = Wallet(on.chain.rpc, devnet_signer(5), on.at)
    trader.mint(10 * USD)
    trader.deposit_with_permit(10 * USD)
    fee = int(INBOX.read(on.chain.rpc, on.at.inbox, "message_fee"))
    widths: dict[str, tuple[Any, ...]] = {
        "force_withdraw": (64,),
        "force_order": (32, 8, 32, 40, 32, 16),
        "force_liquidate": (32,),
    }
    before = len(on.follower().messages_after(0))
    for name, bits in widths.items():
        inputs = INBOX.function(name).inputs
        for place, width in enumerate(bits):
            data = INBOX.encode(name, *([1] * len(bits) + [0] * (len(inputs) - len(bits))))
            word = int.from_bytes(data[4 + place * WORD :][:WORD], "big")
            for bit in (width, 255):
                with pytest.raises(TransactionFailed):
                    trader.transact(
                        name, on.at.inbox, _with_word(data, 4 + place * WORD, word | 1 << bit), fee, 1_000_000
                    )
    assert len(on.follower().messages_after(0)) == before
