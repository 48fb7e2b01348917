"""Receipts and their judge: what an honest signer signs is never found broken, each misdeed is, and costs the bond.

Long because every case needs the one day of trading that is signed here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import boa
import msgspec
import pytest
from boa import BoaError
from contract_support import ETHER, USD, Exchange, deploy, deploy_exchange, events_of, reverts
from eth.exceptions import Revert
from eth_abi import encode

from sequencer.engine.engine import Engine, Submission
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.local.devnet import devnet_params, feed_key
from sequencer.log.interface import Entry
from sequencer.proof import receipts as proofs
from sequencer.proof.receipts import Proof, judge
from sequencer.proof.witness import Tracer
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol import receipts as rules
from sequencer.protocol.batch import Segment
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, keccak, public_key_of, sign
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.receipts import Header
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.queue.receipts import Issuer, Lead
from sequencer.sdk.receipts import Item, Opened, Receipt

PARAMS = devnet_params()
SALT = b"\x5a" * 32
KEYS = {number: bytes([number]) * 32 for number in (1, 2)}
KEY = keccak(b"receipt key")
OTHER_KEY = keccak(b"another receipt key")
PRICE = 4_900_000  # ticks
DUE_S, NOTICE_S, WINDOW_S = 300, 60, 600
COMPENSATION = ETHER // 100
FEE_MAX = 300 * 10**9
BURN = "0x000000000000000000000000000000000000dEaD"


@dataclass
class Signed:
    """A tick as it was signed: what its header is about."""

    header: Header
    records: list[bytes]
    items: list[Item]
    leaves: list[bytes]


@dataclass
class Day:
    """Four ticks, honestly executed and signed."""

    exchange: Exchange
    receipts: Any
    sequencer: Any
    entries: list[Entry]
    ticks: list[Signed]
    domain: bytes
    now_s: int

    def state(self, segments: int = 0, kind: type[State] = State) -> State:
        """The state after so many segments."""
        state = genesis_state(self.domain, PARAMS)
        for segment in self.segments[:segments]:
            for raw in segment.records:
                apply(state, raw)
        return state

    @property
    def segments(self) -> list[Segment]:
        return [segment for entry in self.entries for segment in entry.batch_segments()]

    def segment_of(self, seq: int) -> int:
        """Of the record."""
        first = 0
        for index, segment in enumerate(self.segments):
            first += len(segment.records)
            if seq < first:
                return index
        raise AssertionError

    def post(self, entries: list[Entry] | None = None, by: Any = None) -> PostedBatch:
        """Posts ticks as the next batch."""
        entries = self.entries if entries is None else entries
        rollup = self.exchange.rollup
        segments = [segment for entry in entries for segment in entry.batch_segments()]
        ids = [one for entry in entries for of_segment in entry.ids() for one in of_segment]
        g = self.state(len(self.segments)).globals
        payload = batches.encode(segments, ids)
        number = rollup.next_batch()
        rollup.post(
            *(number, rollup.batch(number - 1).post_root, segments[-1].root, len(segments)),
            *(sum(entry.records for entry in entries), rollup.tip()[0], entries[-1].time),
            *(g.inbox_count, self.exchange.inbox.hash_at(g.inbox_count), g.work, g.tick, payload),
            sender=by or self.sequencer,
        )
        event = events_of(rollup, "BatchPosted")[0]
        names = [
            *("batch_id", "pre_root", "post_root", "data_root", "elements", "segments", "records"),
            *("first_seq", "inbox_count", "inbox_hash", "work", "tick", "ticks", "header_hash"),
        ]
        return PostedBatch(
            **{name: getattr(event, name) for name in names},
            time_s=event.time,
            payload=payload,
            block_number=0,
            block_hash="",
            tx_hash="",
        )

    def receipt(
        self, tick: int, place: int, header: Header | None = None, item: Item | None = None, key: bytes = KEY
    ) -> Opened:
        """Receipt of a record, as it is or as a liar signs it: another header, or another item in its place."""
        of = self.ticks[tick]
        item = item or of.items[place]
        leaves = list(of.leaves)
        seq = (header or of.header).first_seq + place
        leaves[place] = rules.leaf(seq, item.raw, item.reason, item.outcome())
        levels = rules.tree(leaves)
        header = replace(header or of.header, records_root=levels[-1][0])
        data = rules.pack(header, header.sign(self.domain, key)) + rules.item(place, levels)
        rollup = str(self.exchange.rollup.address).lower()
        chain_id = int(boa.env.evm.patch.chain_id)
        opened = Receipt(chain_id, rollup, "0x" + data.hex(), [item]).open()
        assert opened.signer == address_of(public_key_of(key))
        return opened

    def ask(self, shown: Proof) -> Any:
        """A dry run of a check."""
        output = boa.env.raw_call(self.receipts.address, data=shown.call).output
        return judge().function("check_" + shown.name).decode_output(output)

    def slash(self, shown: Proof, finder: Any, salt: bytes = SALT) -> int:
        """Commits and slashes; gas of the latter, with the transaction's own and its calldata's."""
        misdeed = self.ask(shown)[2]
        commitment = keccak(encode(["address", "bytes32", "bytes32"], [str(finder), misdeed, salt]))
        self.receipts.commit(commitment, sender=finder)
        boa.env.time_travel(blocks=1)
        data = shown.slash(salt)
        computation = boa.env.raw_call(self.receipts.address, data=data, sender=finder)
        used = computation.get_gas_used() + 21_000 + sum(16 if byte else 4 for byte in data)
        return int(used - min(used // 5, computation.get_gas_refund()))


@pytest.fixture(scope="module")
def built(pristine: Exchange, sequencer: Any, stranger: Any) -> Iterator[Day]:
    with boa.env.anchor():
        yield trade_a_day(sequencer)


@pytest.fixture
def day(built: Day) -> Iterator[Day]:
    with boa.env.anchor():
        yield built


def register(exchange: Exchange, member: Any, key: bytes) -> None:
    words = encode(
        ["bytes32", "uint256", "address", "address"],
        [
            keccak(b"fairstrike receipt key"),
            boa.env.evm.patch.chain_id,
            str(exchange.sequencers.address),
            str(member),
        ],
    )
    signature = sign(keccak(words), key)
    address = "0x" + address_of(public_key_of(key)).hex()
    exchange.sequencers.set_receipt_key(address, signature[:32], signature[32:], sender=member)


class Noting(Engine):
    """Notes each record that holds, with its outcome as it is then: (record, outcome, (paid, rests, trades))."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.done: list[Any] = []

    def _try(self, raw: bytes, signer: bytes | None) -> Outcome:
        out = super()._try(raw, signer)
        if out.reason is Reason.OK:
            trades = [(f.quantity, f.maker_price, f.maker_seq) for f in out.fills]
            self.done.append((raw, out, (out.paid, out.rests, trades)))
        return out


