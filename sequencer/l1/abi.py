"""Contracts of the artifacts, as web3.py's contract objects, with what a call or a log needs looked up once.

web3.py looks for the function that fits at each call, and tries each argument before it encodes it: 2.1 ms for a batch
against 0.06 (docs/DECISIONS.md). So `Function` and `Event` take name, types, selector and topic from its objects, and
its codec encodes and decodes. web3.py takes half a second to import: that is done when a contract is first used.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from sequencer.l1.errors import Undecodable
from sequencer.l1.rpc import Rpc, to_bytes

if TYPE_CHECKING:
    from web3 import Web3
    from web3.contract.contract import Contract as Web3Contract
    from web3.contract.contract import ContractEvent, ContractFunction


@cache
def offline() -> "Web3":
    """A Web3 of no node: its codec, and its contract factory."""
    from web3 import Web3
    from web3.providers import BaseProvider

    return Web3(BaseProvider())


class Function:
    """One function: web3.py's, with its selector and types at hand."""

    __slots__ = ("_codec", "inputs", "name", "outputs", "selector")

    def __init__(self, found: "ContractFunction") -> None:
        from web3.utils import function_abi_to_4byte_selector, get_abi_input_types, get_abi_output_types

        self._codec = found.w3.codec
        self.name = found.name
        self.selector = function_abi_to_4byte_selector(found.abi)
        self.inputs = get_abi_input_types(found.abi)
        self.outputs = get_abi_output_types(found.abi)

    def encode(self, *arguments: Any) -> bytes:
        """Calldata."""
        return bytes(self.selector + self._codec.encode(self.inputs, arguments))

    def decode_input(self, data: bytes) -> tuple[Any, ...]:
        """Arguments of calldata."""
        return tuple(self._codec.decode(self.inputs, data[4:]))

    def decode_output(self, data: bytes) -> Any:
        """The value, or a tuple when there are several. Raises Undecodable."""
        from eth_abi.exceptions import DecodingError

        try:
            values = tuple(self._codec.decode(self.outputs, data))
        except (DecodingError, ValueError, TypeError) as error:
            raise Undecodable(f"the result of {self.name}", str(error)) from error
        return values[0] if len(values) == 1 else values


class Event:
    """One event: web3.py's, with its topic and types at hand."""

    __slots__ = ("_codec", "_indexed", "_plain", "name", "names", "topic")

    def __init__(self, found: "ContractEvent") -> None:
        from web3.utils import collapse_if_tuple

        self._codec = found.w3.codec
        self.name = found.name
        self.topic = str(found.topic)
        inputs = [
            (entry["name"], collapse_if_tuple(entry), entry["indexed"]) for entry in found.abi["inputs"]
        ]
        self.names = tuple(name for name, _, _ in inputs)
        self._indexed = [(name, kind) for name, kind, is_indexed in inputs if is_indexed]
        self._plain = [(name, kind) for name, kind, is_indexed in inputs if not is_indexed]

    def decode(self, log: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a log by name; all indexed ones are of static types. Raises Undecodable."""
        from eth_abi.exceptions import DecodingError

        try:
            data = self._codec.decode([kind for _, kind in self._plain], to_bytes(log["data"]))
            found = {name: value for (name, _), value in zip(self._plain, data, strict=True)}
            for (name, kind), topic in zip(self._indexed, log["topics"][1:], strict=True):
                found[name] = self._codec.decode([kind], to_bytes(topic))[0]
        except (DecodingError, LookupError, TypeError, ValueError) as error:
            where = f"{self.name} in block {log.get('blockNumber')}" if isinstance(log, dict) else self.name
            raise Undecodable(f"an event {where}", f"{type(error).__name__}: {error}") from error
        return {name: found[name] for name in self.names}


class Contract:
    """The functions and events of an ABI."""

    def __init__(self, abi: Sequence[dict[str, Any]]) -> None:
        self._abi = abi
        self._functions: dict[str, Function] = {}
        self._events: dict[str, Event] = {}

    @cached_property
    def factory(self) -> "type[Web3Contract]":
        """web3.py's own."""
        return offline().eth.contract(abi=self._abi)  # JSON as it is

    def function(self, name: str) -> Function:
        """Of those with default arguments, which Vyper lists once for each number of them, the longest."""
        found = self._functions.get(name)
        if found is None:
            of_name = self.factory.find_functions_by_name(name)
            if not of_name:
                raise KeyError(name)
            found = Function(max(of_name, key=lambda one: len(one.argument_names)))
            self._functions[name] = found
        return found

    def event(self, name: str) -> Event:
        """By its name."""
        found = self._events.get(name)
        if found is None:
            found = self._events[name] = Event(self.factory.events[name]())
        return found

    def encode(self, name: str, *arguments: Any) -> bytes:
        """Calldata of a function."""
        return self.function(name).encode(*arguments)

    def encode_constructor(self, *arguments: Any) -> bytes:
        """What stands behind the creation code."""
        from web3.utils import get_abi_input_types

        entry = next((one for one in self._abi if one["type"] == "constructor"), {"type": "constructor"})
        return offline().codec.encode(get_abi_input_types(entry) if "inputs" in entry else [], arguments)  # type: ignore[arg-type]  # plain dicts

    def read(self, rpc: Rpc, address: str, name: str, *arguments: Any, tag: int | str = "latest") -> Any:
        """Decoded result of a view function."""
        function = self.function(name)
        return function.decode_output(rpc.eth_call(address, function.encode(*arguments), tag))
