/* Black-76, SVI and integer roots of sequencer/protocol in C, for black76_kernel.c: twin of black76.py and surface.py.
 *
 * The bounds of arguments, which the caller has checked, and of intermediates stand beside each function. Everything is
 * below 2^127; most factors are below 2^64, so that a product of two fits into 128 bits. Forwards and strikes are below
 * 2^32 ticks.
 */

typedef __int128 wide;
typedef unsigned __int128 uwide;

_Static_assert(((wide)-3 >> 1) == -2, "a right shift floors");

#define SHIFT 56
#define ONE ((uint64_t)1 << SHIFT)
#define PPM 1000000
#define ONE_E12 1000000000000LL
#define W_MAX (16 * ONE_E12)
#define TICK_E10 100000000LL
#define D_MAX ((int64_t)10 << SHIFT)
#define HART_SPLIT 509524133802061427ULL
#define LN2 49946518145322874LL
#define SQRT_TWO_PI 180621602617352371ULL
#define CF_TAIL 46837436124653158ULL

/* x y / 2^56, floored: x, y < 2^64 and the result < 2^64. */
static inline uint64_t mul(uint64_t x, uint64_t y)
{
    return (uint64_t)((uwide)x * y >> SHIFT);
}

/* Floor of the root of n < 2^126, as CPython's math.isqrt: each step doubles the known bits. */
static uint64_t isqrt(uwide n)
{
    if (!n)
        return 0;
    int bits = n >> 64 ? 128 - __builtin_clzll((uint64_t)(n >> 64)) : 64 - __builtin_clzll((uint64_t)n);
    int c = (bits - 1) / 2, d = 0;
    uint64_t a = 1;
    for (int s = c ? 31 - __builtin_clz((unsigned)c) : -1; s >= 0; s--) {
        int e = d;
        d = c >> s;
        a = (a << (d - e - 1)) + (uint64_t)((n >> (2 * c - e - d + 1)) / a);
    }
    return a - ((uwide)a * a > n);
}

/* black76.ln_ratio_q56 for 1 <= a, b < 2^32. The magnitude is below 33 ln 2 = 2^60.6 (Q56). */
static int64_t ln_ratio(uint64_t a, uint64_t b)
{
    int shift_a = __builtin_clzll(a) - 32, shift_b = __builtin_clzll(b) - 32, power = shift_b - shift_a;
    a <<= shift_a;
    b <<= shift_b;
    if (a * 181 > b * 256) { /* < 2^41 */
        b <<= 1;
        power++;
    } else if (b * 181 > a * 256) {
        a <<= 1;
        power--;
    }
    /* The ratio lies within 256/181: z < 0.172 = 2^53.5, q < 2^51, y < 2^58. */
    uint64_t z = (uint64_t)(((uwide)(a >= b ? a - b : b - a) << SHIFT) / (a + b));
    uint64_t q = mul(z, z);
    uint64_t y = mul(6862628003612184ULL, q) + 7585009898729256ULL;
    y = mul(y, q) + 8477364004462110ULL;
    y = mul(y, q) + 9607679205057058ULL;
    y = mul(y, q) + 11085783698142759ULL;
    y = mul(y, q) + 13101380734168716ULL;
    y = mul(y, q) + 16012798675095097ULL;
    y = mul(y, q) + 20587884010836553ULL;
    y = mul(y, q) + 28823037615171174ULL;
    y = mul(y, q) + 48038396025285291ULL;
    y = mul(y, q) + 144115188075855872ULL;
    y = mul(y, z);
    return power * LN2 + (a >= b ? (int64_t)y : -(int64_t)y);
}

/* black76.stdev_q56 for a variance in 0..W_MAX < 2^44: the root is below 2^62, the result at most 4 = 2^58. */
static uint64_t stdev_of(uint64_t variance)
{
    return (uint64_t)(((uwide)isqrt((uwide)variance << 80) << 16) / PPM);
}

/* black76.exp_neg_q56 for x in 0..60 (Q56) < 2^62: k <= 87, |r| <= 2^54.6, q < 2^54, even and odd below 2^57. */
static uint64_t exp_neg(uint64_t x)
{
    uint64_t k = (x + (LN2 >> 1)) / LN2;
    int64_t r = (int64_t)(k * LN2 - x);
    uint64_t q = (uint64_t)((wide)r * r >> SHIFT);
    uint64_t even = mul(108311679350ULL, q) + 90981810653949ULL;
    even = mul(even, q) + 8188362958855447ULL;
    even = mul(even, q) + ONE;
    uint64_t factor = mul(4549090532697ULL, q) + 1091781727847393ULL;
    factor = mul(factor, q) + 36028797018963968ULL;
    int64_t odd = (int64_t)((wide)factor * r >> SHIFT); /* |odd| <= even / 2 */
    uint64_t ratio = (uint64_t)(((uwide)(even + (uint64_t)odd) << SHIFT) / (even - (uint64_t)odd));
    return k > 63 ? 0 : ratio >> k; /* ratio < 2^57 */
}

