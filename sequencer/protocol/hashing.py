"""Keccak-256 and secp256k1: the two primitives that a root or a signature rests on.

The only module of `protocol` that reaches outside the standard library. Everything here is a pure function
of its arguments, equal to what the EVM computes (`keccak256`, `ecrecover` with v = 27 + yParity).

Signatures are compact (EIP-2098): 64 bytes, `r ‖ (yParity << 255 | s)`, both big-endian. Only the lower half
of s is accepted, so that nobody but the signer can make a second signature of the same message.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from coincurve import PrivateKey, PublicKey
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]  # a C extension without stubs
from coincurve.context import GLOBAL_CONTEXT

try:
    from sequencer._kernel.cmap_kernel import keccak as _keccak256
except ImportError:  # not built, or FAIRSTRIKE_PURE=1: a fifth slower
    from tiny_keccak import keccak256 as _keccak256

if TYPE_CHECKING:
    from collections.abc import Callable

CURVE_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""n, the order of the secp256k1 group."""

DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ADDRESS_BYTES: Final = 20

_HALF_ORDER: Final = CURVE_ORDER // 2
_LOW_255: Final = (1 << 255) - 1
_UNCOMPRESSED: Final = 2  # SECP256K1_EC_UNCOMPRESSED of secp256k1.h
_XY_BYTES: Final = 64

keccak: Callable[[bytes], bytes] = _keccak256
"""Keccak-256 (the Ethereum padding, not SHA-3) of any number of bytes; 32 bytes. A bare alias, because a
wrapper would cost a seventh of the hash."""


class _Scratch(threading.local):
    """What libsecp256k1 writes into, allocated once a thread: its calls release the GIL."""

    def __init__(self) -> None:
        self.signature: Any = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        self.public_key: Any = ffi.new("secp256k1_pubkey *")
        self.serialized: Any = ffi.new("unsigned char[65]")
        self.length: Any = ffi.new("size_t *", 65)
        self.parity: Any = ffi.new("int *")
        self.xy: Any = ffi.buffer(self.serialized + 1, _XY_BYTES)


_scratch: Final = _Scratch()
_context: Final[Any] = GLOBAL_CONTEXT.ctx
_parse: Final[Any] = lib.secp256k1_ecdsa_recoverable_signature_parse_compact
_recover: Final[Any] = lib.secp256k1_ecdsa_recover
_sign: Final[Any] = lib.secp256k1_ecdsa_sign_recoverable
_compact: Final[Any] = lib.secp256k1_ecdsa_recoverable_signature_serialize_compact
_serialize: Final[Any] = lib.secp256k1_ec_pubkey_serialize


def library() -> tuple[int, int, int, int]:
    """Addresses of libsecp256k1's context and of its functions parse_compact, recover and serialize, for the kernel."""
    context = int(ffi.cast("uintptr_t", _context))
    names = (
        "secp256k1_ecdsa_recoverable_signature_parse_compact",
        "secp256k1_ecdsa_recover",
        "secp256k1_ec_pubkey_serialize",
    )
    parse, recover_key, serialize = (int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in names)
    return context, parse, recover_key, serialize


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """Address (20 bytes) that signed `digest` (32 bytes) with the compact `signature` (64 bytes).

    None, and never an exception, for a wrong length, r or s of zero, r >= n, s > n/2, or an r that is the x
    of no curve point.
    """
    if len(digest) != DIGEST_BYTES or len(signature) != SIGNATURE_BYTES:
        return None
    packed = int.from_bytes(signature[32:], "big")
    s = packed & _LOW_255
    if not 0 < s <= _HALF_ORDER:
        return None
    if packed != s:
        signature = signature[:32] + s.to_bytes(32, "big")
    scratch = _scratch
    parsed, public_key = scratch.signature, scratch.public_key
    # parse_compact refuses r >= n and recover refuses r = 0, as the precompile does.
    if not _parse(_context, parsed, signature, packed >> 255):
        return None
    if not _recover(_context, public_key, parsed, digest):
        return None
    scratch.length[0] = _XY_BYTES + 1
    _serialize(_context, scratch.serialized, scratch.length, public_key, _UNCOMPRESSED)
    return keccak(scratch.xy[:])[12:]


def address_of(public_key: bytes) -> bytes:
    """Address (20 bytes) of a public key given as x ‖ y (64 bytes), or in SEC form (33 or 65 bytes).

    Raises ValueError if the bytes are no point of the curve.
    """
    sec = b"\x04" + public_key if len(public_key) == _XY_BYTES else public_key
    return keccak(PublicKey(sec).format(compressed=False)[1:])[12:]


def public_key_of(private_key: bytes) -> bytes:
    """Public key x ‖ y (64 bytes) of a 32-byte private key; ValueError if it is not in 1 .. n-1."""
    return _private(private_key).public_key.format(compressed=False)[1:]


def sign(digest: bytes, private_key: bytes) -> bytes:
    """Compact signature (64 bytes, low s, deterministic nonce by RFC 6979) of `digest` (32 bytes).

    Raises ValueError if the digest is not 32 bytes or the key is not 32 bytes in 1 .. n-1.
    """
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")
    _check_private(private_key)
    # PrivateKey would derive two public keys first, which costs three times the signature.
    scratch = _scratch
    signed = _sign(_context, scratch.signature, digest, private_key, ffi.NULL, ffi.NULL)
    assert signed, "the checks above leave nothing to refuse"
    _compact(_context, scratch.serialized, scratch.parity, scratch.signature)
    parity = scratch.parity[0]
    # Parity 2 or 3 means r wrapped around n: one nonce in 2^127, and EIP-2098 cannot say it.
    assert parity < 2, "unrepresentable signature"
    compact = bytearray(ffi.buffer(scratch.serialized, SIGNATURE_BYTES))
    compact[32] |= parity << 7
    return bytes(compact)


def _check_private(private_key: bytes) -> None:
    # coincurve left-pads a short key in silence.
    if len(private_key) != 32 or not 0 < int.from_bytes(private_key, "big") < CURVE_ORDER:
        raise ValueError("a private key has 32 bytes and lies in 1 .. n-1")


def _private(private_key: bytes) -> PrivateKey:
    _check_private(private_key)
    return PrivateKey(private_key)
