"""An engine that lies once, and what L1 says when it has taken that back."""

from sequencer.engine.engine import Engine
from sequencer.l1.follower import RolledBack
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from tests.simulation.world import CASH

RICHER = 10 * CASH
OVERDRAWN = 2 * CASH
LIAR = 2  # the account that the lie makes richer


class LyingEngine(Engine):
    """Once it is armed, the next order makes an account richer."""

    is_armed = False

    def _try(self, raw: bytes, signer: bytes | None) -> Outcome:
        out = super()._try(raw, signer)
        if self.is_armed and raw[0] == Kind.PLACE and out.reason is Reason.OK:
            self.is_armed = False
            account = self.state.accounts[LIAR]
            account.cash += RICHER
            self.state.put_account(LIAR, account)
        return out


def event(batch_id: int, name: str = "a") -> RolledBack:
    return RolledBack(f"0x{name}:{batch_id}", batch_id, 10**18, 7)
