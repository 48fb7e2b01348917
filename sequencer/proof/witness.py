"""Witnesses: what a verifier contract needs to re-execute one record from a root, in the order of its use.

The transition itself says what it reads: `Tracer` is a State that notes each first read and each write while a record
is applied; the notes are then replayed on a map that stands where the record began, and give paths.

Words of a witness (32 bytes each), one after the other:

    open        GLOBAL's 6 words, path; PARAMS' words, path
    read        a hashed leaf: n, its n words, path -- or 0, neighbour when it is absent; once a record and leaf
    inline      an ORDER or INSTRUMENT leaf: 1, value, path -- or 0, neighbour; nothing for an order of side 2 or more
    best        best order of a side: key, value, path -- or 0, neighbour of the empty prefix
    remove      of an order that `inline` or `best` has just shown: nothing, that path serves
    reduce      likewise
    write       path, at the root that then stands
    insert      neighbour, likewise
    rewind      at the root of an open plan: GLOBAL's 6 words, path; the taker's account as read
    close       path of GLOBAL, at the root that then stands (the record's pre-root when it was a no-op)

path = bitmap, siblings leaf first; neighbour = key, value, bitmap, bit, siblings (sequencer/protocol/cmap.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sequencer.protocol import constants as c
from sequencer.protocol.book import ORDER_LOW_MASK, Order, book_prefix, order_key, order_value
from sequencer.protocol.cmap import Map
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import NEVER, Account, Expiry, Global, Page, Underlying
from sequencer.protocol.hashing import keccak
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, Undo
from sequencer.protocol.transition import apply

Entry = Account | Page | Underlying | Expiry


@dataclass(frozen=True, slots=True)
class Witness:
    """Witness of one record: roots before and after, the words, and Python's outcome."""

    pre_root: bytes
    record: bytes
    words: tuple[int, ...]
    post_root: bytes
    outcome: Outcome

    def data(self) -> bytes:
        """The words, joined."""
        return b"".join(word.to_bytes(32, "big") for word in self.words)


class Tracer(State):
    """A State that notes reads and writes of the transition. Create it with `Tracer.of(state)`."""

    def __init__(self, domain: bytes, params: Params, underlyings: tuple[int, ...] = (0,)) -> None:
        super().__init__(domain, params, underlyings)
        self._events: list[tuple[Any, ...]] = []
        self._seen: dict[int, None] = {}
        self._planned: dict[int, None] = {}
        self._shadow = Map()
        self._tracing = False

    @classmethod
    def of(cls, state: State) -> "Tracer":
        """A tracer at the state's position."""
        leaves: Iterator[tuple[int, bytes]] = iter(list(state.preimages()))
        one = cls.from_preimages(state.domain, leaves)
        assert isinstance(one, Tracer)
        one.stand()
        return one

    def stand(self) -> None:
        """Starts the shadow at the state's position."""
        self._shadow = Map.build(sorted(self.map.items()))

    def witness(self, raw: bytes, signer: bytes | None = None) -> Witness:
        """Applies `raw` and returns its witness."""
        pre_root = self.root()
        before = self.globals.words()
        self._events, self._seen, self._planned = [], {}, {}
        self._tracing = True
        try:
            out = apply(self, raw, signer)
        finally:
            self._tracing = False
        post_root = self.root()
        words = _Builder(self._shadow, before, self.params.words()).build(
            self._events, out.reason, self.globals.words()
        )
        assert self._shadow.root() == post_root, "witness: the replayed writes do not give the state's root"
        return Witness(pre_root, raw, tuple(words), post_root, out)

    # --- reads ------------------------------------------------------------------------------------

    def _read(self, key: int, entry: Entry | None) -> None:
        if self._tracing and key not in self._seen:
            self._seen[key] = None
            self._events.append(("read", key, None if entry is None else entry.words()))

    def account(self, number: int) -> Account | None:
        """Noted; the valuation is made anew, as a verifier must."""
        account = super().account(number)
        key = c.KEY_ACCOUNT | number
        if account is not None and key not in self._seen:
            account.epoch = NEVER
        self._read(key, account)
        return account

    def owner(self, number: int) -> Account:
        """Noted."""
        account = self.account(number)
        assert account is not None
        return account

    def page(self, page_id: int) -> Page | None:
        """Noted."""
        page = super().page(page_id)
        self._read(c.KEY_PAGE | page_id, page)
        return page

    def page_of(self, instrument: int) -> Page:
        """Noted."""
        page = self.page(instrument >> 5)
        assert page is not None
        return page

    def underlying(self, number: int) -> Underlying | None:
        """Noted."""
        underlying = super().underlying(number)
        self._read(c.KEY_UNDERLYING | number, underlying)
        return underlying

    def expiry(self, key: int) -> Expiry | None:
        """Noted."""
        expiry = super().expiry(key)
        self._read(c.KEY_EXPIRY | key, expiry)
        return expiry

    def instrument(self, terms: int) -> int | None:
        """Noted."""
        instrument = super().instrument(terms)
        value = None if instrument is None else 1 << 32 | instrument
        self._events.append(("inline", c.KEY_INSTRUMENT | terms, value))
        return instrument

    def find_order(self, instrument: int, side: int, price: int, seq: int) -> Order | None:
        """Noted."""
        order = super().find_order(instrument, side, price, seq)
        if side > c.SELL:  # an impossible key needs no proof
            return None
        value = None if order is None else order_value(order)
        self._events.append(("inline", order_key(instrument, side, price, seq), value))
        return order

    def trace_best(self, instrument: int, side: int) -> None:
        """Noted."""
        self._events.append(("best", book_prefix(instrument, side)))

    # --- writes -----------------------------------------------------------------------------------

    def put_account(self, number: int, account: Account) -> None:
        """Noted."""
        super().put_account(number, account)
        self._events.append(("write", c.KEY_ACCOUNT | number, account))

    def touch(self, key: int, entry: Entry) -> None:
        """Noted."""
        super().touch(key, entry)
        if self._tracing:
            self._events.append(("write", key, entry))

    def put_instrument(self, terms: int, instrument: int) -> None:
        """Noted."""
        super().put_instrument(terms, instrument)
        self._events.append(("insert", c.KEY_INSTRUMENT | terms, 1 << 32 | instrument))

    def put_withdrawal(self, number: int, owner: bytes, amount: int) -> None:
        """Noted."""
        super().put_withdrawal(number, owner, amount)
        self._events.append(
            ("insert", c.KEY_WITHDRAWAL | number, int.from_bytes(owner, "big") << 64 | amount)
        )

    def insert_order(self, order: Order) -> None:
        """Noted."""
        super().insert_order(order)
        self._events.append(("insert", _key(order), order_value(order)))

    def remove_order(self, order: Order) -> None:
        """Noted, unless it was when it was planned."""
        super().remove_order(order)
        if _key(order) not in self._planned:
            self._events.append(("remove", _key(order)))

    def trace_remove(self, order: Order) -> None:
        """Noted."""
        self._planned[_key(order)] = None
        self._events.append(("remove", _key(order)))

    def trace_fill(self, order: Order, quantity: int) -> None:
        """Noted."""
        self._events.append(("reduce", _key(order), order_value(order) - quantity + (quantity << 144)))

    def shrink_order(self, order: Order, quantity: int) -> None:
        """Noted."""
        super().shrink_order(order, quantity)
        self._events.append(("reduce", _key(order), order_value(order)))

    def rewind(self, number: int) -> tuple[Global, Account]:
        """Noted; what the record reads and writes from here on is of the state before the plan."""
        undo = self.undo
        assert undo is not None
        before, account = super().rewind(number)
        self._events.append(("rewind", undo, number, account.words()))
        return before, account

    def trace_back(self) -> None:
        """Noted."""
        self._events.append(("back",))


