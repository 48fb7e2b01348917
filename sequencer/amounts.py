"""Amounts as exact decimal strings, in the units that people use.

Prices and sizes come again and again: those of late are remembered.
"""

from functools import lru_cache
from typing import Final

_REMEMBERED: Final = 16_384


@lru_cache(_REMEMBERED)
def usd(ticks: int) -> str:
    """A price in ticks of 0.01 USD."""
    return f"{'-' if ticks < 0 else ''}{abs(ticks) // 100}.{abs(ticks) % 100:02d}"


def cash(amount: int) -> str:
    """An amount in 1e-6 USD."""
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    return f"{sign}{size // 1_000_000}.{str(size % 1_000_000 + 1_000_000)[1:]}"  # a leading 1 keeps the zeros


@lru_cache(_REMEMBERED)
def contracts(lots: int) -> str:
    """A quantity in lots of 0.0001 contract."""
    return f"{'-' if lots < 0 else ''}{abs(lots) // 10_000}.{abs(lots) % 10_000:04d}"


def address(raw: bytes) -> str:
    """0x and 40 hex digits."""
    return "0x" + raw.hex()
