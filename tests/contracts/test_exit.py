"""Exit: after a freeze everybody gets out, once, at one price, and the sum is what the vault holds.

Long because all tests leave from the same frozen exchange.
"""

import random
from collections.abc import Iterator
from typing import Any

import boa
import pytest
from contract_support import USD, deploy, events_of, reverts
from exit_support import (
    HOLD_S,
    INDEX,
    NOW_PPM,
    NUMBER,
    OWNERS,
    ROLES,
    WINDOW_S,
    World,
    boa_address,
    build,
)
from stub_support import deploy_stub

from sequencer.proof.exit import Proofs, expiry_price
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import expiry_time

WITHDRAWN = 1_000 * USD
CRASH = (11_000_000, 4_500_000)  # indices at which the debtor's call is worth more than it has
RUIN = (30_000_000, 4_500_000)  # at which the maker has nothing left either


@pytest.fixture(scope="module")
def pristine_world() -> Iterator[World]:
    with boa.env.anchor():
        yield build()


@pytest.fixture
def world(pristine_world: World) -> Iterator[World]:
    kept = pristine_world.state
    leaves = list(kept.preimages())
    pristine_world.state = type(kept).from_preimages(kept.domain, iter(leaves))
    with boa.env.anchor():
        yield pristine_world
    pristine_world.state = kept


@pytest.fixture
def frozen(world: World) -> World:
    world.begin()
    return world


def finish(world: World) -> dict[str, int]:
    """Claims of all kinds, by anybody; what each role has in the end, withdrawals apart. The vault is empty."""
    world.claim()
    world.exit.claim_house()
    owner, amount, bitmap, siblings = world.proofs.withdrawal(0)
    world.vault.claim(1, 0, owner, amount, bitmap, siblings)
    assert world.in_vault() == world.vault.deposits_total() == 0
    return {role: world.balance(role) - WITHDRAWN * (role == "saver") for role in ROLES}


# ---------------------------------------------------------------------------------------------- begin


def test_begin__pins_the_exit_state(world: World) -> None:
    with reverts("rollup: not frozen"):
        world.exit.begin(*world.proofs.begin())
    world.begin()
    leave, g = world.exit, world.state.globals
    assert (leave.root(), leave.accounts(), leave.time()) == (world.state.root(), len(ROLES), g.time)
    assert (leave.pool(), leave.fund(), leave.treasury(), leave.deficit()) == (g.pool, g.fund, g.treasury, 0)
    assert (leave.inbox_count(), leave.treasury_account()) == (g.inbox_count, NUMBER["house"])
    assert leave.hold_until() == boa.env.timestamp + HOLD_S
    assert leave.declare_until() == boa.env.timestamp + WINDOW_S
    assert g.pool + g.fund + g.treasury + WITHDRAWN == world.in_vault()
    with reverts("exit: begun already"):
        leave.begin(*world.proofs.begin())


@pytest.mark.parametrize("deficit", [1, -1, 5 * USD, -5 * USD, 2**127 - 1, -(2**127)])
def test_begin__reads_the_deficit_with_its_sign_and_no_bit_beside_it(world: World, deficit: int) -> None:
    world.state.globals.deficit = deficit
    world.begin()
    assert (world.exit.pool(), world.exit.deficit()) == (world.state.globals.pool, deficit)


def test_begin__wrong_number_of_accounts__reverts(world: World) -> None:
    world.freeze()
    proofs, count = world.proofs, len(ROLES)
    opened = proofs._open()
    absent = proofs._absent(c.KEY_ACCOUNT | (count + 2))
    with reverts("exit: fewer accounts"):
        world.exit.begin(count + 1, opened + proofs._absent(c.KEY_ACCOUNT | (count + 1)) + absent)
    leaves = [proofs._leaf(c.KEY_ACCOUNT | n, world.state.accounts[n].words()) for n in (count - 1, count)]
    with reverts("exit: more accounts"):
        world.exit.begin(count - 1, opened + leaves[0] + leaves[1])
    with reverts("witness: bit"):
        world.exit.begin(count - 1, opened + leaves[0] + absent)
    with reverts("exit: account number above 32 bits"):
        world.exit.begin(2**32 - 1, opened)