def trade_a_day(sequencer: Any) -> Day:
    """Deposits, prices and marks, then orders that rest, trade over a CONTINUE, are amended and cancelled."""
    exchange = deploy_exchange(sequencer, genesis_root=genesis_root(PARAMS), challenge_window_s=WINDOW_S)
    receipts = deploy(
        "Receipts",
        *(exchange.rollup, exchange.arbiter, exchange.vault, DUE_S, NOTICE_S),
        *(FEE_MAX, FEE_MAX, COMPENSATION, 10),
    )
    exchange.sequencers.set_judge(receipts.address)
    register(exchange, sequencer, KEY)
    deposits = []
    for key in KEYS.values():
        owner = "0x" + address_of(public_key_of(key)).hex()
        exchange.token.mint(owner, 10**6 * USD)
        exchange.token.approve(exchange.vault.address, 10**6 * USD, sender=owner)
        exchange.vault.deposit(10**6 * USD, sender=owner)
        deposits.append(bytes(events_of(exchange.vault, "Message")[0].record))
    boa.env.set_balance(BURN, 1)  # of L1 it has some
    domain = bytes(exchange.rollup.domain_separator())
    now = boa.env.timestamp
    day = now // c.DAY_S + 2
    instrument = day << 12

    def signed(kind: Kind, key: bytes, **fields: int | bytes) -> bytes:
        return codec.sign(codec.encode(kind, **fields), domain, key)

    def place(account: int, side: int, price: int, quantity: int, nonce: int, flags: int = 0) -> bytes:
        fields = {"price": price, "quantity": quantity, "nonce": nonce, "expires": 0, "fee_max": 65_535}
        return signed(
            Kind.PLACE, KEYS[account], account=account, instrument=instrument, flags=side | flags, **fields
        )

    shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
    report = {"underlying": 0, "day": day, "time": now, "forward": PRICE, "index": PRICE}
    system = [
        *(signed(Kind.FEED, feed_key(i), underlying=0, feed=i, time=now, price=PRICE + i) for i in range(3)),
        codec.encode(Kind.LIST, underlying=0, day=day, put=0, strike=4_800_000),
        *(signed(Kind.SURFACE, feed_key(i), feed=i, **report, **shape) for i in range(3)),
        codec.encode(Kind.RISK, underlying=0, day=day, page=0),
    ]
    makers = [place(1, c.SELL, 150_000 + i, 2_000, 1 + i, c.FLAG_POST_ONLY) for i in range(5)]
    takers = [place(2, c.BUY, 150_004, 9_500, 1), place(2, c.BUY, 100_000, 500, 2)]
    engine = Noting(genesis_state(domain, PARAMS))
    issuer = Issuer(domain, KEY, lambda: Lead(epoch=1))
    entries, ticks = [], []
    for offset, records, submitted in ((0, deposits, []), (1, system, []), (2, [], makers), (3, [], takers)):
        engine.done = done = []
        tick = engine.run(now + offset, records, [Submission(raw, None) for raw in submitted])
        assert all(one.reason is Reason.OK for one in (*tick.system, *tick.results))
        made = issuer.seal(tick)
        assert made is not None
        assert tick.entry is not None
        entries.append(tick.entry)
        raws = list(tick.entry.raws())
        assert raws == [raw for raw, _, _ in done]
        items = [Item("0x" + raw.hex(), 0, paid, rests, trades) for raw, _, (paid, rests, trades) in done]
        ticks.append(Signed(made.header, raws, items, list(tick.leaves)))
    assert len(ticks[3].items[1].trades) == 3  # the order, and two more lots by its CONTINUE
    assert [raw[0] for raw in ticks[3].records] == [Kind.TICK, Kind.PLACE, Kind.CONTINUE, Kind.PLACE]
    return Day(exchange, receipts, sequencer, entries, ticks, domain, now)


