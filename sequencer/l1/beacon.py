"""Blobs from a beacon node, verified against the versioned hashes that L1 names them by.

Beacon nodes keep blobs for 18 days. A slot follows from its block's time. anvil serves the same path from its own
address, does not say how long a slot is, and takes a block's number for one: where the environment variable
FAIRSTRIKE_BEACON names no node, L1's own is asked.
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sequencer.l1 import blobs
from sequencer.l1.errors import BlobsUnavailable, RpcUnavailable
from sequencer.l1.rpc import to_bytes, to_hex

TIMEOUT_S: Final = 30.0
BEACON_VARIABLE: Final = "FAIRSTRIKE_BEACON"

T = TypeVar("T")


class Beacon:
    """One node's blobs. `url`: where `/eth/v1/...` is served."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._clock: tuple[int, int] | None = (
            None  # genesis time and seconds a slot; (0, 0): slots are block numbers
        )

    def blobs(self, block_number: int, block_time_s: int, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
        """Blobs of a block by their versioned hashes, in that order.

        Raises BlobsUnavailable when one is not there, RpcUnavailable when the node does not answer as one does.
        """
        slot = self._slot(block_number, block_time_s)
        wanted = ",".join(map(to_hex, dict.fromkeys(hashes)))
        answer = self._get(f"/eth/v1/beacon/blobs/{slot}?versioned_hashes={wanted}")
        if answer is None:
            raise BlobsUnavailable(self._url, "HTTP 404", slot)
        found: dict[bytes, bytes] = {}
        for blob in self._field(lambda: [to_bytes(text) for text in answer["data"]], f"slot {slot}"):
            try:
                found[blobs.versioned_hash(blobs.commitment_of(blob))] = blob
            except ValueError as error:
                raise RpcUnavailable(self._url, f"slot {slot}: {error}") from error
        missing = [one for one in hashes if one not in found]
        if missing:
            raise BlobsUnavailable(
                self._url, f"{len(found)} of {len(set(hashes))} are there, {to_hex(missing[0])} is not", slot
            )
        return tuple(found[one] for one in hashes)

    def _slot(self, block_number: int, block_time_s: int) -> int:
        if self._clock is None:
            spec, genesis = self._get("/eth/v1/config/spec"), self._get("/eth/v1/beacon/genesis")
            if spec is None:  # anvil
                self._clock = (0, 0)
            else:
                self._clock = self._field(
                    lambda: (int(genesis["data"]["genesis_time"]), int(spec["data"]["SECONDS_PER_SLOT"])),
                    "genesis_time and SECONDS_PER_SLOT",
                )
        genesis_s, slot_s = self._clock
        if not slot_s:
            return block_number
        slot, rest_s = divmod(block_time_s - genesis_s, slot_s)
        if slot < 0 or rest_s:
            raise RpcUnavailable(
                self._url,
                f"block {block_number} of second {block_time_s} is in no slot of {slot_s} s since {genesis_s}: "
                "is this the beacon node of another chain?",
            )
        return slot

    def _field(self, read: Callable[[], T], what: str) -> T:
        """What `read` finds in an answer, or RpcUnavailable."""
        try:
            return read()
        except (KeyError, TypeError, ValueError) as error:
            raise RpcUnavailable(self._url, f"{what}: not a beacon node's answer: {error!r:.80}") from error

    def _get(self, path: str) -> Any:
        """An answer, None where there is none."""
        request = urllib.request.Request(self._url + path, headers={"Accept": "application/json"})  # noqa: S310  # the operator's URL
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  # likewise
                return msgspec.json.decode(response.read())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise RpcUnavailable(self._url, f"{path[:60]}: HTTP {error.code}") from error
        except (OSError, msgspec.DecodeError) as error:
            raise RpcUnavailable(self._url, f"{type(error).__name__}: {error}") from error
