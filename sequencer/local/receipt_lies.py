"""Lies told in receipts: a sequencer that signs what it does not keep, and a trader that has nothing but the receipt.

The play is traded honestly or not, each tick is signed, and the batches go to L1. The trader then asks L1 about its
receipt (proof/receipts.py), commits to what it finds, and takes the bond.
"""

import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.development import receipt_key
from sequencer.engine.engine import Submission, Tick
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.batch import Batch
from sequencer.l1.sequencers import CALL_GAS, SEQUENCERS, set_receipt_key
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_key, devnet_signer
from sequencer.local.liar import LyingEngine
from sequencer.local.lie_stage import CHALLENGER, LieReport, Progress, Stage
from sequencer.local.play import Play, batches_of
from sequencer.log.sqlite import SqliteLog
from sequencer.proof import receipts as proofs
from sequencer.proof.receipts import Proof
from sequencer.protocol import codec
from sequencer.protocol import receipts as rules
from sequencer.protocol.batch import NO_ID
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.receipts import Header
from sequencer.protocol.state import State
from sequencer.queue.receipts import Issuer, Lead
from sequencer.sdk.receipts import Item, Opened, Receipt

SLASH_GAS: Final = 8_000_000
COMMIT_GAS: Final = 100_000


@dataclass(frozen=True, slots=True)
class SignedTick:
    """A tick as it is signed, whatever becomes of it."""

    header: Header
    items: list[Item]
    leaves: list[bytes]


@dataclass(frozen=True, slots=True)
class ReceiptLie:
    """What is signed otherwise than it is, and how it is found.

    `item`, `header`: the lie in place of the victim's. `keeps`: the batch commits to the lying header, so that only the
    record, the state or the execution show it. `alters`: what the batch has in the place of the tick's submissions.
    `erases`: the batch names no header. `withholds`: the tick is never posted. `pair`: the lie is between two headers.
    """

    what: str
    misdeed: str
    item: Callable[["Stage", Item, SignedTick], Item] | None = None
    header: Callable[[Header], Header] | None = None
    keeps: bool = False
    alters: Callable[[list[Submission]], list[Submission]] | None = None
    erases: bool = False
    withholds: bool = False
    pair: bool = False


class SigningEngine(LyingEngine):
    """Signs each tick, and remembers what it did. `bend` changes the submissions of tick `victim`."""

    def __init__(self, state: State, issuer: Issuer) -> None:
        super().__init__(state, None)
        self.issuer = issuer
        self.signed: list[SignedTick] = []
        self.heads: dict[int, list[bytes]] = {}  # what the log keeps of a tick in place of its header
        self.victim = 0
        self.bend: Callable[[list[Submission]], list[Submission]] | None = None
        self._items: list[Item] = []

    def run(
        self, time: int, system: list[bytes], submissions: list[Submission], is_kept: bool = False
    ) -> Tick:
        """See Engine."""
        self._items = []
        if self.bend is not None and self.state.globals.tick + 1 == self.victim:
            submissions = self.bend(submissions)
        tick = super().run(time, system, submissions, is_kept)
        made = self.issuer.seal(tick)
        if made is not None and tick.entry is not None:
            items = [one for one in self._items if one.raw in set(tick.entry.raws())]
            self.signed.append(SignedTick(made.header, items, list(tick.leaves)))
            if tick.number in self.heads:
                tick.entry = msgspec.structs.replace(tick.entry, heads=self.heads[tick.number])
        return tick

    def _try(self, raw: bytes, signer: bytes | None) -> Outcome:
        kept = len(self._leaves)
        out = super()._try(raw, signer)
        if len(self._leaves) > kept:
            trades = [(fill.quantity, fill.maker_price, fill.maker_seq) for fill in out.fills]
            self._items.append(Item("0x" + raw.hex(), int(out.reason), out.paid, out.rests, trades))
        return out


def _later(header: Header) -> Header:
    return replace(header, time_ns=header.time_ns + 1)


def _cancel_of_the_maker(on: Stage, item: Item, tick: SignedTick) -> Item:
    """The maker's cancel, receipted at the number at which its order then trades."""
    _, price, seq = item.trades[0]
    flags = item.raw[9]
    instrument = int.from_bytes(item.raw[5:9], "big")
    fields = {"account": 1, "instrument": instrument, "side": 1 - (flags & 1), "price": price, "seq": seq}
    raw = codec.sign(codec.encode(Kind.CANCEL, **fields, nonce=2**31, expires=0), on.domain, devnet_key(1))
    return Item("0x" + raw.hex())