def all_proofs(day: Day, posted: PostedBatch, tick: int, place: int, opened: Opened) -> list[Proof]:
    """Every check that a receipt can be put to."""
    seq = day.ticks[tick].header.first_seq + place
    index = day.segment_of(seq)
    last = day.segment_of(day.ticks[tick].header.first_seq + day.ticks[tick].header.records - 1)
    before = sum(len(one.records) for one in day.segments[:index])
    records = day.segments[index].records[: seq - before + 1]
    return [
        proofs.overdue(opened),
        proofs.tick(opened, posted),
        proofs.record(opened, posted, index, day.state(index)),
        proofs.state(opened, posted, last, day.state(last + 1)),
        proofs.outcome(opened, posted, index, Tracer.of(day.state(index)), records),
    ]


def test_honest_receipts__are_kept_by_every_check(day: Day, stranger: Any) -> None:
    posted = day.post()
    boa.env.time_travel(seconds=DUE_S * 2)
    opened = [
        (tick, place, day.receipt(tick, place))
        for tick, of in enumerate(day.ticks)
        for place in range(len(of.records))
    ]
    shown = [proof for tick, place, one in opened for proof in all_proofs(day, posted, tick, place, one)]
    firsts = [day.receipt(tick, 0) for tick in range(4)]
    for first in firsts:
        for second in firsts:
            shown += [proofs.chain(first, second), proofs.equivocation(first, second)]
    for proof in shown:
        broken, member, *_ = day.ask(proof)
        assert (broken, member.lower()) == (False, str(day.sequencer).lower()), proof.name
    with reverts("receipts: kept"):
        day.receipts.slash(SALT, shown[0].call, sender=stranger)
    assert day.exchange.sequencers.bond_of(day.sequencer) == ETHER


