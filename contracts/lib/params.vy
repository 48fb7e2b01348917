# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Fields of PARAMS
@license MIT
@notice Twin of `sequencer/protocol/params.py`, which has their units and bounds. Field i of the integers stands at word
        FEEDS_MAX + i // 8 of the leaf, bits 32 * (i % 8); field i of an underlying at bits 32 * i of its word.
@custom:security The bounds hold from genesis: divisors among them are not zero.
@custom:kill Nothing: it holds no state and no privilege.
"""

FEED_AGE_MAX_S: constant(uint256) = 0
RISK_AGE_MAX_S: constant(uint256) = 1
STRIKE_RATIO_MAX: constant(uint256) = 2
LISTING_DAYS_MAX: constant(uint256) = 3
MAKER_FEE_PPM: constant(uint256) = 4
TAKER_FEE_PPM: constant(uint256) = 5
FEE_CAP_PPM: constant(uint256) = 6
FUND_SHARE_PPM: constant(uint256) = 7
TREASURY_ACCOUNT: constant(uint256) = 8
SEQUENCING_FEE_MIN: constant(uint256) = 9
TARGET_PER_S: constant(uint256) = 10
CONGESTED_EXCESS: constant(uint256) = 11
RESTRICTED_EXCESS: constant(uint256) = 12
FEE_DOUBLING_EXCESS: constant(uint256) = 13
BREAKER_WINDOW_S: constant(uint256) = 14
BREAKER_RESTRICT_PPM: constant(uint256) = 15
BREAKER_HALT_PPM: constant(uint256) = 16
BREAKER_COOL_S: constant(uint256) = 17
MAINTENANCE_PPM: constant(uint256) = 18
AUCTION_DURATION_S: constant(uint256) = 19
AUCTION_DISCOUNT_MAX_PPM: constant(uint256) = 20
AUCTION_FRACTION_MAX: constant(uint256) = 21
LIQUIDATION_FEE_PPM: constant(uint256) = 22
ORDER_HOLD: constant(uint256) = 23
FEED_QUORUM: constant(uint256) = 24
SURFACE_AGE_MAX_S: constant(uint256) = 25
FORWARD_RANGE_PPM: constant(uint256) = 26
FEED_SPREAD_MAX_PPM: constant(uint256) = 27
VARIANCE_SPREAD_MAX_PPM: constant(uint256) = 28
MARK_SPREAD_MAX_PPM: constant(uint256) = 29
HORIZON_S: constant(uint256) = 30
VOL_REFERENCE_S: constant(uint256) = 31
VOL_POWER_PPM: constant(uint256) = 32
SHORT_GROSS_PPM: constant(uint256) = 33
MARK_MOVE_MAX_PPM: constant(uint256) = 34
MARK_SKEW_MAX_S: constant(uint256) = 35

# of an underlying
PRICE_RANGE_PPM: constant(uint256) = 0
EXTREME_RANGE_PPM: constant(uint256) = 1
EXTREME_WEIGHT_PPM: constant(uint256) = 2
VOL_UP_PPM: constant(uint256) = 3
VOL_DOWN_PPM: constant(uint256) = 4
SHORT_FLOOR_PPM: constant(uint256) = 5
STRIKE_STEP_PPM: constant(uint256) = 6
STRIKE_STEP_MIN_TICKS: constant(uint256) = 7

FEED_KEYS_WORDS: constant(uint256) = 5
FIRST_UNDERLYING: constant(uint256) = 10  # word of PARAMS
UNDERLYINGS: constant(uint256) = 2
PARAMS_WORDS: constant(uint256) = 12


@internal
@pure
def _of(word: uint256, index: uint256) -> uint256:
    """
    @notice A field of an underlying's word.
    """
    return (word >> (index << 5)) & (2**32 - 1)
