"""The repository's own rules: the purity check catches what it says it catches, and what is declared fits together."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CHECK = ROOT / "scripts" / "check_imports.py"
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def checked(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECK), str(root)], capture_output=True, text=True, check=False
    )


def findings(root: Path, source: str, name: str = "sequencer/protocol/rule.py") -> list[str]:
    """What the check says about one file, "line: what" each."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    done = checked(root)
    lines = done.stdout.splitlines()[:-1]
    assert done.returncode == (1 if any("warning: " not in line for line in lines) else 0), done.stderr
    return [line.removeprefix(f"{name}:") for line in lines]


# ------------------------------------------------------------------------------------------------ purity


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import time", "does not import time"),
        ("import random", "does not import random"),
        ("from datetime import datetime", "does not import datetime.datetime"),
        ("import asyncio", "does not import asyncio"),
        ("import os", "does not import os"),
        ("import math", "does not import math"),
        ("from math import sqrt", "does not import math.sqrt"),
        ("from coincurve import PublicKey", "does not import coincurve.PublicKey"),
        ("import numpy as np", "does not import numpy"),
        ("from sequencer.engine.engine import Engine", "does not import sequencer.engine.engine.Engine"),
        ("from sequencer import engine", "does not import sequencer.engine"),
        ("from ..engine import Engine", "does not import sequencer.engine.Engine"),
        ("from sequencer._kernel import cmap_kernel", "does not import sequencer._kernel.cmap_kernel"),
        ("def f():\n    import secrets", "does not import secrets"),
        ("HALF = 0.5", "has no floats: 0.5"),
        ("BIG = 1e9", "has no floats: 1000000000.0"),
        ("I = 1j", "has no floats: 1j"),
        ("def f(a):\n    return float(a)", "does not call float, which is a float"),
        ("def f(a, b):\n    return a / b", "divides with // only"),
        ("def f(a, b):\n    a /= b", "divides with // only"),
        ("def f(a):\n    return hash(a)", "does not call hash, which differs from process to process"),
        ("def f(a):\n    return id(a)", "does not call id, which differs from process to process"),
        ("def f(a):\n    print(a)", "does not call print, which is I/O"),
        ("async def f():\n    pass", "is not asynchronous"),
        ("for a in {1, 2}:\n    pass", "does not iterate over a set: {1, 2}"),
        ("def f(a):\n    return [b for b in set(a)]", "does not iterate over a set: set(a)"),
        ("def f(a):\n    return {b: 0 for b in {c for c in a}}", "does not iterate over a set: {c for c in a}"),
        ("seen = set()\nfor a in seen:\n    pass", "does not iterate over a set: seen"),
        ("def f(seen: set[int]):\n    for a in seen:\n        pass", "does not iterate over a set: seen"),
        ("def f(a: frozenset[int] | None):\n    return list(a)", "does not iterate over a set: list(a)"),
        ("class A:\n    def __init__(self):\n        self.dirty = set()\n\n    def f(self):\n        [*self.dirty]",
         "does not iterate over a set: self.dirty"),
        ("def f(a, b):\n    for c in a.keys() & b:\n        pass", "does not iterate over a set: a.keys() & b"),
        ("def f(a):\n    b = set(a)\n    c = b - {1}\n    return tuple(c)", "does not iterate over a set: tuple(c)"),
        ("def f(a):\n    b = set(a)\n    return b.pop()", "does not take any element of a set: b.pop()"),
    ],
)  # fmt: skip
def test_transition__impure__is_found(tmp_path: Path, source: str, what: str) -> None:
    found = findings(tmp_path, f'"""Rule."""\n{source}\n')
    assert len(found) == 1
    assert found[0].endswith(f"the transition {what}")


PURE = '''"""Rule."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from struct import Struct
from typing import TYPE_CHECKING, Final

from sequencer.protocol import constants as c
from sequencer.protocol.hashing import keccak

from . import book
from .cmap import Map


def f(held: dict[int, int], keys: set[int]) -> list[int]:
    seen = {key for key in held}
    if 7 in seen and len(keys) > max(keys) // 2:
        return sorted(seen | keys)
    return [held[key] for key in sorted(keys)] + list(held) + [stack for stack in [[1].pop()]]
'''