def lies(day: Day, posted: PostedBatch | None) -> dict[str, Proof]:
    """Each misdeed by one dishonest signature, and its proof."""
    of = day.ticks[3]
    item = of.items[1]
    assert item.paid is not None
    honest = day.receipt(3, 1)
    later = replace(of.header, time_ns=of.header.time_ns + 1)
    out = {
        "equivocation": proofs.equivocation(honest, day.receipt(3, 1, header=later)),
        "chain: another parent": proofs.chain(
            day.receipt(2, 0), day.receipt(3, 0, header=replace(of.header, parent=bytes(31)))
        ),
        "chain: back in time": proofs.chain(
            day.receipt(2, 0),
            day.receipt(3, 0, header=replace(of.header, time_ns=day.ticks[2].header.time_ns - 1)),
        ),
        "chain: a gap": proofs.chain(
            day.receipt(2, 0), day.receipt(3, 0, header=replace(of.header, first_seq=of.header.first_seq + 1))
        ),
        "chain: numbers again": proofs.chain(
            day.receipt(1, 0),
            day.receipt(3, 0, header=replace(of.header, first_seq=day.ticks[1].header.first_seq)),
        ),
        "overdue": proofs.overdue(day.receipt(3, 1)),
    }
    if posted is None:
        return out
    index = day.segment_of(of.header.first_seq + 1)
    state, last = day.state(index), len(day.segments)
    first = sum(len(one.records) for one in day.segments[:index])
    records = day.segments[index].records[: of.header.first_seq + 1 - first + 1]
    other = Item("0x" + day.ticks[2].records[1].hex(), 0, 1, 0, [])

    def told(**changes: Any) -> Proof:
        lie = day.receipt(3, 1, item=msgspec.structs.replace(item, **changes))
        return proofs.outcome(lie, posted, index, Tracer.of(state), records)

    del out["overdue"]
    return out | {
        "another header": proofs.tick(day.receipt(3, 1, header=later), posted),
        "another record": proofs.record(day.receipt(3, 1, item=other), posted, index, state),
        "another state": proofs.state(
            day.receipt(3, 1, header=replace(of.header, state_root=bytes(32))),
            posted,
            last - 1,
            day.state(last),
        ),
        "another tick": proofs.state(
            day.receipt(3, 1, header=replace(of.header, tick=of.header.tick - 1)),
            posted,
            last - 1,
            day.state(last),
        ),
        "outcome: fee": told(paid=item.paid + 1),
        "outcome: rest": told(rests=1),
        "outcome: price": told(trades=[(2_000, 149_999, item.trades[0][2]), *item.trades[1:]]),
        "outcome: quantity": told(trades=[(1_999, *item.trades[0][1:]), *item.trades[1:]]),
        "outcome: maker": told(trades=[(*item.trades[0][:2], 1), *item.trades[1:]]),
        "outcome: a trade more": told(trades=[*item.trades, item.trades[0]]),
        "outcome: reason": told(reason=int(Reason.MARGIN)),
        "outcome: none": told(paid=None),
    }


LIES = [
    *("equivocation", "chain: another parent", "chain: back in time", "chain: a gap", "chain: numbers again"),
    *("another header", "another record", "another state", "another tick", "outcome: fee", "outcome: rest"),
    *("outcome: price", "outcome: quantity", "outcome: maker", "outcome: a trade more", "outcome: reason"),
    "outcome: none",
]


@pytest.mark.parametrize("lie", LIES)
def test_lie__in_a_receipt__costs_the_whole_bond(day: Day, stranger: Any, lie: str) -> None:
    posted = day.post()
    shown = lies(day, posted)[lie]
    gas = day.slash(shown, stranger)
    print(f"{lie}: {gas} gas, {len(shown.slash(SALT))} bytes")
    assert gas <= {"equivocation": 150_000}.get(lie, 8_000_000)
    sequencers = day.exchange.sequencers
    assert sequencers.bond_of(day.sequencer) == 0
    assert sequencers.members() == []
    assert sequencers.held(day.sequencer)[0] == ETHER


