"""One commented file for the processes of an exchange: `fairstrike.toml`, which `fairstrike init` writes.

`node`, `gateway`, `watch` and `feed run` read their own table of it, and `[exchange]` for what they share. The keys are
the long options without their dashes (`batch-interval = 2.0`). What is given on the command line counts before the
environment (`FAIRSTRIKE_NODE_BATCH_INTERVAL`: command and option, in capitals), that before the file, that before the
default. No secret stands in the file.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

FILE: Final = "fairstrike.toml"
VARIABLE: Final = "FAIRSTRIKE_CONFIG"
SHARED: Final = "exchange"
TABLES: Final = (SHARED, "node", "gateway", "watch", "feed")
BYTES_MAX: Final = 1 << 20
PATHS: Final = ("tls-key",)  # names of files, not secrets
SECRET_WORDS: Final = ("key", "keys", "password", "secret", "mnemonic")
TRUE: Final = ("1", "true", "yes", "on")
FALSE: Final = ("0", "false", "no", "off")
OTHERS: Final = ("FAIRSTRIKE_FEED_KEY", "FAIRSTRIKE_FEED_KEYS")  # no options, though they look like some


def with_config(table: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets a command take what is not given to it from `table` of a configuration file."""

    def read(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
        ctx.default_map = {**(ctx.default_map or {}), **_defaults(ctx, table, path)}

    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=VARIABLE,
        callback=read,
        is_eager=True,
        expose_value=False,
        help=f"file with a table [{table}] (docs/OPERATIONS.md)  [default: {FILE}, if it is there]",
    )


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that can stand in the file, by key."""
    return {
        max(parameter.opts, key=len).lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in ("config", "help")
    }


def variable_of(table: str, key: str) -> str:
    """The environment variable that stands for a key of a table."""
    return f"FAIRSTRIKE_{table}_{key}".upper().replace("-", "_")


def _defaults(ctx: click.Context, table: str, path: Path | None) -> dict[str, Any]:
    """What environment and file say of this command's options, by parameter name. UsageError names the place."""
    options = options_of(ctx.command)
    out: dict[str, Any] = {}
    if path is None and Path(FILE).is_file():
        path = Path(FILE)
    if path is not None:
        whole = load(path)
        for key, value in whole.get(SHARED, {}).items():
            if key in options:  # what another process needs is no fault here
                out[str(options[key].name)] = _fitting(f"{path}: [{SHARED}] {key}", value, options[key])
        for key, value in whole.get(table, {}).items():
            if key not in options:
                raise click.UsageError(
                    f"{path}: [{table}] {key}: unknown; there are {', '.join(sorted(options))}"
                )
            out[str(options[key].name)] = _fitting(f"{path}: [{table}] {key}", value, options[key])
    known = {variable_of(table, key): option for key, option in options.items()}
    for variable in sorted(os.environ):
        if not variable.startswith(variable_of(table, "")) or variable in OTHERS:
            continue
        if variable not in known:
            raise click.UsageError(f"{variable}: stands for no option; there are {', '.join(sorted(known))}")
        option = known[variable]
        out[str(option.name)] = _fitting(variable, _read(os.environ[variable], option), option)
    return out


def _read(text: str, option: click.Option) -> Any:
    """What a variable's text means: a truth for a flag, a list with commas for what can be given many times."""
    if option.is_flag:
        return text.lower() in TRUE if text.lower() in TRUE + FALSE else text
    return [one.strip() for one in text.split(",") if one.strip()] if option.multiple else text


def load(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a file. Raises UsageError, with the place, for what is no configuration."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise click.UsageError(f"{path}: {path.stat().st_size} bytes, at most {BYTES_MAX}")
        whole = tomllib.loads(path.read_text())
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: not TOML: {error}") from None
    for table, content in whole.items():
        if table not in TABLES or not isinstance(content, Mapping):
            raise click.UsageError(f"{path}: {table}: no such table; there are [{'], ['.join(TABLES)}]")
        for name in content:
            if name not in PATHS and any(word in name.split("-") for word in SECRET_WORDS):
                raise click.UsageError(
                    f"{path}: [{table}] {name}: secrets stand in keystore files or in the environment, never here"
                )
    return whole


def _fitting(where: str, value: Any, option: click.Option) -> Any:
    """`value` as the option takes it: a list where it may be given many times, a flag as true or false."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where}: must be true or false, got {value!r}")
        return value
    each = value if option.multiple and isinstance(value, list) else [value]
    for one in each:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            kind = "a list of texts or numbers" if option.multiple else "a text or a number"
            raise click.UsageError(f"{where}: must be {kind}, got {value!r}")
        try:  # here, where the place is known: click would name the option alone
            option.type.convert(str(one), option, None)
        except click.BadParameter as error:
            raise click.UsageError(f"{where}: {error.message}") from None
    return [str(one) for one in each] if option.multiple else str(value)
