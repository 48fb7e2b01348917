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

/* the point with this x, below p, and this parity of y; 0: there is none */
static int lift(point *out, const uint64_t x[4], int parity)
{
    field square;
    field_from_words(&out->x, x);
    field_sqr(&square, &out->x);
    field_mul(&square, &square, &out->x);
    field_add(&square, &square, &SEVEN);
    field_carry(&square);
    if (!field_sqrt(&out->y, &square))
        return 0;
    field_normalize(&out->y);
    if ((int)(out->y.n[0] & 1) != parity) {
        field_negate(&out->y, &out->y, 1);
        field_carry(&out->y);
    }
    return 1;
}

static void point_negate(point *a)
{
    if (is_infinity(a))
        return;
    field_negate(&a->y, &a->y, 1);
    field_carry(&a->y);
}

/* out := a / b + c for one pair: lambda is the slope */
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

/* Sums pairs of a pool. No point is in two pairs. `run` and `gap` have room for as many. */
static void add_pairs(point *pool, const pair *pairs, size_t count, field *run, field *gap)
{
    /* gap: what the slope is divided by; run: the product of those before. A pair that needs no slope has none. */
    field product = {{1}};
    for (size_t i = 0; i < count; i++) {
        const point *a = &pool[pairs[i].to], *b = &pool[pairs[i].other];
        field *by = &gap[i];
        if (is_infinity(a) || is_infinity(b)) {
            memset(by, 0, sizeof *by);
            continue;
        }
        field_subtract(by, &b->x, &a->x);
        if (field_is_zero(by)) {
            field t;
            field_subtract(&t, &b->y, &a->y);
            if (field_is_zero(&t))
                field_add(by, &a->y, &a->y); /* the same point */
            else
                memset(by, 0, sizeof *by); /* opposite ones */
            field_carry(by);
            if (!(by->n[0] | by->n[1] | by->n[2] | by->n[3] | by->n[4]))
                continue;
        }
        run[i] = product;
        field_mul(&product, &product, by);
    }
    field inverse;
    field_inverse(&inverse, &product);
    for (size_t i = count; i-- > 0;) {
        point *a = &pool[pairs[i].to];
        const point *b = &pool[pairs[i].other];
        field *by = &gap[i];
        if (!(by->n[0] | by->n[1] | by->n[2] | by->n[3] | by->n[4])) {
            if (is_infinity(a))
                *a = *b;
            else if (!is_infinity(b))
                memset(a, 0, sizeof *a);
            continue;
        }
        field slope, over, rise;
        field_mul(&over, &inverse, &run[i]);
        field_mul(&inverse, &inverse, by);
        field_subtract(&rise, &b->x, &a->x);
        if (field_is_zero(&rise)) { /* tangent: 3 x^2 / 2 y */
            field_sqr(&slope, &a->x);
            field_add(&rise, &slope, &slope);
            field_add(&rise, &rise, &slope);
        } else
            field_subtract(&rise, &b->y, &a->y);
        field_mul(&slope, &rise, &over);
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