def test_overdue__a_tick_that_is_not_posted__costs_the_bond_once_its_time_is_over(
    day: Day, stranger: Any
) -> None:
    shown = lies(day, None)["overdue"]
    assert not day.ask(shown)[0]
    boa.env.time_travel(seconds=DUE_S + 10)
    assert day.ask(shown)[0]
    gas = day.slash(shown, stranger)
    print(f"overdue: {gas} gas")
    assert gas <= 400_000


def test_overdue__of_a_tick_that_is_posted_late__is_not_broken_any_more(day: Day) -> None:
    boa.env.time_travel(seconds=DUE_S + 10)
    shown = lies(day, None)["overdue"]
    assert day.ask(shown)[0]
    day.post()
    assert not day.ask(shown)[0]


def test_excuse__while_l1_is_too_dear__moves_the_due_time(day: Day, stranger: Any) -> None:
    with reverts("receipts: L1 is not too dear"):
        day.receipts.excuse(sender=stranger)
    shown = lies(day, None)["overdue"]
    vm = boa.env.evm.vm
    for _ in range(3):  # an unbroken time of notes
        boa.env.time_travel(seconds=DUE_S - 20)
        with fee(vm, FEE_MAX + 1):
            day.receipts.excuse(sender=stranger)
    boa.env.time_travel(seconds=DUE_S - 5)
    assert not day.ask(shown)[0]
    boa.env.time_travel(seconds=10)
    assert day.ask(shown)[0]


def test_excuse__after_the_due_time__excuses_nothing(day: Day, stranger: Any) -> None:
    shown = lies(day, None)["overdue"]
    boa.env.time_travel(seconds=DUE_S + 10)
    assert day.ask(shown)[0]
    with fee(boa.env.evm.vm, FEE_MAX + 1):
        day.receipts.excuse(sender=stranger)
    assert day.ask(shown)[0]


class fee:
    """The base fee meanwhile."""

    def __init__(self, vm: Any, wei: int) -> None:
        self._wei = wei

    def __enter__(self) -> None:
        self._patch = boa.env.evm.vm.state.execution_context
        self._before = self._patch._base_fee_per_gas
        self._patch._base_fee_per_gas = self._wei

    def __exit__(self, *_: object) -> None:
        self._patch._base_fee_per_gas = self._before


# --- who can gain -------------------------------------------------------------------------------------


def test_copy__of_a_proof_out_of_the_pool__is_of_no_use(day: Day, stranger: Any, trader: Any) -> None:
    posted = day.post()
    shown = lies(day, posted)["another header"]
    misdeed = day.ask(shown)[2]
    commitment = keccak(encode(["address", "bytes32", "bytes32"], [str(stranger), misdeed, SALT]))
    day.receipts.commit(commitment, sender=stranger)
    with reverts("receipts: commitment is of this block"):
        day.receipts.slash(SALT, shown.call, sender=stranger)
    boa.env.time_travel(blocks=1)
    with reverts("receipts: no commitment"):
        day.receipts.slash(SALT, shown.call, sender=trader)
    with reverts("receipts: committed already"):
        day.receipts.commit(commitment, sender=trader)
    day.receipts.slash(SALT, shown.call, sender=stranger)


def test_receipt__of_nobody_that_is_a_member__is_nothing(day: Day) -> None:
    posted = day.post()
    opened = day.receipt(3, 1, key=OTHER_KEY)
    for shown in all_proofs(day, posted, 3, 1, opened):
        with reverts("receipts: signed by no member's key"):
            day.ask(shown)


