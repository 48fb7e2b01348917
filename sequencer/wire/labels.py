"""Labels: a trader's names of orders, sent beside the record, bound to its account and nonce, unsigned."""

import re
from typing import Final

LABEL_BYTES: Final = 8
LABEL_LIMIT: Final = f"1 to {LABEL_BYTES} characters: letters, digits and . _ : / # @ + = -"
_LABEL: Final = re.compile(rf"[A-Za-z0-9._:/#@+=-]{{1,{LABEL_BYTES}}}", re.ASCII)


def checked_label(text: object) -> str:
    """`text`, if it is a label. ValueError otherwise."""
    if type(text) is not str or _LABEL.fullmatch(text) is None:
        raise ValueError(text)
    return text


def to_frame(label: str) -> bytes:
    """The label's bytes after the record of a binary frame; empty without a label."""
    return label.encode().ljust(LABEL_BYTES, b"\0") if label else b""


def from_frame(tail: bytes) -> str:
    """Inverse of `to_frame`. ValueError for anything else."""
    return checked_label(tail.rstrip(b"\0").decode("ascii")) if tail else ""
