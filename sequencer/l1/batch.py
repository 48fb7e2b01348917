"""A batch as it is made from the log, stored, and posted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batch:
    """What `Rollup.post` and `post_blobs` take. Roots: 32 bytes; time, inbox count, inbox hash, work and tick: the
    exchange's after it; `ticks` begin in it.
    """

    batch_id: int
    pre_root: bytes
    post_root: bytes
    segments: int
    records: int
    first_seq: int
    time_s: int
    inbox_count: int
    inbox_hash: bytes
    work: int
    tick: int
    ticks: int
    payload: bytes
