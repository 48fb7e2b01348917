"""A feed in a process of its own: what it shows, and what a sequencer takes of it."""

import json
import time
import urllib.request
from collections.abc import Sequence

import pytest

from sequencer.development import devnet_params, feed_key
from sequencer.keeper.keeper import Keeper
from sequencer.market.feeds import FeedError, IndexReport, News, SignedReport, SurfaceReport
from sequencer.market.signed import FeedProcess, SignedSource, serve
from sequencer.protocol import codec
from sequencer.protocol.constants import DAY_S, Kind
from sequencer.protocol.state import State

DOMAIN = codec.domain_separator(31337, bytes(19) + b"\7")
KEYS = devnet_params().feed_keys
NOW = 1_700_000_000


class Given:
    """A source that reports what it is given."""

    def __init__(self, *news: News) -> None:
        self.news: list[News] = list(news)
        self.error = ""

    def poll(self, now_s: int) -> Sequence[News]:
        if self.error:
            raise FeedError(self.error)
        out, self.news = self.news, []
        return out


def surface(time_s: int, day: int) -> SurfaceReport:
    return SurfaceReport(0, day, time_s, 4_600_000, 4_600_000, 10**9, 0, 0, 0, 10**11)


def index(time_s: int, price_ticks: int = 4_600_000) -> IndexReport:
    return IndexReport(0, time_s, price_ticks)


def test_source__of_three_feed_processes__brings_what_each_has_signed() -> None:
    now_s = int(time.time())
    day = now_s // DAY_S + 3
    for feed in range(3):
        process = FeedProcess(
            Given(index(now_s, 4_600_000 + feed), surface(now_s, day)), feed, feed_key(feed), DOMAIN
        )
        assert process.look(now_s) == 2
        with serve(process, "127.0.0.1", 0) as port:
            source = SignedSource(f"http://127.0.0.1:{port}/", KEYS, DOMAIN)
            news = source.poll(now_s)
            assert [one.report for one in news] == [index(now_s, 4_600_000 + feed), surface(now_s, day)]
            for one in news:
                record = codec.decode(one.raw, DOMAIN)
                assert isinstance(record, codec.Record)
                assert record.signer == KEYS[feed]
            assert source.poll(now_s) == []  # before the interval is over
            source._next_s = float("-inf")
            assert source.poll(now_s + 1) == []  # each once
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200


@pytest.mark.parametrize(
    ("keys", "domain", "says"),
    [
        (KEYS[1:], DOMAIN, "not signed with the key that PARAMS has for feed 0"),
        ((), DOMAIN, "not signed with the key that PARAMS has for feed 0"),
        (KEYS, codec.domain_separator(1, bytes(20)), "not signed with the key"),
    ],
)
def test_source__of_a_stranger_or_another_exchange__is_refused(
    keys: Sequence[bytes], domain: bytes, says: str
) -> None:
    now_s = int(time.time())
    process = FeedProcess(Given(index(now_s)), 0, feed_key(0), DOMAIN)
    process.look(now_s)
    with serve(process, "127.0.0.1", 0) as port:
        source = SignedSource(f"http://127.0.0.1:{port}/", keys, domain)
        with pytest.raises(FeedError, match=says):
            source.poll(now_s)


@pytest.mark.parametrize(
    "body", ["[]", "{}", '{"records": 1}', '{"records": ["zz"]}', '{"records": [null]}', "{"]
)
def test_source__of_nonsense__is_an_error_with_its_place(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SignedSource("http://127.0.0.1:1/", KEYS, DOMAIN)
    monkeypatch.setattr(source, "_get", lambda _url: body.encode())
    with pytest.raises(FeedError, match=r"http://127\.0\.0\.1:1/"):
        source.poll(NOW)


def test_source__with_a_record_that_is_no_report__refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = codec.sign(
        codec.encode(Kind.CANCEL_ALL, account=1, nonce_floor=0, nonce=0, expires=0), DOMAIN, feed_key(0)
    )
    source = SignedSource("http://127.0.0.1:1/", KEYS, DOMAIN)
    monkeypatch.setattr(source, "_get", lambda _url: json.dumps({"records": [raw.hex()]}).encode())
    with pytest.raises(FeedError, match="no signed FEED or SURFACE"):
        source.poll(NOW)


def test_process__whose_source_fails__says_so_until_it_works() -> None:
    given = Given(index(NOW))
    process = FeedProcess(given, 0, feed_key(0), DOMAIN)
    assert process.shown(NOW)["error"]
    process.look(NOW)
    assert process.shown(NOW)["error"] == ""
    given.error = "it is gone"
    process.look(NOW + 1)
    assert process.shown(NOW + 1)["error"] == "it is gone"
    assert process.error_at_s == NOW + 1
    given.error = ""
    process.look(NOW + 2)
    assert process.shown(NOW + 2)["error"] == ""


def test_process__shows_no_record_that_is_too_old() -> None:
    process = FeedProcess(Given(index(NOW), surface(NOW, NOW // DAY_S + 3)), 0, feed_key(0), DOMAIN)
    process.look(NOW)
    assert len(process.shown(NOW)["records"]) == 2
    assert len(process.shown(NOW + 121)["records"]) == 1  # index_age_s_max 120
    assert process.shown(NOW + 901)["records"] == []


def test_keeper__with_signed_reports_and_keys_of_its_own__passes_the_ones_on_and_signs_the_others() -> None:
    state = State(DOMAIN, devnet_params())
    process = FeedProcess(Given(index(NOW)), 2, feed_key(2), DOMAIN)
    process.look(NOW)
    raw = bytes.fromhex(process.shown(NOW)["records"][0][2:])
    keeper = Keeper(
        state, [Given(SignedReport(index(NOW), raw)), Given(index(NOW))], [feed_key(0), feed_key(1)]
    )
    out = keeper.pass_one(NOW)
    assert raw in out
    assert sorted(one[2] for one in out) == [0, 1, 2]  # each feed once