def test_transition__pure__is_accepted(tmp_path: Path) -> None:
    assert findings(tmp_path, PURE) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("hashing.py", "from coincurve import PublicKey"),
        ("hashing.py", "from tiny_keccak import keccak256"),
        ("hashing.py", "from sequencer._kernel.cmap_kernel import keccak"),
        ("cmap.py", "from sequencer._kernel import cmap_kernel"),
        ("cmap.py", "import os"),
    ],
)
def test_transition__third_parties_where_they_belong__are_accepted(
    tmp_path: Path, name: str, source: str
) -> None:
    assert findings(tmp_path, f'"""Rule."""\n{source}\n', f"sequencer/protocol/{name}") == []


def test_outside_the_transition__floats_and_clocks__are_free(tmp_path: Path) -> None:
    source = '"""A driver."""\nimport time\nNOW = time.time() / 2.0\n'
    assert findings(tmp_path, source, "sequencer/queue/driver.py") == []


# ------------------------------------------------------------------------------------------- other rules


@pytest.mark.parametrize(
    "name", ["sequencer/api/x.py", "scripts/x.py", "tests/a/x.py", "benchmarks/x.py", "setup.py"]
)
@pytest.mark.parametrize("source", ["", "x = 1\n", '""""""\n', "# comment\nx = 1\n"])
def test_docstring__missing__is_found(tmp_path: Path, name: str, source: str) -> None:
    assert findings(tmp_path, source, name) == ["1: begins with a docstring that says what the file is for"]


def test_docstring__of_an_empty_package__may_be_missing(tmp_path: Path) -> None:
    assert findings(tmp_path, "", "sequencer/__init__.py") == []
    assert len(findings(tmp_path, "x = 1\n", "sequencer/__init__.py")) == 1


def test_syntax_error__is_a_finding(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, '"""X."""\ndef\n', "sequencer/api/x.py")
    assert "is not Python 3.11" in found


def test_length__above_the_limit__warns_only(tmp_path: Path) -> None:
    assert findings(tmp_path, '"""X."""\n' + "x = 1\n" * 399, "sequencer/api/x.py") == []
    (found,) = findings(tmp_path, '"""X."""\n' + "x = 1\n" * 400, "sequencer/api/x.py")
    assert found == "401: warning: 401 lines, more than 400"
    assert checked(tmp_path).returncode == 0
    assert (
        findings(tmp_path, '"""X.\n\nLong because of y.\n"""\n' + "x = 1\n" * 400, "sequencer/api/x.py") == []
    )


def test_length__above_the_second_limit__is_found_unless_the_head_says_why(tmp_path: Path) -> None:
    long = "x = 1\n" * 500
    (found,) = findings(tmp_path, f'"""X."""\n{long}', "sequencer/api/x.py")
    assert found.startswith("501: 501 lines, more than 500: split it, or say why")
    assert checked(tmp_path).returncode == 1
    (found,) = findings(tmp_path, f'"""X."""\n{long}# Long because of y.\n', "sequencer/api/x.py")
    assert found.startswith("502: 502 lines")
    assert findings(tmp_path, f'"""X.\n\nLong because of y.\n"""\n{long}', "sequencer/api/x.py") == []


def test_library_module__without_twin__is_found(tmp_path: Path) -> None:
    assert findings(tmp_path, "# pragma version 0.4.3\n", "contracts/lib/risk.vy") == [
        "1: has no twin sequencer/protocol/risk.py"
    ]
    assert findings(tmp_path, '"""Margin."""\n', "sequencer/protocol/risk.py") == []


