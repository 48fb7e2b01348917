"""A lying leader posts more work than a watcher can do: six blobs of RISK, the dearest record, in one slot of L1.

Before: Rollup took them, slot after slot; one batch cost a watcher 42 s of a quiet core, 3.5 slots. Now it takes what
costs at most two thirds of half a slot by the table (1.6 s of a quiet core as measured: benchmarks/watcher.py).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import boa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from contract_support import Batch, deploy_exchange, reverts
from exchange import FAR, INDEX, Exchange

from sequencer.l1.blobs import BLOB_ELEMENTS, BLOBS_MAX
from sequencer.l1.deploy import DeployConfig
from sequencer.protocol import codec, work
from sequencer.protocol.batch import OFFSETS_PER_ELEMENT
from sequencer.protocol.constants import Kind, Reason

SLOT_S = work.SLOT_S
PER_RISK = 2 + 1 / OFFSETS_PER_ELEMENT  # elements: the record, its root, its part of the offsets


@pytest.fixture(scope="module")
def risk_units() -> int:
    """What a RISK of a full page counts in GLOBAL."""
    exchange = Exchange(audits=False)
    exchange.open(*((FAR, INDEX + 50_000 * step, 0) for step in range(-16, 16)))
    raw = codec.encode(Kind.RISK, underlying=0, day=FAR, page=0)
    exchange.tick(1)
    before = exchange.state.globals.work
    assert exchange.apply(raw).reason is Reason.OK
    return exchange.state.globals.work - before


class Leader:
    """Posts batches that say truly what they cost; what the records are Rollup does not ask."""

    def __init__(self) -> None:
        config = DeployConfig(b"", "", 0, 0)
        self.address = boa.env.generate_address("leader")
        boa.env.set_balance(self.address, 10**18)
        self.exchange = deploy_exchange(self.address, work_per_s=config.work_per_s, work_max=config.work_max)

    @property
    def left(self) -> int:
        """Units that are in the budget."""
        return int(self.exchange.rollup.budget()[0])

    def post(self, units: int) -> None:
        rollup = self.exchange.rollup
        number, before = rollup.next_batch(), rollup.budget()[2]
        batch = Batch(number, number.to_bytes(32, "big"), first_seq=rollup.tip()[0], work=before + units)
        rollup.post(*batch.upon(rollup, self.exchange.inbox).arguments(), sender=self.address)


@pytest.fixture
def leader() -> Iterator[Leader]:
    with boa.env.anchor():
        yield Leader()


@pytest.mark.parametrize("elements", [3_936, BLOB_ELEMENTS * BLOBS_MAX], ids=["calldata", "six blobs"])
def test_batch__of_risk_alone__is_more_than_a_slot_takes(
    leader: Leader, risk_units: int, elements: int
) -> None:
    with reverts("rollup: work"):
        leader.post(int(elements / PER_RISK - 1) * risk_units)


def test_slot__takes_what_a_watcher_does_in_half_of_it__and_so_does_each_after_it(
    leader: Leader, risk_units: int
) -> None:
    """However the leader cuts its batches, and whatever it has saved up by waiting."""
    for waited_s, count in ((0, 1), (SLOT_S, 3), (SLOT_S, 7), (3_600, 2)):
        boa.env.time_travel(seconds=waited_s)
        spent = 0
        for _ in range(count):
            leader.post(units := risk_units * 100 // count)
            spent += units + work.BATCH
        with reverts("rollup: work"):
            leader.post(work.SLOT_MAX)
        leader.post(room := leader.left - work.BATCH)
        spent += room + work.BATCH
        assert spent * work.UNIT_US <= SLOT_S * 1_000_000 // 2
        with reverts("rollup: work"):
            leader.post(0)
