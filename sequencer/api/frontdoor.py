"""The port of a gateway: HTTP/1.1 and WebSocket on one socket, a `Peer` for each connection, limits by address."""

from __future__ import annotations

import asyncio

from sequencer.api.http_peer import HttpPeer, http_date
from sequencer.api.limits import Address
from sequencer.api.peer import Peer, RequestHandler

SWEEP_S = 1.0


class FrontDoor:
    """The listening socket and who has come through it."""

    def __init__(self, gateway: RequestHandler) -> None:
        self.gateway = gateway
        self.peers: dict[Peer, None] = {}
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._date = b""

    async def start(self, host: str, port: int) -> int:
        """Listens; the port (the one the system chose, for 0)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpPeer(self.gateway, self), host, port, backlog=1024
        )
        self._sweep()
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening and hangs up on everybody."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.hang_up()

    # --- who comes and goes ---------------------------------------------------------------------

    def address_of(self, transport: asyncio.BaseTransport) -> Address:
        """The address that a connection counts to."""
        peername = transport.get_extra_info("peername")
        return self.gateway.addresses.of(str(peername[0]) if peername else "")

    def came(self, peer: Peer) -> str:
        """Counts a new connection; why there is no room for it, or nothing."""
        limits = self.gateway.limits
        if len(self.peers) >= limits.connections:
            return f"the gateway has {limits.connections} connections, and takes no more"
        address = peer.address
        if self._is_full(address) and address.name not in limits.trusted_proxies:
            return f"{address.name} has {limits.connections_per_address} connections, and may have no more"
        address.connections += 1
        self._count(peer)
        return ""

    def counts_to(self, peer: Peer, forwarded_for: list[bytes]) -> bool:
        """A request of a trusted proxy counts to the client that it names. False: that one has no room for it."""
        limits = self.gateway.limits
        if not limits.trusted_proxies or not forwarded_for:
            return True
        if peer.origin not in limits.trusted_proxies:
            return True
        named = forwarded_for[-1].rpartition(b",")[2].strip().decode("latin-1")
        address = self.gateway.addresses.of(named)
        if address is peer.address:
            return True
        if self._is_full(address):
            return False
        peer.address.connections -= 1
        address.connections += 1
        peer.move_to(address)
        return True

    def became(self, before: Peer, after: Peer) -> None:
        """A connection has changed its protocol."""
        before.is_gone = True
        del self.peers[before]
        self.peers[after] = None

    def gone(self, peer: Peer) -> None:
        """A connection has ended."""
        if peer in self.peers:
            del self.peers[peer]
            peer.address.connections -= 1
            self.gateway.connections = len(self.peers)

    def _count(self, peer: Peer) -> None:
        self.peers[peer] = None
        self.gateway.connections = len(self.peers)

    def _is_full(self, address: Address) -> bool:
        limit = self.gateway.limits.connections_per_address
        return bool(limit) and address.connections >= limit

    # --- each second ----------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Ends what has taken too long, forgets addresses that owe nothing."""
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep)
        self._date = http_date()
        now = loop.time()
        for peer in list(self.peers):
            peer.check(now)
        self.gateway.addresses.forget_idle()

    def date(self) -> bytes:
        """The present time as HTTP has it."""
        return self._date
