"""The tables at the end of docs/PROTOCOL.md are the code's; FAIRSTRIKE_UPDATE_SNAPSHOTS=1 writes them anew."""

import os
import textwrap
from pathlib import Path

from sequencer.protocol import constants as c
from sequencer.protocol.constants import QueueState, Reason
from sequencer.protocol.params import BTC, ETH, INTEGER_FIELDS, UNDERLYING_FIELDS, Params

PAGE = Path(__file__).resolve().parents[2] / "docs" / "PROTOCOL.md"
MARKS = ("<!-- numbers: begin -->\n", "<!-- numbers: end -->\n")


def rendered() -> str:
    """Tables of the reasons, the queue's states, and the fields of PARAMS in their order."""
    defaults = Params()
    reasons = "**Reasons**: " + ", ".join(f"{one.value} {one.name}" for one in Reason) + "."
    lines = [textwrap.fill(reasons, 100, break_on_hyphens=False), ""]
    lines += ["**Queue states**: " + ", ".join(f"{one.value} {one.name}" for one in QueueState) + ".", ""]
    lines += [
        "**PARAMS**, words 0 to 4: the feeds' addresses. Then:",
        "",
        "| word | bits | field | default |",
        "|---|---|---|---:|",
    ]
    for number, name in enumerate(INTEGER_FIELDS):
        word, place = divmod(number, 8)
        low = 32 * place
        lines.append(f"| {c.FEEDS_MAX + word} | {low}..{low + 31} | `{name}` | {getattr(defaults, name):,} |")
    first = c.FEEDS_MAX + -(-len(INTEGER_FIELDS) // 8)
    lines += [
        "",
        f"Word {first} is BTC's, word {first + 1} ETH's:",
        "",
        "| bits | field | BTC | ETH |",
        "|---|---|---:|---:|",
    ]
    for place, name in enumerate(UNDERLYING_FIELDS):
        low = 32 * place
        lines.append(f"| {low}..{low + 31} | `{name}` | {getattr(BTC, name):,} | {getattr(ETH, name):,} |")
    return "\n".join(lines) + "\n"


def test_numbers__are_the_codes() -> None:
    head, rest = PAGE.read_text().split(MARKS[0])
    if os.environ.get("FAIRSTRIKE_UPDATE_SNAPSHOTS", "0") not in ("", "0"):
        PAGE.write_text(head + MARKS[0] + rendered() + MARKS[1] + rest.split(MARKS[1])[1])
    shown = PAGE.read_text().split(MARKS[0])[1].split(MARKS[1])[0]
    assert shown == rendered()
