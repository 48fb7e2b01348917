"""Lock of a folder: one process at a time."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WAIT_S: Final = 3.0  # for the L1 process of a sequencer that was killed: it ends by itself, in milliseconds
LOOK_S: Final = 0.01


class FolderHeld(Exception):
    """Another process holds the folder."""

    def __init__(self, folder: Path) -> None:
        what = "another sequencer holds it, or the L1 process of one that was killed"
        super().__init__(f"--folder {folder}: {what}")


@contextlib.contextmanager
def only_process(folder: Path, name: str = "lock") -> Iterator[int]:
    """Holds `folder` by a lock on the file `name`, for this process and for those that it gives the lock's descriptor,
    which is yielded; the kernel lets go when all of them have ended, however.

    Raises FolderHeld.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until_s = time.monotonic() + WAIT_S
    with (folder / name).open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise FolderHeld(folder) from None
            time.sleep(LOOK_S)
        yield lock.fileno()
