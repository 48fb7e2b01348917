"""A client of a node: web3.py over one kept-alive connection, with typed errors and bounded retries.

`Rpc.web3` is web3.py's own object, over the strict provider of `provider.py`; requests go through its provider and
middleware, and results stay as JSON-RPC has them: web3.py's formatters cost more than the request (docs/DECISIONS.md).

Whatever is asked may be asked twice: a request whose answer is lost is sent again. Reads do not mind; of the
writes, a raw transaction sent twice is known already, which its sender (`txmgr`) takes for success.

What comes back is an answer to what was asked (`answers.checked`), a refusal (RpcRejected), or no answer
(RpcUnavailable): whatever it is that a proxy, a provider or a broken node has said with HTTP 200. No error's text shows
the URL's path, query or password, where providers' keys stand.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from sequencer.l1.errors import RpcError, RpcRejected, RpcUnavailable
from sequencer.l1.limits import LOG_BLOCKS_MAX, Limit, LogRange, log_ranges
from sequencer.l1.refusals import TEXT_CHARS_MAX, refusal
from sequencer.l1.transport import AnswerTooLarge, HttpConnection, HttpStatus, without_secrets

if TYPE_CHECKING:
    from web3 import Web3

    from sequencer.l1.provider import Provider

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
BLOB_FEE_OF_CALLS: Final = 10**12  # wei; nobody pays it, but a node may want it above the block's


def to_int(value: str) -> int:
    """A JSON-RPC quantity."""
    return int(value, 16)


def to_bytes(value: str) -> bytes:
    """JSON-RPC data."""
    return bytes.fromhex(value[2:])


def to_hex(value: bytes) -> str:
    return "0x" + value.hex()


@dataclass(slots=True)
class Rpc:
    """A client of one node. Safe to share between threads (one request at a time).

    `timeout_s` is for a whole request, its answer included. `attempts` counts tries of one request when the connection
    is refused or lost; between them it sleeps from 50 ms, doubling up to 2 s. Then RpcUnavailable.
    """

    url: str
    timeout_s: float = 30.0
    attempts: int = 3
    sleep: Callable[[float], None] = time.sleep
    requests: int = 0
    _connection: HttpConnection | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _log_blocks: Limit = field(default_factory=lambda: Limit(LOG_BLOCKS_MAX))
    _web3: "Web3 | None" = None

    @property
    def web3(self) -> "Web3":
        """web3.py over this client: its requests are checked as all are. Made when it is first asked for, since web3.py
        takes half a second to import.
        """
        with self._lock:
            if self._web3 is None:
                from web3 import Web3

                from sequencer.l1.provider import CheckedAnswers, HalvedBatches, Provider

                onion = [(HalvedBatches, "halves"), (CheckedAnswers, "answers")]
                self._web3 = Web3(Provider(self._post, self._unavailable), middleware=onion)
            return self._web3

    @property
    def _provider(self) -> "Provider":
        return cast("Provider", self.web3.provider)

    def call(self, method: str, *params: Any) -> Any:
        """Result of one method; raises RpcRejected, RpcReverted or RpcUnavailable."""
        response = self._provider.ask(self.web3, method, params)
        if "error" in response:
            raise self._refusal(method, response["error"])
        return response["result"]

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Results in order; an error of one call stands in its place as an RpcRejected (not raised)."""
        responses = self._provider.ask_all(self.web3, calls) if calls else []
        return [
            self._refusal(method, one["error"]) if "error" in one else one["result"]
            for (method, _), one in zip(calls, responses, strict=True)
        ]

    def batch_strict(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """`batch` that raises the first error."""
        results = self.batch(calls)
        for result in results:
            if isinstance(result, RpcRejected):
                raise result
        return results

    def log_ranges(self, first: int, last: int) -> Iterator[LogRange]:
        """Ranges of blocks from `first` to `last`, each as long as the node answers for: whoever asks for the logs of
        one tells it with `took` or `refused`, and gets the same blocks in smaller ranges after the latter.
        """
        return log_ranges(self._log_blocks, first, last)

    def logs(self, query: dict[str, Any], first: int, last: int) -> list[dict[str, Any]]:
        """Logs of blocks `first` to `last`, in their order; `query` names the rest. Raises RpcError."""
        found: list[dict[str, Any]] = []
        for part in self.log_ranges(first, last):
            try:
                found += self.call("eth_getLogs", query | part.bounds)
            except RpcError as error:
                part.refused(error)
            else:
                part.took()
        return found

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

    # --- answers ------------------------------------------------------------------------------------

    def _unavailable(self, reason: str) -> RpcUnavailable:
        return RpcUnavailable(self.url, without_secrets(reason[:TEXT_CHARS_MAX], self.url))

    def _refusal(self, method: str, error: Any) -> RpcRejected:
        refused = refusal(method, error)
        refused.message = without_secrets(refused.message, self.url)
        return refused

    # --- transport ----------------------------------------------------------------------------------

    def _post(self, request: Any) -> Any:
        """The decoded answer. Raises RpcUnavailable."""
        body = msgspec.json.encode(request)
        backoff_s = BACKOFF_FIRST_S
        until_s = time.monotonic() + self.timeout_s
        with self._lock:
            self.requests += 1
            for attempt in range(1, self.attempts + 1):
                fresh = self._connection is None or not self._connection.is_open
                try:
                    return msgspec.json.decode(self._exchange(body))
                except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                    self.close()
                    if not fresh and attempt == 1:
                        continue  # the node has closed an idle connection: no reason to wait
                    if attempt == self.attempts or time.monotonic() + backoff_s >= until_s:
                        failure = self._unavailable(f"{type(error).__name__}: {error}")
                        failure.too_large = _is_too_large(error)
                        raise failure from None  # its traceback may hold the URL
                self.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
        raise self._unavailable("no attempt left")

    def _exchange(self, body: bytes) -> bytes:
        if self._connection is None:
            self._connection = HttpConnection(self.url)
        status, answer = self._connection.request(
            "POST", body, {"Content-Type": "application/json"}, self.timeout_s
        )
        # geth and hardhat answer JSON-RPC errors with 400 at times; what is no JSON fails in the decoder
        if status in (401, 403, 404, 407, 413, 429) or status >= 500:
            raise HttpStatus(status)
        return answer


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, AnswerTooLarge) or (isinstance(error, HttpStatus) and error.status == 413)