@pytest.mark.parametrize("records", [1, 2])
@pytest.mark.parametrize("lots", [8, 9])
def test_begin__inside_an_order_of_several_records__pins_the_state_before_it(
    world: World, records: int, lots: int
) -> None:
    """Whatever it would have come to, filled whole or undone: what it has traded so far may not stand alone."""
    instrument = world.days[0] << 12 | 2
    for level in range(8):
        world.place("maker", instrument, c.SELL, 150_000 + level, 1)
    before, values = world.state.root(), world.values()
    world.place("buyer", instrument, c.BUY, 160_000, lots, c.TIF_FOK << c.FLAG_TIF_SHIFT)
    if records == 2:
        world.do(codec.encode(Kind.CONTINUE))
    root, g = world.state.root(), world.state.globals
    assert (g.plan_root, g.plan_records) == (before, records)
    world.freeze()
    count, witness = world.proofs.begin()
    assert world.state.root() == before  # `Proofs` has taken it back
    with pytest.raises(boa.BoaError):
        world.exit.begin(count, world.proofs.begin()[1])  # of the state before alone
    world.exit.begin(count, witness)
    assert world.exit.root() == before != root
    assert world.values() == values
    world.declare()
    assert {role: world.exit.account(number).claim for role, number in NUMBER.items()} == values


def test_begin__words_left_over_or_missing__reverts(world: World) -> None:
    world.freeze()
    count, witness = world.proofs.begin()
    for wrong in (witness + bytes(32), witness + b"\0", witness[:-32]):
        with reverts(
            "exit: witness is too long or too short" if len(wrong) > len(witness) else "(no reason)"
        ):
            world.exit.begin(count, wrong)


def test_every_step__before_begin__reverts(world: World) -> None:
    leave, day = world.exit, world.days[0]
    for call in (
        lambda: leave.declare(1, world.proofs.declare(1)),
        lambda: leave.fix(0, day, world.proofs.fix(day)),
        lambda: leave.claim(1),
        lambda: leave.claim_house(),
        lambda: leave.refund(0, bytes([2]) + bytes(30)),
    ):
        with reverts("exit: not begun"):
            call()


# --------------------------------------------------------------------------------------------- prices


def test_value__of_each_account__is_cash_and_positions_at_the_marks_of_the_exit_state(world: World) -> None:
    world.jump(5_000_000, 4_300_000)
    world.begin()
    total = 0
    for number, account in world.state.accounts.items():
        value = account.cash
        for instrument, lots in account.positions.items():
            value += lots * world.state.pages[instrument >> 5].rows[instrument & 31][0]
        assert world.exit.declare(number, world.proofs.declare(number)) == value
        total += value
    assert total == world.state.globals.pool + world.state.globals.deficit


def test_value__whenever_it_is_proved__is_the_same(frozen: World) -> None:
    buyer, witness = NUMBER["buyer"], frozen.proofs.declare(NUMBER["buyer"])
    for day in frozen.days:  # before its expiries, after them, long after
        with boa.env.anchor():
            assert frozen.exit.declare(buyer, witness) == frozen.values()["buyer"]
        boa.env.timestamp = expiry_time(day) + 1
    assert frozen.exit.declare(buyer, witness) == frozen.values()["buyer"]


def test_fix__of_an_expiry_that_has_not_passed_in_the_exit_state__reverts(frozen: World) -> None:
    near, far = frozen.days
    boa.env.timestamp = expiry_time(far) + 1
    for day in (near, far):
        with reverts("exit: not expired in the exit state"):
            frozen.exit.fix(0, day, frozen.proofs.fix(day))
    assert frozen.exit.price(0, near) == (False, 0)


def test_fix__of_an_expiry_with_both_snapshots__is_what_fix_would_set(world: World) -> None:
    day = world.pass_expiry((4_600_000, 4_800_000, 4_800_001))
    world.begin()
    number = NUMBER["buyer"]
    with reverts("exit: expiry is not fixed"):
        world.exit.declare(number, world.proofs.declare(number))
    assert world.exit.fix(0, day, world.proofs.fix(day)) == 4_700_000
    assert world.exit.price(0, day) == (True, 4_700_000)
    with reverts("exit: fixed already"):
        world.exit.fix(0, day, world.proofs.fix(day))
    values = world.values()
    world.declare()
    world.do(codec.encode(Kind.FIX, underlying=0, day=day))
    assert world.state.expiries[day].settlement == 4_700_000
    assert values == world.values()
    assert world.exit.claims() == sum(values.values()) == world.state.globals.pool


