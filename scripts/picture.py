"""Draws docs/demo.svg, README's picture, from what `make demo` prints.

    make demo | python scripts/picture.py            (or a file with that output as the argument)

Shows the rows that ROWS names and every check, as printed. What depends on the load of the machine is left out.
"""

import io
import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs" / "demo.svg"
COLUMNS: Final = 96
ROWS: Final = (
    *("tape", "records", "orders", "fills", "batches", "l1_gas_per_record", "l1_bytes_per_record"),
    *("final_root", "replayed_root", "vault_balance", "l2_liabilities"),
    *("settled_expiries", "liquidations", "withdrawals_claimed", "real_trades"),
)
FONT: Final = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def tables(output: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Title, report and checks in the output of a demo. Raises ValueError when it is not whole, or a check failed."""
    title = re.search(r"^demo on \w+$", output, re.MULTILINE)
    parts = output.partition("\nchecks\n")
    report, checks = (
        dict(re.findall(r"^│ (\w+) +│ (.*?) +│$", part, re.MULTILINE)) for part in (parts[0], parts[2])
    )
    missing = [name for name in ROWS if name not in report]
    if title is None or missing or not checks:
        raise ValueError(f"not the whole output of a demo: {', '.join(missing) or 'no title or no checks'}")
    if failed := [name for name, result in checks.items() if result != "held"]:
        raise ValueError(f"the demo failed: {', '.join(failed)}")
    return title[0], {name: report[name] for name in ROWS}, checks


def picture(output: str) -> str:
    """An SVG of the shortened output; it loads nothing from elsewhere."""
    title, report, checks = tables(output)
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), ("make demo", "bold")))
    for name, rows, style in ((title, report, "cyan"), ("checks", checks, "green")):
        table = Table(show_header=False)
        table.add_column()
        table.add_column(style=style)
        for row, value in rows.items():
            table.add_row(row, value)
        console.print(Text(name))
        console.print(table)
    svg = console.export_svg(title="Fairstrike", unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\n*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", FONT)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def main() -> None:
    """Reads the output and writes the picture."""
    output = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else sys.stdin.read()
    try:
        TARGET.write_text(picture(output), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"picture: {error}")


if __name__ == "__main__":
    main()
