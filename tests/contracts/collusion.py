"""A set in which all members but one collude: what they can do, and when the honest one leads."""

import random
from collections.abc import Callable
from typing import Any, Final

import boa
from boa import BoaError
from boa.util.abi import Address
from contract_support import ETHER, USD, Batch, Exchange, deploy_exchange

TAKEOVER_S: Final = 100
MEMBERS_MAX: Final = 16
DELAY_MIN_S: Final = 2 * 2 * MEMBERS_MAX * TAKEOVER_S
SERVE, LEAVE_OUT = "serve", "leave out"


def member(number: int) -> Any:
    address = Address("0x" + (0xC011 << 144 | number).to_bytes(20, "big").hex())
    boa.env.set_balance(address, 1_000 * ETHER)
    return address


class Collusion:
    """`place`: of the honest member in the queue, behind so many colluders; `others` behind it."""

    def __init__(self, place: int, others: int, trader: Any) -> None:
        self.honest = member(100)
        self.colluders = [member(number) for number in range(place + others)]
        self.exchange: Exchange = deploy_exchange(
            self.colluders[0], inbox=(DELAY_MIN_S, 86_400, 10**15), takeover_s=TAKEOVER_S
        )
        for one in [*self.colluders[1:place], self.honest, *self.colluders[place:]]:
            self.set_.join(value=ETHER, sender=one)
        self.exchange.token.mint(trader, 10**9 * USD)
        self.exchange.token.approve(self.exchange.vault.address, 2**256 - 1, sender=trader)
        self.trader = trader
        self.push()
        self.post(self.colluders[0], SERVE)

    @property
    def set_(self) -> Any:
        return self.exchange.sequencers

    def push(self) -> int:
        """A message of a trader's; when."""
        self.exchange.vault.deposit(2 * USD, sender=self.trader)
        return int(boa.env.timestamp)

    def post(self, who: Any, how: str) -> None:
        rollup, inbox = self.exchange.rollup, self.exchange.inbox
        seq, _, taken = rollup.tip()
        count = inbox.count() if how == SERVE else taken
        batch = Batch(rollup.next_batch(), first_seq=seq, inbox_count=count).upon(rollup, inbox)
        rollup.post(*batch.arguments(), sender=who)

    def leads(self) -> bool:
        return bool(self.set_.leader() == self.honest)

    def may(self, call: Callable[[], Any]) -> bool:
        """Tries it."""
        try:
            call()
        except BoaError:
            return False
        return True

    def a_step(self, draw: random.Random) -> None:
        """Something that colluders do: they never take what waits, and are faster than the honest one."""
        leader = self.set_.leader()
        what = draw.random()
        if what < 0.35:
            self.may(lambda: self.set_.hand_over(sender=leader))
        elif what < 0.6 and leader in self.colluders:
            self.post(leader, LEAVE_OUT)
        elif what < 0.9:
            one = draw.choice(self.colluders)
            self.may(lambda: self.set_.take_over(sender=one))
        else:
            one = draw.choice(self.colluders)
            if not self.may(lambda: self.set_.leave(sender=one)):
                self.may(lambda: self.set_.join(value=ETHER, sender=one))

    def hold_up(self, draw: random.Random) -> None:
        """What delays most: each leads as late as it can, posts what serves nobody, and yields to another of them."""
        leader = self.set_.leader()
        if leader in self.colluders:
            self.post(leader, LEAVE_OUT)
        order = draw.sample(self.colluders, len(self.colluders))
        if self.set_.takes_over_at(self.honest) <= boa.env.timestamp:
            for one in order:
                if self.may(lambda one=one: self.set_.take_over(sender=one)):  # type: ignore[misc]
                    return
