"""`fairstrike match`: what it reads, what it writes, what it refuses."""

import json
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.market.match import MatchError, Summary, format_decimal, match_command, parse_decimal, run

# By its path, because an installed package may own the name `tests`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "twins"))
from naive_book import NaiveBook


def place(order_id: int | str, side: str, price: str, qty: str, **more: object) -> str:
    return json.dumps({"op": "place", "id": order_id, "side": side, "price": price, "qty": qty, **more})


def cancel(order_id: int | str) -> str:
    return json.dumps({"op": "cancel", "id": order_id})


def matched(*lines: str | bytes) -> tuple[list[str], Summary]:
    written: list[str] = []
    summary = run(lines, written.append)
    return written, summary


def test_trade__is_one_line_at_the_makers_price() -> None:
    trades, summary = matched(place(1, "sell", "100.00", "1.5"), place(2, "buy", "101", "0.5"))
    assert trades == ['{"maker":1,"taker":2,"price":"100.00","qty":"0.5"}\n']
    assert (summary.commands, summary.placed, summary.trades, summary.resting) == (2, 2, 1, 1)
    assert (summary.best_bid, summary.best_ask, summary.volume) == (None, 100 * 10**8, 5 * 10**7)


def test_trades__come_by_price_then_time() -> None:
    trades, _ = matched(
        place("late", "sell", "100.01", "1"),
        place(1, "sell", "100", "1"),
        place('älter "2"', "sell", "100", "1"),
        place(-3, "buy", "100.01", "2.5"),
    )
    assert [json.loads(trade) for trade in trades] == [
        {"maker": 1, "taker": -3, "price": "100.00", "qty": "1"},
        {"maker": 'älter "2"', "taker": -3, "price": "100.00", "qty": "1"},
        {"maker": "late", "taker": -3, "price": "100.01", "qty": "0.5"},
    ]


def test_integer_id_and_string_id_of_the_same_digits__are_two_orders() -> None:
    trades, _ = matched(place(1, "sell", "5", "1"), place("1", "sell", "5", "1"), place(2, "buy", "5", "2"))
    assert [json.loads(trade)["maker"] for trade in trades] == [1, "1"]


def test_ioc__leaves_nothing_in_the_book() -> None:
    trades, summary = matched(
        place(1, "sell", "10", "1"), place(2, "buy", "10", "3", tif="IOC"), place(3, "sell", "10", "1")
    )
    assert len(trades) == 1
    assert (summary.ioc_cut, summary.resting, summary.best_bid) == (1, 1, None)


def test_fok__fills_whole_or_not_at_all() -> None:
    book = (place(1, "sell", "10", "1"), place(2, "sell", "11", "1"))
    trades, summary = matched(*book, place(3, "buy", "11", "2.00000001", tif="FOK"))
    assert (trades, summary.fok_dropped, summary.resting) == ([], 1, 2)
    trades, summary = matched(*book, place(3, "buy", "11", "2", tif="FOK"))
    assert (len(trades), summary.fok_dropped, summary.resting) == (2, 0, 0)
    trades, summary = matched(*book, place(3, "buy", "9", "1", tif="FOK"))
    assert (trades, summary.fok_dropped, summary.resting) == ([], 1, 2)


def test_post_only__that_would_trade__is_dropped() -> None:
    trades, summary = matched(
        place(1, "sell", "10", "1"),
        place(2, "buy", "10", "1", post_only=True),
        place(3, "buy", "9.99", "1", post_only=True),
    )
    assert (trades, summary.post_only_dropped, summary.resting) == ([], 1, 2)
    assert summary.best_bid == 999 * 10**6


def test_cancel__takes_the_order_out_and_frees_its_id() -> None:
    trades, summary = matched(
        place(1, "sell", "10", "1"),
        cancel(1),
        cancel(1),
        place(1, "sell", "12", "1"),
        place(2, "buy", "11", "1"),
    )
    assert (trades, summary.cancelled, summary.cancels_unknown, summary.resting) == ([], 1, 1, 2)


def test_id__of_a_filled_order__is_free_again() -> None:
    trades, _ = matched(
        place(1, "sell", "10", "1"),
        place(2, "buy", "10", "1"),
        place(1, "sell", "9", "1"),
        place(2, "buy", "9", "1"),
    )
    assert len(trades) == 2


def test_blank_lines__are_passed_over() -> None:
    trades, summary = matched(b"\n", "  ", place(1, "sell", "10", "1"), b"\r\n")
    assert (trades, summary.commands) == ([], 1)


