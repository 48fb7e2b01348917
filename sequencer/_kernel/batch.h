/* Whether known keys have signed many records: all at once, in variable time, as all of it is public.
 *
 * A signature (r, s) names R by x = r and the parity of y, so that recovery gives Q if and only if s R = z G + r Q. With
 * random 128-bit a_i, sum(a_i R_i) = sum(a_i z_i / s_i) G + sum(a_i r_i / s_i) Q_i holds for signatures of which each
 * holds, and for others with a probability of at most 2^-128: "Batch verification of short signatures", Camenisch,
 * Hohenberger and Pedersen, section 3; "Faster batch forgery identification", Bernstein, Doumen, Lange and Oosterwijk.
 * a_i = u_i + v_i lambda with 64-bit u and v, so that a_i R = u_i R + v_i (beta x, y): half the doublings.
 *
 * The sum is taken by Pippenger's buckets with signed digits. A key's multiples by powers of 2^8 are kept (make_table),
 * so that its digits and those of G fall into one window of their own. Buckets B_d, and then sum(d B_d), are summed in
 * trees, the pairs of all windows side by side (add_pairs): by bits, sum(d B_d) is the sum of 2^k times those B_d whose d
 * has bit k, and the d with the bits below cut off are paired (2 e with 2 e + 1) for the bits above.
 */

#define BATCH_MAX 512
#define KEY_BUCKETS (1 << (TABLE_STEP - 1)) /* of digits up to half of 2^8, of either sign */
#define COEFFICIENT_SIZE 16
#define HALF_BITS 64 /* of half a coefficient */
#define WINDOW_MIN 3
#define WINDOW_MAX 8

enum { IMPOSSIBLE, HOLDS, UNDECIDED }; /* of a record: no key has signed it; its key has; the sum was not zero */

static uint8_t generator_table[TABLE_SIZE];

typedef struct {
    const uint8_t *table;
    scalar times;
} term;

typedef struct {
    union {
        struct {
            field runs[PAIRS_AT_ONCE], gaps[PAIRS_AT_ONCE];
        };
#if defined(__x86_64__)
        struct {
            field8 runs8[PAIRS_AT_ONCE / LANES], gaps8[PAIRS_AT_ONCE / LANES];
        };
#endif
    };
    pair pairs[PAIRS_AT_ONCE];
    point *pool;
    size_t count;
} adder;

static void adder_flush(adder *to)
{
#if defined(__x86_64__)
    if (has_field_lanes && width_used >= LANES && to->count >= PAIRS_FOR_LANES)
        add_pairs8(to->pool, to->pairs, to->count, to->runs8, to->gaps8);
    else
#endif
        if (to->count)
        add_pairs(to->pool, to->pairs, to->count, to->runs, to->gaps);
    to->count = 0;
}

/* No point may come twice before a flush. */
static inline void adder_push(adder *to, size_t sum, size_t other)
{
    if (is_infinity(&to->pool[other]))
        return;
    if (is_infinity(&to->pool[sum])) {
        to->pool[sum] = to->pool[other];
        return;
    }
    to->pairs[to->count++] = (pair){(uint32_t)sum, (uint32_t)other};
    if (to->count == PAIRS_AT_ONCE)
        adder_flush(to);
}

/* digits in -2^(bits-1) .. 2^(bits-1) of a number below 2^(bits * count - 1), or equal to it */
static void signed_digits(int16_t *out, const uint64_t *words, int word_count, int bits, int count, int is_negative)
{
    int carry = 0, half = 1 << (bits - 1);
    for (int i = 0; i < count; i++) {
        int at = i * bits, word = at >> 6, shift = at & 63;
        uint64_t chunk = word < word_count ? words[word] >> shift : 0;
        if (shift + bits > 64 && word + 1 < word_count)
            chunk |= words[word + 1] << (64 - shift);
        int digit = (int)(chunk & ((1u << bits) - 1)) + carry;
        carry = digit > half;
        digit -= carry << bits;
        out[i] = (int16_t)(is_negative ? -digit : digit);
    }
}

