"""Signers of many records at once: what `codec.decode` recovers for each, in the kernel without Python's lock.

Other threads run meanwhile, those that recover too: on as many cores as there are.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sequencer.protocol import codec
from sequencer.protocol.hashing import library

_Kernel = Callable[[tuple[int, int, int, int], bytes, Sequence[bytes], Sequence[bytes]], list[bytes | None]]
_kernel: _Kernel | None
try:
    from sequencer._kernel.cmap_kernel import signers as _kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _kernel = None

_SIGNED_FIELD: Final = 0x80  # of a negative number: the word is filled with its sign
_library: Final = library()


def _plan(layout: codec.Layout) -> bytes:
    """How the kernel makes the struct of a kind: the type's hash, and each field's size."""
    sizes = [codec.field_bytes(of_type) for _, of_type in layout.fields]
    signs = [_SIGNED_FIELD if of_type[0] == "i" else 0 for _, of_type in layout.fields]
    return layout.type_hash + bytes(size | sign for size, sign in zip(sizes, signs, strict=True))


_plans: Final[dict[int, bytes]] = {
    int(kind): _plan(layout)
    for kind, layout in codec.LAYOUTS.items()
    if layout.signed and not isinstance(layout, codec.InWords)  # what is signed there is a text
}


def signers(raws: Sequence[bytes], domain: bytes) -> list[bytes | None]:
    """Address (20 bytes) of the signer of each; None where no key can have made the signature.

    Each must be a well-formed record of a signed kind (`codec.well_formed`).
    """
    if _kernel is None:
        return [_signer(raw, domain) for raw in raws]
    return _kernel(_library, domain, raws, plans(raws, domain))


def plans(raws: Sequence[bytes], domain: bytes) -> list[bytes]:
    """For each record what the kernel needs to make its digest."""
    return [_plans.get(raw[0]) or _digest(raw, domain) for raw in raws]


def _digest(raw: bytes, domain: bytes) -> bytes:
    digest = codec.signing_digest(raw, domain)
    assert digest is not None
    return digest


def _signer(raw: bytes, domain: bytes) -> bytes | None:
    record = codec.decode(raw, domain)
    assert isinstance(record, codec.Record)
    return record.signer
