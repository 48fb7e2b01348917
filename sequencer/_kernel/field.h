/* Arithmetic modulo p = 2^256 - 0x1000003D1, the field of secp256k1, in variable time: for what is public only.
 *
 * Five words of 52 bits, the highest of 48, with room above for sums: an element of magnitude m has words up to 2 m times
 * their full value. mul and sqr take magnitudes up to 8 and give 1; add adds magnitudes; negate of m gives m + 1; carry
 * gives 1. After libsecp256k1's src/field_5x52_impl.h and field_5x52_int128_impl.h.
 */

#define WORD52 (UINT64_MAX >> 12)
#define WORD48 (UINT64_MAX >> 16)
#define FOLD 0x1000003D1u       /* 2^256 modulo p */
#define FOLD260 (0x1000003D1ull << 4) /* 2^260 modulo p */
#define LOWEST_OF_P 0xFFFFEFFFFFC2Full

typedef struct {
    uint64_t n[5];
} field;

static const modulus_facts FIELD_FACTS = {
    {{-0x1000003D1ll, 0, 0, 0, 256}}, 0x27C7F6E22DDACACFull,
};

static inline void field_mul(field *out, const field *left, const field *right)
{
    uint64_t a0 = left->n[0], a1 = left->n[1], a2 = left->n[2], a3 = left->n[3], a4 = left->n[4];
    const uint64_t *b = right->n;
    uint64_t b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3], b4 = b[4];
    /* columns 3 and 4 first, with 8 folded; then 5 onto 0, 6 onto 1, 7 onto 2 */
    uint128 d = (uint128)a0 * b3 + (uint128)a1 * b2 + (uint128)a2 * b1 + (uint128)a3 * b0;
    uint128 c = (uint128)a4 * b4;
    d += (uint128)FOLD260 * (uint64_t)c, c >>= 64;
    uint64_t t3 = (uint64_t)d & WORD52;
    d >>= 52;
    d += (uint128)a0 * b4 + (uint128)a1 * b3 + (uint128)a2 * b2 + (uint128)a3 * b1 + (uint128)a4 * b0;
    d += (uint128)(FOLD260 << 12) * (uint64_t)c;
    uint64_t t4 = (uint64_t)d & WORD52;
    d >>= 52;
    uint64_t over = t4 >> 48;
    t4 &= WORD48;
    c = (uint128)a0 * b0;
    d += (uint128)a1 * b4 + (uint128)a2 * b3 + (uint128)a3 * b2 + (uint128)a4 * b1;
    uint64_t u0 = ((uint64_t)d & WORD52) << 4 | over;
    d >>= 52;
    c += (uint128)u0 * FOLD;
    out->n[0] = (uint64_t)c & WORD52, c >>= 52;
    c += (uint128)a0 * b1 + (uint128)a1 * b0;
    d += (uint128)a2 * b4 + (uint128)a3 * b3 + (uint128)a4 * b2;
    c += (uint128)((uint64_t)d & WORD52) * FOLD260, d >>= 52;
    out->n[1] = (uint64_t)c & WORD52, c >>= 52;
    c += (uint128)a0 * b2 + (uint128)a1 * b1 + (uint128)a2 * b0;
    d += (uint128)a3 * b4 + (uint128)a4 * b3;
    c += (uint128)FOLD260 * (uint64_t)d, d >>= 64;
    out->n[2] = (uint64_t)c & WORD52, c >>= 52;
    c += (uint128)(FOLD260 << 12) * (uint64_t)d + t3;
    out->n[3] = (uint64_t)c & WORD52, c >>= 52;
    out->n[4] = (uint64_t)c + t4;
}

static inline void field_sqr(field *out, const field *of)
{
    uint64_t a0 = of->n[0], a1 = of->n[1], a2 = of->n[2], a3 = of->n[3], a4 = of->n[4];
    uint128 d = (uint128)(a0 * 2) * a3 + (uint128)(a1 * 2) * a2;
    uint128 c = (uint128)a4 * a4;
    d += (uint128)FOLD260 * (uint64_t)c, c >>= 64;
    uint64_t t3 = (uint64_t)d & WORD52;
    d >>= 52;
    a4 *= 2;
    d += (uint128)a0 * a4 + (uint128)(a1 * 2) * a3 + (uint128)a2 * a2;
    d += (uint128)(FOLD260 << 12) * (uint64_t)c;
    uint64_t t4 = (uint64_t)d & WORD52;
    d >>= 52;
    uint64_t over = t4 >> 48;
    t4 &= WORD48;
    c = (uint128)a0 * a0;
    d += (uint128)a1 * a4 + (uint128)(a2 * 2) * a3;
    uint64_t u0 = ((uint64_t)d & WORD52) << 4 | over;
    d >>= 52;
    c += (uint128)u0 * FOLD;
    out->n[0] = (uint64_t)c & WORD52, c >>= 52;
    a0 *= 2;
    c += (uint128)a0 * a1;
    d += (uint128)a2 * a4 + (uint128)a3 * a3;
    c += (uint128)((uint64_t)d & WORD52) * FOLD260, d >>= 52;
    out->n[1] = (uint64_t)c & WORD52, c >>= 52;
    c += (uint128)a0 * a2 + (uint128)a1 * a1;
    d += (uint128)a3 * a4;
    c += (uint128)FOLD260 * (uint64_t)d, d >>= 64;
    out->n[2] = (uint64_t)c & WORD52, c >>= 52;
    c += (uint128)(FOLD260 << 12) * (uint64_t)d + t3;
    out->n[3] = (uint64_t)c & WORD52, c >>= 52;
    out->n[4] = (uint64_t)c + t4;
}

