"""Checks what ruff and mypy cannot: that the transition is pure, that twins share a name, that files say what they are,
and why if they are long, that none imports in a circle, and that rooms import only from rooms below them.

`sequencer/protocol/` is replayed by watchers and judged on L1, so it must give the same integers everywhere, forever:
it imports itself and an allow-list, and uses no float, no true division, no order of a set, no `hash()`, no I/O.
Prints `path:line: what` for each finding; exits 1 when one is an error.

    python scripts/check_imports.py [root]
    python scripts/check_imports.py --rooms     the order of the rooms, and what each imports from
"""

import ast
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = Path("sequencer")
PROTOCOL: Final = PACKAGE / "protocol"
LIBRARY: Final = Path("contracts/lib")
PYTHON_FOLDERS: Final = ("sequencer", "scripts", "tests", "benchmarks")
VYPER_FOLDERS: Final = ("contracts", "tests")
# Parts of a Python file that are modules in Vyper: it has no enum with values, and no file there is long.
PART_OF: Final = {
    "kind": "constants",
    "reason": "constants",
    "pages": "entries",
    "reports": "market",
    "fills": "matching",
}
LINES_MAX: Final = 400  # above it a warning: does the file still hold one thing?
LINES_MOST: Final = 500  # above it an error, unless the file's head says in a sentence why
WHY_LONG: Final = "Long because"  # how that sentence begins

# The folders of the package, from the top: each imports from those below it only. A loose file belongs to all rooms.
LOOSE: Final = "(loose)"
ROOMS: Final = {
    "cli": "the commands",
    "local": "exchanges on one machine: up, demo, bench, lies",
    "node": "the operator's processes: leader, standby, cluster, brake",
    "api": "the gateway: from a socket to a submission",
    "proof": "replay, watcher, challenge, exit, receipts and the peers that exchange headers",
    "keeper": "what the system itself proposes",
    "rollup": "from the log to L1 and back: batches, messages, roll-backs",
    "queue": "from a submission to a durable tick",
    "history": "orders, trades and cash of the past",
    "engine": "the state in memory: apply, snapshot, answer",
    "refusals": "why a record was refused: field, limit, given, needed, and what to do",
    "log": "ticks, hash-chained and durable",
    "sdk": "for traders; nothing of the server",
    "market": "prices: feeds, tapes, smiles, replays of other venues",
    "l1": "Ethereum: nodes, transactions, deployments, followers",
    "wire": "what gateway and SDK both know: names, fields, methods",
    LOOSE: "amounts, clock, errors, checksums, configuration, signers by known keys",
    "protocol": "the transition: pure, integers only",
    "_kernel": "the map, hashes, signatures and sums over scenarios in C, optional",
    "_compiled": "the transition compiled, optional",
}
LOOSE_FILES: Final = frozenset(
    {
        "__init__",
        "amounts",
        "checksums",
        "clock",
        "config",
        "contracts",
        "development",
        "errors",
        "genesis",
        "keyring",
        "pages",
    }
)

ANY: Final = frozenset({"*"})
ALLOWED: Final[dict[str, frozenset[str]]] = {
    "__future__": ANY,
    "bisect": ANY,
    "collections": ANY,
    "collections.abc": ANY,
    "dataclasses": ANY,
    "enum": ANY,
    "functools": ANY,
    "heapq": ANY,
    "itertools": ANY,
    "math": frozenset({"comb", "gcd", "isqrt", "lcm"}),  # the exact ones
    "operator": ANY,
    "struct": ANY,
    "typing": ANY,
}
KERNEL: Final[dict[str, frozenset[str]]] = {
    "sequencer._kernel": ANY,  # optional, equal to the bit
    "sequencer._kernel.black76_kernel": ANY,
    "sequencer._kernel.cmap_kernel": ANY,
    "sequencer._kernel.exposure_kernel": ANY,
    "os": frozenset({"", "environ", "getenv"}),  # FAIRSTRIKE_PURE switches it off
}
ALLOWED_IN: Final[dict[str, dict[str, frozenset[str]]]] = {
    "entries.py": KERNEL,
    "exposure.py": KERNEL,
    "cmap.py": KERNEL | {"gc": ANY},  # pauses the collector while a map is built
    "reports.py": KERNEL,
    "risk_array.py": KERNEL,
    "signers.py": KERNEL,
    "hashing.py": KERNEL
    | {
        "coincurve": ANY,
        "coincurve._libsecp256k1": ANY,
        "coincurve.context": ANY,
        "tiny_keccak": ANY,
        "threading": ANY,  # scratch buffers of a thread
    },
}

