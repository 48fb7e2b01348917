"""What a trader asks L1 itself: who may sign receipts, which lead it is, and what has been posted."""

import contextlib
from dataclasses import dataclass

from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.l1.sequencers import NOBODY, ROLLUP, SEQUENCERS


@dataclass(frozen=True, slots=True)
class L1View:
    """L1 as it stood: `epoch` of Sequencers, `roll_backs` of Rollup, `tick` of its last batch, the newest block's time,
    and the receipt keys of the members. Trusted as far as the node is that was asked.
    """

    epoch: int
    roll_backs: int
    tick: int
    time_s: int
    keys: frozenset[bytes]


def look(url: str, rollup: str, chain_id: int) -> L1View:
    """Asks the node at `url`; it blocks. Raises L1Error, and ValueError when the node is of another chain."""
    with contextlib.closing(Rpc(url)) as rpc:
        if rpc.chain_id() != chain_id:
            raise ValueError(f"l1_url: must be a node of chain {chain_id}, it is of chain {rpc.chain_id()}")
        sequencers = str(ROLLUP.read(rpc, rollup, "sequencers"))
        members = [str(one) for one in SEQUENCERS.read(rpc, sequencers, "members")]
        keys = {
            to_bytes(str(SEQUENCERS.read(rpc, sequencers, "receipt_key_of", member))) for member in members
        }
        block = rpc.block("latest")
        return L1View(
            epoch=int(SEQUENCERS.read(rpc, sequencers, "epoch")),
            roll_backs=int(ROLLUP.read(rpc, rollup, "roll_backs")),
            tick=int(ROLLUP.read(rpc, rollup, "tip_tick")),
            time_s=to_int(block["timestamp"]) if block else 0,
            keys=frozenset(keys - {to_bytes(NOBODY)}),
        )
