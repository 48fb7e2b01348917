"""The figures of docs/RISK.md, "Portfolio margin" to "Insurance and shared loss", in 1e-6 USD."""

import sys
from pathlib import Path

from sequencer.protocol import constants as c
from sequencer.protocol import liquidation, margin
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, CONTRACT, FAR, INDEX, Exchange


def figures(exchange: Exchange, role: str) -> tuple[int, int, int, int, int]:
    """Cash, value, equity, IM, MM."""
    account = exchange.account(role)
    return (account.cash, *portfolio(exchange, account))


def portfolio(exchange: Exchange, account: Account) -> tuple[int, int, int, int]:
    margin.refresh(exchange.state, account)
    equity = margin.equity(account)
    initial, maintenance = (
        margin.initial(exchange.state, account),
        margin.maintenance(exchange.state, account),
    )
    return equity - account.cash, equity, initial, maintenance


def test_worked_example__of_the_risk_page__comes_out() -> None:
    exchange = Exchange(**CALM)
    call, high, put = exchange.open((FAR, INDEX, 0), (FAR, INDEX + 500_000, 0), (FAR, INDEX, 1))
    for role, usd in (("writer", 20_000), ("holder", 100_000), ("bidder", 100_000)):
        exchange.deposit(role, usd)
    for positions, value, im, mm in (
        ({call: -1}, -3_450_630_000, 7_188_040_000, 5_750_432_000),
        ({call: 1}, 3_450_630_000, 3_153_660_000, 2_522_928_000),
        ({call: -1, high: 1}, -1_794_200_000, 1_990_471_409, 1_592_377_128),
        ({call: 1, high: -1}, 1_794_200_000, 1_605_066_297, 1_284_053_038),
        ({call: 1, put: 1}, 6_901_260_000, 1_995_125_571, 1_596_100_457),
    ):
        account = Account(bytes(20))
        account.positions = {one: q * CONTRACT for one, q in positions.items()}
        assert portfolio(exchange, account) == (value, value, im, mm)

    exchange.sell("writer", call, 350_000, CONTRACT)
    writer = exchange.account("writer")
    assert writer.reserved == 7_138_670_000
    margin.refresh(exchange.state, writer)
    free = margin.free(exchange.state, writer)
    out = exchange.buy("holder", call, 350_000, CONTRACT, tif=c.TIF_IOC)
    assert (out.fee, out.fills[0].taker_fee) == (100, 15_000_000)
    assert figures(exchange, "writer") == (
        23_499_999_900, -3_450_630_000, 20_049_369_900, 7_188_040_000, 5_750_432_000
    )  # fmt: skip
    hold = exchange.state.params.order_hold
    assert margin.free(exchange.state, exchange.account("writer")) == free + hold  # the leaf is gone

    exchange.remark(6_600_000)
    assert figures(exchange, "writer")[1:] == (-16_229_040_000, 7_270_959_900, 10_974_920_000, 8_779_936_000)
    assert exchange.liquidate("writer").reason is Reason.OK
    exchange.tick(225)
    out = exchange.bid("bidder", "writer", 64)
    assert (out.amount, out.fee) == (-4_743_192_500, 54_874_600)
    assert figures(exchange, "writer") == (
        18_701_932_800, -12_171_780_000, 6_530_152_800, 8_231_190_000, 6_584_952_000
    )  # fmt: skip
    g = exchange.state.globals
    assert g.fund == 62_374_600

    exchange.remark(8_500_000)
    assert figures(exchange, "writer")[2] == -7_550_639_700
    assert liquidation.discount_ppm(exchange.state, exchange.account("writer")) == 251_111
    assert exchange.bid("bidder", "writer", 256).amount == -26_252_572_500
    assert (g.fund, g.deficit, g.pool) == (0, 7_488_265_100, 219_992_499_800)
    exchange.deposit("newcomer", 100)
    assert exchange.account("newcomer").cash == 103_403_872
