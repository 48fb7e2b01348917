/* The rows of a page in C: variances of strikes from the feeds' surfaces, risk arrays, and their words. Twin of
 * risk_array.py, reports.py and entries.py in sequencer/protocol: equal to them to the bit, and optional.
 *
 * Arguments that lie outside of the protocol's bounds, which are checked here, are left to Python: None. Nothing wraps.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "black76.h"

#define U32_MAX 0xFFFFFFFFLL
#define PNL_MAX 0x7FFFFFFFLL
#define PNL_MIN (-0x80000000LL)
#define PARAMETER_MAX (16 * ONE_E12)

#define SCENARIOS 16
#define MOVES 7
#define SET 8
#define VALUES (1 + SCENARIOS) /* the mark's first */
#define ROWS_MAX 32
#define REPORTS_MAX 5
#define MOVE_MAX 1900000 /* ppm of the forward that is left: PPM + risk_array.SHOCK_MAX_PPM */
#define LEFT_MAX 2000000 /* ppm of a standard deviation that is left: a volatility doubles at most */
#define LN_MAX ((int64_t)4 << SHIFT) /* of a move; the protocol's are within 2.31 */

/* 1 and the number; 0 when it is none or lies outside of low..high; -1 with an exception. */
static int number_within(PyObject *object, int64_t low, int64_t high, int64_t *number)
{
    int overflow;
    if (!object || !PyLong_Check(object)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "an int is wanted");
        return -1;
    }
    *number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow && *number >= low && *number <= high;
}

/* As number_within, for `count` numbers of a tuple. */
static int numbers_within(PyObject *tuple, Py_ssize_t count, const int64_t *low, const int64_t *high, int64_t *numbers)
{
    if (!tuple || !PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != count) {
        PyErr_Format(PyExc_TypeError, "a tuple of %zd numbers is wanted", count);
        return -1;
    }
    int fits = 1;
    for (Py_ssize_t i = 0; i < count && fits > 0; i++)
        fits = number_within(PyTuple_GET_ITEM(tuple, i), low[i], high[i], &numbers[i]);
    return fits;
}

