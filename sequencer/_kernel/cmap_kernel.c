/* The crit-bit Merkle map of sequencer/protocol/cmap.py in C: equal to it to the bit, and optional.
 *
 * A branch keeps the hashes of its two children, so that rehashing a path reads the nodes of that path and none of
 * their siblings; a leaf is key and value, one cache line. Changes only mark the child slots on their way stale.
 *
 * Hashes are jobs. mark() makes one of each stale node, with what it hashes or the jobs that this waits for, and calls
 * the slots pending; put_words() makes one of the value. Jobs are done together, by height and side by side in vector
 * lanes, when a hash is asked for or many have come: the nodes of many roots fill lanes that those of one leave empty.
 *
 * All memory is indices into two pools. Depth is at most 256 (bit positions fall along a path), hence fixed stacks.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "this kernel wants GCC or clang and a little-endian machine; the pure Python map serves all others"
#endif

/* ------------------------------------------------------------------------------------------------------- keccak */

#define ROL(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

static const uint64_t ROUND_CONSTANTS[24] = {
    0x0000000000000001u, 0x0000000000008082u, 0x800000000000808Au, 0x8000000080008000u, 0x000000000000808Bu,
    0x0000000080000001u, 0x8000000080008081u, 0x8000000000008009u, 0x000000000000008Au, 0x0000000000000088u,
    0x0000000080008009u, 0x000000008000000Au, 0x000000008000808Bu, 0x800000000000008Bu, 0x8000000000008089u,
    0x8000000000008003u, 0x8000000000008002u, 0x8000000000000080u, 0x000000000000800Au, 0x800000008000000Au,
    0x8000000080008081u, 0x8000000000008080u, 0x0000000080000001u, 0x8000000080008008u,
};

/* chi on one plane; the b are that plane after theta, rho and pi */
#define CHI(e, y)                      \
    e[(y) + 0] = b0 ^ (~b1 & b2);      \
    e[(y) + 1] = b1 ^ (~b2 & b3);      \
    e[(y) + 2] = b2 ^ (~b3 & b4);      \
    e[(y) + 3] = b3 ^ (~b4 & b0);      \
    e[(y) + 4] = b4 ^ (~b0 & b1);

/* one round from a to e; lane (x, y) is [x + 5 y] */
#define ROUND(T, a, e, constant)                                                                             \
    do {                                                                                                     \
        T c0 = a[0] ^ a[5] ^ a[10] ^ a[15] ^ a[20], c1 = a[1] ^ a[6] ^ a[11] ^ a[16] ^ a[21];                \
        T c2 = a[2] ^ a[7] ^ a[12] ^ a[17] ^ a[22], c3 = a[3] ^ a[8] ^ a[13] ^ a[18] ^ a[23];                \
        T c4 = a[4] ^ a[9] ^ a[14] ^ a[19] ^ a[24];                                                          \
        T d0 = c4 ^ ROL(c1, 1), d1 = c0 ^ ROL(c2, 1), d2 = c1 ^ ROL(c3, 1);                                  \
        T d3 = c2 ^ ROL(c4, 1), d4 = c3 ^ ROL(c0, 1);                                                        \
        T t, b0, b1, b2, b3, b4;                                                                             \
        b0 = a[0] ^ d0;                                                                                      \
        t = a[6] ^ d1, b1 = ROL(t, 44), t = a[12] ^ d2, b2 = ROL(t, 43);                                     \
        t = a[18] ^ d3, b3 = ROL(t, 21), t = a[24] ^ d4, b4 = ROL(t, 14);                                    \
        CHI(e, 0)                                                                                            \
        e[0] ^= (constant);                                                                                  \
        t = a[3] ^ d3, b0 = ROL(t, 28), t = a[9] ^ d4, b1 = ROL(t, 20), t = a[10] ^ d0, b2 = ROL(t, 3);      \
        t = a[16] ^ d1, b3 = ROL(t, 45), t = a[22] ^ d2, b4 = ROL(t, 61);                                    \
        CHI(e, 5)                                                                                            \
        t = a[1] ^ d1, b0 = ROL(t, 1), t = a[7] ^ d2, b1 = ROL(t, 6), t = a[13] ^ d3, b2 = ROL(t, 25);       \
        t = a[19] ^ d4, b3 = ROL(t, 8), t = a[20] ^ d0, b4 = ROL(t, 18);                                     \
        CHI(e, 10)                                                                                           \
        t = a[4] ^ d4, b0 = ROL(t, 27), t = a[5] ^ d0, b1 = ROL(t, 36), t = a[11] ^ d1, b2 = ROL(t, 10);     \
        t = a[17] ^ d2, b3 = ROL(t, 15), t = a[23] ^ d3, b4 = ROL(t, 56);                                    \
        CHI(e, 15)                                                                                           \
        t = a[2] ^ d2, b0 = ROL(t, 62), t = a[8] ^ d3, b1 = ROL(t, 55), t = a[14] ^ d4, b2 = ROL(t, 39);     \
        t = a[15] ^ d0, b3 = ROL(t, 41), t = a[21] ^ d1, b4 = ROL(t, 2);                                     \
        CHI(e, 20)                                                                                           \
    } while (0)

/* keccak-f[1600] on as many states as a T has lanes; state[i] is lane i of each */
#define PERMUTATION(name, T, attributes)                     \
    attributes static void name(void *memory)                \
    {                                                        \
        T *state = (T *)memory;                              \
        T a[25], e[25];                                      \
        for (int i = 0; i < 25; i++)                         \
            a[i] = state[i];                                 \
        for (int i = 0; i < 24; i += 2) {                    \
            ROUND(T, a, e, ROUND_CONSTANTS[i]);              \
            ROUND(T, e, a, ROUND_CONSTANTS[i + 1]);          \
        }                                                    \
        for (int i = 0; i < 25; i++)                         \
            state[i] = a[i];                                 \
    }

#define WIDTH_MAX 8
typedef uint64_t lanes1 __attribute__((may_alias));
typedef void (*permutation)(void *);

PERMUTATION(permute_1, lanes1, )
static permutation permute1 = permute_1, permute4 = NULL, permute8 = NULL;
static int width_best = 1, width_used = 1;

