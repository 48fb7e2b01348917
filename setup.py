"""The optional C kernels; everything else is declared in pyproject.toml.

Where one does not compile, the install goes on and pure Python serves.
To build them in place: python setup.py build_ext --inplace
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"sequencer._kernel.{name}",
            sources=[f"sequencer/_kernel/{name}.c"],
            depends=["sequencer/_kernel/signers.h", "sequencer/_kernel/sums.h"],
            extra_compile_args=["-O3", "-std=c11"],
            optional=True,
        )
        for name in ("cmap_kernel", "exposure_kernel")
    ]
)
