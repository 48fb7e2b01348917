"""The compiled transition: equal to the pure one, used only when it fits its sources, never needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sequencer import _compiled

ROOT = Path(__file__).resolve().parent.parent
IS_COMPILED = _compiled.status() == "compiled"
needs_compiled = pytest.mark.skipif(
    not IS_COMPILED and not (os.environ.get("CI") and shutil.which("cc")),
    reason="the transition is not compiled here (make compiled)",
)
USE = (
    "from sequencer import _compiled; from sequencer.protocol import params, state;"
    "one = state.State(bytes(32), params.Params(feed_keys=(b'1' * 20, b'2' * 20, b'3' * 20)));"
    "print(_compiled.status().split(':')[0], state.__file__.endswith('.py'), one.root().hex())"
)


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if key != "FAIRSTRIKE_PURE"} | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of what is compiled, and of what the transition needs, in a folder of its own."""
    for name in ("_compiled", "_kernel", "protocol"):
        shutil.copytree(_compiled.PACKAGE / name, tmp_path / "sequencer" / name)
    shutil.copy(_compiled.PACKAGE / "__init__.py", tmp_path / "sequencer")
    for source in _compiled.sources():
        room = tmp_path / source.parent.relative_to(ROOT)
        room.mkdir(exist_ok=True)
        for file in (source.parent / "__init__.py", source):
            shutil.copy(file, room)
    return tmp_path


@needs_compiled
@pytest.mark.slow
@pytest.mark.fuzz
def test_compiled_and_pure__on_fuzzed_records__agree_on_every_outcome_and_root() -> None:
    records = "100000" if os.environ.get("FAIRSTRIKE_LONG") == "1" else "2500"
    assert "every outcome and root equal" in python(
        "scripts/compare_compiled.py", "--no-demo", "--records", records, "--seed", "7"
    )


@needs_compiled
def test_compiled__while_its_sources_are_as_they_were__is_used(package: Path) -> None:
    status, is_source, root = python("-c", USE, cwd=package).split()
    assert (status, is_source) == ("compiled", "False")
    assert python("-c", USE, cwd=package, FAIRSTRIKE_PURE="1").split() == ["pure", "Python", "True", root]


@needs_compiled
@pytest.mark.parametrize("edited", ["protocol/margin.py", "proof/witness.py", "protocol/another.py"])
def test_compiled__after_an_edit_of_a_source__is_not_used(package: Path, edited: str) -> None:
    with (package / "sequencer" / edited).open("a") as file:
        file.write("# edited\n")
    *status, is_source, _root = python("-c", USE, cwd=package).split()
    assert (status, is_source) == (["pure", "Python"], "True")
    assert "the sources have changed" in python("-m", "sequencer._compiled", cwd=package)


@pytest.mark.slow
def test_install__without_a_compiler__goes_on_without_one(tmp_path: Path) -> None:
    folders = [f"--build-lib={tmp_path / 'lib'}", f"--build-temp={tmp_path / 'temp'}"]
    python("setup.py", "--quiet", "build_ext", *folders, CC="/bin/false", PYTHONWARNINGS="ignore")
    assert not list(tmp_path.rglob(f"*{_compiled.SUFFIX}"))


def test_sources__have_names_that_differ() -> None:
    stems = [source.stem for source in _compiled.sources()]
    assert len(set(stems)) == len(stems) > 30
