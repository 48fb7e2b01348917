"""A watcher that traders leave their receipts with: what two of them show together, and what L1 has otherwise."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sequencer.development import receipt_key
from sequencer.genesis import genesis_state
from sequencer.l1.sequencers import CALL_GAS, set_receipt_key
from sequencer.l1.wallet import Wallet
from sequencer.local.lie_stage import Stage, stage
from sequencer.local.receipt_lies import (
    RECEIPT_LIES,
    SigningEngine,
    perform_signed,
    signed_receipt,
    victim_of,
)
from sequencer.market.tape import open_tape
from sequencer.proof import receipts as proofs
from sequencer.proof.receipt_watch import ReceiptSources
from sequencer.proof.watcher import WatchConfig, Watcher
from sequencer.protocol import receipts as rules
from sequencer.sdk.receipts import Opened


@pytest.fixture
def on() -> Iterator[Stage]:
    with stage("pyevm", open_tape(None, 1)) as built:
        data = set_receipt_key(built.at, built.signer.address, receipt_key())
        Wallet(built.chain.rpc, built.signer, built.at).transact(
            "key", built.at.sequencers, data, gas=CALL_GAS
        )
        yield built


def leave(folder: Path, name: str, *opened: Opened) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("ab") as file:
        for one in opened:
            file.write(msgspec.json.encode(one.receipt) + b"\n")


def watcher_of(on: Stage, receipts: Path) -> Watcher:
    config = WatchConfig(confirmations=0)
    return Watcher(on.chain.rpc, on.at, on.params, on.folder / "w", config, receipts=ReceiptSources(receipts))


def honest(engine: SigningEngine, on: Stage) -> list[Opened]:
    """A receipt of the first record of each tick whose records are all logged, and of the victim."""
    at, place = victim_of(engine)
    out = [
        signed_receipt(on, tick, 0, tick.header, tick.items[0])
        for tick in engine.signed
        if len(tick.items) == len(tick.leaves)
    ]
    tick = engine.signed[at]
    return [*out, signed_receipt(on, tick, place, tick.header, tick.items[place])]


@pytest.mark.parametrize("is_early", [True, False])
def test_honest_receipts__left_before_or_after_their_batches__are_honoured(
    on: Stage, tmp_path: Path, is_early: bool
) -> None:
    engine, made = perform_signed(on, lambda _engine: None)
    receipts = honest(engine, on)
    if is_early:
        leave(tmp_path / "r", "a.jsonl", *receipts)
    on.post(made)
    watcher = watcher_of(on, tmp_path / "r")
    watcher.step()
    if not is_early:
        leave(tmp_path / "r", "a.jsonl", *receipts)
        for _ in range(1 + len(receipts) // 16):
            watcher.step()
    told = watcher.status["receipts"]
    assert (told["honoured"], told["pending"], told["broken"]) == (len(receipts), 0, 0), told
    assert not watcher.alarms
    watcher.close()


def test_two_headers_of_one_tick__left_by_two_traders__are_found_before_anything_is_posted(
    on: Stage, tmp_path: Path
) -> None:
    engine, _ = perform_signed(on, lambda _engine: None)
    at, place = victim_of(engine)
    tick = engine.signed[at]
    lie = RECEIPT_LIES["receipt-equivocation"].header
    assert lie is not None
    watcher = watcher_of(on, tmp_path / "r")
    leave(tmp_path / "r", "one.jsonl", signed_receipt(on, tick, place, tick.header, tick.items[place]))
    watcher.step()
    assert watcher.status["receipts"]["broken"] == 0
    leave(tmp_path / "r", "two.jsonl", signed_receipt(on, tick, 0, lie(tick.header), tick.items[0]))
    watcher.step()
    assert [one["misdeed"] for one in watcher.status["receipts"]["misdeeds"]] == [proofs.EQUIVOCATION]
    assert "BROKEN RECEIPT" in watcher.alarms[-1].what
    assert watcher.receipts is not None
    (shown,) = watcher.receipts.desk.proofs.values()
    assert proofs.ask(on.chain.rpc, on.at, shown).broken
    watcher.close()


@pytest.mark.parametrize(
    ("name", "misdeed"),
    [
        ("receipt-price", proofs.OUTCOME),
        ("receipt-another-header", proofs.TICK),
        ("receipt-cancel", proofs.RECORD),
    ],
)
def test_broken_receipt__is_found_as_the_batch_is_executed(
    on: Stage, tmp_path: Path, name: str, misdeed: str
) -> None:
    lie = RECEIPT_LIES[name]
    engine, _ = perform_signed(on, lambda _engine: None)
    at, place = victim_of(engine)
    tick = engine.signed[at]
    item = lie.item(on, tick.items[place], tick) if lie.item else tick.items[place]
    opened = signed_receipt(on, tick, place, lie.header(tick.header) if lie.header else tick.header, item)

    def prepare(made: SigningEngine) -> None:
        if lie.keeps:
            made.heads[tick.header.tick] = [rules.stored(opened.header)]

    _, made = perform_signed(on, prepare)
    others = [one for one in honest(engine, on) if one.header.tick != tick.header.tick]
    leave(tmp_path / "r", "a.jsonl", opened, *others[: at - 1])
    on.post(made)
    watcher = watcher_of(on, tmp_path / "r")
    watcher.step()
    told = watcher.status["receipts"]
    assert told["misdeeds"] == [{"misdeed": misdeed, "tick": tick.header.tick, "seqs": opened.seqs}]
    assert told["honoured"] == len(others[: at - 1])
    found = proofs.inquire(on.chain.rpc, on.at, opened, genesis_state(on.domain, on.params))
    assert found.misdeed == misdeed
    watcher.close()


def test_tick_that_never_comes__is_told_once_it_is_overdue(on: Stage, tmp_path: Path) -> None:
    engine, _ = perform_signed(on, lambda _engine: None)
    opened = honest(engine, on)[-1]
    leave(tmp_path / "r", "a.jsonl", opened)
    watcher = watcher_of(on, tmp_path / "r")
    watcher.step()
    assert watcher.status["receipts"]["pending"] == 1
    due_s = proofs.judge().read(on.chain.rpc, on.at.receipts, "due_at", proofs.header_words(opened.header))
    on.chain.set_time(int(due_s) + 1)
    on.chain.mine()
    watcher.step()
    assert [one["misdeed"] for one in watcher.status["receipts"]["misdeeds"]] == [proofs.OVERDUE]
    watcher.close()


def test_what_is_no_receipt__is_told_and_stops_nothing(on: Stage, tmp_path: Path) -> None:
    engine, _ = perform_signed(on, lambda _engine: None)
    opened = honest(engine, on)[-1]
    folder = tmp_path / "r"
    folder.mkdir()
    nobody = msgspec.structs.replace(opened.receipt, rollup="0x" + "11" * 20)
    lines = [b"{}", b"\xff\xfe", msgspec.json.encode(nobody), msgspec.json.encode(opened.receipt)]
    (folder / "a.jsonl").write_bytes(b"\n".join(lines) + b'\n{"half')
    watcher = watcher_of(on, folder)
    watcher.step()
    assert watcher.status["receipts"]["pending"] == 1
    assert len(watcher.alarms) == 3
    watcher.close()
