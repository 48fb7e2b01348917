"""For quants: the price and the margin that the exchange's own integer core computes."""

from typing import Any, BinaryIO

import click

from sequencer.cli.output import fail, show, write_json


@click.command()
@click.option("--type", "option_type", type=click.Choice(["call", "put"]), required=True)
@click.option("--forward", required=True, help="USD, e.g. 46219.79")
@click.option("--strike", required=True, help="USD")
@click.option("--iv", required=True, help="a fraction a year, e.g. 0.6748, or 67.48%")
@click.option("--expires-in", type=click.IntRange(0, 2**32 - 1), required=True, help="seconds")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
def price(option_type: str, forward: str, strike: str, iv: str, expires_in: int, as_json: bool) -> None:
    """Mark, greeks and the 16 scenarios of one option, in USD per contract."""
    from sequencer.market.quant import price_option

    try:
        result: dict[str, Any] = {**price_option(option_type, forward, strike, iv, expires_in)}
    except (ValueError, ArithmeticError) as error:
        raise fail(str(error)) from error
    if as_json:
        write_json("-", result)
        return
    scenarios = result.pop("scenarios")
    show(f"{option_type} {strike} on {forward}, iv {iv}, {expires_in} s", result)
    show("scenarios, USD per contract", {f"{i:2d}": value for i, value in enumerate(scenarios)})


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
def margin(file: BinaryIO, as_json: bool) -> None:
    """IM, MM and scenario losses of a portfolio.

    FILE (- reads standard input) is JSON: {"cash": "1000.00", "index": "46219.79", "positions": [{"type": "put",
    "forward": "46219.79", "strike": "45000", "iv": "0.67", "expires_in": 86400, "quantity": "-1.5"}, ...]}. With
    both underlyings: {"index": {"BTC": "46219.79", "ETH": "3700"}, ...}, and each position has its "underlying".
    """
    from sequencer.market.portfolio import PortfolioError, evaluate, read_portfolio

    try:
        result = evaluate(read_portfolio(file.read()))
    except PortfolioError as error:
        raise fail(str(error)) from error
    if as_json:
        write_json("-", result)
        return
    scenarios, underlyings = result.pop("scenarios"), result.pop("underlyings")
    show("portfolio, USD", result)
    for name, one in underlyings.items():
        show(name, {"floor": one["floor"], "worst": one["worst"]})
    show("profit or loss by scenario, USD", {f"{i:2d}": value for i, value in enumerate(scenarios)})