static PyObject *nothing(int fits)
{
    if (fits < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- risk arrays ---------------------------------------------------------------------------------- */

typedef struct {
    int64_t forward, weight, left[2], ppm[MOVES + 2], ln[MOVES + 2];
} shocks;

typedef struct {
    int64_t strike, variance, moved[VALUES], times[VALUES]; /* moved < 2^61, times < 2^59 (1e-10 USD) */
} valued;

/* risk_array._valued. |ln(F/K)| <= 22.2 and a move's at most 4: x stays within 32. */
static void value(const shocks *given, int64_t strike, int64_t variance, valued *out)
{
    int is_dead = !variance || !given->forward || !strike;
    int64_t x = is_dead ? 0 : ln_ratio((uint64_t)given->forward, (uint64_t)strike), strike_e10 = strike * TICK_E10;
    uint64_t stdev = is_dead ? 0 : stdev_of((uint64_t)least(variance, W_MAX));
    out->strike = strike;
    out->variance = variance;
    out->moved[0] = given->forward * TICK_E10;
    out->times[0] = time_value_e10(least(out->moved[0], strike_e10), x, stdev);
    for (int i = 0; i < SCENARIOS; i++) {
        int set = i / SET, is_extreme = i % SET == MOVES, move = is_extreme ? MOVES + set : i % SET;
        uint64_t deviation = is_extreme ? stdev : (uint64_t)((uwide)stdev * (uint64_t)given->left[set] / PPM);
        int64_t moved = given->forward * (TICK_E10 / PPM) * given->ppm[move];
        out->moved[i + 1] = moved;
        out->times[i + 1] = time_value_e10(least(moved, strike_e10), x + given->ln[move], deviation);
    }
}

/* risk_array._nearest: |amount| < 2^83, unit > 0. */
static long nearest(wide amount, int64_t unit)
{
    uwide magnitude = ((uwide)(amount < 0 ? -amount : amount) + (uint64_t)unit / 2);
    uwide whole = magnitude >> 64 ? magnitude / (uint64_t)unit : (uint64_t)magnitude / (uint64_t)unit;
    if (amount < 0)
        return whole > (uwide)-PNL_MIN ? (long)PNL_MIN : -(long)whole;
    return whole > (uwide)PNL_MAX ? (long)PNL_MAX : (long)whole;
}

/* risk_array._row: prices are below 2^62. */
static PyObject *row_of(const shocks *given, const valued *from, int is_put)
{
    int64_t prices[VALUES], strike_e10 = from->strike * TICK_E10;
    for (int i = 0; i < VALUES; i++) {
        int64_t gain = is_put ? strike_e10 - from->moved[i] : from->moved[i] - strike_e10;
        prices[i] = (gain > 0 ? gain : 0) + from->times[i];
    }
    PyObject *pnl = PyTuple_New(SCENARIOS), *row = pnl ? PyTuple_New(2) : NULL, *one;
    if (!row)
        goto failed;
    for (int i = 0; i < SCENARIOS; i++) {
        int64_t change = prices[i + 1] - prices[0];
        long number = i % SET == MOVES ? nearest((wide)change * given->weight, TICK_E10 * PPM)
                                       : nearest(change, TICK_E10);
        if (!(one = PyLong_FromLong(number)))
            goto failed;
        PyTuple_SET_ITEM(pnl, i, one);
    }
    if (!(one = PyLong_FromLongLong(least((prices[0] + TICK_E10 / 2) / TICK_E10, U32_MAX))))
        goto failed;
    PyTuple_SET_ITEM(row, 0, one);
    PyTuple_SET_ITEM(row, 1, pnl);
    return row;
failed:
    Py_XDECREF(row);
    Py_XDECREF(pnl);
    return NULL;
}

/* As number_within: the shocks. */
static int shocks_of(PyObject *forward, PyObject *moves, PyObject *left, PyObject *weight, shocks *out)
{
    static const int64_t no_less[2] = {0, 0}, left_max[2] = {LEFT_MAX, LEFT_MAX};
    static const int64_t move_low[2] = {0, -LN_MAX}, move_high[2] = {MOVE_MAX, LN_MAX};
    if (!PyTuple_CheckExact(moves) || PyTuple_GET_SIZE(moves) != MOVES + 2) {
        PyErr_SetString(PyExc_TypeError, "a tuple of nine moves is wanted");
        return -1;
    }
    int fits = number_within(forward, 0, U32_MAX, &out->forward);
    if (fits > 0)
        fits = number_within(weight, 0, PPM, &out->weight);
    if (fits > 0)
        fits = numbers_within(left, 2, no_less, left_max, out->left);
    for (int i = 0; i < MOVES + 2 && fits > 0; i++) {
        int64_t move[2];
        fits = numbers_within(PyTuple_GET_ITEM(moves, i), 2, move_low, move_high, move);
        out->ppm[i] = move[0];
        out->ln[i] = move[1];
    }
    return fits;
}

static int is_rows(PyObject *terms)
{
    if (PyList_CheckExact(terms))
        return 1;
    PyErr_SetString(PyExc_TypeError, "terms are a list");
    return 0;
}

static PyObject *module_rows(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    shocks given;
    valued known[ROWS_MAX]; /* by strike: a call and a put share one */
    int kept = 0;
    if (count != 6 || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "rows() takes a forward, terms, a dict of variances, moves, left and weight");
        return NULL;
    }
    int fits = is_rows(args[1]) ? shocks_of(args[0], args[3], args[4], args[5], &given) : -1;
    Py_ssize_t size = fits < 0 ? 0 : PyList_GET_SIZE(args[1]);
    if (fits <= 0 || size > ROWS_MAX)
        return nothing(fits);
    PyObject *rows = PyList_New(size);
    for (Py_ssize_t i = 0; rows && i < size; i++) {
        int64_t word, variance;
        fits = number_within(PyList_GET_ITEM(args[1], i), 0, U32_MAX, &word);
        int64_t strike = word & 0x7FFFFFFF;
        int at = 0;
        while (fits > 0 && at < kept && known[at].strike != strike)
            at++;
        if (fits > 0 && at == kept) {
            PyObject *key = PyLong_FromLongLong(strike);
            PyObject *found = key ? PyDict_GetItemWithError(args[2], key) : NULL;
            if (key && !found && !PyErr_Occurred())
                PyErr_SetObject(PyExc_KeyError, key);
            Py_XDECREF(key);
            fits = number_within(found, 0, INT64_MAX, &variance);
            if (fits > 0)
                value(&given, strike, variance, &known[kept++]);
        }
        if (fits <= 0) {
            Py_DECREF(rows);
            return nothing(fits);
        }
        PyObject *row = row_of(&given, &known[at], word >> 31 != 0);
        if (!row)
            Py_CLEAR(rows);
        else
            PyList_SET_ITEM(rows, i, row);
    }
    return rows;
}

/* --- variances ------------------------------------------------------------------------------------ */

typedef struct {
    int64_t forward, index, remaining, low, high, variance_spread, mark_spread;
} bounds;

/* reports.variance_of: the mean of two of the rising variances; 0: the reports disagree. */
static int64_t agreed(const int64_t (*reports)[FIELDS], int count, int64_t strike, const bounds *given)
{
    int64_t found[REPORTS_MAX];
    for (int i = 0; i < count; i++) {
        int64_t one = at_time(variance_of(reports[i], strike), reports[i][REMAINING], given->remaining);
        int at = i;
        for (; at && found[at - 1] > one; at--)
            found[at] = found[at - 1];
        found[at] = one;
    }
    int64_t low = found[given->low], high = found[given->high];
    if ((wide)(high - low) * PPM > (wide)given->variance_spread * low) { /* < 2^76 */
        int64_t apart = call_e10(given->forward, strike, high) - call_e10(given->forward, strike, low);
        if ((wide)apart * PPM > (wide)given->mark_spread * given->index * TICK_E10) /* < 2^91 */
            return 0;
    }
    return (low + high) / 2;
}

static PyObject *module_variances(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const int64_t low[FIELDS] = {0, 0, -PARAMETER_MAX, 0, -ONE_E12, -PARAMETER_MAX, 1};
    static const int64_t high[FIELDS] = {
        U32_MAX, U32_MAX, PARAMETER_MAX, PARAMETER_MAX, ONE_E12, PARAMETER_MAX, PARAMETER_MAX,
    };
    (void)module;
    if (count != 9 || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "variances() takes terms, a list of reports, and 7 numbers");
        return NULL;
    }
    int64_t reports[REPORTS_MAX][FIELDS];
    Py_ssize_t size = PyList_GET_SIZE(args[1]);
    int fits = is_rows(args[0]) ? size > 0 && size <= REPORTS_MAX : -1;
    for (Py_ssize_t i = 0; i < size && fits > 0; i++)
        fits = numbers_within(PyList_GET_ITEM(args[1], i), FIELDS, low, high, reports[i]);
    int64_t numbers[7];
    for (int i = 0; i < 7 && fits > 0; i++) {
        int is_place = i == 3 || i == 4;
        fits = number_within(args[2 + i], 0, is_place ? size - 1 : U32_MAX, &numbers[i]);
    }
    if (fits <= 0)
        return nothing(fits);
    bounds given = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]};
    if (given.low > given.high)
        return nothing(0);
    PyObject *out = PyDict_New();
    for (Py_ssize_t i = 0; out && i < PyList_GET_SIZE(args[0]); i++) {
        int64_t word;
        fits = number_within(PyList_GET_ITEM(args[0], i), 0, U32_MAX, &word);
        if (fits <= 0) {
            Py_DECREF(out);
            return nothing(fits);
        }
        PyObject *strike = PyLong_FromLongLong(word & 0x7FFFFFFF), *variance = NULL;
        int is_known = strike ? PyDict_Contains(out, strike) : -1;
        if (!is_known) {
            variance = PyLong_FromLongLong(agreed(reports, (int)size, word & 0x7FFFFFFF, &given));
            if (!variance || PyDict_SetItem(out, strike, variance))
                is_known = -1;
        }
        Py_XDECREF(strike);
        Py_XDECREF(variance);
        if (is_known < 0)
            Py_CLEAR(out);
    }
    return out;
}

