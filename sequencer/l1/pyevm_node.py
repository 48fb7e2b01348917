"""The embedded chain as a process of its own: JSON-RPC 2.0 over HTTP and WebSocket on one port of 127.0.0.1, for demos
and tests.

    python -m sequencer.l1.pyevm_node --port 8545 [--genesis-time 1641000000] [--block-time 2]

Requests are answered one after the other in one thread: the order of arrival is the order of effect.
"""

import argparse
import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable
from typing import Any, Final

import httptools
import msgspec
from tiny_keccak import keccak256

from sequencer.l1.pyevm_blocks import Call, ChainError, hexbytes, hexint, matching_logs
from sequencer.l1.pyevm_chain import GAS_LIMIT, TIP_WEI, ZERO_ADDRESS, PyEvmChain
from sequencer.l1.pyevm_json import block_json, head_json, receipt_json, transaction_json
from sequencer.l1.pyevm_socket import Describe, Hub, Peer

CLIENT_VERSION: Final = "fairstrike-pyevm/1.0"
FEE_HISTORY_MAX: Final = 1024
UPGRADE_BYTES_MAX: Final = 16 * 1024  # of a request that opens a WebSocket


def _bytes(text: str | None) -> bytes:
    if not text:
        return b""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise ChainError(f"invalid hex: {error}", -32602) from error


def _int(value: str | int) -> int:
    return value if isinstance(value, int) else int(value, 16)


