"""Black-76 in integers: the price and the greeks of a European option on a forward, undiscounted.

Twin: `contracts/lib/black76.vy`. Only `+ - * // >> <<` and the integer square root are used; `//` never sees
a negative operand and `>>` of a negative number is the arithmetic shift (floor), so that Python, Vyper's
int256 and C's __int128 agree to the bit. Every intermediate stays below 2^127 in magnitude
(tests/protocol/test_risk_array.py counts).

Units
    forward, strike   price ticks of 0.01 USD, uint32
    variance_e12      total variance iv^2 * years, times 1e12; 0 = expired, else W_MIN..W_MAX
    *_q56             binary fixed point, ONE_Q56 = 2^56 stands for 1
    *_e10             1e-10 USD, which is 1e-8 tick

Method. With low = min(F, K), high = max(F, K), h = |ln(F/K)| and s = sqrt(variance), the put on a forward
above the strike costs what the call with the roles of F and K exchanged costs, so one function gives the time
value of both:

    d1 = s/2 - h/s,  d2 = -s/2 - h/s,  time value = low N(d1) - high N(d2),  option = intrinsic + time value

and put-call parity holds exactly. Hart's algorithm writes N(-x) = exp(-x^2/2) R(x), and low exp(-d1^2/2)
equals high exp(-d2^2/2), so that one exponential serves both terms:

    d1 <  0:  time value = low exp(-d1^2/2) (R(-d1) - R(-d2))
    d1 >= 0:  time value = low (1 - exp(-d1^2/2) (R(d1) + R(-d2)))

Sources: F. Black, "The pricing of commodity contracts" (1976); J. F. Hart et al., "Computer Approximations"
(1968), algorithm 5666, in the double-precision form of G. West, "Better approximations to cumulative normal
functions" (2005). Error against exact arithmetic, as a share of low: 2e-15 for variances up to 1, 5e-12 up to
W_MAX (docs/RISK.md).
"""

from dataclasses import dataclass
from math import isqrt

ONE_Q56 = 1 << 56
PRICE_MAX = (1 << 32) - 1  # ticks
TICK_E10 = 10**8  # 1e-10 USD in a tick

W_MIN = 1  # 1e-12
W_MAX = 16 * 10**12  # iv of 400 % for a year; a standard deviation of 4
STDEV_MAX_Q56 = 8 << 56  # what a doubled volatility makes of W_MAX

DAY_S = 86_400

D_MAX_Q56 = 10 << 56  # N(-10) = 7.6e-24: of the greatest forward this is 3e-6 of a 1e-10 USD
HART_SPLIT_Q56 = 509_524_133_802_061_427  # 7.07106781186547, where Hart's rational ends
LN2_Q56 = 49_946_518_145_322_874
SQRT_TWO_PI_Q56 = 180_621_602_617_352_371
INV_SQRT_TWO_PI_Q56 = 28_746_820_885_731_650
CF_TAIL_Q56 = 46_837_436_124_653_158  # 0.65


@dataclass(frozen=True, slots=True)
class Greeks:
    """Sensitivities of one long contract, for display: no root depends on them.

    delta_e12: per 1 USD of forward, 1e-12.            gamma_e18: delta per 1 USD of forward, 1e-18.
    vega_e10: per volatility point (0.01), 1e-10 USD.  theta_e10: per day, 1e-10 USD, never positive.
    """

    delta_e12: int
    gamma_e18: int
    vega_e10: int
    theta_e10: int


