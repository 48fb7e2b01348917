"""Pages of the history: API queries to rows of the store; every row's checksum is verified first.

Keys grow with the records, so the next page continues where the previous ended, whatever is added meanwhile.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from sequencer.amounts import cash, contracts, usd
from sequencer.engine.basis import Basis
from sequencer.history.store import Store
from sequencer.protocol import constants as c
from sequencer.wire.rows import PLACES, ROWS, ROWS_MAX, State, TradeKind, Why, amend_key, trade_key

PAGE_BYTES: Final = 64 * 1024
SCANNED_MAX: Final = 5_000  # rows that a page is searched in, where no index leads to them
AMENDMENTS_SHOWN: Final = 50  # of an order, the newest
OPEN, FILLED, CANCELLED = State
_TIFS: Final = ("GTC", "IOC", "FOK", "")
_encode: Final = msgspec.json.Encoder().encode

Names = Callable[[int], str]
Row = list[Any]


def seq_of(store: Store, time: int) -> int | None:
    """The first record at `time` or later; None if there is none."""
    row = store.db.execute("SELECT seq FROM times WHERE time >= ? ORDER BY time LIMIT 1", (time,)).fetchone()
    return None if row is None else int(row[0])


class Span:
    """The records of a page, newest first: from `first` to before `end`, and before `cursor`."""

    def __init__(self, store: Store, params: dict[str, Any]) -> None:
        self.limit: int = params.get("limit", ROWS)
        self.cursor: int = params.get("cursor", c.U64_MAX >> 1)
        self.first, self.end = 0, c.U40_MAX + 1
        since, until = params.get("since"), params.get("until")
        if since is not None:
            first = seq_of(store, since)
            self.first = self.end if first is None else first
        if until is not None and (after := seq_of(store, until + 1)) is not None:
            self.end = min(self.end, after)


class Where:
    """Conditions of a query, combined by AND."""

    def __init__(self, account: int) -> None:
        self.parts = ["account = ?"]
        self.values: list[Any] = [account]

    def add(self, part: str, value: object) -> None:
        """Adds a condition, unless `value` is None."""
        if value is not None:
            self.parts.append(part)
            self.values.append(value)

    def rows(self, store: Store, table: str, key: str, low: int, high: int, limit: int) -> list[Row]:
        """The rows with low <= key < high, newest first."""
        query = (
            f"SELECT * FROM {table} WHERE {' AND '.join(self.parts)} AND {key} >= ? AND {key} < ? "  # noqa: S608  # our own names
            f"ORDER BY {key} DESC LIMIT ?"
        )
        return list(store.checked(table, query, (*self.values, low, high, limit)))


def page(found: Sequence[tuple[int, Row]], limit: int, show: Callable[[Row], object]) -> dict[str, Any]:
    """The first of `found` (key, row) that fit into a page, and whether there are more."""
    rows: list[msgspec.Raw] = []
    size = 0
    for _, row in found[:limit]:
        shown = _encode(show(row))
        size += len(shown)
        if rows and size > PAGE_BYTES:
            break
        rows.append(msgspec.Raw(shown))
    return {"rows": rows, "next": str(found[len(rows) - 1][0]) if len(rows) < len(found) else None}


# --- orders -------------------------------------------------------------------------------------


def first_number(store: Store, asked: int | None) -> int | None:
    """The number with which an order was placed, by any number that it has had."""
    if asked is None:
        return None
    row = store.db.execute("SELECT id FROM amends WHERE seq_after = ? LIMIT 1", (asked,)).fetchone()
    return asked if row is None else int(row[0])


def _end(store: Store, order: int, account: int) -> tuple[State, Why, int]:
    """State, reason, time of an order's end; open: 0."""
    row = next(store.checked("closes", "SELECT * FROM closes WHERE id = ?", (order,)), None)
    if row is not None:
        return State(row[1]), Why(row[2]), row[3]
    query = "SELECT * FROM floors WHERE account = ? AND seq > ? ORDER BY seq LIMIT 1"
    row = next(store.checked("floors", query, (account, order)), None)
    if row is not None:
        return CANCELLED, Why(row[2]), row[3]
    return OPEN, Why.NONE, 0


def orders(store: Store, params: dict[str, Any], names: Names) -> dict[str, Any]:
    """Orders of an account by their first number."""
    span, wanted = Span(store, params), params.get("state")
    where = Where(params["account"])
    where.add("instrument = ?", params.get("instrument"))
    where.add("label = ?", params.get("label"))
    where.add("id = ?", first_number(store, params.get("order_id")))

    def show(row: Row) -> object:
        return _order(store, row, names)

    high = min(span.end, span.cursor)
    if wanted is None:
        rows = where.rows(store, "orders", "id", span.first, high, span.limit + 1)
        return page([(row[0], row) for row in rows], span.limit, show)
    found: list[tuple[int, Row]] = []
    scanned, last = 0, high
    while len(found) <= span.limit and scanned < SCANNED_MAX:
        rows = where.rows(store, "orders", "id", span.first, last, ROWS_MAX)
        found += ((row[0], row) for row in rows if _end(store, row[0], row[1])[0] == wanted)
        scanned += len(rows)
        if len(rows) < ROWS_MAX:
            return page(found, span.limit, show)
        last = rows[-1][0]
    shown = page(found, span.limit, show)
    if shown["next"] is None:  # more may lie beyond what was searched
        shown["next"] = str(last)
    return shown


