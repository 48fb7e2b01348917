"""Exit: after a freeze everybody gets out, once, and the sum is what the vault holds."""

import random
from collections.abc import Iterator
from typing import Any

import boa
import pytest
from contract_support import USD, deploy, events_of, reverts
from exit_support import (
    FEED_KEYS,
    INDEX,
    KEYS,
    NOW_PPM,
    NUMBER,
    OWNERS,
    ROLES,
    TIMES,
    World,
    boa_address,
    build,
)
from stub_support import deploy_stub

from sequencer.proof.exit import Proofs, certain_value, final_value, known_price
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import expiry_time

CALM = (4_700_000, 4_500_000)
WITHDRAWN = 1_000 * USD


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


def settle(world: World, near: int, far: int) -> dict[int, int]:
    """Fixes both expiries by the feeds and declares everybody; the prices by expiry."""
    for which, price in ((0, near), (1, far)):
        assert world.fix_by_feeds(which, (price, price, price)) == price
    world.declare_all()
    return {world.days[0]: near, world.days[1]: far}


def finish(world: World) -> dict[str, int]:
    """Claims of all kinds, by anybody; what each role has in the end. The vault is empty."""
    for number in world.state.accounts:
        if not world.exit.account(number).is_done:
            world.exit.claim(number)
    world.exit.claim_house()
    owner, amount, bitmap, siblings = world.proofs.withdrawal(0)
    world.vault.claim(1, 0, owner, amount, bitmap, siblings)
    assert world.in_vault() == world.vault.deposits_total() == 0
    return {role: world.balance(role) for role in ROLES}


# ---------------------------------------------------------------------------------------------- begin


def test_begin__pins_the_exit_state(world: World) -> None:
    with reverts("rollup: not frozen"):
        world.exit.begin(*world.proofs.begin())
    world.begin()
    leave, g = world.exit, world.state.globals
    assert (leave.root(), leave.accounts()) == (world.state.root(), len(ROLES))
    assert (leave.pool(), leave.fund(), leave.treasury(), leave.deficit()) == (g.pool, g.fund, g.treasury, 0)
    assert (leave.inbox_count(), leave.treasury_account()) == (g.inbox_count, NUMBER["house"])
    assert g.pool + g.fund + g.treasury + WITHDRAWN == world.in_vault()
    with reverts("exit: begun already"):
        leave.begin(*world.proofs.begin())


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
        lambda: leave.exit_now(1, world.proofs.exit_now(1)),
        lambda: leave.declare(1, world.proofs.declare(1)),
        lambda: leave.fix(0, day, world.proofs.fix(day)),
        lambda: leave.report(world.feed(0, 1, 1)),
        lambda: leave.claim(1),
        lambda: leave.claim_house(),
        lambda: leave.refund(0, bytes([2]) + bytes(30)),
    ):
        with reverts("exit: not begun"):
            call()


# --------------------------------------------------------------------------------------------- at once


def test_exit_now__pays_the_part_of_what_is_certain_to_the_owner(frozen: World) -> None:
    paid = 0
    for role, number in NUMBER.items():
        certain = certain_value(frozen.state, frozen.state.accounts[number], {})
        if certain <= 0:
            with reverts("exit: nothing at once"):
                frozen.exit.exit_now(number, frozen.proofs.exit_now(number))
            continue
        expected = certain * NOW_PPM // 10**6
        assert (
            frozen.exit.exit_now(number, frozen.proofs.exit_now(number)) == expected == frozen.balance(role)
        )
        assert frozen.exit.account(number).paid == expected
        paid += expected
    assert frozen.exit.paid_now() == paid <= frozen.state.globals.pool
    assert {role for role in ROLES if frozen.balance(role)} == {"house", "buyer", "saver", "spreader"}


def test_exit_now__twice__reverts(frozen: World) -> None:
    number = NUMBER["buyer"]
    frozen.exit.exit_now(number, frozen.proofs.exit_now(number))
    with reverts("exit: paid at once already"):
        frozen.exit.exit_now(number, frozen.proofs.exit_now(number))
    saver = NUMBER["saver"]
    frozen.exit.declare(saver, frozen.proofs.declare(saver))
    with reverts("exit: declared already"):
        frozen.exit.exit_now(saver, frozen.proofs.exit_now(saver))


