"""The error codes of docs/API.md are those of `sequencer/errors.py`, none more and none less."""

import re
from pathlib import Path

from sequencer.errors import REFUSAL_BASE, Code
from sequencer.protocol.constants import Reason
from sequencer.refusals import EXPLAINERS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "API.md"
IN_THE_TICK = {Reason.CLASS_ORDER, Reason.TAKER_PENDING}
"""Reasons of a place in the tick: `errors.REFUSALS` has all that can be said of them."""


def errors() -> str:
    """The page's section of errors."""
    return PAGE.read_text().split("\n## Errors\n")[1].split("\n## ")[0]


def test_codes__are_listed_once_each() -> None:
    listed = [int(one) for one in re.findall(r"^\| (-?\d+) \|(?! [A-Z_]+ \|)", errors(), re.MULTILINE)]
    assert listed == list(Code)
    assert f"\n| {REFUSAL_BASE} + reason |" in errors()


def test_reasons__that_a_clients_record_can_meet__are_listed_once_with_their_codes() -> None:
    listed = [(int(code), name) for code, name in re.findall(r"\| (\d+) \| ([A-Z_]+) (?=\|)", errors())]
    assert sorted(listed) == sorted((REFUSAL_BASE + one, one.name) for one in {*EXPLAINERS, *IN_THE_TICK})


def test_example_of_a_refusal__has_the_code_of_its_reason() -> None:
    shown = re.findall(r'"code":(\d+),"message".*?"reason":"([A-Z_]+)"', errors(), re.DOTALL)
    assert shown
    for code, name in shown:
        assert int(code) == REFUSAL_BASE + Reason[name]
