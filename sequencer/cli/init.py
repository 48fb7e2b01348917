"""`fairstrike init`: the configuration of an exchange's processes as one commented file."""

import importlib
import json
from pathlib import Path
from typing import Any, Final

import click

from sequencer.cli.output import fail, people
from sequencer.config import FILE, SHARED, options_of, variable_of
from sequencer.wire.option_types import SOCKET, URL

COMMANDS: Final = {
    "node": "sequencer.node.process:main",
    "gateway": "sequencer.api.gateway:main",
    "watch": "sequencer.cli.watch:watch",
    "feed": "sequencer.cli.feed:run",
}
LEFT_OUT: Final = ("manual-clock", "devnet-key")  # of tests and drills
HEAD: Final = """\
# Fairstrike: what the processes of one exchange are started with.
#
# An option counts from the command line first, then from the environment, then from here; else it has its default.
# Keys are the options of `fairstrike COMMAND --help`; what is commented out stands at its default.
# Secrets never stand here: keys come from keystore files (password: FAIRSTRIKE_PASSWORD) or from the environment.
"""


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=FILE, metavar="[FILE]")
@click.option(
    "--l1",
    "l1_url",
    type=URL,
    default="http://127.0.0.1:8545",
    show_default=True,
    help="JSON-RPC URL of the chain",
)
@click.option(
    "--deployment",
    default="var/deployment.json",
    show_default=True,
    help="deployment file, written by `deploy`",
)
@click.option("--folder", default="var/node", show_default=True, help="the sequencer's data folder")
@click.option(
    "--socket",
    "socket_path",
    type=SOCKET,
    help="socket between sequencer and gateways  [default: sequencer.sock in --folder]",
)
@click.option(
    "--feed",
    "feeds",
    multiple=True,
    help="source of prices; once for each feed  [default: three feed processes on this machine]",
)
@click.option(
    "--list", "list_path", help="JSON list: names of options to list  [default: options.json beside FILE]"
)
@click.option("--force", is_flag=True, help="overwrite an existing file")
def init(
    path: Path,
    l1_url: str,
    deployment: str,
    folder: str,
    socket_path: str | None,
    feeds: tuple[str, ...],
    list_path: str | None,
    force: bool,
) -> None:
    """Write FILE (fairstrike.toml), which node, gateway, watch and feed read, with every option and its meaning."""
    from sequencer.market.signed import PORT

    if path.exists() and not force:
        raise fail(f"{path} exists already: --force overwrites it")
    socket_path = socket_path or f"{folder}/sequencer.sock"
    given: dict[str, dict[str, Any]] = {
        "node": {
            "folder": folder,
            "socket": socket_path,
            "feed": list(feeds) or [f"signed:http://127.0.0.1:{PORT + number}" for number in range(3)],
            "list": list_path or str(path.with_name("options.json")),
        },
        "gateway": {"sequencer": socket_path},
        "watch": {"folder": "var/watch"},
        "feed": {},
    }
    text = HEAD + f"\n[{SHARED}]\nl1 = {_literal(l1_url)}\ndeployment = {_literal(deployment)}\n"
    for table in COMMANDS:
        text += "\n" + _table(table, given[table])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise fail(f"{path}: {error.strerror}") from None
    people.print(f"{path} is written; `fairstrike node` reads it from here", highlight=False, markup=False)


def _table(table: str, given: dict[str, Any]) -> str:
    """A table with every option of its command: what is given, the rest as comments at their defaults."""
    module, name = COMMANDS[table].split(":")
    command: click.Command = getattr(importlib.import_module(module), name)
    lines = [f"[{table}]", f"# {(command.help or '').splitlines()[0]}"]
    for key, option in options_of(command).items():
        if key in LEFT_OUT or key in (SHARED, "l1", "deployment"):
            continue
        about = " ".join((option.help or "").split())
        lines.append(f"# {about or key} ({variable_of(table, key)})")
        if key in given:
            lines.append(f"{key} = {_literal(given[key])}")
            continue
        default = option.default if not callable(option.default) else None
        if option.is_flag:
            lines.append(f"# {key} = false")
        elif isinstance(default, str | int | float | Path) and not isinstance(default, bool):
            lines.append(
                f"# {key} = {_literal(default if isinstance(default, int | float) else str(default))}"
            )
        else:
            lines.append(f"# {key} = {'[]' if option.multiple else '…'}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    """A TOML value. JSON's strings, numbers and lists of them are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)
