"""The configuration file: what counts before what, what is refused and where, and that `init` writes what is read."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.cli.init import COMMANDS
from sequencer.config import TABLES, options_of, with_config


@click.command()
@with_config("node")
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--l1", "l1_url", default="http://nowhere")
@click.option("--poll", "poll_s", type=float, default=0.5)
@click.option("--rebond", is_flag=True)
@click.option("--feed", "feeds", multiple=True)
def command(folder: Path, l1_url: str, poll_s: float, rebond: bool, feeds: tuple[str, ...]) -> None:
    click.echo(json.dumps([str(folder), l1_url, poll_s, rebond, list(feeds)]))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(command, arguments, env=env)
    return done.exit_code, done.output


FILE = """
[exchange]
l1 = "http://one"
deployment = "elsewhere.json"
[node]
folder = "kept"
poll = 2
rebond = true
feed = ["flat:1", "flat:2"]
"""


def test_options__come_from_the_line_then_the_environment_then_the_file() -> None:
    Path("fairstrike.toml").write_text(FILE)
    assert json.loads(run()[1]) == ["kept", "http://one", 2.0, True, ["flat:1", "flat:2"]]
    env = {
        "FAIRSTRIKE_NODE_POLL": "3",
        "FAIRSTRIKE_NODE_REBOND": "false",
        "FAIRSTRIKE_NODE_FEED": "flat:3,flat:4",
    }
    assert json.loads(run(env=env)[1]) == ["kept", "http://one", 3.0, False, ["flat:3", "flat:4"]]
    assert json.loads(run("--poll", "4", "--feed", "flat:5", env=env)[1])[2:] == [4.0, False, ["flat:5"]]


def test_file__of_another_name__is_named() -> None:
    Path("mine.toml").write_text(FILE)
    assert run()[0] == 2  # not found by itself
    assert json.loads(run("--config", "mine.toml")[1])[0] == "kept"
    assert json.loads(run(env={"FAIRSTRIKE_CONFIG": "mine.toml"})[1])[0] == "kept"
    code, says = run("--config", "none.toml")
    assert code == 2
    assert "none.toml: No such file" in says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[node]\nfoldr = 1\n", "[node] foldr: unknown; there are feed, folder, l1, poll, rebond"),
        ('[node]\npoll = "soon"\n', "[node] poll: 'soon' is not a valid float"),
        ("[node]\nrebond = 1\n", "[node] rebond: must be true or false, got 1"),
        ("[node]\nfolder = [1]\n", "[node] folder: must be a text or a number"),
        ("[nod]\nfolder = 1\n", "nod: no such table; there are [exchange], [node]"),
        ("[node\n", "not TOML"),
        (
            '[node]\nsequencer-key = "0x1"\n',
            "[node] sequencer-key: secrets stand in keystore files or in the environment",
        ),
    ],
)
def test_file__that_does_not_fit__is_refused_with_its_place(text: str, says: str) -> None:
    Path("fairstrike.toml").write_text(text)
    code, said = run("--folder", "x")
    assert code == 2
    assert says in said
    assert "fairstrike.toml" in said


def test_variable__that_stands_for_nothing__is_refused() -> None:
    code, says = run("--folder", "x", env={"FAIRSTRIKE_NODE_POL": "3"})
    assert code == 2
    assert "FAIRSTRIKE_NODE_POL: stands for no option; there are FAIRSTRIKE_NODE_FEED" in says
    code, says = run("--folder", "x", env={"FAIRSTRIKE_NODE_POLL": "soon"})
    assert code == 2
    assert "FAIRSTRIKE_NODE_POLL: 'soon' is not a valid float" in says


def test_init__writes_every_option_of_every_command_and_nothing_over() -> None:
    runner = CliRunner()
    done = runner.invoke(main, ["init"])
    assert done.exit_code == 0, done.output
    text = Path("fairstrike.toml").read_text()
    whole = tomllib.loads(text)
    assert tuple(whole) == TABLES
    for table, where in COMMANDS.items():
        module, name = where.split(":")
        for key in options_of(getattr(__import__(module, fromlist=[name]), name)):
            if key not in ("l1", "deployment", "manual-clock", "devnet-key"):
                part = text.partition(f"\n[{table}]\n")[2].partition("\n[")[0]
                assert f"\n{key} = " in part or f"\n# {key} = " in part, (table, key)
    again = runner.invoke(main, ["init"])
    assert again.exit_code == 1
    assert "exists already" in again.output
    assert runner.invoke(main, ["init", "--force"]).exit_code == 0


def test_keygen__makes_keystores_that_nobody_else_reads_and_what_params_take() -> None:
    runner = CliRunner()
    done = runner.invoke(
        main, ["feed", "keygen", "--count", "2", "--json", "-"], env={"FAIRSTRIKE_PASSWORD": "x"}
    )
    assert done.exit_code == 0, done.output
    addresses = json.loads(done.output)["feed_keys"]
    for number, address in enumerate(addresses):
        path = Path(f"var/feeds/feed-{number}.json")
        assert path.stat().st_mode & 0o077 == 0
        assert json.loads(path.read_text())["address"].lower() in address.lower()
    again = runner.invoke(main, ["feed", "keygen", "--count", "2"], env={"FAIRSTRIKE_PASSWORD": "x"})
    assert again.exit_code == 1
    assert "a feed key is never overwritten" in again.output


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["node", "--folder", "f"], {}, "Missing option '--deployment'"),
        (["feed", "run", "--source", "flat:1"], {}, "set FAIRSTRIKE_FEED_KEY"),
        (["feed", "run", "--source", "flat:1"], {"FAIRSTRIKE_FEED_KEY": "zz"}, "must hold a private key"),
        (["feed", "run", "--source", "flat:1", "--devnet-feed", "0"], {}, "--deployment"),
        (["gateway"], {}, "Missing option '--sequencer'"),
    ],
)
def test_process__that_cannot_start__says_why_without_a_traceback(
    arguments: list[str], env: dict[str, str], says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from sequencer.cli import main; main()", *arguments],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
