"""What a gateway learns of the exchange from the sequencer, to read records and names."""

from dataclasses import dataclass
from typing import Final

import msgspec

from sequencer.protocol.codec import domain_separator


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a gateway must know of the exchange to read its records."""

    chain_id: int
    verifying_contract: str

    def domain(self) -> bytes:
        """EIP-712 domain separator."""
        return domain_separator(self.chain_id, bytes.fromhex(self.verifying_contract[2:]))


class _SystemInfo(msgspec.Struct):
    chain_id: int
    verifying_contract: str
    receipt_key: str | None = None


class Listed(msgspec.Struct):
    """A listed instrument, as far as a gateway has to know it."""

    instrument: str
    number: int


decode_system_info: Final = msgspec.json.Decoder(_SystemInfo).decode
decode_instruments: Final = msgspec.json.Decoder(list[Listed]).decode
