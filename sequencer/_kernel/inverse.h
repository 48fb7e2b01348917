/* Inverses modulo a prime of 256 bits, in variable time: the "safegcd" of Bernstein and Yang
 * (https://gcd.cr.yp.to/safegcd-20190413.pdf), 62 division steps at a time on the lowest words only, as libsecp256k1's
 * doc/safegcd_implementation.md derives them.
 */

typedef __int128 int128;
typedef unsigned __int128 uint128;

#define WORD62 (UINT64_MAX >> 2)

typedef struct {
    int64_t v[5]; /* sum of v[i] * 2^(62 i); the highest has the sign */
} signed62;

typedef struct {
    signed62 modulus;
    uint64_t inverse62; /* of the modulus, modulo 2^62 */
} modulus_facts;

typedef struct {
    int64_t u, v, q, r; /* of 62 steps: f' = (u f + v g) / 2^62, g' = (q f + r g) / 2^62 */
} steps62;

static signed62 to_signed62(const uint64_t a[4])
{
    signed62 out = {{
        (int64_t)(a[0] & WORD62), (int64_t)((a[0] >> 62 | a[1] << 2) & WORD62),
        (int64_t)((a[1] >> 60 | a[2] << 4) & WORD62), (int64_t)((a[2] >> 58 | a[3] << 6) & WORD62),
        (int64_t)(a[3] >> 56),
    }};
    return out;
}

static void from_signed62(uint64_t out[4], const signed62 *a)
{
    const int64_t *v = a->v;
    out[0] = (uint64_t)v[0] | (uint64_t)v[1] << 62;
    out[1] = (uint64_t)v[1] >> 2 | (uint64_t)v[2] << 60;
    out[2] = (uint64_t)v[2] >> 4 | (uint64_t)v[3] << 58;
    out[3] = (uint64_t)v[3] >> 6 | (uint64_t)v[4] << 56;
}

/* 62 division steps from the lowest words; returns eta (minus the delta of the paper) after them */
static int64_t divide62(int64_t eta, uint64_t f, uint64_t g, steps62 *out)
{
    uint64_t u = 1, v = 0, q = 0, r = 1;
    for (int left = 62;;) {
        int zeros = __builtin_ctzll(g | UINT64_MAX << left);
        g >>= zeros;
        u <<= zeros;
        v <<= zeros;
        eta -= zeros;
        left -= zeros;
        if (!left)
            break;
        uint64_t times, was;
        if (eta < 0) {
            eta = -eta;
            was = f, f = g, g = -was;
            was = u, u = q, q = -was;
            was = v, v = r, r = -was;
        }
        /* as many of the lowest bits of g as may go at once, at most six: add the multiple of f that clears them */
        int bits = eta + 1 > left ? left : (int)(eta + 1);
        times = f * g * (f * f - 2) & UINT64_MAX >> (64 - bits) & 63; /* -g / f modulo 2^6 */
        g += f * times;
        q += u * times;
        r += v * times;
    }
    out->u = (int64_t)u, out->v = (int64_t)v, out->q = (int64_t)q, out->r = (int64_t)r;
    return eta;
}

/* d, e := (u d + v e) / 2^62, (q d + r e) / 2^62 modulo the modulus, both in (-2 m, m) */
static void update_de(signed62 *d, signed62 *e, const steps62 *t, const modulus_facts *facts)
{
    const int64_t *m = facts->modulus.v, u = t->u, v = t->v, q = t->q, r = t->r;
    int64_t d_sign = d->v[4] >> 63, e_sign = e->v[4] >> 63;
    int64_t md = (u & d_sign) + (v & e_sign), me = (q & d_sign) + (r & e_sign);
    int128 cd = (int128)u * d->v[0] + (int128)v * e->v[0], ce = (int128)q * d->v[0] + (int128)r * e->v[0];
    md -= (int64_t)((facts->inverse62 * (uint64_t)cd + (uint64_t)md) & WORD62);
    me -= (int64_t)((facts->inverse62 * (uint64_t)ce + (uint64_t)me) & WORD62);
    cd = (cd + (int128)m[0] * md) >> 62;
    ce = (ce + (int128)m[0] * me) >> 62;
    for (int i = 1; i < 5; i++) {
        int64_t di = d->v[i], ei = e->v[i];
        cd += (int128)u * di + (int128)v * ei + (int128)m[i] * md;
        ce += (int128)q * di + (int128)r * ei + (int128)m[i] * me;
        d->v[i - 1] = (int64_t)((uint64_t)cd & WORD62), cd >>= 62;
        e->v[i - 1] = (int64_t)((uint64_t)ce & WORD62), ce >>= 62;
    }
    d->v[4] = (int64_t)cd;
    e->v[4] = (int64_t)ce;
}

static void update_fg(int length, signed62 *f, signed62 *g, const steps62 *t)
{
    int64_t u = t->u, v = t->v, q = t->q, r = t->r;
    int128 cf = ((int128)u * f->v[0] + (int128)v * g->v[0]) >> 62;
    int128 cg = ((int128)q * f->v[0] + (int128)r * g->v[0]) >> 62;
    for (int i = 1; i < length; i++) {
        int64_t fi = f->v[i], gi = g->v[i];
        cf += (int128)u * fi + (int128)v * gi;
        cg += (int128)q * fi + (int128)r * gi;
        f->v[i - 1] = (int64_t)((uint64_t)cf & WORD62), cf >>= 62;
        g->v[i - 1] = (int64_t)((uint64_t)cg & WORD62), cg >>= 62;
    }
    f->v[length - 1] = (int64_t)cf;
    g->v[length - 1] = (int64_t)cg;
}

static void carry62(signed62 *a)
{
    for (int i = 0; i < 4; i++) {
        a->v[i + 1] += a->v[i] >> 62;
        a->v[i] &= (int64_t)WORD62;
    }
}

static void add_modulus_if_negative(signed62 *a, const modulus_facts *facts)
{
    if (a->v[4] < 0)
        for (int i = 0; i < 5; i++)
            a->v[i] += facts->modulus.v[i];
}

/* of a in 0 .. modulus - 1, words from the lowest; that of 0 is 0 */
static void inverse_of(uint64_t out[4], const uint64_t a[4], const modulus_facts *facts)
{
    signed62 d = {{0}}, e = {{1}}, f = facts->modulus, g = to_signed62(a);
    int64_t eta = -1;
    for (int length = 5;;) {
        steps62 t;
        eta = divide62(eta, (uint64_t)f.v[0], (uint64_t)g.v[0], &t);
        update_de(&d, &e, &t, facts);
        update_fg(length, &f, &g, &t);
        int64_t rest = 0;
        for (int i = 0; i < length; i++)
            rest |= g.v[i];
        if (!rest) {
            /* f is 1 or -1, or the modulus if a is 0; d is the inverse times f */
            add_modulus_if_negative(&d, facts);
            if (f.v[length - 1] < 0)
                for (int i = 0; i < 5; i++)
                    d.v[i] = -d.v[i];
            carry62(&d);
            add_modulus_if_negative(&d, facts);
            carry62(&d);
            from_signed62(out, &d);
            return;
        }
        int64_t fn = f.v[length - 1], gn = g.v[length - 1];
        if (length > 1 && !(fn ^ fn >> 63) && !(gn ^ gn >> 63)) { /* the highest are signs only */
            f.v[length - 2] |= (int64_t)((uint64_t)fn << 62);
            g.v[length - 2] |= (int64_t)((uint64_t)gn << 62);
            length--;
        }
    }
}
