"""Requests on their way to the sequencer, and where their answers go."""

from collections.abc import Callable
from typing import TypeAlias

from sequencer.api.peer import Peer, response

Sink: TypeAlias = Callable[[bytes, bool, bytes], None]
"""Where an answer goes: (token of the request, ok, JSON of the result or of the error object)."""


class Pending:
    """A request on its way: where its answer goes, and until when it is waited for.

    `record`: what was submitted, where the gateway tells other peers of its receipt; else empty.
    """

    __slots__ = ("deadline", "is_submit", "peer", "record", "sink", "token")

    def __init__(
        self,
        peer: Peer | None,
        sink: Sink,
        token: bytes,
        is_submit: bool,
        deadline: float,
        record: bytes = b"",
    ) -> None:
        self.peer = peer
        self.record = record
        self.sink = sink
        self.token = token
        self.is_submit = is_submit
        self.deadline = deadline


class BatchAnswers:
    """Answers of a batch, gathered until the last is there; in the order of their arrival."""

    __slots__ = ("_documents", "_missing", "_peer")

    def __init__(self, peer: Peer, count: int) -> None:
        self._peer = peer
        self._missing = count
        self._documents: list[bytes] = []

    def reply(self, token: bytes, ok: bool, body: bytes) -> None:
        self._documents.append(response(token, ok, body))
        self._missing -= 1
        if not self._missing:
            self._peer.send_document(b"[" + b",".join(self._documents) + b"]")
