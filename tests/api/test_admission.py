"""Who may vouch for signers: by the kernel's word on a Unix socket, by a secret over 127.0.0.1."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from exchange_fixture import PATIENCE_S

from sequencer.api import admission, ipc
from sequencer.api.admission import LINK_SECRET
from sequencer.api.ipc import Query, Submit, connect, encode_frame
from sequencer.api.ipc_server import IpcServer

NOBODY = 65_534
SECRET = "a secret of thirty-two characters"
ITEMS = [(1, b"record", b"\x11" * 20, "")]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's process needs root to be started")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def listening(address: str, users: frozenset[int] | None = None) -> tuple[IpcServer, list[Any], str]:
    """A server, what is submitted to it, and where it listens."""
    heard: list[Any] = []
    server = IpcServer(lambda _, items: heard.extend(items), lambda *_: None, users=users)
    await server.start(address)
    if address.startswith("127."):
        address = f"127.0.0.1:{server._servers[0].sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    return server, heard, address


async def write_and_read(address: str, data: bytes) -> bytes:
    """All that comes back after raw bytes, until the server closes."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    out = b""
    try:
        while part := await reader.read(65_536):
            out += part
    except ConnectionError:
        pass
    writer.close()
    return out


def submit_as(uid: int, path: str) -> int:
    """Exit status of a process of another user that connects, submits, and waits to be cut off (0) or heard (3)."""
    code = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(5)\n"
        "try:\n"
        f"    s.connect({path!r}); s.sendall(bytes.fromhex({encode_frame(Submit(ITEMS)).hex()!r}))\n"
        "    sys.exit(0 if not s.recv(1) else 4)\n"
        "except PermissionError: sys.exit(13)\n"
        "except ConnectionError: sys.exit(0)\n"
        "except TimeoutError: sys.exit(3)\n"
    )
    return subprocess.run([sys.executable, "-S", "-c", code], check=False, timeout=30).returncode


@as_root
def test_another_users_process__does_not_get_in__whatever_the_sockets_mode(tmp_path: Path) -> None:
    async def scenario() -> None:
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        server, heard, path = await listening(str(tmp_path / "s"))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert await asyncio.to_thread(submit_as, NOBODY, path) == 13
        os.chmod(path, 0o666)  # whatever a umask, an ACL or an administrator did
        assert await asyncio.to_thread(submit_as, NOBODY, path) == 0
        assert heard == []
        await server.close()

        server, heard, path = await listening(str(tmp_path / "s"), admission.trusted_users(["65534"]))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
        assert await asyncio.to_thread(submit_as, NOBODY, path) == 3
        assert heard == ITEMS
        assert await asyncio.to_thread(submit_as, NOBODY - 1, path) == 0
        assert heard == ITEMS
        await server.close()

    run(scenario)


@as_root
def test_gateway__does_not_believe_another_users_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.seteuid(NOBODY)  # the kernel notes who called listen
        try:
            listener.listen()
        finally:
            os.seteuid(0)

        async def scenario() -> None:
            with pytest.raises(PermissionError, match="not the sequencer's user"):
                await connect(path, lambda *_: None)
            (await connect(path, lambda *_: None, None, admission.trusted_users(["65534"]))).close()

        run(scenario)


def test_socket__in_a_folder_that_others_may_write_to__is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        for mode, is_good in ((0o777, False), (0o775, False), (0o1777, True), (0o755, True)):
            tmp_path.chmod(mode)
            if is_good:
                await (await listening(str(tmp_path / "s")))[0].close()
            else:
                with pytest.raises(PermissionError, match="chmod go-w"):
                    await listening(str(tmp_path / "s"))

    run(scenario)


def test_link_over_tcp__without_the_secret__is_heard_by_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(LINK_SECRET, SECRET)

    async def scenario() -> None:
        server, heard, address = await listening("127.0.0.1:0")
        submission = encode_frame(Submit(ITEMS))
        for data in (
            submission,
            encode_frame(ipc.Proof(bytes(32), bytes(32))) + submission,
            encode_frame(ipc.Proof(bytes(32), b"")),
            encode_frame(Query(1, "status", {})),
            (ipc.FRAME_BYTES_MAX).to_bytes(4, "big"),  # no memory for who has shown nothing
        ):
            back = await write_and_read(address, data)
            assert len(back) < 64  # a challenge at most
        assert not heard
        assert not server.connections

        good = await connect(address, lambda *_: None)
        good.send(Submit(ITEMS))
        while not heard:  # noqa: ASYNC110  # both ends are on this loop
            await asyncio.sleep(0.001)
        assert heard == ITEMS
        monkeypatch.setenv(LINK_SECRET, SECRET.upper())
        with pytest.raises(ConnectionError, match="did not show who it is"):
            await connect(address, lambda *_: None)
        monkeypatch.setenv(LINK_SECRET, "short")
        with pytest.raises(ValueError, match="has 5 bytes"):
            await connect(address, lambda *_: None)
        monkeypatch.delenv(LINK_SECRET)
        with pytest.raises(ValueError, match="is not set"):
            await listening("127.0.0.1:0")
        await server.close()

    run(scenario)
    assert SECRET not in caplog.text


def test_proof__of_one_connection__is_none_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is overheard is of no use, nor is a sequencer's answer as a gateway's."""
    monkeypatch.setenv(LINK_SECRET, SECRET)
    secret, own, others = SECRET.encode(), b"\1" * 32, b"\2" * 32
    mac = admission.proof(secret, admission.FROM_GATEWAY, own, others)
    assert admission.is_proof(mac, secret, admission.FROM_GATEWAY, own, others)
    assert not admission.is_proof(mac, secret, admission.FROM_GATEWAY, own, b"\3" * 32)
    assert not admission.is_proof(mac, secret, admission.FROM_SEQUENCER, own, others)
    assert not admission.is_proof(mac, secret, admission.FROM_SEQUENCER, others, own)


def test_stranger_over_tcp__that_says_nothing__is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LINK_SECRET, SECRET)
    monkeypatch.setattr("sequencer.api.ipc.ADMISSION_S", 0.05)

    async def scenario() -> None:
        server, _, address = await listening("127.0.0.1:0")
        assert len(await write_and_read(address, b"")) < 64
        await server.close()

    run(scenario)


def test_user__that_nobody_is__is_an_error() -> None:
    with pytest.raises(ValueError, match="no such user"):
        admission.trusted_users(["surely-nobody-has-this-name"])
    assert admission.trusted_users(["root"]) == {0, os.geteuid()}
