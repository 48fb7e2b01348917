/* Checksums of rows, as sequencer/checksums.py has them: SHA-256 over the table's name and the values, the first 16
 * bytes. The values are written out under Python's lock and hashed without it.
 */

#define CHECKSUM_SIZE 16

static const uint32_t SHA256_CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
};

#define ROR32(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

static void sha256_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        memcpy(&w[i], block + 4 * i, 4);
        w[i] = __builtin_bswap32(w[i]);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ROR32(a, 7) ^ ROR32(a, 18) ^ a >> 3) + w[i - 7] + (ROR32(b, 17) ^ ROR32(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        uint32_t one = s[7] + (ROR32(s[4], 6) ^ ROR32(s[4], 11) ^ ROR32(s[4], 25)) + choice + SHA256_CONSTANTS[i] + w[i];
        uint32_t two = (ROR32(s[0], 2) ^ ROR32(s[0], 13) ^ ROR32(s[0], 22)) + majority;
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* As sha256_block, by the processor's own instructions (SHA-NI): a quarter of the time. */
__attribute__((target("sha,sse4.1"))) static void sha256_block_ni(uint32_t state[8], const uint8_t *block)
{
    const __m128i swapped = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w[4], abef, cdgh, low = _mm_loadu_si128((const __m128i *)state);
    for (int i = 0; i < 4; i++)
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), swapped);
    low = _mm_shuffle_epi32(low, 0xb1);
    cdgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    abef = _mm_alignr_epi8(low, cdgh, 8);
    cdgh = _mm_blend_epi16(cdgh, low, 0xf0);
    const __m128i abef_before = abef, cdgh_before = cdgh;
    for (int i = 0; i < 16; i++) { /* four rounds each */
        const __m128i constants = _mm_loadu_si128((const __m128i *)(SHA256_CONSTANTS + 4 * i));
        __m128i sum = _mm_add_epi32(w[i & 3], constants);
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
        if (i < 12) {
            const __m128i last = w[(i + 3) & 3], seven_ago = _mm_alignr_epi8(last, w[(i + 2) & 3], 4);
            sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), seven_ago);
            w[i & 3] = _mm_sha256msg2_epu32(sum, last);
        }
    }
    abef = _mm_shuffle_epi32(_mm_add_epi32(abef, abef_before), 0x1b);
    cdgh = _mm_shuffle_epi32(_mm_add_epi32(cdgh, cdgh_before), 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(abef, cdgh, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

static int has_sha_ni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1 && __builtin_cpu_supports("sse4.1");
}
#endif

static void (*sha256_step)(uint32_t state[8], const uint8_t *block) = sha256_block;

/* Once, before the first sum. `is_plain`: without the processor's own instructions, for the tests of both. */
static void sums_choose(int is_plain)
{
    sha256_step = sha256_block;
#if defined(__x86_64__)
    if (!is_plain && has_sha_ni())
        sha256_step = sha256_block_ni;
#endif
}

static void sha256(const uint8_t *data, size_t length, uint8_t out[32])
{
    uint32_t state[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    uint8_t last[128] = {0};
    uint64_t bits = __builtin_bswap64((uint64_t)length * 8);
    for (; length >= 64; data += 64, length -= 64)
        sha256_step(state, data);
    memcpy(last, data, length);
    last[length] = 0x80;
    size_t blocks = length < 56 ? 1 : 2;
    memcpy(last + 64 * blocks - 8, &bits, 8);
    for (size_t i = 0; i < blocks; i++)
        sha256_step(state, last + 64 * i);
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(state[i]);
        memcpy(out + 4 * i, &word, 4);
    }
}

typedef struct {
    uint8_t *data;
    size_t size, room;
} text_buffer;

static int buffer_add(text_buffer *buffer, const char *text, size_t size)
{
    if (buffer->size + size > buffer->room) {
        size_t room = 2 * (buffer->size + size);
        uint8_t *data = PyMem_Realloc(buffer->data, room);
        if (!data) {
            PyErr_NoMemory();
            return 0;
        }
        buffer->data = data;
        buffer->room = room;
    }
    memcpy(buffer->data + buffer->size, text, size);
    buffer->size += size;
    return 1;
}

/* "v", the size of a value's text, ":", the text */
static int add_text(text_buffer *buffer, const char *text, size_t size)
{
    char head[24];
    int length = snprintf(head, sizeof head, "v%zu:", size);
    return buffer_add(buffer, head, (size_t)length) && buffer_add(buffer, text, size);
}

static int add_number(text_buffer *buffer, long long number)
{
    char digits[24], *at = digits + sizeof digits;
    unsigned long long rest = number < 0 ? 0ULL - (unsigned long long)number : (unsigned long long)number;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        *--at = '-';
    size_t size = (size_t)(digits + sizeof digits - at);
    char head[4] = {'v', (char)('0' + size / 10), (char)('0' + size % 10), ':'};
    if (size < 10)
        return buffer_add(buffer, "v", 1) && buffer_add(buffer, head + 2, 2) && buffer_add(buffer, at, size);
    return buffer_add(buffer, head, 4) && buffer_add(buffer, at, size);
}

/* an integer of whatever type, as a plain one, or a text as its repr */
static int add_value(text_buffer *buffer, PyObject *value)
{
    PyObject *shown;
    if (PyLong_Check(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (!overflow)
            return !(number == -1 && PyErr_Occurred()) && add_number(buffer, number);
        shown = PyLong_Type.tp_repr(value);
    } else if (PyUnicode_CheckExact(value))
        shown = PyObject_Repr(value);
    else {
        PyErr_Format(PyExc_TypeError, "integers and texts are wanted, not %.100s", Py_TYPE(value)->tp_name);
        return 0;
    }
    Py_ssize_t size = 0;
    const char *text = shown ? PyUnicode_AsUTF8AndSize(shown, &size) : NULL;
    int done = text && add_text(buffer, text, (size_t)size);
    Py_XDECREF(shown);
    return done;
}

static PyObject *module_row_sums(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    text_buffer head = {0}, buffer = {0};
    size_t *ends = NULL;
    PyObject *rows = NULL, *out = NULL;
    if (count != 2 || !PyUnicode_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a table's name and its rows are wanted");
        return NULL;
    }
    if (!(rows = PySequence_Fast(args[1], "rows are wanted")) || !add_value(&head, args[0]))
        goto end;
    Py_ssize_t size = PySequence_Fast_GET_SIZE(rows);
    if (!(ends = PyMem_Malloc(size ? sizeof *ends * (size_t)size : 1))) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *row = PySequence_Fast(PySequence_Fast_GET_ITEM(rows, i), "a row is a sequence");
        int done = row && buffer_add(&buffer, (const char *)head.data, head.size);
        for (Py_ssize_t j = 0; done && j < PySequence_Fast_GET_SIZE(row); j++)
            done = add_value(&buffer, PySequence_Fast_GET_ITEM(row, j));
        Py_XDECREF(row);
        if (!done)
            goto end;
        ends[i] = buffer.size;
    }
    if (!(out = PyBytes_FromStringAndSize(NULL, CHECKSUM_SIZE * size)))
        goto end;
    uint8_t *sums = (uint8_t *)PyBytes_AS_STRING(out);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < size; i++) {
        size_t start = i ? ends[i - 1] : 0;
        uint8_t hash[32];
        sha256(buffer.data + start, ends[i] - start, hash);
        memcpy(sums + CHECKSUM_SIZE * i, hash, CHECKSUM_SIZE);
    }
    Py_END_ALLOW_THREADS
end:
    PyMem_Free(head.data);
    PyMem_Free(buffer.data);
    PyMem_Free(ends);
    Py_XDECREF(rows);
    return out;
}
