"""What records cost: every kind has its entry, and GLOBAL counts what was executed, refused records among it."""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import codec, work
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CONTRACT, FAR, INDEX, NEAR, Exchange


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def spent(exchange: Exchange, raw: bytes) -> int:
    before = exchange.state.globals.work
    exchange.apply(raw)
    return exchange.state.globals.work - before


def test_table__of_every_kind__has_an_entry() -> None:
    assert set(work.WORK) == set(c.LAYOUT)
    assert all(0 < units < 256 for units in work.WORK.values())  # a byte each in the twin
    assert min(work.WORK.values()) >= work.NO_KIND


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x07" * 31, bytes(31), b"\x29" * 93])
def test_no_record__costs_its_element(exchange: Exchange, raw: bytes) -> None:
    assert spent(exchange, raw) == work.NO_KIND


@pytest.mark.parametrize("kind", sorted(c.LAYOUT))
def test_refused_record__costs_what_its_kind_costs(exchange: Exchange, kind: int) -> None:
    size = c.LAYOUT[kind][0]
    assert spent(exchange, bytes([kind]) + b"\xff" * (size - 1)) == work.WORK[kind]
    assert spent(exchange, bytes([kind])) == work.WORK[kind]


@pytest.mark.parametrize("rows", [1, 7, c.PAGE_ROWS])
def test_risk__costs_the_rows_that_it_marks(exchange: Exchange, rows: int) -> None:
    instruments = exchange.open(*((FAR, INDEX + 50_000 * step, 0) for step in range(rows)))
    page = instruments[0] >> 5
    raw = codec.encode(Kind.RISK, underlying=page >> 23, day=page >> 7 & 0xFFFF, page=page & 127)
    assert spent(exchange, raw) == work.WORK[Kind.RISK] + rows * work.RISK_ROW
    exchange.tick(exchange.state.params.feed_age_max_s + 1)
    before = exchange.state.globals.work
    assert exchange.apply(raw).reason is Reason.NO_INDEX
    assert exchange.state.globals.work - before == work.WORK[Kind.RISK]


def test_order__costs_its_own_positions_and_each_account_that_it_meets(exchange: Exchange) -> None:
    (call,) = exchange.open((NEAR, INDEX, 0))
    for role in ("first", "second", "taker"):
        exchange.deposit(role, 1_000_000)
    mark = exchange.mark(call)
    for role in ("first", "second", "second"):
        exchange.sell(role, call, mark, CONTRACT)
    exchange.tick()
    before = exchange.state.globals.work
    out = exchange.buy("taker", call, mark, 3 * CONTRACT)
    assert len(out.fills) == 3
    assert exchange.state.globals.work - before == work.WORK[Kind.PLACE] + 2 * work.MAKER
    before = exchange.state.globals.work
    assert exchange.buy("taker", call, 1, CONTRACT).rested is not None
    assert exchange.state.globals.work - before == work.WORK[Kind.PLACE] + work.POSITION


def test_count__at_its_end__stands_still(exchange: Exchange) -> None:
    g = exchange.state.globals
    g.work = c.U48_MAX - work.WORK[Kind.TICK]
    exchange.tick()
    assert g.work == c.U48_MAX
    exchange.open((NEAR, INDEX, 0))
    assert g.work == c.U48_MAX


def test_protocol_page__shows_the_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "PROTOCOL.md").read_text()
    shown: dict[int, int] = {}
    for line in page.split("| work | kinds |\n|---:|---|\n")[1].split("\n\n")[0].splitlines():
        units, names = line.strip("| ").split(" | ")
        shown |= {Kind[name]: int(units) for name in names.split(", ")}
    assert shown == work.WORK
    page = " ".join(page.split())
    for name, units in (("for each row", work.RISK_ROW), ("for each position", work.POSITION)):
        assert f"{units} more {name}" in page
    assert f"{work.MAKER} for each other account" in page
    assert f"a record of unknown kind cost {work.NO_KIND}." in page
