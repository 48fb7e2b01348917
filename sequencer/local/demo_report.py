"""What the demo is run with, and what it reports."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sequencer.local import attempts
from sequencer.local.attempts import AttemptsReport

Progress = Callable[[str, int, int], None]  # stage, done, of how many

END_DAY = 19_002  # 10 January 2022


class DemoFailed(Exception):
    """A check of the run did not hold; says which."""


@dataclass(slots=True)
class Settled:
    """A settled expiry: price in ticks; by account what it was paid (1e-6 USD) and its positions before (lots)."""

    underlying: int
    day: int
    settlement_ticks: int
    payments: dict[int, int] = field(default_factory=dict)
    positions: dict[int, dict[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What a run did. Amounts in 1e-6 USD, times in seconds."""

    chain: str = ""
    data: str = ""
    batches_made: str = ""
    tape: str = ""
    records: int = 0
    orders: int = 0
    fills: int = 0
    cancels: int = 0
    batches: int = 0
    segments: int = 0
    payload_bytes: int = 0
    l1_gas: int = 0
    l1_gas_per_record: float = 0.0
    blob_gas: int = 0
    blob_gas_per_record: float = 0.0
    l1_bytes_per_record: float = 0.0
    final_root: str = ""
    replayed_root: str = ""
    vault_balance: int = 0
    l2_liabilities: int = 0
    settled_expiries: int = 0
    liquidations: int = 0
    auction_bids: int = 0
    withdrawals: int = 0
    withdrawals_claimed: int = 0
    real_trades: int = 0
    tape_trades: int = 0
    insurance_fund: int = 0
    deficit: int = 0
    seconds: float = 0.0
    replay_seconds: float = 0.0
    honesty: AttemptsReport | None = None
    checks: dict[str, bool] = field(default_factory=dict)


@dataclass(slots=True)
class DemoConfig:
    """`tape` None: the seeded generator. `until_day`: how far the index runs. `trades_max`: fewer, for tests.

    `batches`: when one is made: "hourly" (six-hourly once trading has ended), "full", or "backlog": L1 takes none
    before the end of the day, and then as much at a time as fits.
    `attempts`: how often to challenge it all, before it becomes final; `attempts_sent`: how many of them as
    transactions, None = as many as the chain bears.
    """

    chain: str = "pyevm"
    data: str = "calldata"
    batches: str = "hourly"
    tape: Path | None = None
    seed: int = 1
    until_day: int = END_DAY
    trades_max: int | None = None
    folder: Path | None = None
    attempts: int = 0
    attempts_sent: int | None = None


def as_json(report: Report) -> dict[str, Any]:
    """The report as one object; what `honesty` says stands beside the rest."""
    whole = asdict(report)
    del whole["honesty"]
    return whole | (attempts.as_object(report.honesty) if report.honesty is not None else {})
