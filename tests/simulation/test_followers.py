"""Who follows L1 believes what L1 says now, not what it said once, and condemns what the watcher condemns."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.l1.batch import Batch
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_demo import bent, chained
from sequencer.local.lie_stage import LATE_S, Stage, stage
from sequencer.local.lies import LIES
from sequencer.market.tape import open_tape
from sequencer.node.standby import Standby, StandbyConfig
from sequencer.proof.archive import Archive


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Stage, list[Batch]]]:
    with stage("pyevm", open_tape(None, 1)) as on:
        yield on, on.perform(None)[1]


@pytest.fixture
def on(built: tuple[Stage, list[Batch]]) -> Iterator[Stage]:
    """The chain as it was before any batch."""
    before = built[0].chain.snapshot()
    yield built[0]
    built[0].chain.revert(before)


@pytest.fixture
def made(built: tuple[Stage, list[Batch]]) -> list[Batch]:
    return built[1]


def standby_on(on: Stage, folder: Path, confirmations: int = 1) -> Standby:
    config = StandbyConfig(folder, on.params, on.at, confirmations)
    return Standby(config, on.chain.rpc, devnet_signer(1))


def at_batch(standby: Standby) -> int:
    return standby.batcher.cursor.batch_id - 1


def test_standby__after_a_reorganisation__sees_batches_mined_below_the_block_it_had_read_to(
    on: Stage, made: list[Batch], tmp_path: Path
) -> None:
    standby = standby_on(on, tmp_path)
    on.post(made[:1])
    before = on.chain.snapshot()
    on.chain.mine(40)
    standby.step()
    assert at_batch(standby) == 1
    on.chain.revert(before)
    on.post(made[1:3])  # on the other branch, in blocks that the standby has read of the first
    on.chain.mine(60)
    standby.step()
    assert at_batch(standby) == 3
    assert standby.state.root() == made[2].post_root
    on.post(made[3:])
    standby.step()
    assert at_batch(standby) == len(made)
    standby.close()


def test_standby__whose_wrong_batch_l1_has_replaced__goes_on_with_the_one_that_is_there(
    on: Stage, made: list[Batch], tmp_path: Path
) -> None:
    standby = standby_on(on, tmp_path)
    on.post(made[:1])
    before = on.chain.snapshot()
    on.chain.mine(40)
    lie = LIES["header-time"]
    assert lie.of is not None
    on.post([lie.of(made[1])])
    standby.step()
    standby.step()
    assert standby.message.startswith("batch 2 is wrong (time)")
    assert at_batch(standby) == 1
    on.chain.revert(before)
    standby.step()
    assert standby.message.startswith("following, at batch 1")
    on.post(made[1:3])
    on.chain.mine(60)
    standby.step()
    assert standby.message.startswith("following, at batch 3")
    assert standby.state.root() == made[2].post_root
    standby.close()


def test_standby__whose_right_batch_l1_has_replaced_by_another__takes_that_in_its_place(
    on: Stage, made: list[Batch], tmp_path: Path
) -> None:
    standby = standby_on(on, tmp_path)
    on.post(made[:1])
    before = on.chain.snapshot()
    on.post(made[1:3])
    standby.step()
    assert at_batch(standby) == 3
    on.chain.revert(before)
    on.chain.mine(5)
    lie = LIES["header-work"]
    assert lie.of is not None
    on.post([lie.of(made[1])])
    on.chain.mine(60)
    standby.step()
    standby.step()
    assert at_batch(standby) == 1
    assert "batch 2 is wrong (work)" in standby.message  # the root is the same, the header is not
    standby.close()


@pytest.mark.parametrize(
    "name", ["segment-overweight", "empty-segment", "header-records", "deposit-dropped", "message-late"]
)
def test_batch__that_the_watcher_condemns__is_condemned_by_standby_and_replay(
    on: Stage, tmp_path: Path, name: str
) -> None:
    """Before, a standby and `replay` took the one that is too heavy and the one that is late."""
    lie = LIES[name]
    on.post(bent(on.perform(lie)[1], lie), LATE_S if lie.is_late else None)
    watcher = on.watcher(None, str(tmp_path / "watcher"))
    watcher.step()
    watcher.close()
    fault = watcher.fault
    assert fault is not None
    assert fault.kind is lie.fault

    standby = standby_on(on, tmp_path / "standby")
    standby.step()
    standby.step()
    assert standby.message == f"batch {fault.batch_id} is wrong ({fault.kind}): waiting for its roll-back"
    assert at_batch(standby) == fault.batch_id - 1
    assert standby.state.root() == watcher.state.root()
    standby.close()

    on.at.save(tmp_path / "deployment.json")
    arguments = ["replay", "--l1", on.chain.url, "--deployment", str(tmp_path / "deployment.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"batch {fault.batch_id}, segment {fault.segment}, {fault.kind}: " in result.output.replace(
        "\n", " "
    )


def test_standby__with_an_answer_of_another_root__cuts_off_what_it_had(
    on: Stage, made: list[Batch], tmp_path: Path
) -> None:
    standby = standby_on(on, tmp_path)
    on.post(made[:1])
    before = on.chain.snapshot()
    on.post(made[1:3])
    standby.step()
    on.chain.revert(before)
    lie = LIES["post-root-tail"]
    assert lie.of is not None
    on.post(chained([replace(made[0]), lie.of(made[1])])[1:])
    on.chain.mine(60)
    standby.step()
    standby.step()
    assert at_batch(standby) == 1
    assert "batch 2 is wrong (post_root)" in standby.message
    standby.close()


# ------------------------------------------------------------------------------------- the watcher's archive


def flip(folder: Path, column: str, number: int, table: str = "journal") -> None:
    """Changes one bit of a value in the archive, beside the watcher."""
    db = sqlite3.connect(folder / "archive.sqlite")
    (value,) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (number,)).fetchone()
    changed: object = value ^ 1 if isinstance(value, int) else value
    if isinstance(value, str):
        changed = value[:-1] + chr(ord(value[-1]) ^ 1)
    elif isinstance(value, bytes):
        changed = (
            value[:-40] + bytes([value[-40] ^ 1]) + value[-39:] if len(value) > 40 else bytes([value[0] ^ 1])
        )
    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, number))
    db.commit()
    db.close()


JOURNAL = (
    "batch_id",
    "is_rollback",
    "block_number",
    "block_hash",
    "post_root",
    "inbox_count",
    "segments",
    "body",
)


@pytest.mark.parametrize("column", [*JOURNAL, "log_index"])
def test_archive__with_a_changed_bit__is_read_from_l1_again_and_nobody_is_called_wrong(
    on: Stage, made: list[Batch], tmp_path: Path, column: str
) -> None:
    """Before, the watcher called a right batch wrong, or ended with an exception."""
    folder = tmp_path / "watcher"
    on.post(made)
    first = on.watcher(None, str(folder))
    first.step()
    first.close()
    for path in (folder / "snapshots").iterdir():  # so that all is executed again
        path.unlink()
    flip(folder, column, 2)
    if column == "body":
        flip(folder, column, 3)
    again = on.watcher(None, str(folder))
    assert again.look()
    again.close()
    assert (again.batches, again.fault) == (len(made), None)
    assert again.state.root() == made[-1].post_root
    assert "damaged: read from L1 again" in again.alarms[0].what
    assert not Archive(folder / "archive.sqlite").damaged


def test_archive__that_changes_while_it_is_in_use__is_read_from_l1_again(
    on: Stage, made: list[Batch], tmp_path: Path
) -> None:
    folder = tmp_path / "watcher"
    on.post(made[:3])
    watcher = on.watcher(None, str(folder))
    watcher.step()
    before = on.chain.snapshot()
    on.post(made[3:])
    watcher.step()
    flip(folder, "body", 2)
    on.chain.revert(before)  # takes the state back, through the row that has changed
    on.chain.mine(60)
    assert not watcher.look()
    assert "archive.sqlite: batch 2 is not what was written" in watcher.error
    assert watcher.look()
    watcher.close()
    assert (watcher.batches, watcher.fault) == (3, None)


@pytest.mark.parametrize(
    ("name", "column"), [("cursor_number", "value"), ("cursor_hash", "value"), ("deployment", "value")]
)
def test_archive__whose_few_values_have_a_changed_bit__goes_on_from_its_last_row(
    on: Stage, made: list[Batch], tmp_path: Path, name: str, column: str
) -> None:
    folder = tmp_path / "watcher"
    on.post(made[:2])
    first = on.watcher(None, str(folder))
    first.step()
    first.close()
    with sqlite3.connect(folder / "archive.sqlite") as db:
        (row,) = db.execute("SELECT rowid FROM about WHERE name = ?", (name,)).fetchone()
    db.close()
    flip(folder, column, row, "about")
    on.post(made[2:])
    again = on.watcher(None, str(folder))
    assert again.look()
    again.close()
    assert (again.batches, again.fault) == (len(made), None)
