"""ABI coding by eth_abi from a contract's ABI, with the selectors and types looked up once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi import abi as eth_abi_coder
from eth_abi.exceptions import DecodingError
from tiny_keccak import keccak256

from sequencer.l1.errors import Undecodable
from sequencer.l1.rpc import Rpc, to_bytes, to_hex


def type_of(entry: dict[str, Any]) -> str:
    """Canonical type of an ABI input or output; tuples are expanded."""
    kind = str(entry["type"])
    if kind.startswith("tuple"):
        return "(" + ",".join(type_of(part) for part in entry["components"]) + ")" + kind[len("tuple") :]
    return kind


def types_of(entries: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(type_of(entry) for entry in entries)


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def encode(self, *arguments: Any) -> bytes:
        return self.selector + bytes(eth_abi_coder.encode(self.inputs, arguments))

    def decode_input(self, data: bytes) -> tuple[Any, ...]:
        return tuple(eth_abi_coder.decode(self.inputs, data[4:]))

    def decode_output(self, data: bytes) -> Any:
        """The value, or a tuple when there are several. Raises Undecodable."""
        try:
            values = tuple(eth_abi_coder.decode(self.outputs, data))
        except (DecodingError, ValueError, TypeError) as error:
            raise Undecodable(f"the result of {self.name}", str(error)) from error
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    topic: str
    names: tuple[str, ...]
    indexed: tuple[bool, ...]
    types: tuple[str, ...]

    def decode(self, log: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a log by name; indexed ones of dynamic type are their hashes. Raises Undecodable."""
        try:
            return self._decoded(log)
        except (DecodingError, LookupError, StopIteration, TypeError, ValueError) as error:
            where = f"{self.name} in block {log.get('blockNumber')}" if isinstance(log, dict) else self.name
            raise Undecodable(f"an event {where}", f"{type(error).__name__}: {error}") from error

    def _decoded(self, log: dict[str, Any]) -> dict[str, Any]:
        topics = iter(log["topics"][1:])
        plain = [kind for kind, indexed in zip(self.types, self.indexed, strict=True) if not indexed]
        values = iter(eth_abi_coder.decode(plain, to_bytes(log["data"])))
        decoded = {}
        for name, kind, indexed in zip(self.names, self.types, self.indexed, strict=True):
            decoded[name] = (
                eth_abi_coder.decode([kind], to_bytes(next(topics)))[0] if indexed else next(values)
            )
        return decoded


class Contract:
    """The functions and events of an ABI."""

    __slots__ = ("_constructor", "_events", "_functions")

    def __init__(self, abi: Sequence[dict[str, Any]]) -> None:
        self._functions: dict[str, Function] = {}
        self._events: dict[str, Event] = {}
        self._constructor: tuple[str, ...] = ()
        for entry in abi:
            inputs = types_of(entry.get("inputs", ()))
            signature = f"{entry.get('name')}({','.join(inputs)})".encode()
            if entry["type"] == "function":
                name = str(entry["name"])
                # Vyper lists a function with default arguments once for each arity: keep the longest
                if name not in self._functions or len(inputs) > len(self._functions[name].inputs):
                    outputs = types_of(entry.get("outputs", ()))
                    self._functions[name] = Function(name, keccak256(signature)[:4], inputs, outputs)
            elif entry["type"] == "event":
                self._events[entry["name"]] = Event(
                    entry["name"],
                    to_hex(keccak256(signature)),
                    tuple(argument["name"] for argument in entry["inputs"]),
                    tuple(bool(argument["indexed"]) for argument in entry["inputs"]),
                    inputs,
                )
            elif entry["type"] == "constructor":
                self._constructor = inputs

    def function(self, name: str) -> Function:
        return self._functions[name]

    def event(self, name: str) -> Event:
        return self._events[name]

    def encode(self, name: str, *arguments: Any) -> bytes:
        return self._functions[name].encode(*arguments)

    def encode_constructor(self, *arguments: Any) -> bytes:
        return bytes(eth_abi_coder.encode(self._constructor, arguments))

    def read(self, rpc: Rpc, address: str, name: str, *arguments: Any, tag: int | str = "latest") -> Any:
        """Decoded result of a view function."""
        function = self._functions[name]
        return function.decode_output(rpc.eth_call(address, function.encode(*arguments), tag))