def test_fix__of_an_expiry_without_snapshots__is_the_index_whenever_and_by_whomever(world: World) -> None:
    day = world.days[0]
    world.do(codec.encode(Kind.TICK, time=expiry_time(day)))
    world.begin()
    for later in (0, 1, 300, 10**7):
        with boa.env.anchor():
            boa.env.timestamp += later
            someone = boa.env.generate_address("someone")
            assert world.exit.fix(0, day, world.proofs.fix(day), sender=someone) == INDEX
    assert expiry_price(world.state, day) == INDEX


def test_fix__of_a_settled_expiry__is_its_price_for_those_who_were_paid_at_it_and_for_the_others(
    world: World,
) -> None:
    day = world.pass_expiry((4_900_000, 4_900_000))
    world.do(codec.encode(Kind.FIX, underlying=0, day=day))
    world.do(codec.encode(Kind.SETTLE, underlying=0, day=day, account=NUMBER["buyer"]))
    world.begin()
    assert world.exit.fix(0, day, world.proofs.fix(day)) == 4_900_000
    world.declare()
    far = world.days[1] << 12
    for role, number in NUMBER.items():
        account = world.state.accounts[number]
        value = account.cash
        for instrument, lots in account.positions.items():
            page, row = world.state.pages[instrument >> 5], instrument & 31
            strike, is_put = page.terms[row] & 0x7FFF_FFFF, bool(page.terms[row] >> 31)
            value += lots * (page.rows[row][0] if instrument >= far else intrinsic(4_900_000, strike, is_put))
        assert world.exit.account(number).claim == value, role
    assert world.exit.claims() == world.state.globals.pool


def test_fix__wrong_expiry_or_proof__reverts(world: World) -> None:
    near, far = world.days
    world.pass_expiry((INDEX, INDEX))
    world.begin()
    with reverts("exit: no such expiry"):
        world.exit.fix(0, near - 1, world.proofs._absent(c.KEY_EXPIRY | (near - 1)))
    for underlying, day in ((16, near), (0, 2**16 + near), (2**236, near), (0, 2**252 | near)):
        with reverts("exit: no such expiry"):
            world.exit.fix(underlying, day, world.proofs.fix(near))
        assert world.exit.price(underlying, day) == (False, 0)
    with reverts("witness: path"):
        world.exit.fix(0, near, world.proofs.fix(far))


# ------------------------------------------------------------------------------------------ declare


def test_declare__twice_or_another_account__reverts(frozen: World) -> None:
    spreader, debtor = NUMBER["spreader"], NUMBER["debtor"]
    frozen.declare("spreader")
    with reverts("exit: declared already"):
        frozen.exit.declare(spreader, frozen.proofs.declare(spreader))
    with reverts("witness: path"):
        frozen.exit.declare(debtor, frozen.proofs.declare(NUMBER["saver"]))
    assert frozen.exit.declared() == 1
    assert frozen.in_vault() == frozen.vault.deposits_total()  # it pays nobody


def test_declare__proof_of_another_state__reverts(world: World) -> None:
    number = NUMBER["spreader"]
    old = Proofs(type(world.state).from_preimages(world.state.domain, iter(list(world.state.preimages()))))
    world.mark(world.days[0], INDEX * 2, boa.env.timestamp + 60)  # new marks: the page of before is stale
    world.begin()
    fresh = world.proofs
    with reverts("witness: path"):
        world.exit.declare(number, old.declare(number))
    page_id = min(world.state.accounts[number].positions) >> 5  # the account is right, the page is not
    leaf = old._leaf(c.KEY_PAGE | page_id, old.state.pages[page_id].words())
    words = fresh._leaf(c.KEY_ACCOUNT | number, world.state.accounts[number].words())
    with reverts("witness: path"):
        world.exit.declare(number, words + leaf)


