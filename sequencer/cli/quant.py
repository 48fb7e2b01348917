"""For quants: the price and the margin that the exchange's own integer core computes."""

import sys
from collections.abc import Iterable
from typing import Any, BinaryIO, Final

import click
import msgspec

from sequencer.cli.output import fail, plain, show, show_rows, write_json

UNDERLYINGS: Final = ("BTC", "ETH")


class _Ask(msgspec.Struct, forbid_unknown_fields=True):
    """A line of the batch mode."""

    type: str
    forward: str
    strike: str
    expires_in: int
    iv: str | None = None
    price: str | None = None
    underlying: str = UNDERLYINGS[0]
    any: bool = False
    id: int | str | None = None


@click.command()
@click.option("--type", "option_type", type=click.Choice(["call", "put"]))
@click.option("--forward", help="USD, e.g. 46219.79")
@click.option("--strike", help="USD")
@click.option("--iv", help="a fraction a year, e.g. 0.6748, or 67.48%")
@click.option("--price", "premium", help="USD, instead of --iv: compute the implied volatility")
@click.option("--expires-in", type=click.IntRange(0, 2**32 - 1), help="seconds")
@click.option("--underlying", type=click.Choice(UNDERLYINGS), default="BTC", show_default=True)
@click.option("--any", "is_any", is_flag=True, help="also price options that the exchange could not list")
@click.option("--batch", type=click.File("rb"), help="JSON lines of these fields (- for standard input)")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
def price(
    option_type: str | None,
    forward: str | None,
    strike: str | None,
    iv: str | None,
    premium: str | None,
    expires_in: int | None,
    underlying: str,
    is_any: bool,
    batch: BinaryIO | None,
    as_json: bool,
) -> None:
    """Compute mark, greeks and the 16 scenarios of one option, in USD per contract; or its implied volatility.

    Refuses an option that the exchange could not list: a strike off its grid or too far away, an expiry too far ahead.
    --any prices it anyway.

    With --batch FILE each line is an object such as {"type":"call","forward":"46219.79","strike":"48000",
    "iv":"0.6748","expires_in":115180}, with "price" instead of "iv" for the implied volatility; optional:
    "underlying", "any", and an "id" that the answer repeats. One answer a line, in order; for a line that cannot be
    priced {"line":3,"error":"..."}, and the exit status is 1.
    """
    if batch is not None:
        if not _batch(batch, is_any):
            raise click.exceptions.Exit(1)
        return
    missing = [
        name
        for name, value in (
            ("--type", option_type),
            ("--forward", forward),
            ("--strike", strike),
            ("--expires-in", expires_in),
        )
        if value is None
    ]
    if missing:
        raise click.UsageError(f"missing: {', '.join(missing)} (or give --batch FILE)")
    if (iv is None) == (premium is None):
        raise click.UsageError("give --iv, or --price for the implied volatility")
    assert option_type is not None
    assert forward is not None
    assert strike is not None
    assert expires_in is not None
    try:
        result = _priced(_Ask(option_type, forward, strike, expires_in, iv, premium, underlying, is_any))
    except (ValueError, ArithmeticError) as error:
        raise fail(str(error)) from error
    if as_json:
        write_json("-", result)
        return
    scenarios, labels = result.pop("scenarios"), result.pop("labels")
    how = f"iv {iv}" if premium is None else f"price {premium}"
    show(f"{underlying} {option_type} {strike} on {forward}, {how}, {expires_in} s", result)
    rows = [
        {"": f"{i:2d}", "profit or loss": value, "scenario": label}
        for i, (value, label) in enumerate(zip(scenarios, labels, strict=True))
    ]
    show_rows("scenarios, USD per contract", rows)


def _priced(asked: _Ask) -> dict[str, Any]:
    """The answer to one question. Raises ValueError."""
    from sequencer.market.quant import price_option, why_unlistable
    from sequencer.protocol.params import Params

    if asked.underlying not in UNDERLYINGS:
        raise ValueError(f"underlying must be one of {', '.join(UNDERLYINGS)}, not {asked.underlying!r}")
    number, params = UNDERLYINGS.index(asked.underlying), Params()
    if not asked.any:
        why = why_unlistable(number, asked.forward, asked.strike, asked.expires_in, params)
        if why is not None:
            raise ValueError(f"the exchange could not list this: {why} (--any prices it all the same)")
    found = price_option(
        asked.type,
        asked.forward,
        asked.strike,
        asked.iv,
        asked.expires_in,
        params.shocks(number),
        asked.price,
    )
    return {**found}


def _batch(lines: Iterable[bytes], is_any: bool) -> bool:
    """Answers line by line; whether all could be."""
    decode = msgspec.json.Decoder(_Ask).decode
    is_clean = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        told: dict[str, Any] = {}
        try:
            asked = decode(line)
            told = {} if asked.id is None else {"id": asked.id}
            asked.any |= is_any
            told |= _priced(asked)
        except (ValueError, ArithmeticError, UnicodeError) as error:
            told = told | {"line": number, "error": str(error)}
            is_clean = False
        sys.stdout.write(msgspec.json.encode(plain(told)).decode() + "\n")
    sys.stdout.flush()
    return is_clean


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
def margin(file: BinaryIO, as_json: bool) -> None:
    """Compute IM, MM, greeks and scenario losses of a portfolio, and each leg's part in them.

    FILE (- reads standard input) is JSON: {"cash": "1000.00", "index": "46219.79", "positions": [{"type": "put",
    "forward": "46219.79", "strike": "45000", "iv": "0.67", "expires_in": 86400, "quantity": "-1.5"}, ...]}. With
    both underlyings: {"index": {"BTC": "46219.79", "ETH": "3700"}, ...}, and each position has its "underlying".

    For each leg, adds_margin is the fall of the portfolio's IM without it (negative: it hedges), alone its IM by
    itself, worst its part in the portfolio's worst scenario.
    """
    from sequencer.market.portfolio import GREEKS, PortfolioError, evaluate, read_portfolio

    try:
        result = evaluate(read_portfolio(file.read()))
    except PortfolioError as error:
        raise fail(str(error)) from error
    if as_json:
        write_json("-", result)
        return
    lists = {name: result.pop(name) for name in ("scenarios", "labels", "underlyings", "legs")}
    show("portfolio, USD", result)
    for name, one in lists["underlyings"].items():
        show(name, {"floor": one["floor"], "worst": one["worst"]} | one["greeks"])
    terms = ("type", "strike", "expires_in", "quantity")
    for title, names in (("legs", ("value", "adds_margin", "alone", "worst")), ("greeks", GREEKS)):
        show_rows(title, [{name: leg[name] for name in (*terms, *names)} for leg in lists["legs"]])
    rows = [
        {"": f"{i:2d}", "profit or loss": value, "scenario": label}
        for i, (value, label) in enumerate(zip(lists["scenarios"], lists["labels"], strict=True))
    ]
    show_rows("profit or loss by scenario, USD", rows)
