"""The tape: the recorded one, when its folder is there, and the seeded stand-in, always."""

import hashlib
import os
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from sequencer.market.tape import (
    START_S,
    IndexPoint,
    Tape,
    TapeError,
    Trade,
    generate_tape,
    load_tape,
    make_tape,
    open_tape,
    trade_from_row,
)
from sequencer.protocol.constants import BUY, SELL

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FAIRSTRIKE_DATA", ROOT.parent / "shared" / "data"))

TRADES_HEAD = (
    "q,p,s,t,d,trade_seq,trade_id,tick_direction,iv,instrument_name,index_price,direction\n"
    "0.1,0.004,TRADE,1640995220191,2022-01-01,222,197392876,2,67.48,BTC-2JAN22-48000-C,46219.79,sell\n"
)
BARS_HEAD = (
    "timestamp,open,high,low,close,volume\n2021-12-31 23:01:00.000000,46319.0,46385.0,46319.0,46377.0,1\n"
)
ROW = {
    "instrument_name": "BTC-2JAN22-48000-C",
    "timestamp": 1_640_995_220_191,
    "direction": "buy",
    "amount": Decimal("0.1"),
    "price": Decimal("0.004"),
    "index_price": Decimal("46219.79"),
    "iv": Decimal("67.48"),
    "trade_seq": 222,
    "trade_id": "197392876",
}


@pytest.fixture(scope="module")
def recorded() -> Tape:
    if not DATA.is_dir():
        pytest.skip(f"no recorded data in {DATA}")
    return load_tape(DATA)


@pytest.fixture(scope="module")
def generated() -> Tape:
    return generate_tape(1)


@pytest.fixture(params=[pytest.param("recorded", marks=pytest.mark.tape), "generated"])
def tape(request: pytest.FixtureRequest) -> Tape:
    return request.getfixturevalue(request.param)


def write(folder: Path, trades: str = TRADES_HEAD, bars: str = BARS_HEAD) -> Path:
    (folder / "deribit-trades-2022-01-01").mkdir()
    (folder / "btc-perp-1min").mkdir()
    (folder / "deribit-trades-2022-01-01" / "trades.csv").write_text(trades)
    (folder / "btc-perp-1min" / "bars.csv").write_text(bars)
    return folder


@pytest.mark.tape
def test_every_recorded_row_loads_exactly(recorded: Tape) -> None:
    assert (len(recorded.trades), len(recorded.index), len(recorded.instruments)) == (1_350, 21_659, 171)
    assert len({instrument.day for instrument in recorded.instruments}) == 11
    assert sum(trade.quantity_lots for trade in recorded.trades) == 23_134_000
    assert Counter(trade.side for trade in recorded.trades) == {SELL: 837, BUY: 513}
    assert recorded.trades[0] == Trade(
        time_ms=1_640_995_220_191,
        instrument="BTC-2JAN22-48000-C",
        underlying=0,
        day=18_994,
        strike_ticks=4_800_000,
        is_put=False,
        side=SELL,
        quantity_lots=1_000,
        price_coin=Decimal("0.004"),
        price_ticks=18_488,  # 0.004 x 46219.79 = 184.87916
        index_ticks=4_621_979,
        iv_e6=674_800,
        trade_seq=222,
        trade_id="197392876",
    )
    assert recorded.source == "recorded tape deribit-trades-2022-01-01"


@pytest.mark.tape
def test_the_odd_recorded_rows_are_kept(recorded: Tape) -> None:
    volatilities = Counter(trade.iv_e6 for trade in recorded.trades)
    assert volatilities[0] == 1
    assert volatilities[5_000_000] == 1
    by_moment = Counter(trade.time_ms for trade in recorded.trades)
    assert sum(count > 1 for count in by_moment.values()) == 81
    assert max(by_moment.values()) == 6
    below = next(trade for trade in recorded.trades if trade.iv_e6 == 0)
    assert below.price_ticks < below.strike_ticks - below.index_ticks  # a put sold below its intrinsic value


@pytest.mark.tape
def test_recorded_strikes_lie_on_a_grid_of_1000_usd(recorded: Tape) -> None:
    assert all(instrument.strike_ticks % 100_000 == 0 for instrument in recorded.instruments)
    ratios = [trade.strike_ticks / trade.index_ticks for trade in recorded.trades]
    assert 0.31 < min(ratios) < 0.32
    assert 6.40 < max(ratios) < 6.41


@pytest.mark.tape
def test_recorded_index_is_the_close_at_the_end_of_each_minute(recorded: Tape) -> None:
    assert recorded.index[0] == IndexPoint(START_S - 59 * 60, 4_637_700)
    assert recorded.index[-1].time_s == 1_642_291_140
    errors = []
    for trade in recorded.trades:
        point = recorded.index_at(trade.time_s)
        assert point is not None
        errors.append(abs(point.price_ticks - trade.index_ticks))
    assert sum(errors) / len(errors) < 3_000  # 30 USD; the open at the same stamps is off by 39


def test_any_tape_is_sorted_and_inside_the_protocols_bounds(tape: Tape) -> None:
    times = [trade.time_ms for trade in tape.trades]
    assert times == sorted(times)
    assert all(after.time_s - before.time_s == 60 for before, after in zip(tape.index, tape.index[1:]))  # noqa: B905
    expiry_of = {instrument.name: instrument.expiry_s for instrument in tape.instruments}
    for trade in tape.trades:
        assert trade.time_s < expiry_of[trade.instrument]
        assert 1 <= trade.price_ticks < 2**32
        assert 0 < trade.quantity_lots < 2**40
        assert 0 < trade.strike_ticks < 2**31
        assert trade.price_ticks == max(1, int(trade.price_coin * trade.index_ticks + Decimal("0.5")))