def test_declare__no_flipped_bit_passes(frozen: World) -> None:
    number = NUMBER["spreader"]
    witness = frozen.proofs.declare(number)
    draw = random.Random(3)
    for _ in range(150):
        wrong = bytearray(witness)
        at = draw.randrange(len(wrong))
        wrong[at] ^= 1 << draw.randrange(8)
        with pytest.raises(boa.BoaError), boa.env.anchor():
            frozen.exit.declare(number, bytes(wrong))


def test_declare__witness_where_it_is_not_read__reverts(frozen: World) -> None:
    number = NUMBER["saver"]
    data = frozen.exit.declare.prepare_calldata(number, frozen.proofs.declare(number))
    at = 4 + 32
    moved = data[:at] + (96).to_bytes(32, "big") + bytes(32) + data[at + 32 :]
    with reverts("exit: calldata is not canonical"):
        frozen.exit.env.raw_call(frozen.exit.address, data=moved)


def test_two_calls_of_one_transaction__a_page_of_the_first_does_not_serve_the_second(frozen: World) -> None:
    twice, leave, proofs = deploy_stub("Twice"), frozen.exit, frozen.proofs
    spreader, debtor = NUMBER["spreader"], NUMBER["debtor"]  # their positions are on one page
    first = leave.declare.prepare_calldata(spreader, proofs.declare(spreader))
    words = proofs._leaf(c.KEY_ACCOUNT | debtor, frozen.state.accounts[debtor].words())
    length = len(proofs.declare(spreader))
    for witness in (
        words,
        words + bytes(length - len(words)),
    ):  # nothing, or forged words, where the page stood
        with pytest.raises(boa.BoaError):
            twice.both(leave.address, first, leave.declare.prepare_calldata(debtor, witness))
    twice.both(leave.address, first, leave.declare.prepare_calldata(debtor, proofs.declare(debtor)))
    assert leave.declared() == 2


# ------------------------------------------------------------------------------- claims of everybody


def test_everybody__when_all_are_solvent__gets_the_whole_at_once_and_the_house_the_rest(
    frozen: World,
) -> None:
    values, g = frozen.values(), frozen.state.globals
    assert all(value > 0 for value in values.values())
    frozen.declare()
    got = finish(frozen)
    assert boa.env.timestamp <= frozen.exit.hold_until()
    assert got == values | {"house": values["house"] + g.treasury + g.fund}


@pytest.mark.parametrize("indices", [CRASH, RUIN])
def test_everybody__when_some_are_insolvent__bears_it_pro_rata(
    world: World, indices: tuple[int, int]
) -> None:
    world.jump(*indices)
    world.begin()
    values, g = world.values(), world.state.globals
    claims = sum(value for value in values.values() if value > 0)
    there = g.pool + g.fund
    assert values["debtor"] < 0
    assert there < claims
    world.declare()
    assert world.exit.claims() == claims == g.pool + g.deficit + world.exit.losses()
    got = finish(world)
    got["house"] -= g.treasury
    for role, value in values.items():
        assert 0 <= got[role] - max(value, 0) * there // claims <= len(ROLES), role
    assert sum(got.values()) == there
    with reverts("exit: nothing to claim"):
        world.exit.claim(NUMBER["debtor"])


def test_any_marks_and_any_order__the_sum_is_the_vault_and_nobody_gets_more_than_the_value(
    world: World,
) -> None:
    draw = random.Random(11)
    leaves = list(world.state.preimages())
    for _ in range(10):
        world.state = type(world.state).from_preimages(world.state.domain, iter(leaves))
        with boa.env.anchor():
            world.jump(
                draw.choice((2_000_000, 3_000_000, 9_000_000, 40_000_000)),
                draw.randrange(2_000_000, 9_000_000),
            )
            world.begin()
            roles = list(ROLES)
            draw.shuffle(roles)
            early = draw.randrange(len(roles))
            world.declare(*roles[:early])
            if early:
                boa.env.timestamp += HOLD_S + 1
                for role in roles[: draw.randrange(early)]:
                    if world.values()[role] > 1:
                        world.exit.claim(NUMBER[role])
            world.declare(*roles[early:])
            values, g = world.values(), world.state.globals
            got = finish(world)
            got["house"] -= g.treasury + max(0, g.pool + g.fund - world.exit.claims())
            assert all(0 <= got[role] <= max(value, 0) for role, value in values.items())
            assert sum(got.values()) == min(g.pool + g.fund, world.exit.claims())


