/* Arithmetic modulo n, the order of secp256k1's group, in variable time: four words of 64 bits, the lowest first, always
 * below n.
 */

typedef struct {
    uint64_t w[4];
} scalar;

static const scalar ORDER = {{0xBFD25E8CD0364141ull, 0xBAAEDCE6AF48A03Bull, 0xFFFFFFFFFFFFFFFEull, UINT64_MAX}};
static const uint64_t ORDER_FOLD[3] = {0x402DA1732FC9BEBFull, 0x4551231950B75FC4ull, 1}; /* 2^256 modulo n */
static const modulus_facts ORDER_FACTS = {
    {{0x3FD25E8CD0364141ll, 0x2ABB739ABD2280EEll, -0x15ll, 0, 256}}, 0x34F20099AA774EC1ull,
};
/* a cube root of 1: lambda * (x, y) = (beta * x, y); "Faster Point Multiplication on Elliptic Curves with Efficient
 * Endomorphisms", Gallant, Lambert and Vanstone */
static const scalar LAMBDA = {
    {0xDF02967C1B23BD72ull, 0x122E22EA20816678ull, 0xA5261C028812645Aull, 0x5363AD4CC05C30E0ull}};

static void words_from_bytes(uint64_t out[4], const uint8_t bytes[32])
{
    for (int i = 0; i < 4; i++) {
        memcpy(&out[i], bytes + 24 - 8 * i, 8);
        out[i] = __builtin_bswap64(out[i]);
    }
}

static int words_below(const uint64_t a[4], const uint64_t b[4])
{
    for (int i = 3; i >= 0; i--)
        if (a[i] != b[i])
            return a[i] < b[i];
    return 0;
}

static uint64_t words_subtract(uint64_t out[4], const uint64_t a[4], const uint64_t b[4])
{
    uint64_t borrow = 0;
    for (int i = 0; i < 4; i++) {
        uint128 t = (uint128)a[i] - b[i] - borrow;
        out[i] = (uint64_t)t;
        borrow = (uint64_t)(t >> 64) & 1;
    }
    return borrow;
}

static inline int scalar_is_zero(const scalar *a)
{
    return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

/* of 32 bytes, big-endian, modulo n */
static void scalar_from_bytes(scalar *out, const uint8_t bytes[32])
{
    words_from_bytes(out->w, bytes);
    if (!words_below(out->w, ORDER.w))
        words_subtract(out->w, out->w, ORDER.w);
}

static void scalar_add(scalar *out, const scalar *a, const scalar *b)
{
    uint128 c = 0;
    for (int i = 0; i < 4; i++) {
        c += (uint128)a->w[i] + b->w[i];
        out->w[i] = (uint64_t)c, c >>= 64;
    }
    if (c || !words_below(out->w, ORDER.w))
        words_subtract(out->w, out->w, ORDER.w);
}

static void scalar_negate(scalar *out, const scalar *a)
{
    if (scalar_is_zero(a))
        *out = *a;
    else
        words_subtract(out->w, ORDER.w, a->w);
}

static void scalar_mul(scalar *out, const scalar *a, const scalar *b)
{
    uint64_t t[8] = {0}, s[7], r[5];
    for (int i = 0; i < 4; i++) {
        uint128 c = 0;
        for (int j = 0; j < 4; j++) {
            c += (uint128)a->w[i] * b->w[j] + t[i + j];
            t[i + j] = (uint64_t)c, c >>= 64;
        }
        t[i + 4] = (uint64_t)c;
    }
    /* 512 bits to 385, to 259, to 256: what is above 2^256 comes back times ORDER_FOLD */
    memcpy(s, t, 32);
    memset(s + 4, 0, 24);
    for (int i = 0; i < 3; i++) {
        uint128 c = 0;
        for (int j = 0; j < 4; j++) {
            c += (uint128)ORDER_FOLD[i] * t[4 + j] + s[i + j];
            s[i + j] = (uint64_t)c, c >>= 64;
        }
        for (int j = i + 4; j < 7; j++) {
            c += s[j];
            s[j] = (uint64_t)c, c >>= 64;
        }
    }
    memcpy(r, s, 32);
    r[4] = 0;
    for (int i = 0; i < 3; i++) {
        uint128 c = 0;
        for (int j = 0; j < 3 && i + j < 5; j++) {
            c += (uint128)ORDER_FOLD[i] * s[4 + j] + r[i + j];
            r[i + j] = (uint64_t)c, c >>= 64;
        }
        for (int j = i + 3; j < 5; j++) {
            c += r[j];
            r[j] = (uint64_t)c, c >>= 64;
        }
    }
    uint64_t over = r[4];
    uint128 c = 0;
    for (int i = 0; i < 4; i++) {
        c += (i < 3 ? (uint128)ORDER_FOLD[i] * over : 0) + r[i];
        out->w[i] = (uint64_t)c, c >>= 64;
    }
    if (c || !words_below(out->w, ORDER.w))
        words_subtract(out->w, out->w, ORDER.w);
}

/* that of 0 is 0 */
static void scalar_inverse(scalar *out, const scalar *a)
{
    inverse_of(out->w, a->w, &ORDER_FACTS);
}
