"""Exit from a frozen exchange: proofs for `Exit.vy` from the last final state, and the resulting payouts.

No operator is needed. The state is rebuilt from L1 data alone; anybody who has it can prove every account, and payouts
go to the owners whoever sends the proofs. Amounts are 1e-6 USD, prices ticks.
"""

from collections.abc import Iterable

from sequencer.protocol import constants as c
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State, expiry_time

# --- proofs ---------------------------------------------------------------------------------------


class Proofs:
    """Witnesses under the root of `state`, as bytes: the words that each function of `Exit` reads, in order.

    A state with an open plan is taken back to the start of the plan, as in `Exit.begin`.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.root = state.root()
        self._before_open = b""
        taker = state.globals.taker
        if state.globals.plan_root and taker is not None:
            self._before_open = self._open()
            state.globals, _ = state.rewind(taker.account)
            self.root = state.root()

    def begin(self) -> tuple[int, bytes]:
        """Number of accounts, and its witness."""
        last = len(self.state.accounts)
        witness = self._before_open + self._open()
        if last:
            witness += self._leaf(c.KEY_ACCOUNT | last, self.state.accounts[last].words())
        return last, witness + self._absent(c.KEY_ACCOUNT | (last + 1))

    def declare(self, number: int) -> bytes:
        """Witness of an account and its pages."""
        account = self.state.accounts[number]
        out = self._leaf(c.KEY_ACCOUNT | number, account.words())
        for page_id in sorted({instrument >> 5 for instrument in account.positions}):
            out += self._leaf(c.KEY_PAGE | page_id, self.state.pages[page_id].words())
        return out

    def fix(self, key: int) -> bytes:
        """Witness of the expiry `underlying << 16 | day`; of the underlying too, unless the expiry is settled."""
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


def has_passed(state: State, key: int) -> bool:
    """Whether the expiry `underlying << 16 | day` had passed at the state's time: it then has a price, and no marks."""
    return expiry_time(key & 0xFFFF) <= state.globals.time


def expiry_price(state: State, key: int) -> int:
    """Price of a passed expiry: the settlement price, else the one FIX would set from snapshots, else the index."""
    expiry = state.expiries[key]
    if expiry.settled:
        return expiry.settlement
    day, underlying = key & 0xFFFF, state.underlyings[key >> 16]
    snapshot = underlying.snapshots[day % c.SNAPSHOT_DAYS]
    if snapshot.day != day or not (snapshot.has_start and snapshot.has_end):
        return underlying.index
    elapsed = (snapshot.cumulative_end - snapshot.cumulative_start) & c.U64_MAX
    return min((2 * elapsed + c.TWAP_S) // (2 * c.TWAP_S), c.U32_MAX)


def closing_price(state: State, instrument: int) -> int:
    """Price at which positions of an instrument are closed: its mark, or intrinsic value after its expiry."""
    page, row = state.pages[instrument >> 5], instrument & 31
    if not has_passed(state, instrument >> 12):
        return page.rows[row][0]
    terms = page.terms[row]
    return intrinsic(expiry_price(state, instrument >> 12), terms & 0x7FFF_FFFF, bool(terms >> 31))


def closing_value(state: State, account: Account) -> int:
    """Value of an account with its positions closed; may be negative. All values sum to pool + deficit."""
    return account.cash + sum(
        lots * closing_price(state, instrument) for instrument, lots in account.positions.items()
    )


def passed_expiries(state: State) -> list[int]:
    """Passed expiries (underlying << 16 | day) with open positions, ascending."""
    held = {instrument >> 12 for one in state.accounts.values() for instrument in one.positions}
    return sorted(key for key in held if has_passed(state, key))


def marks_age_s(state: State) -> int:
    """Age in seconds of the oldest marks at which a freeze would close positions; 0: it would close none."""
    held = {instrument >> 5 for one in state.holders.values() for instrument in one.positions}
    times = [state.pages[page_id].time for page_id in held if not has_passed(state, page_id >> 7)]
    return state.globals.time - min(times, default=state.globals.time)