def test_generated_tape_has_the_recorded_ones_shape(generated: Tape) -> None:
    assert (len(generated.trades), len(generated.index), len(generated.instruments)) == (1_350, 21_659, 171)
    assert len({instrument.day for instrument in generated.instruments}) == 11
    assert generated.trades[0].time_s == START_S + 20
    assert generated.trades[-1].time_s == START_S + 37_776
    expired = START_S + 8 * 3_600
    assert {trade.day for trade in generated.trades} - {
        trade.day for trade in generated.trades_between(expired, START_S + 86_400)
    } == {START_S // 86_400}
    day_4, day_7 = (generated.index_at(START_S + day * 86_400) for day in (4, 7))
    assert day_4 is not None
    assert day_7 is not None
    assert day_4.price_ticks > 4_500_000
    assert day_7.price_ticks < 4_300_000
    assert generated.source == "seeded generator, seed 1"


def test_equal_seeds_make_equal_tapes_on_every_machine() -> None:
    first = generate_tape(7)
    assert first == generate_tape(7)
    assert first.trades != generate_tape(8).trades
    text = repr((first.trades, first.index)).encode()
    assert (
        hashlib.sha256(text).hexdigest() == "56116fd344e9ec693d44a7122935c76fc965e4f36f793786bb398c1f48093259"
    )


def test_windows_meet_without_overlap(tape: Tape) -> None:
    moment = START_S + 3_600
    head, tail = tape.trades_until(moment), tape.trades_between(moment, START_S + 86_400)
    assert head + tail == tape.trades
    assert head[-1].time_ms <= moment * 1_000 < tail[0].time_ms
    hour = tape.index_between(moment, moment + 3_600)
    assert [hour[0].time_s, hour[-1].time_s] == [moment + 60, moment + 3_600]
    assert tape.index_at(moment + 59) == tape.index_at(moment)
    assert tape.index_at(tape.index[0].time_s - 1) is None


def test_open_tape_generates_only_when_nothing_is_given(tmp_path: Path) -> None:
    assert open_tape(None).source.startswith("seeded generator")
    assert open_tape(None, seed=3) == generate_tape(3)
    with pytest.raises(TapeError, match=r"absent: a folder with .* is expected; found: no such folder"):
        open_tape(tmp_path / "absent", seed=3)
    assert open_tape(write(tmp_path)).source.startswith("recorded tape")
    (tmp_path / "deribit-trades-2022-01-01" / "trades.csv").write_text(TRADES_HEAD.replace("sell", "sold"))
    with pytest.raises(TapeError, match=r"^trades\.csv:2: direction: 'sold' is neither buy nor sell$"):
        open_tape(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": Decimal("0.00005")}, "amount: 0.50000 units must be a whole number"),
        ({"amount": Decimal(0)}, "amount: 0 units must be a whole number from 1"),
        ({"price": None}, "price: missing, a number is needed"),
        ({"price": Decimal("-0.1")}, "price: -0.1 must be above 0"),
        ({"price": 0.004}, "price: 0.004, a number is needed"),
        ({"index_price": "46219,79"}, "index_price: '46219,79', a number is needed"),
        ({"index_price": Decimal(50_000_000)}, "index_price: 50000000 USD is beyond"),
        ({"iv": Decimal(-1)}, "iv: -1 must be from 0 to 10000 percent"),
        ({"iv": "nan"}, "iv: 'nan', a number is needed"),
        ({"timestamp": Decimal("1.5")}, "timestamp: 1.5 units must be a whole number"),
        ({"trade_id": ""}, "trade_id: missing or not text"),
        ({"trade_seq": True}, "trade_seq: True, a number is needed"),
        ({"instrument_name": "BTC-PERPETUAL"}, "instrument_name: 'BTC-PERPETUAL' is not"),
    ],
)
def test_a_bad_field_is_an_error_that_names_it(change: dict[str, object], message: str) -> None:
    with pytest.raises(TapeError) as caught:
        trade_from_row({**ROW, **change}, "file:9")
    assert str(caught.value).startswith(f"file:9: {message}")


def test_premium_rounds_half_up_and_is_at_least_one_tick() -> None:
    half = trade_from_row({**ROW, "price": Decimal("0.5"), "index_price": Decimal("0.03")}, "x")
    assert (half.price_ticks, half.index_ticks) == (2, 3)
    dust = trade_from_row({**ROW, "price": Decimal("0.0001"), "index_price": Decimal("0.01")}, "x")
    assert dust.price_ticks == 1


def test_damaged_files_are_refused_with_their_place(tmp_path: Path) -> None:
    write(tmp_path, bars=BARS_HEAD + "2021-12-31 23:02:00,1,1\n")
    with pytest.raises(TapeError, match=r"^bars\.csv:3: columns: "):
        load_tape(tmp_path)
    bars = tmp_path / "btc-perp-1min" / "bars.csv"
    bars.write_text(BARS_HEAD.replace("2021-12-31", "2021-13-31"))
    with pytest.raises(TapeError, match=r"^bars\.csv:2: timestamp: "):
        load_tape(tmp_path)
    bars.unlink()
    with pytest.raises(TapeError, match=r"no \.csv file of minute bars"):
        load_tape(tmp_path)


def test_two_index_points_at_one_time_are_refused() -> None:
    with pytest.raises(TapeError, match="two index points at 60"):
        make_tape([], [IndexPoint(60, 1), IndexPoint(60, 2)], "x")
