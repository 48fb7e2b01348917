"""Who may speak to the sequencer for a gateway: whoever names a signer there can cost the operator the bond.

On a Unix socket the kernel says whose process it is (SO_PEERCRED); on 127.0.0.1 both sides show that they have the
secret of LINK_SECRET, by HMAC over nonces of both, and nothing else is listened to before.
"""

from __future__ import annotations

import hmac
import os
import pwd
import secrets
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

LINK_SECRET: Final = "FAIRSTRIKE_LINK_SECRET"  # noqa: S105  # the name of a variable
UID_MAX: Final = 2**32 - 2  # the last number is none
SECRET_BYTES_MIN: Final = 32
NONCE_BYTES: Final = 32
FROM_GATEWAY: Final = b"fairstrike gateway"
FROM_SEQUENCER: Final = b"fairstrike sequencer"
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """Whose process is at the other end of a Unix socket, as it was when it connected."""

    pid: int
    uid: int

    def __str__(self) -> str:
        return f"process {self.pid} of user {user_name(self.uid)}"


def peer_process(transport: asyncio.BaseTransport) -> PeerProcess | None:
    """By the kernel's word; None on anything but a Unix socket."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return PeerProcess(pid, uid)


def trusted_users(names: Iterable[str] = ()) -> frozenset[int]:
    """User ids of `names` (names or numbers), of this process, and root's. Raises ValueError for a name nobody has."""
    return frozenset({0, os.geteuid(), *map(_uid, names)})


def _uid(name: str) -> int:
    if name.isascii() and name.isdigit():
        if len(name) > 10 or int(name) > UID_MAX:
            raise ValueError(f"{name:.20}: a user's number is at most {UID_MAX}")
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f"{name}: no such user on this machine") from None


def user_name(uid: int) -> str:
    """Of a user id, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def check_folder(path: str) -> None:
    """Raises PermissionError when others could put a socket of theirs in the place of the one at `path`."""
    folder = Path(path).absolute().parent
    found = folder.stat()
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise PermissionError(
            f"{folder}: mode {stat.S_IMODE(found.st_mode):04o}: others may put a socket of theirs in the place of "
            f"{path}; chmod go-w {folder}, or choose another folder"
        )


def link_secret(environment: Mapping[str, str] | None = None) -> bytes:
    """The secret of both ends of a link over 127.0.0.1. Raises ValueError, which never shows it."""
    text = (os.environ if environment is None else environment).get(LINK_SECRET, "")
    if len(text.encode()) < SECRET_BYTES_MIN:
        state = "is not set" if not text else f"has {len(text.encode())} bytes"
        raise ValueError(
            f"{LINK_SECRET} {state}: over 127.0.0.1 any process of this machine could speak for a gateway; give both "
            f"ends the same {SECRET_BYTES_MIN} bytes or more (openssl rand -hex 32), or use a Unix socket"
        )
    return text.encode()


def fresh_nonce() -> bytes:
    """One that no other connection has."""
    return secrets.token_bytes(NONCE_BYTES)


def proof(secret: bytes, who: bytes, own: bytes, others: bytes) -> bytes:
    """What shows that `who` has the secret, on the connection of these two nonces."""
    return hmac.digest(secret, who + own + others, sha256)


def is_proof(given: bytes, secret: bytes, who: bytes, own: bytes, others: bytes) -> bool:
    """Whether it does; takes as long whatever is wrong with it."""
    return hmac.compare_digest(given, proof(secret, who, own, others))
