"""Optional C twins of hot pure-Python code, present where the build found a compiler.

`FAIRSTRIKE_PURE=1` in the environment hides them. Importers catch ImportError and use the Python instead.
"""

from __future__ import annotations

import os

if os.environ.get("FAIRSTRIKE_PURE") == "1":
    raise ImportError("FAIRSTRIKE_PURE=1: pure Python wanted")
