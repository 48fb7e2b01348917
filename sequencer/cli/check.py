"""`fairstrike check`: whether a folder holds what was written to it."""

from pathlib import Path

import click

from sequencer.cli.output import bars, fail, people, write_json

DAMAGED_STATUS = 2


@click.command("check")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
def check(folder: Path, json_target: str | None) -> None:
    """Compare every row, log entry and snapshot of a sequencer's, standby's or watcher's FOLDER with its checksum.

    Changes nothing; the folder may be in use. Exit status 2: something is damaged.
    """
    from sequencer.node.check import as_json, check_folder

    with bars() as progress:
        try:
            checked = check_folder(folder, progress)
        except (OSError, ValueError) as error:
            raise fail(str(error)) from error
    result = as_json(folder, checked)
    write_json(json_target, result)
    if json_target != "-":
        for one in result["stores"]:
            rows = f"{one['rows']:,} row" + ("" if one["rows"] == 1 else "s")
            people.print(f"{one['store']}: {one['state']}, {rows}", highlight=False, markup=False)
            for it in one["findings"]:
                people.print(f"  {it['what']}: {it['remedy']}", highlight=False, markup=False, soft_wrap=True)
    if not result["ok"]:
        raise SystemExit(DAMAGED_STATUS)
