"""A frozen exchange on the stub rollup: accounts with positions of two expiries, and what they must come to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boa
from contract_support import INBOX, USD, deploy
from stub_support import deploy_stub

from sequencer.genesis import genesis_state
from sequencer.proof.exit import Proofs, closing_value
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.transition import apply

FEED_KEYS = tuple(bytes([0xF0 + number]) * 32 for number in range(3))
ROLES = ("house", "maker", "buyer", "saver", "debtor", "spreader")
KEYS = {role: bytes([number + 1]) * 32 for number, role in enumerate(ROLES)}
OWNERS = {role: address_of(public_key_of(key)) for role, key in KEYS.items()}
NUMBER = {role: number + 1 for number, role in enumerate(ROLES)}
DEPOSITS = {
    "house": 10 * USD,
    "maker": 300_000 * USD,
    "buyer": 50_000 * USD,
    "saver": 20_000 * USD + 1,
    "debtor": 3_000 * USD,
    "spreader": 10_000 * USD,
}
INDEX = 4_600_000  # ticks
HOLD_S, WINDOW_S = 3_600, 86_400  # nobody is paid with accounts missing; accounts are waited for
NOW_PPM = 800_000
NONCE = {"next": 0}


@dataclass
class World:
    token: Any
    vault: Any
    inbox: Any
    rollup: Any
    exit: Any
    state: State
    days: tuple[int, int]
    withdrawn: dict[str, int] = field(default_factory=dict)

    @property
    def proofs(self) -> Proofs:
        return Proofs(self.state)

    def key(self, which: int) -> int:
        """Expiry key of the nearer (0) or the farther (1) expiry, underlying 0."""
        return self.days[which]

    def signed(self, kind: Kind, key: bytes, **fields: int) -> bytes:
        return codec.sign(codec.encode(kind, **fields), self.state.domain, key)

    def feed(self, number: int, time: int, price: int, key: bytes | None = None) -> bytes:
        return self.signed(
            Kind.FEED, key or FEED_KEYS[number], underlying=0, feed=number, time=time, price=price
        )

    def do(self, raw: bytes) -> None:
        reason = apply(self.state, raw).reason
        assert reason is Reason.OK, reason

    def place(self, role: str, instrument: int, side: int, price: int, quantity: int, flags: int = 0) -> None:
        NONCE[role] = NONCE.get(role, -1) + 1
        self.do(
            self.signed(
                Kind.PLACE,
                KEYS[role],
                account=NUMBER[role],
                instrument=instrument,
                flags=side | flags,
                price=price,
                quantity=quantity,
                nonce=NONCE[role],
                expires=0,
                fee_max=0xFFFF,
            )
        )

    def deposit(self, role: str, amount: int) -> bytes:
        """On L1; the record for L2."""
        owner = OWNERS[role]
        self.token.mint(boa_address(owner), amount)
        self.token.approve(self.vault.address, amount, sender=boa_address(owner))
        self.vault.deposit(amount, sender=boa_address(owner))
        return codec.encode(Kind.DEPOSIT, owner=owner, account=NUMBER[role], amount=amount)

    def mark(self, day: int, price: int, time: int) -> None:
        """Feeds, surfaces and marks at a new index."""
        if time > self.state.globals.time:
            self.do(codec.encode(Kind.TICK, time=time))
        for number in range(3):
            self.do(self.feed(number, time, price))
        shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
        for number in range(3):
            report = {
                "underlying": 0,
                "feed": number,
                "day": day,
                "time": time,
                "forward": price,
                "index": price,
            }
            self.do(self.signed(Kind.SURFACE, FEED_KEYS[number], **report, **shape))
        self.do(codec.encode(Kind.RISK, underlying=0, day=day, page=0))

    def freeze(self) -> None:
        self.rollup.freeze(self.state.root())

    def begin(self) -> None:
        self.freeze()
        self.exit.begin(*self.proofs.begin())

    def balance(self, role: str) -> int:
        return int(self.token.balanceOf(boa_address(OWNERS[role])))

    def in_vault(self) -> int:
        return int(self.token.balanceOf(self.vault.address))

    def jump(self, near: int, far: int) -> None:
        """Marks of both expiries at other indices."""
        now = self.state.globals.time
        for second, (day, index) in enumerate(zip(self.days, (near, far), strict=True), 1):
            self.mark(day, index, now + second)

    def pass_expiry(self, prices: tuple[int, ...]) -> int:
        """Reports of all feeds at 07:30 of the nearer expiry and, evenly, until 08:00; the expiry's key."""
        key = self.days[0]
        at, step = expiry_time(key), 1_800 // (len(prices) - 1)
        for number, price in enumerate(prices):
            time = at - 1_800 + number * step
            self.do(codec.encode(Kind.TICK, time=time))
            for feed in range(3):
                self.do(self.feed(feed, time, price))
        return key

    def values(self) -> dict[str, int]:
        """What each role comes to, 1e-6 USD."""
        return {role: closing_value(self.state, self.state.accounts[n]) for role, n in NUMBER.items()}

    def declare(self, *roles: str) -> None:
        """Declares these, or everybody."""
        for number in [NUMBER[role] for role in roles] or self.state.accounts:
            self.exit.declare(number, self.proofs.declare(number))

    def claim(self, *roles: str) -> None:
        """Claims of these, or of everybody who has something to come."""
        for number in [NUMBER[role] for role in roles] or self.state.accounts:
            if not self.exit.account(number).is_done:
                self.exit.claim(number)


