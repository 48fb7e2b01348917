"""What leaving costs, by positions, in a large state: kept as a snapshot, so that a change shows in a diff.

FAIRSTRIKE_UPDATE_SNAPSHOTS=1 rewrites exit_gas_snapshot.json.
"""

import random
from typing import Any

import boa
import pytest
from contract_support import INBOX, USD, deploy
from exit_support import FEED_KEYS, HOLD_S, NOW_PPM, WINDOW_S
from stub_support import deploy_stub
from test_artifacts import check_snapshot

from sequencer.genesis import genesis_state
from sequencer.proof.exit import Proofs
from sequencer.protocol import constants as c
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params
from sequencer.protocol.state import State

ACCOUNTS = 131_072
ORDERS = 20_000
DAY = 40_000
PASSED = DAY - 1  # an expiry that has passed
HELD = (
    (0, DAY),
    (8, DAY),
    (32, DAY),
    (64, DAY),
    (64, PASSED),
)  # positions of account 1, 2, ..., and their expiry
GAS_MAX = 8_000_000
CALLDATA_MAX = 110_000


def heavy_page(index: int) -> Page:
    page = Page()
    page.time, page.index, page.forward = DAY * 86_400, 4_600_000, 4_600_000
    page.terms = [(2_000_000 + 10_000 * (32 * index + row)) | (row & 1) << 31 for row in range(c.PAGE_ROWS)]
    draw = random.Random(index)
    page.rows = [
        (draw.randrange(1 << 22), tuple(draw.randrange(-(1 << 22), 1 << 22) for _ in range(16)))
        for _ in range(c.PAGE_ROWS)
    ]
    page.marked = c.PAGE_ROWS
    return page


def heavy_state(domain: bytes) -> State:
    """Accounts that hold as many positions as HELD says on up to 12 pages, among many other entries."""
    keys = tuple(address_of(public_key_of(key)) for key in FEED_KEYS)
    state = genesis_state(domain, Params(feed_keys=keys, treasury_account=1))
    state.globals.time = DAY * 86_400
    state.globals.pool = len(HELD) * 10**12
    for day in (DAY, PASSED):
        state.touch(c.KEY_EXPIRY | day, state.new_expiry(day))
        for page in range(c.PAGES_MAX):
            page_id = day << 7 | page
            state.pages[page_id] = heavy_page(page)
            state.touch(c.KEY_PAGE | page_id, state.pages[page_id])
    for number, (count, day) in enumerate(HELD, 1):
        account = Account(bytes([number]) * 20)
        account.cash = 10**12
        for slot in range(count):
            instrument = (day << 7 | slot % c.PAGES_MAX) << 5 | slot // c.PAGES_MAX * 7
            account.positions[instrument] = -1_000 if slot % 3 else 2_000
        state.put_account(number, account)
    for index in range(ACCOUNTS):
        state.map.put(c.KEY_ACCOUNT | (1_000 + index), index + 1)
    for index in range(ORDERS):
        state.map.put(c.KEY_ORDER | index * 7_919 << 40 | index, index + 1)
    return state


def gas_of(contract: Any, name: str, *arguments: Any) -> tuple[int, int]:
    """Gas of the call as a transaction (EIP-7623 floor included), and bytes of its calldata."""
    data = getattr(contract, name).prepare_calldata(*arguments)
    getattr(contract, name)(*arguments)
    tokens = sum(1 if byte == 0 else 4 for byte in data)
    used = contract._computation.get_gas_used()
    return 21_000 + max(used + 4 * tokens, 10 * tokens), len(data)


@pytest.mark.slow
def test_gas__of_each_step__equals_the_snapshot() -> None:
    with boa.env.anchor():
        boa.env.timestamp = DAY * 86_400
        token, rollup, inbox = deploy("TestToken"), deploy_stub("FrozenRollup"), deploy("Inbox", *INBOX)
        rollup.set_inbox(inbox.address)
        vault = deploy("Vault", token, rollup, USD, 10**9 * USD)
        inbox.set_vault(vault.address)
        leave = deploy("Exit", vault, HOLD_S, WINDOW_S, NOW_PPM)
        vault.set_exit(leave.address)
        for number in range(1, len(HELD) + 1):
            owner = boa.env.generate_address(f"owner {number}")
            token.mint(owner, 10**12)
            token.approve(vault.address, 10**12, sender=owner)
            vault.deposit(10**12, sender=owner)
        state = heavy_state(rollup.domain_separator())
        rollup.freeze(state.root())
        proofs = Proofs(state)
        accounts, witness = proofs.begin()
        found: dict[str, Any] = {"begin": gas_of(leave, "begin", accounts, witness)}
        found["fix"] = gas_of(leave, "fix", 0, PASSED, proofs.fix(PASSED))
        names = [f"declare, {count} positions" + ", expired" * (day == PASSED) for count, day in HELD]
        for number, name in enumerate(names[:-1], 1):
            found[name] = gas_of(leave, "declare", number, proofs.declare(number))
        boa.env.timestamp += HOLD_S + 1
        found["claim, of a part"] = gas_of(leave, "claim", 1)
        found[names[-1]] = gas_of(leave, "declare", len(HELD), proofs.declare(len(HELD)))
        found["claim, which opens"] = gas_of(leave, "claim", 1)
        found["claim"] = gas_of(leave, "claim", 2)
        snapshot = {name: {"gas": gas, "calldata": size} for name, (gas, size) in found.items()}
        print(snapshot)
        assert all(one["gas"] < GAS_MAX and one["calldata"] < CALLDATA_MAX for one in snapshot.values())
        check_snapshot("exit_gas_snapshot.json", snapshot)
