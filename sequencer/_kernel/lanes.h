/* The field in vector lanes, eight elements at a time, where the processor multiplies integers of 52 bits in them
 * (AVX-512 IFMA): square roots and sums of pairs as in points.h, at a third of the time.
 *
 * Five vectors of words of 52 bits. An element is tight as mul8 leaves it: its highest word at most a little above 2^48;
 * loose: any words below 2^52, which is all that mul8 needs.
 */

#if defined(__x86_64__)
#include <immintrin.h>

static int has_field_lanes;

#define IFMA __attribute__((target("avx512f,avx512ifma")))
#define IFMA_INLINE static inline __attribute__((target("avx512f,avx512ifma"), always_inline))
#define LANES 8
#define PAIRS_FOR_LANES 16 /* for fewer the inversion of sixteen products costs more than the lanes save */
#define WORDS_OF_POINT (sizeof(point) / 8)

typedef struct {
    __m512i n[5];
} field8;

#define ALL(x) _mm512_set1_epi64((long long)(x))
#define ADD8 _mm512_add_epi64
#define SHIFT8 _mm512_srli_epi64

IFMA_INLINE void ripple8(__m512i *n, int count)
{
    for (int i = 0; i < count - 1; i++) {
        n[i + 1] = ADD8(n[i + 1], SHIFT8(n[i], 52));
        n[i] = _mm512_and_si512(n[i], ALL(WORD52));
    }
}

/* c: ten columns below 2^60, of a product of two loose elements, and hence below 2^520 in all */
IFMA_INLINE void fold8(field8 *out, __m512i *c)
{
    __m512i over = _mm512_setzero_si512();
    ripple8(c + 5, 5);
    for (int i = 0; i < 5; i++) {
        c[i] = _mm512_madd52lo_epu64(c[i], c[5 + i], ALL(FOLD260));
        if (i < 4)
            c[i + 1] = _mm512_madd52hi_epu64(c[i + 1], c[5 + i], ALL(FOLD260));
        else
            over = _mm512_madd52hi_epu64(over, c[5 + i], ALL(FOLD260));
    }
    ripple8(c, 5);
    over = ADD8(_mm512_slli_epi64(over, 4), SHIFT8(c[4], 48));
    c[4] = _mm512_and_si512(c[4], ALL(WORD48));
    c[0] = _mm512_madd52lo_epu64(c[0], over, ALL(FOLD));
    c[1] = _mm512_madd52hi_epu64(c[1], over, ALL(FOLD));
    ripple8(c, 5);
    for (int i = 0; i < 5; i++)
        out->n[i] = c[i];
}

IFMA_INLINE void mul8(field8 *out, const field8 *a, const field8 *b)
{
    __m512i low[10], high[10];
    for (int i = 0; i < 10; i++)
        low[i] = high[i] = _mm512_setzero_si512();
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            low[i + j] = _mm512_madd52lo_epu64(low[i + j], a->n[i], b->n[j]);
            high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], a->n[i], b->n[j]);
        }
    for (int i = 0; i < 10; i++)
        low[i] = ADD8(low[i], high[i]);
    fold8(out, low);
}

IFMA_INLINE void sqr8(field8 *out, const field8 *a)
{
    __m512i low[10], high[10];
    for (int i = 0; i < 10; i++)
        low[i] = high[i] = _mm512_setzero_si512();
    for (int i = 0; i < 5; i++)
        for (int j = i + 1; j < 5; j++) {
            low[i + j] = _mm512_madd52lo_epu64(low[i + j], a->n[i], a->n[j]);
            high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], a->n[i], a->n[j]);
        }
    for (int i = 0; i < 10; i++) {
        low[i] = ADD8(low[i], high[i]);
        low[i] = ADD8(low[i], low[i]);
    }
    for (int i = 0; i < 5; i++) {
        low[2 * i] = _mm512_madd52lo_epu64(low[2 * i], a->n[i], a->n[i]);
        low[2 * i + 1] = _mm512_madd52hi_epu64(low[2 * i + 1], a->n[i], a->n[i]);
    }
    fold8(out, low);
}

static const uint64_t PRIME52[5] = {LOWEST_OF_P, WORD52, WORD52, WORD52, WORD48};

/* a - b, both tight; loose */
IFMA_INLINE void subtract8(field8 *out, const field8 *a, const field8 *b)
{
    for (int i = 0; i < 5; i++)
        out->n[i] = _mm512_sub_epi64(ADD8(a->n[i], ALL(2 * PRIME52[i])), b->n[i]);
    ripple8(out->n, 5);
}

