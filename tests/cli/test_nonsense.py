"""Every parameter of every command, as click lists them, given nonsense: the last line names it, limit and value.

A new command or option is covered as it is added. One that takes any text must say here who checks it, and is run.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from eth_account import Account

from sequencer.cli import main
from sequencer.cli.replay_market import Bars
from sequencer.l1.chains import start
from sequencer.l1.deploy import Deployment
from sequencer.wire.option_types import Host, Label, NodeName, SocketAddress

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from up_support import VARIABLES

VALUES = {"chain_id": 31_337, "deploy_block": 1, "params": None, "data": "calldata"}
DEPLOYMENT = json.dumps(
    {
        one.name: VALUES.get(one.name, 0 if one.type in (int, "int") else "0x" + "11" * 20)
        for one in dataclasses.fields(Deployment)
    }
)
KEYSTORE = json.dumps(Account.encrypt(b"\x11" * 32, "word", kdf="pbkdf2", iterations=2))
NONSENSE = ["nonsense", "", "-1", "NaN", "1e999", "9" * 400, "💥", "0x", "a b\tc", "1.00000001"]
# Texts that are checked when the command runs: by what they mean there. They are run below.
TEXTS = {
    ("up", "--feed"),
    ("cluster up", "--feed"),
    ("node", "--feed"),
    ("node", "--gateway-user"),
    ("gateway", "--sequencer-user"),
    ("init", "--feed"),
    ("feed run", "--source"),
    ("demo", "--lie"),
    ("chain", "underlying"),
    ("chain", "rest"),
    ("chain", "--expiry"),
    ("order place", "side"),
    ("force order", "side"),
    ("price", "--forward"),
    ("price", "--strike"),
    ("price", "--iv"),
    ("price", "--price"),
    ("init", "--deployment"),
    ("init", "--folder"),
    ("init", "--list"),
    ("order history", "--cursor"),
    ("fills", "--cursor"),
    ("settlements", "--cursor"),
    ("statement", "--cursor"),
}
ADDRESS = "0x" + "11" * 20
GOOD = {  # of what a command must have
    "instrument": "BTC-26DEC26-50000-C",
    "side": "buy",
    "quantity": "1",
    "price": "1",
    "seq": "1",
    "amount": "1",
    "number": "0",
    "to": "2",
    "target": "2",
    "account": "2",
    "fraction": "1",
    "duration": "1d",
    "address": ADDRESS,
    "folder": ".",
    "tape": ".",
    "path": "new.toml",
    "file": "-",
    "source": "env:FAIRSTRIKE_KEY",
    "--host": "10.0.0.1",
    "--index": ".",
    "--folder": ".",
    "--deployment": "none.json",
    "--l1": "http://127.0.0.1:1",
    "--socket": "s.sock",
    "--sequencer": "s.sock",
    "--source": "flat:1",
    "--quantity": "1",
    "--type": "call",
    "--forward": "1",
    "--strike": "1",
    "--iv": "1",
    "--expires-in": "1",
}


def commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by their words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))
    else:
        yield " ".join(path), command


ALL = dict(commands())


FREE = (click.Path, click.File, Bars, SocketAddress, Host, Label, NodeName)  # which much of the nonsense is


def name_of(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return str(parameter.name)


def takes_a_value(parameter: click.Parameter) -> bool:
    return not (isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count))


PARAMETERS = [
    (words, name_of(parameter))
    for words, command in ALL.items()
    for parameter in command.params
    if takes_a_value(parameter)
]


def arguments(words: str, given: dict[str, str]) -> list[str]:
    """A command line that is right but for what is `given`."""
    options, positional = [], []
    for parameter in ALL[words].params:
        name = name_of(parameter)
        if not takes_a_value(parameter):
            continue
        if name in given:
            value = given[name]
        elif parameter.required or (words, name) == ("order amend", "--quantity"):
            value = GOOD[name]
        elif isinstance(parameter, click.Argument) and any(one in given for one in after(words, name)):
            value = GOOD.get(name, "")
        else:
            continue
        if isinstance(parameter, click.Option):
            options += [f"{name}={value}"]
        else:
            positional.append(value)
    return [*words.split(), *options, "--", *positional]


def after(words: str, name: str) -> list[str]:
    """The arguments behind one."""
    names = [name_of(one) for one in ALL[words].params if isinstance(one, click.Argument)]
    return names[names.index(name) + 1 :]


def run(args: list[str], **variables: str) -> Result:
    separate = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}  # click < 8.2
    env: dict[str, str | None] = {f"FAIRSTRIKE_{name}": None for name in VARIABLES}
    env |= {"FAIRSTRIKE_DEBUG": "1", **{f"FAIRSTRIKE_{name}": value for name, value in variables.items()}}
    return CliRunner(**separate).invoke(main, args, input="", env=env)


def check_refused(result: Result, *says: str) -> None:
    """No traceback: a status, and a last line of an error with these words."""
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2), result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: "), result.stderr
    assert len(last) < 1_200
    for one in says:
        assert one.lower() in last.lower(), (one, last)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, and not for ever."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands read their parameters and do nothing."""
    for command in ALL.values():
        monkeypatch.setattr(command, "callback", lambda **_: None)