IMPURE_CALLS: Final = {
    "__import__": "imports at run time",
    "eval": "runs text",
    "exec": "runs text",
    "float": "is a float",
    "complex": "is a float",
    "hash": "differs from process to process",
    "id": "differs from process to process",
    "input": "is I/O",
    "open": "is I/O",
    "print": "is I/O",
}
SET_MAKERS: Final = frozenset({"set", "frozenset"})
SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
SET_OPERATORS: Final = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
# What keeps the order of what it is given; sorted, len, min, max, sum, any and all do not.
ORDERED_CALLS: Final = frozenset(
    {"dict", "enumerate", "filter", "iter", "list", "map", "reversed", "tuple", "zip"}
)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One breach; a warning is printed and does not fail the check."""

    path: str
    line: int
    what: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'warning: ' if self.is_warning else ''}{self.what}"


def check_purity(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Findings in a module of the transition."""
    allowed = ALLOWED | ALLOWED_IN.get(Path(path).name, {})
    sets = _set_names(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        for name, member in _imported(node):
            if name == "sequencer.protocol" or name.startswith("sequencer.protocol."):
                continue
            if f"{name}.{member}" in allowed:  # from package import module
                continue
            members = allowed.get(name, frozenset())
            if members != ANY and member not in members:
                yield Finding(
                    path, line, f"the transition does not import {name}{f'.{member}' if member else ''}"
                )
        yield from (Finding(path, line, f"the transition {what}") for what in _impurities(node, sets))


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, member) of an import statement; member "" when the module itself is bound."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = ["sequencer", "protocol", "module"][: -node.level] if node.level else []
        module = ".".join([*package, *([node.module] if node.module else [])])
        yield from ((module, alias.name) for alias in node.names)


def _impurities(node: ast.AST, sets: frozenset[str]) -> Iterator[str]:
    match node:
        case ast.Constant(value=float() | complex()):
            yield f"has no floats: {ast.unparse(node)}"
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            yield "divides with // only"
        case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            yield "is not asynchronous"
        case ast.For(iter=source) | ast.comprehension(iter=source) | ast.Starred(value=source) if _is_set(
            source, sets
        ):
            yield f"does not iterate over a set: {ast.unparse(source)}"
        case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
            yield f"does not call {name}, which {IMPURE_CALLS[name]}"
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in ORDERED_CALLS:
            yield from (
                f"does not iterate over a set: {ast.unparse(node)}"
                for argument in arguments
                if _is_set(argument, sets)
            )
        case ast.Call(func=ast.Attribute(value=owner, attr="pop"), args=[]) if _is_set(owner, sets):
            yield f"does not take any element of a set: {ast.unparse(node)}"
        case _:
            pass


def _is_set(node: ast.expr, names: frozenset[str]) -> bool:
    """Whether an expression is a set for sure: a display, set(), a name bound to one, or an operation on one."""
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in names
        case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, SET_OPERATORS):
            return any(_is_set(side, names) or _is_view(side) for side in (left, right))
        case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in SET_METHODS:
            return _is_set(owner, names)
        case ast.IfExp(body=body, orelse=other):
            return _is_set(body, names) or _is_set(other, names)
        case ast.NamedExpr(value=value):
            return _is_set(value, names)
        case _:
            return False


def _is_view(node: ast.expr) -> bool:
    """A dict's keys or items: in order by themselves, a set once operated on."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("keys", "items")
    )


def _set_names(tree: ast.Module) -> frozenset[str]:
    """Variables, attributes and parameters of a file that hold a set, by assignment or annotation."""
    names: frozenset[str] = frozenset()
    while (more := names.union(*(_bound_to_set(node, names) for node in ast.walk(tree)))) != names:
        names = more
    return names


def _bound_to_set(node: ast.AST, names: frozenset[str]) -> Iterator[str]:
    match node:
        case ast.Assign(targets=targets, value=value) if _is_set(value, names):
            yield from _bound(targets)
        case ast.NamedExpr(target=target, value=value) if _is_set(value, names):
            yield from _bound([target])
        case ast.AnnAssign(target=target, annotation=annotation, value=value):
            if _says_set(annotation) or (value is not None and _is_set(value, names)):
                yield from _bound([target])
        case ast.arg(arg=name, annotation=annotation) if annotation is not None and _says_set(annotation):
            yield name
        case _:
            pass


def _bound(targets: list[ast.expr]) -> Iterator[str]:
    for target in targets:
        match target:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case _:
                pass


def _says_set(annotation: ast.expr) -> bool:
    """Whether the outermost type, below Final and unions with None, is a set."""
    match annotation:
        case ast.Name(id=name):
            return name in SET_MAKERS | {"AbstractSet", "MutableSet", "Set"}
        case ast.Subscript(value=ast.Name(id="Final"), slice=inner):
            return _says_set(inner)
        case ast.Subscript(value=value):
            return _says_set(value)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _says_set(left) or _says_set(right)
        case _:
            return False


def check_docstring(path: str, tree: ast.Module) -> Iterator[Finding]:
    """An empty `__init__.py` needs none."""
    is_empty = Path(path).name == "__init__.py" and not tree.body
    if not is_empty and not (ast.get_docstring(tree) or "").strip():
        yield Finding(path, 1, "begins with a docstring that says what the file is for")


def check_length(path: str, text: str) -> Iterator[Finding]:
    """A warning; above LINES_MOST an error, but for contracts. Neither where the first docstring says why."""
    lines = text.count("\n")
    head = text.split('"""', 2)[1] if text.count('"""') > 1 else ""
    if lines <= LINES_MAX or WHY_LONG in head:
        return
    if lines <= LINES_MOST or path.endswith(".vy"):
        yield Finding(path, lines, f"{lines} lines, more than {LINES_MAX}", is_warning=True)
        return
    what = f'{lines} lines, more than {LINES_MOST}: split it, or say why in its head: "{WHY_LONG} …"'
    yield Finding(path, lines, what)


def check_twins(root: Path) -> Iterator[Finding]:
    """Every library module of the judge has its twin in the transition, under the same name."""
    for module in sorted((root / LIBRARY).glob("*.vy")):
        twin = PROTOCOL / f"{PART_OF.get(module.stem, module.stem)}.py"
        if not (root / twin).exists():
            yield Finding(module.relative_to(root).as_posix(), 1, f"has no twin {twin.as_posix()}")


def imports_of(tree: ast.Module, modules: Collection[str]) -> Iterator[tuple[str, int]]:
    """(module, line) of every import of one of `modules`, also of those for types alone and inside functions."""
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{name}" for name in names]
            names = [one if one in modules else node.module for one in inner]
        yield from ((name, node.lineno) for name in names if name in modules)


def check_circles(trees: dict[str, ast.Module]) -> Iterator[Finding]:
    """No module of the package imports one that imports it, directly or by others: each can be read by itself."""
    paths = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees}
    found = {name: list(imports_of(trees[path], paths.keys())) for name, path in paths.items()}
    reached: dict[str, set[str]] = {}
    for name in paths:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            fresh = {target for target, _ in found[waiting.pop()]} - seen
            seen |= fresh
            waiting += fresh
        reached[name] = seen
    for name, path in paths.items():
        for target, line in found[name]:
            if name in reached[target]:
                yield Finding(path, line, f"imports {target}, which imports it: a circle")


def room_of(module: str) -> str:
    """The room of a module by its dotted name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or parts[-1] in ROOMS else LOOSE