def test_live_id__is_refused_in_its_line_alone() -> None:
    trades, summary = matched(
        place(1, "sell", "10", "1"),
        place(1, "buy", "10", "1"),
        place(2, "buy", "10", "1"),
        place(1, "sell", "11", "1"),
    )
    assert len(trades) == 1
    assert (summary.refused, summary.placed, summary.resting) == ({"DUPLICATE_ID": 1}, 3, 1)


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ("{", "", "not JSON"),
        (b'{"op":"cancel","id":"\xff"}', "", "not JSON"),
        ("[]", "", "must be a JSON object, not list"),
        ("7", "", "must be a JSON object, not int"),
        (
            "{}",
            "op",
            'must be one of "place", "cancel", "cancel_all", "amend", "reduce", "time"; it is missing',
        ),
        ('{"op":"modify","id":1}', "op", 'not "modify"'),
        ('{"op":["place"],"id":1}', "op", 'not ["place"]'),
        (
            place(9, "buy", "1", "1", note="x"),
            "note",
            'is no field of "place", which has id, side, price, qty',
        ),
        ('{"op":"cancel","id":1,"qty":"1"}', "qty", 'is no field of "cancel", which has id, owner, time'),
        ('{"op":"amend","id":1}', "qty", "one of them at least"),
        ('{"op":"amend","id":1,"price":1.5}', "price", "in a string, not 1.5"),
        ('{"op":"reduce","id":1,"by":"0"}', "by", "above 0"),
        (place(9, "buy", "1", "1", expires=-1), "expires", "from 0 to 4294967295 (seconds), not -1"),
        (place(9, "buy", "1", "1", time="60"), "time", 'seconds), not "60"'),
        (place(9, "buy", "1", "1", self_trade="both"), "self_trade", '"cancel_resting" or "cancel_taker"'),
        ('{"op":"cancel_all"}', "owner", "is missing"),
        ('{"op":"cancel"}', "id", "is missing"),
        ('{"op":"cancel","id":true}', "id", "must be an integer or a string, not true"),
        ('{"op":"cancel","id":1.5}', "id", "must be an integer or a string, not 1.5"),
        (place(9, "hold", "1", "1"), "side", 'must be "buy" or "sell", not "hold"'),
        (place(9, "buy", "1", "1", tif="GTD"), "tif", 'must be "GTC", "IOC" or "FOK", not "GTD"'),
        (place(9, "buy", "1", "1", post_only="yes"), "post_only", 'must be true or false, not "yes"'),
        ('{"op":"place","id":9,"side":"buy","price":"1"}', "qty", "is missing"),
        ('{"op":"place","id":9,"side":"buy","price":100.5,"qty":"1"}', "price", "in a string, not 100.5"),
        (place(9, "buy", "0", "1"), "price", "above 0"),
        (place(9, "buy", "1", "0.00"), "qty", "above 0"),
        (place(9, "buy", "-1", "1"), "price", "not '-1'"),
        (place(9, "buy", "1e3", "1"), "price", "not '1e3'"),
        (place(9, "buy", "NaN", "1"), "price", "not 'NaN'"),
        (place(9, "buy", "\u0661", "1"), "price", "not '\u0661'"),
        (place(9, "buy", "1.", "1"), "price", "not '1.'"),
        (place(9, "buy", "", "1"), "price", "not ''"),
        (place(9, "buy", "1", "0.000000001"), "qty", "8 after it"),
        (place(9, "buy", "1" * 13, "1"), "price", "at most 12 digits before the point"),
        (place(9, "buy", "1" * 5000, "1"), "price", "not of 5000 characters"),
    ],
)
def test_bad_line__is_refused_by_line_field_and_limit(line: str | bytes, field: str, reason: str) -> None:
    with pytest.raises(MatchError) as refusal:
        matched(place(1, "sell", "2", "1"), "", line)
    assert (refusal.value.line, refusal.value.field) == (3, field)
    assert reason in str(refusal.value)
    assert str(refusal.value).startswith(f"line 3: field '{field}' " if field else "line 3: ")


def test_command__in_json_mode__writes_trades_alone(tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join([place(1, "sell", "100", "1.5"), place(2, "buy", "100", "0.5")]))
    result = CliRunner().invoke(match_command, [str(file), "--json"])
    assert (result.exit_code, result.output) == (0, '{"maker":1,"taker":2,"price":"100.00","qty":"0.5"}\n')


def test_command__from_standard_input__shows_a_table() -> None:
    lines = "\n".join([place(1, "sell", "100", "1.5"), place(2, "buy", "100", "0.5")])
    result = CliRunner().invoke(match_command, ["-"], input=lines)
    assert result.exit_code == 0
    assert "quantity traded" in result.output
    assert "100.00" in result.output