def test_every_text__is_of_a_type_that_checks_it_or_is_named_here() -> None:
    texts = {
        (words, name_of(one))
        for words, command in ALL.items()
        for one in command.params
        if takes_a_value(one)
        and isinstance(one.type, click.types.StringParamType | click.types.UnprocessedParamType)
    }
    texts -= {(words, "--json") for words in ALL}  # a file's name, or -
    assert texts == TEXTS
    numbers = {
        (words, name_of(one))
        for words, command in ALL.items()
        for one in command.params
        if takes_a_value(one) and type(one.type) in (click.types.IntParamType, click.types.FloatParamType)
    }
    assert numbers == set(), "numbers without a limit"


@pytest.mark.parametrize(("words", "name"), PARAMETERS)
@pytest.mark.usefixtures("idle")
def test_every_parameter__given_nonsense__is_named_with_limit_and_value(words: str, name: str) -> None:
    parameter = next(one for one in ALL[words].params if name_of(one) == name)
    is_free = isinstance(parameter.type, FREE) or name == "--json" or (words, name) in TEXTS
    hint = parameter.get_error_hint(click.Context(ALL[words])).strip("'[]").split(" / ")[0]
    refused = 0
    for value in NONSENSE:
        result = run(arguments(words, {name: value}))
        if result.exit_code == 0:
            continue
        refused += 1
        shown = value if value.isprintable() and value.isascii() else ""
        check_refused(result, "" if is_free else hint, shown[:40])
    assert is_free or refused >= len(NONSENSE) - 2, (refused, name)
    assert not isinstance(parameter.type, SocketAddress | Host | Label) or refused >= 3, (refused, name)


@pytest.mark.parametrize(("words", "name"), sorted(TEXTS - {("chain", "rest")}))
@pytest.mark.parametrize("value", ["nonsense", "-1", "NaN", "9" * 400])
def test_every_text_that_the_command_checks__is_refused_in_one_line(
    words: str, name: str, value: str
) -> None:
    beside = {
        "chain": {"--api": "http://127.0.0.1:1"},
        **{one: {"--api": "http://127.0.0.1:1"} for one, of in TEXTS if of == "--cursor"},
        "up": {"--folder": ".", "--port": "0"},
        "price": {one: GOOD[one] for one in ("--type", "--forward", "--strike", "--iv", "--expires-in")},
        "feed run": {"--deployment": "here.json"},
        "node": {"--deployment": "here.json"},
    }
    given = {**beside.get(words, {}), name: value}
    if name == "--price":
        del given["--iv"]
    Path("here.json").write_text(DEPLOYMENT)
    result = run(arguments(words, given), KEY="11" * 32, SEQUENCER_KEY="11" * 32)
    if words == "init":  # it writes what it is given; `node` reads and checks it
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return
    says = {"chain": "127.0.0.1:1", "node": ""}  # where the question is not reached
    if name == "--cursor":
        says[words] = "127.0.0.1:1"
    check_refused(result, says.get(words, value[:20]))


