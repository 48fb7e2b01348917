"""Records executed again after a roll-back, on the stores of a folder: every one in its place, whatever the crash."""

import shutil
from pathlib import Path

import pytest
from msgspec import structs

from sequencer.engine.engine import Engine, ReplayError
from sequencer.engine.snapshots import recover, save
from sequencer.log.interface import LogLost, Redone
from sequencer.log.sqlite import SqliteLog
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.rollup.batcher import Batcher
from sequencer.rollup.rollback import HOLE, Recovery, Reexecution, Report, WrongRollBack
from sequencer.rollup.withdrawals import Withdrawals
from tests.simulation.liar import LIAR, OVERDRAWN, LyingEngine, event
from tests.simulation.little import Little, deposit, genesis
from tests.simulation.world import CASH, MID

STEPS = (
    "executed again",
    "log rewritten",
    "batches forgotten",
    "proofs forgotten",
    "snapshots discarded",
    "done",
)


class Crash(Exception):
    pass


class Stores:
    """The stores of a folder, as the service opens them."""

    def __init__(self, folder: Path) -> None:
        self.snapshots = folder / "snapshots"
        self.log = SqliteLog(folder / "log.sqlite")
        self.batcher = Batcher(folder / "batches.sqlite", self.log, genesis().root())
        self.withdrawals = Withdrawals(folder / "withdrawals.sqlite")
        self.recovery = Recovery(self.snapshots, self.log, self.batcher, self.withdrawals)
        self.open = (self.log, self.batcher, self.withdrawals)

    def close(self) -> None:
        for one in self.open:
            one.close()

    def raws(self) -> list[bytes]:
        return [raw for entry in self.log.read(0) for raw in entry.raws()]

    def content(self) -> object:
        """All that is kept, but for the evidence."""
        state, _ = recover(self.snapshots / "none", self.log, genesis())
        proofs = self.withdrawals._db.execute("SELECT * FROM proofs").fetchall()
        batches = self.batcher._db.execute("SELECT * FROM batches").fetchall()
        return list(self.log.read(0)), state.root(), proofs, batches, self.log.head_hash


def lied(folder: Path) -> tuple[Little, list[bytes], int]:
    """Four batches with a lie in the third: (exchange, L1's inbox, number of a withdrawal that rests on it)."""
    little = Little()
    little.engine = LyingEngine(little.state)
    stores = Stores(folder)

    def log() -> None:
        for entry in little.entries[stores.log.end :]:
            stores.log.append(entry, stores.log.end)

    def batch() -> None:
        log()
        built = stores.batcher.build(True)
        assert built is not None
        stores.withdrawals.prove(little.state, built.batch_id, built.post_root)
        save(stores.snapshots, little.state, stores.log.end)

    batch()
    little.run(little.orders(8))
    little.run([little.signed(Kind.WITHDRAW, 0, amount=10**6)])
    batch()
    little.run(little.orders(5))
    little.engine.is_armed = True
    little.run(little.orders(8))
    little.run([], [deposit(1, LIAR, 5 * 10**6)])
    batch()
    overdrawn = little.run([little.signed(Kind.WITHDRAW, LIAR - 1, amount=OVERDRAWN)])
    assert [one.reason for one in overdrawn.results] == [Reason.OK]
    little.run([little.signed(Kind.WITHDRAW, 0, amount=3 * 10**6)])
    little.run(little.orders(8))
    batch()
    little.run(little.orders(4))
    log()
    stores.close()
    inbox = [deposit(number) for number in range(4)] + [deposit(1, LIAR, 5 * 10**6)]
    return little, inbox, overdrawn.results[0].outcomes[0].seq


def test_lie__is_executed_again_with_every_record_in_its_place(tmp_path: Path) -> None:
    _, inbox, overdrawn = lied(tmp_path)
    stores = Stores(tmp_path)
    before, old = stores.raws(), list(stores.log.read(0))
    with pytest.raises(ReplayError):
        recover(tmp_path / "none", stores.log, genesis())
    state, report = stores.recovery.rewrite(genesis(), [event(3)], inbox)
    assert stores.recovery.is_half
    stores.recovery.follow()
    assert stores.raws() == before
    assert (report.epoch, report.inserted, report.replaced) == (1, 0, 0)
    assert [seq for seq, _ in report.refused] == [overdrawn]
    again, _ = recover(tmp_path / "none", stores.log, genesis())
    assert again.root() == state.root()
    g = state.globals
    assert g.pool == sum(account.cash for account in state.accounts.values())
    assert g.pool + g.fund + g.treasury + 4 * 10**6 == 4 * CASH + 5 * 10**6
    assert stores.batcher.cursor.batch_id == 3
    assert (stores.withdrawals.proof(0) or {})["batch_id"] == 2
    assert stores.withdrawals.proof(1) is None
    built = stores.batcher.build(True)
    assert built is not None
    assert (built.batch_id, built.post_root) == (3, state.root())
    void = stores.log.redone(overdrawn)
    assert void is not None
    assert (void.seq, void.place, void.record, void.reason) == (
        *(overdrawn, overdrawn, before[overdrawn]),
        Reason.MARGIN,
    )
    assert stores.log.redone(overdrawn + 1) is None
    last = stores.log.rolled_back()
    assert last is not None
    assert (
        [one for _, one in stores.log.superseded()]
        == old[last.offset :]
        != list(stores.log.read(last.offset))
    )
    assert stores.recovery.fresh([event(3), event(2, "b")]) == [event(2, "b")]
    stores.close()