def _order(store: Store, row: Row, names: Names) -> dict[str, Any]:
    first, account, nonce, label, instrument, flags, price, lots, expires, created, fee, _ = row
    state, why, closed = _end(store, first, account)
    changes = list(
        store.checked(
            "amends",
            "SELECT * FROM amends WHERE id = ? ORDER BY key DESC LIMIT ?",
            (first, AMENDMENTS_SHOWN),
        )
    )
    seq = first
    if changes:
        _, _, _, _, seq, _, price, _, lots, *_ = changes[0]
        fee += store.db.execute("SELECT SUM(fee) FROM amends WHERE id = ?", (first,)).fetchone()[0]
    filled, cost, fees = store.db.execute(
        "SELECT COALESCE(SUM(lots), 0), COALESCE(SUM(lots * price), 0), COALESCE(SUM(fee), 0) FROM trades "
        "WHERE order_id = ? AND order_id >= 0",
        (first,),
    ).fetchone()
    return {
        "order_id": first,
        "seq": seq,
        "nonce": None if nonce < 0 else nonce,
        "label": label or None,
        "instrument": names(instrument),
        "number": instrument,
        "side": "sell" if flags & c.FLAG_SIDE else "buy",
        "price": usd(price),
        "quantity": contracts(lots),
        "filled": contracts(filled),
        "average_price": cash(Basis(filled, cost).average_e6()) if filled else None,
        "fee": cash(fee + fees),
        "tif": _TIFS[flags >> c.FLAG_TIF_SHIFT & 3],
        "post_only": bool(flags & c.FLAG_POST_ONLY),
        "reduce_only": bool(flags & c.FLAG_REDUCE_ONLY),
        "self_trade": "cancel_taker" if flags & c.FLAG_STP_TAKER else "cancel_resting",
        "expires": expires,
        "state": state.name.lower(),
        "reason": why.name.lower() if why else None,
        "created": created,
        "closed": closed or None,
        "amendments": [_amendment(one) for one in reversed(changes)],
    }


def _amendment(row: Row) -> dict[str, Any]:
    key, _, _, _, after, price_before, price, lots_before, lots, nonce, fee, time, _ = row
    return {
        "seq": key // amend_key(1, 0),
        "by": "user" if nonce >= 0 else "reduce_only",
        "order_seq": after,
        "price_before": usd(price_before),
        "price": usd(price),
        "quantity_before": contracts(lots_before),
        "quantity": contracts(lots),
        "fee": cash(fee),
        "time": time,
    }


# --- trades -------------------------------------------------------------------------------------


def trades(store: Store, params: dict[str, Any], names: Names) -> dict[str, Any]:
    """Sides of trades, and positions moved by a bid."""
    where = Where(params["account"])
    where.add("instrument = ?", params.get("instrument"))
    where.add("label = ?", params.get("label"))
    where.add("order_id = ?", first_number(store, params.get("order_id")))
    where.parts.append(f"kind != {int(TradeKind.SETTLEMENT)}")
    return _sides(store, where, params, names)


def settlements(store: Store, params: dict[str, Any], names: Names) -> dict[str, Any]:
    """Settled positions."""
    where = Where(params["account"])
    where.add("instrument = ?", params.get("instrument"))
    where.parts.append(f"kind = {int(TradeKind.SETTLEMENT)}")
    return _sides(store, where, params, names)


def _sides(store: Store, where: Where, params: dict[str, Any], names: Names) -> dict[str, Any]:
    span = Span(store, params)
    low, high = trade_key(span.first, 0, False), min(trade_key(span.end, 0, False), span.cursor)
    rows = where.rows(store, "trades", "key", low, high, span.limit + 1)
    return page([(row[0], row) for row in rows], span.limit, lambda row: _side(store, row, names))


def _side(store: Store, row: Row, names: Names) -> dict[str, Any]:
    (
        key,
        kind,
        _,
        instrument,
        order,
        order_seq,
        label,
        side,
        price,
        lots,
        fee,
        position,
        cost,
        realised,
        *rest,
    ) = row
    _, _, time, mark, index = rest
    shown: dict[str, Any] = {
        "trade": key >> 1,
        "kind": TradeKind(kind).name.lower(),
        "instrument": names(instrument),
        "number": instrument,
        "side": "sell" if side else "buy",
        "price": usd(price),
        "quantity": contracts(lots),
        "fee": cash(fee),
        "record": key // PLACES,
        "time": time,
        "position": contracts(position),
        "average_price": cash(Basis(position, cost).average_e6()),
        "realised_pnl": cash(realised),
    }
    if kind != TradeKind.TRADE:
        return shown
    other = next(store.checked("trades", "SELECT * FROM trades WHERE key = ?", (key ^ 1,)), None)
    # The other side's order may have ended longer ago than is kept.
    seqs, fees = [order_seq, other and other[5]], [fee, other and other[10]]
    if key & 1:
        seqs.reverse()
        fees.reverse()
    return shown | {
        "role": "taker" if key & 1 else "maker",
        "order_id": order,
        "seq": order_seq,
        "label": label or None,
        "mark": usd(mark),
        "index": usd(index),
        "maker_seq": seqs[0],
        "taker_seq": seqs[1],
        "maker_fee": None if fees[0] is None else cash(fees[0]),
        "taker_fee": None if fees[1] is None else cash(fees[1]),
    }