#if defined(__x86_64__)
typedef uint64_t lanes4 __attribute__((vector_size(32), may_alias));
typedef uint64_t lanes8 __attribute__((vector_size(64), may_alias));
PERMUTATION(permute_1_bmi, lanes1, __attribute__((target("bmi,bmi2"))))
PERMUTATION(permute_4_avx2, lanes4, __attribute__((target("avx2"))))
PERMUTATION(permute_4_avx512, lanes4, __attribute__((target("avx512f,avx512vl"))))
PERMUTATION(permute_8_avx512, lanes8, __attribute__((target("avx512f,avx512vl"))))

static void choose_permutations(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        permute1 = permute_1_bmi;
    if (__builtin_cpu_supports("avx2")) {
        permute4 = permute_4_avx2;
        width_best = 4;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        permute4 = permute_4_avx512;
        permute8 = permute_8_avx512;
        width_best = 8;
    }
    width_used = width_best;
}
#else
static void choose_permutations(void) {}
#endif

#define RATE 136

static void keccak256(const uint8_t *data, size_t length, uint8_t out[32])
{
    uint64_t state[25] = {0};
    uint64_t block[RATE / 8];
    for (; length >= RATE; data += RATE, length -= RATE) {
        memcpy(block, data, RATE);
        for (int i = 0; i < RATE / 8; i++)
            state[i] ^= block[i];
        permute1(state);
    }
    memset(block, 0, RATE);
    memcpy(block, data, length);
    ((uint8_t *)block)[length] = 0x01;
    ((uint8_t *)block)[RATE - 1] |= 0x80;
    for (int i = 0; i < RATE / 8; i++)
        state[i] ^= block[i];
    permute1(state);
    memcpy(out, state, 32);
}

typedef struct {
    const uint8_t *data;
    size_t length;
    uint8_t *hash;
} message;

static void take(const uint64_t *state, int width, uint8_t *hash)
{
    for (int word = 0; word < 4; word++)
        memcpy(hash + 8 * word, &state[word * width], 8);
}

static int width_for(uint32_t count, permutation *permute)
{
    int width = count == 1 || width_used == 1 ? 1 : count <= 4 || width_used == 4 ? 4 : 8;
    *permute = width == 1 ? permute1 : width == 4 ? permute4 : permute8;
    return width;
}

/* All of them, one a lane; whose lane is through gets the next. */
static void hash_many(const message *messages, uint32_t count)
{
    uint64_t state[25 * WIDTH_MAX] __attribute__((aligned(64)));
    permutation permute;
    int width = width_for(count, &permute);
    uint32_t next = 0;
    const message *of_lane[WIDTH_MAX] = {NULL};
    size_t done[WIDTH_MAX];
    for (;;) {
        int busy = 0;
        for (int lane = 0; lane < width; lane++) {
            if (!of_lane[lane]) {
                if (next == count)
                    continue;
                of_lane[lane] = &messages[next++];
                done[lane] = 0;
                for (int word = 0; word < 25; word++)
                    state[word * width + lane] = 0;
            }
            busy = 1;
            const message *one = of_lane[lane];
            uint64_t block[RATE / 8];
            size_t left = one->length - done[lane];
            if (left >= RATE) {
                memcpy(block, one->data + done[lane], RATE);
            } else {
                memset(block, 0, RATE);
                memcpy(block, one->data + done[lane], left);
                ((uint8_t *)block)[left] = 0x01;
                ((uint8_t *)block)[RATE - 1] |= 0x80;
            }
            done[lane] += RATE;
            for (int word = 0; word < RATE / 8; word++)
                state[word * width + lane] ^= block[word];
        }
        if (!busy)
            return;
        permute(state);
        for (int lane = 0; lane < width; lane++)
            if (of_lane[lane] && done[lane] > of_lane[lane]->length) {
                take(state + lane, width, of_lane[lane]->hash);
                of_lane[lane] = NULL;
            }
    }
}

#include "signers.h"
#include "inverse.h"
#include "field.h"
#include "scalar.h"
#include "points.h"
#include "lanes.h"
#include "batch.h"
#include "sums.h"

/* --------------------------------------------------------------------------------------------------------- tree */

typedef uint32_t ref; /* index into a pool; the top bit says that it is a leaf */
#define LEAF 0x80000000u
#define NIL 0xFFFFFFFFu
#define POOL_MAX 0x7FFFFFFEu
#define DEPTH_MAX 256

typedef struct {
    uint8_t hash[2][32]; /* of the children, left and right */
    ref child[2];
    uint8_t position; /* branches at bit 2^position */
    uint8_t stale;    /* bit s: hash[s] is not that of child[s] */
    uint8_t pending;  /* bit s: hash[s] begins with the number of the job that makes it; never stale as well */
} branch;

typedef struct {
    uint8_t key[32], value[32]; /* big-endian, as they are hashed */
} leaf;

/* The hash of a node as it was when it was marked. */
typedef struct {
    uint8_t data[2][32]; /* of a leaf: key, value; of a branch: the children's hashes */
    uint8_t hash[32];
    uint32_t from[2]; /* jobs (a leaf's value: texts) whose hash belongs in data; NIL: it is there */
    uint32_t next;    /* job of the same height */
    int16_t height;   /* above the lowest job that it waits for */
    int16_t position; /* of a branch; -1: a leaf */
} job;

/* The hash of bytes, which is a leaf's value. */
typedef struct {
    uint8_t hash[32];
    size_t start, length;
} text;

/* A root that was marked. */
typedef struct {
    uint8_t hash[32];
    uint32_t from; /* the job that makes it; NIL: it is there */
} version;

typedef struct {
    leaf *leaves;
    uint8_t *waits; /* of a leaf: its value begins with the number of the text that makes it */
    branch *branches;
    uint32_t leaf_capacity, leaf_used, leaf_free; /* free entries are chained, through their first bytes */
    uint32_t waits_capacity;
    uint32_t branch_capacity, branch_used, branch_free;
    uint32_t count;
    ref top;
    int stale, pending; /* of root, as of a branch's hashes */
    uint8_t root[32];
    job *jobs;
    text *texts;
    uint8_t *bytes; /* of the texts */
    version *versions;
    uint32_t jobs_capacity, jobs_used, texts_capacity, texts_used, versions_capacity, versions_used,
        versions_done;
    uint32_t bytes_capacity, bytes_used;
    int height;                    /* greatest of the jobs; -1: there are none */
    uint32_t first[DEPTH_MAX + 1]; /* job of each height; chained through next */
} tree;

