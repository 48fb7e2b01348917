"""How a receipt travels with an acknowledgement: behind its JSON, after a zero byte, which no JSON has.

In a binary frame it stays so; in a JSON document it is the member `receipt` of the result, base64.
"""

from base64 import b64encode
from typing import Final

MARK: Final = b"\0"


def with_receipt(body: bytes, receipt: bytes) -> bytes:
    """The JSON of an ack, and its receipt behind it."""
    return body + MARK + receipt


def without_receipt(body: bytes) -> tuple[bytes, bytes]:
    """The JSON, and the receipt; empty: it has none."""
    text, _, receipt = body.partition(MARK)
    return text, receipt


def in_json(body: bytes) -> bytes:
    """The ack's JSON with its receipt as a member, if it has one."""
    text, receipt = without_receipt(body)
    return text[:-1] + b',"receipt":"' + b64encode(receipt) + b'"}' if receipt else text