def answer(stores: Stores, inbox: list[bytes]) -> None:
    stores.recovery.rewrite(genesis(), [event(3)], inbox)
    stores.recovery.follow()


@pytest.mark.parametrize("step", STEPS)
def test_crash__at_any_step__leaves_it_before_or_after(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, inbox, _ = lied(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    straight = Stores(tmp_path / "one")
    answer(straight, inbox)
    old = Stores(tmp_path / "two")
    lying = (list(old.log.read(0)), old.log.head_hash)

    def crash(at: str) -> None:
        if at == step:
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Recovery, "checkpoint", staticmethod(crash))
        with pytest.raises(Crash):
            answer(old, inbox)
    old.close()

    stores = Stores(tmp_path / "two")
    if step == STEPS[0]:
        assert (list(stores.log.read(0)), stores.log.head_hash) == lying
        assert stores.recovery.fresh([event(3)]) == [event(3)]
        stores.recovery.rewrite(genesis(), [event(3)], inbox)
    assert stores.recovery.fresh([event(3)]) == []
    assert stores.recovery.is_half is (step != "done")
    stores.recovery.follow()
    assert not stores.recovery.is_half
    assert stores.content() == straight.content()
    state, _ = recover(stores.snapshots, stores.log, genesis())
    assert state.root() == recover(tmp_path / "none", stores.log, genesis())[0].root()
    straight.close()
    stores.close()


def test_roll_back_of_what_is_right__changes_nothing_and_says_so(tmp_path: Path) -> None:
    _, inbox, _ = lied(tmp_path)
    stores = Stores(tmp_path)
    stores.recovery.rewrite(genesis(), [event(3)], inbox)
    stores.recovery.follow()
    while stores.batcher.build(True) is not None:
        pass
    before = stores.content()
    with pytest.raises(WrongRollBack, match="batch 2 was rolled back, and executing it again gives the same"):
        stores.recovery.rewrite(genesis(), [event(2, "b")], inbox)
    assert stores.content() == before
    assert stores.recovery.epoch == 1
    stores.close()


def test_wrong_header_of_right_records__is_built_again(tmp_path: Path) -> None:
    _, inbox, _ = lied(tmp_path)
    stores = Stores(tmp_path)
    stores.batcher._db.execute("UPDATE batches SET time_s = time_s + 1 WHERE id = 2")
    stores.recovery.rewrite(genesis(), [event(2)], inbox)
    stores.recovery.follow()
    assert stores.batcher.cursor.batch_id == 2
    stores.close()


def test_lie_before_the_batch_that_was_rolled_back__waits_for_its_own(tmp_path: Path) -> None:
    _, inbox, _ = lied(tmp_path)
    shutil.rmtree(tmp_path / "snapshots")  # or the lie would be believed
    stores = Stores(tmp_path)
    before = (list(stores.log.read(0)), stores.log.head_hash)
    with pytest.raises(ReplayError, match="root differs"):
        stores.recovery.rewrite(genesis(), [event(4)], inbox)
    assert (list(stores.log.read(0)), stores.log.head_hash) == before
    stores.recovery.rewrite(genesis(), [event(4), event(3, "b")], inbox)
    assert stores.recovery.fresh([event(4), event(3, "b")]) == []
    stores.close()


def test_other_writer__stops_the_rewriting(tmp_path: Path) -> None:
    little, _, _ = lied(tmp_path)
    stores, other = Stores(tmp_path), SqliteLog(tmp_path / "log.sqlite")
    other.append(little.entries[-1], other.end)
    other.close()
    with pytest.raises(LogLost, match="another writer"):
        stores.log.rewrite(0, [], 1, [])
    stores.close()


def test_altered_and_invented_messages__give_way_to_those_of_l1(tmp_path: Path) -> None:
    little = Little()
    stores = Stores(tmp_path)
    inbox = [deposit(number) for number in range(4)] + [deposit(0, amount=7 * 10**6)]
    little.run([], [deposit(0, amount=9 * 10**6)])  # altered
    little.run([], [deposit(2, amount=10**9)])  # of which L1 knows nothing
    little.run(little.orders(4))
    for entry in little.entries:
        stores.log.append(entry, stores.log.end)
    before = stores.raws()
    state, report = stores.recovery.rewrite(genesis(), [event(1)], inbox)
    assert report.replaced == 2
    wanted = [
        {deposit(0, amount=9 * 10**6): inbox[4], deposit(2, amount=10**9): HOLE}.get(one, one)
        for one in before
    ]
    assert stores.raws() == wanted
    running = bytes(32)
    for raw in inbox:
        running = codec.inbox_hash(running, raw)
    assert (state.globals.inbox_count, state.globals.inbox_hash) == (5, running)
    stores.recovery.follow()
    built = stores.batcher.build(True)
    assert built is not None
    assert built.inbox_count == 5
    stores.close()


class SkippingEngine(Engine):
    """Hides the four best bids from a market sell order, once."""

    is_armed = False

    def _try(self, raw: bytes, signer: bytes | None) -> Outcome:
        if not self.is_armed or raw[0] != Kind.PLACE:
            return super()._try(raw, signer)
        self.is_armed = False
        instrument = int.from_bytes(raw[5:9], "big")
        hidden = []
        for _ in range(4):
            hidden.append(
                next(self.state.crossing(instrument, raw[9] & c.FLAG_SIDE, int.from_bytes(raw[10:14], "big")))
            )
            self.state.remove_order(hidden[-1])
        out = super()._try(raw, signer)
        for one in hidden:
            self.state.insert_order(one)
        return out


def test_order_that_now_meets_more__gets_its_continues_and_nobody_behind_it_is_lost(tmp_path: Path) -> None:
    little = Little()
    little.engine = SkippingEngine(little.state)
    little.run([little.rest(0, c.BUY, 200_000 + number, 1) for number in range(6)])
    little.engine.is_armed = True
    sold = little.run([little.place(1, c.SELL, 199_000, 5, c.TIF_IOC << c.FLAG_TIF_SHIFT)])
    assert len(sold.results[0].outcomes[0].fills) == 2
    little.run([little.rest(2, c.BUY, 150_000 + number, 1) for number in range(4)])
    little.run([little.place(3, c.SELL, 100_000, 4, c.TIF_IOC << c.FLAG_TIF_SHIFT)])  # logged with a CONTINUE
    little.run([little.rest(0, c.SELL, 300_000, 2)])
    stores = Stores(tmp_path)
    for entry in little.entries:
        stores.log.append(entry, stores.log.end)
    state, report = stores.recovery.rewrite(genesis(), [event(1)], [deposit(number) for number in range(4)])
    assert (report.inserted, report.refused) == (1, [])
    behind = [one for one in report.redone if not one.reason]
    assert [(one.seq + 1, one.record) for one in behind] == [
        (one.place, stores.raws()[one.place]) for one in behind
    ]
    # the four bids of account 3, the sale of account 4, which needs its CONTINUE, and the order behind it
    assert [int.from_bytes(one.record[1:5], "big") for one in behind] == [3, 3, 3, 3, 4, 1]
    first = behind[0]
    assert stores.log.redone(first.seq) == first
    assert stores.log.acknowledged_as(first.place) == first.seq
    assert len(report.fills) > 2
    again, _ = recover(tmp_path / "none", stores.log, genesis())
    assert again.root() == state.root()
    assert state.globals.taker is None
    stores.close()


def test_record__changed_by_two_roll_backs__is_found_by_the_number_it_was_acknowledged_with(
    tmp_path: Path,
) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")

    def back(*redone: Redone, first_seq: int = 0) -> None:
        log.rewrite(log.end, [], 1, [], redone, first_seq)

    back(Redone(17, 18, b"a", 0), Redone(18, 19, b"b", Reason.MARGIN), Redone(30, 30, b"c", Reason.MARGIN))
    back(Redone(18, 20, b"a", 0), Redone(19, 21, b"b", 0), first_seq=18)
    assert log.redone(17) == Redone(17, 20, b"a", 0)
    assert log.redone(18) == Redone(18, 21, b"b", 0)
    assert log.redone(30) is None  # it holds again, where it always stood
    assert [log.acknowledged_as(place) for place in (20, 21, 30)] == [17, 18, 30]
    back(Redone(20, 17, b"a", Reason.MARGIN), first_seq=20)
    assert log.redone(17) == Redone(17, 17, b"a", Reason.MARGIN)
    log.close()


def test_message__whose_marks_no_longer_hold__leaves_its_place_and_comes_again() -> None:
    """RISK stood before it in the log and is gone: a batch must not count what GLOBAL does not."""
    little = Little()
    inbox = [deposit(number) for number in range(4)]
    little.run([little.rest(1, c.SELL, MID)])
    little.run([little.place(0, c.BUY, MID)])
    little.now += little.state.params.risk_age_max_s
    message = codec.encode(Kind.FORCED_WITHDRAW, account=1, amount=5)
    state = little.replayed()
    feeds = [raw for raw in little.keeper.pass_one(little.now + 1) if raw[0] in (Kind.FEED, Kind.SURFACE)]
    entry = little.run([], [*feeds, message]).entry
    assert entry is not None
    segments = [
        (root, [HOLE if raw[0] == Kind.RISK else raw for raw in raws], work)
        for root, raws, work in entry.segments
    ]
    report = Report(1)
    again = Reexecution(state, [*inbox, message], report).entry(structs.replace(entry, segments=segments))
    assert message not in again.raws()
    assert report.replaced == 1
    assert state.globals.inbox_count == len(inbox)
    fresh = little.replayed()
    assert fresh.globals.inbox_count == len(inbox) + 1
    raws = list(again.raws())
    assert len(raws) == len(list(entry.raws()))
    assert raws.count(HOLE) == 2
