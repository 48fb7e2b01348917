"""Who has subscribed to which channel, and the frames that they get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from sequencer.api.peer import Peer, text_frame

_json: Final = msgspec.json.Encoder()


class Subscribers:
    """Subscriptions of all connections."""

    def __init__(self) -> None:
        self.by_channel: dict[str, dict[Peer, None]] = {}

    def add(self, peer: Peer, channels: Iterable[str]) -> None:
        """`peer` hears of `channels` from now on."""
        for name in channels:
            self.by_channel.setdefault(name, {})[peer] = None
            peer.channels.add(name)

    def remove(self, peer: Peer, channels: Iterable[str]) -> list[str]:
        """`peer` hears no more of `channels`; those that nobody hears of any more."""
        idle = []
        for name in channels:
            if name in peer.channels:
                peer.channels.discard(name)
                peers = self.by_channel[name]
                del peers[peer]
                if not peers:
                    del self.by_channel[name]
                    idle.append(name)
        return idle

    def publish(self, channel: str, body: bytes) -> None:
        """An event; once to each who hears of its channel, by its own name or by that of all trades."""
        names = (channel, "trades") if channel.startswith("trades.") else (channel,)
        frame = b""
        for name in names:
            peers = self.by_channel.get(name)
            if not peers:
                continue
            if not frame:
                frame = text_frame(
                    b'{"jsonrpc":"2.0","method":"event","params":{"channel":%b,"data":%b}}'
                    % (_json.encode(channel), body)
                )
            for peer in peers:
                if name is channel or channel not in peer.channels:
                    peer.queue(frame)

    def publish_gap(self, why: str) -> None:
        """Tells every subscriber that events before this one may be missing."""
        frame = text_frame(
            b'{"jsonrpc":"2.0","method":"event","params":{"channel":"gap","data":{"reason":%b}}}'
            % _json.encode(why)
        )
        for peer in dict.fromkeys(peer for peers in self.by_channel.values() for peer in peers):
            peer.queue(frame)