def test_claim__twice_or_of_what_is_no_account__reverts(frozen: World) -> None:
    frozen.declare()
    number = NUMBER["buyer"]
    frozen.exit.claim(number)
    held = frozen.balance("buyer")
    with reverts("exit: nothing to claim"):
        frozen.exit.claim(number)
    frozen.exit.claim_house()
    with reverts("exit: nothing to claim"):
        frozen.exit.claim_house()
    for other in (0, len(ROLES) + 1, c.KEY_ACCOUNT | number, 2**256 - 1):
        with reverts("exit: not declared"):
            frozen.exit.claim(other)
    assert frozen.balance("buyer") == held


# ------------------------------------------------------------------------- claims with accounts missing


def test_claim__with_accounts_missing__waits_for_the_hold_and_then_pays_a_part_once(frozen: World) -> None:
    frozen.declare("saver", "spreader")
    saver, value = NUMBER["saver"], frozen.values()["saver"]
    boa.env.timestamp = frozen.exit.hold_until()
    for call in (lambda: frozen.exit.claim(saver), lambda: frozen.exit.claim_house()):
        with reverts("exit: accounts are not declared"):
            call()
    boa.env.timestamp += 1
    assert frozen.exit.claim(saver) == value * NOW_PPM // 10**6 == frozen.balance("saver")
    assert (frozen.exit.paid_now(), frozen.exit.account(saver).paid) == (frozen.balance("saver"),) * 2
    with reverts("exit: no more before all are declared"):
        frozen.exit.claim(saver)
    with reverts("exit: accounts are not declared"):
        frozen.exit.claim_house()
    with reverts("exit: not declared"):
        frozen.exit.claim(NUMBER["debtor"])
    frozen.declare("house", "maker", "buyer", "debtor")
    assert frozen.exit.claim(saver) == value - value * NOW_PPM // 10**6


def test_claim__of_a_part_when_losses_are_known__is_of_the_share_and_all_get_the_same(world: World) -> None:
    world.jump(*RUIN)
    world.begin()
    values, g = world.values(), world.state.globals
    claims, there = sum(value for value in values.values() if value > 0), g.pool + g.fund
    insolvent = [role for role, value in values.items() if value < 0]
    assert there * 10**6 < claims * NOW_PPM
    world.declare(*insolvent, "buyer", "saver")  # the losses are known in time
    boa.env.timestamp = world.exit.hold_until() + 1
    for role in ("buyer", "saver"):
        assert world.exit.claim(NUMBER[role]) == values[role] * there // claims * NOW_PPM // 10**6
    world.declare("house", "spreader")
    got = finish(world)
    assert not world.exit.is_by_rest()
    got["house"] -= g.treasury
    for role, value in values.items():
        assert 0 <= got[role] - max(value, 0) * there // claims <= len(ROLES), role


