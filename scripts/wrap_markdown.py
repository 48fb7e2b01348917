"""Markdown wraps at 100 columns: `--check` lists longer lines, without it the files are rewritten.

    python scripts/wrap_markdown.py [--check] [FILE ...]        (default: every Markdown file under version control)

Prose and list items are wrapped. Front matter, fenced and indented code, tables, headings, link definitions and HTML
comments stay as they are.
A line is never broken inside a code span or a link, nor before a word that would begin a list, heading or quotation.
"""

import argparse
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
COLUMNS: Final = 100
ITEM: Final = re.compile(r"( *)([-*+]|\d{1,9}[.)]) +")
VERBATIM: Final = re.compile(r" *(\||#{1,6} |<|>|\[[^\]]+\]: |!\[|(---+|\*\*\*+) *$)")
WORD: Final = re.compile(r"(?:`+[^`]*`+|!?\[[^\]]*\](?:\([^)]*\))?|[^\s`\[]|\[)+")
OPENS_A_BLOCK: Final = re.compile(r"([-*+#>|]|\d{1,9}[.)]|#{2,6}|=+|-{2,})$")
FRONT_MATTER: Final = re.compile(r"---\n.*?\n---\n", re.DOTALL)
FENCE: Final = re.compile(r" *(```+|~~~+)")


def columns(text: str) -> int:
    """Width of `text` on a screen, in columns."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text
    )


def wrapped(text: str, first: str, rest: str) -> list[str]:
    """`text` in lines of at most COLUMNS, where its words allow: the first after `first`, the others after `rest`."""
    lines: list[str] = []
    line = ""
    for word in WORD.findall(text):
        indent = rest if lines else first
        if line and columns(f"{indent}{line} {word}") > COLUMNS and not OPENS_A_BLOCK.match(word):
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append((rest if lines else first) + line)
    return lines


class IndentedCode:
    """Finds the lines of indented code: four columns in, after a blank line, outside a list. Asked line by line."""

    def __init__(self) -> None:
        self._in_list = False
        self._may_begin = True

    def __call__(self, line: str) -> bool:
        """Whether `line`, which follows the line asked about before, is code."""
        if not line.strip():
            self._may_begin = True
            return False
        if line.startswith("    ") and self._may_begin and not self._in_list:
            return True
        self._may_begin = False
        self._in_list = bool(ITEM.match(line)) or (self._in_list and line.startswith(" "))
        return False


def wrap(text: str) -> str:
    """A Markdown page with prose and list items wrapped; wrapping a wrapped page changes nothing."""
    matter = FRONT_MATTER.match(text)
    out: list[str] = [matter[0].rstrip("\n")] if matter else []
    text = text[matter.end() :] if matter else text
    paragraph: list[str] = []
    first = rest = ""
    fence = ""

    def flush() -> None:
        if paragraph:
            out.extend(wrapped(" ".join(paragraph), first, rest))
            paragraph.clear()

    in_comment = False
    is_code = IndentedCode()
    for line in text.split("\n"):
        opened = FENCE.match(line)
        if fence:
            out.append(line)
            fence = "" if opened and opened[1].startswith(fence) else fence
        elif opened:
            flush()
            out.append(line)
            fence = opened[1]
        elif is_code(line) or in_comment or not line.strip() or VERBATIM.match(line):
            flush()
            out.append(line)
            in_comment = (in_comment or line.lstrip().startswith("<!--")) and "-->" not in line
        elif item := ITEM.match(line):
            flush()
            first, rest = item[0], " " * len(item[0])
            paragraph.append(line[item.end() :].strip())
        else:
            if not paragraph:
                first = rest = line[: len(line) - len(line.lstrip())]
            paragraph.append(line.strip())
    flush()
    return "\n".join(out)


def too_long(text: str) -> list[tuple[int, int]]:
    """Line number and width of each line that wrapping would shorten."""
    found = []
    fence = ""
    matter = FRONT_MATTER.match(text)
    text = "\n" * matter[0].count("\n") + text[matter.end() :] if matter else text
    is_code = IndentedCode()
    for number, line in enumerate(text.split("\n"), 1):
        opened = FENCE.match(line)
        if fence:
            fence = "" if opened and opened[1].startswith(fence) else fence
        elif opened:
            fence = opened[1]
        elif not is_code(line) and columns(line) > COLUMNS and not VERBATIM.match(line):
            item = ITEM.match(line)
            indent = item[0] if item else line[: len(line) - len(line.lstrip())]
            if len(wrapped(line[len(indent) :], indent, " " * len(indent))) > 1:
                found.append((number, columns(line)))
    return found


def main() -> None:
    """Checks or rewrites. Exit status 1 when a checked file has a longer line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="list longer lines, change nothing")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    files = arguments.files
    if not files:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    failed = False
    for path in files:
        text = path.read_text(encoding="utf-8")
        if not arguments.check:
            path.write_text(wrap(text), encoding="utf-8")
            continue
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        for number, width in too_long(text):
            failed = True
            print(f"{shown}:{number}: {width} columns, more than {COLUMNS}")
    if failed:
        print("python scripts/wrap_markdown.py wraps them")
        sys.exit(1)


if __name__ == "__main__":
    main()