/* --- words ---------------------------------------------------------------------------------------- */

/* The number of place `at` in words of eight 32-bit numbers each, the first lowest. */
static void put(uint8_t *words, Py_ssize_t at, int64_t number)
{
    uint32_t big = __builtin_bswap32((uint32_t)number);
    memcpy(words + 32 * (at / 8) + 28 - 4 * (at % 8), &big, 4);
}

static PyObject *module_page_words(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyList_CheckExact(args[0]) || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "page_words() takes a list of terms and a list of rows");
        return NULL;
    }
    Py_ssize_t size = PyList_GET_SIZE(args[0]), table = 32 * ((size + 7) / 8);
    if (PyList_GET_SIZE(args[1]) != size || size > ROWS_MAX)
        Py_RETURN_NONE;
    PyObject *out = PyBytes_FromStringAndSize(NULL, 2 * table + 64 * size);
    if (!out)
        return NULL;
    uint8_t *words = (uint8_t *)PyBytes_AS_STRING(out);
    memset(words, 0, (size_t)(2 * table));
    int fits = 1;
    for (Py_ssize_t i = 0; i < size && fits > 0; i++) {
        int64_t number = 0;
        PyObject *row = PyList_GET_ITEM(args[1], i);
        PyObject *pnl = PyTuple_CheckExact(row) && PyTuple_GET_SIZE(row) == 2 ? PyTuple_GET_ITEM(row, 1) : NULL;
        if (!pnl || !PyTuple_CheckExact(pnl) || PyTuple_GET_SIZE(pnl) != SCENARIOS) {
            PyErr_SetString(PyExc_TypeError, "a row is a mark and a tuple of 16 numbers");
            fits = -1;
            break;
        }
        if ((fits = number_within(PyList_GET_ITEM(args[0], i), 0, U32_MAX, &number)) <= 0)
            break;
        put(words, i, number);
        if ((fits = number_within(PyTuple_GET_ITEM(row, 0), 0, U32_MAX, &number)) <= 0)
            break;
        put(words + table, i, number);
        for (int j = 0; j < SCENARIOS && fits > 0; j++) {
            fits = number_within(PyTuple_GET_ITEM(pnl, j), PNL_MIN, PNL_MAX, &number);
            put(words + 2 * table + 64 * i, j, number);
        }
    }
    if (fits <= 0) {
        Py_DECREF(out);
        return nothing(fits);
    }
    return out;
}

