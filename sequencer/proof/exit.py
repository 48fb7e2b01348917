"""Leaving a frozen exchange: proofs for `Exit.vy` out of the last final state, and the transactions that carry them.

Nothing here needs an operator. The state is rebuilt from L1 data alone; whoever has it can prove every account, and the
money goes to the owners whoever sends the proofs. Amounts are 1e-6 USD.
"""

from collections.abc import Iterable
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.entries import NEVER, Account
from sequencer.protocol.state import State

STRESS_RATIO: Final = (
    4  # of the index: up to there a settlement price takes nothing back that was paid at once
)


# --- proofs ---------------------------------------------------------------------------------------


class Proofs:
    """Witnesses under the root of `state`, as bytes: what each function of `Exit` reads, in its order."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.root = state.root()

    def begin(self) -> tuple[int, bytes]:
        """How many accounts there are, and the witness that shows it."""
        last = len(self.state.accounts)
        witness = self._open()
        if last:
            witness += self._leaf(c.KEY_ACCOUNT | last, self.state.accounts[last].words())
        return last, witness + self._absent(c.KEY_ACCOUNT | (last + 1))

    def exit_now(self, number: int) -> bytes:
        """GLOBAL, PARAMS, the account, its pages."""
        return self._open() + self.declare(number)

    def declare(self, number: int) -> bytes:
        """The account and its pages."""
        account = self.state.accounts[number]
        out = self._leaf(c.KEY_ACCOUNT | number, account.words())
        for page_id in sorted({instrument >> 5 for instrument in account.positions}):
            out += self._leaf(c.KEY_PAGE | page_id, self.state.pages[page_id].words())
        return out

    def fix(self, key: int) -> bytes:
        """The expiry `underlying << 16 | day`; the underlying too, unless the expiry is settled."""
        expiry = self.state.expiries[key]
        out = self._leaf(c.KEY_EXPIRY | key, expiry.words())
        if not expiry.settled:
            underlying = self.state.underlyings[key >> 16]
            out += self._leaf(c.KEY_UNDERLYING | key >> 16, underlying.words())
        return out

    def withdrawal(self, number: int) -> tuple[str, int, int, list[bytes]]:
        """Owner, amount, bitmap and siblings of a WITHDRAWAL leaf: arguments of `Vault.claim`."""
        key = c.KEY_WITHDRAWAL | number
        value = self.state.map.get(key)
        assert value is not None
        path = self.state.map.path(key)
        return "0x" + f"{value >> 64:040x}", value & c.U64_MAX, path.bitmap, list(path.siblings)

    def _open(self) -> bytes:
        out = b""
        for key, words in (
            (c.KEY_GLOBAL, self.state.globals.words()),
            (c.KEY_PARAMS, self.state.params.words()),
        ):
            out += words + _words(self.state.map.path(key).words())
        return out

    def _leaf(self, key: int, words: bytes) -> bytes:
        return _words([len(words) // 32]) + words + _words(self.state.map.path(key).words())

    def _absent(self, key: int) -> bytes:
        return _words([0, *self.state.map.absence_witness(key).words()])


def _words(words: Iterable[int]) -> bytes:
    return b"".join(word.to_bytes(32, "big") for word in words)


# --- amounts --------------------------------------------------------------------------------------


def certain_value(state: State, account: Account, prices: dict[int, int]) -> int:
    """What `exit_now` counts on: the smaller of the worst scenario and the least settlement; may be negative.

    `prices` are the settlement prices fixed so far, by expiry (underlying << 16 | day), in ticks.
    """
    account.epoch = NEVER
    margin.refresh(state, account)
    scenario = margin.equity(account) - margin.initial(state, account)
    least = account.cash
    for key in sorted({instrument >> 12 for instrument in account.positions}):
        terms = []
        top = 0
        for instrument, lots in account.positions.items():
            if instrument >> 12 == key:
                page = state.pages[instrument >> 5]
                strike_and_put = page.terms[instrument & 31]
                terms.append((lots, strike_and_put & 0x7FFF_FFFF, bool(strike_and_put >> 31)))
                top = max(top, page.index * STRESS_RATIO)
        tried = {0, top} | {min(strike, top) for _, strike, _ in terms}
        if key in prices:
            tried = {prices[key]}
        least += min(
            sum(lots * intrinsic(price, strike, put) for lots, strike, put in terms)
            for price in sorted(tried)
        )
    return min(scenario, least)


def final_value(state: State, account: Account, prices: dict[int, int]) -> int:
    """Cash and positions at the settlement prices. Raises KeyError when one of its expiries has none."""
    value = account.cash
    for instrument, lots in account.positions.items():
        terms = state.pages[instrument >> 5].terms[instrument & 31]
        value += lots * intrinsic(prices[instrument >> 12], terms & 0x7FFF_FFFF, bool(terms >> 31))
    return value


def known_price(state: State, key: int) -> int | None:
    """Settlement price of an expiry that the state itself gives: fixed, or by its snapshots; else None."""
    expiry = state.expiries[key]
    if expiry.settled:
        return expiry.settlement
    day = key & 0xFFFF
    snapshot = state.underlyings[key >> 16].snapshots[day % c.SNAPSHOT_DAYS]
    if snapshot.day != day or not (snapshot.has_start and snapshot.has_end):
        return None
    elapsed = (snapshot.cumulative_end - snapshot.cumulative_start) & c.U64_MAX
    return min((2 * elapsed + c.TWAP_S) // (2 * c.TWAP_S), c.U32_MAX)


def expiries_held(state: State) -> list[int]:
    """Expiries (underlying << 16 | day) of which anybody holds positions, ascending."""
    return sorted({instrument >> 12 for one in state.accounts.values() for instrument in one.positions})
