# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Black-76 in integers
@license MIT
@notice Twin of `sequencer/protocol/black76.py`, which has the method, its sources and its errors: price of a European
        option on a forward, undiscounted. What is only displayed there (greeks, the distribution function) has no
        twin: no root depends on it.
@dev Units: prices in ticks (0.01 USD, uint32); variance_e12 = total variance times 1e12; *_q56 in 2^-56; *_e10 in 1e-10
     USD. A bound in a comment is one of magnitude.
@custom:security Total: no argument reverts. All arithmetic is unchecked, and exact on the ranges that each function
                 names, because every intermediate there stays below 2^127 (packed ones: each half below 2^128). Signed
                 numbers appear only where a sign is possible; `>>` of an int256 floors, as in Python.
@custom:kill Nothing: it holds no state and no privilege.
"""

ONE_Q56: constant(uint256) = 1 << 56
PRICE_MAX: constant(uint256) = 2**32 - 1  # ticks
TICK_E10: constant(uint256) = 10**8  # 1e-10 USD in a tick

W_MIN: constant(uint256) = 1  # 1e-12
W_MAX: constant(uint256) = 16 * 10**12  # a standard deviation of 4

D_MAX_Q56: constant(uint256) = 10 << 56  # beyond 10 standard deviations the time value is 0
HART_SPLIT_Q56: constant(uint256) = 509_524_133_802_061_427  # 7.07106781186547, where Hart's rational ends
LN2_Q56: constant(uint256) = 49_946_518_145_322_874
SQRT_TWO_PI_Q56: constant(uint256) = 180_621_602_617_352_371
CF_TAIL_Q56: constant(uint256) = 46_837_436_124_653_158  # 0.65

# Hart's numerator p and denominator q are evaluated in one word, q << 128 | p. The shift by 56 lets the low bits of q
# fall into the half of p, at bits 72..127, where p, then below 2^64, has none: this mask clears them.
HALVES: constant(uint256) = ((2**128 - 1) << 128) | (2**72 - 1)


@internal
@pure
def _bit_length(n: uint256) -> uint256:
    """
    @notice Bits of `n` < 2^32 without leading zeros, by halving; of 0 too it says 1, where Python says 0.
    """
    bits: uint256 = convert(n > 2**16 - 1, uint256) << 4
    bits |= convert(n >> bits > 2**8 - 1, uint256) << 3
    bits |= convert(n >> bits > 2**4 - 1, uint256) << 2
    bits |= convert(n >> bits > 2**2 - 1, uint256) << 1
    bits |= convert(n >> bits > 1, uint256)
    return unsafe_add(bits, 1)  # <= 32


@internal
@pure
def _ln_ratio_q56(numerator: uint256, denominator: uint256) -> int256:
    """
    @notice ln(numerator / denominator) in Q56, both 1..2^32-1; antisymmetric to the bit.
    """
    shift_a: uint256 = unsafe_sub(32, self._bit_length(numerator))  # 0..31
    shift_b: uint256 = unsafe_sub(32, self._bit_length(denominator))
    a: uint256 = numerator << shift_a
    b: uint256 = denominator << shift_b
    power: uint256 = unsafe_sub(shift_b, shift_a)  # -32..32, two's complement
    if unsafe_mul(a, 181) > unsafe_mul(b, 256):  # < 2^40
        b <<= 1
        power = unsafe_add(power, 1)
    elif unsafe_mul(b, 181) > unsafe_mul(a, 256):
        a <<= 1
        power = unsafe_sub(power, 1)
    gap: uint256 = unsafe_sub(a, b) if a >= b else unsafe_sub(b, a)
    z: uint256 = unsafe_div(gap << 56, unsafe_add(a, b))  # the divisor is at least 2^32; z < 2^54
    q: uint256 = unsafe_mul(z, z) >> 56
    y: uint256 = unsafe_add(unsafe_mul(6_862_628_003_612_184, q) >> 56, 7_585_009_898_729_256)  # all y < 2^58
    y = unsafe_add(unsafe_mul(y, q) >> 56, 8_477_364_004_462_110)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 9_607_679_205_057_058)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 11_085_783_698_142_759)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 13_101_380_734_168_716)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 16_012_798_675_095_097)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 20_587_884_010_836_553)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 28_823_037_615_171_174)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 48_038_396_025_285_291)
    y = unsafe_add(unsafe_mul(y, q) >> 56, 144_115_188_075_855_872)
    y = unsafe_mul(y, z) >> 56
    ln: uint256 = unsafe_mul(power, LN2_Q56)  # < 2^61, two's complement
    ln = unsafe_add(ln, y) if a >= b else unsafe_sub(ln, y)
    return convert(convert(ln, bytes32), int256)


@internal
@pure
def _stdev_q56(variance_e12: uint256) -> uint256:
    """
    @notice sqrt(variance) in Q56 for variance_e12 in 0..W_MAX; both roundings floor.
    """
    return unsafe_div(isqrt(variance_e12 << 80) << 16, 10**6)  # W_MAX << 80 < 2^124; root << 16 < 2^78


@internal
@pure
def _exp_neg_q56(x: uint256) -> uint256:
    """
    @notice exp(-x) in Q56 for x in 0..60 (Q56). Floors.
    """
    k: uint256 = unsafe_div(unsafe_add(x, LN2_Q56 >> 1), LN2_Q56)  # <= 87
    r: int256 = convert(convert(unsafe_sub(unsafe_mul(k, LN2_Q56), x), bytes32), int256)  # <= ln(2)/2 < 2^55
    q: uint256 = convert(convert(unsafe_mul(r, r), bytes32), uint256) >> 56
    even: uint256 = unsafe_add(unsafe_mul(108_311_679_350, q) >> 56, 90_981_810_653_949)  # all < 2^57
    even = unsafe_add(unsafe_mul(even, q) >> 56, 8_188_362_958_855_447)
    even = unsafe_add(unsafe_mul(even, q) >> 56, ONE_Q56)
    odd: uint256 = unsafe_add(unsafe_mul(4_549_090_532_697, q) >> 56, 1_091_781_727_847_393)
    odd = unsafe_add(unsafe_mul(odd, q) >> 56, 36_028_797_018_963_968)
    # signed from here: its shift floors; < even / 2
    odd = convert(convert(unsafe_mul(convert(convert(odd, bytes32), int256), r) >> 56, bytes32), uint256)
    return unsafe_div(unsafe_add(even, odd) << 56, unsafe_sub(even, odd)) >> k


@internal
@pure
def _hart_ratio_q56(x: uint256) -> uint256:
    """
    @notice R(x) = N(-x) exp(x^2/2) in Q56 for x in 0..32 (Q56). Floors.
    """
    if x < HART_SPLIT_Q56:
        # q << 128 | p, both < 2^68: their products with x < 2^59 stay in their halves. p begins a step later.
        pq: uint256 = (unsafe_mul(24_879_108_095_804, x) >> 56) << 128
        pq = unsafe_add(pq, (494_176_373_868_497 << 128) | 9_925_510_409_214)
        pq = unsafe_add(unsafe_mul(pq, x) >> 56 & HALVES, (4_521_664_009_983_133 << 128) | 197_140_306_752_825)
        pq = unsafe_add(unsafe_mul(pq, x) >> 56 & HALVES, (24_426_604_575_757_929 << 128) | 1_794_110_862_793_673)
        pq = unsafe_add(unsafe_mul(pq, x) >> 56 & HALVES, (83_475_415_018_471_931 << 128) | 9_545_623_189_604_451)
        pq = unsafe_add(unsafe_mul(pq, x) >> 56 & HALVES, (179_393_469_612_224_225 << 128) | 31_547_515_964_110_065)
        pq = unsafe_add(unsafe_mul(pq, x) >> 56 & HALVES, (223_442_299_123_853_637 << 128) | 62_266_091_830_011_790)
        pq = unsafe_add(unsafe_mul(pq, x) >> 56 & HALVES, (123_965_446_034_325_073 << 128) | 61_982_723_017_162_537)
        return unsafe_div((pq & (2**128 - 1)) << 56, pq >> 128)  # the divisor is at least its last coefficient
    f: uint256 = unsafe_add(x, CF_TAIL_Q56)  # f >= x >= 7 in every line, and < 2^62
    f = unsafe_add(x, unsafe_div(4 << 112, f))
    f = unsafe_add(x, unsafe_div(3 << 112, f))
    f = unsafe_add(x, unsafe_div(2 << 112, f))
    f = unsafe_add(x, unsafe_div(1 << 112, f))
    return unsafe_div(1 << 112, unsafe_mul(f, SQRT_TWO_PI_Q56) >> 56)


@internal
@pure
def _time_value_q56(distance_q56: uint256, stdev: uint256) -> uint256:
    """
    @notice Time value as a share of min(forward, strike), in Q56, within 0..ONE_Q56.
    @param distance_q56 |ln(F/K)|, 0..32.
    @param stdev sqrt(variance) in Q56, 0..8; 0 gives 0.
    """
    if stdev == 0:
        return 0
    u: uint256 = unsafe_div(distance_q56 << 56, stdev)  # < 2^117 at the least stdev
    half: uint256 = stdev >> 1  # <= 4
    if u > half:
        minus_d1: uint256 = unsafe_sub(u, half)
        if minus_d1 > D_MAX_Q56:
            return 0
        # hence u <= 14, and u + half <= 18
        near: uint256 = self._hart_ratio_q56(minus_d1)
        far: uint256 = self._hart_ratio_q56(unsafe_add(half, u))
        if near <= far:
            return 0  # Python clamps their product with e, which is not positive
        e: uint256 = self._exp_neg_q56(unsafe_mul(minus_d1, minus_d1) >> 57)  # <= 50
        return unsafe_mul(e, unsafe_sub(near, far)) >> 56  # below ONE_Q56, where Python clamps: R <= 1/2
    d1: uint256 = unsafe_sub(half, u)  # <= 4
    both: uint256 = unsafe_add(self._hart_ratio_q56(d1), self._hart_ratio_q56(unsafe_add(half, u)))  # <= 1
    taken: uint256 = unsafe_mul(self._exp_neg_q56(unsafe_mul(d1, d1) >> 57), both) >> 56
    return unsafe_sub(ONE_Q56, taken) if taken < ONE_Q56 else 0


@internal
@pure
def _intrinsic(forward: uint256, strike: uint256, is_put: bool) -> uint256:
    """
    @notice max(F-K, 0) of a call, max(K-F, 0) of a put, in the unit of its arguments.
    """
    if forward > strike:
        return 0 if is_put else unsafe_sub(forward, strike)
    return unsafe_sub(strike, forward) if is_put else 0


@internal
@pure
def _price_e10(forward: uint256, strike: uint256, is_put: bool, variance_e12: uint256) -> uint256:
    """
    @notice Undiscounted price of one contract in 1e-10 USD; forward and strike uint32 ticks, variance_e12 0..W_MAX (a
            greater one counts as W_MAX). The time value is floored to 1e-10 USD.
    """
    base: uint256 = unsafe_mul(self._intrinsic(forward, strike, is_put), TICK_E10)  # < 2^59
    if variance_e12 == 0 or forward == 0 or strike == 0:
        return base
    x: int256 = self._ln_ratio_q56(forward, strike)
    distance: uint256 = convert(convert(x if x >= 0 else unsafe_sub(0, x), bytes32), uint256)
    share: uint256 = self._time_value_q56(distance, self._stdev_q56(min(variance_e12, W_MAX)))
    return unsafe_add(base, unsafe_mul(unsafe_mul(min(forward, strike), TICK_E10), share) >> 56)  # product < 2^116


@internal
@pure
def _to_ticks(price: uint256) -> uint256:
    """
    @notice A price of 1e-10 USD, below 2^255, in ticks: half up, clamped to uint32.
    """
    return min(unsafe_div(unsafe_add(price, TICK_E10 // 2), TICK_E10), PRICE_MAX)
