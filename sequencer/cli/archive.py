"""The option `--archive`: blobs out of a watcher's folder, for commands that rebuild the state from L1."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sequencer.l1.follower import Kept


def with_archive(command: Callable[..., None]) -> Callable[..., None]:
    """The option."""
    return click.option(
        "--archive",
        type=click.Path(path_type=Path),
        help="folder of any `fairstrike watch`, for blobs that the beacon node has dropped",
    )(command)


@contextmanager
def blobs_in(archive: Path | None) -> "Iterator[Kept | None]":
    """Where to ask for blobs first; None without an archive. Raises ValueError when the folder holds none."""
    from sequencer.proof.archive import KeptBlobs

    if archive is None:
        yield None
        return
    kept = KeptBlobs(archive)
    try:
        yield kept
    finally:
        kept.close()