class Methods:
    """The JSON-RPC methods, each `eth_x` as an attribute of this name."""

    def __init__(self, chain: PyEvmChain) -> None:
        self.chain = chain

    def dispatch(self, method: str, params: list[Any]) -> Any:
        handler: Callable[..., Any] | None = (
            getattr(self, method, None) if method[:4] in _NAMESPACES else None
        )
        if handler is None:
            raise ChainError(f"the method {method} does not exist", -32601)
        try:
            return handler(*params)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise ChainError(f"invalid params for {method}: {error}", -32602) from error

    def _number(self, tag: Any) -> int:
        """Block number of a tag, number or {blockHash}/{blockNumber}; raises when the chain has no such block."""
        head = self.chain.head_number
        if isinstance(tag, dict):
            if "blockHash" in tag:
                found = self.chain.number_of.get(_bytes(tag["blockHash"]))
                if found is None:
                    raise ChainError("header not found")
                return found
            tag = tag["blockNumber"]
        if tag in (None, "latest", "pending", "safe", "finalized"):
            return head
        number = 0 if tag == "earliest" else _int(tag)
        if number > head:
            raise ChainError("header not found")
        return number

    def _number_or_later(self, tag: Any) -> int:
        """`_number` for a range: a number may lie beyond the head."""
        is_number = isinstance(tag, int) or (isinstance(tag, str) and tag.startswith("0x"))
        return _int(tag) if is_number else self._number(tag)

    def _call(self, fields: dict[str, Any]) -> Call:
        data = fields.get("input") or fields.get("data")
        return Call(
            sender=_bytes(fields["from"]) if fields.get("from") else ZERO_ADDRESS,
            to=_bytes(fields.get("to")),
            value=_int(fields.get("value") or 0),
            data=_bytes(data),
            gas=min(_int(fields.get("gas") or GAS_LIMIT), GAS_LIMIT),
        )

    # --- chain --------------------------------------------------------------------------------

    def eth_chainId(self) -> str:
        return hexint(self.chain.chain_id)

    def net_version(self) -> str:
        return str(self.chain.chain_id)

    def web3_clientVersion(self) -> str:
        return CLIENT_VERSION

    def web3_sha3(self, data: str) -> str:
        return hexbytes(keccak256(_bytes(data)))

    def eth_syncing(self) -> bool:
        return False

    def eth_accounts(self) -> list[str]:
        return [hexbytes(address) for address in self.chain.addresses]

    def eth_blockNumber(self) -> str:
        return hexint(self.chain.head_number)

    def eth_getBlockByNumber(self, tag: str, full: bool = False) -> dict[str, Any] | None:
        try:
            found = block_json(self.chain.blocks[self._number(tag)], full)
        except ChainError:
            return None
        if tag == "pending":  # of it, what can be known: it is not made yet
            head = self.chain.head_number
            found |= {"number": hexint(head + 1), "hash": None, "timestamp": hexint(self.chain.next_time_s())}
        return found

    def eth_getBlockByHash(self, block_hash: str, full: bool = False) -> dict[str, Any] | None:
        number = self.chain.number_of.get(_bytes(block_hash))
        return None if number is None else block_json(self.chain.blocks[number], full)

    def eth_getLogs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        if query.get("blockHash"):
            first = last = self._number({"blockHash": query["blockHash"]})
        else:
            first = min(self._number_or_later(query.get("fromBlock")), self.chain.head_number + 1)
            last = min(self._number_or_later(query.get("toBlock")), self.chain.head_number)
        return list(matching_logs(self.chain.blocks, first, last, *_selected(query)))

    def subscription(self, params: list[Any]) -> Describe:
        """What eth_subscribe with these parameters is told of a block. Raises ChainError."""
        kind = params[0] if params else None
        if kind == "newHeads":
            return lambda block: [head_json(block)]
        if kind != "logs":
            raise ChainError(f"subscription {kind!r:.40}: newHeads and logs are served", -32602)
        query = params[1] if len(params) > 1 else {}
        try:
            selected = _selected(query)
        except (AttributeError, TypeError) as error:
            raise ChainError(f"invalid params for eth_subscribe: {error}", -32602) from error
        return lambda block: list(matching_logs([block], 0, 0, *selected))

    # --- accounts and calls -------------------------------------------------------------------

    def eth_getBalance(self, address: str, tag: Any = "latest") -> str:
        return hexint(self.chain.state_at(self._number(tag)).get_balance(_bytes(address)))

    def eth_getCode(self, address: str, tag: Any = "latest") -> str:
        return hexbytes(self.chain.state_at(self._number(tag)).get_code(_bytes(address)))

    def eth_getStorageAt(self, address: str, slot: str, tag: Any = "latest") -> str:
        value = self.chain.state_at(self._number(tag)).get_storage(_bytes(address), _int(slot))
        return "0x" + int(value).to_bytes(32, "big").hex()

    def eth_getTransactionCount(self, address: str, tag: Any = "latest") -> str:
        if tag == "pending":
            return hexint(self.chain.pending_nonce(_bytes(address)))
        return hexint(self.chain.nonce(_bytes(address), self._number(tag)))

    def eth_call(self, fields: dict[str, Any], tag: Any = "latest", *_overrides: Any) -> str:
        output, _ = self.chain.call(self._call(fields), self._number(tag))
        return hexbytes(output)

    def eth_estimateGas(self, fields: dict[str, Any], tag: Any = "latest", *_overrides: Any) -> str:
        return hexint(self.chain.estimate(self._call(fields), self._number(tag)))

    def eth_gasPrice(self) -> str:
        return hexint(self.chain.base_fee_next() + TIP_WEI)

    def eth_maxPriorityFeePerGas(self) -> str:
        return hexint(TIP_WEI)

    def eth_feeHistory(
        self, count: str, newest: Any, percentiles: list[float] | None = None
    ) -> dict[str, Any]:
        last = self._number(newest)
        first = max(0, last + 1 - min(_int(count), FEE_HISTORY_MAX))
        headers = [self.chain.blocks[number].header for number in range(first, last + 1)]
        after = (
            self.chain.base_fee_next()
            if last == self.chain.head_number
            else self.chain.blocks[last + 1].header.base_fee_per_gas
        )
        return {
            "oldestBlock": hexint(first),
            "baseFeePerGas": [hexint(h.base_fee_per_gas) for h in headers] + [hexint(after)],
            "gasUsedRatio": [h.gas_used / h.gas_limit for h in headers],
            "reward": [[hexint(TIP_WEI) for _ in percentiles or []] for _ in headers],
        }

    # --- transactions -------------------------------------------------------------------------

    def eth_sendRawTransaction(self, raw: str) -> str:
        return hexbytes(self.chain.send(_bytes(raw)))

    def eth_getTransactionByHash(self, tx_hash: str) -> dict[str, Any] | None:
        key = _bytes(tx_hash)
        place = self.chain.where.get(key)
        if place:
            block = self.chain.blocks[place[0]]
            return transaction_json(block.mined[place[1]], block)
        for pooled in self.chain.pool.values():
            if pooled.hash == key:
                return transaction_json(pooled, None)
        return None

    def eth_getTransactionByBlockHashAndIndex(self, block_hash: str, index: str) -> dict[str, Any] | None:
        number = self.chain.number_of.get(_bytes(block_hash))
        if number is None or _int(index) >= len(self.chain.blocks[number].mined):
            return None
        block = self.chain.blocks[number]
        return transaction_json(block.mined[_int(index)], block)

    def eth_getTransactionReceipt(self, tx_hash: str) -> dict[str, Any] | None:
        place = self.chain.where.get(_bytes(tx_hash))
        if place is None:
            return None
        block = self.chain.blocks[place[0]]
        return receipt_json(block.mined[place[1]], block)

    def eth_getBlockReceipts(self, tag: Any) -> list[dict[str, Any]]:
        block = self.chain.blocks[self._number(tag)]
        return [receipt_json(item, block) for item in block.mined]

    # --- development --------------------------------------------------------------------------

    def evm_mine(self, *options: Any) -> str:
        if options and options[0] is not None:
            time_s = options[0].get("timestamp") if isinstance(options[0], dict) else options[0]
            if time_s is not None:
                self.chain.set_next_time(_int(time_s))
        self.chain.mine()
        return "0x0"

    def evm_setNextBlockTimestamp(self, time_s: str | int) -> str:
        self.chain.set_next_time(_int(time_s))
        return hexint(_int(time_s))

    def evm_increaseTime(self, seconds: str | int) -> str:
        return hexint(self.chain.increase_time(_int(seconds)))

    def evm_setAutomine(self, on: bool) -> bool:
        self.chain.automine = on
        return True

    def evm_snapshot(self) -> str:
        return hexint(self.chain.snapshot())

    def evm_revert(self, snapshot_id: str | int) -> bool:
        return self.chain.revert(_int(snapshot_id))

    def evm_dropTransaction(self, tx_hash: str) -> bool:
        return self.chain.drop(_bytes(tx_hash))


