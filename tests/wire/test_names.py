"""Names of instruments: what traders write, and the number that the state knows."""

import pytest

from sequencer.market.tape import parse_instrument
from sequencer.protocol.entries import Page
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.wire import names

DAY = 18_994  # 2022-01-02


@pytest.fixture
def state() -> State:
    """Two listed options: the second is the second row of its page."""
    state = State(bytes(32), Params(), (0, 1))
    page = state.pages[1 << 23 | DAY << 7] = Page()
    for row, (strike, is_put) in enumerate([(300_000, False), (310_050, True)]):
        page.terms.append(is_put << 31 | strike)
        page.rows.append((0, (0,) * 16))
        state.put_instrument(1 << 48 | DAY << 32 | is_put << 31 | strike, 1 << 28 | DAY << 12 | row)
    return state


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ((0, 18_994, 4_800_000, False), "BTC-2JAN22-48000-C"),
        ((1, 19_082, 310_050, True), "ETH-31MAR22-3100d50-P"),
        ((0, 0, 5, False), "BTC-1JAN70-0d05-C"),
        ((0, 19_782, 2**31 - 1, True), "BTC-29FEB24-21474836d47-P"),
    ],
)
def test_terms_name__any_terms__is_the_venues_name_and_reads_back(terms, name):
    assert names.terms_name(*terms) == name
    if terms[1] > 10_000:  # two digits of the year are those of this century
        read = parse_instrument(name)
        assert (read.underlying, read.day, read.strike_ticks, read.is_put) == terms


def test_instrument_name__listed__is_made_of_its_terms(state):
    first = 1 << 28 | DAY << 12
    assert names.instrument_name(state, first) == "ETH-2JAN22-3000-C"
    assert names.instrument_name(state, first + 1) == "ETH-2JAN22-3100d50-P"
    assert names.instrument_terms(state, first + 1) == (1, DAY, 310_050, True)


@pytest.mark.parametrize(
    "number", [1 << 28 | DAY << 12 | 2, 1 << 28 | DAY << 12 | 32, DAY << 12, 0, 2**32 - 1]
)
def test_instrument_name__not_listed__raises_key_error(state, number):
    with pytest.raises(KeyError):
        names.instrument_name(state, number)


def test_find_instrument__by_terms__is_the_number_or_none(state):
    assert names.find_instrument(state, 1, DAY, 310_050, True) == 1 << 28 | DAY << 12 | 1
    assert names.find_instrument(state, 1, DAY, 310_050, False) is None
    assert names.find_instrument(state, 0, DAY, 310_050, True) is None
