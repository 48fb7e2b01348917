"""What the replicated log's stream has to be: its name, subjects and configuration, and the id of each message."""

import enum
import hashlib
import re
from typing import Final

import msgspec
from nats.js import api

from sequencer.log.interface import LogError

MESSAGE_BYTES: Final = 8 << 20  # of a message in the stream, its headers included
BODY_BYTES: Final = MESSAGE_BYTES - 4096
DUPLICATE_S: Final = 120
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class StreamDamaged(LogError):
    """The stream lacks what it has acknowledged, or holds something else. `place`: where."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place


class Replica(msgspec.Struct, frozen=True):
    """A server that keeps the stream. `lag`: messages that it has yet to store. `seen_s`: since it was last heard."""

    name: str
    is_leader: bool
    is_current: bool
    is_offline: bool
    lag: int
    seen_s: float


class StreamStatus(msgspec.Struct, frozen=True):
    """What the servers say of the stream; `leader` is empty while they have none, and `places` -1 while none answers.

    `server`: the one that this client is connected to. `bytes`: stored on each replica.
    """

    server: str
    is_connected: bool
    reconnects: int
    leader: str
    replicas: list[Replica]
    places: int
    bytes: int
    error: str


def body_id(place: int, body: bytes) -> str:
    """The id of a message: its place and the hash of its body, by which readers check both."""
    return f"{place}-{hashlib.sha256(body).hexdigest()[:32]}"


def stream_name(domain: bytes) -> str:
    """Of the stream of the exchange whose records are signed under `domain` (32 bytes)."""
    return domain[:8].hex()


def subjects(name: str) -> tuple[str, str, str]:
    """Of a stream: what is appended, the copy of what has been, and the leader's signs of life."""
    return f"fairstrike.{name}.log", f"fairstrike.{name}.copy", f"fairstrike.{name}.lead"


def wanted_config(name: str, replicas: int, max_bytes: int = -1) -> api.StreamConfig:
    """What the stream has to be. `max_bytes`: on each server's disk, -1 for no limit but the disk's."""
    log, copy, _ = subjects(name)
    return api.StreamConfig(
        name=name,
        subjects=[log],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        num_replicas=replicas,
        discard=api.DiscardPolicy.NEW,
        max_msgs=-1,
        max_bytes=max_bytes,
        max_age=0,
        max_msg_size=MESSAGE_BYTES,
        duplicate_window=DUPLICATE_S,
        deny_delete=True,
        deny_purge=True,
        allow_direct=False,
        allow_rollup_hdrs=False,
        allow_atomic=True,
        republish=api.RePublish(src=log, dest=copy),
    )


# Fields that must be as wanted, and what is lost when they are not.
_MUST: Final = {
    "subjects": "appends would not reach it",
    "storage": "a restart would lose it",
    "num_replicas": "one server's loss could lose acknowledged bodies",
    "retention": "bodies would be removed",
    "discard": "old bodies would make room for new ones",
    "max_msgs": "old bodies would make room for new ones",
    "max_age": "old bodies would be removed",
    "max_msg_size": "large ticks would be refused",
    "deny_delete": "bodies could be removed",
    "deny_purge": "bodies could be removed",
    "allow_rollup_hdrs": "bodies could be removed",
    "allow_atomic": "several bodies could not be appended as one",
    "no_ack": "nothing would be acknowledged",
    "sealed": "nothing could be appended",
}


def check_body(name: str, place: int, body: bytes, message_id: str) -> None:
    """Raises StreamDamaged when a message is not the one that was appended at `place`."""
    if message_id != body_id(place, body):
        raise StreamDamaged(
            place,
            f"stream {name}: the body at place {place} is not what was appended there (id {message_id!r})",
        )


def _shown(value: object) -> str:
    return str(value.value if isinstance(value, enum.Enum) else value)


def check_config(wanted: api.StreamConfig, found: api.StreamConfig) -> None:
    """Raises LogError when a stream of the servers is not what it must be."""
    for field, why in _MUST.items():
        want, have = getattr(wanted, field), getattr(found, field)
        if (want or None) != (have or None):
            raise LogError(
                f"stream {wanted.name}: {field} is {_shown(have)} and must be {_shown(want)}: {why}; "
                "it is not changed from here"
            )
    want, have = _copied_to(wanted), _copied_to(found)
    if want != have:
        raise LogError(
            f"stream {wanted.name}: republish is {have} and must be {want}: followers would be late; "
            "it is not changed from here"
        )


def _copied_to(config: api.StreamConfig) -> str:
    """The subject that what has been appended is published on."""
    copy: object = config.republish  # nats-py leaves what the servers answer as it is
    if isinstance(copy, dict):
        return str(copy.get("dest"))
    return str(copy.dest) if isinstance(copy, api.RePublish) else "nothing"
