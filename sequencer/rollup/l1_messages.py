"""What the sequencer and its L1 process say to each other, over the process's stdin and stdout.

A frame is a 4-byte big-endian length and that many bytes of msgpack. In go `Begin`, then `Now`s and at last `Stop`; out
come reports. Amounts of wei are decimal text: msgpack's integers have 64 bits.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sequencer.l1.deploy import Deployment
from sequencer.l1.fees import DEFAULT_CAPS, FeeCaps
from sequencer.l1.follower import InboxMessage, RolledBack
from sequencer.l1.poster import Posted
from sequencer.l1.sequencers import Standing

PREFIX_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
MESSAGES_MAX: Final = 1_024  # of the inbox, a frame


@dataclass(frozen=True, slots=True)
class L1Config:
    """`confirmations` before a deposit or a roll-back counts or a batch is settled.

    It is looked at L1 at each new head that the node tells of by `events` (`heads.events_url`), and every `poll_s`
    where it tells of none; where it does, four times as rarely, but every 2 s.

    `rebond`: when the bond was slashed and nobody leads, the sequencer's key bonds again by itself. `timeout_s`: for a
    whole answer of the node; a line that swallows bytes is noticed after it.
    """

    confirmations: int = 1
    poll_s: float = 0.5
    rebond: bool = False
    timeout_s: float = 6.0
    caps: FeeCaps = DEFAULT_CAPS
    events: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Roll-backs that are deep enough, and all messages of the inbox that are."""

    events: list[RolledBack]
    inbox: list[bytes]


# --- from the sequencer ---------------------------------------------------------------------------


