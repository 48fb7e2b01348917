"""The implied volatility gives its price back, as near as a variance can."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequencer.market.implied import implied_variance_e12, volatility
from sequencer.market.quant import total_variance_e12
from sequencer.protocol.black76 import W_MAX, intrinsic, price_e10


@given(
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**31 - 1),
    st.booleans(),
    st.integers(1, W_MAX),
    st.integers(1, 2**32 - 1),
)
def test_variance__found_for_a_price__has_the_nearest_price_there_is(
    forward: int, strike: int, is_put: bool, variance: int, seconds: int
) -> None:
    target = price_e10(forward, strike, is_put, variance)
    if target <= intrinsic(forward, strike, is_put) * 10**8:
        with pytest.raises(ValueError, match="above the intrinsic value"):
            implied_variance_e12(target, forward, strike, is_put)
        return
    found = implied_variance_e12(target, forward, strike, is_put)
    assert price_e10(forward, strike, is_put, found) == target
    assert found <= variance
    iv = volatility(found, seconds)
    if iv <= 1_000 and iv >= Decimal("1e-6"):
        assert abs(total_variance_e12(iv, seconds) - found) <= 1


def test_price__that_no_variance_gives__is_refused_with_its_bounds() -> None:
    with pytest.raises(ValueError, match=r"above the intrinsic value 100\.0000000000 and at most 9"):
        implied_variance_e12(10**13, 100_000, 90_000, False)
