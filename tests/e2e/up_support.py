"""The command line run as people and programs run it, and a `fairstrike up` to run it against."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sequencer.cli import main

READY_S = 150.0
VARIABLES = ("API", "KEY", "KEYSTORE", "PASSWORD", "ACCOUNT", "L1", "DEPLOYMENT")


def run(*args: str, stdin: str | bytes | None = None, **variables: str) -> Result:
    """A command in this process, with no variable of FAIRSTRIKE_ but those given."""
    separate = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}  # click < 8.2
    env = {f"FAIRSTRIKE_{name}": variables.get(name) for name in VARIABLES}
    return CliRunner(**separate).invoke(main, args, input=stdin, env=env)


def answer(*args: str, stdin: str | bytes | None = None) -> Any:
    """The JSON of a command that succeeds; nothing else may stand on standard output."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@dataclass
class Up:
    """A running `fairstrike up`."""

    process: subprocess.Popen[str]
    info: dict[str, Any]
    children: set[int]

    def call(self, *args: str) -> Any:
        return answer(*args, "--api", self.info["api"], "--json")

    def on_l1(self) -> list[str]:
        return ["--l1", self.info["l1"], "--deployment", self.info["deployment"]]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def children_of(parent: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_up(folder: Path, *args: str) -> Up:
    """Starts `up --json -` and waits for its one object."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from sequencer.cli import main; main()", "up", "--json", "-", "--port", "0",
         "--folder", str(folder), *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    text = ""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        text += line
        if line == "}\n":
            return Up(process, json.loads(text), children_of(process.pid))
        if not line:
            break
    process.kill()
    assert process.stderr is not None
    raise AssertionError(f"up did not start: {text} {process.stderr.read()}")


def clean_up(up: Up) -> None:
    if up.process.poll() is None:
        up.process.kill()
        up.process.wait()
    for stream in (up.process.stdout, up.process.stderr):
        assert stream is not None
        stream.close()
    for pid in up.children:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    if sys.platform != "linux":
        pytest.skip("children are counted in /proc")
    one = start_up(tmp_path)
    yield one
    clean_up(one)


def retry(what: Any, until: Any, seconds: float = 90.0) -> Any:
    """`what()` again and again until `until(its result)`."""
    deadline = time.monotonic() + seconds
    while True:
        got = what()
        if until(got):
            return got
        assert time.monotonic() < deadline, got
        time.sleep(0.1)


def an_option(up: Up) -> str:
    listed = up.call("instruments")
    return next(one["instrument"] for one in listed if one["strike"] == "46000.00" and one["type"] == "call")
