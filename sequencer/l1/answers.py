"""What a node's answers must look like, method by method: what is not what was asked is no answer.

`checked` is asked by `Rpc` for each result, so that whoever reads one can rely on it: quantities are hex numbers, data
is hex, a block has the number that was asked for, a receipt is that of the transaction, a log lies in the range asked
for. A method that is not listed here (those of development chains) is not checked.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}")
ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
TAGS: Final = ("latest", "pending", "earliest", "safe", "finalized")
SHOWN_CHARS: Final = 60

Params = Sequence[Any]


class Malformed(ValueError):
    """An answer that is not one to what was asked; the text says in what."""


def checked(method: str, params: Params, result: Any) -> Any:
    """`result`, which is as the method's must be. Raises Malformed."""
    check = _CHECKS.get(method)
    if check is not None:
        check(params, result)
    return result


def _fail(what: str, value: Any) -> Malformed:
    text = repr(value)
    return Malformed(f"{what}, got {text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + '…'}")


def _matches(pattern: re.Pattern[str], what: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise _fail(f"{what} expected", value)

    return check


_quantity = _matches(QUANTITY, "a number in hex")
_data = _matches(DATA, "data in hex")
_hash = _matches(HASH, "a hash of 32 bytes")
_address = _matches(ADDRESS, "an address")


def _fields(value: Any, what: str, needed: dict[str, Callable[[Any], None]]) -> None:
    if not isinstance(value, dict):
        raise _fail(f"{what} expected", value)
    for name, check in needed.items():
        try:
            check(value.get(name))
        except Malformed as error:
            raise Malformed(f"{what}: {name}: {error}") from None


def _optional(check: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda value: None if value is None else check(value)


def _same(what: str, asked: Any, got: Any) -> None:
    if isinstance(asked, str) and asked not in TAGS and asked.lower() != str(got).lower():
        raise _fail(f"{what} {asked[:SHOWN_CHARS]} was asked for", got)


def _same_number(what: str, asked: Any, got: str) -> None:
    if isinstance(asked, str) and QUANTITY.fullmatch(asked) and int(asked, 16) != int(got, 16):
        raise _fail(f"{what} {asked} was asked for", got)


def _block(params: Params, result: Any) -> None:
    if result is None:
        if params and params[0] in ("latest", "earliest", "0x0"):
            raise Malformed("every chain has this block, got None")
        return
    pending = bool(params) and params[0] == "pending"
    named = _optional(_hash) if pending else _hash
    _fields(
        result,
        "a block",
        {
            "number": _optional(_quantity) if pending else _quantity,
            "hash": named,
            "timestamp": _quantity,
            "baseFeePerGas": _optional(_quantity),
        },
    )
    if params and not pending:
        _same_number("block", params[0], result["number"])


def _receipt(params: Params, result: Any) -> None:
    if result is None:
        return
    _fields(
        result,
        "a receipt",
        {
            "transactionHash": _hash,
            "blockNumber": _quantity,
            "blockHash": _hash,
            "status": _quantity,
            "gasUsed": _quantity,
            "effectiveGasPrice": _optional(_quantity),
        },
    )
    _same("the receipt of", params[0], result["transactionHash"])
    _each_log(result.get("logs"))


_LOG: Final[dict[str, Callable[[Any], None]]] = {
    "address": _address,
    "data": _data,
    "blockNumber": _quantity,
    "blockHash": _hash,
    "transactionHash": _hash,
    "transactionIndex": _quantity,
    "logIndex": _quantity,
}


def _each_log(logs: Any) -> None:
    if not isinstance(logs, list):
        raise _fail("a list of logs expected", logs)
    for log in logs:
        _fields(log, "a log", _LOG)
        topics = log.get("topics")
        if not isinstance(topics, list) or len(topics) > 4:
            raise _fail("a log: topics: a list of up to 4 expected", topics)
        for topic in topics:
            _hash(topic)


def _logs(params: Params, result: Any) -> None:
    _each_log(result)
    query = params[0]
    wanted = query.get("topics") or []
    for log in result:
        if log.get("removed") is True:
            raise Malformed("a log that is removed stands in no block of the chain")
        number = int(log["blockNumber"], 16)
        for name, is_outside in (("fromBlock", int.__lt__), ("toBlock", int.__gt__)):
            bound = query.get(name)
            if isinstance(bound, str) and QUANTITY.fullmatch(bound) and is_outside(number, int(bound, 16)):
                raise Malformed(f"a log of block {number}: {name} was {int(bound, 16)}")
        if isinstance(query.get("address"), str):
            _same("a log of", query["address"], log["address"])
        for place, topic in enumerate(wanted):
            if isinstance(topic, str) and (
                place >= len(log["topics"]) or log["topics"][place].lower() != topic.lower()
            ):
                raise Malformed(f"a log without the topic that was asked for, {topic}")


def _transaction(params: Params, result: Any) -> None:
    if result is None:
        return
    hashes = result.get("blobVersionedHashes") if isinstance(result, dict) else None
    _fields(result, "a transaction", {"hash": _hash, "input": _data, "to": _optional(_address)})
    if hashes is not None:
        if not isinstance(hashes, list):
            raise _fail("a transaction: blobVersionedHashes: a list expected", hashes)
        for one in hashes:
            _hash(one)
    if result.get("blockHash") is not None:
        _hash(result["blockHash"])
        _same("a transaction of block", params[0], result["blockHash"])


def _fee_history(_params: Params, result: Any) -> None:
    _fields(result, "a fee history", {})
    for name in ("baseFeePerGas", "baseFeePerBlobGas"):
        found = result.get(name)
        if found is None:
            continue
        if not isinstance(found, list):
            raise _fail(f"a fee history: {name}: a list expected", found)
        for one in found:
            _quantity(one)
    rewards = result.get("reward")
    if rewards is not None and not isinstance(rewards, list):
        raise _fail("a fee history: reward: a list expected", rewards)
    for row in rewards or ():
        if not isinstance(row, list):
            raise _fail("a fee history: reward: lists expected", row)
        for one in row:
            _quantity(one)


def _only(check: Callable[[Any], None]) -> Callable[[Params, Any], None]:
    return lambda _params, result: check(result)


_CHECKS: Final[dict[str, Callable[[Params, Any], None]]] = {
    "eth_chainId": _only(_quantity),
    "eth_blockNumber": _only(_quantity),
    "eth_getTransactionCount": _only(_quantity),
    "eth_getBalance": _only(_quantity),
    "eth_estimateGas": _only(_quantity),
    "eth_maxPriorityFeePerGas": _only(_quantity),
    "eth_blobBaseFee": _only(_quantity),
    "eth_getCode": _only(_data),
    "eth_call": _only(_data),
    "eth_sendRawTransaction": _only(_hash),
    "eth_getBlockByNumber": _block,
    "eth_getTransactionReceipt": _receipt,
    "eth_getLogs": _logs,
    "eth_getTransactionByBlockHashAndIndex": _transaction,
    "eth_feeHistory": _fee_history,
}
