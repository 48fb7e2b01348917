"""The dishonest sequencer, for tests and `fairstrike demo --lie`: every lie by name, and
those that bend the transition. The engine that tells one, in one record, once, is in liar.py.

A lie bends the state around one record, or changes what is posted of it; from there on the engine is honest, on the
state that the lie left, so that every later root is consistent with it. Nothing here is on the way of a real order.
"""

from dataclasses import replace
from typing import Final

from sequencer.local import posted_lies as posted
from sequencer.local.liar import CROWD, Lie, Scene
from sequencer.proof.audit import FaultKind
from sequencer.protocol import codec, insurance, matching, plans, work
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import NEVER
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.queue import sequencing_fee

USD: Final = 1_000_000
THIEF: Final = 2  # the account that gains where somebody must
VICTIM: Final = 1
PLENTY: Final = 10**15


def _minted_cash(scene: Scene) -> Outcome:
    out = scene.apply()
    scene.pay(THIEF, USD)
    return out


def _stolen_balance(scene: Scene) -> Outcome:
    out = scene.apply()
    amount = scene.state.accounts[VICTIM].cash // 2
    scene.pay(VICTIM, -amount)
    scene.pay(THIEF, amount)
    return out


def _better_order_skipped(scene: Scene) -> Outcome | None:
    instrument, side = _market(scene.raw)
    best = next(scene.state.crossing(instrument, side, _price(scene.raw)), None)
    if best is None:
        return None
    scene.state.remove_order(best)
    out = scene.apply()
    scene.state.insert_order(best)
    return out if out.fills else None


def _wrong_fill_price(scene: Scene) -> Outcome | None:
    out = scene.apply()
    if not out.fills:
        return None
    fill = out.fills[0]
    amount = fill.quantity if fill.side == c.BUY else -fill.quantity  # one tick
    scene.pay(fill.taker, -amount)
    scene.pay(fill.maker, amount)
    return out


def _filled_after_cancel(scene: Scene) -> Outcome | None:
    order = scene.cancelled
    if order is None:
        return None
    owner = scene.state.accounts[order.account]
    owner.reserved += order.reserve_rate * order.quantity
    owner.orders += 1
    scene.touch(order.account)
    scene.state.insert_order(order)
    return scene.apply()


def _forged_signature(scene: Scene) -> Outcome:
    return scene.apply(signer=scene.account.owner)


def _replayed_signature(scene: Scene) -> Outcome:
    number = int.from_bytes(scene.raw[1:5], "big")
    floor, bitmap = scene.account.nonce_floor, scene.account.nonce_bitmap
    record = codec.decode(scene.raw, scene.state.domain)
    assert not isinstance(record, Reason)
    scene.account.nonce_floor, scene.account.nonce_bitmap = int(record.fields[5]), 0
    out = scene.apply()
    scene.account.nonce_floor, scene.account.nonce_bitmap = floor, bitmap
    scene.touch(number)
    return out


def _with_credit(scene: Scene) -> Outcome:
    """As if the account had plenty."""
    number = int.from_bytes(scene.raw[1:5], "big")
    g = scene.state.globals
    scene.account.cash += PLENTY
    g.pool += PLENTY
    out = scene.apply()
    g.pool -= PLENTY
    scene.pay(number, -PLENTY)
    return out


def _risk_array(scene: Scene) -> Outcome:
    return _page_row(scene, 0, 1)


def _wrong_mark(scene: Scene) -> Outcome:
    return _page_row(scene, 1, 0)


def _page_row(scene: Scene, mark_by: int, pnl_by: int) -> Outcome:
    out = scene.apply()
    raw = scene.raw
    page_id = raw[1] << 23 | int.from_bytes(raw[2:4], "big") << 7 | raw[4]
    page = scene.state.pages[page_id]
    mark, pnl = page.rows[0]
    page.rows[0] = (mark + mark_by, (*pnl[:5], pnl[5] + pnl_by, *pnl[6:]))
    scene.state.epoch += 1
    scene.state.touch(c.KEY_PAGE | page_id, page)
    return out


