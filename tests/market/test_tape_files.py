"""Tapes of one's own: whatever form they come in, they are the same tape; what does not fit says what was expected."""

import csv
import json
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.development import devnet_params
from sequencer.market import svi_fit
from sequencer.market.bars import load_bars
from sequencer.market.tape import IndexPoint, TapeError, Trade, make_tape, open_tape
from sequencer.market.tape_files import instruments_of, load_trades, open_day, params_for
from sequencer.market.tape_source import TapeSource
from sequencer.protocol.market import strike_step

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from deribit_day import BEGINS_MS, answer, bars, index_at, server, trades

import record_tape

ROWS = trades(90)


def save_lines(path: Path, documents: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, documents)))
    return path


def save_csv(path: Path, rows: list[dict[str, Any]], names: dict[str, str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([(names or {}).get(name, name) for name in rows[0]])
        writer.writerows([row.values() for row in rows])
    return path


def save_bars(path: Path, style: str = "iso") -> Path:
    """The chart as CSV whose bars are stamped with their end: the close is the index at the stamp."""
    chart = bars()
    rows = []
    for tick in chart["ticks"]:
        stamp: object = {"ms": tick, "s": tick // 1000}.get(style)
        if style == "iso":
            stamp = f"{datetime.fromtimestamp(tick / 1000, UTC):%Y-%m-%d %H:%M:%S}.000000000"
        if style == "zulu":
            stamp = f"{datetime.fromtimestamp(tick / 1000, UTC):%Y-%m-%dT%H:%M:%S}Z"
        rows.append({"timestamp": stamp, "open": "1", "close": str(index_at(tick))})
    return save_csv(path, rows)


def test_trades__in_any_form__are_the_same(tmp_path: Path) -> None:
    pages = [
        answer({"trades": ROWS[:50], "has_more": True}),
        answer({"trades": ROWS[40:], "has_more": False}),
    ]
    folder = tmp_path / "pages"
    folder.mkdir()
    for number, page in enumerate(pages):
        (folder / f"{number}.json").write_text(json.dumps(page, indent=1))
    newest_first = [answer({"trades": ROWS[::-1], "has_more": False})]
    forms = [
        folder,
        save_lines(tmp_path / "answers.jsonl", pages),
        save_lines(tmp_path / "trades.jsonl", ROWS),
        save_lines(tmp_path / "one.json", newest_first),
        save_csv(tmp_path / "api.csv", ROWS),
        save_csv(tmp_path / "short.csv", ROWS, {"amount": "q", "price": "p", "timestamp": "t"}),
    ]
    expected = load_trades(forms[0])
    assert len(expected) == len(ROWS)
    assert [trade.trade_id for trade in expected] == [row["trade_id"] for row in ROWS]
    for form in forms[1:]:
        assert load_trades(form) == expected, form


def test_trades__of_futures_and_combos_among_the_options__are_passed_over(tmp_path: Path) -> None:
    others = [
        {name: value for name, value in ROWS[0].items() if name != "iv"}
        | {"instrument_name": other, "trade_id": other}
        for other in (
            "ETH-PERPETUAL",
            "ETH-26MAY23",
            "ETH-FS-26MAY23_PERP",
            "ETH-CS-26MAY23-1800_1900",
            "ETH_USDC",
        )
    ]
    assert load_trades(save_lines(tmp_path / "any.jsonl", [*others, *ROWS])) == load_trades(
        save_lines(tmp_path / "options.jsonl", ROWS)
    )
    option = {name: value for name, value in ROWS[0].items() if name != "iv"}
    with pytest.raises(TapeError, match="iv: missing, a number is needed"):
        load_trades(save_lines(tmp_path / "option.jsonl", [option]))
    with pytest.raises(TapeError, match="there is no trade in it"):
        load_trades(save_lines(tmp_path / "none.jsonl", others))


def test_bars__in_any_form__are_the_same(tmp_path: Path) -> None:
    chart = bars()
    expected = [IndexPoint(tick // 1000, int(index_at(tick) * 100)) for tick in chart["ticks"]]
    half = (
        {name: values[:900] for name, values in chart.items()},
        {name: values[800:] for name, values in chart.items()},
    )
    lines = save_lines(tmp_path / "chart.jsonl", [answer(one | {"status": "ok"}) for one in half])
    assert load_bars(lines) == expected
    for style in ("iso", "zulu", "ms", "s"):
        assert load_bars(save_bars(tmp_path / f"{style}.csv", style)) == expected, style
    assert {point.price_ticks for point in load_bars(tmp_path / "iso.csv", "start")} == {100}
    assert load_bars(tmp_path) == expected  # a folder


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("none.csv", None, "is expected; there is nothing of that name"),
        ("empty", "", "is expected; the folder holds readme.txt"),
        (
            "future.jsonl",
            json.dumps(ROWS[0] | {"instrument_name": "ETH-PERPETUAL"}),
            "is not CURRENCY-DMMMYY",
        ),
        ("other.csv", "a,b\n1,2\n", "other.csv:2: instrument_name: missing"),
        ("cut.json", '{"result": {"trades": [', "cut.json:1: no JSON"),
        ("refusal.json", '{"error": {"code": 10028}}', "the answer is a refusal"),
        ("nothing.json", '{"result": {"trades": []}}', "is expected; there is no trade in it"),
        (
            "twice.jsonl",
            "\n".join(json.dumps(ROWS[0] | {"price": p}) for p in (0.01, 0.02)),
            "with other contents",
        ),
    ],
)
def test_trades__that_do_not_fit__say_what_was_expected(
    name: str, text: str | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
        (path / "readme.txt").write_text("x")
    elif text is not None:
        path.write_text(text)
    with pytest.raises(TapeError, match=says):
        load_trades(path)


def test_bars__that_do_not_fit__say_what_was_expected(tmp_path: Path) -> None:
    tape = save_lines(tmp_path / "trades.jsonl", ROWS)
    whole = save_bars(tmp_path / "bars.csv")
    lines = whole.read_text().splitlines()
    short = tmp_path / "short.csv"
    short.write_text("\n".join(lines[:200]))
    other = tmp_path / "other.csv"
    other.write_text("when,what\n1,2\n")
    for index, says in (
        (
            {"": short},
            r"bars of ETH from 2023-05-12 04:00:\d\d UTC to .* are expected, .*; found: from 2023-05-12 03:30",
        ),
        ({"BTC": whole}, "--index ETH=BARS is expected; given: BTC="),
        ({"": other}, "a column timestamp or time or date or ticks is expected; there are when, what"),
        ({"": tmp_path / "none.csv"}, "No such file"),
    ):
        with pytest.raises(TapeError, match=says):
            open_day(tape, index)
    assert set(open_day(tape, {"ETH": whole}).tapes) == {1}
    broken = tmp_path / "broken.csv"
    broken.write_text("\n".join([lines[0], lines[1], "yesterday,1,2"]))
    with pytest.raises(TapeError, match=r"broken\.csv:3: timestamp: 'yesterday' is no UTC time"):
        load_bars(broken)


def test_params__fit_what_the_day_trades(tmp_path: Path) -> None:
    whole = save_bars(tmp_path / "bars.csv")
    plain = open_day(save_lines(tmp_path / "plain.jsonl", ROWS), {"": whole})
    params, changed = params_for(plain, devnet_params())
    assert (params, changed) == (devnet_params(), {})
    odd = [row | {"instrument_name": "ETH-27DEC24-1777-C", "trade_id": "ETH-1"} for row in ROWS[:1]]
    day = open_day(save_lines(tmp_path / "odd.jsonl", [*ROWS, *odd]), {"": whole})
    params, changed = params_for(day, devnet_params())
    assert changed.keys() == {"ETH.strike_step_ppm", "ETH.strike_step_min_ticks", "listing_days_max"}
    assert all(strike % strike_step(strike, params.of(1)) == 0 for _, _, strike, _ in instruments_of(day))


def test_demo__with_a_folder_that_does_not_fit__is_an_error_and_never_the_generator(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(TapeError, match=r"deribit-trades-2022-01-01/trades\.csv and btc-perp-1min"):
            open_tape(folder)
        for more in ([], ["--lie", "minted-cash"], ["--lie", "all"]):
            result = CliRunner(mix_stderr=False).invoke(main, ["demo", "--tape", str(folder), *more])
            assert result.exit_code == 1
            assert "is expected; found: " in result.stderr
    (tmp_path / "deribit-trades-2022-01-01").mkdir()
    (tmp_path / "btc-perp-1min").mkdir()
    row = ROWS[0] | {"instrument_name": "BTC-26MAY23-27000-C"}
    save_csv(tmp_path / "deribit-trades-2022-01-01" / "trades.csv", [row])
    save_bars(tmp_path / "btc-perp-1min" / "bars.csv")
    with pytest.raises(TapeError, match=r"1 January 2022 are expected, .*; found: 2023-05-12"):
        open_tape(tmp_path)


def test_record__pages_that_overlap_and_a_busy_server__give_the_whole_day(tmp_path: Path) -> None:
    rows = [*ROWS, *(ROWS[9] | {"trade_id": f"ETH-{n}"} for n in range(5))]
    rows.sort(key=lambda row: (row["timestamp"], row["trade_id"]))
    with server(rows, bars(), page=20, busy=3) as url:
        arguments = [
            "ETH",
            "2023-05-12",
            str(tmp_path),
            "--trades-url",
            url,
            "--chart-url",
            url,
            "--pause",
            "0.001",
        ]
        done = CliRunner().invoke(record_tape.main, arguments)
        assert done.exit_code == 0, done.output
        assert (
            f"fairstrike replay-market {tmp_path}/trades.jsonl --index {tmp_path}/index.jsonl" in done.output
        )
        none = CliRunner().invoke(
            record_tape.main, ["ETH", "2023-06-01", str(tmp_path / "n"), *arguments[3:]]
        )
        assert "no option of ETH traded on 2023-06-01" in none.output
        crowd = [ROWS[0] | {"trade_id": f"ETH-{n}"} for n in range(50)]
    with server(crowd, bars(), page=20) as url:
        arguments[4] = arguments[6] = url
        stuck = CliRunner().invoke(record_tape.main, arguments)
        assert "more than 20 trades at " in stuck.output
    day = open_day(tmp_path / "trades.jsonl", {"": tmp_path / "index.jsonl"})
    assert len(day.trades) == len(rows)
    assert day.tapes[1].index[0].time_s == BEGINS_MS // 1000 - 1_800


def long_tape(count: int) -> tuple[list[Trade], list[IndexPoint]]:
    """Trades of ten strikes of one expiry, one a second."""
    made = []
    for number in range(count):
        strike = 160_000 + number % 10 * 5_000
        made.append(
            Trade(
                BEGINS_MS + number * 1000, "x", 1, 19_503, strike, False, 0, 10_000, Decimal("0.02"), 3_600, 180_000,
                550_000 + number % 7, number + 1, str(number + 1),
            )
        )  # fmt: skip
    return made, [IndexPoint(BEGINS_MS // 1000 + number, 180_000) for number in range(count)]


def test_poll__costs_the_same_at_the_end_of_a_long_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 30_000
    tape = make_tape(*long_tape(count), "long")
    source = TapeSource(tape, 1, refresh_s=60)
    sizes, real = [], svi_fit.fit
    monkeypatch.setattr(
        svi_fit, "fit", lambda points, *rest: real(sizes.append(len(kept := list(points))) or kept, *rest)
    )
    spent = []
    for step in range(count // 60):
        began = time.perf_counter()
        source.poll(BEGINS_MS // 1000 + step * 60)
        spent.append(time.perf_counter() - began)
    assert max(sizes) <= 10 * 32  # all 30,000 before
    early, late = sorted(spent[20:120]), sorted(spent[-100:])
    assert late[50] < 3 * early[50]


def test_poll__without_new_trades__fits_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trades_made, points = long_tape(100)
    tape = make_tape(
        trades_made, [*points, *(IndexPoint(p.time_s + 3_600, 190_000) for p in points)], "still"
    )
    source = TapeSource(tape, 1, refresh_s=60)
    first = source.poll(BEGINS_MS // 1000 + 110)[-1]
    monkeypatch.setattr(svi_fit, "fit", lambda *_: pytest.fail("fitted again"))
    last = source.poll(BEGINS_MS // 1000 + 3_700)[-1]
    assert last.forward_ticks == first.forward_ticks * 190_000 // 180_000
    left = 19_503 * 86_400 + 28_800 - BEGINS_MS // 1000
    assert last.a == pytest.approx(first.a * (left - 3_700) / (left - 110), rel=1e-9)
