"""Feed sources: the tape, a growing file, an HTTP address; limits and signatures."""

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sequencer.market.feeds import (
    FeedError,
    Guard,
    IndexReport,
    Limits,
    Report,
    SurfaceReport,
    parse_report,
    sign_reports,
)
from sequencer.market.polled import FileSource, HttpSource
from sequencer.market.svi_fit import flat, implied_volatility
from sequencer.market.tape import START_S, YEAR_S, Tape, expiry_s, generate_tape
from sequencer.market.tape_source import TapeSource
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.surface import is_valid

NOW = START_S + 3_600
DAY = NOW // 86_400 + 6
INDEX = IndexReport(0, NOW, 4_700_000)


def surface_report(iv: float = 0.7, forward: int = 4_705_000, time_s: int = NOW) -> SurfaceReport:
    surface = flat(iv, (expiry_s(DAY) - time_s) / YEAR_S)
    return SurfaceReport(
        0, DAY, time_s, forward, 4_700_000, surface.a_e12, surface.b_e12, surface.rho_e12, surface.m_e12,
        surface.sigma_e12,
    )  # fmt: skip


def document(report: Report) -> dict[str, object]:
    return {"type": "index" if isinstance(report, IndexReport) else "surface", **asdict(report)}


@pytest.fixture(scope="module")
def tape() -> Tape:
    return generate_tape(1)


def test_tape_source_reports_the_index_and_every_expiry_and_then_what_is_due(tape: Tape) -> None:
    source = TapeSource(tape, refresh_s=120)
    first = source.poll(NOW)
    assert first[0] == IndexReport(0, NOW, tape.index_at(NOW).price_ticks)  # type: ignore[union-attr]
    days = [report.day for report in first[1:] if isinstance(report, SurfaceReport)]
    assert days == sorted({instrument.day for instrument in tape.instruments})
    assert source.poll(NOW) == []
    assert [type(report) for report in source.poll(NOW + 60)] == [IndexReport]
    assert len(source.poll(NOW + 120)) == 12
    assert len(source.poll(START_S + 8 * 3_600)) == 11  # the first expiry is over


def test_tape_source_surfaces_are_valid_and_near_the_generators_smile(tape: Tape) -> None:
    reports = [r for r in TapeSource(tape).poll(START_S + 30_000) if isinstance(r, SurfaceReport)]
    assert len(reports) == 10
    for report in reports:
        assert is_valid(report.surface)
        iv = implied_volatility(report.surface, 0.0, (expiry_s(report.day) - report.time_s) / YEAR_S)
        assert 0.54 < iv < 0.90
        assert 0.98 < report.forward_ticks / report.index_ticks < 1.08
    Guard().admit(reports, START_S + 30_000)


def test_tape_source_uses_nothing_later_than_now(tape: Tape) -> None:
    past = Tape(tape.trades_until(NOW), tape.index_between(0, NOW), tape.instruments, "cut")
    assert TapeSource(tape).poll(NOW) == TapeSource(past).poll(NOW)
    assert TapeSource(tape).poll(tape.index[0].time_s - 1) == []
    before = TapeSource(tape).poll(START_S)
    assert {report.a for report in before if isinstance(report, SurfaceReport) and report.day == DAY} == {
        flat(0.7, (expiry_s(DAY) - START_S) / YEAR_S).a_e12
    }


def test_guard_passes_each_report_once_the_latest_of_its_kind() -> None:
    guard = Guard()
    later = IndexReport(0, NOW + 1, 4_700_100)
    assert guard.admit([later, INDEX, surface_report()], NOW + 1) == [later, surface_report()]
    assert guard.admit([later, INDEX, surface_report()], NOW + 1) == []
    with pytest.raises(FeedError, match="time_s: 121 s old"):
        guard.admit([later], NOW + 122)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (IndexReport(0, NOW - 121, 1), r"^time_s: 121 s old, at most 120 s$"),
        (IndexReport(0, NOW + 3, 1), r"^time_s: 3 s ahead, at most 2 s$"),
        (IndexReport(0, NOW, 5_170_001), r"^price_ticks: 5170001 is off 4700000 by more than 100000 ppm$"),
        (surface_report(time_s=NOW - 901), r"^time_s: 901 s old, at most 900 s$"),
        (
            surface_report(forward=5_500_000),
            r"^forward_ticks: 5500000 is off 4700000 by more than 150000 ppm$",
        ),
        (surface_report(iv=4.5), r"^a: at-the-money volatility 4\.5000, at least 0\.01, at most 4\.0$"),
        (SurfaceReport(0, 18_000, NOW, 1, 1, 1, 0, 0, 0, 1), r"^day: 18000 expired \d+ s before time_s$"),
    ],
)
def test_guard_names_the_field_and_the_limit(report: Report, message: str) -> None:
    guard = Guard()
    guard.admit([IndexReport(0, NOW - 60, 4_700_000)], NOW - 60)
    with pytest.raises(FeedError, match=message):
        guard.admit([report], NOW)