def _limit_ignored(scene: Scene) -> Outcome | None:
    """One of the account's positions is not counted."""
    hidden = max(scene.account.positions)
    quantity = scene.account.positions.pop(hidden)
    scene.account.epoch = NEVER
    out = scene.apply()
    scene.account.positions[hidden] = quantity
    scene.account.epoch = NEVER
    scene.touch(int.from_bytes(scene.raw[1:5], "big"))
    return out if out.fills else None


def _wrong_settlement(scene: Scene) -> Outcome:
    out = scene.apply()
    key = scene.raw[1] << 16 | int.from_bytes(scene.raw[2:4], "big")
    expiry = scene.state.expiries[key]
    expiry.settlement += 1
    scene.state.touch(c.KEY_EXPIRY | key, expiry)
    return out


def _settled_too_much(scene: Scene) -> Outcome:
    out = scene.apply()
    scene.pay(int.from_bytes(scene.raw[4:8], "big"), 1)
    return out


def _healthy_liquidated(scene: Scene) -> Outcome:
    g = scene.state.globals
    account = scene.account
    account.auction_start, account.order_floor, account.reserved = g.time, g.seq, 0
    scene.touch(int.from_bytes(scene.raw[1:5], "big"))
    return _counted(scene)


def _auction_price(scene: Scene) -> Outcome:
    out = scene.apply()
    scene.pay(int.from_bytes(scene.raw[1:5], "big"), -1)
    scene.pay(out.number, 1)
    return out


def _fee_off(scene: Scene) -> Outcome | None:
    out = scene.apply()
    g = scene.state.globals
    scene.pay(int.from_bytes(scene.raw[1:5], "big"), -1)
    g.pool, g.treasury = g.pool - 1, g.treasury + 1
    return out if out.fills else None


def _sequencing_fee_dropped(scene: Scene) -> Outcome:
    fee = sequencing_fee(scene.state)
    out = scene.apply()
    g = scene.state.globals
    scene.pay(int.from_bytes(scene.raw[1:5], "big"), fee)
    g.pool, g.treasury = g.pool + fee, g.treasury - fee
    return out


def _reserve_not_taken(scene: Scene) -> Outcome | None:
    out = scene.apply()
    order = out.rested
    if order is None:
        return None
    scene.state.accounts[order.account].reserved -= order.reserve_rate * order.quantity
    scene.touch(order.account)
    scene.state.remove_order(order)
    order.reserve_rate = 0
    scene.state.insert_order(order)
    return out


def _self_trade(scene: Scene) -> Outcome | None:
    """The order fills its own account's: nothing moves but the fee."""
    out = scene.apply()
    if not out.removed:
        return None
    number = int.from_bytes(scene.raw[1:5], "big")
    account, params = scene.account, scene.state.params
    order = out.removed[0]
    page = scene.state.pages[order.instrument >> 5]
    fee = matching.trading_fee(
        page.index, order.price, order.quantity or 1, params.taker_fee_ppm, params.fee_cap_ppm
    )
    insurance.charge(scene.state, account, fee, params.fund_share_ppm)
    scene.touch(number)
    return out


def _expired_filled(scene: Scene) -> Outcome:
    g = scene.state.globals
    time = g.time
    g.time = time - 60
    out = scene.apply()
    g.time = time
    return out


def _post_only_taking(scene: Scene) -> Outcome:
    return _with_flags(scene, scene.raw[9] & ~c.FLAG_POST_ONLY)


def _fok_partly(scene: Scene) -> Outcome:
    return _with_flags(scene, scene.raw[9] & 1 | c.TIF_IOC << c.FLAG_TIF_SHIFT)


def _plan_kept_in_part(scene: Scene) -> Outcome:
    """What a FOK has traded stays, though it ends before its last lot."""
    taker = scene.state.globals.taker
    assert taker is not None
    taker.flags = taker.flags & 1 | c.TIF_IOC << c.FLAG_TIF_SHIFT
    return scene.apply()


