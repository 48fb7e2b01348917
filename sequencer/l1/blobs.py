"""Payloads in blobs (EIP-4844): field elements, commitments, the data root, and openings of elements.

Element i of a payload is field element i % 4096 of blob i // 4096, its first byte 0. The data root is the chain over
the versioned hashes (PROTOCOL §6). `python -m sequencer.l1.blobs` is the process in which a sequencer's commitments are
made: the library holds Python's lock while it works.
"""

import atexit
import hashlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import ckzg
from tiny_keccak import keccak256

from sequencer.protocol.constants import ELEMENT_BYTES

BLOB_ELEMENTS: Final = 4_096
FIELD_BYTES: Final = 32
BLOB_BYTES: Final = BLOB_ELEMENTS * FIELD_BYTES
BLOB_PAYLOAD_BYTES: Final = BLOB_ELEMENTS * ELEMENT_BYTES
BLOBS_MAX: Final = 6  # of one transaction (EIP-7594)
GAS_PER_BLOB: Final = 131_072
CELLS_PER_BLOB: Final = 128
POINT_BYTES: Final = 48
MODULUS: Final = 52435875175126190479447740508185965837690552500527637822603658699938581184513
ROOT_OF_UNITY: Final = pow(7, (MODULUS - 1) // BLOB_ELEMENTS, MODULUS)
SIDECAR_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What goes with a blob transaction (EIP-7594); by blob, and of each blob a proof for each of its 128 cells."""

    blobs: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    cell_proofs: tuple[bytes, ...]

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Versioned hashes."""
        return tuple(map(versioned_hash, self.commitments))


@cache
def setup() -> Any:
    """The ceremony's points, loaded once a process; it takes a second or two."""
    path = resources.files("eth_account.typed_transactions.blob_transactions") / "kzg_trusted_setup.txt"
    return ckzg.load_trusted_setup(str(path), 0)


def to_blobs(payload: bytes) -> tuple[bytes, ...]:
    """The blobs of a payload, the last one zero padded."""
    if len(payload) % ELEMENT_BYTES:
        raise ValueError("payload is not whole elements")
    words = b"".join(b"\0" + payload[at : at + ELEMENT_BYTES] for at in range(0, len(payload), ELEMENT_BYTES))
    return tuple(
        words[at : at + BLOB_BYTES].ljust(BLOB_BYTES, b"\0") for at in range(0, len(words), BLOB_BYTES)
    )


def count(payload_bytes: int) -> int:
    """How many blobs a payload fills."""
    return -(-payload_bytes // BLOB_PAYLOAD_BYTES)


def from_blobs(blobs: Sequence[bytes], elements: int) -> bytes:
    """The payload of so many elements: the low 248 bits of each field element."""
    words = b"".join(blobs)
    return b"".join(words[at + 1 : at + FIELD_BYTES] for at in range(0, elements * FIELD_BYTES, FIELD_BYTES))


def versioned_hash(commitment: bytes) -> bytes:
    """What a transaction and `blobhash` name a blob by."""
    return b"\x01" + hashlib.sha256(commitment).digest()[1:]


def commitment_of(blob: bytes) -> bytes:
    """KZG commitment of a blob. Raises ValueError when a field element is none."""
    try:
        return bytes(ckzg.blob_to_kzg_commitment(blob, setup()))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"not a blob: {error}") from error


def with_proofs(blobs: Sequence[bytes]) -> Sidecar:
    """The sidecar of blobs, made here: a third of a second a blob. Raises ValueError when one is none."""
    commitments = tuple(map(commitment_of, blobs))
    proofs = [ckzg.compute_cells_and_kzg_proofs(blob, setup())[1] for blob in blobs]
    return Sidecar(tuple(blobs), commitments, tuple(bytes(one) for some in proofs for one in some))


def data_root(hashes: Iterable[bytes]) -> bytes:
    """The chain over versioned hashes."""
    root = bytes(32)
    for one in hashes:
        root = keccak256(root + one)
    return root


def element_proof(
    blobs: Sequence[bytes], elements: Iterable[int], hashes: Sequence[bytes] | None = None
) -> bytes:
    """What `DataSourceBlob` takes: the versioned hashes, then each element with its opening, in the order asked for,
    the first of a blob behind the blob's commitment. `hashes` of the blobs, where they are known.
    """
    proof = b"".join(hashes or [versioned_hash(commitment_of(blob)) for blob in blobs])
    opened = -1
    for element in elements:
        blob, place = divmod(element, BLOB_ELEMENTS)
        if blob != opened:
            proof, opened = proof + commitment_of(blobs[blob]), blob
        opening, value = ckzg.compute_kzg_proof(blobs[blob], _point(place), setup())
        proof += value + opening
    return proof


class _Maker:
    """The process that makes commitments and proofs: started when it is first needed, again after a failure."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def make(self, payload: bytes) -> bytes:
        """Of each blob, one after the other, the commitment and the proofs of its cells. Raises OSError."""
        with self._lock:
            try:
                return self._ask(payload)
            except OSError:
                self._end()
                raise

    def close(self) -> None:
        """Ends the process; the next payload starts another."""
        with self._lock:
            self._end()

    def _ask(self, payload: bytes) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sequencer.l1.blobs"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C in the terminal is the sequencer's to handle
            )
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(len(payload).to_bytes(4, "big") + payload)
        sink.flush()
        wanted, found = (1 + CELLS_PER_BLOB) * POINT_BYTES * count(len(payload)), b""
        while len(found) < wanted:
            ready, _, _ = select.select([source], [], [], SIDECAR_TIMEOUT_S)
            more = os.read(source.fileno(), wanted - len(found)) if ready else b""
            if not more:
                raise OSError("no sidecar: the process that makes them has ended, or takes too long")
            found += more
        return found

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_maker = _Maker()
atexit.register(_maker.close)


def sidecar(payload: bytes) -> Sidecar:
    """The sidecar of a payload, made in a process of its own. Raises OSError when that fails."""
    made = _maker.make(payload)
    points = [made[at : at + POINT_BYTES] for at in range(0, len(made), POINT_BYTES)]
    each = 1 + CELLS_PER_BLOB
    proofs = tuple(one for place, one in enumerate(points) if place % each)
    return Sidecar(to_blobs(payload), tuple(points[::each]), proofs)


def _point(place: int) -> bytes:
    """Where a blob's polynomial takes the value of its field element `place`."""
    return pow(ROOT_OF_UNITY, int(f"{place:012b}"[::-1], 2), MODULUS).to_bytes(FIELD_BYTES, "big")


def _main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(4):
        for blob in to_blobs(source.read(int.from_bytes(head, "big"))):
            made = with_proofs([blob])
            sink.write(b"".join((*made.commitments, *made.cell_proofs)))
            sink.flush()


if __name__ == "__main__":
    _main()
