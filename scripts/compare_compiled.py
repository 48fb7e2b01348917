"""Runs the same records through the compiled and the pure transition, each in a process of its own: every root and
outcome must be equal.

    python scripts/compare_compiled.py                        # 100,000 fuzzed records, and the demo
    python scripts/compare_compiled.py --tape ../shared/data  # likewise, the demo on its recorded tape
    python scripts/compare_compiled.py --records 2000 --no-demo

The fuzzed records are those of tests/property/hostile.py: valid, invalid and malformed. The demo's are what its log
holds; both runs must give the roots that the log has. Exits 1 at a difference, 2 where nothing is compiled.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PART = 100  # records that a difference is narrowed down to
RENEW_EVERY = 2_500  # draws, of the fuzzed exchange


def fuzzed(records_text: str, seed: str) -> dict[str, Any]:
    """Digests of all records, outcomes and roots, one for each PART records."""
    sys.path[:0] = [str(ROOT / "tests" / name) for name in ("property", "protocol", "twins")]
    from exchange import CALM, outline
    from hostile import Adversary, populated

    records, random = int(records_text), Random(int(seed))
    parts: list[str] = []
    digest = hashlib.sha256()
    number = held = 0
    while number < records:
        exchange = populated(**random.choice(({}, CALM, {"maker_fee_ppm": 200, **CALM})))
        adversary = Adversary(exchange, random)
        for draw in range(RENEW_EVERY):
            for raw, signer in adversary.keep_going() if draw % 80 == 79 else [adversary.draw()]:
                out = exchange.apply(raw, signer)
                digest.update(repr((raw, signer, outline(out))).encode() + exchange.state.root())
                number += 1
                held += not out.reason
                if number % PART == 0:
                    parts.append(digest.hexdigest())
        exchange.auditor.check(exchange.state)
    return {"records": number, "held": held, "parts": [*parts, digest.hexdigest()]}


def replayed(name: str) -> dict[str, Any]:
    """Digests of all outcomes and roots of the log in folder `name`, a demo's; ReplayError at another root than its."""
    from sequencer.development import devnet_params
    from sequencer.engine.engine import replay
    from sequencer.genesis import genesis_state
    from sequencer.l1.deploy import Deployment
    from sequencer.log.sqlite import SqliteLog
    from sequencer.protocol import codec

    sys.path.insert(0, str(ROOT / "tests" / "protocol"))
    from exchange import outline

    folder = Path(name)
    at = Deployment.load(folder / "deployment.json")
    state = genesis_state(
        codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup.removeprefix("0x"))), devnet_params()
    )
    log = SqliteLog(folder / "sequencer" / "log.sqlite")
    parts: list[str] = []
    digest = hashlib.sha256()
    records = held = 0

    def note(raw: bytes, out: Any) -> None:
        nonlocal held
        digest.update(repr((raw, outline(out))).encode() + state.root())
        held += not out.reason

    for entry in log.read(0):
        replay(state, entry, note)
        if (records + entry.records) // PART > records // PART:
            parts.append(digest.hexdigest())
        records += entry.records
    return {"records": records, "held": held, "parts": [*parts, digest.hexdigest()]}


def record_demo(folder: Path, tape: Path | None) -> None:
    """Leaves a demo's log in `folder`."""
    import asyncio

    from sequencer.local.demo import Demo, DemoConfig

    asyncio.run(Demo(DemoConfig(tape=tape, folder=folder)).run())


def run(pure: bool, *arguments: str) -> subprocess.Popen[str]:
    """Starts `one_side` in a process of its own."""
    command = [sys.executable, __file__, "--as", *arguments]
    environment = os.environ | {"FAIRSTRIKE_PURE": "1" if pure else "0", "PYTHONHASHSEED": "0"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def compare(what: str, *arguments: str) -> bool:
    """Runs `arguments` twice, and prints how the results compare."""
    processes = [run(pure, what, *arguments) for pure in (False, True)]
    answers = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        print(f"{what}: a run failed")
        return False
    compiled, pure = map(json.loads, answers)
    for one, status in ((compiled, "compiled"), (pure, "pure Python")):
        assert one["status"].startswith(status), one["status"]
    result, other = compiled["result"], pure["result"]
    if result != other:
        differ = [a != b for a, b in zip(result["parts"], other["parts"], strict=False)]
        print(
            f"{what}: DIFFERENT, first about record {(differ.index(True) if any(differ) else len(differ)) * PART}"
        )
        return False
    print(
        f"{what}: {result['records']:,} records, {result['held']:,} of them hold, every outcome and root equal;"
        f" compiled {compiled['seconds']:.1f} s, pure {pure['seconds']:.1f} s"
    )
    return True


def one_side(what: str, arguments: list[str]) -> None:
    """What a process of its own does."""
    from sequencer import _compiled

    began = time.process_time()
    run_one = {"fuzz": fuzzed, "demo": replayed}[what]
    result = run_one(*arguments)
    print(
        json.dumps({"status": _compiled.status(), "seconds": time.process_time() - began, "result": result})
    )


def main() -> int:
    """Command line."""
    if sys.argv[1:2] == ["--as"]:
        one_side(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000, help="fuzzed ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-demo", action="store_true")
    parser.add_argument("--tape", type=Path, help="the demo's; without it the generator's trades")
    options = parser.parse_args()
    from sequencer import _compiled

    if _compiled.status() != "compiled":
        print(f"nothing to compare: {_compiled.status()}", file=sys.stderr)
        return 2
    is_equal = compare("fuzz", str(options.records), str(options.seed))
    if not options.no_demo:
        with tempfile.TemporaryDirectory(prefix="fairstrike-compare-") as name:
            record_demo(Path(name), options.tape)
            is_equal &= compare("demo", name)
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
