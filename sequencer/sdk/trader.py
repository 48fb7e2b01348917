"""Trading with a key: nonces, records, signatures, over a `Line` such as client.py's. Amounts are decimal strings."""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from sequencer.errors import (
    ConnectionFailed,
    InvalidParams,
    NonceRefused,
    OutcomeUnknown,
    Refused,
    RpcFailed,
    from_error,
    invalid_params,
)
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.sdk.nonces import Nonces
from sequencer.sdk.receipt_follower import ReceiptFollower
from sequencer.sdk.receipts import ReceiptKeeper
from sequencer.sdk.subscription import Subscription
from sequencer.wire import access
from sequencer.wire.channels import terms_of
from sequencer.wire.jsonrpc import PRICE_DECIMALS, QUANTITY_DECIMALS, SIGNED, RequestError, to_units
from sequencer.wire.labels import checked_label
from sequencer.wire.near import Near
from sequencer.wire.pages import all_of

NONCE_TRIES: Final = 3
ACCESS_S: Final = 3_600  # that a signature for one's own history is good for
_SIDES: Final = {"buy": c.BUY, "sell": c.SELL}
_SELF_TRADES: Final = {"cancel_resting": 0, "cancel_taker": c.FLAG_STP_TAKER}


def _read(method: str, /, **given: object) -> dict[str, Any]:
    """Values of a method's fields in the records' units, read as in a gateway. Raises InvalidParams."""
    fields = {field.name: field for field in SIGNED[method].fields}
    try:
        return {name: fields[name].value(value) for name, value in given.items()}
    except RequestError as error:
        raise from_error({"code": error.code, "message": error.message, "data": error.data}) from None


class Line(Protocol):
    """The connection that a trader needs; `Client` is one. Its calls raise the exceptions of errors.py."""

    async def call(self, method: str, /, **params: Any) -> Any:
        """Result of a method."""

    async def submit(self, record: bytes, label: str = "") -> dict[str, Any]:
        """The ack of a signed record; `label` goes beside that of an order."""

    async def subscribe(self, *channels: str) -> Subscription:
        """Events of the channels."""


def load_key(source: str, password: Callable[[], str] | None = None) -> bytes:
    """A private key (32 bytes) from `env:NAME` (hex in the environment) or `keystore:PATH` (eth_account's JSON).

    `password` is asked for a keystore; by default FAIRSTRIKE_PASSWORD, else the terminal. ValueError says what is
    wrong, and never shows the key.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "env":
        text = os.environ.get(rest, "").removeprefix("0x")
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise ValueError(f"{source}: must hold a private key, 64 hex digits")
    elif scheme == "keystore":
        from eth_account import Account

        def ask() -> str:
            return os.environ.get("FAIRSTRIKE_PASSWORD") or getpass.getpass(f"Password of {rest}: ")

        try:
            key = bytes(Account.decrypt(Path(rest).read_text(), (password or ask)()))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{source}: {error}") from None
    else:
        raise ValueError(f"{source!r}: must be env:NAME or keystore:PATH")
    public_key_of(key)  # refuses what is no key
    return key


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An accepted order: its key, and the ack (fills, resting order, fee).

    `quantity` is its total in lots, including what has traded; `flags` are those of PLACE.
    """

    account: int
    instrument: int
    side: int
    price: int
    seq: int
    ack: dict[str, Any]
    quantity: int = 0
    flags: int = 0

    @classmethod
    def of_row(cls, account: int, row: dict[str, Any]) -> PlacedOrder:
        """An order from a row of the queries `order` and `orders`."""
        lots = [to_units(row[name], QUANTITY_DECIMALS) for name in ("quantity", "filled")]
        flags = _SIDES[row["side"]] | _SELF_TRADES[row["self_trade"]]
        flags |= c.FLAG_POST_ONLY * row["post_only"] | c.FLAG_REDUCE_ONLY * row["reduce_only"]
        price = to_units(row["price"], PRICE_DECIMALS)
        side = _SIDES[row["side"]]
        return cls(account, row["number"], side, price, row["seq"], {"order": row}, sum(lots), flags)

    @property
    def rests(self) -> bool:
        """Whether a part of it rests in the book."""
        return self.ack.get("order") is not None


