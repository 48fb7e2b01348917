"""A day in Deribit's own answer format, made by a seed: another one than the recorded, of ETH; and a server of it."""

import json
import random
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import erf, exp, log, sqrt
from typing import Any

BEGINS_MS = 1_683_864_000_000  # 2023-05-12 04:00 UTC; at 08:00 ETH-12MAY23 expires
YEAR_MS = 365 * 86_400_000
EXPIRIES = {  # name -> 08:00 UTC, ms
    "12MAY23": 1_683_878_400_000,
    "13MAY23": 1_683_964_800_000,
    "26MAY23": 1_685_088_000_000,
}
MINUTE_MS = 60_000


def index_at(time_ms: int) -> Decimal:
    """1,800 USD, with a wave; it falls by an eighth in the evening."""
    minutes = (time_ms - BEGINS_MS) // MINUTE_MS
    wave = (minutes * 37 % 97) - 48
    fall = min(max(minutes - 720, 0), 300) * 75
    return Decimal(180_000 + wave * 2 - fall) / 100


def bars(until_minutes: int = 30 * 60) -> dict[str, list[Any]]:
    """The chart, a bar a minute from half an hour before the first trade."""
    ticks = [BEGINS_MS + minute * MINUTE_MS for minute in range(-30, until_minutes)]
    opens = [float(index_at(tick)) for tick in ticks]
    return {
        "ticks": ticks,
        "open": opens,
        "high": opens,
        "low": opens,
        "close": opens,
        "volume": [1.0] * len(ticks),
    }


def _price(forward: float, strike: float, stdev: float, is_put: bool) -> float:
    """Black-76 in units of the forward, as Deribit quotes."""

    def cdf(x: float) -> float:
        return (1 + erf(x / sqrt(2))) / 2

    d1 = log(forward / strike) / stdev + stdev / 2
    call = forward * cdf(d1) - strike * cdf(d1 - stdev)
    return (call - (forward - strike) * is_put) / forward


def trades(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Trades in six hours across an expiry, with the fields of the API."""
    dice, out = random.Random(seed), []
    seqs: dict[str, int] = {}
    for number in range(count):
        time_ms = BEGINS_MS + number * 6 * 60 * MINUTE_MS // count + dice.randrange(1_000)
        name = dice.choice([one for one, ends in EXPIRIES.items() if ends > time_ms + 3_600_000])
        index = index_at(time_ms)
        strike = 50 * round(float(index) / 50) + 50 * dice.randrange(-3, 4)
        is_put = dice.random() < 0.5
        iv = 0.55 + 0.1 * abs(log(strike / float(index)))
        stdev = iv * sqrt((EXPIRIES[name] - time_ms) / YEAR_MS)
        price = max(5, round(_price(float(index), strike, stdev, is_put) * 10_000 / 5) * 5) / 10_000
        instrument = f"ETH-{name}-{strike}-{'P' if is_put else 'C'}"
        seqs[instrument] = seqs.get(instrument, 0) + 1
        out.append(
            {
                "trade_seq": seqs[instrument],
                "trade_id": f"ETH-{170_000_000 + number}",
                "timestamp": time_ms,
                "tick_direction": dice.randrange(4),
                "price": price,
                "mark_price": round(price * exp(dice.uniform(-0.01, 0.01)), 6),
                "iv": round(iv * 100, 2),
                "instrument_name": instrument,
                "index_price": float(index),
                "direction": dice.choice(["buy", "sell"]),
                "contracts": 1.0,
                "amount": float(dice.randrange(1, 30)),
            }
        )
    return out


def answer(result: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC answer as Deribit gives it."""
    return {"jsonrpc": "2.0", "result": result, "usIn": 1, "usOut": 2, "usDiff": 1, "testnet": False}


@contextmanager
def server(
    rows: list[dict[str, Any]], chart: dict[str, list[Any]], page: int, busy: int = 0
) -> Iterator[str]:
    """Serves both methods on a free port, at most `page` trades an answer; refuses the first `busy` requests."""
    left = [busy]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            asked = dict(urllib.parse.parse_qsl(query))
            start, end = int(asked["start_timestamp"]), int(asked["end_timestamp"])
            if left[0]:
                left[0] -= 1
                self._send(429, {"jsonrpc": "2.0", "error": {"code": 10028, "message": "too_many_requests"}})
            elif path == "/api/v2/public/get_last_trades_by_currency_and_time":
                assert (asked["kind"], asked["sorting"], asked["currency"]) == ("option", "asc", "ETH")
                found = [row for row in rows if start <= row["timestamp"] <= end]
                self._send(200, answer({"trades": found[:page], "has_more": len(found) > page}))
            elif path == "/api/v2/public/get_tradingview_chart_data":
                assert (asked["instrument_name"], asked["resolution"]) == ("ETH-PERPETUAL", "1")
                at = [i for i, tick in enumerate(chart["ticks"]) if start <= tick <= end]
                columns = {name: [values[i] for i in at] for name, values in chart.items()}
                self._send(200, answer(columns | {"status": "ok" if at else "no_data"}))
            else:
                self._send(400, {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}})

        def _send(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/api/v2"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
