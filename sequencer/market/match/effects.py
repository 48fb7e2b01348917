"""What a command of `fairstrike match` did, whichever venue has run it; and what a venue is."""

from typing import Protocol

from sequencer.market.match.commands import Id


class Effects:
    """`refused`: "" or the reason, with `why` in words; then nothing else has happened.

    fills: (maker's id, price, quantity) in order of execution. rested: what is left in the book of the order that the
    command placed or amended. gone: (id, reason, quantity) of orders that left the book without being filled. All
    numbers in 1e-8.
    """

    __slots__ = ("fills", "gone", "refused", "rested", "why")

    def __init__(self) -> None:
        self.refused = ""
        self.why = ""
        self.fills: list[tuple[Id, int, int]] = []
        self.rested = 0
        self.gone: list[tuple[Id, str, int]] = []


def refusal(reason: str, why: str) -> Effects:
    """The effects of a command that is refused."""
    out = Effects()
    out.refused, out.why = reason, why
    return out


class Venue(Protocol):
    """A book with its clock. Prices and quantities in 1e-8, times in seconds."""

    def time_to(self, time: int) -> Effects:
        """Lets `time` come; orders whose end it is are gone."""

    def place(
        self,
        order_id: Id,
        side: int,
        price: int,
        quantity: int,
        tif: str = "GTC",
        post_only: bool = False,
        *,
        reduce_only: bool = False,
        owner: Id | None = None,
        cancel_taker: bool = False,
        expires: int = 0,
    ) -> Effects:
        """Matches an order and rests what its `tif` lets rest."""

    def cancel(self, order_id: Id, owner: Id | None = None) -> Effects:
        """Takes an order out of the book."""

    def cancel_all(self, owner: Id) -> Effects:
        """Takes every order of `owner` out of the book."""

    def amend(self, order_id: Id, price: int | None, quantity: int | None, owner: Id | None) -> Effects:
        """Gives an order another price, or another total (what has traded of it included), or both."""

    def amounts(self, order_id: Id) -> tuple[int, int] | None:
        """What has traded of a resting order and what remains of it, or None."""

    def resting(self) -> int:
        """Orders in the book."""

    def best_price(self, side: int) -> int | None:
        """Best price of a side, or None."""