def _change(**changes: Callable[[Item], Any]) -> Callable[[Stage, Item, SignedTick], Item]:
    return lambda _on, item, _tick: msgspec.structs.replace(
        item, **{name: change(item) for name, change in changes.items()}
    )


def _dearer(item: Item) -> list[tuple[int, int, int]]:
    (quantity, price, seq), *rest = item.trades
    return [(quantity, price + 1, seq), *rest]


RECEIPT_LIES: Final = {
    "receipt-equivocation": ReceiptLie(
        "two traders hold two headers of one tick", proofs.EQUIVOCATION, header=_later, pair=True
    ),
    "receipt-parent": ReceiptLie(
        "a header does not name the one before",
        proofs.CHAIN,
        header=lambda one: replace(one, parent=bytes(31)),
        pair=True,
    ),
    "receipt-back-in-time": ReceiptLie(
        "a header is of an earlier time than the one before",
        proofs.CHAIN,
        header=lambda one: replace(one, time_ns=1),
        pair=True,
    ),
    "receipt-gap": ReceiptLie(
        "a tick leaves out a number",
        proofs.CHAIN,
        header=lambda one: replace(one, first_seq=one.first_seq + 1),
        pair=True,
    ),
    "receipt-another-header": ReceiptLie("L1 has another header than the trader", proofs.TICK, header=_later),
    "receipt-no-header": ReceiptLie("L1 has no header for the tick", proofs.TICK, erases=True),
    "receipt-withheld": ReceiptLie("the tick is never posted", proofs.OVERDUE, withholds=True),
    "receipt-dropped": ReceiptLie(
        "the order is left out after it was receipted",
        proofs.RECORD,
        keeps=True,
        alters=lambda those: those[1:],
    ),
    "receipt-reordered": ReceiptLie(
        "another order comes before the receipted one",
        proofs.RECORD,
        keeps=True,
        alters=lambda those: those[::-1],
    ),
    "receipt-cancel": ReceiptLie(
        "an order trades after its cancel was receipted", proofs.RECORD, item=_cancel_of_the_maker, keeps=True
    ),
    "receipt-state": ReceiptLie(
        "the tick ends with another state",
        proofs.STATE,
        header=lambda one: replace(one, state_root=bytes(32)),
        keeps=True,
    ),
    "receipt-fee": ReceiptLie(
        "the fee is higher than receipted",
        proofs.OUTCOME,
        item=_change(paid=lambda item: max(0, (item.paid or 0) - 1)),
        keeps=True,
    ),
    "receipt-price": ReceiptLie(
        "the order has traded at another price", proofs.OUTCOME, item=_change(trades=_dearer), keeps=True
    ),
    "receipt-rest": ReceiptLie(
        "more of the order rests than is in the book",
        proofs.OUTCOME,
        item=_change(rests=lambda item: item.rests + 1),
        keeps=True,
    ),
    "receipt-trade": ReceiptLie(
        "a trade is receipted that was not made",
        proofs.OUTCOME,
        item=_change(trades=lambda item: [*item.trades, item.trades[0]]),
        keeps=True,
    ),
    "receipt-refused": ReceiptLie(
        "the order has held, and its receipt says that it has not",
        proofs.OUTCOME,
        item=_change(reason=lambda _item: int(Reason.MARGIN)),
        keeps=True,
    ),
}


def perform_signed(on: Stage, prepare: Callable[[SigningEngine], None]) -> tuple[SigningEngine, list[Batch]]:
    """The play, signed tick by tick, and its batches."""
    with tempfile.TemporaryDirectory(dir=on.folder) as name:
        log = SqliteLog(Path(name) / "log.sqlite")
        issuer = Issuer(on.domain, receipt_key(), lambda: Lead(epoch=1))
        engine = SigningEngine(genesis_state(on.domain, on.params), issuer)
        prepare(engine)
        Play(engine, log, on.tape, on.inbox).run()
        made = batches_of(Path(name), log, genesis_root(on.params))
        log.close()
    return engine, [replace(one, inbox_hash=on.inbox_hash(one.inbox_count)) for one in made]


def victim_of(engine: SigningEngine) -> tuple[int, int]:
    """(place of the tick, of the item in it): the last order that trades before another order of its tick."""
    for at in reversed(range(len(engine.signed))):
        tick = engine.signed[at]
        if len(tick.items) != len(tick.leaves):
            continue
        for place, item in enumerate(tick.items):
            later = [one for one in tick.items[place + 1 :] if one.raw[0] == Kind.PLACE]
            if item.raw[0] == Kind.PLACE and item.trades and later and at > 0:
                return at, place
    raise RuntimeError("the play has no order that trades before another order of its tick")


