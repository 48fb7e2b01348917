"""Optional C twins of hot pure-Python code, present where the build found a compiler.

`FAIRSTRIKE_PURE=1` in the environment hides them. Importers catch ImportError and use the Python instead.
"""

from __future__ import annotations

import os

INTERFACE = 4
"""Raised with each change of what the kernels offer; a build of older sources counts as none."""

if os.environ.get("FAIRSTRIKE_PURE") == "1":
    raise ImportError("FAIRSTRIKE_PURE=1: pure Python wanted")

from sequencer._kernel.cmap_kernel import INTERFACE as BUILT  # noqa: E402  # ImportError where none is built

if BUILT != INTERFACE:
    raise ImportError(
        "the C kernels are of other sources: python setup.py build_ext --inplace builds them anew"
    )
