"""The typing of scripts/newcomer.sh: blocks of the documentation that bear a name, in terminals of their own.

A block is the fence after `<!-- typed: NAME -->`. Its lines are typed one by one; `# terminal 2` at an end of one says
where it and those after it are typed, `# terminal 2: Ctrl-C` alone ends what runs there. What goes on
running counts as started when it says so (READY). A line must end with status 0, and print what PRINTS names. Lines
that begin with `$ ` are followed by what they print.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE_S = 240.0
TRY_AGAIN_S = 5.0
BLOCKS = {
    "trade": "README.md",
    "quants": "README.md",
    "parts": "docs/OPERATIONS.md",
    "drill": "docs/OPERATIONS.md",
}
IN_AN_EMPTY_FOLDER = ("drill",)

READY = (  # a command that goes on running, and what it says once it is there
    (r"fairstrike up\b", r"Fairstrike is up"),
    (r"fairstrike devchain run", r"Ctrl-C ends it"),
    (r"fairstrike feed run", r'"url": "http'),
    (r"fairstrike node\b", r'"log_end"'),
    (r"fairstrike gateway", r"^http://"),
    (r"fairstrike watch", r"watching; Ctrl-C ends it"),
)
PRINTS = (  # a command, and what it must print
    (r"order place \S+ buy\s+0\.1 900", r"fills"),
    (r"^fairstrike account", r"positions"),
    (r"^fairstrike order history", r"filled"),
    (r"^fairstrike withdraw", r"number"),
    (r"^fairstrike claim", r"(?s)claimed.*0x[0-9a-f]{64}"),
    (r"feed keygen", r"0x[0-9a-fA-F]{40}"),
    (r"ape run deploy", r"written to"),
    (r"^fairstrike instruments", r"BTC-.*-46000-C"),
    (r"^fairstrike replay", r"rebuilt from L1"),
    (r"exit --step declare", r"freeze|declared"),
    (r"exit --all", r"vault\s*│\s*0(\.0+)?\b"),
)
WAITS = (
    r"^fairstrike claim",
    r"^fairstrike instruments",
)  # done again until it works: the text says what it waits for


class Failed(Exception):
    """What was typed, and what came instead of what the page says."""


class Terminal:
    """A shell that keeps its variables, and what it has printed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._read = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._shell.stdout is not None
        self._lines.extend(iter(self._shell.stdout.readline, ""))

    def type(self, line: str, until: str | None) -> str:
        """What `line` prints up to its end, or up to a line that `until` matches. Raises Failed."""
        assert self._shell.stdin is not None
        end = f"typed-{time.monotonic_ns()}"
        self._shell.stdin.write(f"{line}\n" + (f"echo {end} $?\n" if until is None else ""))
        self._shell.stdin.flush()
        deadline = time.monotonic() + LINE_S
        printed = ""
        while time.monotonic() < deadline and self._shell.poll() is None:
            if self._read == len(self._lines):
                time.sleep(0.05)
                continue
            text = self._lines[self._read]
            self._read += 1
            if until is None and text.startswith(end):
                if text.split()[1] != "0":
                    raise Failed(f"{line}\nends with status {text.split()[1]}:\n{printed}")
                return printed
            printed += text
            if until is not None and re.search(until, text):
                return printed
        wanted = "does not end" if until is None else f"does not say {until!r}"
        raise Failed(f"{line}\n{wanted} within {LINE_S:.0f} s:\n{printed}")

    def interrupt(self) -> None:
        """Ctrl-C, and a wait until what ran has ended."""
        for child in self._children():
            os.kill(child, signal.SIGINT)
        deadline = time.monotonic() + LINE_S
        while self._children():
            if time.monotonic() > deadline:
                raise Failed("Ctrl-C does not end it")
            time.sleep(0.1)

    def _children(self) -> list[int]:
        path = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children")
        return [int(one) for one in path.read_text().split()] if path.exists() else []

    def close(self) -> None:
        """Ends what runs, and the shell."""
        try:
            self.interrupt()
        finally:
            self._shell.kill()
            self._shell.wait()


