"""What is compiled; everything else is declared in pyproject.toml.

Both are optional: the C kernels, and the transition by mypyc (sequencer/_compiled). Where one does not compile, the
install goes on and pure Python serves.
To build in place: python setup.py build_ext --inplace
"""

import os
import runpy
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("sequencer/_compiled")
# What each module's import begins with; one file holds them all, as each is asked for by its own name.
ENTRY = """
PyMODINIT_FUNC PyInit_{stem}(void) {{
    PyObject *shared = PyImport_ImportModule("{library}__mypyc");
    if (!shared) return NULL;
    PyObject *capsule = PyObject_GetAttrString(shared, "init_{exported}");
    Py_DECREF(shared);
    if (!capsule) return NULL;
    void *init = PyCapsule_GetPointer(capsule, "{library}__mypyc.init_{exported}");
    Py_DECREF(capsule);
    return init ? ((PyObject *(*)(void))init)() : NULL;
}}
"""


class Build(build_ext):
    """The kernels, as declared below; then the library of the transition, whole or not at all."""

    def run(self) -> None:
        """Builds. Nothing that fails here fails the install."""
        super().run()
        target = FOLDER if self.inplace else Path(self.build_lib) / FOLDER
        try:
            self._compile_transition(target)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # mypyc exits, compilers have their own errors
            self.warn(f"the transition is not compiled, pure Python serves: {error!r}")

    def _compile_transition(self, target: Path) -> None:
        about = runpy.run_path(str(FOLDER / "__init__.py"))
        library = about["library"]()
        made = target / (library + about["SUFFIX"])
        for old in target.glob(f"*{about['SUFFIX']}"):
            if old != made:
                old.unlink()
        if made.exists() and not self.force:
            return
        from mypyc.build import mypycify
        from mypyc.namegen import exported_name

        modules = [(file, about["module_of"](file)) for file in about["sources"]()]
        scratch = Path(self.build_temp) / library
        scratch.mkdir(parents=True, exist_ok=True)
        # Third parties' types are not needed, and where the build is isolated not there.
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=skip"]
        options.append(f"--cache-dir={scratch / 'cache'}")
        groups = mypycify(
            [*options, *(os.path.relpath(file) for file, _ in modules)],
            opt_level="1",
            debug_level="0",
            multi_file=True,
            target_dir=str(scratch),
            group_name=library,
        )
        entries = scratch / "entries.c"
        entries.write_text(
            "#include <Python.h>\n"
            + "".join(
                ENTRY.format(stem=file.stem, exported=exported_name(module), library=library)
                for file, module in modules
            )
        )
        whole = groups[0]

        def compiled(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=str(scratch),
                include_dirs=[*whole.include_dirs, str(scratch)],
                extra_postargs=whole.extra_compile_args,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [one for out in pool.map(compiled, [*whole.sources, str(entries)]) for one in out]
        self.compiler.link_shared_object(objects, str(scratch / made.name))
        target.mkdir(parents=True, exist_ok=True)
        beside = made.with_suffix(".part")
        shutil.copy(scratch / made.name, beside)
        beside.replace(made)


setup(
    cmdclass={"build_ext": Build},
    ext_modules=[
        Extension(
            f"sequencer._kernel.{name}",
            sources=[f"sequencer/_kernel/{name}.c"],
            depends=[str(header) for header in sorted(Path("sequencer/_kernel").glob("*.h"))],
            extra_compile_args=["-O3", "-std=c11"],
            optional=True,
        )
        for name in ("black76_kernel", "cmap_kernel", "exposure_kernel")
    ],
)
