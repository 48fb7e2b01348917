"""A feed without a market: constant indices and flat surfaces, for development and load tests."""

from collections.abc import Mapping
from typing import Final

from sequencer.genesis import UNDERLYINGS
from sequencer.market.feeds import IndexReport, Report, SurfaceReport
from sequencer.protocol import constants as c
from sequencer.protocol.state import expiry_time
from sequencer.wire.jsonrpc import PRICE_DECIMALS, to_units

Terms = tuple[int, int, int, bool]  # underlying, day, strike in ticks, is put
VOLATILITY_PERCENT: Final = 65
INDEX_TICKS: Final = 4_600_000


class FlatSource:
    """A constant index of each underlying every second, and flat surfaces at 65 % of the wanted expiries.

    `index_ticks`: of underlying 0, or of each by its number.
    """

    REFRESH_S: Final = 600  # well below surface_age_max_s

    def __init__(self, wanted: list[Terms], index_ticks: int | Mapping[int, int] = INDEX_TICKS) -> None:
        self._days = sorted({(underlying, day) for underlying, day, _, _ in wanted})
        self.indices = {0: index_ticks} if isinstance(index_ticks, int) else dict(index_ticks)
        self._surfaces_s = -self.REFRESH_S

    def poll(self, now_s: int) -> list[Report]:
        """The indices; the surfaces each REFRESH_S, until they expire."""
        out: list[Report] = [IndexReport(number, now_s, ticks) for number, ticks in self.indices.items()]
        if now_s < self._surfaces_s + self.REFRESH_S:
            return out
        self._surfaces_s = now_s
        for underlying, day in self._days:
            left_s = expiry_time(day) - now_s
            ticks = self.indices.get(underlying)
            if left_s <= 0 or ticks is None:
                continue
            variance = VOLATILITY_PERCENT**2 * 10**8 * left_s // (365 * c.DAY_S)
            out.append(SurfaceReport(underlying, day, now_s, ticks, ticks, variance, 0, 0, 0, 10**11))
        return out


def flat_indices(text: str) -> dict[int, int]:
    """Indices in ticks, by underlying, of `46000` (BTC) or `BTC=46000,ETH=2500`. Raises ValueError."""
    indices: dict[int, int] = {}
    for part in text.split(","):
        name, has_name, price = part.rpartition("=")
        try:
            number = UNDERLYINGS.index(name.strip().upper() if has_name else UNDERLYINGS[0])
            ticks = to_units(price, PRICE_DECIMALS)
        except ValueError:
            number = ticks = 0
        if not 0 < ticks <= c.U32_MAX or number in indices:
            raise ValueError(
                "flat: must be followed by a price in USD, such as flat:46000, or by one for each of "
                f"{', '.join(UNDERLYINGS)}, such as flat:BTC=46000,ETH=2500"
            )
        indices[number] = ticks
    return indices
