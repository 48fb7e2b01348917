"""Blobs from a beacon node, verified against the versioned hashes that L1 names them by.

Beacon nodes keep blobs for 18 days. A slot follows from its block's time. anvil serves the same path from its own
address, does not say how long a slot is, and takes a block's number for one: where the environment variable
FAIRSTRIKE_BEACON names no node, L1's own is asked. That a node is an anvil is asked each time: a beacon node behind a
gateway may answer 404 for a moment.
"""

import http.client
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from sequencer.l1 import blobs
from sequencer.l1.errors import BlobsUnavailable, RpcUnavailable
from sequencer.l1.rpc import to_bytes, to_hex
from sequencer.l1.transport import HttpConnection, without_secrets

TIMEOUT_S: Final = 30.0
BEACON_VARIABLE: Final = "FAIRSTRIKE_BEACON"

T = TypeVar("T")


class Beacon:
    """One node's blobs. `url`: where `/eth/v1/...` is served. `may_be_anvil`: it is L1's own node."""

    def __init__(self, url: str, may_be_anvil: bool = True) -> None:
        self._url = url.rstrip("/")
        self._may_be_anvil = may_be_anvil
        self._clock: tuple[int, int] | None = None  # genesis time and seconds a slot, once a node has said it

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
            if spec is None and self._may_be_anvil:
                return block_number
            if spec is None or genesis is None:
                raise RpcUnavailable(
                    self._url, "HTTP 404 for the length of its slots: is this a beacon node?"
                )
            genesis_s, slot_s = self._field(
                lambda: (int(genesis["data"]["genesis_time"]), int(spec["data"]["SECONDS_PER_SLOT"])),
                "genesis_time and SECONDS_PER_SLOT",
            )
            if slot_s <= 0:
                raise RpcUnavailable(self._url, f"SECONDS_PER_SLOT: {slot_s}: not a beacon node's answer")
            self._clock = genesis_s, slot_s
        genesis_s, slot_s = self._clock
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
            raise self._unavailable(f"{what}: not a beacon node's answer: {error!r:.80}") from None

    def _unavailable(self, reason: str) -> RpcUnavailable:
        return RpcUnavailable(self._url, without_secrets(reason, self._url))

    def _get(self, path: str) -> Any:
        """An answer, None where there is none."""
        connection = HttpConnection(self._url)
        parts = urlsplit(self._url)
        query = (
            parts.query and ("&" if "?" in path else "?") + parts.query
        )  # where some providers want their key
        try:
            status, body = connection.request(
                "GET", None, {"Accept": "application/json"}, TIMEOUT_S, parts.path.rstrip("/") + path + query
            )
            if status == 404:
                return None
            if status != 200:
                raise self._unavailable(f"{path[:60]}: HTTP {status}")
            return msgspec.json.decode(body)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise self._unavailable(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