#define JOBS_MAX 8192           /* more are done at once */
#define BYTES_MAX (1u << 20)

static void tree_init(tree *t)
{
    memset(t, 0, sizeof *t);
    t->top = t->leaf_free = t->branch_free = NIL;
    t->height = -1;
    memset(t->first, 0xFF, sizeof t->first);
}

static void tree_release(tree *t)
{
    PyMem_RawFree(t->leaves);
    PyMem_RawFree(t->waits);
    PyMem_RawFree(t->branches);
    PyMem_RawFree(t->jobs);
    PyMem_RawFree(t->texts);
    PyMem_RawFree(t->bytes);
    PyMem_RawFree(t->versions);
    tree_init(t);
}

static int grow(void **pool, uint32_t *capacity, size_t size, uint32_t wanted)
{
    uint64_t next = (uint64_t)*capacity + *capacity / 2 + 64;
    if (next < wanted)
        next = wanted;
    if (next > POOL_MAX)
        next = POOL_MAX;
    void *grown = next > *capacity ? PyMem_RawRealloc(*pool, (size_t)next * size) : NULL;
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *pool = grown;
    *capacity = (uint32_t)next;
    return 0;
}

/* Room for one more leaf and branch, or -1 with MemoryError. Comes first, so that a failure changes nothing. */
static int reserve(tree *t)
{
    if (t->leaf_free == NIL && t->leaf_used == t->leaf_capacity &&
        grow((void **)&t->leaves, &t->leaf_capacity, sizeof(leaf), 0))
        return -1;
    if (t->waits_capacity < t->leaf_capacity) {
        uint32_t had = t->waits_capacity;
        if (grow((void **)&t->waits, &t->waits_capacity, 1, t->leaf_capacity))
            return -1;
        memset(t->waits + had, 0, t->waits_capacity - had);
    }
    if (t->branch_free == NIL && t->branch_used == t->branch_capacity &&
        grow((void **)&t->branches, &t->branch_capacity, sizeof(branch), 0))
        return -1;
    return 0;
}

static uint32_t number_at(const uint8_t *place)
{
    uint32_t number;
    memcpy(&number, place, sizeof number);
    return number;
}

static ref new_leaf(tree *t, const uint8_t *key, const uint8_t *value, int waits)
{
    uint32_t at = t->leaf_free;
    if (at == NIL)
        at = t->leaf_used++;
    else
        memcpy(&t->leaf_free, t->leaves[at].key, sizeof at);
    memcpy(t->leaves[at].key, key, 32);
    memcpy(t->leaves[at].value, value, 32);
    t->waits[at] = (uint8_t)waits;
    t->count++;
    return at | LEAF;
}

static void free_leaf(tree *t, ref r)
{
    uint32_t at = r & ~LEAF;
    memcpy(t->leaves[at].key, &t->leaf_free, sizeof at);
    t->leaf_free = at;
    t->count--;
}

static ref new_branch(tree *t)
{
    uint32_t at = t->branch_free;
    if (at == NIL)
        at = t->branch_used++;
    else
        t->branch_free = t->branches[at].child[0];
    return at;
}

static void free_branch(tree *t, ref at)
{
    t->branches[at].child[0] = t->branch_free;
    t->branch_free = at;
}

static inline int side_of(const uint8_t *key, unsigned position)
{
    return key[31 - (position >> 3)] >> (position & 7) & 1;
}

/* Highest bit in which two words differ, -1 if they are equal. */
static int difference(const uint8_t *a, const uint8_t *b)
{
    for (int i = 0; i < 4; i++) {
        uint64_t x, y;
        memcpy(&x, a + 8 * i, 8);
        memcpy(&y, b + 8 * i, 8);
        if (x != y)
            return 64 * (3 - i) + 63 - __builtin_clzll(__builtin_bswap64(x ^ y));
    }
    return -1;
}

/* Follow `key` from a non-empty tree's top to a leaf; the branches passed go to `way`, their number is returned. */
static int descend(const tree *t, const uint8_t *key, ref way[DEPTH_MAX], ref *end)
{
    int depth = 0;
    ref at = t->top;
    while (!(at & LEAF)) {
        const branch *b = &t->branches[at];
        way[depth++] = at;
        at = b->child[side_of(key, b->position)];
    }
    *end = at;
    return depth;
}

static void mark_stale(tree *t, const uint8_t *key, const ref *way, int depth)
{
    for (int i = 0; i < depth; i++) {
        branch *b = &t->branches[way[i]];
        uint8_t bit = (uint8_t)(1 << side_of(key, b->position));
        b->stale |= bit;
        b->pending &= (uint8_t)~bit;
    }
    t->stale = 1;
    t->pending = 0;
}

/* The slot that holds way[depth] (or what stands there): in its parent, or the top of the tree. */
typedef struct {
    ref *child;
    uint8_t *hash;
    int stale, pending;
} slot;

static slot slot_at(tree *t, const uint8_t *key, const ref *way, int depth)
{
    if (depth == 0)
        return (slot){&t->top, t->root, t->stale, t->pending};
    branch *b = &t->branches[way[depth - 1]];
    int side = side_of(key, b->position);
    return (slot){&b->child[side], b->hash[side], b->stale >> side & 1, b->pending >> side & 1};
}