def test_command__with_a_big_file__shows_progress_beside_the_table(tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    line = cancel("x" * 1000) + "\n"
    file.write_text(line * 1100)
    result = CliRunner().invoke(match_command, [str(file)])
    assert result.exit_code == 0
    assert "1,100" in result.stdout


def test_command__at_a_bad_line__ends_with_status_2_after_the_trades_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join([place(1, "sell", "100", "1"), place(2, "buy", "100", "1"), "nonsense"]))
    with pytest.raises(SystemExit) as end:
        match_command.main([str(file), "--json"])
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.out == '{"maker":1,"taker":2,"price":"100.00","qty":"1"}\n'
    assert "line 3: not JSON" in shown.err


def test_command__tells_refused_lines_by_number_on_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join([place(1, "sell", "100", "1"), place(1, "sell", "100", "1"), cancel(7)]))
    result = CliRunner(mix_stderr=False).invoke(match_command, [str(file), "--json"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "line 2: refused, DUPLICATE_ID: 1 belongs to an order that is still live\n"
    result = CliRunner(mix_stderr=False).invoke(match_command, [str(file), "--json", "--events"])
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()] == [
        "rests",
        "refused",
        "refused",
    ]
    file.write_text("\n".join([place(1, "sell", "100", "1")] * 50))
    result = CliRunner(mix_stderr=False).invoke(match_command, [str(file), "--exchange", "--json"])
    assert len(result.stderr.splitlines()) == 21
    assert "29 more lines refused" in result.stderr


def test_command__help_says_what_differs_from_the_exchange() -> None:
    shown = " ".join(CliRunner().invoke(match_command, ["--help"]).output.split())
    assert "Differences from the exchange" in shown
    for word in ("owner", "self_trade", "reduce_only", "expires", "multiples of 0.01", "unknown field"):
        assert word in shown


def test_command__without_the_file__ends_with_status_2() -> None:
    assert CliRunner().invoke(match_command, ["/nowhere/orders.jsonl"]).exit_code == 2


@given(st.integers(1, 10**20 - 1))
def test_decimal__written_and_read__is_the_same(value: int) -> None:
    assert (
        parse_decimal(format_decimal(value), "qty") == parse_decimal(format_decimal(value, 2), "qty") == value
    )
    assert Decimal(format_decimal(value)) * 10**8 == value
    assert "e" not in format_decimal(value).lower()


@pytest.mark.parametrize(
    ("value", "decimals_min", "text"),
    [
        (10**10, 2, "100.00"),
        (5 * 10**7, 0, "0.5"),
        (10**8, 0, "1"),
        (1, 0, "0.00000001"),
        (10_050_000_000, 2, "100.50"),
        (10_012_300_000, 2, "100.123"),
    ],
)
def test_decimal__is_written_exactly(value: int, decimals_min: int, text: str) -> None:
    assert format_decimal(value, decimals_min) == text


ORDERS = st.tuples(
    st.sampled_from(("buy", "sell")),
    st.integers(98, 102),
    st.integers(1, 9),
    st.sampled_from(("GTC", "GTC", "IOC", "FOK")),
    st.booleans(),
    st.integers(0, 12),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ORDERS, max_size=40))
def test_run__on_any_commands__trades_as_the_naive_twin(
    orders: list[tuple[str, int, int, str, bool, int]],
) -> None:
    twin, expected, lines = NaiveBook(), [], []
    for number, (side_name, price, quantity, tif, post_only, victim) in enumerate(orders, 1):
        side = int(side_name == "sell")
        for resting in [row for row in twin.sides[0] + twin.sides[1] if row.seq == victim]:
            twin.remove(resting.side, resting.price, resting.seq)
        lines += [
            cancel(victim),
            place(number, side_name, str(price), str(quantity), tif=tif, post_only=post_only),
        ]
        makers = [row for row in twin.sides[1 - side] if (price <= row.price if side else price >= row.price)]
        if (post_only and makers) or (tif == "FOK" and sum(row.quantity for row in makers) < quantity):
            continue
        fills, left = twin.match(side, price, quantity)
        expected += [
            {"maker": maker, "taker": number, "price": f"{at}.00", "qty": str(lots)}
            for maker, at, lots in fills
        ]
        if left and tif == "GTC":
            twin.insert(side, price, number, left)
    trades, summary = matched(*lines)
    assert [json.loads(trade) for trade in trades] == expected
    assert summary.resting == len(twin.sides[0]) + len(twin.sides[1])