def signed_receipt(on: Stage, tick: SignedTick, place: int, header: Header, item: Item) -> Opened:
    leaves = list(tick.leaves)
    leaves[place] = rules.leaf(header.first_seq + place, item.raw, item.reason, item.outcome())
    levels = rules.tree(leaves)
    header = replace(header, records_root=levels[-1][0])
    data = rules.pack(header, header.sign(on.domain, receipt_key())) + rules.item(place, levels)
    return Receipt(on.at.chain_id, on.at.rollup.lower(), "0x" + data.hex(), [item]).open()


def break_on(on: Stage, name: str, progress: Progress = lambda _stage, _done, _total: None) -> LieReport:
    """Breaks a receipt on a stage where nothing has been posted yet, and lets its holder take the bond."""
    began, lie = time.monotonic(), RECEIPT_LIES[name]
    report = LieReport(name, lie.what, on.chain.name, on.at.data)
    data = set_receipt_key(on.at, on.signer.address, receipt_key())
    Wallet(on.chain.rpc, on.signer, on.at).transact("receipt key", on.at.sequencers, data, gas=CALL_GAS)
    progress("lie", 1, 5)
    honest, _ = perform_signed(on, lambda _engine: None)
    at, place = victim_of(honest)
    tick = honest.signed[at]
    item = tick.items[place] if lie.item is None else lie.item(on, tick.items[place], tick)
    opened = signed_receipt(on, tick, place, lie.header(tick.header) if lie.header else tick.header, item)

    def prepare(engine: SigningEngine) -> None:
        engine.victim, engine.bend = tick.header.tick, lie.alters
        if lie.keeps or lie.erases:
            engine.heads[tick.header.tick] = [NO_ID if lie.erases else rules.stored(opened.header)]

    _, made = perform_signed(on, prepare)
    if lie.withholds:
        made = [one for one in made if one.tick < tick.header.tick]
    report.batches, report.records = len(made), sum(one.records for one in made)
    on.post(made)
    progress("lie", 2, 5)
    shown = _find(on, lie, opened, honest, at)
    progress("lie", 3, 5)
    if shown is not None:
        report.caught = shown.name == lie.misdeed
        report.fault = {"misdeed": shown.name, "tick": opened.header.tick, "seq": opened.seqs[0]}
        report.challenge_gas, report.challenge_bytes = _slash(on, shown)
        report.slashed = SEQUENCERS.read(on.chain.rpc, on.at.sequencers, "bond_of", on.signer.address) == 0
    report.is_receipt = True
    progress("lie", 5, 5)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _find(on: Stage, lie: ReceiptLie, opened: Opened, honest: SigningEngine, at: int) -> Proof | None:
    """What the trader finds: against another's header, or against L1."""
    if lie.pair:
        other = honest.signed[at if lie.misdeed == proofs.EQUIVOCATION else at - 1]
        against = signed_receipt(on, other, 0, other.header, other.items[0])
        found = proofs.equivocation if lie.misdeed == proofs.EQUIVOCATION else proofs.chain
        shown = found(against, opened)
        return shown if proofs.ask(on.chain.rpc, on.at, shown).broken else None
    if lie.withholds:
        due_s = proofs.inquire(on.chain.rpc, on.at, opened, genesis_state(on.domain, on.params)).due_s
        on.chain.set_time(due_s + 1)
        on.chain.mine()
    return proofs.inquire(on.chain.rpc, on.at, opened, genesis_state(on.domain, on.params)).proof


def _slash(on: Stage, shown: Proof) -> tuple[int, int]:
    """Commits and takes the bond; gas and bytes of the latter."""
    wallet = Wallet(on.chain.rpc, devnet_signer(CHALLENGER), on.at)
    verdict, salt = proofs.ask(on.chain.rpc, on.at, shown), secrets.token_bytes(32)
    commitment = shown.commitment(wallet.address, salt, verdict)
    wallet.transact("commit", on.at.receipts, proofs.judge().encode("commit", commitment), gas=COMMIT_GAS)
    on.chain.mine()
    data = shown.slash(salt)
    mined = wallet.transact("slash", on.at.receipts, data, gas=SLASH_GAS)
    return mined.gas_used, len(data)