/* --- single functions, for tests at the edges of each --------------------------------------------- */

static PyObject *module_evaluate(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const struct {
        const char *name;
        int64_t low[2], high[2]; /* of x and y */
    } functions[] = {
        {"ln_ratio_q56", {1, 1}, {U32_MAX, U32_MAX}},
        {"stdev_q56", {0, 0}, {W_MAX, 0}},
        {"exp_neg_q56", {0, 0}, {(int64_t)60 << SHIFT, 0}},
        {"hart_ratio_q56", {0, 0}, {(int64_t)18 << SHIFT, 0}},
        {"time_value_q56", {0, 0}, {(int64_t)32 << SHIFT, (int64_t)8 << SHIFT}},
    };
    (void)module;
    if (count != 3 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "evaluate() takes a function's name and two numbers");
        return NULL;
    }
    size_t which = 0, end = sizeof functions / sizeof *functions;
    while (which < end && PyUnicode_CompareWithASCIIString(args[0], functions[which].name))
        which++;
    if (which == end)
        return PyErr_Format(PyExc_ValueError, "there is no function %R", args[0]);
    int64_t x, y;
    int fits = number_within(args[1], functions[which].low[0], functions[which].high[0], &x);
    if (fits > 0)
        fits = number_within(args[2], functions[which].low[1], functions[which].high[1], &y);
    if (fits <= 0)
        return nothing(fits);
    switch (which) {
    case 0:
        return PyLong_FromLongLong(ln_ratio((uint64_t)x, (uint64_t)y));
    case 1:
        return PyLong_FromUnsignedLongLong(stdev_of((uint64_t)x));
    case 2:
        return PyLong_FromUnsignedLongLong(exp_neg((uint64_t)x));
    case 3:
        return PyLong_FromUnsignedLongLong(hart_ratio((uint64_t)x));
    default:
        return PyLong_FromUnsignedLongLong(time_value((uint64_t)x, (uint64_t)y));
    }
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef module_methods[] = {
    {"rows", FAST(module_rows), METH_FASTCALL,
     "rows(forward, terms, variances, moves, left, extreme_weight): as risk_array.rows; None: Python computes it."},
    {"variances", FAST(module_variances), METH_FASTCALL,
     "variances(terms, reports, forward, index, remaining_s, low, high, variance_spread, mark_spread): a variance for "
     "each strike, as reports.variance_of; None: Python computes it."},
    {"page_words", FAST(module_page_words), METH_FASTCALL,
     "page_words(terms, rows): the words of a page behind its first; None: Python computes them."},
    {"evaluate", FAST(module_evaluate), METH_FASTCALL,
     "evaluate(name, x, y): a function of black76.py by its name; y is 0 where it takes one number."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "black76_kernel", "Risk arrays in C.", -1, module_methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_black76_kernel(void)
{
    return PyModule_Create(&module_definition);
}
