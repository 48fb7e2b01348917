"""SIGKILL under load: a short run of `python -m tests.simulation.kill`, which runs long."""

import asyncio
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.simulation.faulty_node import POINTS
from tests.simulation.kill import Report, simulate

KILLS, KILLS_LONG = 8, 200
# the points that a kill at a random moment hits least
POINTS_SHORT = (
    "after the log's append, before the ack",
    "after a batch is stored, before it is sent",
    "inside a snapshot",
    "while ticks are packed",
    "transaction manager: after sending",
)


def run(kills: int, points: list[str], seed: int, folder: Path) -> Report:
    report = asyncio.run(simulate(kills, points, seed, folder))
    assert not report.failures, asdict(report)
    return report


@pytest.mark.fuzz
@pytest.mark.timeout(1_200)
def test_sigkill_at_random_moments__loses_nothing_and_does_nothing_twice(
    tmp_path: Path, is_long: bool
) -> None:
    seed = random.randrange(2**32) if is_long else 7
    kills = KILLS_LONG if is_long else KILLS
    report = run(kills, list(POINTS if is_long else POINTS_SHORT), seed, tmp_path)
    assert report.kills == kills + report.kills_at_points
    assert report.kills_of_l1_processes > 0
    assert (
        report.lost
        == report.executed_twice
        == report.batches_posted_twice
        == report.refused_and_executed
        == 0
    )
    assert report.roots_equal
    assert report.histories_compared > kills // 2
    assert report.history_orders > kills
    assert report.acked > kills
    assert report.sent_again_and_executed_before > 0
    assert report.repeats_compared > kills
    assert report.withdrawals_proven == report.withdrawals > 0
    assert report.batches > 0