static int windows_of(int bits)
{
    return (HALF_BITS + bits - 1) / bits;
}

/* the width of windows with the fewest additions for `count` points */
static int best_window(size_t count)
{
    int best = WINDOW_MIN;
    size_t least = SIZE_MAX;
    for (int bits = WINDOW_MIN; bits <= WINDOW_MAX; bits++) {
        size_t cost = (size_t)windows_of(bits) * (2 * count + ((size_t)2 << (bits - 1)));
        if (cost < least)
            least = cost, best = bits;
    }
    return best;
}

static inline size_t bucket_of(int digit, size_t first)
{
    return first + (size_t)(digit < 0 ? -digit : digit) - 1;
}

static inline void place(point *pool, uint32_t *offsets, int digit, size_t first, const point *of)
{
    point *to = &pool[offsets[bucket_of(digit, first)]++];
    *to = *of;
    if (digit < 0)
        point_negate(to);
}

/* Whether sum(u_i R_i + v_i lambda R_i) + sum(times_k Q_k) is zero. `halves` are the R_i and then the lambda R_i,
 * coefficients the u_i and then the v_i. 1, 0, or -1: no memory. */
static int is_sum_zero(const point *halves, const int64_t *coefficients, size_t count, const term *terms, size_t term_count)
{
    int bits = best_window(count), windows = windows_of(bits), answer = -1;
    size_t span = (size_t)1 << (bits - 1), key_first = span * (size_t)windows, buckets = key_first + KEY_BUCKETS;
    size_t digit_count = 2 * count * (size_t)windows, entries = digit_count + term_count * TABLE_POINTS;
    /* behind the entries: per window an array of buckets from 0 (nothing) on */
    size_t arrays = (span + 1) * (size_t)windows + KEY_BUCKETS + 1;
    int16_t *digits = malloc(entries * sizeof *digits);
    uint32_t *offsets = malloc(buckets * sizeof *offsets), *sizes = calloc(buckets, sizeof *sizes);
    point *pool = malloc((entries + arrays) * sizeof *pool);
    adder *sums = aligned_alloc(64, (sizeof *sums + 63) / 64 * 64); /* as vectors want it */
    if (!digits || !offsets || !sizes || !pool || !sums)
        goto end;
    int16_t *digit = digits;
    for (size_t i = 0; i < 2 * count; i++, digit += windows) {
        uint64_t size = coefficients[i] < 0 ? -(uint64_t)coefficients[i] : (uint64_t)coefficients[i];
        signed_digits(digit, &size, 1, bits, windows, coefficients[i] < 0);
        for (int w = 0; w < windows; w++)
            if (digit[w])
                sizes[bucket_of(digit[w], span * (size_t)w)]++;
    }
    for (size_t k = 0; k < term_count; k++, digit += TABLE_POINTS) {
        scalar opposite;
        scalar_negate(&opposite, &terms[k].times); /* one of them is below 2^255 */
        int is_negative = words_below(opposite.w, terms[k].times.w);
        signed_digits(digit, is_negative ? opposite.w : terms[k].times.w, 4, TABLE_STEP, TABLE_POINTS, is_negative);
        for (int j = 0; j < TABLE_POINTS; j++)
            if (digit[j])
                sizes[bucket_of(digit[j], key_first)]++;
    }
    size_t used = 0;
    for (size_t i = 0; i < buckets; i++) {
        offsets[i] = (uint32_t)used;
        used += sizes[i];
    }
    digit = digits;
    for (size_t i = 0; i < 2 * count; i++, digit += windows)
        for (int w = 0; w < windows; w++)
            if (digit[w])
                place(pool, offsets, digit[w], span * (size_t)w, &halves[i]);
    for (size_t k = 0; k < term_count; k++, digit += TABLE_POINTS)
        for (int j = 0; j < TABLE_POINTS; j++)
            if (digit[j]) {
                point multiple;
                point_load(&multiple, terms[k].table + j * POINT_SIZE);
                place(pool, offsets, digit[j], key_first, &multiple);
            }
    for (size_t i = 0; i < buckets; i++)
        offsets[i] -= sizes[i];
    /* each bucket to one point: the first half of its points takes the other half, again and again */
    sums->pool = pool;
    sums->count = 0;
    memset(pool + entries, 0, arrays * sizeof *pool);
    for (int is_more = 1; is_more;) {
        is_more = 0;
        for (size_t i = 0; i < buckets; i++) {
            size_t size = sizes[i];
            for (size_t j = 0; j < size / 2; j++)
                adder_push(sums, offsets[i] + j, offsets[i] + size - 1 - j);
            sizes[i] = (uint32_t)((size + 1) / 2);
            is_more |= sizes[i] > 1;
        }
        adder_flush(sums);
    }
    for (size_t i = 0; i < buckets; i++) {
        size_t window = i < key_first ? i / span : (size_t)windows;
        if (sizes[i])
            pool[entries + window * (span + 1) + i - window * span + 1] = pool[offsets[i]];
    }
    /* Round k pairs 2 e with 2 e + 1 among the d cut by k bits, of which e stands at e << (k + 1). What has bit k set
     * stands at the odd multiples of 1 << k; it is summed from round k + 1 on, towards 1 << k. */
    for (int k = 0, is_more = 1; is_more; k++) {
        is_more = 0;
        for (int w = 0; w <= windows; w++) {
            size_t top = w < windows ? span : KEY_BUCKETS, base = entries + (span + 1) * (size_t)w;
            size_t stride = (size_t)1 << k;
            for (size_t even = 2 * stride; even + stride <= top; even += 2 * stride)
                adder_push(sums, base + even, base + even + stride);
            is_more |= 2 * stride <= top;
            for (int l = 0; l < k; l++) {
                /* of the odd multiples below top, at the beginning top >> (l + 1), halved in each round since */
                size_t odd = (size_t)1 << l, left = top >> (l + 1) >> (k - 1 - l);
                for (size_t j = 0; j < left / 2; j++)
                    adder_push(sums, base + (2 * j + 1) * odd, base + (2 * (left - 1 - j) + 1) * odd);
                is_more |= left > 1;
            }
        }
        adder_flush(sums);
    }
    jacobian total = {{{0}}, {{0}}, {{0}}};
    int from = bits * windows > TABLE_STEP ? bits * windows : TABLE_STEP;
    for (int at = from - 1; at >= 0; at--) {
        jacobian_double(&total, &total);
        if (at < bits * windows)
            jacobian_add(&total, &pool[entries + (span + 1) * (size_t)(at / bits) + ((size_t)1 << at % bits)]);
        if (at < TABLE_STEP)
            jacobian_add(&total, &pool[entries + (span + 1) * (size_t)windows + ((size_t)1 << at)]);
    }
    answer = field_is_zero(&total.z);
end:
    free(digits);
    free(offsets);
    free(sizes);
    free(pool);
    free(sums);
    return answer;
}

