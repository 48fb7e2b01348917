"""Blobs from a beacon node, verified against the versioned hashes that L1 names them by.

Beacon nodes keep blobs for 18 days. anvil serves the same path from its own address, with a block's number as its slot:
where the environment variable FAIRSTRIKE_BEACON names no node, L1's own is asked.
"""

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sequencer.l1 import blobs
from sequencer.l1.errors import RpcUnavailable
from sequencer.l1.rpc import to_bytes, to_hex

TIMEOUT_S: Final = 30.0
BEACON_VARIABLE: Final = "FAIRSTRIKE_BEACON"


class Beacon:
    """One node's blobs. `url`: where `/eth/v1/...` is served."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._clock: tuple[int, int] | None = (
            None  # genesis time and seconds a slot; (0, 0): slots are block numbers
        )

    def blobs(self, block_number: int, block_time_s: int, hashes: Sequence[bytes]) -> tuple[bytes, ...]:
        """Blobs of a block by their versioned hashes, in that order. Raises RpcUnavailable when one is not there."""
        slot = self._slot(block_number, block_time_s)
        wanted = ",".join(map(to_hex, dict.fromkeys(hashes)))
        answer = self._get(f"/eth/v1/beacon/blobs/{slot}?versioned_hashes={wanted}")
        if answer is None:
            raise RpcUnavailable(self._url, f"no blobs of slot {slot}")
        found: dict[bytes, bytes] = {}
        for text in answer["data"]:
            blob = to_bytes(text)
            try:
                found[blobs.versioned_hash(blobs.commitment_of(blob))] = blob
            except ValueError as error:
                raise RpcUnavailable(self._url, f"slot {slot}: {error}") from error
        missing = [one for one in hashes if one not in found]
        if missing:
            raise RpcUnavailable(self._url, f"no blob {to_hex(missing[0])} in slot {slot}")
        return tuple(found[one] for one in hashes)

    def _slot(self, block_number: int, block_time_s: int) -> int:
        if self._clock is None:
            spec, genesis = self._get("/eth/v1/config/spec"), self._get("/eth/v1/beacon/genesis")
            if spec is None or genesis is None:
                self._clock = (0, 0)
            else:
                self._clock = (int(genesis["data"]["genesis_time"]), int(spec["data"]["SECONDS_PER_SLOT"]))
        genesis_s, slot_s = self._clock
        return (block_time_s - genesis_s) // slot_s if slot_s else block_number

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