def test_a_lasting_jump_passes_once_the_last_price_is_old() -> None:
    guard = Guard(Limits(jump_window_s=300))
    guard.admit([INDEX], NOW)
    with pytest.raises(FeedError, match="price_ticks"):
        guard.admit([IndexReport(0, NOW + 300, 3_000_000)], NOW + 300)
    fallen = IndexReport(0, NOW + 301, 3_000_000)
    assert guard.admit([fallen], NOW + 301) == [fallen]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "price"}, "x: type: 'price' is neither index nor surface"),
        ({"type": ["index"]}, "x: type: "),
        ({"extra": 1}, "x: extra: unknown field"),
        ({"price_ticks": 0}, "x: Expected `int` >= 1 - at `$.price_ticks`"),
        ({"price_ticks": 2**32}, "x: Expected `int` <= 4294967295 - at `$.price_ticks`"),
        ({"price_ticks": 1.5}, "x: Expected `int`, got `float` - at `$.price_ticks`"),
        ({"underlying": 16}, "x: Expected `int` <= 15 - at `$.underlying`"),
        ({"time_s": True}, "x: Expected `int`, got `bool` - at `$.time_s`"),
    ],
)
def test_a_malformed_report_names_its_field(change: dict[str, object], message: str) -> None:
    assert parse_report(document(INDEX), "x") == INDEX
    assert parse_report(document(surface_report()), "x") == surface_report()
    with pytest.raises(FeedError) as caught:
        parse_report({**document(INDEX), **change}, "x")
    assert str(caught.value).startswith(message)


def test_file_source_follows_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    source = FileSource(path)
    with pytest.raises(FeedError, match=r"reports\.jsonl: No such file"):
        source.poll(NOW)
    text = json.dumps(document(INDEX))
    path.write_text(text)
    assert source.poll(NOW) == []  # the line has no end yet
    path.write_text(text + "\n\n" + json.dumps(document(surface_report())) + "\n{]\n")
    assert source.poll(NOW) == [INDEX, surface_report()]  # good lines first
    with pytest.raises(FeedError, match=r"^reports\.jsonl:4: no JSON"):
        source.poll(NOW)
    assert source.poll(NOW) == []
    newer = IndexReport(0, NOW + 5, 4_700_200)
    path.write_text(json.dumps(document(newer)) + "\n")  # a shorter file is a new one
    assert source.poll(NOW + 5) == [newer]


