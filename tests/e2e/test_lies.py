"""A sequencer that tells one lie in an otherwise honest day is caught, and what it is caught by is what it did."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.local.devnet import devnet_key, devnet_params
from sequencer.local.liar import Lie, LyingEngine
from sequencer.local.lie_demo import bent, summary, tell, tell_all
from sequencer.local.lies import LIES
from sequencer.local.play import DEPOSITS, Play, as_posted, batches_of
from sequencer.local.receipt_lies import RECEIPT_LIES
from sequencer.log.sqlite import SqliteLog
from sequencer.market.tape import open_tape
from sequencer.proof.audit import FORM_KINDS, Audit, Fault, FaultKind
from sequencer.proof.receipts import MISDEEDS
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.transition import apply

PARAMS = devnet_params()
DOMAIN = codec.domain_separator(31_337, b"\x5f" * 20)
TAPE = open_tape(None, 1)
INBOX = [
    codec.encode(
        Kind.DEPOSIT, owner=address_of(public_key_of(devnet_key(number))), account=number, amount=amount
    )
    for number, amount in DEPOSITS
]
# Lateness is no matter of what a batch says, but of when L1 has it.
ALL = sorted(name for name, lie in LIES.items() if not lie.is_late)


def perform(
    folder: Path, lie: Lie | None, is_crowded: bool | None = None
) -> tuple[LyingEngine, list[PostedBatch]]:
    log = SqliteLog(folder / "log.sqlite")
    engine = LyingEngine(genesis_state(DOMAIN, PARAMS), lie)
    Play(engine, log, TAPE, INBOX, is_crowded).run()
    made = batches_of(folder, log, genesis_root(PARAMS))
    log.close()
    if lie is not None:
        made = bent(made, lie)
    return engine, as_posted(made, INBOX, genesis_root(PARAMS))


def first_fault(posted: list[PostedBatch]) -> Fault | None:
    audit = Audit(genesis_state(DOMAIN, PARAMS), lambda index: INBOX[index] if index < len(INBOX) else None)
    for number, one in enumerate(posted, start=1):
        if fault := audit.check(one, number, one.inbox_hash):
            return fault
    return None


def seq_range(posted: list[PostedBatch], fault: Fault) -> range:
    """Sequence numbers of the segment that the fault names."""
    batch = posted[fault.batch_id - 1]
    segments = batches.decode(batch.payload, batch.segments, batch.ticks)
    first = batch.first_seq + sum(len(one.records) for one in segments[: fault.segment])
    return range(first, first + len(segments[fault.segment].records))


def test_honest_day__is_right_to_the_end(tmp_path: Path) -> None:
    engine, posted = perform(tmp_path, None)
    assert first_fault(posted) is None
    assert posted[-1].post_root == engine.state.root()
    assert len(posted) >= 3
    kinds = {
        raw[0]
        for one in posted
        for segment in batches.decode(one.payload, one.segments, one.ticks)
        for raw in segment.records
    }
    assert {
        *(
            Kind.DEPOSIT,
            Kind.FEED,
            Kind.SURFACE,
            Kind.LIST,
            Kind.RISK,
            Kind.PLACE,
            Kind.AMEND,
            Kind.CANCEL,
            Kind.WITHDRAW,
        ),
        *(Kind.TRANSFER, Kind.COLLECT, Kind.LIQUIDATE, Kind.BID, Kind.FIX, Kind.SETTLE),
    } <= kinds


def test_honest_day__with_an_account_at_its_limit__keeps_the_limit(tmp_path: Path) -> None:
    engine, posted = perform(tmp_path, None, is_crowded=True)
    assert first_fault(posted) is None
    held = max(len(account.positions) for account in engine.state.accounts.values())
    assert held <= c.POSITIONS_MAX
    most = 0
    state = genesis_state(DOMAIN, PARAMS)
    for one in posted:
        for segment in batches.decode(one.payload, one.segments, one.ticks):
            for raw in segment.records:
                apply(state, raw)
            most = max(most, *(len(account.positions) for account in state.accounts.values()), 0)
    assert most == c.POSITIONS_MAX


@pytest.mark.parametrize("name", ALL)
def test_lie__told_once__is_caught_where_it_was_told(tmp_path: Path, name: str) -> None:
    lie = LIES[name]
    engine, posted = perform(tmp_path, lie)
    fault = first_fault(posted)
    assert fault is not None
    assert fault.kind == lie.fault
    if engine.told_seq is not None:
        assert posted[-1].post_root == engine.state.root()  # it keeps to its lie to the end
        if fault.kind not in FORM_KINDS:
            assert engine.told_seq in seq_range(posted, fault)
    if fault.kind is FaultKind.ROOT:
        assert fault.honest_root[:31] != fault.claimed_root


REFUSED = {
    # the order that the account cannot bear, and the liquidation of an account that has not taken it
    "margin-ignored": ["MARGIN", "HEALTHY"],
    "position-limit-ignored": ["POSITION_LIMIT"],
    # the order that meets its own account's: after an honest plan, too
    "plan-kept-in-part": ["FOK_UNFILLED"],
    "plan-undone": ["FOK_UNFILLED"],
}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "margin-ignored",
            "deposit-dropped",
            "segment-overweight",
            "message-late",
            "position-limit-ignored",
        ),
        *("plan-kept-in-part", "plan-undone", "header-tick"),
    ],
)
def test_lie__on_l1__is_challenged_slashed_rolled_back_and_the_honest_records_survive(name: str) -> None:
    report = tell(name)
    assert report.fault is not None
    assert (report.caught, report.slashed, report.rolled_back, report.watcher_agrees) == (True,) * 4
    assert report.fault["kind"] == LIES[name].fault
    assert 0 < report.challenge_gas < 8_000_000
    assert 0 < report.challenge_bytes < 110 * 1024
    assert report.honest_records_kept > 20
    assert report.refused == REFUSED.get(name, [])


# A wrong root, a wrong inbox, each form, each header; the last two only blobs let through.
IN_BLOBS = ("deposit-altered", "segment-overweight", "header-records", "last-root", "last-offset")


@pytest.mark.node
def test_lies__in_blobs__are_challenged_slashed_rolled_back_and_the_honest_records_survive() -> None:
    reports = list(tell_all(IN_BLOBS, "anvil", data="blob"))
    assert [one.lie for one in reports] == list(IN_BLOBS)
    for one in reports:
        assert one.fault is not None
        assert one.fault["kind"] == LIES[one.lie].fault
        assert (one.caught, one.slashed, one.rolled_back, one.watcher_agrees) == (True,) * 4, one
        assert 0 < one.challenge_gas < 8_000_000
        assert one.honest_records_kept > 0
    assert summary(reports)["not_held"] == []


@pytest.mark.parametrize("name", ["last-root", "last-offset"])
def test_lie__that_calldata_does_not_bear__is_refused_by_l1_and_told_so(name: str) -> None:
    report = tell(name)
    assert report.refused_by_l1 == LIES[name].refusal
    assert report.held
    assert not report.caught
    assert summary([report])["refused_by_l1"] == {name: LIES[name].refusal}


def test_lies__told_in_receipts__cost_the_bond_of_who_has_signed_them() -> None:
    """One of each misdeed, and a trade after a receipted cancel: found by whoever has the receipt and L1."""
    names = (
        *(
            "receipt-equivocation",
            "receipt-gap",
            "receipt-no-header",
            "receipt-withheld",
            "receipt-reordered",
        ),
        *("receipt-cancel", "receipt-state", "receipt-trade"),
    )
    reports = list(tell_all(names))
    assert {RECEIPT_LIES[name].misdeed for name in names} == set(MISDEEDS)
    for one in reports:
        assert one.fault is not None, one.lie
        assert one.fault["misdeed"] == RECEIPT_LIES[one.lie].misdeed
        assert (one.caught, one.slashed, one.held) == (True,) * 3, one
    gas = {one.lie: one.challenge_gas for one in reports}
    assert gas["receipt-equivocation"] <= 150_000
    assert gas["receipt-withheld"] <= 400_000
    assert max(gas.values()) < 8_000_000


def test_demo__all_lies__are_one_object_and_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(LIES) - {"minted-cash", "header-time", "last-root"}:
        monkeypatch.delitem(LIES, name)
    for name in set(RECEIPT_LIES) - {"receipt-price"}:
        monkeypatch.delitem(RECEIPT_LIES, name)
    target = tmp_path / "lies.json"
    result = CliRunner().invoke(main, ["demo", "--lie", "all", "--json", str(target)])
    assert result.exit_code == 0, result.output
    told = json.loads(target.read_text())
    assert (told["lies"], told["challenged"], told["not_held"]) == (4, 3, [])
    assert list(told["refused_by_l1"]) == ["last-root"]
    assert [one["lie"] for one in told["reports"]] == [*LIES, *RECEIPT_LIES]
    assert all(one["rolled_back"] for one in told["reports"][:2])

    honest = Lie("not a lie", "take", Kind.PLACE, lambda scene: scene.apply())
    monkeypatch.setitem(LIES, "header-time", honest)
    result = CliRunner().invoke(main, ["demo", "--lie", "all"])
    assert result.exit_code == 1
    assert "not caught and rolled back: header-time" in result.output


def test_demo__lie_list__is_one_name_a_line() -> None:
    result = CliRunner().invoke(main, ["demo", "--lie", "list"])
    assert result.exit_code == 0
    assert result.output.split("\n")[:-1] == [*LIES, *RECEIPT_LIES]
    assert (len(LIES) >= 25, len(RECEIPT_LIES) >= 10) == (True, True)


def test_demo__an_unknown_lie__is_an_error_of_one_line() -> None:
    result = CliRunner().invoke(main, ["demo", "--lie", "nothing-of-the-kind"])
    assert result.exit_code == 1
    assert "no lie 'nothing-of-the-kind'" in result.output


def test_demo__a_lie__is_told_as_json(tmp_path: Path) -> None:
    target = tmp_path / "lie.json"
    result = CliRunner().invoke(main, ["demo", "--lie", "header-time", "--json", str(target)])
    assert result.exit_code == 0, result.output
    report = json.loads(target.read_text())
    assert report["lie"] == "header-time"
    assert report["fault"]["kind"] == "time"
    assert report["caught"] is report["slashed"] is True
    assert report["challenge_gas"] > 0
    assert report["honest_records_kept"] > 0
