"""The whole state: entries in memory for speed, and the Merkle map that commits to them.

Handlers change entries and say so (`touch_*`); `root()` hashes what was touched into the map. The map is canonical,
so the order of these writes does not matter. Orders go into their book and into the map at once.
"""

from collections.abc import Iterator
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol.book import Book, Order, order_from, order_key, order_leaf
from sequencer.protocol.cmap import Map
from sequencer.protocol.entries import Account, Expiry, Global, Page, Underlying
from sequencer.protocol.hashing import keccak
from sequencer.protocol.params import Params

_TYPE_MASK: Final = 15 << c.TYPE_SHIFT
_BELOW_TYPE: Final = (1 << c.TYPE_SHIFT) - 1


class Changes:
    """What has changed in a state since its reader last took it, for indexes that are kept beside the state.

    `entries`: those that were written, by map key. `orders`: those that came to rest. Nothing in the transition reads
    it.
    """

    __slots__ = ("entries", "orders")

    def __init__(self) -> None:
        self.entries: dict[int, Account | Page | Underlying | Expiry] = {}
        self.orders: list[Order] = []

    def take(self) -> "Changes":
        """What has come since the last time, which is forgotten here."""
        taken = Changes()
        taken.entries, taken.orders, self.entries, self.orders = self.entries, self.orders, {}, []
        return taken


class Undo:
    """What stood where the open plan began, of all that it has changed since (plans.py).

    `orders`: leaf value by key. Nothing else that can change while a plan is open goes back.
    """

    __slots__ = ("accounts", "global_words", "orders")

    def __init__(self, global_words: bytes) -> None:
        self.global_words = global_words
        self.accounts: dict[int, Account] = {}
        self.orders: dict[int, int] = {}