/* to a tight one, of words below 2^60 */
IFMA_INLINE void tighten8(field8 *a)
{
    __m512i over = SHIFT8(a->n[4], 48);
    a->n[4] = _mm512_and_si512(a->n[4], ALL(WORD48));
    a->n[0] = _mm512_madd52lo_epu64(a->n[0], over, ALL(FOLD));
    ripple8(a->n, 5);
}

/* the lanes in which a difference of two tight elements, by subtract8, is zero: p, 2 p or 3 p as it stands there */
IFMA_INLINE __mmask8 are_zero8(const field8 *a)
{
    __mmask8 out = 0;
    for (uint64_t times = 1; times <= 3; times++) {
        __mmask8 same = _mm512_cmpeq_epi64_mask(a->n[0], ALL(LOWEST_OF_P * times & WORD52));
        if (__builtin_expect(!same, 1))
            continue;
        uint64_t carry = LOWEST_OF_P * times >> 52;
        for (int i = 1; i < 5; i++) {
            uint64_t word = PRIME52[i] * times + carry;
            same &= _mm512_cmpeq_epi64_mask(a->n[i], ALL(i < 4 ? word & WORD52 : word));
            carry = word >> 52;
        }
        out |= same;
    }
    return out;
}

IFMA_INLINE void get8(field8 *out, const uint64_t *pool, __m512i at)
{
    for (int i = 0; i < 5; i++)
        out->n[i] = _mm512_i64gather_epi64(at, pool + i, 8);
}

IFMA_INLINE void put8(uint64_t *pool, __mmask8 lanes, __m512i at, const field8 *a)
{
    for (int i = 0; i < 5; i++)
        _mm512_mask_i64scatter_epi64(pool + i, lanes, at, a->n[i], 8);
}

IFMA_INLINE void sqr_times8(field8 *out, const field8 *a, int times)
{
    field8 t = *a;
    while (times--)
        sqr8(&t, &t);
    *out = t;
}

/* field_sqrt in each lane; returns those in which there is a root */
IFMA static __mmask8 sqrt8(field8 *out, const field8 *a)
{
    field8 x2, x3, x6, x9, x11, x22, x44, x88, x176, x220, x223, t;
    sqr8(&t, a), mul8(&x2, &t, a);
    sqr8(&t, &x2), mul8(&x3, &t, a);
    sqr_times8(&t, &x3, 3), mul8(&x6, &t, &x3);
    sqr_times8(&t, &x6, 3), mul8(&x9, &t, &x3);
    sqr_times8(&t, &x9, 2), mul8(&x11, &t, &x2);
    sqr_times8(&t, &x11, 11), mul8(&x22, &t, &x11);
    sqr_times8(&t, &x22, 22), mul8(&x44, &t, &x22);
    sqr_times8(&t, &x44, 44), mul8(&x88, &t, &x44);
    sqr_times8(&t, &x88, 88), mul8(&x176, &t, &x88);
    sqr_times8(&t, &x176, 44), mul8(&x220, &t, &x44);
    sqr_times8(&t, &x220, 3), mul8(&x223, &t, &x3);
    sqr_times8(&t, &x223, 23), mul8(&t, &t, &x22);
    sqr_times8(&t, &t, 6), mul8(&t, &t, &x2);
    sqr_times8(out, &t, 2);
    sqr8(&t, out);
    subtract8(&t, &t, a);
    return are_zero8(&t);
}

/* lift of the x of up to eight points, to any of the two y; the lanes in which there is one */
IFMA static unsigned lift8(point *points, size_t count)
{
    uint64_t words[LANES * WORDS_OF_POINT] = {0};
    memcpy(words, points, count * sizeof *points);
    __m512i at = _mm512_setr_epi64(0, 10, 20, 30, 40, 50, 60, 70);
    field8 x, square, root;
    get8(&x, words, at);
    sqr8(&square, &x);
    mul8(&square, &square, &x);
    square.n[0] = ADD8(square.n[0], ALL(7));
    tighten8(&square);
    __mmask8 there = sqrt8(&root, &square);
    put8(words + 5, 0xFF, at, &root);
    memcpy(points, words, count * sizeof *points);
    return there;
}

