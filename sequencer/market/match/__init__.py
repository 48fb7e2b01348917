"""`fairstrike match`: order commands from a file through the book alone, or through the exchange's own transition."""

from sequencer.market.match.book import Matcher
from sequencer.market.match.command import Run, Summary, match_command, run
from sequencer.market.match.commands import MatchError, format_decimal, parse_decimal

__all__ = [
    "MatchError",
    "Matcher",
    "Run",
    "Summary",
    "format_decimal",
    "match_command",
    "parse_decimal",
    "run",
]