def _plan_undone(scene: Scene) -> Outcome:
    """A FOK that would be filled is undone, and pays."""
    g = scene.state.globals
    taker, g.taker = g.taker, None
    assert taker is not None
    out = _counted(scene)
    plans.fail(scene.state, taker, Reason.FOK_UNFILLED, out)
    out.failed = Reason.OK  # or the engine would leave it out
    return out


def _undo_unpaid(scene: Scene) -> Outcome:
    """A FOK is undone as it must be, without its fee."""
    taker = scene.state.globals.taker
    assert taker is not None
    out = scene.apply()
    scene.pay(taker.account, out.fee)
    out.failed = Reason.OK  # or the engine would leave it out
    return out


def _plan_root(scene: Scene) -> Outcome:
    """GLOBAL remembers another state than the one before the plan."""
    out = scene.apply()
    scene.state.globals.plan_root = bytes(31) + b"\1"
    return out


def _with_flags(scene: Scene, flags: int) -> Outcome:
    """As if the order had other flags than those that are signed."""
    raw = scene.raw
    return scene.apply(raw[:9] + bytes([flags]) + raw[10:], scene.account.owner)


def _nonce_kept(scene: Scene) -> Outcome:
    floor, bitmap = scene.account.nonce_floor, scene.account.nonce_bitmap
    out = scene.apply()
    scene.account.nonce_floor, scene.account.nonce_bitmap = floor, bitmap
    scene.touch(int.from_bytes(scene.raw[1:5], "big"))
    return out


def _cancel_ignored(scene: Scene) -> Outcome | None:
    out = scene.apply()
    if not out.removed:
        return None
    order = out.removed[0]
    owner = scene.state.accounts[order.account]
    owner.reserved += order.reserve_rate * order.quantity
    owner.orders += 1
    scene.touch(order.account)
    scene.state.insert_order(order)
    return out


def _false_withdrawal(scene: Scene) -> Outcome:
    out = scene.apply()
    g = scene.state.globals
    g.pool -= 1_000 * USD
    scene.state.put_withdrawal(g.withdrawals, scene.state.accounts[THIEF].owner, 1_000 * USD)
    g.withdrawals += 1
    return out


def _listed_off_the_grid(scene: Scene) -> Outcome:
    params = scene.state.params
    fine = tuple(replace(one, strike_step_ppm=0, strike_step_min_ticks=1) for one in params.underlyings)
    scene.state.params = replace(params, underlyings=fine)
    out = scene.apply()
    scene.state.params = params
    return out


def _feed_forged(scene: Scene) -> Outcome:
    return scene.apply(signer=scene.state.params.feed_keys[scene.raw[2]])


def _feed_stale(scene: Scene) -> Outcome:
    reports = scene.state.underlyings[scene.raw[1]].reports
    reports[scene.raw[2]] = (reports[scene.raw[2]][0], 0)
    return scene.apply()


def _treasury_stolen(scene: Scene) -> Outcome:
    out = scene.apply()
    scene.pay(scene.state.params.treasury_account, -out.amount)
    scene.pay(THIEF, out.amount)
    return out


def _fund_drained(scene: Scene) -> Outcome:
    out = scene.apply()
    g = scene.state.globals
    scene.pay(THIEF, g.fund)
    g.pool, g.fund = g.pool + g.fund, 0
    return out


def _tick_counter(scene: Scene) -> Outcome:
    out = scene.apply()
    scene.state.globals.tick += 1
    return out


def _clock_backwards(scene: Scene) -> Outcome:
    g = scene.state.globals
    raw = codec.encode(Kind.TICK, time=g.time - 60)
    scene.keep[:] = [raw]
    g.time -= 60
    return scene.apply(raw)


def _fill_forgotten(scene: Scene) -> Outcome | None:
    """The new total is taken for what shall remain: what has traded of the order trades again."""
    out = scene.apply()
    order = out.amended
    if order is None or order in out.removed:
        return None
    _rewrite(scene, order, order.quantity + order.filled, order.seq)
    return out


def _raise_keeps_place(scene: Scene) -> Outcome | None:
    """The order that is larger now stands where the old one stood."""
    out = scene.apply()
    if out.amended is None or out.rested is None:
        return None
    _rewrite(scene, out.rested, out.rested.quantity, out.amended.seq)
    return out