def write(root: Path, sources: dict[str, str]) -> None:
    for name, source in sources.items():
        path = root / "sequencer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def test_imports__in_a_circle__are_found_whichever_they_are(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "api/__init__.py": "",
            "api/door.py": '"""Door."""\nif TYPE_CHECKING:\n    from sequencer.api import desk\n',
            "api/desk.py": '"""Desk."""\nfrom sequencer.api.post import Log\n',
            "cli/reader.py": '"""Reader."""\nimport sequencer.api.post\n',
        },
    )
    post = '"""Post."""\ndef read():\n    import sequencer.api.door\n'
    assert findings(tmp_path, post, "sequencer/api/post.py") == [
        "sequencer/api/desk.py:2: imports sequencer.api.post, which imports it: a circle",
        "sequencer/api/door.py:3: imports sequencer.api.desk, which imports it: a circle",
        "3: imports sequencer.api.door, which imports it: a circle",
    ]
    assert findings(tmp_path, '"""Post."""\n', "sequencer/api/post.py") == []


def test_rooms__import_from_below_alone_and_nothing_lies_loose(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "errors.py": '"""Errors."""\n',
            "l1/rpc.py": '"""Rpc."""\nimport sequencer.errors\n',
            "sdk/trader.py": '"""Trader."""\ndef send():\n    from sequencer.api import door\n',
            "api/door.py": '"""Door."""\nfrom sequencer.l1 import rpc\n',
            "desk.py": '"""Desk."""\n',
            "cellar/wine.py": '"""Wine."""\n',
        },
    )
    above = '"""Codec."""\nfrom sequencer.errors import Code\n'
    assert findings(tmp_path, above, "sequencer/protocol/codec.py") == [
        "sequencer/cellar/wine.py:1: is in no room that scripts/check_imports.py knows: cellar",
        "sequencer/desk.py:1: lies loose: only what all rooms share does",
        "2: protocol/ does not import from (loose)/, which is above it: sequencer.errors",
        "2: the transition does not import sequencer.errors.Code",
        "sequencer/sdk/trader.py:3: sdk/ does not import from api/, which is above it: sequencer.api.door",
    ]


def test_rooms__of_the_page__are_those_of_the_check() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    listed = re.findall(r"^\| `(\w+)/` \| (.+) \|$", page, re.MULTILINE)
    shown = subprocess.run(
        [sys.executable, str(CHECK), "--rooms"], capture_output=True, text=True, check=True
    )
    printed = re.findall(r"^(\w+) +\d+ files  (.+)$", shown.stdout, re.MULTILINE)
    assert listed == [one for one in printed if one[0][0] != "_"]
    assert [name for name, _ in listed] == [
        name for name, _ in printed if (ROOT / "sequencer" / name).is_dir() and name[0] != "_"
    ]


def test_this_repository__keeps_the_rules() -> None:
    done = checked(ROOT)
    assert done.returncode == 0, done.stdout


# --------------------------------------------------------------------------------------------- packaging


def locked() -> dict[str, str]:
    """Name and version of each package in the lock."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.MULTILINE))


def test_lock__holds_names_versions_and_hashes_only() -> None:
    body = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert len(locked()) > 100
    for line in body:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line


def test_lock__satisfies_every_declared_dependency() -> None:
    declared = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    versions = locked()
    for line in declared:
        requirement = Requirement(line)
        assert requirement.specifier.contains(versions[requirement.name.lower().replace("_", "-")], True), (
            line
        )


@pytest.mark.parametrize("name", ["tiny-keccak", "coincurve", "vyper", "web3", "eth-account", "py-evm"])
def test_consensus_dependency__is_pinned_exactly_and_installed(name: str) -> None:
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["contracts"]]
    assert f"{name}=={version(name)}" in declared


def test_recorded_parquet__can_be_read_here() -> None:
    """A pyarrow that does not go with ape's numpy would turn the tests of recorded chains into skips."""
    import pyarrow.parquet

    assert callable(pyarrow.parquet.read_table)


def test_devnets__are_pinned() -> None:
    devnets = ROOT / "sequencer" / "l1" / "devnets"
    wanted = json.loads((devnets / "package.json").read_text())["dependencies"]
    packages = json.loads((devnets / "package-lock.json").read_text())["packages"]
    assert wanted == {name: packages[f"node_modules/{name}"]["version"] for name in wanted}


def test_changelog__latest_release__is_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert "## [Unreleased]" in changelog
    assert not released or released[0] == PROJECT["version"]


def test_ci_run__is_executable() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