static void scalar_from_signed(scalar *out, int64_t value)
{
    *out = (scalar){{value < 0 ? -(uint64_t)value : (uint64_t)value}};
    if (value < 0)
        scalar_negate(out, out);
}

typedef struct {
    point halves[2 * BATCH_MAX];
    int64_t coefficients[2 * BATCH_MAX];
    scalar r[BATCH_MAX], s[BATCH_MAX], run[BATCH_MAX];
    uint8_t parities[BATCH_MAX];
    uint16_t places[BATCH_MAX], slots[4 * BATCH_MAX]; /* slots: of a hash table, the term's number + 1 */
    term terms[BATCH_MAX + 1];
} workspace;

/* the number of a table's term, which is made if there is none */
static size_t term_of(workspace *at, size_t *count, const uint8_t *table)
{
    size_t slot = (size_t)((uintptr_t)table * 0x9E3779B97F4A7C15ull >> 40) % (4 * BATCH_MAX);
    for (; at->slots[slot]; slot = (slot + 1) % (4 * BATCH_MAX))
        if (at->terms[at->slots[slot] - 1].table == table)
            return at->slots[slot] - 1;
    at->terms[*count] = (term){table, {{0}}};
    at->slots[slot] = (uint16_t)(*count + 1);
    return (*count)++;
}