def block(path: Path, name: str) -> list[str]:
    """Lines of the fence after the marker of `name`; a trailing backslash or an open quote joins the next."""
    found = re.search(rf"<!-- typed: {name} -->\n```[a-z]*\n(.*?)\n```", path.read_text(), re.DOTALL)
    if found is None:
        raise Failed(f"{path}: no block is marked as {name}")
    lines: list[str] = []
    is_open = False
    for line in found[1].split("\n"):
        if is_open:
            lines[-1] += "\n" + line
        else:
            lines.append(line)
        command = lines[-1].partition("  #")[0]
        is_open = command.endswith("\\") or (command.count("'") % 2 == 1 and "│" not in command)
    return lines


def settle(text: str) -> str:
    """A table's line without the widths of its columns."""
    return re.sub(r"[\s─]+", " ", text).strip()


def quants(lines: list[str], terminal: Terminal) -> int:
    """Types commands that begin with `$ `, and compares what they print with the lines below them."""
    count, printed = 0, ""
    for line in lines:
        if line.startswith("$ "):
            printed = settle(terminal.type(line.removeprefix("$ "), None).replace("\n", " ⏎ "))
            count += 1
        elif line.strip():
            wanted = settle(line.partition("…")[0])
            if wanted not in printed:
                raise Failed(f"the page shows\n{wanted}\nbut there is\n{printed}")
    return count


def typed(lines: list[str], terminals: dict[int, Terminal], folder: Path, environment: dict[str, str]) -> int:
    """Types a block; how many lines that were."""
    count, where, name = 0, 1, ""

    def at(number: int) -> Terminal:
        if number not in terminals:
            terminals[number] = Terminal(folder, environment)
        return terminals[number]

    for line in lines:
        command, _, comment = line.partition("  #") if not line.lstrip().startswith("#") else ("", "", line)
        said = re.search(r"terminals? (\d+)", comment)
        where = int(said[1]) if said else where
        if said and "Ctrl-C" in comment and not command.strip():
            at(where).interrupt()
        if not command.strip():
            continue
        if name:
            command = re.sub(r"\bBTC-\d+[A-Z]{3}\d\d-\d+-[CP]\b", name, command)
        elif re.search(r"\bBTC-\d+[A-Z]{3}\d\d-\d+-[CP]\b", command) and "[" not in command:
            listed = json.loads(at(where).type("fairstrike instruments --json", None))
            name = next(one["instrument"] for one in listed if one["instrument"].endswith("-46000-C"))
            command = re.sub(r"\bBTC-\d+[A-Z]{3}\d\d-\d+-[CP]\b", name, command)
        until = next((says for what, says in READY if re.search(what, command)), None)
        deadline = time.monotonic() + (LINE_S if any(re.search(one, command) for one in WAITS) else 0)
        while True:
            try:
                printed = at(where).type(command.strip(), until)
                for what, says in PRINTS:
                    if re.search(what, command) and not re.search(says, printed):
                        raise Failed(f"{command}\ndoes not print {says!r}:\n{printed}")
                break
            except Failed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(TRY_AGAIN_S)
        print(f"  {command.strip()}", flush=True)
        count += 1
        if until is not None:
            where += 1  # the next terminal, unless the page names one
    return count


def main() -> None:
    """Types the blocks that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, help="where `fairstrike` is")
    parser.add_argument("--scratch", type=Path, required=True, help="for empty folders")
    parser.add_argument("names", nargs="+", choices=list(BLOCKS))
    arguments = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAIRSTRIKE_")}
    environment["PATH"] = f"{arguments.bin}:{environment['PATH']}"
    for name in arguments.names:
        began = time.monotonic()
        folder = ROOT
        if name in IN_AN_EMPTY_FOLDER:
            folder = arguments.scratch / name
            folder.mkdir()
        terminals: dict[int, Terminal] = {}
        print(f"{name} ({BLOCKS[name]})", flush=True)
        try:
            lines = block(ROOT / BLOCKS[name], name)
            if name == "quants":
                terminals[1] = Terminal(folder, environment)
                count = quants(lines, terminals[1])
            else:
                count = typed(lines, terminals, folder, environment)
        except Failed as error:
            sys.exit(f"{name}: {error}")
        finally:
            for terminal in reversed(terminals.values()):
                terminal.close()
        if count == 0:
            sys.exit(f"{name}: nothing was typed")
        print(f"  {count} lines, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
