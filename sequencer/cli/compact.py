"""`fairstrike compact`: moves what is final out of a sequencer's log into its archive."""

import contextlib
from pathlib import Path

import click

from sequencer.cli.options import l1_url_of, on_l1
from sequencer.cli.output import fail, people, show, write_json


@click.command("compact")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@on_l1
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
def compact(folder: Path, l1_url: str | None, deployment: Path, json_target: str | None) -> None:
    """Move the records of final batches from the log of a sequencer's FOLDER to files in FOLDER/archive.

    The sequencer reads them there as before. When none runs on the folder, its files are shortened, too.
    """
    import sqlite3

    from sequencer.l1.deploy import Deployment
    from sequencer.l1.errors import L1Error
    from sequencer.l1.inbox import ROLLUP
    from sequencer.l1.rpc import Rpc
    from sequencer.log.interface import LogError
    from sequencer.log.sqlite import LOG_FILE
    from sequencer.node.archiver import compact as compacted
    from sequencer.node.archiver import end_of
    from sequencer.node.folder import FolderHeld, only_process

    log = folder / LOG_FILE
    try:
        with contextlib.closing(Rpc(l1_url_of(deployment, l1_url))) as rpc:
            at = Deployment.load(deployment)
            at.check(rpc)
            last_final = int(ROLLUP.read(rpc, at.rollup, "last_final"))
        if not log.exists():
            raise fail(f"{folder}: no log in it: give the folder of a sequencer or a standby")
        before = log.stat().st_size
        with contextlib.ExitStack() as held:
            with contextlib.suppress(FolderHeld):  # beside one that runs, which none may start meanwhile
                held.enter_context(only_process(folder))
            done = compacted(folder, end_of(folder, last_final))
    except (L1Error, LogError, OSError, ValueError, sqlite3.Error) as error:
        raise fail(str(error)) from error
    result = {
        "last_final": last_final,
        "moved_packs": done.packs,
        "archived_before_offset": done.end,
        "archive_bytes": done.size,
        "log_bytes_before": before,
        "log_bytes": log.stat().st_size,
        "shortened": done.is_shortened,
    }
    write_json(json_target, result)
    if json_target != "-":
        show("compacted", result)
        if not done.is_shortened:
            people.print("The log is in use: its file keeps its size, and what is free in it is used again.")
