"""Price an option for people: decimal USD in, decimal USD out, every figure computed by the integer core.

Nothing here is part of the state transition; it only parses and prints what `sequencer.protocol` computes.
"""

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Literal, TypedDict

from sequencer.market.implied import implied_variance_e12, volatility
from sequencer.protocol.black76 import DAY_S, PRICE_MAX, W_MAX, W_MIN, greeks, price_e10
from sequencer.protocol.constants import EXPIRY_OF_DAY_S, PPM
from sequencer.protocol.market import strike_step
from sequencer.protocol.params import Params
from sequencer.protocol.risk_array import SCENARIOS, Shocks, scenarios

YEAR_S = 365 * DAY_S
SECONDS_MAX = (1 << 32) - 1
STRIKE_END = 2**31  # ticks
PRECISION = Context(prec=80)
KINDS = {"call": False, "c": False, "put": True, "p": True}


class OptionPrice(TypedDict):
    """One long contract, in USD unless its name says otherwise.

    iv: the volatility, given or solved.        mark: unrounded, to 1e-10.
    delta, gamma: per 1 USD of forward.         vega: per volatility point (0.01).
    theta: per day.                             mark_ticks: the mark in cents, half up.
    scenarios: the 16 profits or losses of `risk_array`, in cents; labels: what each of them is.
    """

    iv: Decimal
    mark: Decimal
    delta: Decimal
    gamma: Decimal
    vega: Decimal
    theta: Decimal
    scenarios: list[Decimal]
    labels: list[str]
    mark_ticks: int


def price_option(
    type: Literal["call", "put", "C", "P"] | str,  # noqa: A002 - the field's own word
    forward_usd: Decimal | str,
    strike_usd: Decimal | str,
    iv: Decimal | str | None,
    expires_in_s: int,
    shocks: Shocks | None = None,
    price_usd: Decimal | str | None = None,
) -> OptionPrice:
    """Mark, greeks and risk array of one contract by integer Black-76.

    type: call or put (or C, P; any case). forward_usd, strike_usd: USD, rounded half up to the cent. iv: a
    fraction (0.6748) or a string in percent ("67.48%"); None: the one that gives `price_usd`. expires_in_s: seconds to
    expiry, uint32; 0 gives intrinsic values. Raises ValueError for what lies outside the protocol's ranges.
    """
    kind = KINDS.get(type.lower())
    if kind is None:
        raise ValueError(f"type must be call or put, not {type!r}")
    forward, strike = _ticks(forward_usd, "forward"), _ticks(strike_usd, "strike")
    if (iv is None) == (price_usd is None):
        raise ValueError("give iv, or the price that it is to be found for, and not both")
    if iv is None:
        variance = _implied(str(price_usd), forward, strike, kind, expires_in_s)
        volatility_is = volatility(variance, expires_in_s)
    else:
        variance = total_variance_e12(iv, expires_in_s)
        volatility_is = _fraction(iv)
    sensitivity = greeks(forward, strike, kind, variance, expires_in_s)
    shocks = shocks or Shocks()
    left = shocks.left(expires_in_s)
    mark_ticks, pnl = scenarios(forward, strike, kind, variance, shocks, left)
    return OptionPrice(
        iv=volatility_is,
        mark=_scaled(price_e10(forward, strike, kind, variance), 10),
        delta=_scaled(sensitivity.delta_e12, 12),
        gamma=_scaled(sensitivity.gamma_e18, 18),
        vega=_scaled(sensitivity.vega_e10, 10),
        theta=_scaled(sensitivity.theta_e10, 10),
        scenarios=[_scaled(ticks, 2) for ticks in pnl],
        labels=scenario_labels(shocks, left),
        mark_ticks=mark_ticks,
    )


def scenario_labels(shocks: Shocks, left: tuple[int, int]) -> list[str]:
    """What each of the 16 scenarios is: the forward's move, and the standard deviation to expiry as a multiple.

    Of the deviation that is left when the horizon has passed (`Shocks.left`): the volatility's shock and time's part
    together. Extreme moves keep the deviation, and their loss counts in part.
    """
    out = []
    for place in range(SCENARIOS):
        how = f"vol as it is, weight {shocks.extreme_weight_ppm / PPM:.0%}"
        if place & 7 != 7:
            how = f"vol {'down' if place > 7 else 'up'} (deviation x {left[place >> 3] / PPM:.3f})"
        out.append(f"forward {forward_move(shocks, place)}, {how}")
    return out


def forward_move(shocks: Shocks, scenario: int) -> str:
    """The forward's move in a scenario, such as "-15.00 %"."""
    extremes, place = shocks.moves[7:], scenario & 7
    left_ppm, _ = extremes[scenario >> 3] if place == 7 else shocks.moves[place]
    return f"{Decimal(left_ppm - PPM).scaleb(-4):+.2f} %"


