"""One process at a time in a folder."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


class FolderHeld(Exception):
    """Another process holds the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"--folder {folder}: another sequencer holds it")


@contextlib.contextmanager
def only_process(folder: Path, name: str = "lock") -> Iterator[None]:
    """Holds `folder` for this process alone, by a lock on the file `name`; the kernel lets go when it ends, however.

    Raises FolderHeld.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderHeld(folder) from None
        yield
