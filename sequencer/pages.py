"""A small HTTP server on a thread of its own: a watcher's status, a feed's records, receipts that are left."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

TIMEOUT_S: Final = 10  # of a client that says nothing
LENGTH_DIGITS_MAX: Final = 12
CONNECTIONS_MAX: Final = 64  # at once; more are closed
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# Of a path without its query: HTTP status, media type, text.
Page = Callable[[str], tuple[int, str, str]]
# Likewise, of a path, a body and the client's address.
Post = Callable[[str, bytes, str], tuple[int, str, str]]


class _Server(http.server.ThreadingHTTPServer):
    """A thread for each connection, CONNECTIONS_MAX at most."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


@contextlib.contextmanager
def serve(
    page: Page,
    host: str,
    port: int,
    name: str,
    headers: dict[str, str] | None = None,
    post: Post | None = None,
    body_bytes_max: int = 0,
) -> Iterator[int]:
    """Serves what `page(path)` gives, with `headers` beside HEADERS; the port. `name`: the thread's.

    `post` gets bodies of up to `body_bytes_max` bytes; without it there is only GET.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_GET(self) -> None:
            self._answer(*page(self.path.partition("?")[0]))

        def do_POST(self) -> None:
            self.close_connection = True  # what is refused is not read
            length = self.headers.get("Content-Length", "")
            if post is None:
                self._answer(405, "text/plain", "GET only\n")
            elif not (length.isascii() and length.isdigit()) or len(length) > LENGTH_DIGITS_MAX:
                self._answer(411, "text/plain", "Content-Length: must be the body's number of bytes\n")
            elif int(length) > body_bytes_max:
                self._answer(
                    413, "text/plain", f"body: must be at most {body_bytes_max} bytes, got {length}\n"
                )
            else:
                body = self.rfile.read(int(length))
                if len(body) == int(length):
                    self._answer(*post(self.path.partition("?")[0], body, str(self.client_address[0])))

        def _answer(self, code: int, of_type: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", of_type)
            self.send_header("Content-Length", str(len(body)))
            for key, value in (HEADERS | (headers or {})).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
