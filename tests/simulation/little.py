"""A little exchange for tests of what stands around the transition: funded traders, eight options with marks, orders.

It runs the real engine and keeps every logged tick, so that a test can replay them.
"""

from sequencer.engine.engine import Engine, Submission, Tick, replay
from sequencer.genesis import genesis_state
from sequencer.keeper.keeper import Keeper
from sequencer.local.bench import FlatSource, key_of, options, owner_of
from sequencer.local.devnet import FEEDS, devnet_params, feed_key
from sequencer.log.interface import Entry
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import State
from sequencer.queue.intake import Intake
from tests.simulation.world import CASH, MID

DOMAIN = codec.domain_separator(31_337, b"\x22" * 20)
PARAMS = devnet_params(target_per_s=1_000_000, risk_age_max_s=86_400)
TODAY = 20_000
NOW = TODAY * c.DAY_S + 36_000
TRADERS = 4


def genesis() -> State:
    return genesis_state(DOMAIN, PARAMS)


def deposit(number: int, account: int | None = None, amount: int = CASH) -> bytes:
    """What the Vault's message for load account `number` says; accounts count from 1."""
    at = number + 1 if account is None else account
    return codec.encode(Kind.DEPOSIT, owner=owner_of(number), account=at, amount=amount)


class Little:
    """`entries`: the ticks so far. `nonces`: the next one of each trader."""

    def __init__(self, traders: int = TRADERS) -> None:
        self.engine = Engine(genesis())
        self.entries: list[Entry] = []
        self.nonces = [0] * traders
        self.now = NOW
        wanted = options(NOW)
        self.keeper = Keeper(
            self.engine.state, [FlatSource(wanted)], [feed_key(one) for one in range(FEEDS)], wanted=wanted
        )
        self.run([], [deposit(number) for number in range(traders)])
        for _ in range(2):  # the first index lets options be listed
            self.run([], self.keeper.pass_one(self.now + 1))
        self.instruments = sorted(self.state.instruments.values())
        assert len(self.instruments) == len(wanted)

    @property
    def state(self) -> State:
        return self.engine.state

    def run(self, submissions: list[Submission], system: list[bytes] | None = None) -> Tick:
        """A tick, one second after the last."""
        self.now += 1
        tick = self.engine.run(self.now, system or [], submissions)
        if tick.entry is not None:
            self.entries.append(tick.entry)
        return tick

    def replayed(self) -> State:
        """The state that the entries give from genesis, each root compared."""
        state = genesis()
        for entry in self.entries:
            replay(state, entry)
        return state

    # --- submissions ----------------------------------------------------------------------------

    def signed(self, kind: Kind, trader: int, /, **fields: int) -> Submission:
        fields.setdefault("nonce", self.nonces[trader])
        if fields["nonce"] == self.nonces[trader]:
            self.nonces[trader] += 1
        fields.setdefault("expires", 0)
        raw = codec.encode(kind, account=trader + 1, **fields)
        return submission(codec.sign(raw, DOMAIN, key_of(trader)), owner_of(trader))

    def place(
        self, trader: int, side: int, price: int = MID, quantity: int = 10, flags: int = 0, **fields: int
    ) -> Submission:
        return self.signed(
            Kind.PLACE,
            trader,
            instrument=fields.pop("instrument", self.instruments[0]),
            flags=flags | side,
            price=price,
            quantity=quantity,
            fee_max=65_535,
            **fields,
        )

    def rest(self, trader: int, side: int, price: int = MID, quantity: int = 10) -> Submission:
        return self.place(trader, side, price, quantity, c.FLAG_POST_ONLY)

    def orders(self, count: int) -> list[Submission]:
        """Pairs that rest beside the market, and pairs that cross it."""
        out = []
        for number in range(count):
            trader, side = number % len(self.nonces), number // 2 % 2
            outward = -1 if side == c.BUY else 1
            if number % 4 < 2:
                out.append(self.rest(trader, side, MID + outward * (10 + number % 7)))
            else:
                out.append(self.place(trader, side, MID - outward * 30, 7, c.TIF_IOC << c.FLAG_TIF_SHIFT))
        return out


def submission(raw: bytes, signer: bytes | None = None, arrived_ns: int = 0) -> Submission:
    """With its class, as the intake gives it."""
    one = Submission(raw, signer, None, arrived_ns)
    assert Intake().offer(one) == 0
    return one


def reasons(tick: Tick) -> list[Reason]:
    return [result.reason for result in tick.results]
