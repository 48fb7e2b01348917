"""The link over TLS: both sides show a certificate of their role, and nobody else is heard."""

import asyncio
import logging
import ssl
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from exchange_fixture import PATIENCE_S

from sequencer.api import ipc
from sequencer.api.certificates import Authority, CertificateError, write_cluster, write_pair
from sequencer.api.ipc import Answer, Query, Submit, connect, encode_frame
from sequencer.api.ipc_server import IpcServer
from sequencer.api.tls import GATEWAY, SEQUENCER, Tls, TlsError, tls_of

ITEMS = [(1, b"record", b"\x11" * 20, "")]
HOST = "127.0.0.1"


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def pair(folder: Path, name: str, by: Authority, role: str, days: int = 1, host: str = HOST) -> Tls:
    """Files of a certificate and key, trusting the authority of `folder`."""
    certificate, key = by.certify(role, name, [host] if role == SEQUENCER else [], days)
    write_pair(folder / f"{name}.crt", certificate, key)
    return Tls(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Tls, Tls, Authority]:
    """Of a sequencer, of a gateway, and who has signed them."""
    write_cluster(tmp_path, [HOST], ["1"])
    authority = Authority.load(tmp_path)
    ca = tmp_path / "ca.crt"
    node = Tls(ca, tmp_path / f"sequencer-{HOST}.crt", tmp_path / f"sequencer-{HOST}.key")
    return node, Tls(ca, tmp_path / "gateway-1.crt", tmp_path / "gateway-1.key"), authority


