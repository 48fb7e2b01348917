"""What every test gets: Hypothesis profiles, seeds, the recorded market data, and a reason where something is missing.

Environment:

    FAIRSTRIKE_LONG=1     many more cases a property (`make fuzz`)
    FAIRSTRIKE_NODE=0|1   leave out / demand the tests on anvil and hardhat; unset, they run where both are installed
    FAIRSTRIKE_DATA       the recorded market data, ../shared/data when unset
    CI                    the same cases in every run, nothing remembered
"""

import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

ROOT = Path(__file__).resolve().parents[1]
NODE_CHAINS = ("anvil", "hardhat")
IS_LONG = os.environ.get("FAIRSTRIKE_LONG", "0") not in ("", "0")

# A deadline would measure the machine; the test's timeout stands.
settings.register_profile("dev", deadline=None, max_examples=60)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, database=None, print_blob=True
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=5_000,
    stateful_step_count=200,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # large cases are wanted
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.load_profile("long" if IS_LONG else "ci" if os.environ.get("CI") else "dev")


def _data_dir() -> Path | None:
    path = Path(os.environ.get("FAIRSTRIKE_DATA") or ROOT.parent / "shared" / "data")
    return path if path.is_dir() else None


def _node_missing() -> str | None:
    """Why tests marked `node` are left out, or None when they run."""
    wanted = os.environ.get("FAIRSTRIKE_NODE")
    if wanted == "1":
        return None
    if wanted == "0":
        return "anvil and hardhat are left out here (FAIRSTRIKE_NODE=0); `make test-all` runs them"
    from sequencer.l1 import chains

    if shutil.which("node") is None or not chains.is_installed():
        return "anvil and hardhat are not installed; `make test-all` installs and runs them"
    return None


def _runs_on_node(item: pytest.Item) -> bool:
    """Whether a test says so, or is the variant for anvil or hardhat of a test for every chain."""
    parameters = (
        item.callspec.params.values()
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else ()
    )
    return item.get_closest_marker("node") is not None or any(
        value in NODE_CHAINS for value in parameters if isinstance(value, str)
    )


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests on anvil and hardhat; skips, with the reason, what has no chain or no data to run on."""
    reasons = {
        "node": _node_missing(),
        "tape": None if _data_dir() else "no recorded market data (FAIRSTRIKE_DATA, or ../shared/data)",
    }
    for item in items:
        if _runs_on_node(item):
            item.add_marker("node")
        for marker, reason in reasons.items():
            if reason is not None and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seeds `random` from the test's name: the same draws alone, in any order, and on any worker."""
    random.seed(zlib.crc32(item.nodeid.encode()))


@pytest.fixture(scope="session")
def data_dir() -> Path | None:
    """Folder of the recorded market data; None when there is none, and the test takes its synthetic stand-in."""
    return _data_dir()


@pytest.fixture(scope="session")
def is_long() -> bool:
    """Whether a test that draws its own cases should draw many."""
    return IS_LONG


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test marked `pure` in a process without the compiled transition, if there is one here."""
    from sequencer import _compiled

    if pyfuncitem.get_closest_marker("pure") is None or _compiled.status() != "compiled":
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=pyfuncitem.config.rootpath,
        env=os.environ | {"FAIRSTRIKE_PURE": "transition"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True
