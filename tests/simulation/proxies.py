"""TCP proxies that can be told to swallow, to delay, or to cut: a network between processes of one machine."""

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit

READ_BYTES = 65_536


class Proxy:
    """One way to `host:port`. `is_cut`: what comes is swallowed, in both directions; `delay_s` of everything."""

    def __init__(self, host: str, port: int) -> None:
        self._there = host, port
        self.port = 0
        self.is_cut = False
        self.delay_s = 0.0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            while self.is_cut:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            writer.close()
            return
        try:
            there = await asyncio.open_connection(*self._there)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there[1]}
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while self.is_cut:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)

    async def close(self) -> None:
        """Takes no more connections, and resets those that there are."""
        if self._server is not None:
            self._server.close()
        await self.drop()

    async def drop(self) -> None:
        """Resets every connection."""
        for writer in list(self._writers):
            writer.transport.abort()


class Network:
    """Proxies by who uses them, on a loop of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self.of: dict[str, list[Proxy]] = {}

    def urls(self, user: str, urls: list[str]) -> list[str]:
        """Addresses that lead there, for `user` alone."""
        made = []
        for url in urls:
            parts = urlsplit(url)
            proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 0)
            asyncio.run_coroutine_threadsafe(proxy.start(), self._loop).result(10)
            self.of.setdefault(user, []).append(proxy)
            made.append(f"{parts.scheme}://127.0.0.1:{proxy.port}")
        return made

    def cut(self, user: str, is_cut: bool) -> None:
        """Nothing that `user` sends arrives, and nothing comes, while it is cut."""
        for proxy in self.of[user]:
            proxy.is_cut = is_cut
            if not is_cut:  # what was swallowed does not come late: connections begin anew
                asyncio.run_coroutine_threadsafe(proxy.drop(), self._loop).result(10)

    def delay(self, user: str, delay_s: float) -> None:
        """Everything of `user` takes so much longer, each way."""
        for proxy in self.of[user]:
            proxy.delay_s = delay_s

    def drop(self, user: str) -> None:
        """Resets the connections of `user`."""
        for proxy in self.of[user]:
            asyncio.run_coroutine_threadsafe(proxy.drop(), self._loop).result(10)

    def close(self) -> None:
        """Ends all proxies, and their loop."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        for proxies in self.of.values():
            for proxy in proxies:
                await proxy.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
