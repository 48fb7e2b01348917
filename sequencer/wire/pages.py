"""Reads all pages of a paged method, one request after the other."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

PAGE: Final = 1_000
PAGED: Final = {"orders": "seq", "instruments": "number"}
"""Method -> the field of its last row that the next page's `after` is."""


async def all_of(call: Callable[..., Awaitable[Any]], method: str, /, **params: Any) -> list[dict[str, Any]]:
    """Every row of a paged method, through `call`."""
    rows: list[dict[str, Any]] = []
    after = 0
    while True:
        page = await call(method, **params, after=after, limit=PAGE)
        rows += page
        if len(page) < PAGE:
            return rows
        after = page[-1][PAGED[method]]


def all_of_blocking(call: Callable[..., Any], method: str, /, **params: Any) -> list[dict[str, Any]]:
    """See `all_of`."""
    rows: list[dict[str, Any]] = []
    after = 0
    while True:
        page = call(method, **params, after=after, limit=PAGE)
        rows += page
        if len(page) < PAGE:
            return rows
        after = page[-1][PAGED[method]]