/* add_pairs; `runs` and `gaps` have room for as many as there are pairs, rounded up to eight */
IFMA static void add_pairs8(point *pool, const pair *pairs, size_t count, field8 *runs, field8 *gaps)
{
    uint64_t *words = (uint64_t *)pool;
    size_t groups = (count + LANES - 1) / LANES;
    __mmask8 added[PAIRS_AT_ONCE / LANES]; /* the lanes that are summed here */
    field8 product[2]; /* two chains, by turns: one multiplication need not wait for the one before */
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 5; i++)
            product[k].n[i] = ALL(i == 0);
    for (size_t g = 0; g < groups; g++) {
        __mmask8 lanes = count - g * LANES >= LANES ? 0xFF : (__mmask8)((1u << (count - g * LANES)) - 1);
        __m512i both = _mm512_maskz_loadu_epi64(lanes, pairs + g * LANES);
        __m512i to = _mm512_and_si512(both, ALL(UINT32_MAX)), other = SHIFT8(both, 32);
        to = ADD8(_mm512_slli_epi64(to, 3), ADD8(to, to)); /* ten words each */
        other = ADD8(_mm512_slli_epi64(other, 3), ADD8(other, other));
        field8 a, b, gap;
        get8(&a, words, to);
        get8(&b, words, other);
        subtract8(&gap, &b, &a);
        __mmask8 same = are_zero8(&gap) & lanes;
        for (unsigned rest = same; rest; rest &= rest - 1) {
            const pair *one = &pairs[g * LANES + (unsigned)__builtin_ctz(rest)];
            add_of_same_x(&pool[one->to], &pool[one->other]);
        }
        lanes &= (__mmask8)~same;
        for (int i = 0; i < 5; i++)
            gap.n[i] = _mm512_mask_mov_epi64(ALL(i == 0), lanes, gap.n[i]);
        added[g] = lanes;
        runs[g] = product[g & 1];
        gaps[g] = gap;
        mul8(&product[g & 1], &product[g & 1], &gap);
    }
    /* the inverses of sixteen products, from one inversion */
    uint64_t lanes[2][5][LANES];
    field each[2 * LANES], before[2 * LANES], all = {{1}}, inverse;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 5; i++)
            _mm512_storeu_si512(lanes[k][i], product[k].n[i]);
    for (int l = 0; l < 2 * LANES; l++) {
        for (int i = 0; i < 5; i++)
            each[l].n[i] = lanes[l / LANES][i][l % LANES];
        before[l] = all;
        field_mul(&all, &all, &each[l]);
    }
    field_inverse(&inverse, &all);
    for (int l = 2 * LANES - 1; l >= 0; l--) {
        field one;
        field_mul(&one, &inverse, &before[l]);
        field_mul(&inverse, &inverse, &each[l]);
        for (int i = 0; i < 5; i++)
            lanes[l / LANES][i][l % LANES] = one.n[i];
    }
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 5; i++)
            product[k].n[i] = _mm512_loadu_si512(lanes[k][i]);
    for (size_t g = groups; g-- > 0;) {
        __mmask8 known = count - g * LANES >= LANES ? 0xFF : (__mmask8)((1u << (count - g * LANES)) - 1);
        __m512i both = _mm512_maskz_loadu_epi64(known, pairs + g * LANES);
        __m512i to = _mm512_and_si512(both, ALL(UINT32_MAX)), other = SHIFT8(both, 32);
        to = ADD8(_mm512_slli_epi64(to, 3), ADD8(to, to));
        other = ADD8(_mm512_slli_epi64(other, 3), ADD8(other, other));
        field8 over, slope, t, ax, ay, bx, by;
        mul8(&over, &product[g & 1], &runs[g]);
        mul8(&product[g & 1], &product[g & 1], &gaps[g]);
        get8(&ay, words + 5, to);
        get8(&by, words + 5, other);
        subtract8(&t, &by, &ay);
        mul8(&slope, &t, &over);
        get8(&ax, words, to);
        get8(&bx, words, other);
        sqr8(&t, &slope);
        for (int i = 0; i < 5; i++)
            t.n[i] = _mm512_sub_epi64(ADD8(t.n[i], ALL(4 * PRIME52[i])), ADD8(ax.n[i], bx.n[i]));
        tighten8(&t);
        put8(words, added[g], to, &t);
        subtract8(&t, &ax, &t);
        mul8(&t, &t, &slope);
        for (int i = 0; i < 5; i++)
            t.n[i] = _mm512_sub_epi64(ADD8(t.n[i], ALL(2 * PRIME52[i])), ay.n[i]);
        tighten8(&t);
        put8(words + 5, added[g], to, &t);
    }
}

static void choose_field(void)
{
    has_field_lanes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma");
}
#else
static void choose_field(void) {}
#endif
