/* Points of secp256k1, y^2 = x^3 + 7, in variable time.
 *
 * Sums of many points are taken in affine coordinates, many pairs at a time, with one inversion for all of them
 * (Montgomery's trick): 5 multiplications and a squaring a pair, half of what projective coordinates take. Formulas of
 * projective ones: EFD, short Weierstrass with a = 0, Jacobian, https://hyperelliptic.org/EFD/g1p/auto-shortw-jacobian-0.html
 */

typedef struct {
    field x, y; /* of magnitude 1; both 0: the point at infinity, as no point of the curve has y = 0 */
} point;

typedef struct {
    field x, y, z; /* of magnitude 1; x / z^2, y / z^3; z = 0: the point at infinity */
} jacobian;

typedef struct {
    uint32_t to, other; /* in a pool of points: to := to + other */
} pair;

#define PAIRS_AT_ONCE 512 /* a multiple of eight */
#define TABLE_STEP 8 /* bits */
#define TABLE_POINTS 32
#define POINT_SIZE 64 /* stored: x and y, words from the lowest */
#define TABLE_SIZE (TABLE_POINTS * POINT_SIZE)

static const field BETA = {{0x96C28719501EEull, 0x7512F58995C13ull, 0xC3434E99CF049ull, 0x07106E64479EAull,
                            0x7AE96A2B657Cull}}; /* see LAMBDA */
static const field SEVEN = {{7}};

static inline int is_infinity(const point *a)
{
    const uint64_t *n = a->y.n;
    return !(n[0] | n[1] | n[2] | n[3] | n[4]);
}

static int is_on_curve(const point *a)
{
    field left, right;
    field_sqr(&left, &a->y);
    field_sqr(&right, &a->x);
    field_mul(&right, &right, &a->x);
    field_add(&right, &right, &SEVEN);
    field_carry(&right);
    field_subtract(&left, &left, &right);
    return field_is_zero(&left);
}

/* y of one of the two points with this x; 0: there is none */
static int lift(point *a)
{
    field square;
    field_sqr(&square, &a->x);
    field_mul(&square, &square, &a->x);
    field_add(&square, &square, &SEVEN);
    field_carry(&square);
    return field_sqrt(&a->y, &square);
}

static void point_negate(point *a)
{
    if (is_infinity(a))
        return;
    field_negate(&a->y, &a->y, 1);
    field_carry(&a->y);
}

/* out := a + b, of which the chord has this slope */
static inline void chord(point *out, const point *a, const point *b, const field *slope)
{
    field x, y, t;
    field_sqr(&x, slope);
    field_add(&t, &a->x, &b->x);
    field_negate(&t, &t, 2);
    field_add(&x, &x, &t);
    field_carry(&x);
    field_subtract(&t, &a->x, &x);
    field_mul(&y, &t, slope);
    field_subtract(&y, &y, &a->y);
    field_carry(&y);
    out->x = x;
    out->y = y;
}

/* a := a + b, of the same x: b is a or its opposite */
static void add_of_same_x(point *a, const point *b)
{
    field slope, t;
    field_subtract(&t, &b->y, &a->y);
    if (!field_is_zero(&t)) {
        memset(a, 0, sizeof *a);
        return;
    }
    field_add(&t, &a->y, &a->y); /* the tangent: 3 x^2 / 2 y */
    field_inverse(&t, &t);
    field_sqr(&slope, &a->x);
    field_mul(&slope, &slope, &t);
    field_add(&t, &slope, &slope);
    field_add(&slope, &slope, &t);
    field_carry(&slope);
    chord(a, a, b, &slope);
}

/* Sums pairs of a pool, of which none is infinity, and no point is in two. `runs` and `gaps` have room for as many. */
static void add_pairs(point *pool, const pair *pairs, size_t count, field *runs, field *gaps)
{
    static const field none;
    field product = {{1}}, inverse; /* runs: the product of the gaps before */
    for (size_t i = 0; i < count; i++) {
        point *a = &pool[pairs[i].to];
        const point *b = &pool[pairs[i].other];
        field_subtract(&gaps[i], &b->x, &a->x);
        if (field_is_zero(&gaps[i])) {
            add_of_same_x(a, b);
            gaps[i] = none;
            continue;
        }
        runs[i] = product;
        field_mul(&product, &product, &gaps[i]);
    }
    field_inverse(&inverse, &product);
    for (size_t i = count; i-- > 0;) {
        if (!memcmp(&gaps[i], &none, sizeof none))
            continue;
        point *a = &pool[pairs[i].to];
        const point *b = &pool[pairs[i].other];
        field slope, rise;
        field_mul(&slope, &inverse, &runs[i]);
        field_mul(&inverse, &inverse, &gaps[i]);
        field_subtract(&rise, &b->y, &a->y);
        field_mul(&slope, &rise, &slope);
        chord(a, a, b, &slope);
    }
}