def test_exit_now__proof_of_another_account_or_of_another_state__reverts(world: World) -> None:
    number = NUMBER["spreader"]
    old = Proofs(type(world.state).from_preimages(world.state.domain, iter(list(world.state.preimages()))))
    world.mark(world.days[0], INDEX * 2, boa.env.timestamp + 60)  # new marks: the page of before is stale
    world.begin()
    fresh = world.proofs
    with reverts("witness: path"):
        world.exit.exit_now(number, fresh.exit_now(NUMBER["buyer"]))
    with reverts("witness: path"):
        world.exit.exit_now(number, old.exit_now(number))
    with reverts("witness: path"):  # GLOBAL and account are right, the page is not
        page = world.state.accounts[number].positions
        key = c.KEY_PAGE | min(page) >> 5
        leaf = old._leaf(key, old.state.pages[min(page) >> 5].words())
        words = fresh._leaf(c.KEY_ACCOUNT | number, world.state.accounts[number].words())
        world.exit.exit_now(number, fresh._open() + words + leaf)
    world.exit.exit_now(number, fresh.exit_now(number))


def test_exit_now__no_flipped_bit_pays(frozen: World) -> None:
    number = NUMBER["spreader"]
    witness = frozen.proofs.exit_now(number)
    draw = random.Random(3)
    for _ in range(60):
        at = draw.randrange(len(witness) * 8)
        wrong = bytearray(witness)
        wrong[at // 8] ^= 1 << at % 8
        with boa.env.anchor(), pytest.raises(boa.BoaError):
            frozen.exit.exit_now(number, bytes(wrong))
    assert frozen.balance("spreader") == 0


def test_exit_now__unknown_account__reverts(frozen: World) -> None:
    absent = frozen.proofs._absent(c.KEY_ACCOUNT | 99)
    with reverts("exit: no such account"):
        frozen.exit.exit_now(99, frozen.proofs._open() + absent)
    with reverts("exit: no such account"):
        frozen.exit.declare(99, absent)


def test_exit_now__calldata_that_is_not_canonical__reverts(frozen: World) -> None:
    number = NUMBER["saver"]
    data = bytearray(frozen.exit.exit_now.prepare_calldata(number, frozen.proofs.exit_now(number)))
    data[67] = 96  # the argument's offset, and a word before it
    shifted = bytes(data[:68]) + bytes(32) + bytes(data[68:])
    with reverts("exit: calldata is not canonical"):
        computation = boa.env.execute_code(to_address=frozen.exit.address, data=shifted)
        if computation.is_error:
            raise boa.BoaError(computation.call_trace, [])


def test_exit_now__with_a_deficit__is_scaled(world: World) -> None:
    g = world.state.globals
    g.deficit, g.pool = g.pool // 4, g.pool - g.pool // 4
    world.begin()
    number = NUMBER["saver"]
    certain = certain_value(world.state, world.state.accounts[number], {})
    expected = certain * g.pool // (g.pool + g.deficit) * NOW_PPM // 10**6
    assert world.exit.exit_now(number, world.proofs.exit_now(number)) == expected < certain * 61 // 100


def test_exit_now__never_exceeds_the_pool(world: World) -> None:
    world.state.globals.pool = 30_000 * USD  # a state that cannot be: the accounts are worth more
    world.begin()
    for role in ("buyer", "saver", "spreader"):
        number = NUMBER[role]
        if world.exit.paid_now() < 30_000 * USD:
            world.exit.exit_now(number, world.proofs.exit_now(number))
    assert world.exit.paid_now() == 30_000 * USD
    with reverts("exit: nothing at once"):
        world.exit.exit_now(NUMBER["house"], world.proofs.exit_now(NUMBER["house"]))


def test_exit_now__after_the_price_is_fixed__counts_on_it(frozen: World) -> None:
    number = NUMBER["spreader"]
    frozen.fix_by_feeds(0, (4_700_000,) * 3)
    prices = {frozen.days[0]: 4_700_000}
    certain = certain_value(frozen.state, frozen.state.accounts[number], prices)
    assert frozen.exit.exit_now(number, frozen.proofs.exit_now(number)) == certain * NOW_PPM // 10**6


# --------------------------------------------------------------------------------------------- prices


def test_report__that_is_none__reverts(frozen: World) -> None:
    day = frozen.days[0]
    at = expiry_time(day)
    boa.env.timestamp = at + 200
    good = frozen.feed(0, at + 5, INDEX)
    for record, reason in (
        (frozen.feed(0, at + 5, INDEX, KEYS["maker"]), "exit: not the feed's signature"),
        (frozen.feed(1, at + 5, INDEX, FEED_KEYS[0]), "exit: not the feed's signature"),
        (good[:-1] + bytes([good[-1] ^ 1]), "exit: not the feed's signature"),
        (good[:8] + bytes([good[8] ^ 1]) + good[9:], "exit: not the feed's signature"),
        (good[:20] + b"\1" + good[21:], "exit: not a report"),
        (good[:92], "exit: not a report"),
        (b"", "exit: not a report"),
        (codec.encode(Kind.TICK, time=at), "exit: not a report"),
        (frozen.feed(3, at + 5, INDEX, FEED_KEYS[0]), "exit: no such feed"),
        (frozen.feed(200, at + 5, INDEX, FEED_KEYS[0]), "exit: no such feed"),
        (frozen.feed(0, at + 201, INDEX), "exit: report of the future"),
        (frozen.feed(0, at - 1, INDEX), "exit: report outside the window"),
        (frozen.feed(0, 5, INDEX), "exit: report outside the window"),
        (frozen.feed(0, at + 5, 0), "exit: price is zero"),
    ):
        with reverts(reason):
            frozen.exit.report(record)
    boa.env.timestamp = at + TIMES[0] + 1
    with reverts("exit: report outside the window"):
        frozen.exit.report(frozen.feed(0, at + TIMES[0] + 1, INDEX))
    frozen.exit.report(frozen.feed(0, at + TIMES[0], INDEX))


def test_report__the_earliest_of_a_feed_counts(frozen: World) -> None:
    day = frozen.days[0]
    at = expiry_time(day)
    boa.env.timestamp = at + 200
    frozen.exit.report(frozen.feed(0, at + 100, 5_000_000))
    frozen.exit.report(frozen.feed(0, at + 1, 4_600_001))
    assert frozen.exit.reported(0, day, 0) == (at + 1, 4_600_001)
    for late in (at + 1, at + 2, at + 150):
        with reverts("exit: not an earlier report"):
            frozen.exit.report(frozen.feed(0, late, 9_000_000))


def test_fix__median_of_a_majority_once_others_could_report(frozen: World) -> None:
    day = frozen.days[0]
    at = expiry_time(day)
    boa.env.timestamp = at + 10
    frozen.exit.report(frozen.feed(2, at, 4_600_003))
    with reverts("exit: too early"):
        frozen.exit.fix(0, day, frozen.proofs.fix(day))
    boa.env.timestamp = at + TIMES[0] + TIMES[1]
    with reverts("exit: too few reports"):
        frozen.exit.fix(0, day, frozen.proofs.fix(day))
    frozen.exit.report(frozen.feed(0, at + 7, 4_600_000))
    with boa.env.anchor():  # of two the mean, floor
        assert frozen.exit.fix(0, day, frozen.proofs.fix(day)) == 4_600_001
    frozen.exit.report(frozen.feed(1, at + 9, 9_000_000))
    assert frozen.exit.fix(0, day, frozen.proofs.fix(day)) == 4_600_003
    assert frozen.exit.price(0, day) == (True, 4_600_003)
    with reverts("exit: fixed already"):
        frozen.exit.fix(0, day, frozen.proofs.fix(day))
    with reverts("exit: fixed already"):
        frozen.exit.report(frozen.feed(1, at, 1))


def test_fix__feeds_that_stay_silent__the_last_index_stands_in(frozen: World) -> None:
    day = frozen.days[1]
    boa.env.timestamp = expiry_time(day) + TIMES[0] + TIMES[1] + TIMES[2] - 1
    with reverts("exit: too few reports"):
        frozen.exit.fix(0, day, frozen.proofs.fix(day))
    boa.env.timestamp += 1
    assert frozen.exit.fix(0, day, frozen.proofs.fix(day)) == INDEX


def test_fix__wrong_expiry_or_proof__reverts(frozen: World) -> None:
    near, far = frozen.days
    with reverts("exit: no such expiry"):
        frozen.exit.fix(0, near + 1, frozen.proofs._absent(c.KEY_EXPIRY | (near + 1)))
    for underlying, day in ((16, near), (0, 2**16 + near)):
        with reverts("exit: no such expiry"):
            frozen.exit.fix(underlying, day, frozen.proofs.fix(near))
    with reverts("witness: path"):
        frozen.exit.fix(0, near, frozen.proofs.fix(far))


def test_fix__of_an_expiry_with_both_snapshots__is_the_twap(world: World) -> None:
    day = world.days[0]
    at = expiry_time(day)
    for time, price in ((at - 1_800, 4_600_000), (at - 900, 4_800_000), (at, 4_800_001)):
        world.do(codec.encode(Kind.TICK, time=time))
        for number in range(3):
            world.do(world.feed(number, time, price))
    expected = known_price(world.state, day)
    assert expected is not None
    world.begin()
    assert world.exit.fix(0, day, world.proofs.fix(day)) == expected == 4_700_000
    world.do(codec.encode(Kind.FIX, underlying=0, day=day))
    assert world.state.expiries[day].settlement == expected


def test_fix__of_a_settled_expiry__is_its_price_and_the_settled_accounts_stay_whole(world: World) -> None:
    day = world.days[0]
    at = expiry_time(day)
    for time in (at - 1_800, at):
        world.do(codec.encode(Kind.TICK, time=time))
        for number in range(3):
            world.do(world.feed(number, time, 4_900_000))
    world.do(codec.encode(Kind.FIX, underlying=0, day=day))
    world.do(codec.encode(Kind.SETTLE, underlying=0, day=day, account=NUMBER["buyer"]))
    world.begin()
    assert world.exit.fix(0, day, world.proofs.fix(day)) == 4_900_000
    world.fix_by_feeds(1, (4_500_000,) * 3)
    world.declare_all()
    got = finish(world)
    prices = {day: 4_900_000, world.days[1]: 4_500_000}
    for role in ("maker", "buyer", "spreader", "debtor"):
        assert got[role] == final_value(world.state, world.state.accounts[NUMBER[role]], prices)


# -------------------------------------------------------------------------------- declare and claim


def test_declare__before_its_expiries_are_fixed__reverts(frozen: World) -> None:
    number = NUMBER["buyer"]
    with reverts("exit: expiry is not fixed"):
        frozen.exit.declare(number, frozen.proofs.declare(number))
    frozen.fix_by_feeds(0, (INDEX,) * 3)
    with reverts("exit: expiry is not fixed"):
        frozen.exit.declare(number, frozen.proofs.declare(number))
    spreader = NUMBER["spreader"]
    frozen.exit.declare(spreader, frozen.proofs.declare(spreader))
    with reverts("exit: declared already"):
        frozen.exit.declare(spreader, frozen.proofs.declare(spreader))
    with reverts("witness: path"):
        frozen.exit.declare(NUMBER["debtor"], frozen.proofs.declare(NUMBER["saver"]))


def test_everybody__when_all_are_solvent__gets_the_whole_and_the_house_the_rest(frozen: World) -> None:
    for role in ("saver", "buyer"):
        frozen.exit.exit_now(NUMBER[role], frozen.proofs.exit_now(NUMBER[role]))
    prices = settle(frozen, *CALM)
    got = finish(frozen)
    g = frozen.state.globals
    values = {
        role: final_value(frozen.state, frozen.state.accounts[number], prices)
        for role, number in NUMBER.items()
    }
    assert all(value > 0 for value in values.values())
    extra = {"saver": WITHDRAWN, "house": g.treasury + g.fund}
    assert got == {role: value + extra.get(role, 0) for role, value in values.items()}


def test_everybody__when_one_is_insolvent__bears_it_pro_rata_late_and_early_alike(frozen: World) -> None:
    for role in ("saver", "buyer", "house"):
        frozen.exit.exit_now(NUMBER[role], frozen.proofs.exit_now(NUMBER[role]))
    prices = settle(frozen, 11_000_000, 4_500_000)  # the debtor's call is worth more than it has
    g = frozen.state.globals
    values = {
        role: final_value(frozen.state, frozen.state.accounts[number], prices)
        for role, number in NUMBER.items()
    }
    assert values["debtor"] < 0
    claims = sum(value for value in values.values() if value > 0)
    there = g.pool + g.fund
    assert frozen.exit.claims() == claims > there > claims * 8 // 10
    assert frozen.exit.losses() == -values["debtor"] == claims - g.pool
    got = finish(frozen)
    got["saver"] -= WITHDRAWN
    got["house"] -= g.treasury
    for role, value in values.items():
        assert 0 <= got[role] - max(value, 0) * there // claims <= len(ROLES), role
    assert sum(got.values()) == there
    with reverts("exit: nothing to claim"):
        frozen.exit.claim(NUMBER["debtor"])


def test_everybody__when_somebody_got_too_much_at_once__shares_what_is_left_by_what_is_owed(
    frozen: World,
) -> None:
    early = ("saver", "spreader")
    for role in early:
        frozen.exit.exit_now(NUMBER[role], frozen.proofs.exit_now(NUMBER[role]))
    before = {role: frozen.balance(role) for role in early}
    prices = settle(frozen, 200_000_000, 4_500_000)  # beyond what is certain: 43 times the index
    got = finish(frozen)
    assert frozen.exit.is_by_rest()
    g = frozen.state.globals
    got["saver"] -= WITHDRAWN
    got["house"] -= g.treasury
    assert sum(got.values()) == g.pool + g.fund
    values = {
        role: final_value(frozen.state, frozen.state.accounts[number], prices)
        for role, number in NUMBER.items()
    }
    assert values["maker"] < 0 == got["maker"]
    rests = {role: values[role] - frozen_paid(frozen, role) for role in ("house", "saver", "buyer")}
    left = {role: got[role] - frozen_paid(frozen, role) for role in rests}
    for role in early:
        assert got[role] >= before[role]
    for one, other in (("house", "saver"), ("saver", "buyer")):
        assert abs(left[one] * rests[other] - left[other] * rests[one]) <= 8 * max(rests.values())


def frozen_paid(world: World, role: str) -> int:
    return int(world.exit.account(NUMBER[role]).paid)


def test_any_prices_and_any_order__the_sum_is_the_vault(frozen: World) -> None:
    draw = random.Random(11)
    for _ in range(12):
        with boa.env.anchor():
            numbers = list(frozen.state.accounts)
            draw.shuffle(numbers)
            for number in numbers[: draw.randrange(len(numbers))]:
                if certain_value(frozen.state, frozen.state.accounts[number], {}) > 0:
                    frozen.exit.exit_now(number, frozen.proofs.exit_now(number))
            settle(frozen, draw.choice((1, 3_000_000, 9_000_000, 40_000_000)), draw.randrange(1, 9_000_000))
            finish(frozen)


def test_claim__before_all_are_declared_or_of_an_undeclared_account__reverts(frozen: World) -> None:
    frozen.fix_by_feeds(0, (INDEX,) * 3)
    saver, spreader = NUMBER["saver"], NUMBER["spreader"]
    for number in (saver, spreader):
        frozen.exit.declare(number, frozen.proofs.declare(number))
    for call in (lambda: frozen.exit.claim(saver), lambda: frozen.exit.claim_house()):
        with reverts("exit: accounts are not declared"):
            call()
    boa.env.timestamp = frozen.exit.declare_until()
    with reverts("exit: accounts are not declared"):
        frozen.exit.claim(saver)
    boa.env.timestamp += 1
    frozen.exit.claim(saver)
    with reverts("exit: not declared"):
        frozen.exit.claim(NUMBER["debtor"])


def test_claim__twice__reverts(frozen: World) -> None:
    settle(frozen, *CALM)
    number = NUMBER["buyer"]
    frozen.exit.claim(number)
    held = frozen.balance("buyer")
    with reverts("exit: nothing to claim"):
        frozen.exit.claim(number)
    frozen.exit.claim_house()
    with reverts("exit: nothing to claim"):
        frozen.exit.claim_house()
    with reverts("exit: payouts are open"):
        frozen.exit.exit_now(number, frozen.proofs.exit_now(number))
    assert frozen.balance("buyer") == held


def test_declare__after_the_window__is_paid_from_what_the_others_do_not_need(frozen: World) -> None:
    buyer = NUMBER["buyer"]
    frozen.exit.exit_now(buyer, frozen.proofs.exit_now(buyer))
    for which, price in enumerate(CALM):
        frozen.fix_by_feeds(which, (price,) * 3)
    prices = dict(zip(frozen.days, CALM, strict=True))
    for role in ("saver", "maker"):
        frozen.exit.declare(NUMBER[role], frozen.proofs.declare(NUMBER[role]))
    boa.env.timestamp = frozen.exit.declare_until() + 1
    for role in ("saver", "maker"):
        frozen.exit.claim(NUMBER[role])
    for role in ("house", "buyer", "debtor", "spreader"):
        frozen.exit.declare(NUMBER[role], frozen.proofs.declare(NUMBER[role]))
    for role, number in NUMBER.items():
        assert frozen.balance(role) == final_value(frozen.state, frozen.state.accounts[number], prices)
        with reverts("exit: nothing to claim"):
            frozen.exit.claim(number)
    g = frozen.state.globals
    assert frozen.exit.claim_house() == g.treasury
    assert frozen.in_vault() == g.fund + WITHDRAWN  # the fund's rest is for those who are declared late


def test_two_calls_of_one_transaction__a_page_of_the_first_does_not_serve_the_second(frozen: World) -> None:
    for which, price in enumerate(CALM):
        frozen.fix_by_feeds(which, (price,) * 3)
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
    settle(world, *CALM)
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
        ((0, 60, 60, 60), 1, "exit: report window is zero"),
        ((86_400, 60, 60, 60), 1, "exit: report window is not below a day"),
        ((60, 0, 60, 60), 1, "exit: report delay is zero"),
        ((60, 60, 59, 60), 1, "exit: silence below the report delay"),
        ((60, 60, 401 * 86_400, 60), 1, "exit: silence above 400 days"),
        ((60, 60, 60, 0), 1, "exit: declare window is zero"),
        ((60, 60, 60, 401 * 86_400), 1, "exit: declare window above 400 days"),
        ((60, 60, 60, 60), 10**6 + 1, "exit: part above one"),
    ],
)
def test_constructor__inconsistent_times__revert(
    pristine_world: World, times: tuple[int, ...], part: int, reason: str
) -> None:
    with reverts(reason):
        deploy("Exit", pristine_world.vault, *times, part)


