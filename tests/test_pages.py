"""The pages of the repository: they wrap, what they list is there, and the checks of `make lint` have one list."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------- Markdown

WORDS = "a line of plain words that goes on past the hundredth column of the page, where it has to be broken"
PAGE = f"""---
about: {WORDS} {WORDS}
---

# {WORDS} {WORDS}

{WORDS}. {WORDS}
and goes on, `with a span of code that stays in one piece` and [a link that does](docs/PROTOCOL.md).
* {WORDS} {WORDS} - {WORDS}
  12. {WORDS} {WORDS}

      {WORDS} {WORDS}

And this is a program:

    {WORDS} {WORDS}
    of two lines

| {WORDS} | {WORDS} |

```
{WORDS} {WORDS}
```
<!-- {WORDS} {WORDS} -->
"""


def test_wrapped_page__has_the_same_words_and_no_long_prose() -> None:
    wrap = script("wrap_markdown")
    once = wrap.wrap(PAGE)
    assert once.split() == PAGE.split()
    assert wrap.wrap(once) == once
    assert wrap.too_long(once) == []
    assert [line for line, _ in wrap.too_long(PAGE)] == [7, 9, 10, 12]
    long = [line for line in once.split("\n") if len(line) > wrap.COLUMNS]
    assert [line[:1] for line in long] == ["a", "#", " ", "|", "a", "<"]
    assert f"\n    {WORDS} {WORDS}\n    of two lines\n" in once
    assert not re.search(r"^ *(- |\d+\. )(?!a line)", once, re.MULTILINE)


def test_page__with_a_longer_line__fails_the_check(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, str(ROOT / "scripts" / "wrap_markdown.py"), "--check", str(page)]
    page.write_text("short\n\n" + "word " * 21)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"{page}:3: 105 columns, more than 100"
    page.write_text("short\n\n" + "word " * 20 + "\n\n`" + "x" * 120 + "`\n")
    assert subprocess.run(command, check=False).returncode == 0


# -------------------------------------------------------------------------------------- lists of checks


def test_pre_commit__runs_the_checks_of_make_lint() -> None:
    recipe = re.search(r"^lint: setup.*?\bdo echo", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert recipe is not None
    of_make = [check.replace("$(BIN)", ".venv/bin") for check in re.findall(r'"(\$\(BIN\)[^"]*)"', recipe[0])]
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert len(of_make) >= 5
    assert [hook["entry"] for hook in hooks] == of_make
    assert all(hook["always_run"] and hook["pass_filenames"] is False for hook in hooks)


def test_workflow__calls_ci_run() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


# ----------------------------------------------------------------------------------------- CONTRIBUTING


def listed() -> tuple[str, set[str]]:
    """The kind that CONTRIBUTING takes as its example, and the files of its steps."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"<!-- record kind: (\w+) -->\n(.*?)\n\n", page, re.DOTALL)
    assert found is not None
    return found[1], set(re.findall(r"`([\w/.]+\.(?:py|vy|md))`", found[2]))


def test_steps_of_a_record_kind__name_files_that_handle_it() -> None:
    kind, files = listed()
    assert len(files) > 40
    for name in files:
        assert kind.lower() in (ROOT / name).read_text().lower(), name


def test_steps_of_a_record_kind__name_every_source_that_handles_it() -> None:
    kind, files = listed()
    sources = [
        path.relative_to(ROOT).as_posix()
        for folder, ending in (("sequencer", "py"), ("contracts", "vy"))
        for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    handling = {name for name in sources if re.search(rf"\b[Kk]ind\.{kind}\b", (ROOT / name).read_text())}
    assert len(handling) > 10
    assert sorted(handling - files) == []


# ---------------------------------------------------------------------------------------------- picture

OUTPUT = """demo on pyevm
┌──┬──┐
{rows}
└──┴──┘
checks
│ vault_equals_liabilities │ {result} │
"""


def test_picture__of_a_demo_that_failed_or_stopped__is_refused() -> None:
    picture = script("picture")
    rows = [f"│ {name} │ 12 │" for name in picture.ROWS]
    drawn = picture.picture(OUTPUT.format(rows="\n".join(rows), result="held"))
    assert drawn.startswith("<svg")
    assert "vault_equals_liabilities" in drawn
    with pytest.raises(ValueError, match="failed: vault_equals_liabilities"):
        picture.picture(OUTPUT.format(rows="\n".join(rows), result="broken"))
    with pytest.raises(ValueError, match="not the whole output of a demo: tape"):
        picture.picture(OUTPUT.format(rows="\n".join(rows[1:]), result="held"))


def test_picture__of_the_readme__is_of_a_run_whose_roots_agree_and_loads_nothing() -> None:
    assert "](docs/demo.svg)" in (ROOT / "README.md").read_text()
    drawn = (ROOT / "docs" / "demo.svg").read_text()
    roots = re.findall(r"0x[0-9a-f]{64}", drawn)
    assert len(roots) == 2
    assert len(set(roots)) == 1
    assert "url(http" not in drawn
