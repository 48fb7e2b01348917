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

/* EIP-712 digest; a plan is the type's hash and a byte for each field, or else the 32 bytes of a digest. 0: no room */
static int digest_of(const uint8_t *domain, const uint8_t *raw, Py_ssize_t size, const uint8_t *plan,
                     Py_ssize_t plan_size, uint8_t out[32])
{
    if (plan_size == 32) {
        memcpy(out, plan, 32);
        return 1;
    }
    uint8_t words[32 * (FIELDS_MAX + 1)];
    Py_ssize_t fields = plan_size - 32, at = 1;
    if (fields < 0 || fields > FIELDS_MAX)
        return 0;
    memcpy(words, plan, 32);
    for (Py_ssize_t i = 0; i < fields; i++) {
        int width = plan[32 + i] & ~FIELD_SIGNED;
        uint8_t *word = words + 32 * (i + 1);
        if (width < 1 || width > 32 || at + width > size - SIGNATURE_SIZE)
            return 0;
        memset(word, plan[32 + i] & FIELD_SIGNED && raw[at] & 0x80 ? 0xFF : 0, 32);
        memcpy(word + 32 - width, raw + at, width);
        at += width;
    }
    uint8_t outer[66] = {0x19, 0x01};
    memcpy(outer + 2, domain, 32);
    keccak256(words, 32 * (size_t)(fields + 1), outer + 34);
    keccak256(outer, 66, out);
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
    PyObject *raws = NULL, *plans = NULL, *out = NULL;
    uint8_t *found = NULL; /* FOUND_SIZE bytes each: whether there is one, and which */
    library secp;
    void *addresses[4];
    int is_whole = 1;
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
    /* tuples of our own: nobody takes out of them what is read without the lock */
    if (!(raws = PySequence_Tuple(args[2])) || !(plans = PySequence_Tuple(args[3])))
        goto end;
    Py_ssize_t size = PyTuple_GET_SIZE(raws);
    if (PyTuple_GET_SIZE(plans) != size) {
        PyErr_SetString(PyExc_ValueError, "as many plans as records are wanted");
        goto end;
    }
    for (Py_ssize_t i = 0; i < size; i++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(raws, i)) || !PyBytes_Check(PyTuple_GET_ITEM(plans, i)) ||
            PyBytes_GET_SIZE(PyTuple_GET_ITEM(raws, i)) <= SIGNATURE_SIZE) {
            PyErr_SetString(PyExc_TypeError, "records with a signature, and plans, as bytes are wanted");
            goto end;
        }
    if (!(found = PyMem_Malloc(size ? FOUND_SIZE * (size_t)size : 1))) {
        PyErr_NoMemory();
        goto end;
    }
    const uint8_t *domain = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < size && is_whole; i++) {
        PyObject *record = PyTuple_GET_ITEM(raws, i), *plan = PyTuple_GET_ITEM(plans, i);
        const uint8_t *raw = (const uint8_t *)PyBytes_AS_STRING(record);
        Py_ssize_t length = PyBytes_GET_SIZE(record);
        uint8_t digest[32];
        is_whole = digest_of(domain, raw, length, (const uint8_t *)PyBytes_AS_STRING(plan), PyBytes_GET_SIZE(plan),
                             digest);
        uint8_t *one = found + FOUND_SIZE * i;
        if (is_whole)
            one[0] = (uint8_t)key_of(&secp, digest, raw + length - SIGNATURE_SIZE, one + 1);
        if (is_whole && one[0] && is_address) {
            keccak256(one + 1, KEY_SIZE, digest);
            memcpy(one + 1, digest + 32 - ADDRESS_SIZE, ADDRESS_SIZE);
        }
    }
    Py_END_ALLOW_THREADS
    if (!is_whole) {
        PyErr_SetString(PyExc_ValueError, "a plan has more fields than its record");
        goto end;
    }
    out = PyList_New(size);
    for (Py_ssize_t i = 0; out && i < size; i++) {
        const char *bytes = (const char *)found + FOUND_SIZE * i;
        PyObject *one = bytes[0] ? PyBytes_FromStringAndSize(bytes + 1, is_address ? ADDRESS_SIZE : KEY_SIZE)
                                 : Py_NewRef(Py_None);
        if (!one)
            Py_CLEAR(out);
        else
            PyList_SET_ITEM(out, i, one);
    }
end:
    PyMem_Free(found);
    Py_XDECREF(raws);
    Py_XDECREF(plans);
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
