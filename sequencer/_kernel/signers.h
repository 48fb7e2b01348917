/* Signers of many records, without Python's lock: digest, recovery, address, as sequencer/protocol/signers.py
 * has them. libsecp256k1 is coincurve's: its functions come as addresses, so that nothing is linked twice.
 */

typedef struct {
    unsigned char data[65];
} recoverable_signature; /* secp256k1_recovery.h */
typedef struct {
    unsigned char data[64];
} public_key; /* secp256k1.h */

typedef int (*parse_function)(const void *, recoverable_signature *, const unsigned char *, int);
typedef int (*recover_function)(const void *, public_key *, const recoverable_signature *, const unsigned char *);
typedef int (*serialize_function)(const void *, unsigned char *, size_t *, const public_key *, unsigned int);

#define SIGNATURE_SIZE 64
#define KEY_SIZE 64
#define ADDRESS_SIZE 20
#define FOUND_SIZE (1 + KEY_SIZE)
#define UNCOMPRESSED 2 /* SECP256K1_EC_UNCOMPRESSED */
#define FIELDS_MAX 32
#define DIGESTS_AT_ONCE 16
#define FIELD_SIGNED 0x80 /* of a field in a plan; the rest is its size */

static const uint8_t HALF_ORDER[32] = {
    0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0x5D, 0x57, 0x6E, 0x73, 0x57, 0xA4, 0x50, 0x1D, 0xDF, 0xE9, 0x2F, 0x46, 0x68, 0x1B, 0x20, 0xA0,
};

typedef struct {
    const void *context;
    parse_function parse;
    recover_function recover;
    serialize_function serialize;
} library;

typedef struct {
    const uint8_t *raw, *plan; /* a plan is the type's hash and a byte for each field, or else the 32 bytes of a digest */
    size_t size, plan_size;
    uint8_t digest[32];
} signed_record;

typedef struct {
    PyObject *raws, *plans; /* tuples of our own: nobody takes out of them what is read without the lock */
    signed_record *all;
    size_t count;
} records;

static void records_free(records *of)
{
    PyMem_Free(of->all);
    Py_XDECREF(of->raws);
    Py_XDECREF(of->plans);
}

/* from sequences of bytes; 0: an exception is set */
static int records_of(records *out, PyObject *raws, PyObject *plans)
{
    *out = (records){PySequence_Tuple(raws), NULL, NULL, 0};
    if (!out->raws || !(out->plans = PySequence_Tuple(plans)))
        return 0;
    out->count = (size_t)PyTuple_GET_SIZE(out->raws);
    if ((size_t)PyTuple_GET_SIZE(out->plans) != out->count) {
        PyErr_SetString(PyExc_ValueError, "as many plans as records are wanted");
        return 0;
    }
    if (!(out->all = PyMem_Malloc(out->count ? out->count * sizeof *out->all : 1))) {
        PyErr_NoMemory();
        return 0;
    }
    for (size_t i = 0; i < out->count; i++) {
        PyObject *raw = PyTuple_GET_ITEM(out->raws, (Py_ssize_t)i), *plan = PyTuple_GET_ITEM(out->plans, (Py_ssize_t)i);
        if (!PyBytes_Check(raw) || !PyBytes_Check(plan) || PyBytes_GET_SIZE(raw) <= SIGNATURE_SIZE) {
            PyErr_SetString(PyExc_TypeError, "records with a signature, and plans, as bytes are wanted");
            return 0;
        }
        out->all[i].raw = (const uint8_t *)PyBytes_AS_STRING(raw);
        out->all[i].size = (size_t)PyBytes_GET_SIZE(raw);
        out->all[i].plan = (const uint8_t *)PyBytes_AS_STRING(plan);
        out->all[i].plan_size = (size_t)PyBytes_GET_SIZE(plan);
    }
    return 1;
}

static inline const uint8_t *signature_of(const signed_record *of)
{
    return of->raw + of->size - SIGNATURE_SIZE;
}

/* The encoded struct of EIP-712; returns its bytes, 0: there is no room for the fields. */
static size_t encode_struct(const signed_record *of, uint8_t words[32 * (FIELDS_MAX + 1)])
{
    size_t fields = of->plan_size - 32, at = 1;
    if (of->plan_size < 32 || fields > FIELDS_MAX)
        return 0;
    memcpy(words, of->plan, 32);
    for (size_t i = 0; i < fields; i++) {
        size_t width = of->plan[32 + i] & ~FIELD_SIGNED;
        uint8_t *word = words + 32 * (i + 1);
        if (width < 1 || width > 32 || at + width > of->size - SIGNATURE_SIZE)
            return 0;
        memset(word, of->plan[32 + i] & FIELD_SIGNED && of->raw[at] & 0x80 ? 0xFF : 0, 32);
        memcpy(word + 32 - width, of->raw + at, width);
        at += width;
    }
    return 32 * (fields + 1);
}

