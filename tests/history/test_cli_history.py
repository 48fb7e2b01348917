"""What a trader types to see what was: orders, fills, settlements, the statement, for programs and for people."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from tests.exchange_fixture import KEYS, MAKER, NAMES, NOW, STRANGER, TAKER, Exchange, RealService
from tests.history.test_history import played, trade


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    with Exchange(RealService) as made:
        played(made, trade)
        yield made


def shell(exchange: Exchange, *args: str, key: bytes = KEYS[MAKER], status: int = 0) -> str:
    variables = {"FAIRSTRIKE_API": exchange.url, "FAIRSTRIKE_KEY": key.hex()}
    result = CliRunner().invoke(main, args, env=variables)
    assert result.exit_code == status, result.output
    return result.output


def asked(exchange: Exchange, *args: str, key: bytes = KEYS[MAKER]) -> Any:
    return json.loads(shell(exchange, *args, "--json", key=key))


def test_order_history__filters_and_goes_on_page_by_page(exchange: Exchange) -> None:
    everything = asked(exchange, "order", "history")
    assert everything["next"] is None
    assert [one["state"] for one in everything["rows"]] == ["filled", "open", "cancelled", "open"]
    pages, cursor = [], []
    while True:
        page = asked(exchange, "order", "history", "--limit", "3", *cursor)
        pages += page["rows"]
        if page["next"] is None:
            break
        cursor = ["--cursor", page["next"]]
    assert pages == everything["rows"]
    for args, expected in (
        (("--state", "cancelled"), [2]),
        (("--label", "asks"), [3]),
        (("--instrument", NAMES[2]), [1, 2]),
        (("--since", str(NOW + 1)), []),
        (("--until", "2024-10-03T17:59:59"), []),
        (("--since", "2024-10-03T18:00", "--until", "2024-10-03T18:00"), [0, 1, 2, 3]),
    ):
        assert asked(exchange, "order", "history", *args)["rows"] == [
            everything["rows"][one] for one in expected
        ]
    number = everything["rows"][1]["seq"]  # by the one that it has had since its amendment
    assert asked(exchange, "order", "history", "--order", str(number))["rows"] == [everything["rows"][1]]


def test_fills__settlements__statement__for_programs(exchange: Exchange) -> None:
    fills = asked(exchange, "fills", key=KEYS[TAKER])["rows"]
    assert [(one["role"], one["side"], one["quantity"]) for one in fills] == [
        ("maker", "sell", "0.2000"),
        ("taker", "buy", "0.5000"),
    ]
    assert asked(exchange, "fills", "--label", "hit", key=KEYS[TAKER])["rows"] == [fills[1]]
    assert asked(exchange, "settlements") == {"rows": [], "next": None}
    rows = asked(exchange, "statement", "--limit", "1000", key=KEYS[TAKER])["rows"]
    account = asked(exchange, "account", key=KEYS[TAKER])
    assert sum(Decimal(one["amount"]) for one in rows) == Decimal(account["cash"]) == Decimal(rows[0]["cash"])
    (withdrawn,) = asked(exchange, "statement", "--kind", "withdrawal", key=KEYS[TAKER])["rows"]
    assert (withdrawn["paid"], withdrawn["kind"]) == ("100.000000", "withdrawal")


def test_history__for_people__is_a_table_and_says_how_to_go_on(exchange: Exchange) -> None:
    shown = shell(exchange, "order", "history", "--limit", "2")
    assert "2024-10-03 18:00" in shown
    assert "0.2000/0.2000" in shown
    assert "more: --cursor " in shown
    assert "deposit" in shell(exchange, "statement", "--kind", "deposit")
    assert "settlements: none" in shell(exchange, "settlements")


def test_history__of_another_account__is_refused(exchange: Exchange) -> None:
    said = shell(exchange, "fills", "--account", str(MAKER), key=STRANGER, status=1)
    assert f"account {MAKER} is for its owner and its session keys" in said.replace("\n", " ")
    assert "must be like 2026-11-29" in shell(exchange, "fills", "--since", "yesterday", status=2).replace(
        "\n", " "
    )