def _implied(price: str, forward: int, strike: int, is_put: bool, expires_in_s: int) -> int:
    if not 0 < expires_in_s <= SECONDS_MAX:
        raise ValueError(
            f"seconds to expiry must lie in 1..{SECONDS_MAX} for an implied iv, not {expires_in_s}"
        )
    with localcontext(PRECISION):
        exact = _decimal(price, "price") * 10**10
        if not 0 <= exact <= PRICE_MAX * 10**8:
            raise ValueError(f"price must lie in 0..{PRICE_MAX // 100} USD, not {price}")
        target = int(exact.to_integral_value(ROUND_HALF_UP))
    return implied_variance_e12(target, forward, strike, is_put)


def why_unlistable(
    underlying: int, forward_usd: Decimal | str, strike_usd: Decimal | str, expires_in_s: int, params: Params
) -> str | None:
    """Why the exchange could not list such an option, whatever the time of day; None if it could.

    The rule of LIST: the strike lies on its grid and within `strike_ratio_max` of an index that the forward may belong
    to, the expiry within `listing_days_max` days. Raises ValueError for numbers that are none.
    """
    with localcontext(PRECISION):
        for name, value in (("forward", forward_usd), ("strike", strike_usd)):
            cents = _decimal(str(value), name) * 100
            if cents != cents.to_integral_value() or cents <= 0:
                return f"{name} must be a multiple of 0.01 above 0, not {value}"
    forward, strike = _ticks(forward_usd, "forward"), _ticks(strike_usd, "strike")
    if strike >= STRIKE_END:
        return f"strike must be below {_scaled(STRIKE_END, 2)}, not {strike_usd}"
    step = strike_step(strike, params.of(underlying))
    if strike % step:
        below = strike // step * step
        near = f"{_scaled(below, 2)} or {_scaled(below + step, 2)}" if below else str(_scaled(step, 2))
        return f"strike must be a multiple of {_scaled(step, 2)} there, such as {near}, not {strike_usd}"
    ratio, range_ppm = params.strike_ratio_max, params.forward_range_ppm
    index_low, index_high = forward * PPM // (PPM + range_ppm), -(-forward * PPM // (PPM - range_ppm))
    if strike * ratio < index_low or strike > index_high * ratio:
        low, high = -(-index_low // ratio), index_high * ratio
        return (
            f"strike must be from {_scaled(low, 2)} to {_scaled(high, 2)} at this forward, not {strike_usd}"
        )
    lasts_s = params.listing_days_max * DAY_S + EXPIRY_OF_DAY_S
    if expires_in_s > lasts_s:
        days = params.listing_days_max
        return f"expires-in must be at most {lasts_s} ({days} days, to 08:00 UTC), not {expires_in_s}"
    return None


def total_variance_e12(iv: Decimal | str, expires_in_s: int) -> int:
    """iv^2 * seconds / (365 days), times 1e12, half up; at least W_MIN while time and volatility are left."""
    if not 0 <= expires_in_s <= SECONDS_MAX:
        raise ValueError(f"seconds to expiry must lie in 0..{SECONDS_MAX}, not {expires_in_s}")
    with localcontext(PRECISION):
        fraction = _fraction(iv)
        if not 0 <= fraction <= 1_000:
            raise ValueError(f"iv must lie in 0..1000, not {iv}")
        exact = fraction * fraction * expires_in_s / YEAR_S * 10**12
        variance = int(exact.to_integral_value(ROUND_HALF_UP))
    if variance > W_MAX:
        raise ValueError(f"total variance {variance} (1e-12) exceeds {W_MAX}")
    return max(variance, W_MIN) if exact > 0 else 0


def _fraction(iv: Decimal | str) -> Decimal:
    """A volatility as a fraction; in percent if the text says so."""
    text = str(iv).strip()
    with localcontext(PRECISION):
        return _decimal(text[:-1], "iv") / 100 if text.endswith("%") else _decimal(text, "iv")


def _ticks(usd: Decimal | str, name: str) -> int:
    """USD to ticks of a cent, half up, uint32."""
    with localcontext(PRECISION):
        amount = _decimal(str(usd), name) * 100
        if not 0 <= amount <= PRICE_MAX:
            raise ValueError(f"{name} must lie in 0..{PRICE_MAX // 100} USD, not {usd}")
        return (
            int((amount + Decimal("0.5")).to_integral_value(ROUND_FLOOR)) if amount < PRICE_MAX else PRICE_MAX
        )


def _decimal(text: str, name: str) -> Decimal:
    """A finite decimal number, or ValueError."""
    try:
        number = Decimal(text.strip())
    except ArithmeticError as error:
        raise ValueError(f"{name} is not a number: {text!r}") from error
    if not number.is_finite():
        raise ValueError(f"{name} must be finite, not {text!r}")
    return number


def _scaled(value: int, digits: int) -> Decimal:
    """value * 10^-digits, exactly."""
    return Decimal(value).scaleb(-digits, PRECISION)
