"""Types of arguments that need the market to be read: the names of options."""

from typing import Any, Final

import click


class InstrumentName(click.ParamType):
    """An option by name or number; lower case is understood. `others`: what else an argument in its place may be."""

    name = "instrument"

    def __init__(self, *others: str) -> None:
        self._others = others

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or the number's digits; else click's error."""
        from sequencer.market.tape import parse_instrument
        from sequencer.protocol.constants import U32_MAX

        text = str(value)
        if text in self._others or (
            text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= U32_MAX
        ):
            return text
        name = _upper(text)
        try:
            parse_instrument(name)
        except ValueError:
            limit = "the name of an option, such as BTC-26DEC26-50000-C, or its number"
            self.fail(f"must be {limit}, not {value!r}; `fairstrike instruments` lists them", param, ctx)
        return name


def _upper(text: str) -> str:
    """The name in capitals; the `d` of a strike with cents stays."""
    parts = text.upper().split("-")
    return "-".join(one.replace("D", "d") if place == 2 else one for place, one in enumerate(parts))


INSTRUMENT: Final = InstrumentName()