class State:
    """State of an exchange. `domain` is its EIP-712 domain separator, a constant of the deployment."""

    __slots__ = (
        "_touched",
        "accounts",
        "books",
        "changes",
        "domain",
        "epoch",
        "expiries",
        "globals",
        "highest_account",
        "holders",
        "instruments",
        "map",
        "orders",
        "orders_of",
        "pages",
        "params",
        "shocks",
        "underlyings",
        "undo",
    )

    def __init__(self, domain: bytes, params: Params, underlyings: tuple[int, ...] = (0,)) -> None:
        self.domain = domain
        self.params = params
        own = [params.shocks(number) for number in range(c.UNDERLYINGS)]
        self.shocks = tuple(own[min(number, c.UNDERLYINGS - 1)] for number in range(c.UNDERLYINGS_MAX))
        self.map = Map()
        self.globals = Global()
        self.accounts: dict[int, Account] = {}
        self.highest_account = 0
        self.holders: dict[
            int, Account
        ] = {}  # whom LIQUIDATE may concern: positions, debts, orders beyond their cash
        self.pages: dict[int, Page] = {}
        if not all(0 <= number < c.UNDERLYINGS_MAX for number in underlyings):
            raise ValueError(f"underlyings: numbers are 0 to {c.UNDERLYINGS_MAX - 1}")
        self.underlyings: dict[int, Underlying] = {}
        self.expiries: dict[int, Expiry] = {}
        self.instruments: dict[int, int] = {}  # terms key (below the type) -> instrument
        self.books: dict[int, Book] = {}
        self.orders: dict[int, Order] = {}  # by seq: those that rest, dead ones too
        self.orders_of: dict[int, dict[int, Order]] = {}  # account -> seq -> resting order, dead ones too
        self.changes: tuple[Changes, ...] = ()  # one for each reader
        self.undo: Undo | None = None  # while a plan is open
        self.epoch = 0  # counts changes of pages, so that valuations know their age
        self._touched: dict[int, Account | Page | Underlying | Expiry] = {}
        self.map.put_words(c.KEY_PARAMS, params.words())
        for underlying in underlyings:
            self.underlyings[underlying] = Underlying()
            self.touch(c.KEY_UNDERLYING | underlying, self.underlyings[underlying])

    # --- writes ---------------------------------------------------------------------------------

    def watch(self, readers: int) -> tuple[Changes, ...]:
        """From now on notes what changes for so many readers, and for nobody else."""
        self.flush_entries()
        self.changes = tuple(Changes() for _ in range(readers))
        return self.changes

    def touch(self, key: int, entry: Account | Page | Underlying | Expiry) -> None:
        """Says that `entry`, which stands at map key `key`, has changed."""
        self._touched[key] = entry

    def put_account(self, number: int, account: Account) -> None:
        """Puts `account` in the place of what stood there."""
        self.accounts[number] = account
        self.highest_account = max(self.highest_account, number)
        self._touched[c.KEY_ACCOUNT | number] = account
        if account.positions or account.cash < account.reserved:
            self.holders[number] = account
        else:
            self.holders.pop(number, None)

    def new_expiry(self, key: int) -> Expiry:
        """A new, empty expiry."""
        expiry = self.expiries[key] = Expiry()
        return expiry

    def new_page(self, page_id: int) -> Page:
        """A new, empty page."""
        page = self.pages[page_id] = Page()
        return page

    def put_instrument(self, terms: int, instrument: int) -> None:
        """Writes the INSTRUMENT leaf of `terms` (the key below its type)."""
        self.instruments[terms] = instrument
        self.map.put(c.KEY_INSTRUMENT | terms, 1 << 32 | instrument)

    def put_withdrawal(self, number: int, owner: bytes, amount: int) -> None:
        """Writes WITHDRAWAL leaf `number`."""
        self.map.put(c.KEY_WITHDRAWAL | number, int.from_bytes(owner, "big") << 64 | amount)

    def insert_order(self, order: Order) -> None:
        """Rests `order` in its book and in the map."""
        book = self.books.get(order.instrument)
        if book is None:
            book = self.books[order.instrument] = Book(order.instrument)
        book.insert(order)
        self._know(order)
        for reader in self.changes:
            reader.orders.append(order)
        self.map.put_leaf(order_leaf(order))

    def rewind(self, number: int) -> tuple[Global, Account]:
        """Takes accounts and orders back to where the open plan began; GLOBAL and account `number` as they were there.

        GLOBAL's own fields are the caller's, who knows which of them go back.
        """
        undo = self.undo
        assert undo is not None  # a plan is open, and copies of a state carry it
        for key, value in undo.orders.items():
            self._bring_back(order_from(key, value))
        for changed, account in undo.accounts.items():
            State.put_account(self, changed, account)
        self.undo = None
        return Global.from_words(undo.global_words), self.accounts[number]

    def _bring_back(self, order: Order) -> None:
        resting = self.books[order.instrument].get(order.side, order.price, order.seq)
        if resting is None:
            State.insert_order(self, order)
            return
        self.books[order.instrument].regain(resting, order.quantity)
        resting.filled = order.filled
        self.map.put_leaf(order_leaf(order))

    def _know(self, order: Order) -> None:
        held = self.orders_of.get(order.account)
        if held is None:
            held = self.orders_of[order.account] = {}
        held[order.seq] = self.orders[order.seq] = order

    def remove_order(self, order: Order) -> None:
        """Takes `order` out of its book and out of the map."""
        self.books[order.instrument].remove(order)
        held = self.orders_of[order.account]
        held.pop(order.seq, None)
        self.orders.pop(order.seq, None)
        if not held:
            del self.orders_of[order.account]
        self.map.delete(order_key(order.instrument, order.side, order.price, order.seq))

    def fill_order(self, order: Order, quantity: int) -> None:
        """`quantity` lots of a resting order have traded, fewer than remain."""
        order.filled += quantity
        self._take_off(order, quantity)

    def shrink_order(self, order: Order, quantity: int) -> None:
        """Takes `quantity` lots, fewer than remain, off a resting order, which keeps its place."""
        self._take_off(order, quantity)

    def _take_off(self, order: Order, quantity: int) -> None:
        self.books[order.instrument].reduce(order, quantity)
        self.map.put_leaf(order_leaf(order))

    # --- reads ----------------------------------------------------------------------------------
    # The transition reads through these, in the order in which its twin consumes a witness: proof/witness.py.

    def account(self, number: int) -> Account | None:
        """The account, or None."""
        return self.accounts.get(number)

    def owner(self, number: int) -> Account:
        """The account of a resting or pending order, which exists."""
        return self.accounts[number]

    def page(self, page_id: int) -> Page | None:
        """The page, or None."""
        return self.pages.get(page_id)

    def page_of(self, instrument: int) -> Page:
        """The page of an instrument that is held or traded, which exists."""
        return self.pages[instrument >> 5]

    def underlying(self, number: int) -> Underlying | None:
        """The underlying, or None."""
        return self.underlyings.get(number)

    def expiry(self, key: int) -> Expiry | None:
        """The expiry (underlying << 16 | day), or None."""
        return self.expiries.get(key)

    def instrument(self, terms: int) -> int | None:
        """The instrument of these terms (the key below the type), or None."""
        return self.instruments.get(terms)

    def crossing(self, instrument: int, side: int, price: int) -> Iterator[Order]:
        """Resting orders that a taker of `side` limited to `price` can trade with, best first."""
        book = self.books.get(instrument)
        return iter(()) if book is None else book.crossing(side, price)

    def trace_best(self, instrument: int, side: int) -> None:
        """The transition looks at the best order of a side, or finds none."""

    def trace_remove(self, order: Order) -> None:
        """The transition plans to take a resting order out."""

    def trace_fill(self, order: Order, quantity: int) -> None:
        """The transition plans to trade lots of a resting order, which stays."""

    def trace_back(self) -> None:
        """The transition gives up what it has planned, and goes on from the state before the record."""

    def find_order(self, instrument: int, side: int, price: int, seq: int) -> Order | None:
        """The resting order with this key, or None. Total: `side` may be any uint8 that a record holds."""
        book = self.books.get(instrument)
        return book.get(side, price, seq) if book is not None and side <= c.SELL else None

    def flush(self) -> None:
        """Hashes all touched entries into the map, and GLOBAL."""
        self.flush_entries()
        self.map.put_words(c.KEY_GLOBAL, self.globals.words())

    def flush_entries(self) -> None:
        """Hashes all touched entries into the map; the readers of changes have them then."""
        put_words = self.map.put_words
        for key, entry in self._touched.items():
            put_words(key, entry.words())
        for reader in self.changes:
            reader.entries.update(self._touched)
        self._touched.clear()

    def root(self) -> bytes:
        """Root of the state as it is now (32 bytes)."""
        self.flush()
        return self.map.root()

    def mark(self) -> int:
        """Notes the root of the state as it is now for `map.roots()`; its place among those noted."""
        self.flush()
        return self.map.mark()

    # --- copies ---------------------------------------------------------------------------------

    def preimages(self) -> Iterator[tuple[int, bytes]]:
        """(key, words) of every leaf: all that is needed to build the state again. Inline leaves give their value.

        While a plan is open also what it has changed, as it was before, under the leaf's key + UNDO.
        """
        yield c.KEY_PARAMS, self.params.words()
        yield c.KEY_GLOBAL, self.globals.words()
        for number, account in self.accounts.items():
            yield c.KEY_ACCOUNT | number, account.words()
        for number, page in self.pages.items():
            yield c.KEY_PAGE | number, page.words()
        for number, underlying in self.underlyings.items():
            yield c.KEY_UNDERLYING | number, underlying.words()
        for number, expiry in self.expiries.items():
            yield c.KEY_EXPIRY | number, expiry.words()
        for key, value in self.map.items():
            if key & _TYPE_MASK in _INLINE:
                yield key, value.to_bytes(32, "big")
        if self.undo is not None:
            yield c.UNDO | c.KEY_GLOBAL, self.undo.global_words
            for number, account in self.undo.accounts.items():
                yield c.UNDO + (c.KEY_ACCOUNT | number), account.words()
            for key, value in self.undo.orders.items():
                yield c.UNDO + key, value.to_bytes(32, "big")

    @classmethod
    def from_preimages(cls, domain: bytes, leaves: Iterator[tuple[int, bytes]]) -> "State":
        """Inverse of `preimages`. Raises ValueError on words that no entry has; the caller compares the root."""
        params: Params | None = None
        undo: list[tuple[int, bytes]] = []
        items: list[tuple[int, int]] = []
        rest: list[tuple[int, bytes]] = []
        for key, words in leaves:
            kind = key & _TYPE_MASK
            if kind >= c.UNDO:
                undo.append((key - c.UNDO, words))
                continue
            items.append((key, int.from_bytes(words, "big") if kind in _INLINE else _value(words)))
            if kind == c.KEY_PARAMS:
                params = Params.from_words(words)
            else:
                rest.append((key, words))
        if params is None:
            raise ValueError("state: no PARAMS leaf")
        state = cls(domain, params, ())
        orders: list[Order] = []
        for key, words in rest:
            kind, number = key & _TYPE_MASK, key & _BELOW_TYPE
            if kind == c.KEY_GLOBAL:
                state.globals = Global.from_words(words)
                if state.globals.words() != words:  # the root is taken of the fields, not of these words
                    raise ValueError("state: GLOBAL has bits that no field holds")
            elif kind == c.KEY_ACCOUNT:
                account = state.accounts[number] = Account.from_words(words)
                state.highest_account = max(state.highest_account, number)
                if account.positions or account.cash < account.reserved:
                    state.holders[number] = account
            elif kind == c.KEY_PAGE:
                state.pages[number] = Page.from_words(words)
            elif kind == c.KEY_UNDERLYING:
                state.underlyings[number] = Underlying.from_words(words)
            elif kind == c.KEY_EXPIRY:
                state.expiries[number] = Expiry.from_words(words)
            elif kind == c.KEY_INSTRUMENT:
                state.instruments[number] = int.from_bytes(words, "big") & c.U32_MAX
            elif kind == c.KEY_ORDER:
                orders.append(order_from(key, int.from_bytes(words, "big")))
            elif kind != c.KEY_WITHDRAWAL:
                raise ValueError(f"state: unknown key type {kind >> c.TYPE_SHIFT}")
        for order in sorted(orders, key=lambda one: one.seq):
            state.books.setdefault(order.instrument, Book(order.instrument)).insert(order)
            state._know(order)
        items.sort()
        state.map = Map.build(items)
        state._keep_undo(undo)
        return state

    def _keep_undo(self, leaves: list[tuple[int, bytes]]) -> None:
        for key, words in leaves:
            if key == c.KEY_GLOBAL:
                self.undo = Undo(words)
        for key, words in leaves:
            kind = key & _TYPE_MASK
            if self.undo is None or kind not in (c.KEY_GLOBAL, c.KEY_ACCOUNT, c.KEY_ORDER):
                raise ValueError(
                    f"state: what is to be undone of key type {kind >> c.TYPE_SHIFT} stands alone"
                )
            if kind == c.KEY_ACCOUNT:
                self.undo.accounts[key & _BELOW_TYPE] = Account.from_words(words)
            elif kind == c.KEY_ORDER:
                self.undo.orders[key] = int.from_bytes(words, "big")


_INLINE: Final = (c.KEY_ORDER, c.KEY_INSTRUMENT, c.KEY_WITHDRAWAL)


def _value(words: bytes) -> int:
    return int.from_bytes(keccak(words), "big")


def expiry_time(day: int) -> int:
    """08:00:00 UTC of `day` (days since 1970), in seconds."""
    return day * c.DAY_S + c.EXPIRY_OF_DAY_S


def instrument_expiry_time(instrument: int) -> int:
    """Expiry of an instrument, from its number alone, in seconds."""
    return (instrument >> 12 & 0xFFFF) * c.DAY_S + c.EXPIRY_OF_DAY_S
