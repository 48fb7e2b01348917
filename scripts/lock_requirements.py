"""Prints requirements.lock: what a fresh environment resolves to, each package with the hashes that PyPI states.

Run with an interpreter whose environment holds the project with all its extras, and no more:

    python3.11 -m venv fresh && fresh/bin/pip install setuptools==80.9.0 '.[cluster,contracts,ape,test]'
    fresh/bin/python scripts/lock_requirements.py > requirements.lock

Hashes of files that CPython 3.11 cannot use are left out: they would be three quarters of the lock.
"""

import html.parser
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from pip._internal.models.index import PyPI

INDEX = PyPI.simple_url
NOT_LOCKED = {"fairstrike", "pip"}
WHEEL_TAGS = re.compile(r"-(?:py3|py2\.py3|cp311|cp3\d+-abi3|cp3-abi3)[-.]")
NOT_ABI3 = re.compile(r"-cp3(?:[2-9]|10)-(?!abi3)")
HEADER = """\
# Every package of runtime, cluster, contracts, ape and test, pinned; made by scripts/lock_requirements.py.
# Install: pip install --no-deps -r requirements.lock
"""


class Links(html.parser.HTMLParser):
    """File names and their sha256 on an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href") or ""
        path, _, fragment = address.partition("#sha256=")
        if tag == "a" and fragment:
            self.sha256[path.rsplit("/", 1)[-1]] = fragment


def installed() -> list[tuple[str, str]]:
    """Name and version of each package of this environment, sorted."""
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pairs = [line.split("==") for line in text.splitlines() if "==" in line]
    return sorted(
        (name.lower().replace("_", "-"), version) for name, version in pairs if name not in NOT_LOCKED
    )


def fits(file: str, version: str) -> bool:
    """Whether a file is of this version, and a source archive or a wheel for CPython 3.11."""
    if file.endswith((".tar.gz", ".zip")):
        return file.removesuffix(".tar.gz").removesuffix(".zip").endswith(f"-{version}")
    return f"-{version}-" in file and WHEEL_TAGS.search(file) is not None and NOT_ABI3.search(file) is None


def entry(package: tuple[str, str]) -> str:
    """The lock's lines of one package; SystemExit when the index has no usable file of it."""
    name, version = package
    with urllib.request.urlopen(f"{INDEX}/{name}/", timeout=60) as answer:  # noqa: S310  # pip's own index, https
        links = Links()
        links.feed(answer.read().decode())
    hashes = sorted(digest for file, digest in links.sha256.items() if fits(file, version))
    if not hashes:
        raise SystemExit(f"lock_requirements: {INDEX} has no file of {name} {version} for CPython 3.11")
    return " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in hashes)])


def main() -> None:
    """Prints the lock."""
    with ThreadPoolExecutor(8) as pool:
        print(HEADER + "\n".join(pool.map(entry, installed())))


if __name__ == "__main__":
    main()