def test_constructor__vault_without_code__reverts(pristine_world: World) -> None:
    with reverts("exit: vault is not a contract"):
        deploy("Exit", boa.env.generate_address("nobody"), *TIMES, NOW_PPM)


def test_payment__token_that_reenters__reverts(hostile: Any) -> None:
    with boa.env.anchor():
        token = hostile("ReentrantToken")
        world = build(Approving(token))
        world.begin()
        number = NUMBER["saver"]
        again = [
            world.exit.exit_now.prepare_calldata(number, world.proofs.exit_now(number)),
            world.exit.declare.prepare_calldata(number, world.proofs.declare(number)),
        ]
        for data in again:
            assert len(data) <= 2_048
            token.arm(world.exit.address, data)
            with reverts("(no reason)"):  # the compiler's lock
                world.exit.exit_now(number, world.proofs.exit_now(number))
            with reverts("(no reason)"):
                world.exit.declare(number, world.proofs.declare(number))
        assert token.balanceOf(boa_address(OWNERS["saver"])) == 0


class Approving:
    """A token that needs no approval, with an `approve` that does nothing."""

    def __init__(self, token: Any) -> None:
        self.address = token.address
        self.mint = token.mint
        self.balanceOf = token.balanceOf

    def approve(self, _spender: Any, _amount: int, sender: Any) -> None:
        pass


def test_payment__to_a_frozen_payee__stops_nobody_else(hostile: Any) -> None:
    with boa.env.anchor():
        token = hostile("SilentToken")
        world = build(Approving(token))
        world.begin()
        settle(world, *CALM[:1], CALM[1])
        token.set_refuses(True)
        with reverts("vault: transfer failed"):
            world.exit.claim(NUMBER["buyer"])
        token.set_refuses(False)
        world.exit.claim(NUMBER["maker"])
        world.exit.claim(NUMBER["buyer"])


def test_events__tell_each_step(world: World) -> None:
    world.begin()
    assert events_of(world.exit, "Begun")[0].accounts == len(ROLES)
    number = NUMBER["saver"]
    amount = world.exit.exit_now(number, world.proofs.exit_now(number))
    event = events_of(world.exit, "PaidNow")[0]
    assert (event.account, event.owner, event.amount) == (number, boa_address(OWNERS["saver"]), amount)
