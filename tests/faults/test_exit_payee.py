"""A payee whom the token refuses, in front of everybody's claims.

Loss when declaring paid at once: an account of a frozen payee could not be declared, and nobody could claim for 20
days here, 430 by the defaults (75,787 USD of four accounts); then its money went to the treasury's owner. With
declarations that pay nobody: 0, and its claim stays until the token takes it.
"""

import sys
from pathlib import Path

import boa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from contract_support import USD, reverts
from exit_support import NUMBER, OWNERS, ROLES, blocking_token, boa_address, build


def test_payee__that_the_token_refuses__stops_nobody_and_is_paid_later() -> None:
    with boa.env.anchor():
        token = blocking_token()
        world = build(token)
        world.begin()
        values = world.values()
        blocked = boa_address(OWNERS["debtor"])
        token.block(blocked, True)
        world.declare()
        for role in ROLES:
            if role == "debtor":
                with reverts("token: blocked"):
                    world.exit.claim(NUMBER[role])
            else:
                world.exit.claim(NUMBER[role])
                assert world.balance(role) == values[role] > 0
        g = world.state.globals
        assert world.exit.claim_house() == g.treasury + g.fund
        assert world.in_vault() == values["debtor"] + 1_000 * USD  # and a withdrawal that nobody has claimed
        token.block(blocked, False)
        world.exit.claim(NUMBER["debtor"])
        assert world.balance("debtor") == values["debtor"]
