/* The sums over scenarios of sequencer/protocol/exposure.py in C: equal to it to the unit, and optional.
 *
 * Sums may have any size. `plus` computes in 64 bits where they fit and with Python's integers where they do not;
 * `lowest` computes in 128 bits what is below 2^59 in magnitude, and leaves the rest to Python: a slope is below 2^62
 * then, its product with a bend below 2^124, and the result above -2^62.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define SCENARIOS 16
#define MOVES 7 /* of a set; each set is followed by one value that is no move */
#define SET 8
#define LIMIT (1LL << 59)

typedef __int128 wide;

/* 1 and the number; 0 when it does not fit; -1 with an exception. */
static int number_of(PyObject *object, long long *number)
{
    int overflow;
    *number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (*number == -1 && !overflow && PyErr_Occurred())
        return -1;
    return !overflow;
}

static PyObject *plus_one(PyObject *sum, PyObject *value, PyObject *lots)
{
    long long a, b, q, product, total;
    int fits = number_of(sum, &a);
    if (fits > 0)
        fits = number_of(value, &b);
    if (fits > 0)
        fits = number_of(lots, &q);
    if (fits < 0)
        return NULL;
    if (fits && !__builtin_mul_overflow(b, q, &product) && !__builtin_add_overflow(a, product, &total))
        return PyLong_FromLongLong(total);
    PyObject *scaled = PyNumber_Multiply(value, lots);
    PyObject *result = scaled ? PyNumber_Add(sum, scaled) : NULL;
    Py_XDECREF(scaled);
    return result;
}

static PyObject *module_plus(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 3 || !PyList_CheckExact(args[0]) || !PyTuple_CheckExact(args[1]) || !PyLong_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "plus() takes a list, a tuple and an int");
        return NULL;
    }
    Py_ssize_t size = PyList_GET_SIZE(args[0]);
    if (PyTuple_GET_SIZE(args[1]) != size) {
        PyErr_SetString(PyExc_ValueError, "plus() takes a list and a tuple of one length");
        return NULL;
    }
    PyObject *made = PyList_New(size);
    for (Py_ssize_t i = 0; made && i < size; i++) {
        PyObject *one = plus_one(PyList_GET_ITEM(args[0], i), PyTuple_GET_ITEM(args[1], i), args[2]);
        if (one)
            PyList_SET_ITEM(made, i, one);
        else
            Py_CLEAR(made);
    }
    return made;
}

/* 1 and the numbers; 0 when one does not fit; -1 with an exception. */
static int numbers_of(PyObject *list, long long *numbers)
{
    if (!PyList_CheckExact(list) || PyList_GET_SIZE(list) != SCENARIOS) {
        PyErr_Format(PyExc_TypeError, "lowest() takes lists of %d ints", SCENARIOS);
        return -1;
    }
    for (int i = 0; i < SCENARIOS; i++) {
        int fits = number_of(PyList_GET_ITEM(list, i), &numbers[i]);
        if (fits <= 0)
            return fits;
        if (numbers[i] <= -LIMIT || numbers[i] >= LIMIT)
            return 0;
    }
    return 1;
}

static wide least(wide a, wide b)
{
    return a < b ? a : b;
}

/* The lowest of what one set allows between its moves, or `worst` if that is lower; see Exposure.worst. */
static wide lowest_of_set(const long long *net, const long long *longs, wide first, wide last, wide value, wide worst)
{
    wide chords[MOVES + 1];
    chords[0] = first;
    for (int k = 1; k < MOVES; k++)
        chords[k] = (wide)longs[k] - longs[k - 1];
    chords[MOVES] = last;
    for (int k = 0; k + 1 < MOVES; k++) {
        wide before = chords[k], chord = chords[k + 1], after = chords[k + 2], here = net[k], there = net[k + 1];
        wide slope = chord - before - there + here;
        if (here - slope >= worst || after <= before || after <= chord)
            continue;
        wide bend = after - before, product = slope * least(after - chord, bend);
        wide fall = product / bend; /* to be rounded up */
        if (fall * bend < product)
            fall++;
        wide low = here - fall;
        if (low < worst) {
            wide bound = least(here - longs[k], there - longs[k + 1]) - value;
            worst = least(worst, low > bound ? low : bound);
        }
    }
    return worst;
}

static PyObject *module_lowest(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 5) {
        PyErr_Format(PyExc_TypeError, "lowest() takes 5 arguments (%zd given)", count);
        return NULL;
    }
    long long net[SCENARIOS], longs[SCENARIOS], rest[3];
    int fits = numbers_of(args[0], net);
    if (fits > 0)
        fits = numbers_of(args[1], longs);
    for (int i = 0; i < 3 && fits > 0; i++) {
        fits = number_of(args[2 + i], &rest[i]);
        if (fits > 0 && (rest[i] <= -LIMIT || rest[i] >= LIMIT))
            fits = 0;
    }
    if (fits < 0)
        return NULL;
    if (!fits)
        Py_RETURN_NONE;
    wide worst = 0;
    for (int i = 0; i < SCENARIOS; i++)
        worst = least(worst, net[i]);
    for (int start = 0; start < SCENARIOS; start += SET)
        worst = lowest_of_set(net + start, longs + start, rest[0], rest[1], rest[2], worst);
    return PyLong_FromLongLong((long long)worst);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef module_methods[] = {
    {"plus", FAST(module_plus), METH_FASTCALL, "plus(sums, row, lots): sums + row x lots, element by element."},
    {"lowest", FAST(module_lowest), METH_FASTCALL,
     "lowest(net, longs, first, last, long_value): as exposure.lowest; None where a number is too large."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "exposure_kernel", "Sums over scenarios in C.", -1, module_methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_exposure_kernel(void)
{
    return PyModule_Create(&module_definition);
}
