"""PARAMS: words and bounds."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import reports
from sequencer.protocol.params import INTEGER_FIELDS, UNDERLYING_FIELDS, Params, UnderlyingParams

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import address, examples, params


def test_words__of_the_defaults__hold_each_field_in_its_place() -> None:
    one = params(maker_fee_ppm=17)
    data = one.words()
    flat = 5 + -(-len(INTEGER_FIELDS) // 8)
    assert len(data) == 32 * (flat + 2)
    assert data[:32] == bytes(12) + address("feed 0")
    for place, name in enumerate(INTEGER_FIELDS):
        word = int.from_bytes(data[32 * (5 + place // 8) : 32 * (6 + place // 8)], "big")
        assert word >> 32 * (place % 8) & c.U32_MAX == getattr(one, name)
    for number, own in enumerate(one.underlyings):
        word = int.from_bytes(data[32 * (flat + number) : 32 * (flat + number + 1)], "big")
        for place, name in enumerate(UNDERLYING_FIELDS):
            assert word >> 32 * place & c.U32_MAX == getattr(own, name)


@settings(max_examples=examples(100))
@given(st.data())
def test_from_words__is_the_inverse(data: st.DataObject) -> None:
    free = [
        name for name in INTEGER_FIELDS if not name.endswith(("_ppm", "quorum")) and name[:7] != "auction"
    ]
    changes = {
        name: data.draw(st.integers(1, c.U32_MAX))
        for name in data.draw(st.lists(st.sampled_from(free), unique=True, max_size=8))
        if name not in ("congested_excess", "restricted_excess")
    }
    keys = data.draw(st.lists(st.binary(min_size=20, max_size=20).filter(any), max_size=5, unique=True))
    own = st.builds(UnderlyingParams, *(st.integers(1, 900_000) for _ in UNDERLYING_FIELDS))
    one = Params(feed_keys=tuple(keys), underlyings=(data.draw(own), data.draw(own)), **changes)
    assert Params.from_words(one.words()) == one


@pytest.mark.parametrize(
    "changes",
    [
        {"maintenance_ppm": 0}, {"maintenance_ppm": 1_000_000}, {"auction_fraction_max": 0},
        {"auction_fraction_max": 257}, {"strike_ratio_max": 0}, {"fee_cap_ppm": 1_000_001},
        {"fund_share_ppm": 1_000_001}, {"fee_doubling_excess": 0}, {"restricted_excess": 19_999},
        {"breaker_halt_ppm": 79_999}, {"auction_duration_s": 0}, {"short_gross_ppm": 1_000_001},
        {"auction_discount_max_ppm": 4_000_001}, {"liquidation_fee_ppm": 1_000_001}, {"vol_reference_s": 0},
        {"vol_power_ppm": 1_000_001}, {"underlyings": ()},
        {"feed_age_max_s": -1}, {"risk_age_max_s": 2**32}, {"feed_quorum": 1}, {"feed_quorum": 4},
        {"forward_range_ppm": 1_000_000},
    ],
)  # fmt: skip
def test_params__out_of_a_bound__name_the_field(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(params(), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"price_range_ppm": 900_001},
        {"vol_up_ppm": 1_000_001},
        {"short_floor_ppm": 1_000_001},
        {"vol_down_ppm": -1},
        {"strike_step_min_ticks": 0},
        {"strike_step_ppm": 2**32},
    ],
)
def test_params__of_an_underlying_out_of_a_bound__name_it_and_the_field(changes: dict[str, int]) -> None:
    one = params()
    with pytest.raises(ValueError, match=rf"underlyings\[1\].*{next(iter(changes))}"):
        replace(one, underlyings=(one.underlyings[0], replace(one.underlyings[1], **changes)))


def test_params__of_an_underlying_beyond_the_last__are_the_lasts() -> None:
    one = params()
    assert one.of(0) == one.underlyings[0] != one.of(1) == one.of(15)


def test_params__with_six_feeds_or_short_addresses__are_refused() -> None:
    with pytest.raises(ValueError, match="feed_keys"):
        Params(feed_keys=(bytes(20),) * 6)
    with pytest.raises(ValueError, match="feed_keys"):
        Params(feed_keys=(bytes(19),))


def test_params__with_one_address_for_two_feeds_or_none__are_refused() -> None:
    """A majority of the feeds must be one of people."""
    for keys in ((address("feed 0"), address("feed 1"), address("feed 0")), (address("feed 0"), bytes(20))):
        with pytest.raises(ValueError, match="feed_keys"):
            Params(feed_keys=keys)


def test_quorum__is_the_majority_of_the_feeds_or_what_params_say() -> None:
    keys = tuple(address(f"feed {i}") for i in range(5))
    assert [reports.quorum(Params(feed_keys=keys[:n])) for n in range(6)] == [1, 1, 2, 2, 3, 3]
    assert [reports.quorum(Params(feed_keys=keys, feed_quorum=n)) for n in (3, 4, 5)] == [3, 4, 5]
    for wrong in (1, 2, 6):
        with pytest.raises(ValueError, match="feed_quorum"):
            Params(feed_keys=keys, feed_quorum=wrong)


def test_from_words__of_a_wrong_length_or_value__is_a_value_error() -> None:
    data = params().words()
    with pytest.raises(ValueError, match="words expected"):
        Params.from_words(data[:-32])
    with pytest.raises(ValueError, match="strike_ratio_max"):
        Params.from_words(data[:160] + bytes(len(data) - 160))