/* `waits`: the value is still to be hashed, and begins with the number of its text. 0, or -1 with nothing changed. */
static int tree_put(tree *t, const uint8_t *key, const uint8_t *value, int waits)
{
    ref way[DEPTH_MAX], end;
    if (t->top == NIL) {
        if (reserve(t))
            return -1;
        t->top = new_leaf(t, key, value, waits);
        t->stale = 1;
        t->pending = 0;
        return 0;
    }
    int depth = descend(t, key, way, &end);
    leaf *found = &t->leaves[end & ~LEAF];
    int position = difference(key, found->key);
    if (position < 0) {
        uint8_t *flag = &t->waits[end & ~LEAF];
        if (waits || *flag || memcmp(found->value, value, 32)) {
            memcpy(found->value, value, 32);
            *flag = (uint8_t)waits;
            mark_stale(t, key, way, depth);
        }
        return 0;
    }
    if (reserve(t))
        return -1;
    int at = 0; /* binary search would save nothing: the way is in the cache */
    while (at < depth && t->branches[way[at]].position > position)
        at++;
    ref made = new_branch(t);
    branch *b = &t->branches[made];
    slot above = slot_at(t, key, way, at);
    int side = side_of(key, (unsigned)position);
    b->position = (uint8_t)position;
    b->child[side] = new_leaf(t, key, value, waits);
    b->child[!side] = *above.child;
    memcpy(b->hash[!side], above.hash, 32);
    b->stale = (uint8_t)(1 << side | above.stale << !side);
    b->pending = (uint8_t)(above.pending << !side);
    *above.child = made;
    mark_stale(t, key, way, at);
    return 0;
}

