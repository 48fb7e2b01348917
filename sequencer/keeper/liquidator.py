"""The liquidator: bids in auctions with its operator's accounts, as the house's last resort, too.

It has several accounts, because a full one (positions, pages, margin) cannot take more. The first account that can bid
takes what it can hold of a portfolio; the result is computed by the transition's own rule.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sequencer.engine.engine import Submission
from sequencer.protocol import codec, liquidation, margin
from sequencer.protocol import constants as c
from sequencer.protocol.auth import use_nonce
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Account
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.state import State


@dataclass(frozen=True, slots=True)
class Bidder:
    """An account that may bid, and a key that may sign for it."""

    account: int
    private_key: bytes


@dataclass(slots=True)
class Liquidator:
    """Bids `fraction` of 256 of a solvent account, as soon as the clock allows `discount_min_ppm` or all that its
    equity allows. It takes an insolvent account whole at its marks, for which nobody is paid. At most `bids_max` a
    pass.
    """

    bidders: Sequence[Bidder]
    fraction: int = 64
    discount_min_ppm: int = 50_000
    bids_max: int = 64

    def bids(self, state: State, auctions: Iterable[tuple[int, Account]], now_s: int) -> list[Submission]:
        """Bids for the portfolios on auction, in the given order, one each."""
        out: list[Submission] = []
        planned: dict[int, Account] = {}  # the bidders' accounts after the earlier bids
        for number, target in auctions:
            if len(out) == self.bids_max:
                break
            if not self._is_worth_it(state, target, now_s):
                continue
            for bidder in self.bidders:
                raw = self._bid(state, planned, bidder, number, target)
                if raw is not None:
                    signer = address_of(public_key_of(bidder.private_key))
                    out.append(Submission(raw, signer, None, 0, c.CLASS_TAKER))
                    break
        return out

    def _is_worth_it(self, state: State, target: Account, now_s: int) -> bool:
        equity, risk, _ = margin.cautious(state, target)
        if equity <= 0:
            return True
        params = state.params
        elapsed = min(now_s - target.auction_start, params.auction_duration_s)
        discount = params.auction_discount_max_ppm * elapsed // params.auction_duration_s
        wanted = min(self.discount_min_ppm, c.PPM * equity // max(risk, 1))
        return discount >= wanted or elapsed == params.auction_duration_s

    def _bid(
        self, state: State, planned: dict[int, Account], bidder: Bidder, number: int, target: Account
    ) -> bytes | None:
        """The largest bid that the bidder's account can make for the rest of the portfolio, if any."""
        account = planned.get(bidder.account) or state.accounts.get(bidder.account)
        if account is None or account.auction_start or bidder.account == number:
            return None
        margin.refresh(state, account)
        if margin.is_stale(state, account):
            return None
        nonce = account.nonce_floor
        while account.nonce_bitmap >> (nonce - account.nonce_floor) & 1:
            nonce += 1
        if nonce - account.nonce_floor == c.NONCE_WINDOW:
            return None
        for fraction in self._fractions(state, target):
            taken = liquidation.cut(state, target, account, fraction)
            if isinstance(taken, liquidation.Slice) and margin.free(state, taken.buyer) >= 0:
                use_nonce(taken.buyer, nonce)
                planned[bidder.account] = taken.buyer
                raw = codec.encode(
                    Kind.BID,
                    account=bidder.account,
                    target=number,
                    fraction=fraction,
                    cash_max=2**63 - 1,
                    nonce=nonce,
                    expires=0,
                )
                return codec.sign(raw, state.domain, bidder.private_key)
        return None

    def _fractions(self, state: State, target: Account) -> Iterator[int]:
        """Fractions from the largest on, each a quarter of the previous."""
        insolvent = margin.cautious(state, target)[0] <= 0
        fraction = 256 if insolvent else min(self.fraction, state.params.auction_fraction_max)
        while fraction:
            yield fraction
            fraction //= 4
        if not insolvent:  # where a rounded part leaves more risk, once parts are no longer required
            yield 256