def test_file_source_bounds_a_line(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    path.write_text(" " * 5_000 + "\n" + json.dumps(document(INDEX)) + "\n")
    source = FileSource(path, bytes_max=4_096 * 2)
    with pytest.raises(FeedError, match=r"^reports\.jsonl:1: line longer than 4096 bytes$"):
        source.poll(NOW)
    assert source.poll(NOW) == [INDEX]


@dataclass
class Server:
    """What a local server answers, and how often it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"[]"
    asked: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/reports"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def test_http_source_takes_reports_once(server: Server) -> None:
    since = [0.0]
    source = HttpSource(server.url, monotonic=lambda: since[0])
    server.body = json.dumps([document(INDEX), document(surface_report())]).encode()
    assert source.poll(NOW) == [INDEX, surface_report()]
    assert source.poll(NOW) == []
    assert server.asked == 1
    newer = IndexReport(0, NOW + 1, 4_700_001)
    server.body = json.dumps({"reports": [document(newer)]}).encode()
    since[0] = 1.0
    assert source.poll(NOW + 1) == [newer]


def test_http_source__when_the_clock_jumps__keeps_its_interval(server: Server) -> None:
    since = [0.0]
    source = HttpSource(server.url, monotonic=lambda: since[0])
    source.poll(NOW)
    source.poll(NOW + 86_400)  # ahead: not asked again at once
    assert server.asked == 1
    since[0] = 1.0
    source.poll(NOW + 86_400)
    assert server.asked == 2
    since[0] = 2.0
    source.poll(NOW)  # and back: asked as ever, not in a day
    assert server.asked == 3


def test_http_source__of_a_dead_feed__is_in_error_at_every_poll_until_it_works(server: Server) -> None:
    since = [0.0]
    source = HttpSource(server.url, monotonic=lambda: since[0])
    server.status = 503
    for step in range(140):
        since[0] = step / 10
        with pytest.raises(FeedError, match="503"):
            source.poll(NOW + step // 10)
    assert server.asked < 10
    server.status = 200
    since[0] = 100.0
    assert source.poll(NOW + 100) == []
    since[0] = 100.5
    assert source.poll(NOW + 100) == []


def test_http_source_backs_off_and_recovers(server: Server) -> None:
    since = [0.0]
    source = HttpSource(server.url, backoff_s_max=4, monotonic=lambda: since[0])
    server.status = 503
    asked = []
    for second in range(14):
        before = server.asked
        since[0] = float(second)
        with pytest.raises(FeedError, match="503"):
            source.poll(NOW + second)
        asked.append(server.asked - before)
    assert asked == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    server.status = 200
    server.body = json.dumps([document(IndexReport(0, NOW + 15, 1_000))]).encode()
    since[0] = 15.0
    assert len(source.poll(NOW + 15)) == 1
    since[0] = 16.0
    assert source.poll(NOW + 16) == []
    assert server.asked == 7  # the interval is one second again


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "no JSON"),
        (b"[" * 20_000, "no JSON"),
        (b"{}", "reports: an array is needed"),
        (b'[{"type": "index"}]', r"\[0\]: Object missing required field `underlying`"),
        (b" " * 300_000, "answer longer than 262144 bytes"),
    ],
)
def test_http_source_refuses_a_bad_answer(server: Server, body: bytes, message: str) -> None:
    server.body = body
    with pytest.raises(FeedError, match=message):
        HttpSource(server.url).poll(NOW)


def test_http_source_neither_redirects_nor_waits(server: Server) -> None:
    server.status, server.headers = 302, {"Location": server.url + "/other"}
    with pytest.raises(FeedError, match="302"):
        HttpSource(server.url).poll(NOW)
    assert server.asked == 1
    server.status, server.headers = 200, {}
    clock = iter([0.0, 0.0, 3.0, 3.0, 3.0, 3.0])
    with pytest.raises(FeedError, match=r"answer took longer than 2\.0 s"):
        HttpSource(server.url, monotonic=lambda: next(clock)).poll(NOW)
    with pytest.raises(ValueError, match="http"):
        HttpSource("file:///etc/passwd")


def test_http_source_reports_an_unreachable_address() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        port = http.server_address[1]
    with pytest.raises(FeedError, match="refused"):
        HttpSource(f"http://127.0.0.1:{port}/").poll(NOW)


def test_signed_records_decode_to_the_reports_and_their_signer() -> None:
    key, domain = b"\x07" * 32, codec.domain_separator(31337, b"\x01" * 20)
    report = surface_report()
    records = [codec.decode(raw, domain) for raw in sign_reports([INDEX, report], 3, key, domain)]
    index, surface = records
    assert isinstance(index, codec.Record)
    assert isinstance(surface, codec.Record)
    assert index.kind == Kind.FEED
    assert index.named() == {"underlying": 0, "feed": 3, "time": NOW, "price": 4_700_000}
    assert surface.kind == Kind.SURFACE
    assert surface.named() == {
        "underlying": 0,
        "feed": 3,
        "day": DAY,
        "time": NOW,
        "forward": 4_705_000,
        "index": 4_700_000,
        "a": report.a,
        "b": 0,
        "rho": 0,
        "m": 0,
        "sigma": report.sigma,
    }
    assert index.signer == surface.signer == address_of(public_key_of(key))
    with pytest.raises(ValueError, match="feed must be an integer from 0 to 255"):
        sign_reports([INDEX], 256, key, domain)
