"""A JSON-RPC proxy that misbehaves, in front of a real node: `proxy.fault = silence`, and `proxy.fault = None` again.

A fault gets the request, a way to ask the node, and the socket: so it can answer anything, late, in part, or nothing.
`MALFORMED` are answers with HTTP 200 that are none to what was asked, by name.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Json = Any
HEX = "0123456789abcdef"


@dataclass
class Exchange:
    """One request at the proxy. `ask` gives the node's answer; `send` and `raw` answer the client."""

    request: Json
    body: bytes
    path: str
    target: str
    sock: socket.socket
    is_over: threading.Event  # the proxy ends

    def ask(self, request: Json = None) -> Json:
        """The node's own answer, to this request or to another."""
        parts = urlsplit(self.target)
        line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            body = self.body if request is None else json.dumps(request).encode()
            line.request("POST", "/", body, {"Content-Type": "application/json"})
            return json.loads(line.getresponse().read())
        finally:
            line.close()

    def send(self, answer: Json, status: str = "200 OK") -> None:
        self.raw(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), status)

    def raw(self, body: bytes, status: str = "200 OK", length: int | None = None) -> None:
        """Head and body; `length` as the head says it."""
        said = len(body) if length is None else length
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {said}\r\n\r\n"
        self.sock.sendall(head.encode() + body)

    def hang_up(self) -> None:
        """Nothing more on this connection."""
        self.sock.shutdown(socket.SHUT_RDWR)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The request's calls, one if it is no batch."""
        return self.request if isinstance(self.request, list) else [self.request]


Fault = Callable[[Exchange], None]


@dataclass
class FaultyL1:
    """Listens on `url`; passes everything on unless there is a `fault`."""

    target: str
    fault: Fault | None = None
    asked: list[str] = field(default_factory=list)  # methods, in order
    paths: list[str] = field(default_factory=list)
    url: str = ""
    _over: threading.Event = field(default_factory=threading.Event)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def start(self) -> None:
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, sock.makefile("rb") as reader:
            try:
                while (line := reader.readline()) and not self._over.is_set():
                    length = 0
                    while (head := reader.readline().strip()) != b"":
                        if head.lower().startswith(b"content-length:"):
                            length = int(head.split(b":")[1])
                    body = reader.read(length)
                    path = line.split()[1].decode()
                    one = Exchange(json.loads(body), body, path, self.target, sock, self._over)
                    self.paths.append(path)
                    self.asked += [str(call.get("method")) for call in one.calls]
                    fault = self.fault
                    if fault is None:
                        one.send(one.ask())
                    else:
                        fault(one)
            except (OSError, http.client.HTTPException, ValueError):
                return


@contextmanager
def faulty(target: str) -> Iterator[FaultyL1]:
    """A proxy in front of `target`, until the end of the block."""
    proxy = FaultyL1(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


# --- lines --------------------------------------------------------------------------------------------


def silence(one: Exchange) -> None:
    """Swallows bytes: neither an answer nor an end. What was swallowed stays so when the fault is over."""
    one.is_over.wait()


def lost_answer(one: Exchange) -> None:
    """The node does it, and nobody hears of it."""
    one.ask()
    one.hang_up()


def late(delay_s: float) -> Fault:
    """Answers that come, but late."""

    def fault(one: Exchange) -> None:
        one.is_over.wait(delay_s)
        one.send(one.ask())

    return fault


def drip(one: Exchange) -> None:
    """A body that comes a byte at a time, so that no read ever waits for long."""
    body = json.dumps(one.ask()).encode()
    one.sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 10_000}\r\n\r\n".encode())
    for at in range(10_000):
        one.sock.sendall(body[at % len(body) :][:1])
        if one.is_over.wait(0.2):
            return


