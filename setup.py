"""The optional C kernel; everything else is declared in pyproject.toml.

Where it does not compile, the install goes on and the pure Python map serves.
To build it in place: python setup.py build_ext --inplace
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "sequencer._kernel.cmap_kernel",
            sources=["sequencer/_kernel/cmap_kernel.c"],
            depends=["sequencer/_kernel/signers.h"],
            extra_compile_args=["-O3", "-std=c11"],
            optional=True,
        )
    ]
)
