"""What became of a record that may have been applied, and is refused for its nonce when it is sent again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from sequencer.api.failures import unknown
from sequencer.queue.outcomes import key_of

Answer: TypeAlias = Callable[[bool, bytes], None]


class _Outcome(msgspec.Struct):
    status: str
    seq: int = 0
    record: str = ""
    ack: msgspec.Raw = msgspec.Raw(b"null")


_decode: Final = msgspec.json.Decoder(_Outcome).decode


def find_outcome(
    raw: bytes, refusal: bytes, ask: Callable[[str, dict[str, Any], Answer], None], answer: Answer
) -> None:
    """Answers record `raw` by the leader's `outcome`: with its acknowledgement if it was applied, with `refusal` if
    another record has its nonce, and as unknown where nobody knows (what is applied, and its number, if that is known).
    """
    key = key_of(raw)
    if key is None:
        answer(False, refusal)
        return

    def told(ok: bool, body: bytes) -> None:
        try:
            found = _decode(body) if ok else _Outcome("")
        except msgspec.DecodeError:
            found = _Outcome("")
        if found.status == "applied" and found.record == "0x" + raw.hex():
            ack = bytes(found.ack)
            if ack != b"null":
                answer(True, ack)
            else:
                why = f"the sequencer was lost; it was applied as record {found.seq}"
                answer(False, unknown(why, status="applied", seq=found.seq).body())
        elif found.status in ("applied", "unused"):  # by another record, or far ahead of the account's nonces
            answer(False, refusal)
        else:
            answer(False, unknown("the connection to the sequencer was lost").body())

    ask("outcome", {"account": int.from_bytes(key[:4], "big"), "nonce": int.from_bytes(key[4:], "big")}, told)
