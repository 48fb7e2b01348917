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
    found = re.findall(r"^│ +(\S+) +│ (.*?) *│", text, re.MULTILINE)
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


def test_price__the_exchange_could_not_list__is_refused_unless_any():
    def told(*changes):
        options = dict(zip(OPTION[::2], OPTION[1::2], strict=True)) | dict(
            zip(changes[::2], changes[1::2], strict=True)
        )
        arguments = [word for pair in options.items() for word in pair]
        assert run("price", *arguments, "--any").exit_code == 0
        refused = run("price", *arguments)
        assert refused.exit_code == 1
        return refused.stderr

    assert "multiple of 500.00 there, such as 48000.00 or 48500.00, not 48100" in told("--strike", "48100")
    assert "strike must be from " in told("--strike", "1000000")
    assert "strike must be from " in told("--strike", "2000")
    assert "forward must be a multiple of 0.01 above 0, not 46219.795" in told("--forward", "46219.795")
    assert "expires-in must be at most 34588800 (400 days" in told("--expires-in", "34588801")
    assert "multiple of 500.00" in told("--strike", "48100", "--underlying", "ETH")
    ok = run("price", *OPTION[:4], "--strike", "50000", "--iv", "0.6", "--expires-in", "34588800")
    assert ok.exit_code == 0


def test_price__of_ether__has_ethers_scenarios():
    option = [
        "--type",
        "put",
        "--forward",
        "2500",
        "--strike",
        "2500",
        "--iv",
        "0.7",
        "--expires-in",
        "864000",
    ]
    got = {
        name: json.loads(run("price", *option, "--underlying", name, "--json").stdout)
        for name in ("BTC", "ETH")
    }
    assert got["BTC"]["mark"] == got["ETH"]["mark"]
    assert float(got["ETH"]["scenarios"][0]) > float(got["BTC"]["scenarios"][0])
    assert got["BTC"]["labels"][0].startswith("forward -15.00 %, vol up")
    assert got["ETH"]["labels"][8].startswith("forward -20.00 %, vol down")
    assert got["ETH"]["labels"][15] == "forward +60.00 %, vol as it is, weight 35%"


def test_price__of_a_premium__finds_the_volatility():
    asked = [*OPTION[:6], *OPTION[8:]]
    got = json.loads(run("price", *asked, "--price", "183.6228068549", "--json").stdout)
    assert abs(float(got["iv"]) - 0.6748) < 1e-9
    assert got["mark"] == "183.6228068549"
    for wrong in ("0", "46219.80", "-1", "much"):
        assert "price" in run("price", *asked, "--price", wrong).stderr
    assert run("price", *asked).exit_code == 2
    assert run("price", *OPTION, "--price", "1").exit_code == 2
    expired = run("price", *asked[:6], "--expires-in", "0", "--price", "1")
    assert "for an implied iv" in expired.stderr


def test_price__in_a_batch__answers_line_by_line():
    one = {"type": "call", "forward": "46219.79", "strike": "48000", "expires_in": 115180}
    asked = [
        one | {"iv": "67.48%", "id": "a"},
        one | {"price": "183.6228068549", "id": 2},
        one | {"iv": "0.5", "strike": "48001"},
        one | {"iv": "0.5", "strike": "48001", "any": True},
        one | {"iv": "0.5", "note": "x"},
        one,
    ]
    result = run("price", "--batch", "-", stdin="\n".join([*map(json.dumps, asked), "", "nonsense"]))
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("id") for line in told] == ["a", 2, None, None, None, None, None]
    assert told[0]["mark"] == told[1]["mark"] == "183.6228068549"
    assert [line.get("line") for line in told] == [None, None, 3, None, 5, 6, 8]
    assert "48000.00 or 48500.00" in told[2]["error"]
    assert run("price", "--batch", "-", stdin=json.dumps(asked[0])).exit_code == 0


def test_margin__of_a_spread__says_what_each_leg_has_part_in():
    leg = PORTFOLIO["positions"][0]
    spread = PORTFOLIO | {"positions": [leg, leg | {"strike": "50000", "quantity": "1"}]}
    got = json.loads(run("margin", "-", "--json", stdin=json.dumps(spread)).stdout)
    short, long = got["legs"]
    alone = json.loads(run("margin", "-", "--json", stdin=json.dumps(PORTFOLIO)).stdout)
    assert short["alone"] == alone["initial_margin"] == "7054.4779"
    whole = float(got["initial_margin"])
    assert float(long["adds_margin"]) == pytest.approx(whole - 7054.4779)
    assert float(long["adds_margin"]) < 0 < float(short["adds_margin"])
    worst = got["worst_scenario"]
    assert float(short["worst"]) + float(long["worst"]) == pytest.approx(float(got["scenarios"][worst]))
    assert float(short["value"]) + float(long["value"]) == pytest.approx(float(got["value"]))
    for name in ("delta", "gamma", "vega", "theta"):
        total = float(got["underlyings"]["BTC"]["greeks"][name])
        assert float(short[name]) + float(long[name]) == pytest.approx(total)
    priced = json.loads(run("price", *OPTION, "--json").stdout)
    assert float(short["delta"]) == -float(priced["delta"])
    assert float(short["theta"]) == -float(priced["theta"])
    shown = run("margin", "-", stdin=json.dumps(spread)).stdout
    assert "forward -15.00 %, vol up" in shown


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