/* 0 if the key was there. */
static int tree_delete(tree *t, const uint8_t *key)
{
    ref way[DEPTH_MAX], end;
    if (t->top == NIL)
        return -1;
    int depth = descend(t, key, way, &end);
    if (memcmp(t->leaves[end & ~LEAF].key, key, 32))
        return -1;
    free_leaf(t, end);
    if (depth == 0) {
        t->top = NIL;
        t->pending = 0;
        return 0;
    }
    branch *parent = &t->branches[way[depth - 1]];
    int side = !side_of(key, parent->position);
    slot above = slot_at(t, key, way, depth - 1);
    /* The sibling moves up with its hash. The slot above goes stale or pending only if that hash is; what holds the slot
     * is rehashed in any case, because the way to it is marked. */
    *above.child = parent->child[side];
    memcpy(above.hash, parent->hash[side], 32);
    int stale = parent->stale >> side & 1, pending = parent->pending >> side & 1;
    free_branch(t, way[depth - 1]);
    if (depth == 1) {
        t->stale = stale;
        t->pending = pending;
        return 0;
    }
    mark_stale(t, key, way, depth - 2);
    branch *holder = &t->branches[way[depth - 2]];
    int held = side_of(key, holder->position);
    holder->stale = (uint8_t)((holder->stale & ~(1 << held)) | stale << held);
    holder->pending = (uint8_t)((holder->pending & ~(1 << held)) | pending << held);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------ hashing */

/* A job for a stale node, after those for all that is stale below it; its number, or -1 with MemoryError. */
static int64_t gather(tree *t, ref node)
{
    branch *b = node & LEAF ? NULL : &t->branches[node];
    for (int side = 0; b && side < 2; side++) {
        if (!(b->stale >> side & 1))
            continue;
        int64_t below = gather(t, b->child[side]);
        if (below < 0)
            return -1;
        uint32_t number = (uint32_t)below;
        memcpy(b->hash[side], &number, sizeof number);
        b->stale &= (uint8_t)~(1 << side);
        b->pending |= (uint8_t)(1 << side);
    }
    if (t->jobs_used == t->jobs_capacity && grow((void **)&t->jobs, &t->jobs_capacity, sizeof(job), 0))
        return -1;
    job *made = &t->jobs[t->jobs_used];
    made->from[0] = made->from[1] = NIL;
    made->height = 0;
    if (b) {
        made->position = b->position;
        memcpy(made->data, b->hash, 64);
        for (int side = 0; side < 2; side++)
            if (b->pending >> side & 1) {
                made->from[side] = number_at(b->hash[side]);
                int16_t above = (int16_t)(t->jobs[made->from[side]].height + 1);
                if (above > made->height)
                    made->height = above;
            }
    } else {
        const leaf *l = &t->leaves[node & ~LEAF];
        made->position = -1;
        memcpy(made->data, l, 64);
        if (t->waits[node & ~LEAF])
            made->from[1] = number_at(l->value);
    }
    made->next = t->first[made->height];
    t->first[made->height] = t->jobs_used;
    if (made->height > t->height)
        t->height = made->height;
    return t->jobs_used++;
}

/* The padded message of a job, into every `width`-th word of `state`, which is zero. */
static void load(const tree *t, const job *one, uint64_t *state, int width)
{
    uint64_t message[12];
    int words = one->position < 0 ? 8 : 12;
    uint8_t *data = (uint8_t *)(message + words - 8);
    if (words == 12) {
        memset(message, 0, 32);
        ((uint8_t *)message)[31 - (one->position >> 3)] = (uint8_t)(1 << (one->position & 7));
    }
    for (int side = 0; side < 2; side++) {
        const uint8_t *from = one->data[side];
        if (one->from[side] != NIL)
            from = words == 12 ? t->jobs[one->from[side]].hash : t->texts[one->from[side]].hash;
        memcpy(data + 32 * side, from, 32);
    }
    for (int i = 0; i < words; i++)
        state[i * width] = message[i];
    state[words * width] = 1;
    state[16 * width] = 0x8000000000000000u;
}

static void hash_together(const tree *t, job *const *jobs, int count, int width, permutation permute)
{
    uint64_t state[25 * WIDTH_MAX] __attribute__((aligned(64)));
    memset(state, 0, sizeof(uint64_t) * 25 * (size_t)width);
    for (int i = 0; i < count; i++)
        load(t, jobs[i], state + i, width);
    permute(state);
    for (int i = 0; i < count; i++)
        take(state + i, width, jobs[i]->hash);
}

/* All texts. */
static void hash_texts(tree *t)
{
    message some[64];
    for (uint32_t first = 0, count; first < t->texts_used; first += count) {
        count = t->texts_used - first < 64 ? t->texts_used - first : 64;
        for (uint32_t i = 0; i < count; i++) {
            text *one = &t->texts[first + i];
            some[i] = (message){t->bytes + one->start, one->length, one->hash};
        }
        hash_many(some, count);
    }
}

/* Puts the hashes of done jobs into the slots that wait for them. Above such a slot none is clean. */
static void settle(tree *t, ref node)
{
    if (node & LEAF) {
        uint32_t at = node & ~LEAF;
        if (t->waits[at]) {
            memcpy(t->leaves[at].value, t->texts[number_at(t->leaves[at].value)].hash, 32);
            t->waits[at] = 0;
        }
        return;
    }
    branch *b = &t->branches[node];
    for (int side = 0; side < 2; side++) {
        if (b->pending >> side & 1)
            memcpy(b->hash[side], t->jobs[number_at(b->hash[side])].hash, 32);
        if ((b->pending | b->stale) >> side & 1)
            settle(t, b->child[side]);
    }
    b->pending = 0;
}

/* Does all jobs. */
static void tree_flush(tree *t)
{
    if (t->texts_used)
        hash_texts(t);
    for (int height = 0; height <= t->height; height++) {
        uint32_t next = t->first[height], count = 0;
        t->first[height] = NIL;
        while (next != NIL) {
            job *batch[WIDTH_MAX];
            permutation permute;
            for (count = 0; next != NIL && count < (uint32_t)width_used; count++) {
                batch[count] = &t->jobs[next];
                next = batch[count]->next;
            }
            int width = width_for(count, &permute);
            hash_together(t, batch, (int)count, width, permute);
        }
    }
    for (; t->versions_done < t->versions_used; t->versions_done++) {
        version *one = &t->versions[t->versions_done];
        if (one->from != NIL)
            memcpy(one->hash, t->jobs[one->from].hash, 32);
    }
    if (t->top != NIL && (t->stale || t->pending)) {
        if (t->pending)
            memcpy(t->root, t->jobs[number_at(t->root)].hash, 32);
        t->pending = 0;
        settle(t, t->top);
    }
    t->jobs_used = t->texts_used = t->bytes_used = 0;
    t->height = -1;
}

/* Makes jobs of all that is stale; 0, or -1 with MemoryError. */
static int tree_mark(tree *t)
{
    if (t->top == NIL) {
        memset(t->root, 0, 32);
        t->stale = 0;
    } else if (t->stale) {
        int64_t number = gather(t, t->top);
        if (number < 0)
            return -1;
        uint32_t top = (uint32_t)number;
        memcpy(t->root, &top, sizeof top);
        t->stale = 0;
        t->pending = 1;
    }
    return 0;
}

static int tree_hash(tree *t)
{
    if (tree_mark(t))
        return -1;
    if (t->pending)
        tree_flush(t);
    return 0;
}

/* Sets a key to the hash of bytes, later; 0, or -1 with MemoryError. */
static int tree_put_text(tree *t, const uint8_t *key, const uint8_t *bytes, size_t length)
{
    uint8_t value[32] = {0};
    if (length > BYTES_MAX) {
        keccak256(bytes, length, value);
        return tree_put(t, key, value, 0);
    }
    if (t->bytes_used + length > BYTES_MAX || t->texts_used >= JOBS_MAX)
        tree_flush(t);
    if (t->texts_used == t->texts_capacity && grow((void **)&t->texts, &t->texts_capacity, sizeof(text), 0))
        return -1;
    uint32_t end = t->bytes_used + (uint32_t)length;
    if (end > t->bytes_capacity && grow((void **)&t->bytes, &t->bytes_capacity, 1, end))
        return -1;
    memcpy(value, &t->texts_used, sizeof t->texts_used);
    if (tree_put(t, key, value, 1))
        return -1;
    t->texts[t->texts_used].start = t->bytes_used;
    t->texts[t->texts_used++].length = length;
    memcpy(t->bytes + t->bytes_used, bytes, length);
    t->bytes_used = end;
    return 0;
}

/* Values of leaves are there. */
static void know_values(tree *t)
{
    if (t->texts_used)
        tree_flush(t);
}

/* ------------------------------------------------------------------------------------------------------- Python */

typedef struct {
    PyObject_HEAD
    tree tree;
} Map;

static PyObject *int_of(const uint8_t *word)
{
    return _PyLong_FromByteArray(word, 32, 0, 0);
}

/* 1 and the word; 0 if the int is no word; -1 with TypeError if it is no int. */
static int word_of(PyObject *number, uint8_t *word)
{
    if (!PyLong_Check(number)) {
        PyErr_Format(PyExc_TypeError, "an int is wanted, not %.100s", Py_TYPE(number)->tp_name);
        return -1;
    }
    if (_PyLong_Sign(number) < 0 || _PyLong_NumBits(number) > 256) {
        PyErr_Clear(); /* _PyLong_NumBits may overflow */
        return 0;
    }
#if PY_VERSION_HEX >= 0x030D0000
    return _PyLong_AsByteArray((PyLongObject *)number, word, 32, 0, 0, 1) ? -1 : 1;
#else
    return _PyLong_AsByteArray((PyLongObject *)number, word, 32, 0, 0) ? -1 : 1;
#endif
}

static int arguments(const char *name, Py_ssize_t got, Py_ssize_t wanted)
{
    if (got == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", name, wanted, got);
    return -1;
}

static PyObject *Map_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if ((args && PyTuple_GET_SIZE(args)) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "Map() takes no arguments");
        return NULL;
    }
    Map *self = (Map *)type->tp_alloc(type, 0);
    if (self)
        tree_init(&self->tree);
    return (PyObject *)self;
}

