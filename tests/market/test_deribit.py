"""Saved answers of Deribit's history, and its instrument names."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from sequencer.market.deribit import load_deribit_json, parse_instrument
from sequencer.market.tape import IndexPoint, Instrument, TapeError
from sequencer.protocol.constants import BUY, SELL

TRADES = """{"jsonrpc": "2.0", "id": 1, "result": {"has_more": false, "trades": [
 {"trade_seq": 3, "trade_id": "ETH-34066", "timestamp": 1550050591859, "tick_direction": 2, "price": 0.04,
  "mark_price": 0.04025, "iv": 68.25, "instrument_name": "ETH-22FEB19-120-P", "index_price": 121.73,
  "direction": "buy", "amount": 11.0, "contracts": 11.0, "liquidation": "MT", "block_trade_id": "154"},
 {"trade_seq": 966, "trade_id": "ETH-34065", "timestamp": 1550050591859, "tick_direction": 0,
  "price": 0.0005,
  "iv": 70, "instrument_name": "ETH-22FEB19-160-C", "index_price": 121.735, "direction": "sell", "amount": 0.1}
]}}"""
INDEX = """{"result": {"status": "ok", "ticks": [1550050560000, 1550050620000], "open": [121.7, 121.8],
 "high": [1, 1], "low": [1, 1], "close": [121.8, 121.9], "volume": [1, 1], "cost": [1, 1]}}"""


def write(folder: Path, trades: str = TRADES, index: str = INDEX) -> tuple[Path, Path]:
    (folder / "trades.json").write_text(trades)
    (folder / "index.json").write_text(index)
    return folder / "trades.json", folder / "index.json"


def test_an_answer_loads_exactly(tmp_path: Path) -> None:
    tape = load_deribit_json(*write(tmp_path))
    first, second = tape.trades
    assert (first.trade_id, second.trade_id) == ("ETH-34065", "ETH-34066")  # of one millisecond, by number
    assert (first.underlying, first.day, first.strike_ticks, first.is_put) == (1, 17_949, 16_000, False)
    assert (first.side, second.side) == (SELL, BUY)
    assert (first.quantity_lots, second.quantity_lots) == (1_000, 110_000)
    assert (first.price_coin, first.price_ticks) == (Decimal("0.0005"), 6)
    assert (second.price_ticks, second.index_ticks, first.index_ticks) == (487, 12_173, 12_174)
    assert (first.iv_e6, second.iv_e6) == (700_000, 682_500)
    assert tape.index == (IndexPoint(1_550_050_560, 12_170), IndexPoint(1_550_050_620, 12_180))
    assert [instrument.name for instrument in tape.instruments] == ["ETH-22FEB19-120-P", "ETH-22FEB19-160-C"]
    assert tape.source == "recorded tape trades.json"


def test_every_way_of_saving_gives_the_same_tape(tmp_path: Path) -> None:
    tape = load_deribit_json(*write(tmp_path))
    answer = json.loads(TRADES)
    rows = answer["result"]["trades"]
    forms = {
        "array": json.dumps(rows),
        "result": json.dumps(answer["result"]),
        "a trade a line": "\n".join(json.dumps(row) for row in rows) + "\n\n",
        "an answer a line, pages overlapping": json.dumps(answer) + "\n" + json.dumps(answer) + "\n",
    }
    for name, text in forms.items():
        bars = json.dumps(json.loads(INDEX)) + "\n" + json.dumps({"result": {"status": "no_data"}})
        assert load_deribit_json(*write(tmp_path, text, bars)) == tape, name


def changed(old: str, new: str) -> str:
    assert old in TRADES
    return TRADES.replace(old, new, 1)


@pytest.mark.parametrize(
    ("trades", "message"),
    [
        (
            changed('"price": 0.04,', '"price": -0.04,'),
            r"trades.json trades[0]: price: -0.04 must be above 0",
        ),
        (changed('"price": 0.04,', ""), "trades.json trades[0]: price: missing"),
        (changed('"amount": 0.1', '"amount": 0.00001'), "trades.json trades[1]: amount: 0.10000 units"),
        (changed('"direction": "buy"', '"direction": 1'), "trades.json trades[0]: direction: '1' is neither"),
        (
            changed('"liquidation": "MT"', '"liquidation": "X"'),
            "trades.json trades[0]: liquidation: 'X' is none",
        ),
        (
            changed('"block_trade_id": "154"', '"block_trade_id": 1'),
            "trades.json trades[0]: block_trade_id: 1",
        ),
        (changed('"tick_direction": 2', '"tick_direction": 4'), "trades.json trades[0]: tick_direction: 4"),
        (changed('"mark_price": 0.04025', '"mark_price": "x"'), "trades.json trades[0]: mark_price: 'x'"),
        (
            changed("ETH-22FEB19-160-C", "ETH-PERPETUAL"),
            "trades.json trades[1]: instrument_name: 'ETH-PERPETUAL'",
        ),
        (changed('"iv": 70', '"iv": NaN'), "trades.json: no JSON: NaN is no number"),
        (changed("ETH-34065", "ETH-34066"), "trades.json trades[1]: trade_id: ETH-34066 came before"),
        (changed('"price": 0.04,', '"price": 0.04'), "trades.json:3: no JSON"),
        ('{"error": {"code": 10028, "message": "too_many_requests"}}', "trades.json: error: the answer is a"),
        ('{"result": {"trades": []}}', "trades.json: result: nothing in it"),
        ("[1]", "trades.json trades[0]: a trade must be an object"),
        ('{"result": 1}', "trades.json: trades: an array of trades"),
        ("[]\n[}\n", "trades.json:2: no JSON"),
    ],
)
def test_a_bad_row_is_an_error_with_its_place(tmp_path: Path, trades: str, message: str) -> None:
    with pytest.raises(TapeError) as caught:
        load_deribit_json(*write(tmp_path, trades))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"result": {"status": "ok", "open": [1]}}', "index.json: ticks: missing or no array"),
        ('{"result": {"ticks": [60000], "open": []}}', "index.json: open, close: as many as ticks (1)"),
        ('{"result": {"ticks": [60000], "open": [0]}}', "index.json [0]: open: 0 must be above 0"),
        ('{"result": {"ticks": [0], "open": [1]}}', "index.json [0]: ticks: 0 units must be a whole number"),
        (
            '{"result": {"ticks": [60000, 60000], "open": [1, 2]}}',
            "index.json: open: the bar at 60 came before",
        ),
        (
            '{"result": {"status": "error", "ticks": [], "open": []}}',
            "index.json: status: 'error' is neither",
        ),
        ('{"result": {"status": "no_data"}}', "index.json: result: nothing in it"),
        ("[]", "index.json: result: an object with ticks and open"),
    ],
)
def test_a_bad_index_is_an_error_with_its_place(tmp_path: Path, index: str, message: str) -> None:
    with pytest.raises(TapeError) as caught:
        load_deribit_json(*write(tmp_path, index=index))
    assert str(caught.value).startswith(message)


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match=r"none\.json: cannot be read"):
        load_deribit_json(tmp_path / "none.json", tmp_path / "none.json")


def test_instrument_names_are_read() -> None:
    name = "BTC-2JAN22-48000-C"
    assert parse_instrument(name) == Instrument(0, 18_994, 4_800_000, False, name)
    assert parse_instrument(name).expiry_s == 1_641_110_400  # 2022-01-02 08:00 UTC
    assert parse_instrument("ETH-30DEC22-1200-P").underlying == 1
    assert parse_instrument("ETH-30DEC22-0d05-P").strike_ticks == 5
    assert parse_instrument("XRP_USDC-30JUN23-0d5-C", {"XRP_USDC": 2}).strike_ticks == 50


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("XRP_USDC-30JUN23-0d625-C", "strike must be a multiple of 0.01 USD"),
        ("XRP_USDC-30JUN23-0d5-C", "currency XRP_USDC is none of BTC, ETH"),
        ("BTC-30JUN23-0-C", "strike must be a multiple of 0.01 USD"),
        ("BTC-30JUN23-21474837-C", "up to 2147483647 ticks"),
        ("BTC-31JUN23-30000-C", "31JUN23 is no date"),
        ("BTC-30XXX23-30000-C", "30XXX23 is no date"),
        ("BTC-30JUN23", "is not CURRENCY"),
        ("BTC-30JUN23-30000-C ", "is not CURRENCY"),
        ("BTC-30JUN23-30000.5-C", "is not CURRENCY"),
        ("BTC-\u0663JUN23-30000-C", "is not CURRENCY"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_instrument(name)


def test_options_quoted_in_usd_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sequencer.market.tape.parse_instrument", lambda name: parse_instrument(name, {"BTC_USDC": 2})
    )
    with pytest.raises(TapeError, match=r"'BTC_USDC-2JAN22-48000-C' is quoted in USD, not in coin"):
        load_deribit_json(*write(tmp_path, changed("ETH-22FEB19-120-P", "BTC_USDC-2JAN22-48000-C")))