async def listening(files: Tls) -> tuple[IpcServer, list[Any], str]:
    """A server over TLS that answers each query with its parameters, what is submitted to it, and where it listens."""
    heard: list[Any] = []

    def on_query(connection: ipc.Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        connection.send_answer(rid, True, params["of"])

    server = IpcServer(lambda _, items: heard.extend(items), on_query, files=files, position=lambda: 7)
    await server.start(f"tls://{HOST}:0")
    port = server._servers[0].sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    return server, heard, f"tls://{HOST}:{port}"


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # both ends are on this loop
        await asyncio.sleep(0.001)


async def said(caplog: pytest.LogCaptureFixture, what: str) -> None:
    """Returns once the log says it."""
    await until(lambda: what in caplog.text)


async def refused(address: str, files: Tls) -> str:
    """Why a connection that submits is lost, whether the handshake or the first bytes after it end it."""
    lost: list[str] = []
    try:
        connection = await connect(address, lambda *_: None, lambda _, why: lost.append(why), files=files)
    except OSError as error:
        return str(error)
    connection.send(Submit(ITEMS))
    await connection.closed.wait()
    return lost[0]


def test_gateway_and_sequencer__with_certificates_of_their_roles__talk_over_tls_1_3(
    files: tuple[Tls, Tls, Authority],
) -> None:
    node, gateway, _ = files

    async def scenario() -> None:
        server, heard, address = await listening(node)
        answers: list[Any] = []
        link = await connect(address, lambda _, message: answers.append(message), files=gateway)
        assert link._transport is not None
        assert link._transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        big = bytes(3_000_000)
        link.send(Submit(ITEMS))
        link.send(Query(1, "echo", {"of": big}))
        await until(lambda: answers)
        assert heard == ITEMS
        assert answers == [Answer(1, True, big, 7)]
        assert [one.peer for one in server.connections] == [f"1 at {HOST}"]
        await server.close()
        await link.closed.wait()

    run(scenario)


def test_certificate__that_is_not_a_gateways__is_refused_and_said_to_be(
    files: tuple[Tls, Tls, Authority], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node, _, authority = files
    other = Authority.make("another authority")
    cases = {
        "is for sequencer, and must be for gateway": pair(tmp_path, "node", authority, SEQUENCER),
        "is for watcher, and must be for gateway": pair(tmp_path, "watcher", authority, "watcher"),
        "certificate has expired": pair(tmp_path, "old", authority, GATEWAY, days=-1),
        "unable to get local issuer certificate": pair(tmp_path, "foreign", other, GATEWAY),
    }

    async def scenario() -> None:
        server, heard, address = await listening(node)
        for expected, shown in cases.items():
            caplog.clear()
            await refused(address, shown)
            await said(caplog, expected)
        assert not heard
        assert not server.connections
        await server.close()

    with caplog.at_level(logging.WARNING):
        run(scenario)


def test_who_shows_no_certificate_or_speaks_no_tls__is_heard_by_nobody(
    files: tuple[Tls, Tls, Authority], caplog: pytest.LogCaptureFixture
) -> None:
    node, gateway, _ = files

    async def scenario() -> None:
        server, heard, address = await listening(node)
        port = int(address.rpartition(":")[2])
        nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nameless.load_verify_locations(gateway.ca)
        old = gateway.client()
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
        for context, expected in (
            (nameless, "it has shown no certificate"),
            (old, "unsupported protocol"),
            (None, ""),
        ):
            caplog.clear()
            try:
                reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
                writer.write(encode_frame(Submit(ITEMS)))
                assert not await reader.read()
                writer.close()
            except OSError:  # the alert may come in the handshake
                pass
            await said(caplog, "is not let in: " + expected)
        assert not heard
        assert not server.connections
        await server.close()

    with caplog.at_level(logging.WARNING):
        run(scenario)


def test_gateway__believes_no_sequencer_of_another_authority_role_or_host(
    files: tuple[Tls, Tls, Authority], tmp_path: Path
) -> None:
    _, gateway, authority = files
    other = Authority.make("another authority")
    ends = authority.certify(SEQUENCER, "two", [HOST], 1)
    write_pair(tmp_path / "two.crt", *ends)
    cases = {
        "unable to get local issuer certificate": pair(tmp_path, "foreign", other, SEQUENCER),
        "certificate has expired": pair(tmp_path, "old", authority, SEQUENCER, days=-1),
        "IP address mismatch": pair(tmp_path, "elsewhere", authority, SEQUENCER, host="10.1.2.3"),
    }

    async def scenario() -> None:
        for expected, shown in cases.items():
            server, heard, address = await listening(shown)
            assert expected in await refused(address, gateway)
            assert not heard
            await server.close()

    run(scenario)


def test_gateways_certificate__does_not_make_a_sequencer(files: tuple[Tls, Tls, Authority]) -> None:
    _, gateway, _ = files

    async def scenario() -> None:
        server, heard, address = await listening(gateway)
        assert "certificate" in await refused(address, gateway)
        assert not heard
        await server.close()

    run(scenario)


def test_address_beyond_this_machine__needs_tls_and_tls_its_files() -> None:
    async def scenario() -> None:
        for address in ("10.0.0.1:7000", "tls://10.0.0.1:7000"):
            with pytest.raises(ValueError, match="tls"):
                await connect(address, lambda *_: None)
            with pytest.raises(ValueError, match="tls"):
                await IpcServer(lambda *_: None, lambda *_: None).start(address)

    run(scenario)
    for wrong in ("tls://host", "tls://:7000", "tls://host:70000", "tls://host:x"):
        with pytest.raises(ValueError, match="must be tls://HOST:PORT"):
            ipc.parse_address(wrong)


def test_files__that_are_missing_foreign_or_open_to_others__are_named(
    files: tuple[Tls, Tls, Authority], tmp_path: Path
) -> None:
    node, gateway, _ = files
    with pytest.raises(ValueError, match="--tls-cert, --tls-key: missing"):
        tls_of(node.ca, None, None, True)
    with pytest.raises(ValueError, match="missing"):
        tls_of(None, None, None, True)
    assert tls_of(None, None, None, False) is None
    with pytest.raises(TlsError, match=r"--tls-ca .*nothing"):
        Tls(tmp_path / "nothing", node.cert, node.key).client()
    with pytest.raises(TlsError, match=r"--tls-cert .*MISMATCH"):
        Tls(node.ca, node.cert, gateway.key).server()
    node.key.chmod(0o640)
    with pytest.raises(TlsError, match="mode 0640: others may read the key"):
        node.server()


def test_certificates__are_written_once_with_private_keys_and_renewed_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    written = write_cluster(folder, ["node1.example", "10.0.0.2", "::1"], ["a", "b"])
    assert [one.name for one in written] == [
        "ca.crt",
        "sequencer-node1.example.crt",
        "sequencer-10.0.0.2.crt",
        "sequencer-__1.crt",
        "gateway-a.crt",
        "gateway-b.crt",
    ]
    for one in written:
        assert stat.S_IMODE(one.with_suffix(".key").stat().st_mode) == 0o600
    before = {one: one.read_bytes() for one in written}
    with pytest.raises(CertificateError, match=r"gateway-a\.crt: there already; --renew"):
        write_cluster(folder, ["node9.example"], ["a"])
    assert not (folder / "sequencer-node9.example.crt").exists()
    write_cluster(folder, ["10.0.0.3"], ["a"], renew=True)
    assert (folder / "ca.crt").read_bytes() == before[folder / "ca.crt"]
    assert (folder / "gateway-a.crt").read_bytes() != before[folder / "gateway-a.crt"]
    assert (folder / "gateway-b.crt").read_bytes() == before[folder / "gateway-b.crt"]
    for wrong in ("../escape", "a/b", "", "x" * 64):
        with pytest.raises(CertificateError, match="must be"):
            write_cluster(folder, [wrong], [])
    (folder / "ca.key").unlink()
    with pytest.raises(CertificateError, match=r"ca\.key"):
        write_cluster(folder, ["node2.example"], [])
