"""The economy fuzz: coalitions against honest people on the real transition, and the invariants that nobody may break.

A seed is a row of episodes; an episode draws its setting, its weather and a few of the coalition's moves, each with its
own random numbers, so that one can be left out without changing the others: that is how a failure is shrunk.
Progress goes to standard error. One step is one record.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any, Final

from sequencer.proof.exit import closing_value
from sequencer.protocol import constants as c
from tests.economy.books import Violation
from tests.economy.leaving import payouts, value
from tests.economy.moves import MOVES, PLANS
from tests.economy.people import Crowd, Keeper, Nature
from tests.economy.world import Setting, World

TODAY: Final = 20_000
STEPS_MIN, STEPS_MAX = 800, 3_000  # of an episode
WEATHERS: Final = ("calm", "slow", "jumps", "crash", "aimed", "aimed", "driven", "driven")
PROBE_TURNS, AUDIT_TURNS = 4, 16
FREEZE_TOLERANCE = 1_000_000  # 1 USD
PROGRESS_S = 10.0
SHRINKS_MAX = 3


@dataclass(slots=True)
class Script:
    """An episode before it runs."""

    seed: int
    episode: int
    steps: int
    setting: Setting
    weather: str
    moves: list[tuple[str, int]]  # name, its random numbers' seed
    crowd: bool = True


@dataclass(slots=True)
class Played:
    """What an episode has shown."""

    steps: int
    found: list[Violation]
    gain: float  # USD
    reasons: dict[str, int] = field(default_factory=dict)


def draw(seed: int, episode: int, only: tuple[str, ...] = ()) -> Script:
    """Episode `episode` of a seed; `only`: the moves to choose from."""
    rng = Random(f"{seed}/{episode}")
    liars = ()
    feeds = rng.choice((3, 3, 5))
    if rng.random() < 0.5:
        liars = tuple(rng.sample(range(feeds), feeds // 2))
    setting = Setting(
        feeds=feeds,
        liars=liars,
        start=TODAY * c.DAY_S + 28_800 + rng.randrange(300, 86_000),
        is_calm=rng.random() < 0.6,
        operator=rng.random() < 0.2,
        coalition=tuple(rng.choice((2_000, 20_000, 200_000, 1_500_000)) for _ in range(rng.randrange(2, 5))),
    )
    if rng.random() < 0.3:  # many expiries of few options, so that pages are many
        setting.expiries = tuple((which, 1 + 2 * k) for k in range(14) for which in (0, 1))
        setting.strikes = (1.0,)
    names = [name for name in only or MOVES for _ in range(MOVES[name][1])]
    chosen = list(rng.choice(PLANS)) if not only and rng.random() < 0.6 else []
    for _ in range(rng.randrange(0 if chosen else 2, 4 if chosen else 8)):
        chosen.insert(rng.randrange(len(chosen) + 1), rng.choice(names))
    moves = [(name, rng.randrange(2**32)) for name in chosen]
    weather = rng.choice(WEATHERS)
    if {"fees", "run_away", "come_back"} & set(chosen) and rng.random() < 0.5:
        weather = "crash"  # what they live on is a loss that all share
        setting.operator = "fees" in chosen
    return Script(seed, episode, rng.randrange(STEPS_MIN, STEPS_MAX), setting, weather, moves)


def play(script: Script) -> Played:
    """Runs one episode."""
    world = World(script.setting, Random(f"{script.seed}/{script.episode}/world"))
    rng = Random(f"{script.seed}/{script.episode}/turns")
    nature = Nature(world, Random(f"{script.seed}/{script.episode}/nature"), script.weather)
    keeper = Keeper(world, Random(f"{script.seed}/{script.episode}/keeper"))
    crowd = Crowd(world, Random(f"{script.seed}/{script.episode}/crowd"))
    running: list[Iterator[None]] = [MOVES[name][0](world, Random(own)) for name, own in script.moves]
    turn = 0
    while world.steps < script.steps and not world.frozen:
        turn += 1
        nature.move()
        keeper.work()
        if script.crowd:
            crowd.act()
        # A few at a time, the first of the list mostly first: a plan has an order, but not a strict one.
        for place, move in enumerate(running[:4]):
            if place == 0 or rng.random() < 0.6:
                try:
                    next(move)
                except StopIteration:
                    running.remove(move)
        if turn % PROBE_TURNS == 0:
            world.books.probe()
        if turn % AUDIT_TURNS == 0:
            world.books.audit()
    world.books.audit()
    if world.frozen:
        leave(world)
    return Played(world.steps, world.books.found, world.books.gain_max / 1e6)


def leave(world: World) -> None:
    """The exchange is frozen: payouts add up to the vault, and the coalition leaves with no more than its own."""
    state = world.state
    paid, house = payouts(state)
    g = state.globals
    if sum(paid.values()) + house != g.pool + g.fund + g.treasury:
        world.books.report("exit", [], 0.0, "payouts are not the vault", ())
    if any(value(state, account) != closing_value(state, account) for account in state.accounts.values()):
        world.books.report("exit", [], 0.0, "an account's value is not the one that Exit is shown", ())
    members = world.books.coalition
    got = sum(paid[number] for number in members)
    own = sum(value(state, state.accounts[number]) for number in members)
    claims = sum(max(value(state, account), 0) for account in state.accounts.values())
    share = min(1.0, (g.pool + g.fund) / claims) if claims else 1.0
    holes = sum(max(-world.books.value[number], 0.0) for number in members)
    gained = got - max(own, 0) * share - holes
    if gained > FREEZE_TOLERANCE:
        world.books.report(
            "exit", sorted(members), gained, f"a freeze pays {got / 1e6:.2f} for {own / 1e6:.2f}", ()
        )


def shrink(script: Script, wanted: Violation) -> Script:
    """The same episode with as few moves and people as still break the same invariant."""

    def breaks(one: Script) -> bool:
        return any(v.invariant == wanted.invariant for v in play(one).found)

    best = replace(script, steps=max(wanted.step + 200, STEPS_MIN // 4))
    if not breaks(best):
        return script
    for place in range(len(best.moves) - 1, -1, -1):
        fewer = replace(best, moves=best.moves[:place] + best.moves[place + 1 :])
        if breaks(fewer):
            best = fewer
    for fewer in (replace(best, crowd=False), replace(best, setting=replace(best.setting, liars=()))):
        if breaks(fewer):
            best = fewer
    return best


def fuzz(
    steps: int, seed: int, only: tuple[str, ...] = (), shrinks: int = SHRINKS_MAX, is_one_enough: bool = False
) -> dict[str, Any]:
    """`steps` records of `seed`, in episodes. Returns what `fairstrike fuzz --economy` writes.

    `only`: the moves to draw from. `shrinks`: how many violations are shrunk. `is_one_enough`: stops at the first.
    """
    done = episodes = 0
    gain = 0.0
    violations: list[dict[str, Any]] = []
    told = began = time.monotonic()
    while done < steps and not (is_one_enough and violations):
        script = draw(seed, episodes, only)
        script.steps = min(script.steps, steps - done)
        played = play(script)
        violations += _entries(script, played, done, shrinks - len(violations))
        done += played.steps
        episodes += 1
        gain = max(gain, played.gain)
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            print(
                f"economy: seed {seed}, {done:,} of {steps:,} steps, {episodes} episodes,"
                f" {len(violations)} violations, {done / (told - began):,.0f} steps/s",
                file=sys.stderr,
            )
    return _result(seed, done, episodes, violations, gain, began)


def replay(seed: int, episode: int) -> dict[str, Any]:
    """One episode of a seed, as `fuzz` has played it but for an end that `steps` may have cut off."""
    began = time.monotonic()
    script = draw(seed, episode)
    played = play(script)
    return _result(seed, played.steps, 1, _entries(script, played, 0, SHRINKS_MAX), played.gain, began)


def _entries(script: Script, played: Played, done: int, shrinks: int) -> list[dict[str, Any]]:
    entries = []
    for violation in played.found:
        entry = {"seed": script.seed, "episode": script.episode, **asdict(violation)}
        entry["step"] += done
        entry["moves"] = [name for name, _ in script.moves]
        if len(entries) < shrinks:
            small = shrink(script, violation)
            entry["shrunk"] = {
                "weather": small.weather,
                "moves": [name for name, _ in small.moves],
                "steps": small.steps,
                "crowd": small.crowd,
            }
        entries.append(entry)
    return entries


def _result(
    seed: int, steps: int, episodes: int, violations: list[dict[str, Any]], gain: float, began: float
) -> dict[str, Any]:
    return {
        "steps": steps,
        "seed": seed,
        "episodes": episodes,
        "violations": violations,
        "coalition_gain_max": round(gain, 6),
        "seconds": round(time.monotonic() - began, 3),
    }