def test_key__of_another__cannot_be_taken_and_an_old_one_still_binds(day: Day, stranger: Any) -> None:
    sequencers = day.exchange.sequencers
    with reverts("sequencers: caller is not a member"):
        register(day.exchange, stranger, OTHER_KEY)
    sequencers.join(sender=stranger, value=ETHER)
    with reverts("sequencers: another member's key"):
        register(day.exchange, stranger, KEY)
    with reverts("sequencers: key has not signed"):
        address = "0x" + address_of(public_key_of(OTHER_KEY)).hex()
        sequencers.set_receipt_key(address, b"\1" * 32, b"\2" * 32, sender=stranger)
    register(day.exchange, day.sequencer, OTHER_KEY)
    posted = day.post()
    assert day.ask(lies(day, posted)["another header"])[0]  # signed by the old one


def test_batch__of_another_member__counts_once_it_is_final(day: Day, stranger: Any) -> None:
    sequencers = day.exchange.sequencers
    sequencers.join(sender=stranger, value=ETHER)
    sequencers.hand_over(sender=day.sequencer)
    posted = day.post(by=stranger)
    shown = lies(day, posted)["another record"]
    with reverts("receipts: batch is not final"):
        day.ask(shown)
    boa.env.time_travel(seconds=WINDOW_S + 1)
    assert day.ask(shown)[0]
    assert sequencers.bond_of(day.sequencer) == ETHER
    with reverts("sequencers: batches are not final"):  # it is out of the set, having served nothing
        sequencers.withdraw_bond(sender=day.sequencer)
    day.slash(shown, stranger)
    assert sequencers.bond_of(day.sequencer) == 0
    assert sequencers.bond_of(stranger) == ETHER


def test_settle__pays_the_finder_two_thirds_and_each_holder_from_the_rest(day: Day, stranger: Any) -> None:
    posted = day.post()
    day.slash(lies(day, posted)["another header"], stranger)
    with reverts("sequencers: batches are not final"):
        day.receipts.settle(day.sequencer)
    boa.env.time_travel(seconds=WINDOW_S + 1)
    before = boa.env.get_balance(stranger)
    day.receipts.settle(day.sequencer)
    assert boa.env.get_balance(stranger) - before == ETHER // 4
    owner = day.exchange.vault.owner_of(2)
    had = boa.env.get_balance(owner)
    later = replace(day.ticks[3].header, time_ns=day.ticks[3].header.time_ns + 1)
    mine = proofs.tick(day.receipt(3, 1, header=later), posted)
    day.receipts.compensate(mine.call, sender=stranger)
    assert boa.env.get_balance(owner) - had == COMPENSATION
    with reverts("receipts: compensated already"):
        day.receipts.compensate(mine.call, sender=stranger)
    for system in (0, 2):  # a TICK and a CONTINUE are nobody's
        with reverts("receipts: no holder"):
            day.receipts.compensate(proofs.tick(day.receipt(3, system, header=later), posted).call)
    with reverts("receipts: kept"):
        day.receipts.compensate(proofs.tick(day.receipt(3, 3), posted).call)
    with reverts("receipts: pot is open"):
        day.receipts.close(day.sequencer)
    boa.env.time_travel(seconds=WINDOW_S + 1)
    with reverts("receipts: pot is closed"):
        day.receipts.compensate(proofs.tick(day.receipt(3, 3, header=later), posted).call)
    day.receipts.close(day.sequencer)
    assert boa.env.get_balance(day.receipts.address) == 0


def test_liar__that_shows_its_own_broken_receipt__leaves_the_challengers_their_reward(
    day: Day, stranger: Any, trader: Any
) -> None:
    """A wrong batch, and a broken receipt shown first by the liar's friend: the challenger has the three eighths."""
    from sequencer.proof.challenge import challenge_segment

    wrong = msgspec.structs.replace(day.entries[-1])
    root = bytes(byte ^ 1 for byte in wrong.root)
    segments = [*wrong.segments[:-1], (root, *wrong.segments[-1][1:])]
    posted = day.post([*day.entries[:-1], msgspec.structs.replace(wrong, root=root, segments=segments)])
    day.slash(lies(day, None)["equivocation"], trader)
    held, _ = day.exchange.sequencers.held(day.sequencer)
    assert held == ETHER
    index = len(day.segments) - 1
    check = challenge_segment(posted, index, Tracer.of(day.state(index)))
    arbiter = day.exchange.arbiter
    arbiter.commit(check.commitment(str(stranger), SALT), sender=stranger)
    boa.env.time_travel(blocks=1)
    arbiter.challenge(SALT, check.call, sender=stranger)
    assert arbiter.rewards(0).amount == ETHER * 3 // 8
    boa.env.time_travel(seconds=WINDOW_S + 1)
    before = boa.env.get_balance(trader)
    day.receipts.settle(day.sequencer)
    assert boa.env.get_balance(trader) == before
    with reverts("receipts: nothing to settle"):
        day.receipts.settle(day.sequencer)