/* black76.hart_ratio_q56 for x in 0..18 (Q56) < 2^60.2; at most 1/2 and some units. */
static uint64_t hart_ratio(uint64_t x)
{
    if (x < HART_SPLIT) { /* 7.08: p < 2^63.8, q < 2^68 */
        uint64_t p = mul(9925510409214ULL, x) + 197140306752825ULL;
        p = mul(p, x) + 1794110862793673ULL;
        p = mul(p, x) + 9545623189604451ULL;
        p = mul(p, x) + 31547515964110065ULL;
        p = mul(p, x) + 62266091830011790ULL;
        p = mul(p, x) + 61982723017162537ULL;
        uint64_t q = mul(24879108095804ULL, x) + 494176373868497ULL;
        q = mul(q, x) + 4521664009983133ULL;
        q = mul(q, x) + 24426604575757929ULL;
        q = mul(q, x) + 83475415018471931ULL;
        q = mul(q, x) + 179393469612224225ULL;             /* < 2^63 */
        uwide high = ((uwide)q * x >> SHIFT) + 223442299123853637ULL; /* < 2^66 */
        high = (high * x >> SHIFT) + 123965446034325073ULL;           /* the product < 2^125 */
        return (uint64_t)(((uwide)p << SHIFT) / high);
    }
    uint64_t f = x + CF_TAIL; /* each quotient < 2^56 */
    f = x + (uint64_t)(((uwide)4 << 112) / f);
    f = x + (uint64_t)(((uwide)3 << 112) / f);
    f = x + (uint64_t)(((uwide)2 << 112) / f);
    f = x + (uint64_t)(((uwide)1 << 112) / f);
    return (uint64_t)(((uwide)1 << 112) / mul(f, SQRT_TWO_PI)); /* the divisor < 2^62 */
}

/* black76.time_value_q56 for a distance in 0..32 (Q56) <= 2^61 and a deviation in 0..8 (Q56) <= 2^59. */
static uint64_t time_value(uint64_t distance, uint64_t stdev)
{
    if (!stdev)
        return 0;
    uwide quotient = ((uwide)distance << SHIFT) / stdev;
    int64_t half = (int64_t)(stdev >> 1); /* at most 4 */
    if (quotient > (uwide)(half + D_MAX))
        return 0;
    int64_t u = (int64_t)quotient, d1 = half - u; /* u <= 14, -10 <= d1 <= 4, half + u <= 18 (Q56) */
    uint64_t e = exp_neg((uint64_t)((wide)d1 * d1 >> (SHIFT + 1)));
    uint64_t second = hart_ratio((uint64_t)(half + u));
    if (d1 < 0) {
        int64_t less = (int64_t)(hart_ratio((uint64_t)-d1) - second);
        wide value = (wide)e * less >> SHIFT;
        return value < 0 ? 0 : value > (wide)ONE ? ONE : (uint64_t)value;
    }
    uint64_t part = mul(e, hart_ratio((uint64_t)d1) + second);
    return part > ONE ? 0 : ONE - part;
}

/* risk_array._time_value_e10: `low_e10` < 2^61, x within 32 (Q56). */
static int64_t time_value_e10(int64_t low_e10, int64_t x, uint64_t stdev)
{
    return (int64_t)mul((uint64_t)low_e10, time_value((uint64_t)(x < 0 ? -x : x), stdev));
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* black76.price_e10 of a call: below 2^60. */
static int64_t call_e10(int64_t forward, int64_t strike, int64_t variance)
{
    int64_t base = forward > strike ? (forward - strike) * TICK_E10 : 0;
    if (!variance || !forward || !strike)
        return base;
    return base + time_value_e10(least(forward, strike) * TICK_E10, ln_ratio((uint64_t)forward, (uint64_t)strike),
                                 stdev_of((uint64_t)least(variance, W_MAX)));
}

enum { FORWARD, REMAINING, A, B, RHO, M, SIGMA, FIELDS };

/* surface.variance_e12 of a valid surface. |k| < 2^44.4, |y| < 2^45.3, the root < 2^45.6, arm < 2^46.6. */
static int64_t variance_of(const int64_t *report, int64_t strike)
{
    int64_t k = 0;
    if (report[FORWARD] && strike)
        k = (int64_t)((wide)ln_ratio((uint64_t)strike, (uint64_t)report[FORWARD]) * ONE_E12 >> SHIFT);
    int64_t y = k - report[M];
    uint64_t root = isqrt((uwide)((wide)y * y + (wide)report[SIGMA] * report[SIGMA]));
    /* Not negative: the root is at least |y|, and |rho| at most ONE_E12. */
    uint64_t arm = (uint64_t)(((wide)root * ONE_E12 + (wide)report[RHO] * y) / ONE_E12);
    wide variance = report[A] + (wide)((uwide)report[B] * arm / (uint64_t)ONE_E12);
    return variance < 1 ? 1 : variance > W_MAX ? W_MAX : (int64_t)variance;
}

/* surface.at_time: variance x now < 2^76. */
static int64_t at_time(int64_t variance, int64_t reported, int64_t now)
{
    if (!reported || !now)
        return 0;
    uwide scaled = (uwide)variance * (uint64_t)now / (uint64_t)reported;
    return scaled < 1 ? 1 : scaled > (uwide)W_MAX ? W_MAX : (int64_t)scaled;
}