def ln_ratio_q56(numerator: int, denominator: int) -> int:
    """ln(numerator / denominator) in Q56, both 1..2^32-1; antisymmetric to the bit.

    Both are shifted into [2^31, 2^32), one is doubled if their ratio leaves [1/sqrt 2, sqrt 2] (256/181
    stands for the root), and ln = 2 atanh((a-b)/(a+b)) by its series to the 21st power. Divisions and shifts
    floor the magnitude of the series; error below 4e-16, of which up to 32 half-units (2e-16) come from
    LN2_Q56.
    """
    shift_a = 32 - numerator.bit_length()
    shift_b = 32 - denominator.bit_length()
    a = numerator << shift_a
    b = denominator << shift_b
    power = shift_b - shift_a
    if a * 181 > b * 256:
        b <<= 1
        power += 1
    elif b * 181 > a * 256:
        a <<= 1
        power -= 1
    z = ((a - b if a >= b else b - a) << 56) // (a + b)
    q = z * z >> 56
    y = (6_862_628_003_612_184 * q >> 56) + 7_585_009_898_729_256
    y = (y * q >> 56) + 8_477_364_004_462_110
    y = (y * q >> 56) + 9_607_679_205_057_058
    y = (y * q >> 56) + 11_085_783_698_142_759
    y = (y * q >> 56) + 13_101_380_734_168_716
    y = (y * q >> 56) + 16_012_798_675_095_097
    y = (y * q >> 56) + 20_587_884_010_836_553
    y = (y * q >> 56) + 28_823_037_615_171_174
    y = (y * q >> 56) + 48_038_396_025_285_291
    y = (y * q >> 56) + 144_115_188_075_855_872
    y = y * z >> 56
    return power * LN2_Q56 + (y if a >= b else -y)


def stdev_q56(variance_e12: int) -> int:
    """sqrt(variance) in Q56 for variance_e12 in 0..W_MAX; both roundings floor; error below 2^-55."""
    return (isqrt(variance_e12 << 80) << 16) // 10**6


