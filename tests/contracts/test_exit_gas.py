"""What leaving costs, by positions, in a large state: kept as a snapshot, so that a change shows in a diff.

FAIRSTRIKE_UPDATE_SNAPSHOTS=1 rewrites exit_gas_snapshot.json.
"""

import random
from typing import Any

import boa
import pytest
from contract_support import INBOX, USD, deploy
from exit_support import FEED_KEYS, NOW_PPM, TIMES
from stub_support import deploy_stub
from test_artifacts import check_snapshot

from sequencer.genesis import genesis_state
from sequencer.proof.exit import Proofs
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, expiry_time

ACCOUNTS = 131_072
ORDERS = 20_000
DAY = 40_000
POSITIONS = (0, 8, 32, 64)
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
    """Accounts 1 to 4 hold 0, 8, 32 and 64 positions of one expiry on up to 12 pages, among many other entries."""
    keys = tuple(address_of(public_key_of(key)) for key in FEED_KEYS)
    state = genesis_state(domain, Params(feed_keys=keys, treasury_account=1))
    state.globals.time = DAY * 86_400
    state.globals.pool = 4 * 10**12
    key = DAY
    state.touch(c.KEY_EXPIRY | key, state.new_expiry(key))
    for page in range(c.PAGES_MAX):
        page_id = DAY << 7 | page
        state.pages[page_id] = heavy_page(page)
        state.touch(c.KEY_PAGE | page_id, state.pages[page_id])
    for number, count in enumerate(POSITIONS, 1):
        account = Account(bytes([number]) * 20)
        account.cash = 10**12
        for slot in range(count):
            instrument = (DAY << 7 | slot % c.PAGES_MAX) << 5 | slot // c.PAGES_MAX * 7
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
        leave = deploy("Exit", vault, *TIMES, NOW_PPM)
        vault.set_exit(leave.address)
        for number in range(1, 5):
            owner = boa.env.generate_address(f"owner {number}")
            token.mint(owner, 10**12)
            token.approve(vault.address, 10**12, sender=owner)
            vault.deposit(10**12, sender=owner)
        state = heavy_state(rollup.domain_separator())
        rollup.freeze(state.root())
        proofs = Proofs(state)
        accounts, witness = proofs.begin()
        found: dict[str, Any] = {"begin": gas_of(leave, "begin", accounts, witness)}
        for number, count in enumerate(POSITIONS, 1):
            found[f"exit_now, {count} positions"] = gas_of(leave, "exit_now", number, proofs.exit_now(number))
        boa.env.timestamp = expiry_time(DAY) + TIMES[0] + TIMES[1]
        for feed in range(3):
            record = codec.encode(Kind.FEED, underlying=0, feed=feed, time=expiry_time(DAY), price=4_600_000)
            found["report"] = gas_of(leave, "report", codec.sign(record, state.domain, FEED_KEYS[feed]))
        found["fix"] = gas_of(leave, "fix", 0, DAY, proofs.fix(DAY))
        for number, count in enumerate(POSITIONS, 1):
            found[f"declare, {count} positions"] = gas_of(leave, "declare", number, proofs.declare(number))
        found["claim, which opens"] = gas_of(leave, "claim", 1)
        found["claim"] = gas_of(leave, "claim", 2)
        snapshot = {name: {"gas": gas, "calldata": size} for name, (gas, size) in found.items()}
        print(snapshot)
        assert all(one["gas"] < GAS_MAX and one["calldata"] < CALLDATA_MAX for one in snapshot.values())
        check_snapshot("exit_gas_snapshot.json", snapshot)
