"""Everything that can go wrong between the sequencer and L1.

::

    L1Error
    ├── ChainStartError            a development chain did not start (says why, names the log)
    ├── RpcError
    │   ├── RpcUnavailable         no answer: refused, lost, timed out; worth waiting for
    │   │   ├── NodeBehind         ... or one that another answer contradicts: the node is behind, or its chain changed
    │   │   └── BlobsUnavailable   a beacon node does not have a batch's blobs (yet, or any more)
    │   └── RpcRejected            the node answered with an error (code, message, data)
    │       └── RpcReverted        ... which is a revert of the EVM (reason)
    ├── DeploymentError            a deployment file or a deploying transaction is not as it must be
    ├── TransactionError
    │   ├── IntentConflict         one intent id, two different contents
    │   ├── ForeignKeyUse          the store belongs to another key, chain or genesis
    │   ├── TransactionFailed      mined and reverted, or refused for good by the node
    │   └── TransactionTimeout     not confirmed within the time the caller was ready to wait
    ├── PosterError
    │   ├── BatchOutOfOrder        a batch that is not the next one
    │   ├── BatchMismatch          L1 holds another batch under this id
    │   └── PayloadTooLarge        the transaction would exceed what nodes carry
    └── FollowerError              ... and for which somebody has to look: it passes with another node, or not at all
        ├── ReorgTooDeep           a reported message is gone from the chain
        ├── InboxMismatch          logs contradict the running hash of PROTOCOL §6
        ├── PayloadMismatch        calldata of a posted batch contradicts its event
        └── Undecodable            what a node says that a contract has said cannot be decoded
"""

from dataclasses import dataclass, field

from sequencer.l1.transport import shown


class L1Error(Exception):
    """Root of this package's errors."""


@dataclass(slots=True)
class ChainStartError(L1Error):
    chain: str
    reason: str
    log_path: str | None = None

    def __str__(self) -> str:
        return f"{self.chain} did not start: {self.reason}" + (
            f" (log: {self.log_path})" if self.log_path else ""
        )


class RpcError(L1Error):
    """Talking to the node failed."""


@dataclass(slots=True)
class RpcUnavailable(RpcError):
    """`url` is shown without what may be a secret of it; `too_large`: asking for less may help."""

    url: str
    reason: str
    too_large: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.url = shown(self.url)

    def __str__(self) -> str:
        return f"no answer from {self.url}: {self.reason}"


@dataclass(slots=True)
class NodeBehind(RpcUnavailable):
    def __str__(self) -> str:
        return f"{self.url} is behind, or its chain has changed: {self.reason}"


@dataclass(slots=True)
class BlobsUnavailable(RpcUnavailable):
    """`batch_id` None: whoever asked knows it."""

    slot: int = 0
    batch_id: int | None = None

    def __str__(self) -> str:
        batch = "" if self.batch_id is None else f"batch {self.batch_id}: "
        return (
            f"{batch}the beacon node {self.url} does not have its blobs: slot {self.slot}: {self.reason}. Beacon nodes "
            "keep blobs for about 18 days: name one that keeps them longer in FAIRSTRIKE_BEACON, or give --archive "
            "FOLDER, the folder of a `fairstrike watch` that has read them"
        )


@dataclass(slots=True)
class RpcRejected(RpcError):
    method: str
    code: int
    message: str
    data: str | None = None

    def __str__(self) -> str:
        return f"{self.method}: {self.message} ({self.code})"


@dataclass(slots=True)
class RpcReverted(RpcRejected):
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.method}: reverted: {self.reason or self.message}"


class DeploymentError(L1Error):
    """A deployment file or a deploying transaction is not as it must be."""


class TransactionError(L1Error):
    """The transaction manager cannot do what was asked."""


@dataclass(slots=True)
class IntentConflict(TransactionError):
    intent_id: str

    def __str__(self) -> str:
        return f"intent {self.intent_id!r} already exists with other content"


@dataclass(slots=True)
class ForeignKeyUse(TransactionError):
    expected: str
    found: str

    def __str__(self) -> str:
        return f"the store belongs to {self.expected}, not to {self.found}"


@dataclass(slots=True)
class TransactionFailed(TransactionError):
    intent_id: str
    reason: str
    tx_hash: str | None = None

    def __str__(self) -> str:
        return f"{self.intent_id} failed: {self.reason}" + (f" ({self.tx_hash})" if self.tx_hash else "")


@dataclass(slots=True)
class TransactionTimeout(TransactionError):
    intent_id: str
    state: str
    last_error: str = ""

    def __str__(self) -> str:
        return f"{self.intent_id} is still {self.state}" + (f": {self.last_error}" if self.last_error else "")


class PosterError(L1Error):
    """A batch cannot be posted."""


@dataclass(slots=True)
class BatchOutOfOrder(PosterError):
    expected: int
    found: int

    def __str__(self) -> str:
        return f"batch {self.found} was given where {self.expected} is next"


@dataclass(slots=True)
class BatchMismatch(PosterError):
    batch_id: int
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"L1 holds another batch {self.batch_id}: ours {self.ours}, there {self.theirs}"


@dataclass(slots=True)
class PayloadTooLarge(PosterError):
    batch_id: int
    size_bytes: int
    size_bytes_max: int

    def __str__(self) -> str:
        return f"batch {self.batch_id} has {self.size_bytes} bytes of payload, {self.size_bytes_max} fit"


class FollowerError(L1Error):
    """What L1 shows cannot be followed."""


@dataclass(slots=True)
class ReorgTooDeep(FollowerError):
    message_index: int
    block_number: int
    confirmations: int

    def __str__(self) -> str:
        return (
            f"inbox message {self.message_index}, reported from block {self.block_number} after "
            f"{self.confirmations} confirmations, is gone: the chain was reorganised deeper than that"
        )


@dataclass(slots=True)
class InboxMismatch(FollowerError):
    message_index: int
    reason: str

    def __str__(self) -> str:
        return f"inbox message {self.message_index}: {self.reason}"


@dataclass(slots=True)
class PayloadMismatch(FollowerError):
    batch_id: int
    reason: str

    def __str__(self) -> str:
        return f"posted batch {self.batch_id}: {self.reason}"


@dataclass(slots=True)
class Undecodable(FollowerError):
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} cannot be decoded: {self.reason}"