class Now(msgspec.Struct, frozen=True, tag=True):
    """All that the process has to know of the sequencer as it is now. `number` counts them; the greatest counts.

    `inbox_count`, `inbox_hash`: the messages that the log holds, and their running hash. `again`: counts how often
    messages are to be reported once more from there on. `verified`: the record before which every signature has been
    checked. `epoch`: the roll-backs that are answered. `refused`: why those reported last have no answer. `paused`: no
    batch is offered. `wake`: look at L1 at once.
    """

    number: int
    inbox_count: int
    inbox_hash: bytes
    again: int
    verified: int
    epoch: int
    refused: str = ""
    paused: bool = False
    wake: bool = False


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first command. `secret`: the sequencer's private key; `log_level`: from which on log records are reported."""

    url: str
    deployment: Deployment
    secret: bytes
    folder: str
    config: L1Config
    now: Now
    log_level: int

    def __repr__(self) -> str:
        return f"Begin({self.deployment.rollup})"  # neither the key nor the node's URL gets into any text


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End after the present step."""


# --- from the process -----------------------------------------------------------------------------


class L1Time(msgspec.Struct, frozen=True, tag=True):
    """See Clock.see_l1; seconds."""

    time_s: int
    ahead_max_s: int


class Messages(msgspec.Struct, frozen=True, tag=True):
    """Of the inbox, in order; each once, but see `Now.again`."""

    messages: list[InboxMessage]


class BatchesPosted(msgspec.Struct, frozen=True, tag=True):
    """Batches that are confirmed."""

    posted: list[Posted]


class Undone(msgspec.Struct, frozen=True):
    """A RolledBack, with its amount as text."""

    key: str
    batch_id: int
    slashed: str
    block_number: int

    @classmethod
    def of(cls, one: RolledBack) -> "Undone":
        """As it goes over the line."""
        return cls(one.key, one.batch_id, str(one.slashed), one.block_number)

    def event(self) -> RolledBack:
        """As it was."""
        return RolledBack(self.key, self.batch_id, int(self.slashed), self.block_number)


class InboxPart(msgspec.Struct, frozen=True, tag=True):
    """Records of a Notice, which comes with the last of them: `events` is empty before."""

    records: list[bytes]
    events: list[Undone]


class IsDeposed(msgspec.Struct, frozen=True, tag=True):
    """Why another leads, empty when this sequencer does; whether that is deep enough to last."""

    why: str
    is_final: bool


class SetSeen(msgspec.Struct, frozen=True):
    """A Standing, with its wide numbers as text."""

    address: str
    leader: str
    epoch: int
    members: tuple[str, ...]
    bond_wei: str
    bond_min_wei: str
    takeover_s: int
    silent_since: int
    takes_over_at: str
    head_time_s: int

    @classmethod
    def of(cls, one: Standing) -> "SetSeen":
        """As it goes over the line."""
        return cls(
            *(one.address, one.leader, one.epoch, one.members, str(one.bond_wei), str(one.bond_min_wei)),
            *(one.takeover_s, one.silent_since, str(one.takes_over_at), one.head_time_s),
        )

    def standing(self) -> Standing:
        """As it was."""
        return Standing(
            *(self.address, self.leader, self.epoch, self.members, int(self.bond_wei)),
            *(int(self.bond_min_wei), self.takeover_s, self.silent_since, int(self.takes_over_at)),
            self.head_time_s,
        )


class Look(msgspec.Struct, frozen=True, tag=True):
    """Where the process stands: in the middle of a look at L1, and at its end.

    `heard`: number of the last `Now` when the look began that has ended last. `looks`: that came to their end.
    `heard_s`: when L1 last said that this sequencer leads, or may again, monotonic (of the machine, so that both
    processes' clocks are one). `head_time_s`: of L1's newest block; `next_on_l1`: the batch id that L1 asks for, 0
    before it was seen. `unverified`: the batch that waits for its signatures' check. `queued`: batches offered and not
    confirmed. `balance`, `gas_price`: see txmgr.Funds. `hears`: whether the node tells of new heads.
    """

    heard: int = 0
    looks: int = 0
    last_error: str = ""
    standing: SetSeen | None = None
    heard_s: float | None = None
    head_time_s: int | None = None
    next_on_l1: int = 0
    hears: bool = False
    unverified: int = 0
    queued: int = 0
    queued_bytes: int = 0
    balance: str | None = None
    gas_price: str = "0"
    posted: int = 0
    gas_used: int = 0
    blob_gas_used: int = 0
    bytes_posted: int = 0


class Logged(msgspec.Struct, frozen=True, tag=True):
    """A log record, to be logged by the sequencer."""

    level: int
    name: str
    text: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The last report: what nobody has foreseen, and its traceback; secrets are taken out."""

    text: str
    where: str


Command = Begin | Now | Stop
Report = L1Time | Messages | BatchesPosted | InboxPart | IsDeposed | Look | Logged | Failed

_encode: Final = msgspec.msgpack.Encoder().encode
_command: Final[Any] = msgspec.msgpack.Decoder(Command)
_report: Final[Any] = msgspec.msgpack.Decoder(Report)


class LineBroken(Exception):
    """What came is no frame of the other side."""


def frame(message: Command | Report) -> bytes:
    """A message as it goes over the line. Raises LineBroken when it is too long for one."""
    body = _encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise LineBroken(f"a {type(message).__name__} of {len(body)} bytes; at most {FRAME_BYTES_MAX} go")
    return len(body).to_bytes(PREFIX_BYTES, "big") + body


def size_of(prefix: bytes) -> int:
    """Bytes that follow. Raises LineBroken."""
    size = int.from_bytes(prefix, "big")
    if size > FRAME_BYTES_MAX:
        raise LineBroken(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX} come")
    return size


def to_command(body: bytes) -> Command:
    """Raises LineBroken, without what it holds."""
    try:
        command: Command = _command.decode(body)
    except msgspec.MsgspecError:
        raise LineBroken(f"{len(body)} bytes that are no command") from None
    return command


def to_report(body: bytes) -> Report:
    """Raises LineBroken."""
    try:
        report: Report = _report.decode(body)
    except msgspec.MsgspecError as error:
        raise LineBroken(f"{len(body)} bytes that are no report: {error}") from None
    return report