def _key(order: Order) -> int:
    return order_key(order.instrument, order.side, order.price, order.seq)


class _Builder:
    """Replays notes on the map at the start of the record, and leaves it at its end."""

    def __init__(self, shadow: Map, global_words: bytes, params_words: bytes) -> None:
        self._map = shadow
        self._undo: list[tuple[int, int | None]] = []  # key and previous value
        self._out: list[int] = []
        self._global_words = global_words
        self._params_words = params_words

    def build(self, events: list[tuple[Any, ...]], reason: Reason, global_after: bytes) -> list[int]:
        out = self._out
        for key, words in ((c.KEY_GLOBAL, self._global_words), (c.KEY_PARAMS, self._params_words)):
            out += _split(words)
            out += self._map.path(key).words()
        for event in events:
            getattr(self, "_" + event[0])(*event[1:])
        if reason is not Reason.OK:
            self._back()
        out += self._map.path(c.KEY_GLOBAL).words()
        self._map.put(c.KEY_GLOBAL, _hash(global_after))
        return out

    def _rewind(self, undo: Undo, number: int, account_words: bytes) -> None:
        for order, value in undo.orders.items():
            self._map.put(order, value)
        for changed, account in undo.accounts.items():
            self._map.put(c.KEY_ACCOUNT | changed, _hash(account.words()))
        self._map.put(c.KEY_GLOBAL, _hash(undo.global_words))
        self._out += [*_split(undo.global_words), *self._map.path(c.KEY_GLOBAL).words()]
        self._read(c.KEY_ACCOUNT | number, account_words)

    def _set(self, key: int, value: int | None) -> None:
        self._undo.append((key, self._map.get(key)))
        if value is None:
            self._map.delete(key)
        else:
            self._map.put(key, value)

    def _back(self) -> None:
        while self._undo:
            key, value = self._undo.pop()
            if value is None:
                self._map.delete(key)
            else:
                self._map.put(key, value)

    def _read(self, key: int, words: bytes | None) -> None:
        if words is None:
            self._out += [0, *self._map.absence_witness(key).words()]
        else:
            self._out += [len(words) // 32, *_split(words), *self._map.path(key).words()]

    def _inline(self, key: int, value: int | None) -> None:
        if value is None:
            self._out += [0, *self._map.absence_witness(key).words()]
        else:
            self._out += [1, value, *self._map.path(key).words()]

    def _best(self, prefix: int) -> None:
        found = self._map.first_in_prefix(prefix, ORDER_LOW_MASK)
        if found is None:
            self._out += [0, *self._map.empty_prefix_witness(prefix, ORDER_LOW_MASK).words()]
        else:
            self._out += [*found, *self._map.path(found[0]).words()]

    def _remove(self, key: int) -> None:
        self._set(key, None)

    def _reduce(self, key: int, value: int) -> None:
        self._set(key, value)

    def _write(self, key: int, entry: Entry) -> None:
        if self._map.get(key) is None:
            self._insert(key, _hash(entry.words()))
        else:
            self._out += self._map.path(key).words()
            self._set(key, _hash(entry.words()))

    def _insert(self, key: int, value: int) -> None:
        self._out += self._map.insert_witness(key).words()
        self._set(key, value)


def _split(words: bytes) -> list[int]:
    return [int.from_bytes(words[at : at + 32], "big") for at in range(0, len(words), 32)]


def _hash(words: bytes) -> int:
    return int.from_bytes(keccak(words), "big")