_NAMESPACES: Final = frozenset({"eth_", "evm_", "net_", "web3"})


def _selected(query: dict[str, Any]) -> tuple[frozenset[str] | None, list[frozenset[str] | None]]:
    """Addresses, None for all, and topics of a filter."""
    address = query.get("address")
    addresses = None
    if address:
        addresses = frozenset(a.lower() for a in ([address] if isinstance(address, str) else address))
    topics = [
        None
        if topic is None
        else frozenset([topic.lower()] if isinstance(topic, str) else [t.lower() for t in topic])
        for topic in query.get("topics") or []
    ]
    return addresses, topics


class HttpProtocol(asyncio.Protocol):
    """Just enough HTTP/1.1 for JSON-RPC: POST with a length, keep-alive; or a WebSocket from the first request on."""

    def __init__(self, methods: Methods, hub: Hub) -> None:
        self._methods = methods
        self._hub = hub
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._first: bytes | None = b""  # the first request as it came, while it comes
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self._peer is not None:
            self._peer.end()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._peer is not None:
            self._peer.receive(data)
            return
        if self._first is not None:
            self._first = self._first + data if len(self._first) < UPGRADE_BYTES_MAX else None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._first is None:
                self._transport.close()
            else:
                self._peer = Peer(self._transport, self._hub, self._answer_peer, self._first)
        except httptools.HttpParserError:
            self._transport.close()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self._first = None
        body = b"".join(self._body)
        self._body.clear()
        answer = self._answer(body)
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
            + answer
        )
        if not self._parser.should_keep_alive():
            self._transport.close()

    def _answer_peer(self, peer: Peer, body: bytes) -> bytes:
        return self._answer(body, peer)

    def _answer(self, body: bytes, peer: Peer | None = None) -> bytes:
        try:
            request = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return msgspec.json.encode(_error(None, -32700, "parse error"))
        if isinstance(request, list):
            return msgspec.json.encode([self._one(item, peer) for item in request])
        return msgspec.json.encode(self._one(request, peer))

    def _one(self, request: Any, peer: Peer | None) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, -32600, "invalid request")
        request_id, method, params = request.get("id"), request["method"], request.get("params") or []
        try:
            if method == "eth_subscribe" and peer is not None:
                result: Any = self._hub.subscribe(peer, params)
            elif method == "eth_unsubscribe" and peer is not None:
                result = self._hub.unsubscribe(peer, params)
            else:
                result = self._methods.dispatch(method, params)
        except ChainError as error:
            return _error(request_id, error.code, str(error), error.data)
        except Exception as error:  # noqa: BLE001 - one bad request must not take the answers from the others
            return _error(request_id, -32603, f"internal error: {error!r}")
        return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _error(request_id: Any, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


async def serve(port: int, genesis_time_s: int | None, block_time_s: float | None) -> None:
    chain = PyEvmChain(genesis_time_s=genesis_time_s, automine=block_time_s is None)
    methods = Methods(chain)
    hub = Hub(methods.subscription)
    chain.on_block = hub.on_block
    gc.collect()
    gc.freeze()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(methods, hub), "127.0.0.1", port
    )
    async with server:
        sys.stdout.write(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        while block_time_s is not None:
            await asyncio.sleep(block_time_s)
            chain.mine()
        await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description="Embedded development chain (py-evm, Prague)")
    parser.add_argument("--port", type=int, default=8545)
    parser.add_argument(
        "--genesis-time", type=int, default=None, help="seconds since 1970; now when left out"
    )
    parser.add_argument("--block-time", type=float, default=None, help="seconds; mines at once when left out")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.genesis_time, options.block_time))
    return 0


if __name__ == "__main__":
    sys.exit(main())