/* EIP-712 digests, in vector lanes; 0: as encode_struct */
static int make_digests(const records *of, const uint8_t domain[32])
{
    uint8_t words[DIGESTS_AT_ONCE][32 * (FIELDS_MAX + 1)], outer[DIGESTS_AT_ONCE][66];
    message inner_texts[DIGESTS_AT_ONCE], outer_texts[DIGESTS_AT_ONCE];
    for (size_t first = 0; first < of->count; first += DIGESTS_AT_ONCE) {
        uint32_t count = 0;
        for (size_t i = first; i < of->count && i < first + DIGESTS_AT_ONCE; i++) {
            signed_record *one = &of->all[i];
            if (one->plan_size == 32) {
                memcpy(one->digest, one->plan, 32);
                continue;
            }
            size_t size = encode_struct(one, words[count]);
            if (!size)
                return 0;
            outer[count][0] = 0x19;
            outer[count][1] = 0x01;
            memcpy(outer[count] + 2, domain, 32);
            inner_texts[count] = (message){words[count], size, outer[count] + 34};
            outer_texts[count] = (message){outer[count], 66, one->digest};
            count++;
        }
        if (count) {
            hash_many(inner_texts, count);
            hash_many(outer_texts, count);
        }
    }
    return 1;
}

/* the public key that has signed, x and y; 0: none can have */
static int key_of(const library *secp, const uint8_t digest[32], const uint8_t *signature, uint8_t out[KEY_SIZE])
{
    static const uint8_t zero[32];
    uint8_t compact[SIGNATURE_SIZE], serialized[65];
    size_t length = sizeof serialized;
    recoverable_signature parsed;
    public_key key;
    memcpy(compact, signature, SIGNATURE_SIZE);
    int parity = compact[32] >> 7;
    compact[32] &= 0x7F;
    if (memcmp(compact + 32, HALF_ORDER, 32) > 0 || !memcmp(compact + 32, zero, 32))
        return 0;
    if (!secp->parse(secp->context, &parsed, compact, parity) || !secp->recover(secp->context, &key, &parsed, digest))
        return 0;
    secp->serialize(secp->context, serialized, &length, &key, UNCOMPRESSED);
    memcpy(out, serialized + 1, KEY_SIZE);
    return 1;
}

static PyObject *recovered(PyObject *const *args, Py_ssize_t count, int is_address)
{
    PyObject *out = NULL;
    records from;
    uint8_t *found = NULL; /* FOUND_SIZE bytes each: whether there is one, and which */
    library secp;
    void *addresses[4];
    if (count != 4 || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) != 4 || !PyBytes_Check(args[1]) ||
        PyBytes_GET_SIZE(args[1]) != 32) {
        PyErr_SetString(PyExc_TypeError, "four addresses, a domain of 32 bytes, records and their plans are wanted");
        return NULL;
    }
    for (int i = 0; i < 4; i++) {
        addresses[i] = PyLong_AsVoidPtr(PyTuple_GET_ITEM(args[0], i));
        if (!addresses[i]) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "an address is zero");
            return NULL;
        }
    }
    secp.context = addresses[0];
    secp.parse = (parse_function)addresses[1];
    secp.recover = (recover_function)addresses[2];
    secp.serialize = (serialize_function)addresses[3];
    if (!records_of(&from, args[2], args[3]))
        goto end;
    if (!(found = PyMem_Malloc(from.count ? FOUND_SIZE * from.count : 1))) {
        PyErr_NoMemory();
        goto end;
    }
    const uint8_t *domain = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    int is_whole;
    Py_BEGIN_ALLOW_THREADS
    is_whole = make_digests(&from, domain);
    for (size_t i = 0; i < from.count && is_whole; i++) {
        uint8_t *one = found + FOUND_SIZE * i, hash[32];
        one[0] = (uint8_t)key_of(&secp, from.all[i].digest, signature_of(&from.all[i]), one + 1);
        if (one[0] && is_address) {
            keccak256(one + 1, KEY_SIZE, hash);
            memcpy(one + 1, hash + 32 - ADDRESS_SIZE, ADDRESS_SIZE);
        }
    }
    Py_END_ALLOW_THREADS
    if (!is_whole) {
        PyErr_SetString(PyExc_ValueError, "a plan has more fields than its record");
        goto end;
    }
    out = PyList_New((Py_ssize_t)from.count);
    for (size_t i = 0; out && i < from.count; i++) {
        const char *bytes = (const char *)found + FOUND_SIZE * i;
        PyObject *one = bytes[0] ? PyBytes_FromStringAndSize(bytes + 1, is_address ? ADDRESS_SIZE : KEY_SIZE)
                                 : Py_NewRef(Py_None);
        if (!one)
            Py_CLEAR(out);
        else
            PyList_SET_ITEM(out, (Py_ssize_t)i, one);
    }
end:
    PyMem_Free(found);
    records_free(&from);
    return out;
}

static PyObject *module_signers(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return recovered(args, count, 1);
}

static PyObject *module_public_keys(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return recovered(args, count, 0);
}