static void Map_dealloc(Map *self)
{
    tree_release(&self->tree);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static Py_ssize_t Map_length(Map *self)
{
    return (Py_ssize_t)self->tree.count;
}

static PyObject *Map_get(Map *self, PyObject *key)
{
    uint8_t word[32];
    ref way[DEPTH_MAX], end;
    int ok = word_of(key, word);
    if (ok < 0)
        return NULL;
    know_values(&self->tree);
    if (ok && self->tree.top != NIL) {
        descend(&self->tree, word, way, &end);
        const leaf *found = &self->tree.leaves[end & ~LEAF];
        if (!memcmp(found->key, word, 32))
            return int_of(found->value);
    }
    Py_RETURN_NONE;
}

static PyObject *Map_put(Map *self, PyObject *const *args, Py_ssize_t count)
{
    uint8_t key[32], value[32];
    if (arguments("put", count, 2))
        return NULL;
    for (int i = 1; i >= 0; i--) {
        int ok = word_of(args[i], i ? value : key);
        if (ok < 0)
            return NULL;
        if (!ok)
            return PyErr_Format(PyExc_ValueError, "not a word: %s %S", i ? "value" : "key", args[i]);
    }
    if (tree_put(&self->tree, key, value, 0))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Map_put_leaf(Map *self, PyObject *leaf)
{
    if (!PyBytes_Check(leaf))
        return PyErr_Format(PyExc_TypeError, "bytes are wanted, not %.100s", Py_TYPE(leaf)->tp_name);
    if (PyBytes_GET_SIZE(leaf) != 64)
        return PyErr_Format(PyExc_ValueError, "a leaf has 64 bytes, not %zd", PyBytes_GET_SIZE(leaf));
    const uint8_t *words = (const uint8_t *)PyBytes_AS_STRING(leaf);
    if (tree_put(&self->tree, words, words + 32, 0))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Map_put_words(Map *self, PyObject *const *args, Py_ssize_t count)
{
    uint8_t key[32];
    if (arguments("put_words", count, 2))
        return NULL;
    int ok = word_of(args[0], key);
    if (ok < 0)
        return NULL;
    if (!ok)
        return PyErr_Format(PyExc_ValueError, "not a word: key %S", args[0]);
    if (!PyBytes_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "bytes are wanted, not %.100s", Py_TYPE(args[1])->tp_name);
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    if (tree_put_text(&self->tree, key, bytes, (size_t)PyBytes_GET_SIZE(args[1])))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Map_delete(Map *self, PyObject *key)
{
    uint8_t word[32];
    int ok = word_of(key, word);
    if (ok < 0)
        return NULL;
    if (!ok || tree_delete(&self->tree, word)) {
        PyErr_SetObject(PyExc_KeyError, key);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *Map_root(Map *self, PyObject *unused)
{
    (void)unused;
    if (tree_hash(&self->tree))
        return NULL;
    return PyBytes_FromStringAndSize((const char *)self->tree.root, 32);
}

static PyObject *Map_mark(Map *self, PyObject *unused)
{
    (void)unused;
    tree *t = &self->tree;
    if (t->versions_used == t->versions_capacity &&
        grow((void **)&t->versions, &t->versions_capacity, sizeof(version), 0))
        return NULL;
    if (tree_mark(t))
        return NULL;
    version *made = &t->versions[t->versions_used++];
    made->from = t->pending ? number_at(t->root) : NIL;
    memcpy(made->hash, t->root, 32);
    if (t->jobs_used >= JOBS_MAX)
        tree_flush(t);
    return PyLong_FromUnsignedLong(t->versions_used - 1);
}

static PyObject *Map_roots(Map *self, PyObject *unused)
{
    (void)unused;
    tree *t = &self->tree;
    if (t->versions_done < t->versions_used)
        tree_flush(t);
    /* Copied first: making objects may run a collection, hence foreign code, which may change the map. */
    uint32_t count = t->versions_used;
    version *versions = t->versions;
    t->versions = NULL;
    t->versions_used = t->versions_capacity = t->versions_done = 0;
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; list && i < count; i++) {
        PyObject *root = PyBytes_FromStringAndSize((const char *)versions[i].hash, 32);
        if (root)
            PyList_SET_ITEM(list, i, root);
        else
            Py_CLEAR(list);
    }
    PyMem_RawFree(versions);
    return list;
}

static PyObject *pair_of(const leaf *entry)
{
    PyObject *key = int_of(entry->key), *value = int_of(entry->value);
    PyObject *pair = key && value ? PyTuple_Pack(2, key, value) : NULL;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return pair;
}

static PyObject *Map_items(Map *self, PyObject *unused)
{
    (void)unused;
    tree *t = &self->tree;
    know_values(t);
    /* Copied first: making objects may run a collection, hence foreign code, which may change the map. */
    uint32_t count = t->count, filled = 0;
    leaf *entries = PyMem_RawMalloc(count ? count * sizeof(leaf) : 1);
    if (!entries)
        return PyErr_NoMemory();
    ref pending[DEPTH_MAX + 1];
    int depth = 0;
    if (t->top != NIL)
        pending[depth++] = t->top;
    while (depth) {
        ref at = pending[--depth];
        while (!(at & LEAF)) {
            pending[depth++] = t->branches[at].child[1];
            at = t->branches[at].child[0];
        }
        entries[filled++] = t->leaves[at & ~LEAF];
    }
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; list && i < count; i++) {
        PyObject *pair = pair_of(&entries[i]);
        if (pair)
            PyList_SET_ITEM(list, i, pair);
        else
            Py_CLEAR(list);
    }
    PyMem_RawFree(entries);
    return list;
}

/* Put behind the last leaf what is greater than it. `spine` holds the branches of the right edge. 0, or -1. */
static int append(tree *t, ref *last, ref spine[DEPTH_MAX], int *depth, const uint8_t *key, const uint8_t *value)
{
    if (reserve(t))
        return -1;
    ref made = new_leaf(t, key, value, 0);
    if (*last == NIL) {
        t->top = *last = made;
        t->stale = 1;
        return 0;
    }
    int position = difference(key, t->leaves[*last & ~LEAF].key);
    ref left = *last;
    while (*depth && t->branches[spine[*depth - 1]].position < position)
        left = spine[--*depth];
    ref at = new_branch(t);
    branch *b = &t->branches[at];
    memset(b, 0, sizeof *b);
    b->position = (uint8_t)position;
    b->child[0] = left;
    b->child[1] = made;
    b->stale = 3;
    if (*depth)
        t->branches[spine[*depth - 1]].child[1] = at;
    else
        t->top = at;
    spine[(*depth)++] = at;
    *last = made;
    return 0;
}

/* 0 and the words of a pair; -1 with an exception. */
static int words_of_pair(PyObject *item, uint8_t *key, uint8_t *value)
{
    PyObject *pair = PySequence_Fast(item, "an item is wanted as (key, value)");
    if (!pair)
        return -1;
    int result = -1;
    if (PySequence_Fast_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_ValueError, "an item is wanted as (key, value)");
    } else {
        int ok = word_of(PySequence_Fast_GET_ITEM(pair, 0), key);
        if (ok > 0)
            ok = word_of(PySequence_Fast_GET_ITEM(pair, 1), value);
        if (ok > 0)
            result = 0;
        else if (!ok)
            PyErr_Format(PyExc_ValueError, "not a word, or not in rising order: %R", item);
    }
    Py_DECREF(pair);
    return result;
}

static PyObject *Map_build(PyObject *type, PyObject *items)
{
    /* Built aside: the iterator runs foreign code, which must not see a half-made map. */
    tree t;
    tree_init(&t);
    ref last = NIL, spine[DEPTH_MAX];
    int depth = 0;
    PyObject *item, *iterator = PyObject_GetIter(items);
    if (!iterator)
        return NULL;
    while ((item = PyIter_Next(iterator))) {
        uint8_t key[32], value[32];
        int failed = words_of_pair(item, key, value);
        if (!failed && last != NIL && memcmp(key, t.leaves[last & ~LEAF].key, 32) <= 0) {
            PyErr_Format(PyExc_ValueError, "not a word, or not in rising order: %R", item);
            failed = -1;
        }
        Py_DECREF(item);
        if (failed || append(&t, &last, spine, &depth, key, value))
            break;
    }
    Py_DECREF(iterator);
    PyObject *made = PyErr_Occurred() ? NULL : Map_new((PyTypeObject *)type, NULL, NULL);
    if (!made) {
        tree_release(&t);
        return NULL;
    }
    ((Map *)made)->tree = t;
    return made;
}

static PyObject *Map_first_in_prefix(Map *self, PyObject *const *args, Py_ssize_t count)
{
    uint8_t prefix[32], mask[32];
    if (arguments("first_in_prefix", count, 2))
        return NULL;
    int ok = word_of(args[0], prefix);
    if (ok > 0)
        ok = word_of(args[1], mask);
    if (ok < 0)
        return NULL;
    if (!ok)
        return PyErr_Format(PyExc_ValueError, "not a word: prefix %S, mask %S", args[0], args[1]);
    int bits = difference(mask, (const uint8_t[32]){0}) + 1; /* of the mask, which must be 2^bits - 1 */
    uint64_t wrong = 0, carry = 1; /* bits of mask & (mask + 1), and of mask & prefix */
    for (int i = 3; i >= 0; i--) {
        uint64_t m, p;
        memcpy(&m, mask + 8 * i, 8);
        memcpy(&p, prefix + 8 * i, 8);
        m = __builtin_bswap64(m);
        wrong |= (m & (m + carry)) | (m & __builtin_bswap64(p));
        carry = m + carry < carry;
    }
    if (wrong)
        return PyErr_Format(PyExc_ValueError, "not 2^j - 1, or not disjoint: mask %S, prefix %S", args[1], args[0]);
    tree *t = &self->tree;
    know_values(t);
    ref at = t->top;
    if (at == NIL)
        Py_RETURN_NONE;
    while (!(at & LEAF)) {
        const branch *b = &t->branches[at];
        at = b->child[b->position >= bits ? side_of(prefix, b->position) : 0];
    }
    leaf found = t->leaves[at & ~LEAF];
    if (difference(found.key, prefix) >= bits)
        Py_RETURN_NONE;
    return pair_of(&found);
}

static PyObject *Map_descend(Map *self, PyObject *key)
{
    uint8_t word[32], bitmap[32] = {0}, hashes[DEPTH_MAX][32];
    ref way[DEPTH_MAX], end;
    tree *t = &self->tree;
    int ok = word_of(key, word);
    if (ok < 0)
        return NULL;
    if (!ok)
        return PyErr_Format(PyExc_ValueError, "not a word: key %S", key);
    if (tree_hash(t))
        return NULL;
    if (t->top == NIL)
        Py_RETURN_NONE;
    int depth = descend(t, word, way, &end);
    leaf found = t->leaves[end & ~LEAF];
    for (int i = 0; i < depth; i++) {
        const branch *b = &t->branches[way[depth - 1 - i]];
        bitmap[31 - (b->position >> 3)] |= (uint8_t)(1 << (b->position & 7));
        memcpy(hashes[i], b->hash[!side_of(word, b->position)], 32);
    }
    PyObject *siblings = PyTuple_New(depth);
    for (int i = 0; siblings && i < depth; i++) {
        PyObject *sibling = PyBytes_FromStringAndSize((const char *)hashes[i], 32);
        if (sibling)
            PyTuple_SET_ITEM(siblings, i, sibling);
        else
            Py_CLEAR(siblings);
    }
    return siblings ? Py_BuildValue("(NNNN)", int_of(found.key), int_of(found.value), int_of(bitmap), siblings) : NULL;
}

static PyObject *Map_sizeof(Map *self, PyObject *unused)
{
    (void)unused;
    const tree *t = &self->tree;
    return PyLong_FromSize_t((size_t)Py_TYPE(self)->tp_basicsize + t->leaf_capacity * sizeof(leaf) +
                             t->waits_capacity + t->branch_capacity * sizeof(branch) + t->jobs_capacity * sizeof(job) +
                             t->texts_capacity * sizeof(text) + t->bytes_capacity +
                             t->versions_capacity * sizeof(version));
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef Map_methods[] = {
    {"get", (PyCFunction)Map_get, METH_O, "Value at a key, None if absent."},
    {"put", FAST(Map_put), METH_FASTCALL, "Set a key; ValueError if key or value is not a word."},
    {"put_leaf", (PyCFunction)Map_put_leaf, METH_O, "Set a key to a value, 32 bytes each; ValueError if not 64."},
    {"put_words", FAST(Map_put_words), METH_FASTCALL, "Set a key to the hash of bytes; ValueError if it is no word."},
    {"delete", (PyCFunction)Map_delete, METH_O, "Take a key out; KeyError if absent."},
    {"root", (PyCFunction)Map_root, METH_NOARGS, "Root, 32 bytes; hashes what changed since the last call."},
    {"mark", (PyCFunction)Map_mark, METH_NOARGS, "Notes the root for `roots`; its place among those noted."},
    {"roots", (PyCFunction)Map_roots, METH_NOARGS, "The roots noted since the last call, 32 bytes each."},
    {"items", (PyCFunction)Map_items, METH_NOARGS, "All entries in key order."},
    {"build", (PyCFunction)Map_build, METH_O | METH_CLASS, "Map of sorted, distinct entries; ValueError if not."},
    {"first_in_prefix", FAST(Map_first_in_prefix), METH_FASTCALL, "Entry of the smallest key of a prefix, or None."},
    {"_descend", (PyCFunction)Map_descend, METH_O, "Leaf towards a key: key, value, bitmap, siblings; None if empty."},
    {"__sizeof__", (PyCFunction)Map_sizeof, METH_NOARGS, "Bytes held, pools included."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods Map_as_sequence = {.sq_length = (lenfunc)Map_length};

static PyTypeObject Map_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "sequencer._kernel.cmap_kernel.Map",
    .tp_doc = "The crit-bit Merkle map; see sequencer/protocol/cmap.py.",
    .tp_basicsize = sizeof(Map),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = Map_new,
    .tp_dealloc = (destructor)Map_dealloc,
    .tp_methods = Map_methods,
    .tp_as_sequence = &Map_as_sequence,
};

static PyObject *module_keccak(PyObject *module, PyObject *data)
{
    (void)module;
    uint8_t out[32];
    if (!PyBytes_Check(data))
        return PyErr_Format(PyExc_TypeError, "bytes are wanted, not %.100s", Py_TYPE(data)->tp_name);
    keccak256((const uint8_t *)PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), out);
    return PyBytes_FromStringAndSize((const char *)out, 32);
}

#define POSITIONS_MAX 255 /* an account's leaf counts them in a byte */

/* The words of an account's positions, by instrument: see Account.words. */
static PyObject *module_position_words(PyObject *module, PyObject *positions)
{
    (void)module;
    if (!PyDict_CheckExact(positions))
        return PyErr_Format(PyExc_TypeError, "a dict is wanted, not %.100s", Py_TYPE(positions)->tp_name);
    Py_ssize_t count = PyDict_GET_SIZE(positions), place = 0, made = 0;
    if (count > POSITIONS_MAX)
        return PyErr_Format(PyExc_ValueError, "an account has at most %d positions, not %zd", POSITIONS_MAX, count);
    uint64_t instruments[POSITIONS_MAX], lots[POSITIONS_MAX];
    PyObject *key, *value;
    while (PyDict_Next(positions, &place, &key, &value)) {
        unsigned long long instrument = PyLong_AsUnsignedLongLong(key);
        long long held = PyLong_AsLongLong(value);
        if (PyErr_Occurred())
            return NULL;
        if (instrument >> 32) {
            PyErr_SetString(PyExc_OverflowError, "an instrument has 32 bits");
            return NULL;
        }
        Py_ssize_t at = made++;
        for (; at > 0 && instruments[at - 1] > instrument; at--) {
            instruments[at] = instruments[at - 1];
            lots[at] = lots[at - 1];
        }
        instruments[at] = instrument;
        lots[at] = (uint64_t)held ^ 1ull << 63; /* biased */
    }
    PyObject *words = PyBytes_FromStringAndSize(NULL, 32 * count);
    if (!words)
        return NULL;
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(words);
    memset(out, 0, 32 * (size_t)count);
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t instrument = __builtin_bswap32((uint32_t)instruments[i]);
        uint64_t held = __builtin_bswap64(lots[i]);
        memcpy(out + 32 * i + 20, &instrument, 4);
        memcpy(out + 32 * i + 24, &held, 8);
    }
    return words;
}

static PyObject *module_use_lanes(PyObject *module, PyObject *number)
{
    (void)module;
    long wanted = PyLong_AsLong(number);
    if (wanted == -1 && PyErr_Occurred())
        return NULL;
    width_used = wanted >= 8 ? 8 : wanted >= 4 ? 4 : 1;
    if (width_used > width_best)
        width_used = width_best;
    sums_choose(wanted < 4);
    return PyLong_FromLong(width_used);
}

static PyMethodDef module_methods[] = {
    {"keccak", module_keccak, METH_O, "Keccak-256 of bytes."},
    {"signers", FAST(module_signers), METH_FASTCALL, "Address of each record's signer, or None; without the lock."},
    {"public_keys", FAST(module_public_keys), METH_FASTCALL, "Public key of each record's signer, or None; without the lock."},
    {"key_table", module_key_table, METH_O, "What verify needs of a public key."},
    {"verify", FAST(module_verify), METH_FASTCALL, "Whether keys have signed records, all at once; without the lock."},
    {"arithmetic", FAST(module_arithmetic), METH_FASTCALL, "An operation of the field or of scalars, for tests."},
    {"row_sums", FAST(module_row_sums), METH_FASTCALL, "Checksums of a table's rows, one behind the other."},
    {"position_words", module_position_words, METH_O, "Words of positions: instrument -> lots, by instrument."},
    {"use_lanes", module_use_lanes, METH_O, "Hash at most this many nodes at once, 1: also without SHA-NI; returns what the machine allows."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "cmap_kernel", "The crit-bit Merkle map, Keccak-256, signers and checksums in C.", -1, module_methods, NULL,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_cmap_kernel(void)
{
    choose_permutations();
    choose_field();
    sums_choose(0);
    if (PyType_Ready(&Map_type) < 0)
        return NULL;
    if (!make_generator_table()) {
        PyErr_SetString(PyExc_ImportError, "the arithmetic of the curve is wrong as this compiler has made it");
        return NULL;
    }
    PyObject *module = PyModule_Create(&module_definition);
    if (module && (PyModule_AddObjectRef(module, "Map", (PyObject *)&Map_type) < 0 ||
                   PyModule_AddIntConstant(module, "INTERFACE", 4) < 0))
        Py_CLEAR(module);
    return module;
}
