"""A lean JSON-RPC client: one kept-alive connection, batches, typed errors, bounded retries.

Whatever is asked may be asked twice: a request whose answer is lost is sent again. Reads do not mind; of the
writes, a raw transaction sent twice is known already, which its sender (`txmgr`) takes for success.
"""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from sequencer.l1.errors import RpcRejected, RpcReverted, RpcUnavailable

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
BATCH_MAX: Final = 100
BLOB_FEE_OF_CALLS: Final = 10**12  # wei; nobody pays it, but a node may want it above the block's


def to_int(value: str) -> int:
    """A JSON-RPC quantity."""
    return int(value, 16)


def to_bytes(value: str) -> bytes:
    """JSON-RPC data."""
    return bytes.fromhex(value[2:])


def to_hex(value: bytes) -> str:
    return "0x" + value.hex()


def checked_revert(method: str, error: dict[str, Any]) -> RpcRejected:
    """The exception for a JSON-RPC error object; knows the shapes in which nodes report reverts."""
    code, message, data = int(error.get("code", 0)), str(error.get("message", "")), error.get("data")
    if isinstance(data, dict):  # hardhat: {"message", "data"}
        data = data.get("data")
    text = data if isinstance(data, str) and data.startswith("0x") else None
    if "revert" in message.lower():
        reason = ""
        raw = to_bytes(text) if text else b""
        if raw[:4] == b"\x08\xc3\x79\xa0" and len(raw) >= 68:
            reason = raw[68 : 68 + int.from_bytes(raw[36:68], "big")].decode("utf-8", "replace")
        elif "reverted with reason string '" in message:
            reason = message.split("reverted with reason string '", 1)[1].rsplit("'", 1)[0]
        return RpcReverted(method, code, message, text, reason)
    return RpcRejected(method, code, message, text)


@dataclass(slots=True)
class Rpc:
    """A client of one node. Safe to share between threads (one request at a time).

    `attempts` counts tries of one request when the connection is refused or lost; between them it sleeps
    from 50 ms, doubling up to 2 s. Then RpcUnavailable.
    """

    url: str
    timeout_s: float = 30.0
    attempts: int = 3
    sleep: Callable[[float], None] = time.sleep
    requests: int = 0
    _connection: http.client.HTTPConnection | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def call(self, method: str, *params: Any) -> Any:
        """Result of one method; raises RpcRejected, RpcReverted or RpcUnavailable."""
        answer = self._post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if not isinstance(answer, dict):
            raise RpcUnavailable(self.url, f"not JSON-RPC: {answer!r:.80}")
        error = answer.get("error")
        if error is not None:
            raise checked_revert(method, error)
        return answer.get("result")

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Results in order; an error of one call stands in its place as an RpcRejected (not raised)."""
        results: list[Any] = []
        for start in range(0, len(calls), BATCH_MAX):
            part = calls[start : start + BATCH_MAX]
            request = [
                {"jsonrpc": "2.0", "id": i, "method": method, "params": params}
                for i, (method, params) in enumerate(part)
            ]
            answers = self._post(request)
            if not isinstance(answers, list) or len(answers) != len(part):
                raise RpcUnavailable(self.url, f"not a batch answer: {answers!r:.80}")
            by_id = {answer.get("id"): answer for answer in answers}
            for i, (method, _) in enumerate(part):
                answer = by_id.get(i, {"error": {"code": -32603, "message": "no answer in the batch"}})
                error = answer.get("error")
                results.append(checked_revert(method, error) if error is not None else answer.get("result"))
        return results

    def batch_strict(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """`batch` that raises the first error."""
        results = self.batch(calls)
        for result in results:
            if isinstance(result, RpcRejected):
                raise result
        return results

    # --- the methods that are used all over the place ---------------------------------------------

    def chain_id(self) -> int:
        return to_int(self.call("eth_chainId"))

    def block_number(self) -> int:
        return to_int(self.call("eth_blockNumber"))

    def block(self, number: int | str) -> dict[str, Any] | None:
        """Header fields of a block without its transactions' bodies; None when there is none."""
        tag = hex(number) if isinstance(number, int) else number
        block: dict[str, Any] | None = self.call("eth_getBlockByNumber", tag, False)
        return block

    def nonce(self, address: str, tag: str = "latest") -> int:
        return to_int(self.call("eth_getTransactionCount", address, tag))

    def balance(self, address: str) -> int:
        return to_int(self.call("eth_getBalance", address, "latest"))

    def eth_call(
        self,
        to: str,
        data: bytes,
        tag: int | str = "latest",
        sender: str | None = None,
        blob_hashes: Sequence[bytes] = (),
    ) -> bytes:
        fields: dict[str, Any] = {"to": to, "data": to_hex(data)}
        if sender is not None:
            fields["from"] = sender
        if blob_hashes:
            fields["blobVersionedHashes"] = [to_hex(one) for one in blob_hashes]
            fields["maxFeePerBlobGas"] = hex(BLOB_FEE_OF_CALLS)
        return to_bytes(self.call("eth_call", fields, hex(tag) if isinstance(tag, int) else tag))

    def send_raw(self, raw: bytes) -> str:
        return str(self.call("eth_sendRawTransaction", to_hex(raw)))

    def receipt(self, tx_hash: str) -> dict[str, Any] | None:
        receipt: dict[str, Any] | None = self.call("eth_getTransactionReceipt", tx_hash)
        return receipt

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # --- transport ----------------------------------------------------------------------------------

    def _post(self, request: Any) -> Any:
        body = msgspec.json.encode(request)
        backoff_s = BACKOFF_FIRST_S
        with self._lock:
            self.requests += 1
            for attempt in range(1, self.attempts + 1):
                fresh = self._connection is None
                try:
                    return msgspec.json.decode(self._exchange(body))
                except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                    self.close()
                    if not fresh and attempt == 1:
                        continue  # the node has closed an idle connection: no reason to wait
                    if attempt == self.attempts:
                        raise RpcUnavailable(self.url, f"{type(error).__name__}: {error}") from error
                self.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
        raise RpcUnavailable(self.url, "no attempt left")

    def _exchange(self, body: bytes) -> bytes:
        parts = urlsplit(self.url)
        if self._connection is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=self.timeout_s)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        # geth and hardhat answer JSON-RPC errors with 400 at times; what is no JSON fails in the decoder
        if response.status in (429, 502, 503, 504):
            raise http.client.HTTPException(f"HTTP {response.status}")
        return answer
