"""A lean JSON-RPC client: one kept-alive connection, batches, typed errors, bounded retries.

Whatever is asked may be asked twice: a request whose answer is lost is sent again. Reads do not mind; of the
writes, a raw transaction sent twice is known already, which its sender (`txmgr`) takes for success.

What comes back is an answer to what was asked (`answers.checked`), a refusal (RpcRejected), or no answer
(RpcUnavailable): whatever it is that a proxy, a provider or a broken node has said with HTTP 200. No error's text shows
the URL's path, query or password, where providers' keys stand.

Providers limit what may be asked at once. A batch that is refused as one is asked in halves, `logs` in halves of its
range; both grow again after a while.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from sequencer.l1 import answers
from sequencer.l1.errors import RpcError, RpcRejected, RpcReverted, RpcUnavailable
from sequencer.l1.transport import AnswerTooLarge, HttpConnection, HttpStatus, without_secrets

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
BATCH_MAX: Final = 100
LOG_BLOCKS_MAX: Final = 2_000
GROWS_AFTER: Final = 16  # answers at a halved limit, before twice as much is asked for again
BLOB_FEE_OF_CALLS: Final = 10**12  # wei; nobody pays it, but a node may want it above the block's
TEXT_CHARS_MAX: Final = 300  # of a node's error that are kept
RATE_CODES: Final = (429, -32005, -32029, -32097)
# Words of providers that want fewer requests, not smaller ones.
RATE_WORDS: Final = (
    "rate limit",
    "ratelimit",
    "rate-limit",
    "too many requests",
    "per second",
    "compute units",
    "quota",
)
# Besu, geth and providers: what was asked for at once was too much; some of them with a code of RATE_CODES.
SIZE_WORDS: Final = (
    "range",
    "batch",
    "too large",
    "response size",
    "results",
    "blocks",
    "logs",
    "too many requests in",
)


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
    code = error.get("code", 0)
    code = code if isinstance(code, int) else 0
    message, data = str(error.get("message", ""))[:TEXT_CHARS_MAX], error.get("data")
    if isinstance(data, dict):  # hardhat: {"message", "data"}
        data = data.get("data")
    text = data if isinstance(data, str) and answers.DATA.fullmatch(data) else None
    if "revert" in message.lower():
        reason = ""
        raw = to_bytes(text) if text else b""
        if raw[:4] == b"\x08\xc3\x79\xa0" and len(raw) >= 68:
            reason = raw[68 : 68 + int.from_bytes(raw[36:68], "big")].decode("utf-8", "replace")
        elif "reverted with reason string '" in message:
            reason = message.split("reverted with reason string '", 1)[1].rsplit("'", 1)[0]
        return RpcReverted(method, code, message, text, reason[:TEXT_CHARS_MAX])
    return RpcRejected(method, code, message, text)


def is_rate(error: RpcRejected) -> bool:
    """Whether a refusal says nothing of what was asked, only that too much is: it is as if there were no answer."""
    text = error.message.lower()
    if any(part in text for part in SIZE_WORDS):
        return False
    return error.code in RATE_CODES or any(part in text for part in RATE_WORDS)


class _Limit:
    """How much is asked for at once: halved when it is refused, doubled after a while."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = most
        self._good = 0

    def took(self) -> None:
        """That much was answered."""
        self._good += 1
        if self.now < self._most and self._good >= GROWS_AFTER:
            self.now, self._good = min(2 * self.now, self._most), 0

    def halve(self, size: int) -> bool:
        """`size` was refused; False when it cannot be less."""
        self._good = 0
        if size <= 1:
            self.now = self._most  # it was not for the size
            return False
        self.now = max(1, min(self.now, size) // 2)
        return True


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
    _last_id: int = 0
    _batch: _Limit = field(default_factory=lambda: _Limit(BATCH_MAX))
    _log_blocks: _Limit = field(default_factory=lambda: _Limit(LOG_BLOCKS_MAX))

    def call(self, method: str, *params: Any) -> Any:
        """Result of one method; raises RpcRejected, RpcReverted or RpcUnavailable."""
        number = self._next_ids(1)
        answer = self._post({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        result = self._result(method, params, answer, number)
        if isinstance(result, RpcRejected):
            raise result
        return result

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Results in order; an error of one call stands in its place as an RpcRejected (not raised)."""
        results: list[Any] = []
        while len(results) < len(calls):
            part = calls[len(results) : len(results) + self._batch.now]
            found = self._ask_batch(part) if len(part) > 1 or self._batch.now > 1 else self._ask_each(part)
            if found is not None:
                self._batch.took()
                results += found
        return results

    def batch_strict(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """`batch` that raises the first error."""
        results = self.batch(calls)
        for result in results:
            if isinstance(result, RpcRejected):
                raise result
        return results

    def log_ranges(self, first: int, last: int) -> Iterator["LogRange"]:
        """Ranges of blocks from `first` to `last`, each as long as the node answers for: whoever asks for the logs of
        one tells it with `took` or `refused`, and gets the same blocks in smaller ranges after the latter.
        """
        while first <= last:
            one = LogRange(self._log_blocks, first, min(first + self._log_blocks.now - 1, last))
            yield one
            if one.is_taken:
                first = one.last + 1

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

    def _next_ids(self, count: int) -> int:
        """The first of `count` fresh ids: so that a late answer is not taken for another's."""
        with self._lock:
            first = self._last_id + 1
            self._last_id += count
            return first

    def _result(self, method: str, params: Sequence[Any], answer: Any, number: int) -> Any:
        """A result that is one, or the refusal as an RpcRejected (not raised). Raises RpcUnavailable."""
        if not isinstance(answer, dict):
            raise self._unavailable(f"{method}: not JSON-RPC: {answer!r:.80}")
        error, named = answer.get("error"), answer.get("id")
        if error is not None:
            if not isinstance(error, dict) or not isinstance(error.get("message"), str):
                raise self._unavailable(f"{method}: {error!r:.200}")
            refusal = checked_revert(method, error)
            refusal.message = without_secrets(refusal.message, self.url)
            if named not in (number, None) or is_rate(refusal):
                raise self._unavailable(f"{method}: {refusal.message} ({refusal.code})")
            return refusal
        if type(named) is not int or named != number:
            raise self._unavailable(f"{method}: an answer to another request: id {named!r:.40}, not {number}")
        if "result" not in answer:
            raise self._unavailable(f"{method}: neither result nor error: {answer!r:.80}")
        try:
            return answers.checked(method, params, answer["result"])
        except answers.Malformed as error:
            raise self._unavailable(f"{method}: not what was asked: {error}") from None

    def _ask_each(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        found: list[Any] = []
        for method, params in calls:
            try:
                found.append(self.call(method, *params))
            except RpcRejected as error:
                found.append(error)
        return found

    def _ask_batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any] | None:
        """Results of a batch, None when it is to be asked for again, in smaller parts. Raises RpcUnavailable."""
        first = self._next_ids(len(calls))
        request = [
            {"jsonrpc": "2.0", "id": first + i, "method": method, "params": params}
            for i, (method, params) in enumerate(calls)
        ]
        try:
            answers_ = self._post(request)
        except RpcUnavailable as error:
            if error.too_large and self._batch.halve(len(calls)):
                return None
            raise
        if not isinstance(answers_, list):  # one error for all: of whom takes no batches, or none so large
            refusal = self._result(
                "a batch", (), answers_ | {"id": None} if isinstance(answers_, dict) else answers_, 0
            )
            if self._batch.halve(len(calls)):
                return None
            raise self._unavailable(f"a batch: {refusal}")
        by_id = {one.get("id"): one for one in answers_ if isinstance(one, dict)}
        missing = {"error": {"code": -32603, "message": "no answer in the batch"}}
        results = [
            self._result(method, params, by_id.get(first + i, missing), first + i)
            for i, (method, params) in enumerate(calls)
        ]
        if len(answers_) < len(calls) and self._batch.halve(len(calls)):
            return None
        return results

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


class LogRange:
    """Blocks `first` to `last`, for one eth_getLogs."""

    def __init__(self, limit: _Limit, first: int, last: int) -> None:
        self._limit = limit
        self.first = first
        self.last = last
        self.is_taken = False

    @property
    def bounds(self) -> dict[str, str]:
        """What the query says of them."""
        return {"fromBlock": hex(self.first), "toBlock": hex(self.last)}

    def took(self) -> None:
        """The logs are there."""
        self._limit.took()
        self.is_taken = True

    def refused(self, error: RpcError) -> None:
        """Asks for half of them, where that may help; else raises `error`."""
        if isinstance(error, RpcRejected):
            may_help = error.method == "eth_getLogs"
        else:
            may_help = isinstance(error, RpcUnavailable) and error.too_large
        if not may_help or not self._limit.halve(self.last - self.first + 1):
            raise error


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, AnswerTooLarge) or (isinstance(error, HttpStatus) and error.status == 413)