def exp_neg_q56(x: int) -> int:
    """exp(-x) in Q56 for x in 0..60 (Q56). Floors; absolute error below 2e-16.

    x = k ln 2 - r with |r| <= ln(2)/2, exp(r) by its Pade approximant [6/6] (truncation 2e-19), then k
    halvings.
    """
    k = (x + (LN2_Q56 >> 1)) // LN2_Q56
    r = k * LN2_Q56 - x
    q = r * r >> 56
    even = (108_311_679_350 * q >> 56) + 90_981_810_653_949
    even = (even * q >> 56) + 8_188_362_958_855_447
    even = (even * q >> 56) + ONE_Q56
    odd = (4_549_090_532_697 * q >> 56) + 1_091_781_727_847_393
    odd = (odd * q >> 56) + 36_028_797_018_963_968
    odd = odd * r >> 56
    return (((even + odd) << 56) // (even - odd)) >> k


def hart_ratio_q56(x: int) -> int:
    """R(x) = N(-x) exp(x^2/2) in Q56 for x in 0..32 (Q56). Floors.

    Up to 7.07106781186547 Hart's rational of degrees 6 and 7 (coefficients in Q48), beyond it the continued
    fraction. Absolute error 2e-15 up to x = 3, 4e-12 up to 5, 5e-10 anywhere; exp(-x^2/2) makes 2e-15 of all
    of it in N(-x).
    """
    if x < HART_SPLIT_Q56:
        p = (9_925_510_409_214 * x >> 56) + 197_140_306_752_825
        p = (p * x >> 56) + 1_794_110_862_793_673
        p = (p * x >> 56) + 9_545_623_189_604_451
        p = (p * x >> 56) + 31_547_515_964_110_065
        p = (p * x >> 56) + 62_266_091_830_011_790
        p = (p * x >> 56) + 61_982_723_017_162_537
        q = (24_879_108_095_804 * x >> 56) + 494_176_373_868_497
        q = (q * x >> 56) + 4_521_664_009_983_133
        q = (q * x >> 56) + 24_426_604_575_757_929
        q = (q * x >> 56) + 83_475_415_018_471_931
        q = (q * x >> 56) + 179_393_469_612_224_225
        q = (q * x >> 56) + 223_442_299_123_853_637
        q = (q * x >> 56) + 123_965_446_034_325_073
        return (p << 56) // q
    f = x + CF_TAIL_Q56
    f = x + (4 << 112) // f
    f = x + (3 << 112) // f
    f = x + (2 << 112) // f
    f = x + (1 << 112) // f
    return (1 << 112) // (f * SQRT_TWO_PI_Q56 >> 56)


def normal_cdf_q56(x: int) -> int:
    """N(x) in Q56 for any x (Q56); 0 and 1 beyond 10 standard deviations. Error below 2e-15."""
    a = x if x >= 0 else -x
    tail = exp_neg_q56(a * a >> 57) * hart_ratio_q56(a) >> 56 if a < D_MAX_Q56 else 0
    return ONE_Q56 - tail if x >= 0 else tail


def normal_pdf_q56(x: int) -> int:
    """Standard normal density in Q56 for any x (Q56); 0 beyond 10 standard deviations. Error below 2e-16."""
    a = x if x >= 0 else -x
    return exp_neg_q56(a * a >> 57) * INV_SQRT_TWO_PI_Q56 >> 56 if a < D_MAX_Q56 else 0


def time_value_q56(distance_q56: int, stdev: int) -> int:
    """Time value as a share of min(forward, strike), in Q56, within 0..ONE_Q56.

    distance_q56: |ln(F/K)|, 0..32. stdev: sqrt(variance) in Q56, 0..STDEV_MAX_Q56; 0 gives 0. Every shift and
    division floors, so the result may sit a few units of 2^-56 on either side of the true one; it is clamped
    to its range.
    """
    if stdev == 0:
        return 0
    u = (distance_q56 << 56) // stdev
    half = stdev >> 1
    d1 = half - u
    if d1 < -D_MAX_Q56:
        return 0
    e = exp_neg_q56(d1 * d1 >> 57)
    if d1 < 0:
        value = e * (hart_ratio_q56(-d1) - hart_ratio_q56(half + u)) >> 56
    else:
        value = ONE_Q56 - (e * (hart_ratio_q56(d1) + hart_ratio_q56(half + u)) >> 56)
    return 0 if value < 0 else min(value, ONE_Q56)


def intrinsic(forward: int, strike: int, is_put: bool) -> int:
    """max(F-K, 0) of a call, max(K-F, 0) of a put, in the unit of its arguments."""
    gain = strike - forward if is_put else forward - strike
    return max(gain, 0)


def price_e10(forward: int, strike: int, is_put: bool, variance_e12: int) -> int:
    """Undiscounted price of one contract in 1e-10 USD.

    forward, strike: uint32 ticks; variance_e12: 0..W_MAX (a greater one counts as W_MAX). Intrinsic where the
    variance, the forward or the strike is 0. The time value is floored to 1e-10 USD.
    """
    base = intrinsic(forward, strike, is_put) * TICK_E10
    if variance_e12 == 0 or forward == 0 or strike == 0:
        return base
    share = time_value_q56(abs(ln_ratio_q56(forward, strike)), stdev_q56(min(variance_e12, W_MAX)))
    return base + (min(forward, strike) * TICK_E10 * share >> 56)


def to_ticks(price: int) -> int:
    """A price of 1e-10 USD, not negative, in ticks: half up, clamped to uint32."""
    return min((price + TICK_E10 // 2) // TICK_E10, PRICE_MAX)


def greeks(forward: int, strike: int, is_put: bool, variance_e12: int, remaining_s: int) -> Greeks:
    """Greeks of one contract, for display; every division floors the magnitude.

    remaining_s: seconds to expiry, uint32; vega takes sqrt(years) from it (a year is 365 days), theta the
    decay of the variance at constant volatility. With no variance or no time left, or a forward or strike of
    0: the delta of the intrinsic value, and 0 for the others.
    """
    if variance_e12 == 0 or remaining_s == 0 or forward == 0 or strike == 0:
        exercised = intrinsic(forward, strike, is_put) > 0
        return Greeks((-(10**12) if is_put else 10**12) if exercised else 0, 0, 0, 0)
    stdev = stdev_q56(min(variance_e12, W_MAX))
    x = ln_ratio_q56(forward, strike)
    u = ((x if x >= 0 else -x) << 56) // stdev
    d1 = (u if x >= 0 else -u) + (stdev >> 1)
    delta = normal_cdf_q56(-d1 if is_put else d1) * 10**12 >> 56
    pdf = normal_pdf_q56(d1)
    root_years_e9 = isqrt(remaining_s * 10**18 // (365 * DAY_S))
    vega_e9_ticks = forward * pdf * root_years_e9 >> 56  # per 1.00 of volatility
    rest_e10 = (
        forward * TICK_E10 * (pdf * (stdev >> 1) >> 56) >> 56
    )  # decay of all the time left at today's rate
    return Greeks(
        delta_e12=-delta if is_put else delta,
        gamma_e18=pdf * 10**20 // (forward * stdev),
        vega_e10=vega_e9_ticks // 1_000,
        theta_e10=-(rest_e10 * DAY_S // remaining_s),
    )