def test_claim__of_a_part_before_losses_are_declared__is_not_asked_back_and_the_rest_is_shared(
    world: World,
) -> None:
    world.jump(*RUIN)
    world.begin()
    early = ("saver", "spreader")
    world.declare(*early)
    boa.env.timestamp = world.exit.hold_until() + 1
    world.claim(*early)
    before = {role: world.balance(role) for role in early}
    values, g = world.values(), world.state.globals
    assert all(before[role] == values[role] * NOW_PPM // 10**6 for role in early)
    world.declare(*(role for role in ROLES if role not in early))
    got = finish(world)
    assert world.exit.is_by_rest()
    got["house"] -= g.treasury
    assert sum(got.values()) == g.pool + g.fund
    owed = {role: values[role] - before.get(role, 0) for role in ROLES if values[role] > 0}
    rest = {role: got[role] - before.get(role, 0) for role in owed}
    assert all(amount >= 0 for amount in rest.values())
    of_each = [(rest[role], amount) for role, amount in owed.items()]
    for one, its in of_each:
        for other, theirs in of_each:
            assert abs(one * theirs - other * its) <= 8 * max(owed.values())


def test_claim__of_a_part__counts_the_holes_that_the_exit_state_has_seen_and_a_share_does_not(
    world: World,
) -> None:
    g = world.state.globals
    g.holes = 100_000 * USD  # more than anybody owes at the last marks
    world.begin()
    saver, value = NUMBER["saver"], world.values()["saver"]
    there, wanted = g.pool + g.fund, g.pool + g.holes
    world.declare("saver")
    boa.env.timestamp = world.exit.hold_until() + 1
    assert world.exit.claim(saver) == value * there // wanted * NOW_PPM // 10**6
    world.declare(*(role for role in ROLES if role != "saver"))
    world.claim()
    assert world.balance("saver") == value


def test_parts__never_exceed_pool_and_fund(world: World) -> None:
    world.state.globals.pool = 30_000 * USD  # a state that cannot be: the accounts are worth more
    world.begin()
    world.declare("buyer", "saver", "spreader")
    boa.env.timestamp = world.exit.hold_until() + 1
    world.claim("buyer", "saver", "spreader")
    assert world.exit.paid_now() <= 30_000 * USD + world.state.globals.fund


@pytest.mark.parametrize("indices", [(INDEX, INDEX), CRASH, RUIN])
def test_declare__after_the_window__sets_the_same_share_aside(world: World, indices: tuple[int, int]) -> None:
    world.jump(*indices)
    world.begin()
    values, g = world.values(), world.state.globals
    claims, there = sum(value for value in values.values() if value > 0), g.pool + g.fund
    late = ("house", "spreader", "saver")
    world.declare(*(role for role in ROLES if role not in late))
    boa.env.timestamp = world.exit.declare_until() + 1
    world.claim("buyer")
    assert world.exit.claim_house() == g.treasury
    with reverts("exit: not declared"):
        world.exit.claim(NUMBER["saver"])
    shares = {}
    for role in late:
        world.declare(role)
        held = world.exit.account(NUMBER[role])
        assert (held.claim, held.paid, held.is_done) == (values[role], 0, False)
        shares[role] = held.set_aside
        assert 0 <= min(values[role], values[role] * there // claims) - held.set_aside <= 1
    assert world.exit.late_left() == 0
    got = {role: world.balance(role) for role in ROLES}
    for role in late:
        assert world.exit.claim(NUMBER[role]) == shares[role]
    if there > claims:  # what nobody claims is the house's when the last has come
        assert world.exit.claim_house() == there - claims
    world.claim()
    for role in ("buyer", "maker"):
        assert (
            0 <= world.balance(role) - min(max(values[role], 0), max(values[role], 0) * there // claims) <= 6
        )
    assert got["buyer"] == world.balance("buyer")
    assert world.in_vault() <= WITHDRAWN + len(ROLES) * (there < claims)


def test_late__while_others_are_insolvent_and_nobody_has_said_so__come_first_come_first_served(
    world: World,
) -> None:
    world.jump(*RUIN)
    world.begin()
    values = world.values()
    world.declare("spreader")
    boa.env.timestamp = world.exit.declare_until() + 1
    world.claim("spreader")
    g = world.state.globals
    assert world.balance("spreader") == min(
        values["spreader"], values["spreader"] * (g.pool + g.fund) // (g.pool + g.deficit)
    )
    world.declare("buyer", "saver", "maker", "debtor", "house")
    world.claim()
    assert sum(world.balance(role) for role in ROLES) == g.pool + g.fund
    assert world.balance("house") < values["house"]  # the last to come


# --------------------------------------------------------------------------------------------- refund


def test_refund__of_a_deposit_that_was_not_taken__once(world: World) -> None:
    taken = codec.encode(Kind.DEPOSIT, owner=OWNERS["house"], account=1, amount=10 * USD)
    record = world.deposit("buyer", 77 * USD)
    world.begin()
    late = world.deposit("saver", 5 * USD)  # after the freeze
    count = len(ROLES)
    with reverts("exit: message was taken"):
        world.exit.refund(0, taken)
    with reverts("exit: wrong message"):
        world.exit.refund(count, record[:-1] + bytes([record[-1] ^ 1]))
    with reverts("exit: wrong message"):
        world.exit.refund(count + 1, record)
    with reverts("inbox: unknown message"):
        world.exit.refund(count + 2, record)
    for wrong in (b"\3" + record[1:], record[:30], b""):
        with reverts("exit: not a deposit"):
            world.exit.refund(count, wrong)
    assert world.exit.refund(count, record) == 77 * USD == world.balance("buyer")
    assert world.exit.refund(count + 1, late) == 5 * USD == world.balance("saver")
    assert (world.exit.refunded(count), world.exit.refunded(count + 2)) == (True, False)
    for index, one in ((count, record), (count + 1, late)):
        with reverts("exit: refunded already"):
            world.exit.refund(index, one)
    world.declare()
    finish(world)


# ------------------------------------------------------------------------------------ vault and wiring


def test_vault__pays_for_its_exit_only(frozen: World) -> None:
    stranger = boa.env.generate_address("stranger")
    with reverts("vault: caller is not the exit"):
        frozen.vault.pay_exit(stranger, 1, sender=stranger)
    with reverts("vault: claims exceed deposits"):
        frozen.vault.pay_exit(stranger, frozen.vault.deposits_total() + 1, sender=frozen.exit.address)
    with reverts("vault: exit is set already"):
        frozen.vault.set_exit(frozen.exit.address)
    fresh = deploy("Vault", frozen.token, frozen.rollup, USD, 10**9 * USD)
    with reverts("vault: caller is not the deployer"):
        fresh.set_exit(frozen.exit.address, sender=stranger)
    for wrong in (frozen.exit.address, stranger):
        with reverts("vault: exit has another vault"):
            fresh.set_exit(wrong)
    with reverts("vault: no exit"):
        fresh.deposit(USD)
    with reverts("vault: caller is not the exit"):
        fresh.pay_exit(stranger, 0, sender=stranger)


@pytest.mark.parametrize(
    ("times", "part", "reason"),
    [
        ((0, 60), 1, "exit: hold is zero"),
        ((61, 60), 1, "exit: hold above the declare window"),
        ((60, 401 * 86_400), 1, "exit: declare window above 400 days"),
        ((60, 60), 10**6 + 1, "exit: part above one"),
    ],
)
def test_constructor__inconsistent_times__revert(
    pristine_world: World, times: tuple[int, ...], part: int, reason: str
) -> None:
    with reverts(reason):
        deploy("Exit", pristine_world.vault, *times, part)


def test_constructor__vault_without_code__reverts(pristine_world: World) -> None:
    with reverts("exit: vault is not a contract"):
        deploy("Exit", boa.env.generate_address("nobody"), HOLD_S, WINDOW_S, NOW_PPM)


def test_payment__token_that_reenters__reverts(hostile: Any) -> None:
    with boa.env.anchor():
        token = hostile("ReentrantToken")
        world = build(Approving(token))
        world.begin()
        world.declare()
        saver, buyer = NUMBER["saver"], NUMBER["buyer"]
        for data in (
            world.exit.claim.prepare_calldata(saver),
            world.exit.claim.prepare_calldata(buyer),
            world.exit.claim_house.prepare_calldata(),
            world.exit.declare.prepare_calldata(saver, world.proofs.declare(saver)),
        ):
            assert len(data) <= 2_048
            token.arm(world.exit.address, data)
            with reverts("(no reason)"):  # the compiler's lock
                world.exit.claim(saver)
        assert token.balanceOf(boa_address(OWNERS["saver"])) == 0


class Approving:
    """A token that needs no approval, with an `approve` that does nothing."""

    def __init__(self, token: Any) -> None:
        self.address = token.address
        self.mint = token.mint
        self.balanceOf = token.balanceOf

    def approve(self, _spender: Any, _amount: int, sender: Any) -> None:
        pass


def test_events__tell_each_step(world: World) -> None:
    world.begin()
    assert events_of(world.exit, "Begun")[0].accounts == len(ROLES)
    number, value = NUMBER["saver"], world.values()["saver"]
    world.declare("saver")
    event = events_of(world.exit, "Declared")[0]
    assert (event.account, event.value) == (number, value)
    boa.env.timestamp = world.exit.hold_until() + 1
    for name, declared in (("PaidNow", ()), ("Paid", tuple(role for role in ROLES if role != "saver"))):
        for role in declared:
            world.declare(role)
        amount = world.exit.claim(number)
        event = events_of(world.exit, name)[0]
        assert (event.account, event.owner, event.amount) == (number, boa_address(OWNERS["saver"]), amount)
    world.exit.claim_house()
    assert events_of(world.exit, "HousePaid")[0].owner == boa_address(OWNERS["house"])
