"""A running exchange for each of these tests: before the stand-in, or before the sequencer's own service too."""

import sys
from pathlib import Path

import pytest

# By its path, because an installed package may own the name `tests`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from exchange_fixture import Exchange, RealService, StandIn


@pytest.fixture(params=[StandIn, RealService], ids=["stand_in", "service"])
def exchange(request):
    with Exchange(request.param) as running:
        yield running


@pytest.fixture
def stand_in():
    with Exchange() as running:
        yield running
