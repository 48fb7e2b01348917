"""A small HTTP server of read-only pages on a thread of its own: a watcher's status, a feed's records."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Final

TIMEOUT_S: Final = 10  # of a client that says nothing
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# Of a path without its query: HTTP status, media type, text.
Page = Callable[[str], tuple[int, str, str]]


@contextlib.contextmanager
def serve(
    page: Page, host: str, port: int, name: str, headers: dict[str, str] | None = None
) -> Iterator[int]:
    """Serves what `page(path)` gives, with `headers` beside HEADERS; the port. `name`: the thread's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_GET(self) -> None:
            code, of_type, text = page(self.path.partition("?")[0])
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

    server = http.server.ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
