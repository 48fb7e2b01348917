"""`sequencer.node.process` that kills itself at a named point: `python -m tests.simulation.faulty_node POINT COUNT …`.

The rest of the arguments are the node's. The point is reached by wrapping what stands there, from here: the node knows
nothing of it. COUNT says at which passage of the point the process ends. A point of the L1 process is reached there, in
`python -m tests.simulation.faulty_node POINT COUNT` that the node starts in its place; it ends the node, too, unless
POINT ends with ALONE.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sequencer.api import ipc
from sequencer.engine import snapshots
from sequencer.l1 import rpc, txmgr
from sequencer.log import packs
from sequencer.log import sqlite as log
from sequencer.node import process as node
from sequencer.rollup import batcher, l1_link, l1_process, l1_worker, withdrawals

# A short run has few records: with these, most of its ticks are packed nonetheless.
packs.PACK_BYTES = 4_096  # type: ignore[misc]
log.TAIL_BYTES = 8_192  # type: ignore[misc]

TXMGR_STEPS = ("intent stored", "nonce stored", "before sending", "after sending", "sending stored")


class Fuse:
    """Ends the node at its n-th passage, and the process that passes, which may be the one that writes a snapshot."""

    def __init__(self, count: int, node: int) -> None:
        self.left = count
        self.node = node

    def burn(self, *_: Any) -> None:
        self.left -= 1
        if self.left <= 0:
            os.kill(self.node, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def wrap(owner: Any, name: str, fuse: Fuse, after: bool) -> None:
    """Puts the fuse before or after the function `name` of `owner`."""
    inner = getattr(owner, name)

    def function(*arguments: Any, **named: Any) -> Any:
        if not after:
            fuse.burn()
        result = inner(*arguments, **named)
        if after:
            fuse.burn()
        return result

    setattr(owner, name, function)


def half_a_snapshot(fuse: Fuse) -> None:
    """Ends with the temporary file written and not yet renamed."""
    snapshots.os = SimpleNamespace(**{**vars(os), "fsync": fuse.burn})  # type: ignore[attr-defined]


def txmgr_step(step: str) -> Callable[[Fuse], None]:
    """Ends at a step that the transaction manager announces."""

    def install(fuse: Fuse) -> None:
        class Manager(txmgr.TxManager):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, checkpoint=lambda at: fuse.burn() if at == step else None)

        l1_worker.TxManager = Manager  # type: ignore[misc]

    return install


def around(owner: Any, name: str, after: bool) -> Callable[[Fuse], None]:
    return lambda fuse: wrap(owner, name, fuse, after)


# point -> (how to get there, the highest count that a short run still reaches)
POINTS: dict[str, tuple[Callable[[Fuse], None], int]] = {
    "before the log's append": (around(log.SqliteLog, "append", False), 20),
    "after the log's append, before the ack": (around(log.SqliteLog, "append", True), 20),
    "before ticks are packed": (around(packs, "put_pack", False), 2),
    "while ticks are packed": (around(packs, "compressed", True), 2),
    "after ticks are packed": (around(packs, "put_pack", True), 2),
    "before the acks": (around(ipc.Connection, "send_acks", False), 10),
    "after the acks": (around(ipc.Connection, "send_acks", True), 10),
    "inside a recovery": (around(snapshots, "replay", False), 4),
    "before a batch is stored": (around(batcher.Batcher, "_store", False), 2),
    "after a batch is stored, before it is sent": (around(batcher.Batcher, "_store", True), 2),
    "before proofs of withdrawals": (around(withdrawals.Withdrawals, "prove", False), 2),
    "before a snapshot": (around(snapshots, "save", False), 1),
    "inside a snapshot": (half_a_snapshot, 1),
    "after a snapshot": (around(snapshots, "save", True), 1),
}
POINTS_OF_L1: dict[str, tuple[Callable[[Fuse], None], int]] = {
    "before a transaction leaves": (around(rpc.Rpc, "send_raw", False), 2),
    "after a transaction has left": (around(rpc.Rpc, "send_raw", True), 2),
    **{f"transaction manager: {step}": (txmgr_step(step), 2) for step in TXMGR_STEPS},
}
POINTS |= POINTS_OF_L1
ALONE = ", the L1 process alone"

if __name__ == "__main__":
    point, count, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    is_node, is_alone, at = bool(arguments), point.endswith(ALONE), point.removesuffix(ALONE)
    if is_node and at in POINTS_OF_L1:
        l1_link.COMMAND = (sys.executable, "-m", "tests.simulation.faulty_node", point, count)  # type: ignore[misc]
    else:
        POINTS[at][0](Fuse(int(count), os.getpid() if is_node or is_alone else os.getppid()))
    if is_node:
        node.main(arguments, prog_name="faulty_node")
    else:
        l1_process.main()