class Trader:
    """One account and one key: the owner's or a session key. Create it with `Trader.open`."""

    def __init__(
        self,
        client: Line,
        key: bytes,
        account: int,
        domain: bytes,
        receipts: ReceiptKeeper | None = None,
        follower: ReceiptFollower | None = None,
    ) -> None:
        self.receipts = receipts
        self.follower = follower
        self.client = client
        self.number = account
        self.address = address_of(public_key_of(key))
        self.nonces = Nonces(self._settle_doubt)
        self._asking = asyncio.Lock()
        self._key = key
        self._domain = domain
        self._instruments: dict[str, int] = {}
        self._access: dict[str, Any] = {}
        self._access_until = 0.0  # monotonic

    @classmethod
    async def open(
        cls,
        client: Line,
        key: bytes,
        account: int | None = None,
        *,
        receipt_file: Path | None = None,
        receipt_keys: frozenset[bytes] | None = None,
        watchers: Sequence[str] = (),
        l1_url: str | None = None,
        rollup: str | None = None,
    ) -> Trader:
        """A trader for the account that `key` owns, or for `account` with a session key.

        Every receipt is checked as it comes, and kept in `receipt_file`, if one is named. `receipt_keys`: addresses
        that may sign them, from L1 (`Sequencers.receipt_key_of`); by default the one that the exchange itself names,
        which shows a key that changes, and not a key that was never registered. An exchange that names none signs none.

        `watchers`: URLs at which every receipt is left in the background (`fairstrike watch --receipts-listen`).
        `l1_url`: a node of L1 that is asked for keys, epoch, roll-backs, time, and what is posted; `rollup`: the
        contract, where the exchange's word for it is not enough. A receipt that is stale by what L1 says raises
        ReceiptWrong. Without `l1_url` only a lead that goes back is noticed, and `status` is believed.
        """
        info = await client.call("system_info")
        domain = codec.domain_separator(info["chain_id"], bytes.fromhex(info["verifying_contract"][2:]))
        if rollup is not None and rollup.lower() != str(info["verifying_contract"]).lower():
            raise ValueError(f"rollup: the exchange signs for {info['verifying_contract']}, not for {rollup}")
        if account is None:
            owner = "0x" + address_of(public_key_of(key)).hex()
            account = int((await client.call("account", owner=owner))["account"])
        follower = await ReceiptFollower.open(client, info, receipt_file, receipt_keys, watchers, l1_url)
        trader = cls(client, key, account, domain, follower.keeper, follower)
        await trader.refresh()
        return trader

    async def account(self) -> dict[str, Any]:
        """Cash, margin, positions, nonces."""
        found: dict[str, Any] = await self.client.call("account", account=self.number)
        return found

    async def refresh(self) -> None:
        """Reads the account's nonces: at the start, and after an unknown outcome."""
        async with self._asking:
            await self._ask_nonces()

    async def _settle_doubt(self) -> None:
        """One query serves all callers that wait."""
        async with self._asking:
            if self.nonces.is_doubtful:
                await self._ask_nonces()

    async def _ask_nonces(self) -> None:
        doubtful = self.nonces.doubtful  # what is lost from now on the answer may not know
        found = await self.account()
        self.nonces.reset(found["nonce_floor"], int(found["nonce_bitmap"], 16), doubtful)

    async def outcome(self, unknown: OutcomeUnknown, patience_s: float = 10.0) -> dict[str, Any]:
        """What became of the record of an OutcomeUnknown that this trader has raised.

        `status`: "applied" (`ack` is its acknowledgement), "replaced" (another record has used its nonce, so that it
        never will be applied), "unused" (not applied; final once its `expires` has passed, or another record has taken
        the nonce), "forgotten" (the nonce is used, too long ago to tell by which record) or "waiting" (still so after
        `patience_s`). Raises ValueError for what is no record of an account.
        """
        if unknown.nonce is None or unknown.record is None:
            raise ValueError(f"{unknown.what}: no record of an account with a nonce")
        until = time.monotonic() + patience_s
        while True:
            found: dict[str, Any] = await self.client.call(
                "outcome", account=self.number, nonce=unknown.nonce
            )
            if found["status"] == "applied" and found["record"] != "0x" + unknown.record.hex():
                return {**found, "status": "replaced", "ack": None}
            if found["status"] != "waiting" or time.monotonic() >= until:
                return found
            await asyncio.sleep(0.1)

    async def subscribe(self, *channels: str) -> Subscription:
        """Own orders and fills, and `channels`."""
        return await self.client.subscribe(f"account.{self.number}", *channels)

    async def place(
        self,
        instrument: int | str,
        side: str,
        price: str,
        quantity: str,
        *,
        tif: str = "GTC",
        post_only: bool = False,
        reduce_only: bool = False,
        self_trade: str = "cancel_resting",
        expires: int = 0,
        fee_max: str = "0.01",
        words: bool = False,
        label: str = "",
    ) -> PlacedOrder:
        """Places an order. Decimals are strings; ValueError for malformed ones, Refused when the rules refuse it.

        With `expires`, an order that is lost in transit is certain to expire, and a resting one ends then. `words`:
        signs the text that a wallet shows (31 bytes more on L1). `label`: your name for it (labels.py); several orders
        may share one.
        """
        asked = {"side": side, "price": price, "quantity": quantity, "tif": tif, "self_trade": self_trade}
        if label:
            asked["label"] = label
        values = _read("order_place", **asked, expires=expires, fee_max=fee_max)
        number = await self._number_of(instrument)
        flags = values["side"] | values["tif"] << c.FLAG_TIF_SHIFT
        flags |= c.FLAG_POST_ONLY * post_only | c.FLAG_REDUCE_ONLY * reduce_only
        flags |= c.FLAG_STP_TAKER * values["self_trade"]
        ticks, lots = values["price"], values["quantity"]
        terms = {"terms": terms_of(await self._name_of(number))} if words else {}
        ack = await self.send(
            Kind.PLACE_IN_WORDS if words else Kind.PLACE,
            instrument=number,
            flags=flags,
            price=ticks,
            quantity=lots,
            expires=expires,
            fee_max=values["fee_max"],
            label=label,
            **terms,
        )
        return PlacedOrder(self.number, number, _SIDES[side], ticks, ack["seq"], ack, lots, flags)

    async def order(self, seq: int) -> PlacedOrder:
        """One of your resting orders, by its sequence number; RequestRefused where none rests."""
        row = await self.client.call("order", seq=seq)
        if row.get("status") != "rests":
            raise ValueError(f"order {seq} does not rest: {row.get('message', row.get('status'))}")
        return PlacedOrder.of_row(self.number, row)

    async def amend(
        self,
        order: PlacedOrder,
        *,
        quantity: str | None = None,
        price: str | None = None,
        expires: int = 0,
        fee_max: str = "0.01",
    ) -> PlacedOrder:
        """Changes the total (including what has traded) or the price of a resting order; returns the amended order.

        A smaller total at the same price keeps the place. Otherwise a new order with its own `seq` goes to the end of
        the queue, or, if it is refused (Refused), the old one stays unchanged. A total that has traded already ends the
        order. `expires` is that of the amendment, not of the order.
        """
        asked = {"new_price": price, "quantity": quantity, "expires": expires, "fee_max": fee_max}
        values = _read("order_amend", **{name: value for name, value in asked.items() if value is not None})
        ticks, lots = values.get("new_price", order.price), values.get("quantity", order.quantity)
        ack = await self.send(
            Kind.AMEND,
            instrument=order.instrument,
            flags=order.flags & ~(3 << c.FLAG_TIF_SHIFT),
            price=order.price,
            seq=order.seq,
            new_price=ticks,
            quantity=lots,
            expires=expires,
            fee_max=values["fee_max"],
        )
        rests = ack["order"]
        seq = order.seq if rests and rests["seq"] == order.seq else ack["seq"]
        return PlacedOrder(self.number, order.instrument, order.side, ticks, seq, ack, lots, order.flags)

    async def cancel(self, order: PlacedOrder, expires: int = 0) -> dict[str, Any]:
        """Cancels a resting order; Refused (UNKNOWN_ORDER) when it has already ended."""
        return await self.send(
            Kind.CANCEL,
            instrument=order.instrument,
            side=order.side,
            price=order.price,
            seq=order.seq,
            expires=expires,
        )

    async def orders(self, label: str = "") -> list[dict[str, Any]]:
        """Resting orders, oldest first; with `label`, those with this label."""
        asked = {"label": checked_label(label)} if label else {}
        found: list[dict[str, Any]] = await self.client.call("orders", account=self.number, **asked)
        return found

    async def history(self, method: str, **asked: Any) -> dict[str, Any]:
        """A page of `order_history`, `trade_history`, `settlement_history` or `transaction_log`, newest first.

        `rows`, and `next`: the `cursor` of the page after, None at the end. `asked`: filters, docs/API.md.
        """
        try:
            return await self._history(method, asked)
        except InvalidParams as error:
            if error.field != "access_expires":  # the exchange's time has gone on faster than ours
                raise
            self._access_until = 0.0
            return await self._history(method, asked)

    async def _history(self, method: str, asked: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = await self.client.call(
            method, account=self.number, **await self._history_access(), **asked
        )
        return found

    async def whole_history(self, method: str, **asked: Any) -> AsyncIterator[dict[str, Any]]:
        """The rows of every page, newest first; see `history`."""
        while True:
            found = await self.history(method, **asked)
            for row in found["rows"]:
                yield row
            if found["next"] is None:
                return
            asked["cursor"] = found["next"]

    async def _history_access(self) -> dict[str, Any]:
        """A signature that allows reading this account's history, for an hour of the exchange's time."""
        if time.monotonic() >= self._access_until:
            until = time.monotonic() + ACCESS_S / 2
            now = int((await self.client.call("status"))["time"])
            signature = access.sign(self._domain, self.number, now + ACCESS_S, self._key)
            self._access = {"access_expires": now + ACCESS_S, "signature": "0x" + signature.hex()}
            self._access_until = until
        return self._access

    async def cancel_label(self, label: str, expires: int = 0) -> list[int]:
        """Cancels every resting order with `label`; returns their numbers, without those that had already ended.

        The gateway decides which orders these are, since labels are not signed; it cannot name another account's order.
        """
        gone = []
        for one in await self.orders(checked_label(label)):
            key = (one["number"], _SIDES[one["side"]], to_units(one["price"], PRICE_DECIMALS), one["seq"])
            try:
                await self.cancel(PlacedOrder(self.number, *key, {}), expires)
            except Refused as refused:
                if refused.reason is not Reason.UNKNOWN_ORDER:
                    raise
            else:
                gone.append(one["seq"])
        return gone

    async def cancel_all(self, nonce_floor: int = 0, expires: int = 0) -> dict[str, Any]:
        """Cancels every order of the account; nonces below `nonce_floor` become invalid."""
        ack = await self.send(Kind.CANCEL_ALL, nonce_floor=nonce_floor, expires=expires)
        if nonce_floor:
            await self.refresh()
        return ack

    async def withdraw(self, amount: str, expires: int = 0) -> dict[str, Any]:
        """Withdraws USD to the owner on L1; the ack's `number` is that of the withdrawal, for its proof."""
        values = _read("withdraw", amount=amount, expires=expires)
        return await self.send(Kind.WITHDRAW, **values)

    async def transfer(self, to: int, amount: str, expires: int = 0) -> dict[str, Any]:
        """Transfers USD to another account; the owner's key only."""
        return await self.send(Kind.TRANSFER, **_read("transfer", to=to, amount=amount, expires=expires))

    async def set_signer(
        self, signer: bytes, scope: int, signer_expires: int, expires: int = 0
    ) -> dict[str, Any]:
        """Grants a session key (scope 1 trade, 2 withdraw, 3 both) or revokes it (0); the owner's key only."""
        values = _read("set_signer", scope=scope, signer_expires=signer_expires, expires=expires)
        return await self.send(Kind.SET_SIGNER, signer=signer, **values)

    async def bid(self, target: int, fraction: int, cash_max: str, expires: int = 0) -> dict[str, Any]:
        """Bids for fraction/256 of an auctioned account's portfolio, at most `cash_max` USD (negative: receives)."""
        values = _read("bid", target=target, fraction=fraction, cash_max=cash_max, expires=expires)
        return await self.send(Kind.BID, **values)

    async def send(self, kind: Kind, *, label: str = "", **fields: int | bytes) -> dict[str, Any]:
        """Signs and submits one record with its own nonce; a nonce that is already used is replaced.

        After an unknown outcome the next record queries the account's nonces first.
        """
        for tries_left in reversed(range(NONCE_TRIES)):
            nonce = await self.nonces.take()
            record = None
            try:
                unsigned = codec.encode(kind, account=self.number, nonce=nonce, **fields)
                record = codec.sign(unsigned, self._domain, self._key)
                ack = await self.client.submit(record, label) if label else await self.client.submit(record)
            except OutcomeUnknown as unknown:
                self.nonces.lose(nonce)
                raise OutcomeUnknown(
                    unknown.what, unknown.reason, account=self.number, nonce=nonce, record=record
                ) from None
            except asyncio.CancelledError:
                self.nonces.lose(nonce)
                raise
            except NonceRefused as refused:
                self.nonces.give_back(nonce)
                await self.refresh()
                self.nonces.is_shared |= refused.reason is Reason.NONCE_USED
                if not tries_left:
                    raise
            except (RpcFailed, ConnectionFailed, ValueError):
                self.nonces.give_back(nonce)
                raise
            else:
                self.nonces.use(nonce)
                if self.follower is not None:
                    self.follower.came()
                if self.receipts is not None:
                    self.receipts.take(record, ack)
                return ack
        raise AssertionError("not reached: the last try returns or raises")

    async def _number_of(self, instrument: int | str) -> int:
        if isinstance(instrument, int):
            return instrument
        number = self._instruments.get(instrument)
        if number is None:
            listed = await all_of(self.client.call, "instruments")
            self._instruments = {one["instrument"]: one["number"] for one in listed}
            number = self._instruments.get(instrument)
            if number is None:
                hint = f"no such instrument; {Near(self._instruments).hint(instrument)}"
                raise invalid_params("instrument", "the number or name of a listed one", instrument, hint)
        return number

    async def _name_of(self, number: int) -> str:
        """Name of a listed instrument."""
        for _ in range(2):
            name = next((name for name, one in self._instruments.items() if one == number), None)
            if name is not None:
                return name
            listed = await all_of(self.client.call, "instruments")
            self._instruments = {one["instrument"]: one["number"] for one in listed}
        raise invalid_params("instrument", "the number or name of a listed one", number)
