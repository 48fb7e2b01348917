"""A short run of the cluster's simulation: nothing that was receipted is lost, whatever ends or stands still."""

from pathlib import Path

import pytest

from tests.simulation.cluster import simulate


@pytest.mark.timeout(280)
def test_cluster__three_faults__keeps_every_receipt_and_signs_within_seconds() -> None:
    report, folder = simulate(seed=1, faults=3)
    assert report.is_good, (report, folder)
    assert not Path(folder).exists()
    assert report.receipts > 100
    assert report.repeats > 10
    assert report.terms >= 2
