"""PARAMS: the numbers that govern the transition, fixed at genesis; one leaf of the state.

Words of the leaf: the five feed addresses, one word each; the integer fields in the order below, eight uint32 a word,
field i at word 5 + i // 8, bits 32 x (i % 8); then one word for each underlying, its field i at bits 32 x i.
"""

from dataclasses import dataclass, field, fields
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import risk_array
from sequencer.protocol.risk_array import Shocks

_ABSENT: Final = b"\0" * 20


@dataclass(frozen=True, slots=True)
class UnderlyingParams:
    """What differs from underlying to underlying; every field is a uint32, eight at most."""

    price_range_ppm: int = 150_000
    extreme_range_ppm: int = 450_000
    extreme_weight_ppm: int = 350_000
    vol_up_ppm: int = 300_000
    vol_down_ppm: int = 250_000
    short_floor_ppm: int = 10_000  # of the index, per net short contract of an expiry's side
    strike_step_ppm: int = 12_500  # strikes lie on the round step that is at most this part of theirs
    strike_step_min_ticks: int = 100  # and at least this


BTC: Final = UnderlyingParams()
ETH: Final = UnderlyingParams(price_range_ppm=200_000, extreme_range_ppm=600_000)


@dataclass(frozen=True, slots=True)
class Params:
    """Every field is a uint32 (units last in the name; `_ppm` = 1e-6), except the feeds' addresses (20 bytes) and what
    each underlying has for itself.
    """

    feed_keys: tuple[bytes, ...] = ()  # at most FEEDS_MAX
    # feeds and marks
    feed_age_max_s: int = 180  # an index older than this is not fresh
    risk_age_max_s: int = 3_600  # marks older than this carry no new risk
    # listing
    strike_ratio_max: int = 16  # strikes between index / ratio and index x ratio
    listing_days_max: int = 400
    # fees
    maker_fee_ppm: int = 0  # of the index, per contract
    taker_fee_ppm: int = 300
    fee_cap_ppm: int = 125_000  # of the premium
    fund_share_ppm: int = 500_000  # of trading fees; the rest is the treasury's
    treasury_account: int = 0
    # queue
    sequencing_fee_min: int = 100  # 1e-6 USD
    target_per_s: int = 2_000  # records that place orders
    congested_excess: int = 20_000
    restricted_excess: int = 400_000
    fee_doubling_excess: int = 20_000
    # velocity breaker
    breaker_window_s: int = 300
    breaker_restrict_ppm: int = 80_000
    breaker_halt_ppm: int = 200_000
    breaker_cool_s: int = 120
    # margin
    maintenance_ppm: int = 800_000  # MM as a part of IM
    # liquidation
    auction_duration_s: int = 900
    auction_discount_max_ppm: int = 1_000_000  # of the portfolio's IM
    auction_fraction_max: int = 64  # of 256, a bid on a solvent account while the clock runs
    liquidation_fee_ppm: int = 20_000  # of the IM taken over
    # orders
    order_hold: int = 1_000  # 1e-6 USD of free margin for each order's leaf; what its SWEEP costs its account
    # what the feeds' reports must be to count (reports.py)
    feed_quorum: int = 0  # fresh reports that an index or a mark needs; 0 = the majority of the feeds
    surface_age_max_s: int = 1_800  # a surface older than this does not count
    forward_range_ppm: int = 250_000  # a reported forward is within this part of its index
    feed_spread_max_ppm: int = 5_000  # where feeds are missing: what prices or forwards differ by at most
    variance_spread_max_ppm: int = 200_000  # likewise of the variances of a strike
    mark_spread_max_ppm: int = 1_000  # of the index: or what the prices that they make differ by
    # scenarios
    horizon_s: int = 21_600  # passes in every scenario but the extreme ones
    vol_reference_s: int = (
        2_592_000  # time to expiry at which the volatility shocks are those of the underlying
    )
    vol_power_ppm: int = 300_000  # how fast they shrink with the time to expiry
    short_gross_ppm: int = 100  # of the index, per short contract, whatever stands against it
    # marks that may be lent on (freshness.py)
    mark_move_max_ppm: int = 5_000  # of the index, since they were made
    mark_skew_max_s: int = 60  # between the pages of an account
    # one word for each underlying
    underlyings: tuple[UnderlyingParams, ...] = field(default=(BTC, ETH))

    def __post_init__(self) -> None:
        """Raises ValueError naming the field and the relation that does not hold."""
        if len(self.feed_keys) > c.FEEDS_MAX or any(len(key) != 20 for key in self.feed_keys):
            raise ValueError(f"feed_keys: at most {c.FEEDS_MAX} addresses of 20 bytes")
        if len(set(self.feed_keys)) < len(self.feed_keys) or _ABSENT in self.feed_keys:
            raise ValueError("feed_keys: each feed has an address of its own, which is not 0")
        for name in INTEGER_FIELDS:
            value = getattr(self, name)
            if not 0 <= value <= c.U32_MAX:
                raise ValueError(f"{name} must be an integer from 0 to {c.U32_MAX}")
        if len(self.underlyings) != c.UNDERLYINGS:
            raise ValueError(f"underlyings: {c.UNDERLYINGS} of them")
        for name, held, relation in (
            (
                "feed_quorum",
                self.feed_quorum == 0
                or len(self.feed_keys) < 2 * self.feed_quorum <= 2 * len(self.feed_keys),
                "0 or more than half of the feeds, and no more than there are",
            ),
            ("forward_range_ppm", self.forward_range_ppm < c.PPM, "< 1000000"),
            ("strike_ratio_max", self.strike_ratio_max > 0, "> 0"),
            ("fee_cap_ppm", self.fee_cap_ppm <= c.PPM, "<= 1000000"),
            ("fund_share_ppm", self.fund_share_ppm <= c.PPM, "<= 1000000"),
            ("fee_doubling_excess", self.fee_doubling_excess > 0, "> 0"),
            ("restricted_excess", self.restricted_excess >= self.congested_excess, ">= congested_excess"),
            (
                "breaker_halt_ppm",
                self.breaker_halt_ppm >= self.breaker_restrict_ppm,
                ">= breaker_restrict_ppm",
            ),
            ("maintenance_ppm", 0 < self.maintenance_ppm < c.PPM, "in 1..999999"),
            ("auction_duration_s", self.auction_duration_s > 0, "> 0"),
            ("auction_discount_max_ppm", self.auction_discount_max_ppm <= 4 * c.PPM, "<= 4000000"),
            ("auction_fraction_max", 0 < self.auction_fraction_max <= 256, "in 1..256"),
            ("liquidation_fee_ppm", self.liquidation_fee_ppm <= c.PPM, "<= 1000000"),
            ("vol_reference_s", self.vol_reference_s > 0, "> 0"),
            ("vol_power_ppm", self.vol_power_ppm <= c.PPM, "<= 1000000"),
            ("short_gross_ppm", self.short_gross_ppm <= c.PPM, "<= 1000000"),
        ):
            if not held:
                raise ValueError(f"{name} must be {relation}")
        for number, one in enumerate(self.underlyings):
            for name in UNDERLYING_FIELDS:
                if not 0 <= getattr(one, name) <= c.U32_MAX:
                    raise ValueError(f"underlyings[{number}].{name} must be an integer from 0 to {c.U32_MAX}")
            if one.strike_step_min_ticks == 0:
                raise ValueError(f"underlyings[{number}].strike_step_min_ticks must be > 0")
            if one.short_floor_ppm > c.PPM:
                raise ValueError(f"underlyings[{number}].short_floor_ppm must be <= 1000000")
            if not risk_array.is_valid(self.shocks(number)):
                raise ValueError(
                    f"underlyings[{number}]: price_range_ppm, extreme_range_ppm, extreme_weight_ppm, vol_up_ppm or "
                    "vol_down_ppm is out of range"
                )

    def of(self, underlying: int) -> UnderlyingParams:
        """What holds for an underlying; for a number beyond the last, the last one's."""
        return self.underlyings[min(underlying, c.UNDERLYINGS - 1)]

    def shocks(self, underlying: int) -> Shocks:
        """The shocks of the 16 scenarios of an underlying."""
        one = self.of(underlying)
        return Shocks(
            price_range_ppm=one.price_range_ppm,
            extreme_range_ppm=one.extreme_range_ppm,
            extreme_weight_ppm=one.extreme_weight_ppm,
            vol_up_ppm=one.vol_up_ppm,
            vol_down_ppm=one.vol_down_ppm,
            horizon_s=self.horizon_s,
            vol_reference_s=self.vol_reference_s,
            vol_power_ppm=self.vol_power_ppm,
        )

    def words(self) -> bytes:
        """The leaf's words, joined."""
        keys = (*self.feed_keys, *(_ABSENT,) * (c.FEEDS_MAX - len(self.feed_keys)))
        out = b"".join(key.rjust(32, b"\0") for key in keys)
        numbers = [getattr(self, name) for name in INTEGER_FIELDS]
        for start in range(0, len(numbers), 8):
            out += _word(numbers[start : start + 8])
        for one in self.underlyings:
            out += _word([getattr(one, name) for name in UNDERLYING_FIELDS])
        return out

    @classmethod
    def from_words(cls, data: bytes) -> "Params":
        """Inverse of `words`. Raises ValueError when the length or a value does not fit."""
        flat = c.FEEDS_MAX + -(-len(INTEGER_FIELDS) // 8)
        count = flat + c.UNDERLYINGS
        if len(data) != 32 * count:
            raise ValueError(f"params: {count} words expected")
        keys = [data[32 * i + 12 : 32 * i + 32] for i in range(c.FEEDS_MAX)]
        while keys and keys[-1] == _ABSENT:
            keys.pop()
        numbers: dict[str, int] = {}
        for i, name in enumerate(INTEGER_FIELDS):
            numbers[name] = _field(data, c.FEEDS_MAX + i // 8, i % 8)
        underlyings = tuple(
            UnderlyingParams(*(_field(data, flat + number, i) for i in range(len(UNDERLYING_FIELDS))))
            for number in range(c.UNDERLYINGS)
        )
        return cls(feed_keys=tuple(keys), underlyings=underlyings, **numbers)


def _word(numbers: list[int]) -> bytes:
    """Up to eight uint32 in a word, the first lowest."""
    return sum(number << 32 * place for place, number in enumerate(numbers)).to_bytes(32, "big")


def _field(data: bytes, word: int, place: int) -> int:
    return int.from_bytes(data[32 * word : 32 * word + 32], "big") >> 32 * place & c.U32_MAX


UNDERLYING_FIELDS: Final = tuple(one.name for one in fields(UnderlyingParams))
INTEGER_FIELDS: Final = tuple(
    one.name for one in fields(Params) if one.name not in ("feed_keys", "underlyings")
)
