"""A feed from a public source's shape: a local server that answers as Deribit does."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sequencer.market import svi_fit
from sequencer.market.feeds import FeedError, IndexReport, SurfaceReport
from sequencer.market.public import DeribitSource
from sequencer.market.tape import YEAR_S, expiry_s

NOW = 1_795_000_000
DAY = NOW // 86_400 + 9
STRIKES = (38_000, 42_000, 44_000, 46_000, 48_000, 50_000, 54_000)


def name(strike: int, kind: str = "C", day: int = DAY) -> str:
    date = datetime.fromtimestamp(day * 86_400, UTC)
    return f"BTC-{date.day}{date.strftime('%b%y').upper()}-{strike}-{kind}"


def smile(strike: int) -> float:
    return 60 + 20 * ((strike - 46_000) / 10_000) ** 2


def answer(result: Any, now_s: int = NOW) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "result": result,
        "usIn": now_s * 10**6,
        "usOut": now_s * 10**6 + 150,
        "usDiff": 150,
    }


def summary() -> list[dict[str, Any]]:
    rows = [
        {"instrument_name": name(strike, kind), "mark_iv": smile(strike), "underlying_price": 46_123.45}
        for strike in STRIKES
        for kind in "CP"
    ]
    return [*rows, {"instrument_name": name(60_000), "mark_iv": None, "underlying_price": 46_123.45}]


@contextmanager
def served(answers: dict[str, Any]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            method = split.path.removeprefix("/api/v2/public/")
            query = parse_qs(split.query)
            known = answers[method]
            value = known(query) if callable(known) else known
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_source__of_that_shape__gives_index_and_a_surface_that_fits_the_marks() -> None:
    asked: list[dict[str, list[str]]] = []

    def index(query: dict[str, list[str]]) -> dict[str, Any]:
        asked.append(query)
        return answer({"index_price": 46_100.005, "estimated_delivery_price": 46_100})

    with served({"get_index_price": index, "get_book_summary_by_currency": answer(summary())}) as url:
        source = DeribitSource(url, ["BTC"])
        first, second = source.poll(NOW)
        assert first == IndexReport(0, NOW, 4_610_001)  # half up
        assert isinstance(second, SurfaceReport)
        assert (second.day, second.forward_ticks, second.index_ticks) == (DAY, 4_612_345, 4_610_001)
        years = (expiry_s(DAY) - NOW) / YEAR_S
        for strike in STRIKES:
            k = svi_fit.log(strike * 100 / second.forward_ticks)
            assert svi_fit.implied_volatility(second.surface, k, years) == pytest.approx(
                smile(strike) / 100, abs=0.01
            )
        assert [query["index_name"] for query in asked] == [["btc_usd"]]


@pytest.mark.parametrize(
    ("index", "summaries", "says"),
    [
        (
            {"jsonrpc": "2.0", "error": {"code": 10028, "message": "too_many_requests"}},
            None,
            "too_many_requests",
        ),
        (b"<html>", None, "no JSON"),
        (answer([]), None, "index_price: missing"),
        (answer({"index_price": "much"}), None, "index_price: 'much', a number is needed"),
        (answer({"index_price": 0}), None, "must be above 0"),
        (answer({"index_price": 46_000}), answer({}), "an array is needed"),
        (
            answer({"index_price": 46_000}),
            answer([{"instrument_name": "BTC-PERPETUAL"}]),
            r"\[0\]: instrument_name",
        ),
        (answer({"index_price": 46_000}, NOW - 500), None, "500 s old, at most 120"),
    ],
)
def test_source__of_another_shape__is_an_error_with_its_place(index: Any, summaries: Any, says: str) -> None:
    answers = {"get_index_price": index, "get_book_summary_by_currency": summaries or answer([])}
    with served(answers) as url, pytest.raises(FeedError, match=says):
        DeribitSource(url, ["BTC"]).poll(NOW)