/* r and s of a signature, and the parity of R's y; 0: no key can have made it, as in key_of */
static int read_signature(const uint8_t signature[SIGNATURE_SIZE], scalar *r, scalar *s, uint8_t *parity)
{
    scalar half;
    words_from_bytes(half.w, HALF_ORDER);
    words_from_bytes(r->w, signature);
    words_from_bytes(s->w, signature + 32);
    *parity = (uint8_t)(s->w[3] >> 63);
    s->w[3] &= UINT64_MAX >> 1;
    return !scalar_is_zero(r) && words_below(r->w, ORDER.w) && !scalar_is_zero(s) && !words_below(half.w, s->w);
}

/* Reads the signatures that a key can have made into r, s and halves; returns how many. */
static size_t read_signatures(workspace *at, const records *of)
{
    size_t some = 0, count = 0;
    for (size_t i = 0; i < of->count; i++)
        if (read_signature(signature_of(&of->all[i]), &at->r[some], &at->s[some], &at->parities[some])) {
            field_from_words(&at->halves[some].x, at->r[some].w); /* r is below n, and so below p */
            at->places[some++] = (uint16_t)i;
        }
    for (size_t i = 0; i < some;) {
        size_t together = some - i < 8 ? some - i : 8;
        unsigned there = 0;
#if defined(__x86_64__)
        if (has_field_lanes && width_used >= LANES && together > 2)
            there = lift8(&at->halves[i], together);
        else
#endif
            for (size_t k = 0; k < together; k++)
                there |= (unsigned)lift(&at->halves[i + k]) << k;
        for (; together; together--, there >>= 1, i++) {
            if (!(there & 1))
                continue;
            point *r = &at->halves[count];
            *r = at->halves[i];
            field_normalize(&r->y);
            if ((r->y.n[0] & 1) != at->parities[i])
                point_negate(r);
            at->r[count] = at->r[i];
            at->s[count] = at->s[i];
            at->places[count++] = at->places[i];
        }
    }
    return count;
}

/* What is known of each under the key of its table; 0: no memory. `coefficients` are two random int64 each. */
static int verify_batch(const records *of, const uint8_t *const *tables, const uint8_t *coefficients, uint8_t *known)
{
    workspace *at = malloc(sizeof *at);
    if (!at)
        return 0;
    size_t count = read_signatures(at, of), term_count = 1;
    memset(at->slots, 0, sizeof at->slots);
    at->terms[0] = (term){generator_table, {{0}}};
    memset(known, IMPOSSIBLE, of->count);
    if (!count) {
        free(at);
        return 1;
    }
    /* Montgomery's trick: run[i] is the product of those before */
    scalar product = {{1}}, inverse;
    for (size_t i = 0; i < count; i++) {
        at->run[i] = product;
        scalar_mul(&product, &product, &at->s[i]);
    }
    scalar_inverse(&inverse, &product);
    for (size_t i = count; i-- > 0;) {
        size_t place = at->places[i];
        int64_t *u = &at->coefficients[i], *v = &at->coefficients[count + i];
        scalar by_s, a, t, z;
        scalar_mul(&by_s, &inverse, &at->run[i]);
        scalar_mul(&inverse, &inverse, &at->s[i]);
        memcpy(u, coefficients + COEFFICIENT_SIZE * place, 8);
        memcpy(v, coefficients + COEFFICIENT_SIZE * place + 8, 8);
        scalar_from_signed(&a, *u);
        scalar_from_signed(&t, *v);
        scalar_mul(&t, &t, &LAMBDA);
        scalar_add(&a, &a, &t);
        scalar_mul(&a, &a, &by_s);
        scalar_from_bytes(&z, of->all[place].digest);
        scalar_mul(&t, &a, &z);
        scalar_add(&at->terms[0].times, &at->terms[0].times, &t);
        scalar_mul(&t, &a, &at->r[i]);
        scalar *times = &at->terms[term_of(at, &term_count, tables[place])].times;
        scalar_add(times, times, &t);
        point *image = &at->halves[count + i];
        field_mul(&image->x, &at->halves[i].x, &BETA);
        image->y = at->halves[i].y;
    }
    for (size_t k = 0; k < term_count; k++)
        scalar_negate(&at->terms[k].times, &at->terms[k].times);
    int is_zero = is_sum_zero(at->halves, at->coefficients, count, at->terms, term_count);
    for (size_t i = 0; i < count; i++)
        known[at->places[i]] = is_zero ? HOLDS : UNDECIDED;
    free(at);
    return is_zero >= 0;
}

