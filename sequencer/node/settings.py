"""Settings of a sequencer."""

from dataclasses import dataclass, field
from pathlib import Path

from sequencer.api.tls import Tls
from sequencer.history import history as histories
from sequencer.keeper.keeper import KeeperConfig
from sequencer.l1.deploy import Deployment
from sequencer.node import archiver
from sequencer.protocol.params import Params
from sequencer.queue.driver import DriverConfig
from sequencer.queue.intake import IntakeLimits
from sequencer.rollup.l1_link import Children
from sequencer.rollup.l1_messages import L1Config


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What a sequencer is started with. `folder` holds all that it must not lose.

    `batch_payload_bytes`: where a batch is full; None: as `Batcher` finds right for the deployment.
    `idle_interval_s`: between batches while the log holds nothing but prices and marks; `takeover_s` may ask for more.
    `gateway_users`: whose processes are gateways (api/admission.py); None: this user's and root's.
    `tls`: certificate, key and authority for gateways on other machines (api/tls.py).
    `history_days`: how long ended orders, trades and cash are kept in the history; 0: for ever.
    `archive_after_s`: how long after its challenge window a batch's records stay in the log's own file; 0: for ever.
    `snapshot_ticks`: between two snapshots, or fewer with many records in them (`pace.SNAPSHOT_RECORDS`).
    `work_lag_s`: when more work waits for L1 than it takes in that time, new risk is refused (docs/OPERATIONS.md).
    `receipt_key`: private key (32 bytes) that signs receipts; None: acknowledgements carry none.
    `children`: starts the process that talks to L1.
    `chain_id` and `verifying_contract`: what records are signed under without a deployment.
    """

    folder: Path
    params: Params
    deployment: Deployment | None = None
    l1_url: str = ""
    l1: L1Config = field(default_factory=L1Config)
    driver: DriverConfig = field(default_factory=DriverConfig)
    intake: IntakeLimits = field(default_factory=IntakeLimits)
    keeper: KeeperConfig = field(default_factory=KeeperConfig)
    batch_interval_s: float = 2.0
    idle_interval_s: float = 60.0
    batch_payload_bytes: int | None = None
    snapshot_ticks: int = 5_000
    work_lag_s: int = 600
    history_days: int = histories.DAYS
    archive_after_s: int = archiver.AFTER_S
    verifying_contract: bytes = bytes(20)
    chain_id: int = 0
    gateway_users: frozenset[int] | None = None
    tls: Tls | None = None
    receipt_key: bytes | None = field(default=None, repr=False)
    children: Children = field(default_factory=Children)

    @property
    def signed_under(self) -> tuple[int, bytes]:
        """Chain and contract of the signatures' domain: the deployment's, if there is one."""
        if (at := self.deployment) is None:
            return self.chain_id, self.verifying_contract
        return at.chain_id, bytes.fromhex(at.rollup.removeprefix("0x"))

    @property
    def in_blobs(self) -> bool:
        """Whether batches are posted in blobs."""
        return self.deployment is not None and self.deployment.in_blobs