def check_rooms(trees: dict[str, ast.Module]) -> Iterator[Finding]:
    """Rooms are known, loose files are few, and no room imports from one above it."""
    order = list(ROOMS)
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees}
    for name, path in names.items():
        here = room_of(name)
        if here not in ROOMS:
            yield Finding(path, 1, f"is in no room that scripts/check_imports.py knows: {here}")
            continue
        if here == LOOSE and name != PACKAGE.name and name.split(".")[-1] not in LOOSE_FILES:
            yield Finding(path, 1, "lies loose: only what all rooms share does")
        for target, line in imports_of(trees[path], names.keys()):
            there = room_of(target)
            if there in ROOMS and order.index(there) < order.index(here):
                yield Finding(
                    path, line, f"{here}/ does not import from {there}/, which is above it: {target}"
                )


def show_rooms(trees: dict[str, ast.Module]) -> None:
    """Prints each room, how many lines it has, and what it imports from, with the number of imports."""
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees}
    used: dict[str, Counter[str]] = {room: Counter() for room in ROOMS}
    files = Counter(room_of(name) for name in names)
    for name, path in names.items():
        used[room_of(name)].update(
            room_of(target)
            for target, _ in imports_of(trees[path], names.keys())
            if room_of(target) != room_of(name)
        )
    for room, what in ROOMS.items():
        leans = ", ".join(f"{other} {used[room][other]}" for other in ROOMS if used[room][other])
        print(f"{room:10} {files[room]:3} files  {what}" + (f"\n{'':21}{leans}" if leans else ""))
    print(f"{sum(map(len, used.values()))} pairs of rooms, {sum(map(Counter.total, used.values()))} imports")


def check(root: Path) -> list[Finding]:
    """All findings below `root`, sorted."""
    findings = list(check_twins(root))
    package: dict[str, ast.Module] = {}
    paths = sorted(path for folder in PYTHON_FOLDERS for path in (root / folder).rglob("*.py"))
    for file in [*sorted(root.glob("*.py")), *paths]:
        where = file.relative_to(root)
        if "node_modules" in where.parts:
            continue
        text = file.read_text(encoding="utf-8")
        path = where.as_posix()
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            findings.append(Finding(path, error.lineno or 1, f"is not Python 3.11: {error.msg}"))
            continue
        findings += [*check_docstring(path, tree), *check_length(path, text)]
        if where.is_relative_to(PACKAGE):
            package[path] = tree
        if where.is_relative_to(PROTOCOL):
            findings += check_purity(path, tree)
    findings += [*check_circles(package), *check_rooms(package)]
    for file in (path for folder in VYPER_FOLDERS for path in (root / folder).rglob("*.vy")):
        findings += check_length(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8"))
    return sorted(findings)


def main() -> int:
    """Prints the findings; 1 when one of them is an error."""
    if "--rooms" in sys.argv:
        show_rooms(
            {
                file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
                for file in sorted((ROOT / PACKAGE).rglob("*.py"))
                if "node_modules" not in file.parts
            }
        )
        return 0
    findings = check(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    for finding in findings:
        print(finding)
    errors = sum(not finding.is_warning for finding in findings)
    print(f"check_imports: {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