static int make_generator_table(void)
{
    static const uint8_t generator[POINT_SIZE] = {
        0x79, 0xBE, 0x66, 0x7E, 0xF9, 0xDC, 0xBB, 0xAC, 0x55, 0xA0, 0x62, 0x95, 0xCE, 0x87, 0x0B, 0x07,
        0x02, 0x9B, 0xFC, 0xDB, 0x2D, 0xCE, 0x28, 0xD9, 0x59, 0xF2, 0x81, 0x5B, 0x16, 0xF8, 0x17, 0x98,
        0x48, 0x3A, 0xDA, 0x77, 0x26, 0xA3, 0xC4, 0x65, 0x5D, 0xA4, 0xFB, 0xFC, 0x0E, 0x11, 0x08, 0xA8,
        0xFD, 0x17, 0xB4, 0x48, 0xA6, 0x85, 0x54, 0x19, 0x9C, 0x47, 0xD0, 0x8F, 0xFB, 0x10, 0xD4, 0xB8,
    };
    point g;
    if (!point_from_bytes(&g, generator))
        return 0;
    make_table(generator_table, &g);
    return 1;
}

/* ------------------------------------------------------------------------------------------- for Python */

static PyObject *module_key_table(PyObject *module, PyObject *key)
{
    (void)module;
    point q;
    if (!PyBytes_Check(key) || PyBytes_GET_SIZE(key) != POINT_SIZE)
        return PyErr_Format(PyExc_TypeError, "a public key of %d bytes is wanted", POINT_SIZE);
    if (!point_from_bytes(&q, (const uint8_t *)PyBytes_AS_STRING(key))) {
        PyErr_SetString(PyExc_ValueError, "the public key is no point of the curve");
        return NULL;
    }
    PyObject *out = PyBytes_FromStringAndSize(NULL, TABLE_SIZE);
    if (out) {
        uint8_t *bytes = (uint8_t *)PyBytes_AS_STRING(out); /* nobody else has it yet */
        Py_BEGIN_ALLOW_THREADS
        make_table(bytes, &q);
        Py_END_ALLOW_THREADS
    }
    return out;
}

static PyObject *module_verify(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyObject *tables = NULL, *out = NULL;
    const uint8_t *table_of[BATCH_MAX];
    records from;
    if (count != 5 || !PyBytes_Check(args[0]) || PyBytes_GET_SIZE(args[0]) != 32 || !PyBytes_Check(args[4])) {
        PyErr_SetString(PyExc_TypeError,
                        "a domain of 32 bytes, records, their plans, tables of their keys and coefficients are wanted");
        return NULL;
    }
    if (!records_of(&from, args[1], args[2]) || !(tables = PySequence_Tuple(args[3])))
        goto end;
    if (from.count > BATCH_MAX) {
        PyErr_Format(PyExc_ValueError, "a batch has at most %d records, not %zu", BATCH_MAX, from.count);
        goto end;
    }
    if ((size_t)PyTuple_GET_SIZE(tables) != from.count ||
        (size_t)PyBytes_GET_SIZE(args[4]) != COEFFICIENT_SIZE * from.count) {
        PyErr_Format(PyExc_ValueError, "as many tables as records are wanted, and %d bytes of coefficients each",
                     COEFFICIENT_SIZE);
        goto end;
    }
    for (size_t i = 0; i < from.count; i++) {
        PyObject *table = PyTuple_GET_ITEM(tables, (Py_ssize_t)i);
        if (!PyBytes_Check(table) || PyBytes_GET_SIZE(table) != TABLE_SIZE) {
            PyErr_SetString(PyExc_TypeError, "tables by key_table are wanted");
            goto end;
        }
        table_of[i] = (const uint8_t *)PyBytes_AS_STRING(table);
    }
    if (!(out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)from.count)))
        goto end;
    const uint8_t *domain = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    const uint8_t *coefficients = (const uint8_t *)PyBytes_AS_STRING(args[4]);
    uint8_t *known = (uint8_t *)PyBytes_AS_STRING(out); /* nobody else has it yet */
    int is_whole, is_done = 1;
    Py_BEGIN_ALLOW_THREADS
    is_whole = make_digests(&from, domain);
    if (is_whole)
        is_done = verify_batch(&from, table_of, coefficients, known);
    Py_END_ALLOW_THREADS
    if (!is_whole)
        PyErr_SetString(PyExc_ValueError, "a plan has more fields than its record");
    else if (!is_done)
        PyErr_NoMemory();
    if (!is_whole || !is_done)
        Py_CLEAR(out);
