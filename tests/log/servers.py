"""Three servers of the replicated log on the loopback, and a way between them and a client that can be cut."""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sequencer.log.jetstream import Stream
from sequencer.log.nats_server import NatsServer, cluster_configs, start_all

_numbers = itertools.count()


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition does not hold in time"
        time.sleep(0.02)


class Cluster:
    """Three servers. `stream()`: a client of a stream; a new stream unless named."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.servers = [NatsServer(config) for config in cluster_configs(folder, "unused", **options)]
        self._streams: list[Stream] = []
        start_all(self.servers)

    @property
    def urls(self) -> list[str]:
        return [server.config.url for server in self.servers]

    def server(self, name: str) -> NatsServer:
        return next(server for server in self.servers if server.config.name == name)

    def stream(self, name: str = "", **options: object) -> Stream:
        options.setdefault("servers", self.urls)
        stream = Stream(name=name or f"s{next(_numbers)}", **options)
        self._streams.append(stream)
        return stream

    def opened(self, name: str = "", **options: object) -> Stream:
        patience_s = options.pop("patience_s", 30.0)
        stream = self.stream(name, patience_s=60.0, **options)
        stream.open()  # the servers may be looking for a leader, after the test before
        stream._patience_s = patience_s
        return stream

    def leader_of(self, stream: Stream) -> NatsServer:
        until(lambda: stream.status().leader)
        return self.server(stream.status().leader)

    def start(self, *servers: NatsServer) -> None:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_ready()

    def heal(self) -> None:
        """All servers run, and all replicas of every stream are current."""
        for server in self.servers:
            if not server.pid:
                server.start()
        for server in self.servers:
            server.wait_ready()

    def close_streams(self) -> None:
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def close(self) -> None:
        self.close_streams()
        for server in self.servers:
            server.stop()


def is_whole(stream: Stream) -> bool:
    """All replicas are there and have everything."""
    status = stream.status()
    return len(status.replicas) == 3 and all(one.is_current and not one.is_offline for one in status.replicas)


class Proxy:
    """Passes bytes between a client and a server; `answers_pass` False: the client hears nothing any more."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.answers_pass = True
        self.is_open = True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            self._start(self._pass, client, server, False)
            self._start(self._pass, server, client, True)

    def _pass(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer and not self.answers_pass:
                    continue
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Ends every connection; new ones are refused until `mend`."""
        self.is_open = False
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_open, self.answers_pass = True, True

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        for pair in self._pairs:
            for end in pair:
                end.close()


@contextlib.contextmanager
def proxied(cluster: Cluster) -> Iterator[tuple[list[str], list[Proxy]]]:
    """A proxy before each server."""
    proxies = [Proxy(server.config.port) for server in cluster.servers]
    try:
        yield [proxy.url for proxy in proxies], proxies
    finally:
        for proxy in proxies:
            proxy.close()