static inline void field_add(field *out, const field *a, const field *b)
{
    for (int i = 0; i < 5; i++)
        out->n[i] = a->n[i] + b->n[i];
}

/* out := -a, of magnitude m */
static inline void field_negate(field *out, const field *a, int m)
{
    uint64_t times = 2 * (uint64_t)(m + 1);
    out->n[0] = LOWEST_OF_P * times - a->n[0];
    for (int i = 1; i < 4; i++)
        out->n[i] = WORD52 * times - a->n[i];
    out->n[4] = WORD48 * times - a->n[4];
}

/* out := a - b, b of magnitude 1: adds 2 to the magnitude of a */
static inline void field_subtract(field *out, const field *a, const field *b)
{
    field minus;
    field_negate(&minus, b, 1);
    field_add(out, a, &minus);
}

/* to magnitude 1 */
static inline void field_carry(field *a)
{
    uint64_t *n = a->n, over = n[4] >> 48;
    n[4] &= WORD48;
    n[0] += over * FOLD;
    n[1] += n[0] >> 52, n[0] &= WORD52;
    n[2] += n[1] >> 52, n[1] &= WORD52;
    n[3] += n[2] >> 52, n[2] &= WORD52;
    n[4] += n[3] >> 52, n[3] &= WORD52;
}

/* to the one representation in 0 .. p - 1 */
static void field_normalize(field *a)
{
    uint64_t *n = a->n;
    field_carry(a);
    if (n[4] >> 48 ||
        (n[4] == WORD48 && (n[3] & n[2] & n[1]) == WORD52 && n[0] >= LOWEST_OF_P)) { /* at least p: subtract it once */
        n[0] += FOLD;
        n[1] += n[0] >> 52, n[0] &= WORD52;
        n[2] += n[1] >> 52, n[1] &= WORD52;
        n[3] += n[2] >> 52, n[2] &= WORD52;
        n[4] += n[3] >> 52, n[3] &= WORD52;
        n[4] &= WORD48;
    }
}

static int field_is_zero(const field *a)
{
    field t = *a;
    field_carry(&t); /* now below 2 p: it is 0 or p */
    if (t.n[0] && t.n[0] != LOWEST_OF_P)
        return 0;
    return !(t.n[0] | t.n[1] | t.n[2] | t.n[3] | t.n[4]) ||
           (t.n[0] == LOWEST_OF_P && (t.n[1] & t.n[2] & t.n[3]) == WORD52 && t.n[4] == WORD48);
}

/* words of 64 bits, the lowest first */
static inline void field_from_words(field *out, const uint64_t w[4])
{
    out->n[0] = w[0] & WORD52;
    out->n[1] = (w[0] >> 52 | w[1] << 12) & WORD52;
    out->n[2] = (w[1] >> 40 | w[2] << 24) & WORD52;
    out->n[3] = (w[2] >> 28 | w[3] << 36) & WORD52;
    out->n[4] = w[3] >> 16;
}

static inline void field_to_words(uint64_t w[4], const field *a)
{
    field t = *a;
    field_normalize(&t);
    w[0] = t.n[0] | t.n[1] << 52;
    w[1] = t.n[1] >> 12 | t.n[2] << 40;
    w[2] = t.n[2] >> 24 | t.n[3] << 28;
    w[3] = t.n[3] >> 36 | t.n[4] << 16;
}

/* that of 0 is 0 */
static void field_inverse(field *out, const field *a)
{
    uint64_t w[4];
    field_to_words(w, a);
    inverse_of(w, w, &FIELD_FACTS);
    field_from_words(out, w);
}

static inline void field_sqr_times(field *out, const field *a, int times)
{
    field t = *a; /* stays in registers */
    while (times--)
        field_sqr(&t, &t);
    *out = t;
}

/* out := a^((p + 1) / 4), which is a square root if there is one; 0: there is none. The chain is libsecp256k1's: the
 * exponent in binary is a run of 223 ones, one of 22, and 2, with zeros between */
static int field_sqrt(field *out, const field *a)
{
    field x2, x3, x6, x9, x11, x22, x44, x88, x176, x220, x223, t;
    field_sqr(&t, a), field_mul(&x2, &t, a);
    field_sqr(&t, &x2), field_mul(&x3, &t, a);
    field_sqr_times(&t, &x3, 3), field_mul(&x6, &t, &x3);
    field_sqr_times(&t, &x6, 3), field_mul(&x9, &t, &x3);
    field_sqr_times(&t, &x9, 2), field_mul(&x11, &t, &x2);
    field_sqr_times(&t, &x11, 11), field_mul(&x22, &t, &x11);
    field_sqr_times(&t, &x22, 22), field_mul(&x44, &t, &x22);
    field_sqr_times(&t, &x44, 44), field_mul(&x88, &t, &x44);
    field_sqr_times(&t, &x88, 88), field_mul(&x176, &t, &x88);
    field_sqr_times(&t, &x176, 44), field_mul(&x220, &t, &x44);
    field_sqr_times(&t, &x220, 3), field_mul(&x223, &t, &x3);
    field_sqr_times(&t, &x223, 23), field_mul(&t, &t, &x22);
    field_sqr_times(&t, &t, 6), field_mul(&t, &t, &x2);
    field_sqr_times(out, &t, 2);
    field_sqr(&t, out);
    field_subtract(&t, &t, a);
    return field_is_zero(&t);
}
