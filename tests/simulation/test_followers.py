"""Who follows L1 believes what L1 says now, not what it said once, and condemns what the watcher condemns."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sequencer.batcher import Batch
from sequencer.cli import main
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_demo import LATE_S, Stage, bent, chained, stage
from sequencer.local.lies import LIES
from sequencer.market.tape import open_tape
from sequencer.standby import Standby, StandbyConfig


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
