"""The L1 process, of which nobody has foreseen that it fails: `python -m tests.simulation.nonsense FILE`.

FILE holds how many times it still does.
"""

import sys
from pathlib import Path

from sequencer.l1.rpc import Rpc
from sequencer.rollup import l1_process, l1_worker


class Nonsense(Rpc):
    """Fails in the middle of a look."""

    def block_number(self) -> int:
        left = int(LEFT.read_text())
        if left:
            LEFT.write_text(str(left - 1))
            raise TypeError(f"'NoneType' object is not subscriptable: {self.url}")
        return super().block_number()


if __name__ == "__main__":
    LEFT = Path(sys.argv[1])
    l1_worker.Rpc = Nonsense  # type: ignore[misc]
    l1_process.main()
