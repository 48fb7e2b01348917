"""`sequencer.node.process` on a machine whose clock is off: `python -m tests.simulation.shifted_node FILE …`.

FILE holds the seconds, and may change while it runs. The rest of the arguments are the node's.
"""

import sys
import time
from pathlib import Path

from sequencer.clock import L1Clock
from sequencer.node import process as node


class Shifted(L1Clock):
    """Its wall clock is off by what the file says; the monotonic one is the machine's."""

    def __init__(self, path: Path) -> None:
        super().__init__(wall=lambda: time.time() + float(path.read_text() or 0))


if __name__ == "__main__":
    node.L1Clock = lambda: Shifted(Path(sys.argv[1]))  # type: ignore[misc,assignment]
    node.main(sys.argv[2:], prog_name="shifted_node")
