"""The servers' configuration on real servers: who may do what, TLS, and what is said when one cannot start."""

import asyncio
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from sequencer.log import nats_server
from sequencer.log.interface import LogError
from sequencer.log.jetstream import Stream
from sequencer.log.nats_link import Access
from sequencer.log.nats_server import Login, NatsServer, ServerTls, cluster_configs, inbox_of, start_all
from tests.log.servers import until

TLS = Path(__file__).parent / "tls"
CA = TLS / "ca.pem"
NODE = Login("node", "node's word")
READER = Login("reader", "reader's word", is_reader=True)
NAME = "guarded"


def _access(login: Login, **changes: object) -> Access:
    fields = {"user": login.user, "password": login.password, "ca": CA, "inbox": inbox_of(login)}
    return Access(**{**fields, **changes})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NatsServer]]:
    """A cluster with TLS, a user for nodes and one for readers."""
    configs = cluster_configs(
        tmp_path_factory.mktemp("guarded"),
        NAME,
        logins=(NODE, READER),
        tls=ServerTls(TLS / "server.pem", TLS / "server.key", CA),
        cluster_login=Login("server", "servers-word"),
    )
    servers = [NatsServer(config) for config in configs]
    start_all(servers)
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture
def streams(guarded: list[NatsServer]) -> Iterator:
    """Makes clients, and closes them."""
    made: list[Stream] = []
    urls = [server.config.url for server in guarded]

    def stream(access: Access | None, patience_s: float = 30.0) -> Stream:
        made.append(Stream(urls, NAME, access=access, patience_s=patience_s))
        return made[-1]

    yield stream
    for one in made:
        one.close()


def test_node_writes_and_reader_follows(streams) -> None:
    node, reader = streams(_access(NODE)), streams(_access(READER))
    node.open()
    reader.open(create=False)
    place = node.last()
    got: list[bytes] = []
    heard: list[bytes] = []
    reader.on_beat(heard.append)
    follower = reader.follow(place, lambda _, bodies: got.extend(bodies))
    node.append(place, [b"a"])
    node.append(place + 1, [b"b", b"c"])
    until(lambda: follower.place == place + 3)
    assert got == [b"a", b"b", b"c"]
    assert reader.read(place, 9) == got

    def beaten() -> list[bytes]:
        node.beat(b"alive")
        return heard

    until(beaten)


def test_reader__can_do_nothing_else(streams, guarded: list[NatsServer]) -> None:
    node, reader = streams(_access(NODE)), streams(_access(READER), 1.0)
    node.open()
    place = node.last()
    reader.open(create=False)
    with pytest.raises(
        LogError, match=r'[Pp]ermissions [Vv]iolation for [Pp]ublish to "fairstrike\.guarded\.log"'
    ):
        reader.append(place, [b"forged"])
    heard: list[bytes] = []
    node.on_beat(heard.append)

    async def attempts() -> None:
        errors: list[str] = []

        async def on_error(error: Exception) -> None:
            errors.append(str(error).lower())

        access = _access(READER)
        client = await nats.connect(
            servers=[server.config.url for server in guarded],
            user=READER.user,
            password=READER.password,
            tls=access.context(),
            inbox_prefix=access.inbox,
            error_cb=on_error,
        )
        forbidden = (
            f"$JS.API.STREAM.DELETE.{NAME}",
            f"$JS.API.STREAM.UPDATE.{NAME}",
            f"$JS.API.STREAM.PURGE.{NAME}",
            f"$JS.API.STREAM.CREATE.{NAME}",
            f"$JS.API.CONSUMER.CREATE.{NAME}.mine.x",
            f"$JS.API.STREAM.LEADER.STEPDOWN.{NAME}",
            f"fairstrike.{NAME}.lead",
            f"fairstrike.{NAME}.copy",
            f"fairstrike.{NAME}.log",
        )
        for subject in forbidden:
            await client.publish(subject, b"{}")
        await client.subscribe(f"{inbox_of(NODE)}.>")
        await client.flush()
        await asyncio.sleep(0.1)
        for subject in (*forbidden, f"{inbox_of(NODE)}.>".lower()):
            assert any(f'"{subject}"'.lower() in error for error in errors), subject
        await client.close()

    asyncio.run(attempts())
    node.append(place, [b"the node's"])
    assert node.read(place, 9) == [b"the node's"]
    assert heard == []


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (_access(NODE, password="guessed"), "[Aa]uthorization"),
        (Access(ca=CA), "[Aa]uthorization"),
        (_access(NODE, ca=None), "certificate verify failed|CERTIFICATE_VERIFY_FAILED|tls"),
    ],
)
def test_who_may_not_connect__is_told_why(streams, access: Access, words: str) -> None:
    stream = streams(access, 1.0)
    with pytest.raises(LogError, match=f"no server of the stream can be reached: .*({words})"):
        stream.open()


def test_a_certificate_file_that_is_none__is_named(streams, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"TLS files .*nothing\.pem: "):
        streams(Access(ca=tmp_path / "nothing.pem"), 1.0).open()


def test_configuration__is_private_and_asks_for_a_sync_each_time(guarded: list[NatsServer]) -> None:
    for server in guarded:
        file = server.config.folder / "server.conf"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        config = json.loads(file.read_text())
        assert config["jetstream"]["sync_interval"] == "always"
        assert config["logfile_max_num"] == nats_server.LOG_FILES
        assert nats_server.syncs_always(server.config.monitor_port)


def test_a_port_that_is_taken__is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        configs = cluster_configs(tmp_path, "x", ports=[*nats_server.free_ports(8), port])
        servers = [NatsServer(config) for config in configs]
        with pytest.raises(LogError, match=f"server n3: port {port} on 127.0.0.1: Address already in use"):
            start_all(servers)
    assert [server.pid for server in servers] == [0, 0, 0]


def test_a_folder_that_the_server_cannot_use__is_said_with_its_own_words(tmp_path: Path) -> None:
    server = NatsServer(cluster_configs(tmp_path, "x")[0])
    server.config.folder.mkdir(parents=True)
    (server.config.folder / "store").write_text("not a folder")
    server.start()
    with pytest.raises(LogError, match=r"server n1 has ended: .*not a directory"):
        server.wait_ready()