/* dbl-2009-l */
static void jacobian_double(jacobian *out, const jacobian *of)
{
    field a, b, c, d, e, f, t;
    field_sqr(&a, &of->x);
    field_sqr(&b, &of->y);
    field_sqr(&c, &b);
    field_add(&d, &of->x, &b);
    field_sqr(&d, &d);
    field_add(&t, &a, &c);
    field_negate(&t, &t, 2);
    field_add(&d, &d, &t);
    field_add(&d, &d, &d);
    field_carry(&d);
    field_add(&e, &a, &a);
    field_add(&e, &e, &a);
    field_sqr(&f, &e);
    field_mul(&t, &of->y, &of->z);
    field_add(&out->z, &t, &t);
    field_carry(&out->z);
    field_add(&t, &d, &d);
    field_negate(&t, &t, 2);
    field_add(&out->x, &f, &t);
    field_carry(&out->x);
    field_subtract(&t, &d, &out->x);
    field_mul(&out->y, &e, &t);
    for (int i = 0; i < 3; i++)
        field_add(&c, &c, &c);
    field_carry(&c);
    field_subtract(&out->y, &out->y, &c);
    field_carry(&out->y);
}

/* madd-2004-hmv, and what it does not hold for */
static void jacobian_add(jacobian *a, const point *b)
{
    field zz, u, s, h, hh, hhh, r, v, t;
    if (is_infinity(b))
        return;
    if (field_is_zero(&a->z)) {
        a->x = b->x;
        a->y = b->y;
        a->z = (field){{1}};
        return;
    }
    field_sqr(&zz, &a->z);
    field_mul(&u, &b->x, &zz);
    field_mul(&s, &b->y, &a->z);
    field_mul(&s, &s, &zz);
    field_subtract(&h, &u, &a->x);
    field_subtract(&r, &s, &a->y);
    if (field_is_zero(&h)) {
        if (field_is_zero(&r))
            jacobian_double(a, a);
        else
            memset(a, 0, sizeof *a);
        return;
    }
    field_mul(&a->z, &a->z, &h);
    field_sqr(&hh, &h);
    field_mul(&hhh, &hh, &h);
    field_mul(&v, &a->x, &hh);
    field_mul(&s, &a->y, &hhh);
    field_sqr(&t, &r);
    field_add(&u, &v, &v);
    field_add(&u, &u, &hhh);
    field_negate(&u, &u, 3);
    field_add(&a->x, &t, &u);
    field_carry(&a->x);
    field_subtract(&t, &v, &a->x);
    field_mul(&t, &t, &r);
    field_subtract(&a->y, &t, &s);
    field_carry(&a->y);
}

static void point_store(uint8_t out[POINT_SIZE], const point *a)
{
    uint64_t w[8];
    field_to_words(w, &a->x);
    field_to_words(w + 4, &a->y);
    memcpy(out, w, POINT_SIZE);
}

static inline void point_load(point *out, const uint8_t from[POINT_SIZE])
{
    uint64_t w[8];
    memcpy(w, from, POINT_SIZE);
    field_from_words(&out->x, w);
    field_from_words(&out->y, w + 4);
}

/* x and y, big-endian; 0: no point of the curve */
static int point_from_bytes(point *out, const uint8_t bytes[POINT_SIZE])
{
    static const uint64_t prime[4] = {0xFFFFFFFEFFFFFC2Full, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    uint64_t x[4], y[4];
    words_from_bytes(x, bytes);
    words_from_bytes(y, bytes + 32);
    if (!words_below(x, prime) || !words_below(y, prime))
        return 0;
    field_from_words(&out->x, x);
    field_from_words(&out->y, y);
    return is_on_curve(out);
}

/* The table of a point: its multiples by 2^(8 j), j from 0 to 31, stored. None is infinity, as the order is a prime. */
static void make_table(uint8_t out[TABLE_SIZE], const point *of)
{
    jacobian multiples[TABLE_POINTS], now = {of->x, of->y, {{1}}};
    field runs[TABLE_POINTS], product = {{1}}, inverse;
    for (int j = 0; j < TABLE_POINTS; j++) {
        multiples[j] = now;
        runs[j] = product;
        field_mul(&product, &product, &now.z);
        for (int i = 0; i < TABLE_STEP && j < TABLE_POINTS - 1; i++)
            jacobian_double(&now, &now);
    }
    field_inverse(&inverse, &product);
    for (int j = TABLE_POINTS - 1; j >= 0; j--) {
        field over, square;
        point one;
        field_mul(&over, &inverse, &runs[j]);
        field_mul(&inverse, &inverse, &multiples[j].z);
        field_sqr(&square, &over);
        field_mul(&one.x, &multiples[j].x, &square);
        field_mul(&square, &square, &over);
        field_mul(&one.y, &multiples[j].y, &square);
        point_store(out + j * POINT_SIZE, &one);
    }
}