def test_slashed__by_the_judge__cannot_join_before_it_is_settled(day: Day, stranger: Any) -> None:
    posted = day.post()
    day.slash(lies(day, posted)["another header"], stranger)
    sequencers = day.exchange.sequencers
    with reverts("sequencers: slashed, and not released"):
        sequencers.join(sender=day.sequencer, value=ETHER)
    boa.env.time_travel(seconds=WINDOW_S + 1)
    day.receipts.settle(day.sequencer)
    sequencers.join(sender=day.sequencer, value=ETHER)
    with reverts("receipts: no commitment"):
        day.receipts.slash(SALT, lies(day, posted)["another header"].call, sender=stranger)


def test_roll_back__excuses_what_it_took_and_nothing_signed_long_after(day: Day, stranger: Any) -> None:
    from sequencer.proof.challenge import challenge_segment

    wrong = msgspec.structs.replace(day.entries[-1])
    root = bytes(byte ^ 1 for byte in wrong.root)
    segments = [*wrong.segments[:-1], (root, *wrong.segments[-1][1:])]
    posted = day.post([*day.entries[:-1], msgspec.structs.replace(wrong, root=root, segments=segments)])
    index = len(day.segments) - 1
    check = challenge_segment(posted, index, Tracer.of(day.state(index)))
    day.exchange.arbiter.commit(check.commitment(str(stranger), SALT), sender=stranger)
    boa.env.time_travel(blocks=1)
    day.exchange.arbiter.challenge(SALT, check.call, sender=stranger)
    boa.env.time_travel(seconds=DUE_S + 10)
    rolled_at, standing = day.exchange.rollup.roll_back_at(0)
    assert standing == 0
    with reverts("receipts: rolled back since"):
        day.ask(proofs.overdue(day.receipt(3, 1)))
    after = (rolled_at + NOTICE_S + 1) * 10**9
    ignored = replace(day.ticks[3].header, time_ns=after)  # signed as if nothing had been rolled back
    boa.env.time_travel(seconds=NOTICE_S + DUE_S)
    assert day.ask(proofs.overdue(day.receipt(3, 1, header=ignored)))[0]
    knows = replace(day.ticks[3].header, roll_backs=1)
    assert day.ask(proofs.overdue(day.receipt(3, 1, header=knows)))[0]
    ahead = replace(day.ticks[3].header, roll_backs=9)  # of roll-backs that have not been
    assert day.ask(proofs.overdue(day.receipt(3, 1, header=ahead)))[0]


def test_tampered_proofs__revert_or_find_nothing(day: Day) -> None:
    posted = day.post()
    for shown in all_proofs(day, posted, 3, 1, day.receipt(3, 1)):
        step = max(1, len(shown.call) // 60)
        for at in range(4, len(shown.call), step):
            changed = bytearray(shown.call)
            changed[at] ^= 1
            try:
                output = boa.env.raw_call(day.receipts.address, data=bytes(changed)).output
            except (BoaError, Revert):
                continue
            assert not judge().function("check_" + shown.name).decode_output(output)[0], (shown.name, at)


def test_slash__takes_no_other_function_for_a_check(day: Day, stranger: Any) -> None:
    with reverts("receipts: not a check"):
        day.receipts.slash(SALT, judge().encode("committed_at", bytes(32)), sender=stranger)
    with reverts("sequencers: caller is not the judge"):
        day.exchange.sequencers.slash_member(day.sequencer, sender=stranger)
    with reverts("sequencers: caller is not the judge"):
        day.exchange.sequencers.release(day.sequencer, sender=stranger)
