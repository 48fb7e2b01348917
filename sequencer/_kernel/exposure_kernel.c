/* The sums over scenarios of sequencer/protocol/exposure.py in C: equal to it to the unit, and optional.
 *
 * A Vector holds 16 sums of 128 bits. What accounts can hold is below 2^80 (32 positions of 2^44 lots at 2^31 ticks);
 * what does not fit is an OverflowError. `lowest` computes in 128 bits what is below 2^59 in magnitude, and leaves the
 * rest to Python: a slope is below 2^62 then, its product with a bend below 2^124, and the result above -2^62.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define SCENARIOS 16
#define MOVES 7 /* of a set; each set is followed by one value that is no move */
#define SET 8
#define LIMIT (1LL << 59)

typedef __int128 wide;

typedef struct {
    PyObject_HEAD
    wide sums[SCENARIOS];
} Vector;

static PyTypeObject Vector_type;

/* 1 and the number; 0 when it does not fit; -1 with an exception. */
static int number_of(PyObject *object, long long *number)
{
    int overflow;
    *number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (*number == -1 && !overflow && PyErr_Occurred())
        return -1;
    return !overflow;
}

static int too_large(void)
{
    PyErr_SetString(PyExc_OverflowError, "a number is too large for the sums of an exposure");
    return -1;
}

static PyObject *int_of(wide sum)
{
    if (sum == (long long)sum)
        return PyLong_FromLongLong((long long)sum);
    return _PyLong_FromByteArray((const unsigned char *)&sum, sizeof sum, 1, 1);
}

static PyObject *Vector_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *numbers;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Vector() takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!:Vector", &PyList_Type, &numbers))
        return NULL;
    if (PyList_GET_SIZE(numbers) != SCENARIOS)
        return PyErr_Format(PyExc_ValueError, "a Vector has %d numbers, not %zd", SCENARIOS, PyList_GET_SIZE(numbers));
    Vector *made = (Vector *)type->tp_alloc(type, 0);
    for (int i = 0; made && i < SCENARIOS; i++) {
        PyObject *one = PyList_GET_ITEM(numbers, i);
        if (!PyLong_Check(one)) {
            PyErr_Format(PyExc_TypeError, "an int is wanted, not %.100s", Py_TYPE(one)->tp_name);
            Py_CLEAR(made);
        } else if (_PyLong_AsByteArray((PyLongObject *)one, (unsigned char *)&made->sums[i], sizeof(wide), 1, 1)) {
            Py_CLEAR(made);
        }
    }
    return (PyObject *)made;
}

static Py_ssize_t Vector_length(PyObject *self)
{
    (void)self;
    return SCENARIOS;
}

static PyObject *Vector_item(PyObject *self, Py_ssize_t at)
{
    if (at < 0 || at >= SCENARIOS) {
        PyErr_SetString(PyExc_IndexError, "a Vector has 16 numbers");
        return NULL;
    }
    return int_of(((Vector *)self)->sums[at]);
}

static PyObject *Vector_compare(PyObject *self, PyObject *other, int operation)
{
    if (!PyObject_TypeCheck(other, &Vector_type) || (operation != Py_EQ && operation != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    int same = !memcmp(((Vector *)self)->sums, ((Vector *)other)->sums, sizeof(wide) * SCENARIOS);
    return PyBool_FromLong(same == (operation == Py_EQ));
}

static PySequenceMethods Vector_as_sequence = {.sq_length = Vector_length, .sq_item = Vector_item};

static PyTypeObject Vector_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "sequencer._kernel.exposure_kernel.Vector",
    .tp_doc = "Sums over the 16 scenarios, which do not change.",
    .tp_basicsize = sizeof(Vector),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Vector_new,
    .tp_as_sequence = &Vector_as_sequence,
    .tp_richcompare = Vector_compare,
    .tp_hash = PyObject_HashNotImplemented,
};

static PyObject *module_plus(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 3 || Py_TYPE(args[0]) != &Vector_type || !PyTuple_CheckExact(args[1]) || !PyLong_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "plus() takes a Vector, a tuple and an int");
        return NULL;
    }
    if (PyTuple_GET_SIZE(args[1]) != SCENARIOS)
        return PyErr_Format(PyExc_ValueError, "a row has %d numbers, not %zd", SCENARIOS, PyTuple_GET_SIZE(args[1]));
    long long lots, value;
    int fits = number_of(args[2], &lots);
    if (fits <= 0) {
        if (!fits)
            too_large();
        return NULL;
    }
    Vector *made = PyObject_New(Vector, &Vector_type);
    for (int i = 0; made && i < SCENARIOS; i++) {
        fits = number_of(PyTuple_GET_ITEM(args[1], i), &value);
        if (fits > 0 && __builtin_add_overflow(((Vector *)args[0])->sums[i], (wide)value * lots, &made->sums[i]))
            fits = 0;
        if (!fits)
            too_large();
        if (fits <= 0)
            Py_CLEAR(made);
    }
    return (PyObject *)made;
}

/* 1 and the numbers; 0 when one does not fit; -1 with an exception. */
static int numbers_of(PyObject *vector, long long *numbers)
{
    if (Py_TYPE(vector) != &Vector_type) {
        PyErr_Format(PyExc_TypeError, "a Vector is wanted, not %.100s", Py_TYPE(vector)->tp_name);
        return -1;
    }
    for (int i = 0; i < SCENARIOS; i++) {
        wide sum = ((Vector *)vector)->sums[i];
        if (sum <= -LIMIT || sum >= LIMIT)
            return 0;
        numbers[i] = (long long)sum;
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

static PyObject *module_gain(PyObject *module, PyObject *row)
{
    (void)module;
    if (!PyTuple_CheckExact(row)) {
        PyErr_SetString(PyExc_TypeError, "gain() takes a tuple");
        return NULL;
    }
    long long most = 0, one;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(row); i++) {
        int fits = number_of(PyTuple_GET_ITEM(row, i), &one);
        if (!fits)
            too_large();
        if (fits <= 0)
            return NULL;
        if (one > most)
            most = one;
    }
    return PyLong_FromLongLong(most);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef module_methods[] = {
    {"plus", FAST(module_plus), METH_FASTCALL, "plus(sums, row, lots): sums + row x lots, element by element."},
    {"gain", module_gain, METH_O, "gain(row): the greatest of a row's P&Ls, at least 0."},
    {"lowest", FAST(module_lowest), METH_FASTCALL,
     "lowest(net, longs, first, last, long_value): as exposure.lowest; None where a number is too large."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "exposure_kernel", "Sums over scenarios in C.", -1, module_methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_exposure_kernel(void)
{
    if (PyType_Ready(&Vector_type) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&module_definition);
    if (module && PyModule_AddObjectRef(module, "Vector", (PyObject *)&Vector_type) < 0)
        Py_CLEAR(module);
    return module;
}
