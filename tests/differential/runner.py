"""Runs compiled bytecode as fast as this machine can: pyrevm when it is importable, else py-evm without a chain.

One state, contracts deployed into it, calls with calldata: return data or revert, and the gas of the execution itself
(no intrinsic gas, no calldata gas). Transient storage is empty at the beginning of every call.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

try:
    import pyrevm
except ImportError:
    pyrevm = None

ROOT: Final = Path(__file__).resolve().parents[2]
SENDER: Final = b"\x01" * 20
GAS: Final = 100_000_000
_REVERT: Final = re.compile(r"gas_used: (\d+), output: 0x([0-9a-f]*)")


@dataclass(frozen=True, slots=True)
class Result:
    """What a call gave: `output` is the return data, or the revert's when `ok` is False."""

    ok: bool
    output: bytes
    gas: int

    def reason(self) -> str:
        """Words of a revert, empty when it has none."""
        if self.ok or self.output[:4] != bytes.fromhex("08c379a0"):
            return ""
        size = int.from_bytes(self.output[36:68], "big")
        return self.output[68 : 68 + size].decode()


class PyEvm:
    """py-evm's computation on a bare state."""

    name = "py-evm"

    def __init__(self) -> None:
        from eth.constants import BLANK_ROOT_HASH
        from eth.db.atomic import AtomicDB
        from eth.vm.execution_context import ExecutionContext
        from eth.vm.forks.prague import PragueVM

        context = ExecutionContext(
            coinbase=bytes(20),
            timestamp=1,
            block_number=1,
            difficulty=0,
            mix_hash=bytes(32),
            gas_limit=GAS,
            prev_hashes=(),
            chain_id=1,
            base_fee_per_gas=0,
            excess_blob_gas=0,
        )
        self._state: Any = PragueVM.get_state_class()(AtomicDB(), context, BLANK_ROOT_HASH)
        self._deployed = 0xC0DE00  # beyond the precompiles

    def deploy(self, initcode: bytes) -> bytes:
        """Address of a contract whose creation code, arguments appended, is `initcode`."""
        self._deployed += 1
        address = self._deployed.to_bytes(20, "big")
        computation = self._run(address, b"", initcode)
        assert not computation.is_error, computation.error
        self._state.set_code(address, computation.output)
        self._state.lock_changes()
        return address

    def call(self, address: bytes, data: bytes) -> Result:
        """One transaction of one call."""
        return self.calls(address, (data,))[0]

    def calls(self, address: bytes, datas: tuple[bytes, ...]) -> list[Result]:
        """One transaction of some calls, which share transient storage; nothing it does stays."""
        results = []
        code = self._state.get_code(address)
        for data in datas:
            computation = self._run(address, data, code)
            gas = computation.get_gas_used()
            results.append(Result(not computation.is_error, bytes(computation.output), gas))
        self._state.clear_transient_storage()
        return results

    def _run(self, address: bytes, data: bytes, code: bytes) -> Any:
        from eth.vm.message import Message

        message = Message(gas=GAS, to=address, sender=SENDER, value=0, data=data, code=code)
        context = self._state.get_transaction_context_class()(gas_price=0, origin=SENDER)
        return self._state.computation_class.apply_computation(self._state, message, context)


class PyRevm:
    """revm through pyrevm."""

    name = "revm"

    def __init__(self) -> None:
        self._evm: Any = pyrevm.EVM(gas_limit=GAS, spec_id="CANCUN")
        self._sender = "0x" + SENDER.hex()

    def deploy(self, initcode: bytes) -> bytes:
        """Address of a contract whose creation code, arguments appended, is `initcode`."""
        return bytes.fromhex(str(self._evm.deploy(self._sender, initcode))[2:])

    def call(self, address: bytes, data: bytes) -> Result:
        """One transaction of one call."""
        return self.calls(address, (data,))[0]

    def calls(self, address: bytes, datas: tuple[bytes, ...]) -> list[Result]:
        """One transaction of some calls, which share transient storage; nothing it does stays."""
        results = [self._call("0x" + address.hex(), data) for data in datas]
        self._evm.reset_transient_storage()
        return results

    def _call(self, address: str, data: bytes) -> Result:
        intrinsic = 21_000 + sum(16 if byte else 4 for byte in data)
        try:
            output = bytes(self._evm.message_call(self._sender, address, calldata=data, gas=GAS, gas_price=0))
        except RuntimeError as error:  # its words are all that pyrevm tells
            words = _REVERT.search(str(error))
            if words is None:
                return Result(ok=False, output=b"", gas=GAS)
            return Result(ok=False, output=bytes.fromhex(words[2]), gas=int(words[1]) - intrinsic)
        return Result(ok=True, output=output, gas=int(self._evm.result.gas_used) - intrinsic)


def new_evm() -> PyEvm | PyRevm:
    """The fastest one there is."""
    return PyEvm() if pyrevm is None else PyRevm()


@cache
def creation_code(name: str) -> bytes:
    """Creation code of contracts/<name>.vy as it stands: the artifact's when it is of these sources, else compiled."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from compile_contracts import ARTIFACTS, CONTRACTS, SOURCES, compile_contract, source_hash

    path = ARTIFACTS / f"{name}.json"
    artifact = json.loads(path.read_text()) if path.exists() else {}
    if artifact.get("source_sha256") != source_hash(CONTRACTS / SOURCES[name]):
        artifact = compile_contract(name)
    return bytes.fromhex(artifact["bytecode"][2:])
