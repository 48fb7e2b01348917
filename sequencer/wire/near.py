"""Suggests listed instruments similar to an unlisted name."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from sequencer.wire.names import MONTHS

SHOWN: Final = 3  # names that are suggested
NAME_CHARACTERS_MAX: Final = 32


class Near:
    """Index of all listed names; a lookup takes a few bisections."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_class: dict[tuple[str, str], list[tuple[float, str]]] = {}  # (BTC-2JAN22, C) -> strike, name
        self._expiries: dict[str, list[tuple[float, str]]] = {}  # BTC -> day, BTC-2JAN22
        self._first = ""
        for name in names:
            underlying, expiry, strike, kind = name.split("-")
            prefix = f"{underlying}-{expiry}"
            if (prefix, "C") not in self._by_class and (prefix, "P") not in self._by_class:
                self._expiries.setdefault(underlying, []).append((_day(expiry), prefix))
            self._by_class.setdefault((prefix, kind), []).append((_strike(strike), name))
            self._first = self._first or name
        for found in (*self._by_class.values(), *self._expiries.values()):
            found.sort()

    def to(self, name: object) -> list[str]:
        """The names next to `name`: of its expiry, else of the expiry next to it; the nearest strike first."""
        if not self._first:
            return []
        text = name.upper() if isinstance(name, str) and len(name) <= NAME_CHARACTERS_MAX else ""
        underlying, expiry, strike, kind = (*text.split("-", 3), "", "", "", "")[:4]
        expiries = self._expiries.get(underlying)
        if expiries is None:
            return [self._first]
        prefix = _nearest(expiries, _day(expiry), 1)[0]
        of_class = self._by_class.get((prefix, "P" if kind == "P" else "C")) or self._by_class[prefix, "P"]
        return _nearest(of_class, _strike(strike), SHOWN)

    def hint(self, name: object) -> str:
        """The hint of an error; "" where nothing is listed."""
        found = self.to(name)
        return "nothing is listed now" if not found else "the nearest are " + ", ".join(found)


def _nearest(rows: list[tuple[float, str]], wanted: float, count: int) -> list[str]:
    """The names of the `count` rows whose values are next to `wanted`, the nearest first."""
    at = bisect_left(rows, (wanted, ""))
    around = rows[max(0, at - count) : at + count]
    return [name for _, name in sorted(around, key=lambda row: abs(row[0] - wanted))[:count]]


def _day(text: str) -> float:
    """Days since 1970 of `2JAN22`; 0 for what is no date."""
    try:
        month = MONTHS.index(text[-5:-2]) + 1
        date = datetime(2000 + int(text[-2:]), month, int(text[:-5]), tzinfo=UTC)
    except ValueError:
        return 0.0
    return date.timestamp() // 86_400


def _strike(text: str) -> float:
    """USD; 0 for what is no strike."""
    try:
        return float(text.replace("D", ".").replace("d", "."))
    except ValueError:
        return 0.0
