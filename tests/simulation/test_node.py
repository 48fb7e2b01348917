"""The sequencer as an operator starts it: what it refuses to start with, and how it ends."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from sequencer.errors import Code
from sequencer.genesis import genesis_root
from sequencer.local.devnet import devnet_key, devnet_params
from sequencer.log.sqlite import SqliteLog
from tests.simulation.world import ROOT, World, order


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    built = World.build(tmp_path_factory.mktemp("node"), 2)
    yield built
    built.stop()


def refused(
    world: World, environment: dict[str, str] | None = None, devnet: bool = True, **changed: object
) -> str:
    """What a node says that does not start."""
    options: dict[str, object] = {
        "folder": world.folder / "other",
        "deployment": world.folder / "deployment.json",
        "params": world.folder / "params.json",
        "l1": world.chain.url,
        "socket": world.folder / "other.sock",
        **changed,
    }
    arguments = ["--devnet"] if devnet else []
    for name, value in options.items():
        if value is not None:
            arguments += [f"--{name}", str(value)]
    done = subprocess.run(
        [sys.executable, "-m", "sequencer.node.process", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_start__with_parameters_of_another_exchange__is_refused(world: World, tmp_path: Path) -> None:
    of_l1 = world.deployment.genesis_root
    ours = "0x" + genesis_root(devnet_params()).hex()
    says = refused(world, params=None)
    assert "the deployment file has no parameters and --params is not given" in says
    assert f"genesis root is {ours}, the deployment's {of_l1}" in says
    path = tmp_path / "params.json"
    path.write_text("{}")
    says = refused(world, params=path)
    assert f"--params {path}: their genesis root is {ours}, the deployment's {of_l1}" in says
    path.write_text('{"target_per_second": 5}')
    assert "no parameter is called target_per_second" in refused(world, params=path)
    path.write_text('{"maintenance_ppm": 0}')
    assert "maintenance_ppm must be in 1..999999" in refused(world, params=path)
    path.write_text('{"feed_keys": "0x00"}')
    assert "feed_keys must be a list of addresses" in refused(world, params=path)


def test_start__with_the_wrong_key_or_none__is_refused_without_showing_it(
    world: World, tmp_path: Path
) -> None:
    other = devnet_key(5)
    told = refused(world, {"FAIRSTRIKE_SEQUENCER_KEY": "0x" + other.hex()})
    assert f"{world.deployment.sequencer.lower()} leads in epoch 1: start it with --standby" in told
    assert other.hex() not in told
    assert "no key: give --keystore, or FAIRSTRIKE_SEQUENCER_KEY" in refused(world, devnet=False)
    assert "FAIRSTRIKE_SEQUENCER_KEY is not a private key in hex" in refused(
        world, {"FAIRSTRIKE_SEQUENCER_KEY": "0xnonsense"}
    )
    keystore = tmp_path / "key.json"
    keystore.write_text(json.dumps(Account.encrypt(other, "word", kdf="pbkdf2", iterations=2)))
    variable = "FAIRSTRIKE_PASSWORD"
    assert f"its password is taken from {variable}, which is not set" in refused(world, keystore=keystore)
    assert "the sequencer's key: " in refused(world, {variable: "wrong"}, keystore=keystore)
    assert "leads in epoch 1" in refused(world, {variable: "word"}, keystore=keystore)
    assert "leads in epoch 1" in refused(world, {"FAIRSTRIKE_KEYSTORE_PASSWORD": "word"}, keystore=keystore)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"deployment": "/nowhere.json"}, "--deployment: /nowhere.json: not a deployment"),
        ({"feed": "flat:much"}, "--feed flat:much: "),
        ({"feed": "ftp://x"}, "--feed must be signed:URL"),
        ({"list": "/nowhere.json"}, "--list /nowhere.json"),
        ({"batch-bytes": 200_000}, "payload_bytes must be in 1..122016"),
    ],
)
def test_start__with_an_option_that_does_not_fit__says_which(
    world: World, changed: dict[str, object], told: str
) -> None:
    assert told in refused(world, **changed)


def test_second_process__on_the_folder_or_on_the_socket__is_refused(world: World) -> None:
    async def play() -> None:
        node = world.start_node()
        client = await node.connect()
        assert client is not None, world.log_tail()
        assert "another sequencer holds it" in await asyncio.to_thread(refused, world, folder=world.data)
        assert "another sequencer listens there" in await asyncio.to_thread(
            refused, world, socket=world.socket
        )
        assert (await client.ask("status"))["log_error"] == ""
        client.close()
        node.kill()  # leaves lock and socket behind
        assert Path(world.socket).exists()
        again = world.start_node()
        client = await again.connect()
        assert client is not None, world.log_tail()
        client.close()
        assert await asyncio.to_thread(again.terminate) == 0
        assert not Path(world.socket).exists()

    asyncio.run(play())


def test_log__that_is_shorter_than_what_was_posted__stops_the_start(world: World, tmp_path: Path) -> None:
    async def play() -> None:
        node = world.start_node()
        client = await node.connect()
        assert client is not None, world.log_tail()
        await client.until(lambda one: one["batches_stored"] > 0, 60, "a batch")
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0

    asyncio.run(play())
    for path in world.data.glob("batches.sqlite*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    told = refused(world, folder=tmp_path)
    assert "log: it ends at offset 0, and batch " in told
    assert "restore it" in told


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.35])
def test_sigterm_while_starting__ends_it_at_once(world: World, delay_s: float) -> None:
    async def play() -> None:
        node = world.start_node()
        await asyncio.sleep(delay_s)
        code = await asyncio.to_thread(node.terminate)
        assert code in (0, -15)

    asyncio.run(play())


def test_sigterm_under_load__answers_all_that_it_took(world: World) -> None:
    async def play() -> None:
        node = world.start_node()
        client = await node.connect()
        assert client is not None, world.log_tail()
        await client.until(lambda one: one["accounts"] == 2 and one["instruments"] == 8, 60, "accounts")
        instrument = (await client.ask("instruments"))[0]["number"]
        while (await client.ask("ticker", instrument=instrument))["marked_at"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        orders = [
            order(world.domain, number % 2, world.accounts[number % 2], number // 2, instrument, number)
            for number in range(400)
        ]
        client.submit(orders[:200])
        await client.answer()
        ending = asyncio.create_task(asyncio.to_thread(node.terminate))
        client.submit(orders[200:])
        assert await ending == 0
        await asyncio.wait_for(client.lost.wait(), 60)
        answers = {raw: (ok, body) for raw, ok, body in client.answers}
        log = SqliteLog(world.data / "log.sqlite")
        logged = [raw for entry in log.read(0) for raw in entry.raws()]
        log.close()
        for raw, _ in orders[:200]:
            if raw in answers:
                assert answers[raw][0] == (logged.count(raw) == 1)
        assert sum(raw in answers for raw, _ in orders[:200]) == 199  # one was taken out above
        for raw, (ok, body) in answers.items():
            assert ok or body["code"] == Code.NOT_READY or body["code"] > 2_000
            assert logged.count(raw) == ok

    asyncio.run(play())
