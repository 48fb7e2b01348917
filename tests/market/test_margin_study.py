"""The study of `benchmarks/margin.py`, in small: margin beside the worst of a fine grid, and beside a venue's chain."""

import importlib.util
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORTFOLIOS = 300


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("margin_study", ROOT / "benchmarks" / "margin.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [1, 2])
def test_im__of_ten_kinds_of_portfolio__is_the_worst_and_not_much_more(
    study: Any, seed: int, is_long: bool
) -> None:
    found = study.synthetic(PORTFOLIOS * (20 if is_long else 1), seed)
    assert min(found.all) >= 0.95
    assert median(found.all) <= 1.25
    assert found.surplus <= 0.005
    assert len([kind for kind in study.STRUCTURES if found.ratios[kind]]) >= 9  # a box has nothing to lose


def test_grid__finds_what_a_straddle_between_two_moves_loses(study: Any) -> None:
    """So that the study is no mirror of the rule: six hours before expiry the whole premium goes at the strike."""
    legs = [study.Leg(0, 50_000.0, 49_000.0, put, 21_600, 0.3, 1) for put in (False, True)]
    premium = sum(
        float(study.priced(one.forward, one.strike, one.is_put, one.seconds, one.iv)) for one in legs
    )
    assert study.worst_of(legs) == pytest.approx(premium, rel=0.01)
    assert study.worst_of(legs[:1]) == pytest.approx(premium - float(
        study.priced(50_000.0, 49_000.0, True, 21_600, 0.3)), rel=0.01)  # fmt: skip


@pytest.mark.tape
def test_portfolios_of_a_recorded_chain__lose_more_than_im_or_mm_as_rarely_as_promised(
    study: Any, data_dir: Path, is_long: bool
) -> None:
    pytest.importorskip("pyarrow.parquet", reason="pyarrow does not import here", exc_type=ImportError)
    chain = study.snapshots(data_dir / "deribit-chain-6h")
    assert len(list(study.pairs(chain))) > 20
    found = study.recorded(chain, 2_000 * (10 if is_long else 1), 1)
    every = sum(found.counts.values())
    assert every > 1_500
    assert sum(found.beyond_im.values()) <= 0.002 * every
    assert sum(found.beyond_mm.values()) <= 0.005 * every
    assert found.surplus <= 0.005
