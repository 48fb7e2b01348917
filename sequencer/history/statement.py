"""The transaction log: every change of an account's cash with the balance after it, from four tables, newest first."""

from heapq import merge
from typing import Any, Final

from sequencer.amounts import cash, contracts, usd
from sequencer.history.pages import Names, Row, Span, Where, page
from sequencer.history.store import Store
from sequencer.wire.rows import AMEND_FEE, ORDER_FEE, PLACES, TRADE, MoveKind, amend_key

# A record's own place in the log: its fee comes before its trades, its trades or moves by their places.
_PLACES: Final = 2 * PLACES
_MOVES: Final = {one.name.lower(): int(one) for one in MoveKind}


def transactions(store: Store, params: dict[str, Any], names: Names) -> dict[str, Any]:
    """Changes of cash: `amount`, of which `fee` is one, and `cash` after it."""
    span, wanted = Span(store, params), params.get("kind")
    # The cursor is a place: what is before it has a lower one.
    end, place = divmod(min(span.cursor, span.end * _PLACES), _PLACES)
    most = span.limit + 1
    arms: list[list[tuple[int, tuple[str, Row]]]] = []
    if wanted in (None, TRADE):
        where = Where(params["account"])
        where.parts += ["kind != 1", "kind = 0"]  # the first names the index
        high = end * PLACES + max(place - 1, 0)
        rows = where.rows(store, "trades", "key", span.first * PLACES, high, most)
        arms.append([(_place(row[0], 1), (TRADE, row)) for row in rows])
    if wanted in (None, ORDER_FEE):
        where = Where(params["account"])
        where.parts.append("fee > 0")
        rows = where.rows(store, "orders", "id", span.first, end + (place > 0), most)
        arms.append([(row[0] * _PLACES, (ORDER_FEE, row)) for row in rows])
    if wanted in (None, AMEND_FEE):
        where = Where(params["account"])
        where.parts.append("fee > 0")
        low, high = amend_key(span.first, 0), amend_key(end + (place > 0), 0)
        rows = where.rows(store, "amends", "key", low, high, most)
        arms.append([(row[0] // amend_key(1, 0) * _PLACES, (AMEND_FEE, row)) for row in rows])
    if wanted is None or wanted in _MOVES:
        where = Where(params["account"])
        where.add("kind = ?", _MOVES.get(wanted or ""))
        high = end * PLACES + max(place - 1, 0)
        rows = where.rows(store, "moves", "key", span.first * PLACES, high, most)
        arms.append([(_place(row[0], 1), (_KIND[row[2]], row)) for row in rows])
    found = [(at, [kind, row]) for at, (kind, row) in merge(*arms, key=lambda one: -one[0])]
    return page(found[:most], span.limit, lambda one: _shown(one[0], one[1], names))


_KIND: Final = {int(one): one.name.lower() for one in MoveKind}


def _place(key: int, after: int) -> int:
    seq, place = divmod(key, PLACES)
    return seq * _PLACES + after + place


def _shown(kind: str, row: Row, names: Names) -> dict[str, Any]:
    if kind == TRADE:
        key, _, _, instrument, order, _, label, side, price, lots, fee, *_ = row
        premium = lots * price * (1 if side else -1)
        return {
            **_head(kind, premium - fee, fee, row[15], key // PLACES, row[16]),
            "premium": cash(premium),
            "instrument": names(instrument),
            "side": "sell" if side else "buy",
            "price": usd(price),
            "quantity": contracts(lots),
            "realised_pnl": cash(row[13]),
            "order_id": order,
            "label": label or None,
        }
    if kind == ORDER_FEE:
        first, _, _, label, instrument, *_, created, fee, after = row
        of_order = {"instrument": names(instrument), "order_id": first, "label": label or None}
        return {**_head(kind, -fee, fee, after, first, created), **of_order}
    if kind == AMEND_FEE:
        key, order, *_, fee, time, after = row
        return {**_head(kind, -fee, fee, after, key // amend_key(1, 0), time), "order_id": order}
    key, _, number_of_kind, amount, number, earned, discount, fee, paid, after, time = row
    if number_of_kind == MoveKind.SWEEP_FEE:
        fee = -amount
    shown = _head(kind, amount, fee, after, key // PLACES, time)
    if number_of_kind == MoveKind.WITHDRAWAL:
        shown |= {"withdrawal": number, "paid": cash(paid)}
    elif number_of_kind in (MoveKind.TRANSFER, MoveKind.LIQUIDATION):
        shown["other"] = number
    if number_of_kind in (MoveKind.SETTLEMENT, MoveKind.LIQUIDATION):
        shown["realised_pnl"] = cash(earned + discount)
    if number_of_kind == MoveKind.LIQUIDATION:
        shown["discount"] = cash(discount)
    return shown


def _head(kind: str, amount: int, fee: int, after: int, record: int, time: int) -> dict[str, Any]:
    amounts = {"amount": cash(amount), "fee": cash(fee), "cash": cash(after)}
    return {"kind": kind, **amounts, "record": record, "time": time}
