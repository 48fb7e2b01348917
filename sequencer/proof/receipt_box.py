"""Where traders leave receipts over HTTP: checked as they come, stored by their hash, bounded in every way.

`POST /receipts` takes what `fairstrike receipt verify` reads: one JSON object, or one a line. A receipt is stored once,
in a file of its own name, when a member's key has signed it; what becomes of it is answered at `GET /receipts/HASH`.
A client may bring so many a second, and so may all together; when the box is full, settled ones make room first.
"""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.sdk.receipts import Opened, Receipt, ReceiptWrong

PATH: Final = "/receipts"
BODY_BYTES_MAX: Final = 1 << 20
RECEIPTS_PER_BODY: Final = 256
RECEIPT_BYTES_MAX: Final = 256 * 1024
STORED_MAX: Final = 50_000
STORED_BYTES_MAX: Final = 128 * 1024 * 1024
FULL_AT: Final = 0.9  # from where settled receipts make room
PER_S: Final = 50.0  # receipts of a client's address
BURST: Final = 1_000.0
ALL_PER_S: Final = 500.0
ALL_BURST: Final = 5_000.0
CLIENTS_KNOWN: Final = 4_096
JSON: Final = "application/json"

Members = Callable[[bytes], str | None]
States = Callable[[str], dict[str, Any] | None]
Answered = tuple[int, str, str]


class _Bucket:
    """Tokens that come at `per_s`, `most` at most."""

    __slots__ = ("at", "left", "most", "per_s")

    def __init__(self, per_s: float, most: float) -> None:
        self.per_s, self.most, self.left, self.at = per_s, most, most, time.monotonic()

    def take(self, count: int) -> bool:
        """Whether so many may come now."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self.at) * self.per_s)
        self.at = now
        if self.left < count:
            return False
        self.left -= count
        return True


class ReceiptBox:
    """Receipts left over HTTP in `folder`. `post` and `get` may be called by many threads, `taken` by the desk's alone.

    `members`: whose receipts a key signs; `states`: how a receipt stands, by its hash.
    """

    def __init__(
        self,
        folder: Path,
        domain: bytes,
        members: Members,
        states: States,
        most: int = STORED_MAX,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._domain = domain
        self._members = members
        self._states = states
        self._most = most
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._new: deque[tuple[str, Opened]] = deque()
        self._clients: dict[str, _Bucket] = {}
        self._all = _Bucket(ALL_PER_S, ALL_BURST)
        self.refused = 0
        for path in sorted(folder.glob("??/*.json"), key=lambda one: one.stat().st_mtime):
            self._sizes[path.stem] = path.stat().st_size
            self._bytes += self._sizes[path.stem]

    def __len__(self) -> int:
        """Number of receipts stored."""
        return len(self._sizes)

    @property
    def is_nearly_full(self) -> bool:
        """Whether settled receipts should make room."""
        return len(self._sizes) > FULL_AT * self._most or self._bytes > FULL_AT * STORED_BYTES_MAX

    # --- for the desk ---------------------------------------------------------------------------------

    def kept(self) -> Iterator[tuple[str, Opened]]:
        """What an earlier run has stored, oldest first. A file that is none is left out."""
        for name in list(self._sizes):
            try:
                yield name, msgspec.json.decode(self._path(name).read_bytes(), type=Receipt).open()
            except (OSError, msgspec.DecodeError, UnicodeDecodeError, ReceiptWrong, ValueError):
                self.remove(name)

    def taken(self) -> Iterator[tuple[str, Opened]]:
        """What has come since."""
        while self._new:
            yield self._new.popleft()

    def remove(self, name: str) -> None:
        """Lets go of a receipt."""
        with self._lock:
            size = self._sizes.pop(name, None)
            if size is not None:
                self._bytes -= size
                self._path(name).unlink(missing_ok=True)

    # --- HTTP -----------------------------------------------------------------------------------------

    def get(self, path: str) -> Answered:
        """How a receipt stands."""
        name = path.removeprefix(PATH + "/")
        if path == name or name not in self._sizes:
            return _refuse(404, f"POST {PATH}, or GET {PATH}/HASH of a receipt that is here")
        return 200, JSON, _encode({"hash": name, **self._stands(name)})

    def post(self, path: str, body: bytes, client: str) -> Answered:
        """Takes the receipts of a body; answers one object for one, else a list."""
        if path != PATH:
            return _refuse(404, f"receipts are taken at {PATH}")
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].strip() == b"{":  # one object over several lines
            lines = [body]
        if not 1 <= len(lines) <= RECEIPTS_PER_BODY:
            return _refuse(
                400, f"body: must be 1 to {RECEIPTS_PER_BODY} receipts, one a line, got {len(lines)}"
            )
        if not self._may(client, len(lines)):
            self.refused += len(lines)
            return _refuse(429, f"at most {PER_S:g} receipts a second of one address; try again in a second")
        rows = [self._take(line) for line in lines]
        is_full = any(row.get("is_full") for row in rows)
        return 507 if is_full else 200, JSON, _encode(rows[0] if len(rows) == 1 else rows)

    def _may(self, client: str, count: int) -> bool:
        with self._lock:
            bucket = self._clients.pop(client, None) or _Bucket(PER_S, BURST)
            self._clients[client] = bucket  # the newest last
            if len(self._clients) > CLIENTS_KNOWN:
                del self._clients[next(iter(self._clients))]
            return bucket.take(count) and self._all.take(count)

    def _take(self, line: bytes) -> dict[str, Any]:
        try:
            if len(line) > RECEIPT_BYTES_MAX:
                raise ReceiptWrong(f"a receipt of {len(line)} bytes, at most {RECEIPT_BYTES_MAX} are taken")
            receipt = msgspec.json.decode(line, type=Receipt)
            opened = receipt.open()
            if receipt.domain() != self._domain:
                named = f"chain {receipt.chain_id}, rollup {receipt.rollup}"
                raise ReceiptWrong(f"it is of another exchange ({named})")
            if self._members(opened.signer) is None:
                raise ReceiptWrong(f"0x{opened.signer.hex()} is no member's receipt key")
        except (msgspec.DecodeError, UnicodeDecodeError, ReceiptWrong, ValueError) as error:
            self.refused += 1
            return {"valid": False, "state": None, "misdeed": None, "why": str(error)}
        data = msgspec.json.encode(receipt)
        name = hashlib.sha256(data).hexdigest()
        row = {"valid": True, "hash": name, "tick": opened.header.tick, "seqs": opened.seqs}
        if not self._store(name, data, opened):
            self.refused += 1
            why = "the box is full: leave it with another watcher"
            return row | {"state": None, "misdeed": None, "is_full": True, "why": why}
        return row | self._stands(name)

    def _store(self, name: str, data: bytes, opened: Opened) -> bool:
        """Keeps a receipt once; False: there is no room."""
        with self._lock:
            if name in self._sizes:
                return True
            if len(self._sizes) >= self._most or self._bytes + len(data) > STORED_BYTES_MAX:
                return False
            path = self._path(name)
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._sizes[name] = len(data)
            self._bytes += len(data)
            self._new.append((name, opened))
            return True

    def _stands(self, name: str) -> dict[str, Any]:
        return self._states(name) or {"state": "pending", "misdeed": None, "tx": None}

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.json"


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _refuse(code: int, why: str) -> Answered:
    return code, JSON, _encode({"valid": False, "why": why})