def blocking_token() -> Any:
    """The test token with a list of those whom it refuses, as issuers of stablecoins keep one."""
    source = (Path(__file__).resolve().parents[2] / "contracts" / "test" / "TestToken.vy").read_text()
    supply = "totalSupply: public(uint256)"
    receiver = '    assert receiver != empty(address), "token: receiver is zero"'
    assert supply in source
    assert receiver in source
    source = source.replace(supply, f"{supply}\nblocked: public(HashMap[address, bool])", 1)
    source = source.replace(receiver, f'{receiver}\n    assert not self.blocked[receiver], "token: blocked"')
    source += (
        "\n\n@external\ndef block(who: address, is_blocked: bool):\n    self.blocked[who] = is_blocked\n"
    )
    return boa.loads(source)


def boa_address(owner: bytes) -> str:
    from boa.util.abi import Address

    return Address("0x" + owner.hex())


def build(token: Any = None) -> World:
    """Deposits, a book, positions: the maker is short what the buyer holds; the debtor is short a call."""
    NONCE.clear()
    token = token or deploy("TestToken")
    rollup = deploy_stub("FrozenRollup")
    inbox = deploy("Inbox", *INBOX)
    rollup.set_inbox(inbox.address)
    vault = deploy("Vault", token, rollup, USD, 10**9 * USD)
    inbox.set_vault(vault.address)
    leave = deploy("Exit", vault, HOLD_S, WINDOW_S, NOW_PPM)
    vault.set_exit(leave.address)
    now = boa.env.timestamp
    today = now // 86_400
    days = (today + 3, today + 10)
    params = Params(
        feed_keys=tuple(address_of(public_key_of(key)) for key in FEED_KEYS),
        treasury_account=NUMBER["house"],
        listing_days_max=30,
    )
    world = World(token, vault, inbox, rollup, leave, genesis_state(rollup.domain_separator(), params), days)
    world.do(codec.encode(Kind.TICK, time=now))
    for role, amount in DEPOSITS.items():
        world.do(world.deposit(role, amount))
    assert world.state.globals.inbox_hash == inbox.hash_at(len(ROLES))
    for number in range(3):
        world.do(world.feed(number, now - 1, INDEX))
    for day in days:
        for strike in (4_000_000, 4_600_000, 5_200_000):
            for put in (0, 1):
                world.do(codec.encode(Kind.LIST, underlying=0, day=day, put=put, strike=strike))
    world.mark(days[0], INDEX, now)
    shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
    for number in range(3):
        report = {
            "underlying": 0,
            "feed": number,
            "day": days[1],
            "time": now,
            "forward": INDEX,
            "index": INDEX,
        }
        world.do(world.signed(Kind.SURFACE, FEED_KEYS[number], **report, **shape))
    world.do(codec.encode(Kind.RISK, underlying=0, day=days[1], page=0))
    near, far = (day << 12 for day in days)
    world.place("maker", near + 2, 1, 120_000, 20_000)  # call 46,000
    world.place("buyer", near + 2, 0, 120_000, 20_000)
    world.place("maker", far + 1, 1, 30_000, 10_000)  # put 40,000
    world.place("buyer", far + 1, 0, 30_000, 10_000)
    world.place("buyer", near + 4, 0, 20_000, 1_000)  # call 52,000
    world.place("debtor", near + 4, 1, 20_000, 1_000)
    world.place("spreader", near + 0, 0, 700_000, 5_000)  # call 40,000 against call 46,000
    world.place("maker", near + 0, 1, 700_000, 5_000)
    world.place("spreader", near + 2, 1, 110_000, 5_000)
    world.place("buyer", near + 2, 0, 110_000, 5_000)
    world.place("saver", far + 3, 0, 10_000, 7)  # rests
    NONCE["saver"] += 1
    world.do(
        world.signed(
            Kind.WITHDRAW,
            KEYS["saver"],
            account=NUMBER["saver"],
            amount=1_000 * USD,
            nonce=NONCE["saver"],
            expires=0,
        )
    )
    return world
