"""What a wallet has signed and not heard the end of: so that what is typed again goes on, and does not happen twice.

One JSON file for a key at an exchange. An entry is written before its transaction is sent, and goes when its caller has
heard what became of it.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec


@dataclass(slots=True)
class Signed:
    """A transaction that may be anywhere. `what` names what somebody wanted; `fees` its attempts, (max_fee, tip) in
    wei, oldest first; `hashes` theirs. `is_doubtful`: a node may have it.
    """

    what: str
    nonce: int
    to: str
    data: str
    value: int
    gas: int
    fees: list[tuple[int, int]] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    is_doubtful: bool = False


class Journal:
    """Entries by what was wanted; in memory only when there is no `path`."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: dict[str, Signed] = {}
        if path is not None and path.exists():
            # A file that cannot be read says that something may be under way: nothing is sent over that.
            listed = msgspec.json.decode(path.read_bytes(), type=list[Signed])
            self._entries = {one.what: one for one in listed}

    def find(self, what: str) -> Signed | None:
        """What is under way for this."""
        return self._entries.get(what)

    def put(self, entry: Signed) -> None:
        """Written when this returns."""
        self._entries[entry.what] = entry
        self._write()

    def drop(self, what: str) -> None:
        """Its end has been heard of."""
        if self._entries.pop(what, None) is not None:
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        content: Any = list(self._entries.values())
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)


def journal_path(chain_id: int, genesis: str, rollup: str, address: str) -> Path:
    """Where the command line keeps it: in $XDG_STATE_HOME/fairstrike, by chain, exchange and key."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    name = f"{chain_id}-{genesis[2:12]}-{rollup[2:12].lower()}-{address.lower()}.json"
    return base / "fairstrike" / "wallet" / name