def _rewrite(scene: Scene, order: Order, quantity: int, seq: int) -> None:
    """A resting order gets another quantity, with its reserve, and another place."""
    scene.state.accounts[order.account].reserved += order.reserve_rate * (quantity - order.quantity)
    scene.touch(order.account)
    scene.state.remove_order(order)
    order.quantity, order.seq = quantity, seq
    scene.state.insert_order(order)


def _counted(scene: Scene) -> Outcome:
    """The outcome of a record that has been executed by hand."""
    out = Outcome(scene.state.globals.seq)
    scene.state.globals.seq += 1
    scene.state.globals.work += work.of(scene.raw)
    return out


def _market(raw: bytes) -> tuple[int, int]:
    """(instrument, side) of a PLACE."""
    return int.from_bytes(raw[5:9], "big"), raw[9] & c.FLAG_SIDE


def _price(raw: bytes) -> int:
    return int.from_bytes(raw[10:14], "big")


_INBOX: Final = FaultKind.INBOX

LIES: Final[dict[str, Lie]] = {
    "minted-cash": Lie("an account is a dollar richer", "take", Kind.PLACE, _minted_cash),
    "stolen-balance": Lie("half of one account's cash is another's", "cancel", Kind.CANCEL, _stolen_balance),
    "better-order-skipped": Lie(
        "a taker meets the second best order", "take", Kind.PLACE, _better_order_skipped
    ),
    "wrong-fill-price": Lie("a fill is one tick dearer", "take", Kind.PLACE, _wrong_fill_price),
    "filled-after-cancel": Lie("a cancelled order trades", "after cancel", Kind.PLACE, _filled_after_cancel),
    "cancel-ignored": Lie("a cancelled order stays", "cancel", Kind.CANCEL, _cancel_ignored),
    "amended-fill-forgotten": Lie(
        "what has traded of an amended order trades again", "less", Kind.AMEND, _fill_forgotten
    ),
    "amended-raise-keeps-place": Lie(
        "an order grows and keeps its place", "more", Kind.AMEND, _raise_keeps_place
    ),
    "forged-signature": Lie("a stranger's order counts", "forged", Kind.PLACE, _forged_signature),
    "replayed-signature": Lie("an order is executed twice", "replay", Kind.PLACE, _replayed_signature),
    "nonce-kept": Lie("a used nonce stays good", "cancel", Kind.CANCEL, _nonce_kept),
    "margin-ignored": Lie("an order passes that its account cannot bear", "margin", Kind.PLACE, _with_credit),
    "position-limit-ignored": Lie(
        "an account holds more positions than it may", CROWD, Kind.PLACE, _limit_ignored
    ),
    "wrong-risk-array": Lie("one scenario of one option is one tick off", "marks", Kind.RISK, _risk_array),
    "wrong-mark": Lie("one mark is one tick off", "marks", Kind.RISK, _wrong_mark),
    "wrong-twap": Lie("the settlement price is one tick off", "fix", Kind.FIX, _wrong_settlement),
    "settled-too-much": Lie("a settlement pays one unit more", "settle", Kind.SETTLE, _settled_too_much),
    "healthy-liquidated": Lie(
        "a healthy account is auctioned", "healthy", Kind.LIQUIDATE, _healthy_liquidated
    ),
    "auction-price": Lie("a bid pays one unit more", "bid", Kind.BID, _auction_price),
    "fee-off-by-one": Lie("a taker's fee is one unit more", "take", Kind.PLACE, _fee_off),
    "sequencing-fee-dropped": Lie(
        "an order pays no sequencing fee", "take", Kind.PLACE, _sequencing_fee_dropped
    ),
    "reserve-not-taken": Lie("a resting order reserves nothing", "rest", Kind.PLACE, _reserve_not_taken),
    "deposit-altered": Lie(
        "a deposit counts double", "more deposits", Kind.DEPOSIT, posted.deposit_altered, fault=_INBOX
    ),
    "deposit-diverted": Lie(
        "a deposit is another's", "more deposits", Kind.DEPOSIT, posted.deposit_diverted, fault=_INBOX
    ),
    "deposit-dropped": Lie(
        "an inbox message is skipped", "more deposits", Kind.DEPOSIT, posted.deposit_dropped, fault=_INBOX
    ),
    "false-withdrawal": Lie("a withdrawal that nobody signed", "cancel", Kind.CANCEL, _false_withdrawal),
    "withdrawal-overdrawn": Lie("more is withdrawn than there is", "overdraw", Kind.WITHDRAW, _with_credit),
    "class-order-broken": Lie(
        "a system record after a taker's", "two takers", Kind.PLACE, posted.class_order
    ),
    "clock-backwards": Lie("a tick goes a minute back", "cancel", Kind.TICK, _clock_backwards),
    "other-data": Lie("another order is posted than was executed", "take", Kind.PLACE, posted.other_data),
    "listed-off-the-grid": Lie("a strike that no rule allows", "off grid", Kind.LIST, _listed_off_the_grid),
    "feed-forged": Lie("an index that no feed has signed", "feed forged", Kind.FEED, _feed_forged),
    "feed-stale": Lie("an old report counts as new", "feed stale", Kind.FEED, _feed_stale),
    "self-trade": Lie("an order trades with its own account", "self", Kind.PLACE, _self_trade),
    "expired-filled": Lie("an order trades after its time", "expired", Kind.PLACE, _expired_filled),
    "post-only-taking": Lie("a post-only order takes", "post only", Kind.PLACE, _post_only_taking),
    "fok-filled-partly": Lie("a fill-or-kill order fills in part", "fok", Kind.PLACE, _fok_partly),
    "plan-kept-in-part": Lie(
        "a fill-or-kill order of two records keeps its first fills",
        "plan that ends",
        Kind.CONTINUE,
        _plan_kept_in_part,
    ),
    "plan-undone": Lie("an order that can be filled is undone", "plan", Kind.CONTINUE, _plan_undone),
    "undo-unpaid": Lie("an order that is undone pays nothing", "plan that ends", Kind.CONTINUE, _undo_unpaid),
    "plan-root": Lie("an order would be undone to another state", "plan", Kind.PLACE, _plan_root),
    "treasury-stolen": Lie("the fees go to another account", "collect", Kind.COLLECT, _treasury_stolen),
    "fund-drained": Lie("the insurance fund is paid to an account", "cancel", Kind.CANCEL, _fund_drained),
    "tick-counter": Lie("a tick is counted twice", "cancel", Kind.TICK, _tick_counter),
    "segment-overweight": Lie(
        "two heavy records in one segment", "rest", Kind.PLACE, posted.overweight, fault=FaultKind.WEIGHT
    ),
    "header-time": Lie("the header's time is a second late", of=posted.header_time, fault=FaultKind.TIME),
    "header-records": Lie(
        "the header counts a record too few", of=posted.header_records, fault=FaultKind.RECORDS
    ),
    "header-tick": Lie(
        "the header counts fewer ticks than have begun", of=posted.header_tick, fault=FaultKind.TICK
    ),
    "header-work": Lie(
        "the header counts less work than was done", of=posted.header_work, fault=FaultKind.WORK
    ),
    "post-root-tail": Lie(
        "the post-root's last bit is another", of=posted.root_tail, fault=FaultKind.POST_ROOT
    ),
    "empty-segment": Lie("a segment without records", of=posted.empty_segment, fault=FaultKind.BOUNDS),
    "bounds-disordered": Lie(
        "a segment that ends before it begins", of=posted.bounds_disordered, fault=FaultKind.BOUNDS
    ),
    "last-root": Lie(
        "the payload's last root is another than the header's",
        of=posted.last_root,
        refusal="rollup: last root is not the post-root",
    ),
    "last-offset": Lie(
        "the payload goes on behind its last segment",
        of=posted.last_offset,
        fault=FaultKind.BOUNDS,
        refusal="rollup: last offset is not the end",
    ),
    "message-late": Lie("inbox messages are taken after their deadline", fault=FaultKind.LATE, is_late=True),
}
"""Every lie by name."""
