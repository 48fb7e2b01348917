"""`fairstrike price` and `margin` for people: tables with the same figures as the JSON."""

import json
import re
from inspect import signature

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.cli.output import CASH, PRICE, QUANTITY, cell, plain, show, show_rows, write_json

OPTION = [
    "--type",
    "call",
    "--forward",
    "46219.79",
    "--strike",
    "48000",
    "--iv",
    "67.48%",
    "--expires-in",
    "115180",
]
PORTFOLIO = {
    "cash": "5000",
    "index": "46219.79",
    "positions": [
        {
            "type": "call",
            "forward": "46219.79",
            "strike": "48000",
            "iv": "0.6748",
            "expires_in": 115180,
            "quantity": "-1",
        }
    ],
}


def run(*args, stdin=None):
    separate = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}  # click < 8.2
    return CliRunner(**separate).invoke(main, args, input=stdin)


def rows(text):
    """A two-column table's rows."""
    found = re.findall(r"^│ +(\S+) +│ (.*?) *│$", text, re.MULTILINE)
    return dict(found)


def test_price__for_people__shows_the_worked_example():
    shown = rows(run("price", *OPTION).stdout)
    assert shown["mark"] == "183.6228068549"
    assert shown["mark_ticks"] == "18,362"
    assert shown["15"] == "6592.28"
    assert shown["7"] == "-64.27"


def test_price__json__is_one_object_and_nothing_else():
    got = json.loads(run("price", *OPTION, "--json").stdout)
    assert got["mark"] == "183.6228068549"
    assert len(got["scenarios"]) == 16


def test_margin__for_people__shows_the_same_as_json():
    text = json.dumps(PORTFOLIO)
    shown, got = (
        rows(run("margin", "-", stdin=text).stdout),
        json.loads(run("margin", "-", "--json", stdin=text).stdout),
    )
    assert shown["initial_margin"] == got["initial_margin"] == "7054.4779"
    assert [shown[str(i)] for i in range(16)] == got["scenarios"]


def test_margin__from_a_file__is_as_from_standard_input(tmp_path):
    path = tmp_path / "portfolio.json"
    path.write_text(json.dumps(PORTFOLIO))
    assert (
        run("margin", str(path), "--json").stdout
        == run("margin", "-", "--json", stdin=json.dumps(PORTFOLIO)).stdout
    )


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [(PRICE, "0.01", "0.001"), (QUANTITY, "0.0001", "0.00001"), (CASH, "0.000001", "0.0000001")],
)
def test_amounts__down_to_one_unit__and_no_further(kind, good, bad):
    assert kind.convert(good, None, None) == good
    for wrong in (bad, "0", "-1", "", "1e3", "NaN", "٣"):
        with pytest.raises(Exception, match="must be a decimal number above 0"):
            kind.convert(wrong, None, None)


def test_write_json__to_a_folder_that_is_not_there__says_so(tmp_path):
    with pytest.raises(Exception, match="No such file or directory"):
        write_json(str(tmp_path / "none" / "out.json"), {})


def test_show__a_root__stands_on_one_line_when_piped(capsys):
    root = "0x" + "ab" * 32
    show(
        "status",
        {"root": root, "seq": 1_234_567, "segments": 1_234_567, "held": True, "rest": None, "list": []},
    )
    shown = rows(capsys.readouterr().out)
    assert shown["root"] == root
    assert (shown["seq"], shown["segments"]) == ("1234567", "1,234,567")
    assert (shown["held"], shown["rest"], shown["list"]) == ("True", "none", "none")


def test_show_rows__none__says_so(capsys):
    show_rows("orders", [])
    show_rows("orders", [{"seq": 1, "price": "2.00"}])
    out = capsys.readouterr().out
    assert out.startswith("orders: none\n")
    assert "2.00" in out


def test_plain__decimals_anywhere__are_strings_of_every_digit():
    from decimal import Decimal

    given = {"a": [Decimal("1.50"), (Decimal("1E-18"),)], "b": Decimal("-1E+3")}
    assert plain(given) == {"a": ["1.50", ["0.000000000000000001"]], "b": "-1000"}


def test_cell__numbers_that_name_something__are_never_grouped():
    for name in (
        "seq",
        "number",
        "account",
        "to",
        "maker_seq",
        "batch_id",
        "inbox_index",
        "block",
        "marked_at",
        "x",
    ):
        assert cell(name, 1_234_567) == "1234567"
        assert cell("row", {name: 1_234_567}) == f"{name} 1234567"
    assert cell("records", 1_234_567) == "1,234,567"
