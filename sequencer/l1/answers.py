"""What a node's answers must look like, method by method: what is not what was asked is no answer.

`checked` is asked for each result, so that whoever reads one can rely on it: quantities are hex numbers, data is hex, a
block has the number that was asked for, a receipt is that of the transaction, a log lies in the range asked for. Shapes
are checked by msgspec. A method that is not listed here (those of development chains) is not checked.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

TAGS: Final = ("latest", "pending", "earliest", "safe", "finalized")
ALWAYS: Final = ("latest", "earliest", "0x0")  # blocks that every chain has
SHOWN_CHARS: Final = 60

Quantity = Annotated[str, Meta(pattern=r"\A0x[0-9a-fA-F]{1,64}\Z")]
Data = Annotated[str, Meta(pattern=r"\A0x(?:[0-9a-fA-F]{2})*\Z")]
Hash = Annotated[str, Meta(pattern=r"\A0x[0-9a-fA-F]{64}\Z")]
Address = Annotated[str, Meta(pattern=r"\A0x[0-9a-fA-F]{40}\Z")]
Params = Sequence[Any]


class Malformed(ValueError):
    """An answer that is not one to what was asked; the text says in what."""


class _Pending(Struct, rename="camel"):
    timestamp: Quantity
    number: Quantity | None = None
    hash: Hash | None = None
    base_fee_per_gas: Quantity | None = None


class _Block(Struct, rename="camel"):
    timestamp: Quantity
    number: Quantity
    hash: Hash
    base_fee_per_gas: Quantity | None = None


class _Log(Struct, rename="camel"):
    address: Address
    data: Data
    block_number: Quantity
    block_hash: Hash
    transaction_hash: Hash
    transaction_index: Quantity
    log_index: Quantity
    topics: Annotated[list[Hash], Meta(max_length=4)]
    removed: Any = None


class _Receipt(Struct, rename="camel"):
    transaction_hash: Hash
    block_number: Quantity
    block_hash: Hash
    status: Quantity
    gas_used: Quantity
    logs: list[_Log]
    effective_gas_price: Quantity | None = None


class _Transaction(Struct, rename="camel"):
    hash: Hash
    input: Data
    to: Address | None = None
    block_hash: Hash | None = None
    blob_versioned_hashes: list[Hash] | None = None


class _FeeHistory(Struct, rename="camel"):
    base_fee_per_gas: list[Quantity] | None = None
    base_fee_per_blob_gas: list[Quantity] | None = None
    reward: list[list[Quantity]] | None = None


def checked(method: str, params: Params, result: Any) -> Any:
    """`result`, which is as the method's must be. Raises Malformed."""
    known = _SHAPES.get(method)
    if known is not None:
        shape, compare = known
        if method == "eth_getBlockByNumber" and params and params[0] == "pending":
            shape, compare = _Pending | None, _any
        try:
            compare(params, msgspec.convert(result, shape))
        except msgspec.ValidationError as error:
            raise _fail(str(error), result) from None
    return result


def is_data(value: Any) -> bool:
    """Whether it is data in hex."""
    try:
        msgspec.convert(value, Data)
    except msgspec.ValidationError:
        return False
    return True


def _fail(what: str, value: Any) -> Malformed:
    text = repr(value)
    return Malformed(f"{what}, got {text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + '…'}")


def _is_number(asked: Any) -> bool:
    return isinstance(asked, str) and asked.startswith("0x")


def _same(what: str, asked: Any, got: str | None) -> None:
    """Raises Malformed unless it is what was asked for; not of a tag."""
    if isinstance(asked, str) and asked not in TAGS and asked.lower() != str(got).lower():
        raise _fail(f"{what} {asked[:SHOWN_CHARS]} was asked for", got)


def _block(params: Params, found: _Block | None) -> None:
    if found is None:
        if params and params[0] in ALWAYS:
            raise Malformed("every chain has this block, got None")
    elif params and _is_number(params[0]) and int(params[0], 16) != int(found.number, 16):
        raise _fail(f"block {params[0]} was asked for", found.number)


def _receipt(params: Params, found: _Receipt | None) -> None:
    if found is not None:
        _same("the receipt of", params[0], found.transaction_hash)


def _transaction(params: Params, found: _Transaction | None) -> None:
    if found is not None and found.block_hash is not None:
        _same("a transaction of block", params[0], found.block_hash)


def _logs(params: Params, found: list[_Log]) -> None:
    query = params[0]
    first, last = query.get("fromBlock"), query.get("toBlock")
    for log in found:
        if log.removed is True:
            raise Malformed("a log that is removed stands in no block of the chain")
        number = int(log.block_number, 16)
        if _is_number(first) and number < int(first, 16):
            raise Malformed(f"a log of block {number}: fromBlock was {int(first, 16)}")
        if _is_number(last) and number > int(last, 16):
            raise Malformed(f"a log of block {number}: toBlock was {int(last, 16)}")
        _same("a log of", query.get("address"), log.address)
        for place, topic in enumerate(query.get("topics") or []):
            if isinstance(topic, str) and [one.lower() for one in log.topics[place : place + 1]] != [
                topic.lower()
            ]:
                raise Malformed(f"a log without the topic that was asked for, {topic}")


def _any(_params: Params, _found: Any) -> None:
    """Its shape is all that is known of it."""


_SHAPES: Final[dict[str, tuple[Any, Callable[[Params, Any], None]]]] = {
    "eth_chainId": (Quantity, _any),
    "eth_blockNumber": (Quantity, _any),
    "eth_getTransactionCount": (Quantity, _any),
    "eth_getBalance": (Quantity, _any),
    "eth_estimateGas": (Quantity, _any),
    "eth_maxPriorityFeePerGas": (Quantity, _any),
    "eth_blobBaseFee": (Quantity, _any),
    "eth_getCode": (Data, _any),
    "eth_call": (Data, _any),
    "eth_sendRawTransaction": (Hash, _any),
    "eth_getBlockByNumber": (_Block | None, _block),
    "eth_getTransactionReceipt": (_Receipt | None, _receipt),
    "eth_getLogs": (list[_Log], _logs),
    "eth_getTransactionByBlockHashAndIndex": (_Transaction | None, _transaction),
    "eth_feeHistory": (_FeeHistory, _any),
}
