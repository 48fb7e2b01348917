"""What an order passes compiled by mypyc, where the build found a compiler: one library, and the finder that loads it.

That is the transition, and behind it engine, ledger, acknowledgements and intake.

The library carries the digest of the sources that it was made of in its name. It is used only while they are as they
were: after an edit the Python sources run, until the next build (`make compiled`). `FAIRSTRIKE_PURE=1` in the
environment hides it, as all that is compiled; `FAIRSTRIKE_PURE=transition` hides it alone. Both give the same roots
(scripts/compare_compiled.py).

    python -m sequencer._compiled       says which of the two runs, and why
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cached_property
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from sysconfig import get_config_var
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

HERE: Final = Path(__file__).resolve().parent
PACKAGE: Final = HERE.parent
SUFFIX: Final[str] = get_config_var("EXT_SUFFIX") or ".so"
# cmap: the C kernel is faster. hashing, signers: they only call C.
_LEFT_OUT: Final = frozenset({"__init__", "cmap", "hashing", "signers"})
# A subclass of State has to be compiled with it; the others are what an order passes behind the transition.
_BESIDE: Final = (
    "proof/witness.py",
    "amounts.py",
    "wire/rows.py",
    "engine/basis.py",
    "engine/engine.py",
    "engine/events.py",
    "engine/ledger.py",
    "node/acks.py",
    "queue/intake.py",
    "queue/outcomes.py",
)


def sources() -> list[Path]:
    """The files that are compiled, sorted; their stems differ."""
    own = (file for file in (PACKAGE / "protocol").glob("*.py") if file.stem not in _LEFT_OUT)
    return sorted([*own, *(PACKAGE / file for file in _BESIDE)])


def module_of(source: Path) -> str:
    """Dotted name of a source."""
    return ".".join((PACKAGE.name, *source.relative_to(PACKAGE).with_suffix("").parts))


def library() -> str:
    """Name of the library of the sources as they are now, without suffix; OSError when one cannot be read."""
    digest = hashlib.sha256()
    for source in sources():
        data = source.read_bytes()
        digest.update(f"{module_of(source)} {len(data)}\n".encode() + data)
    return f"fairstrike_{digest.hexdigest()[:16]}"


class Finder(MetaPathFinder):
    """Finds the compiled modules in the library, all of them or none."""

    @cached_property
    def status(self) -> str:
        """Which one runs: "compiled", or "pure Python" and why. Decided once a process."""
        wanted = os.environ.get("FAIRSTRIKE_PURE")
        if wanted in ("1", "transition"):
            return f"pure Python: FAIRSTRIKE_PURE={wanted}"
        if self.file.exists():
            return "compiled"
        if any(HERE.glob(f"*{SUFFIX}")):
            return "pure Python: the sources have changed since they were compiled (make compiled)"
        return "pure Python: not compiled for this Python (no compiler at the build?)"

    @cached_property
    def file(self) -> Path:
        """Where the library of the present sources is, if there is one."""
        return HERE / (library() + SUFFIX)

    @cached_property
    def _names(self) -> frozenset[str]:
        """What the library has: each module, and the one that they share, which mypyc names."""
        if self.status != "compiled":
            return frozenset()
        return frozenset([*map(module_of, sources()), f"{self.file.name.removesuffix(SUFFIX)}__mypyc"])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder."""
        del path, target
        if not fullname.startswith((f"{PACKAGE.name}.", "fairstrike_")) or fullname not in self._names:
            return None
        file = str(self.file)
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


_finder: Final = Finder()


def install() -> None:
    """From now on the compiled modules are found before their sources. Once a process, before any is imported."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def status() -> str:
    """See Finder.status."""
    return _finder.status
