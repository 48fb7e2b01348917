"""TLS of the link: TLS 1.3, a certificate on both sides, and in it the role that its owner plays.

The cluster's own authority signs one certificate for each node and each gateway (api/certificates.py). A role is a URI
among the subject's alternative names; a certificate of the other role, of another authority, or expired, is refused.
A gateway also checks that a sequencer's certificate names the host that it has connected to.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import stat
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GATEWAY: Final = "gateway"
SEQUENCER: Final = "sequencer"
ROLE_PREFIX: Final = "urn:fairstrike:"
HANDSHAKE_S: Final = 5.0
SHAKING_MAX: Final = 64  # connections in their handshake
BACKLOG: Final = 64
ACCEPT_AGAIN_S: Final = 0.1

logger = logging.getLogger(__name__)


class TlsError(OSError):
    """The peer is not who it must be, or the files are not what they must be."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the authority that both sides trust, this process's certificate and its key."""

    ca: Path
    cert: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """For who listens. Raises TlsError that names the file."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client(self) -> ssl.SSLContext:
        """For who connects; the host's name is checked. Raises TlsError that names the file."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: Any) -> ssl.SSLContext:
        _check_private(self.key)
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"--tls-ca {self.ca}: {_words(error)}") from None
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"--tls-cert {self.cert}, --tls-key {self.key}: {_words(error)}") from None
        return context


def tls_of(ca: Path | None, cert: Path | None, key: Path | None, is_needed: bool) -> Tls | None:
    """The settings of three options that go together. Raises ValueError that names what is missing."""
    given = {"--tls-ca": ca, "--tls-cert": cert, "--tls-key": key}
    missing = [name for name, path in given.items() if path is None]
    if len(missing) == len(given) and not is_needed:
        return None
    if ca is None or cert is None or key is None:
        raise ValueError(f"{', '.join(missing)}: missing; an address tls://HOST:PORT needs all three")
    tls = Tls(ca, cert, key)
    tls.client()
    return tls


def _check_private(key: Path) -> None:
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError as error:
        raise TlsError(f"--tls-key {key}: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TlsError(f"--tls-key {key}: mode {mode:04o}: others may read the key; chmod 600 {key}")


def _words(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)


def roles(transport: asyncio.BaseTransport) -> list[str]:
    """Roles that the peer's certificate carries; it has been verified by the handshake."""
    names = (transport.get_extra_info("peercert") or {}).get("subjectAltName", ())
    return [
        value.removeprefix(ROLE_PREFIX)
        for kind, value in names
        if kind == "URI" and value.startswith(ROLE_PREFIX)
    ]


def subject(transport: asyncio.BaseTransport) -> str:
    """The common name of the peer's certificate."""
    parts = (transport.get_extra_info("peercert") or {}).get("subject", ())
    return next((value for part in parts for key, value in part if key == "commonName"), "a nameless one")


def check_role(transport: asyncio.BaseTransport, role: str) -> None:
    """Raises TlsError when the peer's certificate does not carry `role`."""
    has = roles(transport)
    if role not in has:
        shown = ", ".join(has) or "no role"
        raise TlsError(f"the certificate of {subject(transport)} is for {shown}, and must be for {role}")


def why(error: BaseException) -> str:
    """What went wrong in a handshake, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        reason = error.reason.replace("_", " ").lower()
        if "did not return a certificate" in reason:
            return "it has shown no certificate"
        return reason
    if isinstance(error, TimeoutError):
        return f"no handshake within {HANDSHAKE_S:g} s"
    return str(error) or type(error).__name__


class Listener:
    """Accepts TLS connections at one address; each gets a protocol of `make` once its handshake is done.

    A handshake that fails is logged with its reason.
    """

    def __init__(self, files: Tls, make: Callable[[], asyncio.Protocol]) -> None:
        self._context = files.server()
        self._make = make
        self.sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._shaking = 0

    async def start(self, host: str, port: int) -> None:
        """Raises OSError when it cannot listen there."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listener = socket.create_server(found[0][4][:2], family=found[0][0], backlog=BACKLOG)
        listener.setblocking(False)
        self.sockets.append(listener)
        self._run(self._accept(listener))

    def close(self) -> None:
        """Stops listening, and ends handshakes."""
        for task in list(self._tasks):
            task.cancel()
        for listener in self.sockets:
            listener.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listener)
            except OSError as error:  # no file descriptors are left: some will be
                logger.warning("a TLS connection could not be accepted: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            if self._shaking >= SHAKING_MAX:
                logger.warning("%s is let go: %d connections are in their handshake", peer[0], SHAKING_MAX)
                accepted.close()
                continue
            self._shaking += 1
            self._run(self._shake(accepted, str(peer[0])))

    async def _shake(self, accepted: socket.socket, peer: str) -> None:
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except (OSError, TimeoutError) as error:
            logger.warning("%s is not let in: %s", peer, why(error))
            accepted.close()
        finally:
            self._shaking -= 1