def truncated(one: Exchange) -> None:
    """Half of a body, and then the end."""
    body = json.dumps(one.ask()).encode()
    one.raw(body[: len(body) // 2], length=len(body))
    one.hang_up()


def status(code: str, body: bytes = b"") -> Fault:
    """An HTTP status, whatever was asked."""
    return lambda one: one.raw(body, code)


# --- words and limits ---------------------------------------------------------------------------------


def changed(*methods: str) -> Callable[[Callable[[dict[str, Any], Json], Json]], Fault]:
    """A fault of some methods alone: the function gets call and honest answer, and gives another answer."""

    def decorate(change: Callable[[dict[str, Any], Json], Json]) -> Fault:
        def fault(one: Exchange) -> None:
            answer = one.ask()
            listed = answer if isinstance(answer, list) else [answer]
            by_id = {call.get("id"): call for call in one.calls}
            made = [
                change(by_id[part["id"]], part) if by_id[part["id"]]["method"] in methods else part
                for part in listed
            ]
            one.send(made if isinstance(answer, list) else made[0])

        return fault

    return decorate


def error(call: dict[str, Any], message: str, code: int = -32000, data: Json = None) -> Json:
    """A JSON-RPC error."""
    said = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return {"jsonrpc": "2.0", "id": call.get("id"), "error": said}


def refuses(message: str, code: int = -32000, takes: bool = False) -> Fault:
    """Raw transactions are refused in some client's words; `takes`: the node has them all the same."""

    def fault(one: Exchange) -> None:
        call = one.calls[0]
        if call["method"] != "eth_sendRawTransaction":
            one.send(one.ask())
            return
        if takes:
            one.ask()
        one.send(error(call, message, code))

    return fault


def logs_limit(blocks: int, message: str = "", code: int = -32005) -> Fault:
    """No more blocks for one eth_getLogs."""

    def is_too_much(call: dict[str, Any]) -> bool:
        if call["method"] != "eth_getLogs":
            return False
        query = call["params"][0]
        return int(query["toBlock"], 16) - int(query["fromBlock"], 16) + 1 > blocks

    def fault(one: Exchange) -> None:
        words = message or f"query exceeds max block range {blocks}"
        if isinstance(one.request, list):
            answers = one.ask()
            by_id = {call["id"]: call for call in one.calls}
            one.send(
                [error(by_id[a["id"]], words, code) if is_too_much(by_id[a["id"]]) else a for a in answers]
            )
        else:
            one.send(error(one.request, words, code) if is_too_much(one.request) else one.ask())

    return fault


def batch_limit(calls: int, message: str = "batch size exceeds the limit", code: int = -32005) -> Fault:
    """One error in place of a batch that is too large."""

    def fault(one: Exchange) -> None:
        if isinstance(one.request, list) and len(one.request) > calls:
            one.send({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}})
        else:
            one.send(one.ask())

    return fault


def size_limit(size_bytes: int) -> Fault:
    """HTTP 413 in place of an answer that is too large."""

    def fault(one: Exchange) -> None:
        body = json.dumps(one.ask()).encode()
        one.raw(*((body,) if len(body) <= size_bytes else (b"", "413 Payload Too Large")))

    return fault


# --- state --------------------------------------------------------------------------------------------


def balance(wei: int) -> Fault:
    """The key has this, and a transaction that may cost more is refused, as geth does."""

    def fault(one: Exchange) -> None:
        if any(call["method"] == "eth_sendRawTransaction" for call in one.calls):
            one.send(error(one.calls[0], f"insufficient funds for gas * price + value: balance {wei}"))
            return
        changed("eth_getBalance")(lambda _call, answer: answer | {"result": hex(wei)})(one)

    return fault


def fees(tip_wei: int | None = None, base_wei: int | None = None) -> Fault:
    """What the node suggests as a tip, and the base fee of its newest block."""

    def change(call: dict[str, Any], answer: Json) -> Json:
        if call["method"] == "eth_maxPriorityFeePerGas":
            return answer if tip_wei is None else answer | {"result": hex(tip_wei)}
        if base_wei is None or not answer.get("result"):
            return answer
        return answer | {"result": answer["result"] | {"baseFeePerGas": hex(base_wei)}}

    return changed("eth_maxPriorityFeePerGas", "eth_getBlockByNumber")(change)


def block_times(shift_s: int) -> Fault:
    """Every block is that much later than it is."""

    def change(_call: dict[str, Any], answer: Json) -> Json:
        if not answer.get("result"):
            return answer
        block = answer["result"]
        return answer | {"result": block | {"timestamp": hex(int(block["timestamp"], 16) + shift_s)}}

    return changed("eth_getBlockByNumber")(change)


# --- answers with HTTP 200 that are none ------------------------------------------------------------------


def _each(change: Callable[[Json], Json]) -> Fault:
    """Every answer, those in a batch one by one."""

    def fault(one: Exchange) -> None:
        answer = one.ask()
        one.send([change(part) for part in answer] if isinstance(answer, list) else change(answer))

    return fault


def _instead(answer: Json) -> Fault:
    return lambda one: one.send(answer)


def _result(value: Json) -> Fault:
    return _each(lambda answer: {"jsonrpc": "2.0", "id": answer["id"], "result": value})


def _blocks(**fields: Json) -> Fault:
    def change(_call: dict[str, Any], answer: Json) -> Json:
        block = answer.get("result")
        if not isinstance(block, dict):
            return answer
        kept = {name: value for name, value in (block | fields).items() if value != "absent"}
        return answer | {"result": kept}

    return changed("eth_getBlockByNumber")(change)


def _of(method: str, value: Json) -> Fault:
    return changed(method)(lambda _call, answer: answer | {"result": value})


LOG = {
    "address": "0x" + "11" * 20,
    "topics": ["0x" + "22" * 32],
    "data": "0x",
    "blockNumber": "0x1",
    "blockHash": "0x" + "33" * 32,
    "transactionHash": "0x" + "44" * 32,
    "transactionIndex": "0x0",
    "logIndex": "0x0",
}

MALFORMED: dict[str, Fault] = {
    "error that is a string": _instead({"error": "rate limited"}),
    "error that is a string, with an id": _each(
        lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": "rate limited"}
    ),
    "error that is a number": _each(lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": 429}),
    "error that is true": _each(lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": True}),
    "error that is a list": _each(lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": ["no"]}),
    "error without a message": _each(lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": {"code": -1}}),
    "error whose message is null": _each(
        lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": {"code": None, "message": None}}
    ),
    "error whose code is a word": _each(
        lambda a: {"jsonrpc": "2.0", "id": a["id"], "error": {"code": "busy", "message": "rate limit"}}
    ),
    "error with data that is no hex": _each(
        lambda a: {
            "jsonrpc": "2.0",
            "id": a["id"],
            "error": {"code": -32005, "message": "reverted? too many requests", "data": "0xzz"},
        }
    ),
    "rate limit as an error": _each(
        lambda a: {
            "jsonrpc": "2.0",
            "id": a["id"],
            "error": {"code": 429, "message": "compute units per second"},
        }
    ),
    "null": _instead(None),
    "empty object": _instead({}),
    "empty list": _instead([]),
    "a number": _instead(7),
    "a string": _instead("ok"),
    "true": _instead(True),
    "list of nulls": _instead([None, None, None]),
    "list of lists": _instead([[], []]),
    "empty body": _instead(b""),
    "a page": _instead(b"<html><body>Service unavailable</body></html>"),
    "half an object": _instead(b'{"jsonrpc":"2.0","id":1,"result":"0x'),
    "two objects": _instead(b'{"jsonrpc":"2.0","id":1,"result":"0x1"}{"a":1}'),
    "bytes that are no text": _instead(b'{"result":"\xff\xfe"}'),
    "nested for ever": _instead(b"[" * 20_000),
    "a message of an API gateway": _instead({"message": "Limit Exceeded"}),
    "result null": _result(None),
    "result a number": _result(1),
    "result a list": _result([]),
    "result an object": _result({}),
    "result true": _result(True),
    "result empty": _result(""),
    "result 0x": _result("0x"),
    "result no hex": _result("0xzz"),
    "result of 10,000 digits": _result("0x" + "f" * 10_000),
    "result decimal": _result("12"),
    "result negative": _result("-0x1"),
    "neither result nor error": _each(lambda a: {"jsonrpc": "2.0", "id": a["id"]}),
    "another's id": _each(lambda a: a | {"id": 999_999_999}),
    "id as a string": _each(lambda a: a | {"id": str(a["id"])}),
    "no id": _each(lambda a: {name: value for name, value in a.items() if name != "id"}),
    "one answer for a batch": lambda one: one.send(one.ask(one.calls[0])),
    "a batch of one for one": lambda one: one.send([one.ask(one.calls[0])]),
    "blocks without a hash": _blocks(hash="absent"),
    "blocks with null hash": _blocks(hash=None),
    "blocks with a short hash": _blocks(hash="0x12"),
    "blocks without a time": _blocks(timestamp="absent"),
    "blocks with a time in decimals": _blocks(timestamp=1_700_000_000),
    "blocks of another number": _blocks(number="0x7fffffff", hash="0x" + "ab" * 32),
    "blocks that are strings": _of("eth_getBlockByNumber", "0xabc"),
    "blocks that are lists": _of("eth_getBlockByNumber", []),
    "logs that are null": _of("eth_getLogs", None),
    "logs that are an object": _of("eth_getLogs", {}),
    "logs of strings": _of("eth_getLogs", ["0x"]),
    "logs without topics": _of("eth_getLogs", [{**LOG, "topics": None}]),
    "logs of another contract": _of("eth_getLogs", [LOG]),
    "logs without data": _of("eth_getLogs", [{**LOG, "data": None}]),
    "calls that give null": _of("eth_call", None),
    "calls that give odd hex": _of("eth_call", "0x123"),
    "calls that give nothing": _of("eth_call", "0x"),
    "calls that give too little": _of("eth_call", "0x" + "00" * 31),
    "nonces that are null": _of("eth_getTransactionCount", None),
    "receipts of another transaction": changed("eth_getTransactionReceipt")(
        lambda _call, answer: answer
        if not answer.get("result")
        else answer | {"result": answer["result"] | {"transactionHash": "0x" + "55" * 32}}
    ),
    "receipts without a block": changed("eth_getTransactionReceipt")(
        lambda _call, answer: answer
        if not answer.get("result")
        else answer | {"result": answer["result"] | {"blockNumber": None}}
    ),
    "receipts that are true": changed("eth_getTransactionReceipt")(
        lambda _call, answer: answer if not answer.get("result") else answer | {"result": True}
    ),
}


def ends_within(seconds: float) -> Callable[[], bool]:
    """Whether the time is not over yet."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until