# --- what stands in a command's way ---------------------------------------------------------------

WITH_API = [words for words, one in ALL.items() if any(name_of(p) == "--api" for p in one.params)]
WITH_L1 = [
    words for words, one in ALL.items() if any(name_of(p) == "--l1" for p in one.params) and words != "init"
]
WITH_KEY = [words for words, one in ALL.items() if any(name_of(p) == "--devnet-key" for p in one.params)]
KEYLESS = {
    "account",
    "positions",
    "order list",
    "signer list",
    "watch",
    "receipt verify",
    "exit",
    "faucet",
}  # they can do without


@pytest.mark.parametrize("words", [one for one in WITH_API if one != "faucet"])  # it looks at L1 first
def test_gateway__that_is_not_there__is_named(words: str) -> None:
    result = run(
        arguments(words, {"--api": "http://127.0.0.1:1", "--l1": "http://127.0.0.1:1"}), KEY="11" * 32
    )
    check_refused(result, "127.0.0.1:1")


@pytest.mark.parametrize("words", WITH_L1)
def test_deployment__that_is_not_there__is_named(words: str) -> None:
    given = {"--l1": "http://127.0.0.1:1", "--deployment": "none.json"}
    result = run(arguments(words, given), KEY="11" * 32, SEQUENCER_KEY="11" * 32, API="http://127.0.0.1:1")
    asks_first = words in ("claim", "force order", "devchain later")
    check_refused(result, "127.0.0.1:1" if asks_first else "none.json: not a deployment: No such file")


@pytest.mark.parametrize("words", [one for one in WITH_L1 if one != "node"])  # it waits for its L1
def test_l1__that_is_down__is_named(words: str, tmp_path: Path) -> None:
    (tmp_path / "here.json").write_text(DEPLOYMENT)
    given = {"--l1": "http://127.0.0.1:1", "--deployment": "here.json"}
    result = run(arguments(words, given), KEY="11" * 32, API="http://127.0.0.1:1")
    check_refused(result, "127.0.0.1:1")


@pytest.mark.parametrize("words", [one for one in WITH_KEY if one not in KEYLESS])
@pytest.mark.parametrize(
    ("file", "password", "says"),
    [
        (None, None, "no key: give --keystore FILE"),
        ("missing.json", None, "missing.json"),
        ("empty.json", "word", "empty.json"),
        ("none.json", "word", "none.json: no web3 keystore"),
        ("key.json", "wrong", "key.json: MAC mismatch: the password (FAIRSTRIKE_PASSWORD) is not the file's"),
    ],
)
def test_key__that_is_missing_or_locked__is_named(
    words: str, file: str | None, password: str | None, says: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "key.json").write_text(KEYSTORE)
    given = {"--l1": "http://127.0.0.1:1"} | ({"--keystore": file} if file else {})
    variables = {"PASSWORD": password} if password else {}
    check_refused(run(arguments(words, given), API="http://127.0.0.1:1", **variables), says)


def test_unexpected_error__is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr(ALL["status"], "callback", broken)
    result = CliRunner().invoke(main, ["status"], env={"FAIRSTRIKE_DEBUG": None})
    assert result.output == (
        "Error: ZeroDivisionError: by nought (unexpected error; FAIRSTRIKE_DEBUG=1 shows the traceback)\n"
    )


@pytest.fixture(scope="module")
def chain() -> Iterator[str]:
    """A development chain on which nothing is deployed."""
    with start("pyevm") as running:
        yield running.url


@pytest.mark.parametrize(
    "words", [one for one in WITH_L1 if one not in ("claim", "force order", "devchain later")]
)
def test_deployment__of_another_chain__is_refused_by_both_numbers(
    words: str, chain: str, tmp_path: Path
) -> None:
    (tmp_path / "here.json").write_text(DEPLOYMENT.replace("31337", "1"))
    given = {"--l1": chain, "--deployment": "here.json"}
    result = run(arguments(words, given), KEY="11" * 32, SEQUENCER_KEY="11" * 32)
    check_refused(result, "deployed on chain 1, the node is on 31337")