end:
    records_free(&from);
    Py_XDECREF(tables);
    return out;
}

/* (operation, a, b): integers of 32 bytes, big-endian, and the result. The arithmetic by itself, for tests. */
static PyObject *module_arithmetic(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    uint64_t w[4];
    uint8_t out[32];
    const char *name;
    if (count != 3 || !PyUnicode_Check(args[0]) || !PyBytes_Check(args[1]) || !PyBytes_Check(args[2]) ||
        PyBytes_GET_SIZE(args[1]) != 32 || PyBytes_GET_SIZE(args[2]) != 32) {
        PyErr_SetString(PyExc_TypeError, "an operation and two numbers of 32 bytes are wanted");
        return NULL;
    }
    if (!(name = PyUnicode_AsUTF8(args[0])))
        return NULL;
    const uint8_t *left = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    const uint8_t *right = (const uint8_t *)PyBytes_AS_STRING(args[2]);
    field a, b;
    scalar i, j;
    words_from_bytes(w, left);
    field_from_words(&a, w);
    words_from_bytes(w, right);
    field_from_words(&b, w);
    scalar_from_bytes(&i, left);
    scalar_from_bytes(&j, right);
    if (!strncmp(name, "field ", 6)) {
        const char *what = name + 6;
        if (!strcmp(what, "mul"))
            field_mul(&a, &a, &b);
        else if (!strcmp(what, "sqr"))
            field_sqr(&a, &a);
        else if (!strcmp(what, "subtract"))
            field_subtract(&a, &a, &b);
        else if (!strcmp(what, "inverse"))
            field_inverse(&a, &a);
        else if (!strcmp(what, "sqrt")) {
            if (!field_sqrt(&b, &a))
                Py_RETURN_NONE;
            a = b;
        } else if (!strcmp(what, "large")) { /* of the greatest magnitude that mul takes */
            for (int k = 0; k < 3; k++)
                field_add(&a, &a, &a);
            field_negate(&b, &b, 1);
            field_add(&b, &b, &b);
            field_add(&b, &b, &b);
            field_mul(&a, &a, &b);
        } else
            return PyErr_Format(PyExc_ValueError, "no operation: %.50s", name);
        field_to_words(w, &a);
    } else {
        if (!strcmp(name, "scalar mul"))
            scalar_mul(&i, &i, &j);
        else if (!strcmp(name, "scalar add"))
            scalar_add(&i, &i, &j);
        else if (!strcmp(name, "scalar negate"))
            scalar_negate(&i, &i);
        else if (!strcmp(name, "scalar inverse"))
            scalar_inverse(&i, &i);
        else
            return PyErr_Format(PyExc_ValueError, "no operation: %.50s", name);
        memcpy(w, i.w, 32);
    }
    for (int k = 0; k < 4; k++) {
        uint64_t word = __builtin_bswap64(w[3 - k]);
        memcpy(out + 8 * k, &word, 8);
    }
    return PyBytes_FromStringAndSize((const char *)out, 32);
}
