"""Damaged files of the log and the batch store: a short run of `python -m tests.simulation.damage`, which runs long."""

from dataclasses import asdict
from pathlib import Path

import pytest

from tests.simulation.damage import simulate

DAMAGES, DAMAGES_LONG = 60, 400


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_damage_at_random_places__is_found_and_named_or_repaired_and_never_executed(
    tmp_path: Path, is_long: bool
) -> None:
    count = DAMAGES_LONG if is_long else DAMAGES
    report = simulate(count, 7, tmp_path)
    assert (report.executed, report.unnamed, report.failures) == (0, 0, []), asdict(report)
    assert report.flips + report.truncations == count
    assert report.found_at_start + report.found_at_read + report.healed + report.harmless == count
    assert min(report.found_at_start, report.found_at_read, report.healed) > 0, asdict(report)
    assert report.records > 400
