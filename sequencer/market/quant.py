"""Price an option for people: decimal USD in, decimal USD out, every figure computed by the integer core.

Nothing here is part of the state transition; it only parses and prints what `sequencer.protocol` computes.
"""

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Literal, TypedDict

from sequencer.protocol.black76 import DAY_S, PRICE_MAX, W_MAX, W_MIN, greeks, price_e10
from sequencer.protocol.risk_array import Shocks, scenarios

YEAR_S = 365 * DAY_S
SECONDS_MAX = (1 << 32) - 1
PRECISION = Context(prec=80)
KINDS = {"call": False, "c": False, "put": True, "p": True}


class OptionPrice(TypedDict):
    """One long contract, in USD unless its name says otherwise.

    mark: unrounded, to 1e-10.                  delta, gamma: per 1 USD of forward.
    vega: per volatility point (0.01).          theta: per day.
    mark_ticks: the mark in cents, half up.     scenarios: the 16 profits or losses of `risk_array`, in cents.
    """

    mark: Decimal
    delta: Decimal
    gamma: Decimal
    vega: Decimal
    theta: Decimal
    scenarios: list[Decimal]
    mark_ticks: int


def price_option(
    type: Literal["call", "put", "C", "P"] | str,  # noqa: A002 - the field's own word
    forward_usd: Decimal | str,
    strike_usd: Decimal | str,
    iv: Decimal | str,
    expires_in_s: int,
    shocks: Shocks | None = None,
) -> OptionPrice:
    """Mark, greeks and risk array of one contract by integer Black-76.

    type: call or put (or C, P; any case). forward_usd, strike_usd: USD, rounded half up to the cent. iv: a
    fraction (0.6748) or a string in percent ("67.48%"). expires_in_s: seconds to expiry, uint32; 0 gives
    intrinsic values. Raises ValueError for what lies outside the protocol's ranges.
    """
    kind = KINDS.get(type.lower())
    if kind is None:
        raise ValueError(f"type must be call or put, not {type!r}")
    forward, strike = _ticks(forward_usd, "forward"), _ticks(strike_usd, "strike")
    variance = total_variance_e12(iv, expires_in_s)
    sensitivity = greeks(forward, strike, kind, variance, expires_in_s)
    shocks = shocks or Shocks()
    mark_ticks, pnl = scenarios(forward, strike, kind, variance, shocks, shocks.left(expires_in_s))
    return OptionPrice(
        mark=_scaled(price_e10(forward, strike, kind, variance), 10),
        delta=_scaled(sensitivity.delta_e12, 12),
        gamma=_scaled(sensitivity.gamma_e18, 18),
        vega=_scaled(sensitivity.vega_e10, 10),
        theta=_scaled(sensitivity.theta_e10, 10),
        scenarios=[_scaled(ticks, 2) for ticks in pnl],
        mark_ticks=mark_ticks,
    )


def total_variance_e12(iv: Decimal | str, expires_in_s: int) -> int:
    """iv^2 * seconds / (365 days), times 1e12, half up; at least W_MIN while time and volatility are left."""
    if not 0 <= expires_in_s <= SECONDS_MAX:
        raise ValueError(f"seconds to expiry must lie in 0..{SECONDS_MAX}, not {expires_in_s}")
    text = str(iv).strip()
    with localcontext(PRECISION):
        fraction = _decimal(text[:-1], "iv") / 100 if text.endswith("%") else _decimal(text, "iv")
        if not 0 <= fraction <= 1_000:
            raise ValueError(f"iv must lie in 0..1000, not {iv}")
        exact = fraction * fraction * expires_in_s / YEAR_S * 10**12
        variance = int(exact.to_integral_value(ROUND_HALF_UP))
    if variance > W_MAX:
        raise ValueError(f"total variance {variance} (1e-12) exceeds {W_MAX}")
    return max(variance, W_MIN) if exact > 0 else 0


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
