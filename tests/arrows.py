"""Who imports whom in this tree, read from the code's text: modules, files, and all that a module reaches."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import reft

ROOT = Path(__file__).parent.parent
PACKAGES = ("reft", "pipelines", "flows", "benchmarks")
# What names of a package whose face is lazy stand for; the faces name their modules as strings.
LAZY_NAMES = {
    "reft": {name: f"reft.{module}" for name, module in reft._HOMES.items()},
    "pipelines.exchange": {"load_published": "pipelines.exchange.imports"},
}


@cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the module of every Python file of the packages, by its dotted name."""
    files = (file for package in PACKAGES for file in sorted((root / package).rglob("*.py")))
    return {_dotted(file.relative_to(root)): file for file in files}


@cache
def imported(name: str, root: Path = ROOT, *, for_types: bool = False) -> frozenset[str]:
    """Return the modules of the tree that a module imports, at its top or in a function.

    Args:
        name: of the module.
        root: of the tree.
        for_types: count also what is imported under ``TYPE_CHECKING``, which no run does.
    """
    tree = ast.parse(modules(root)[name].read_text(encoding="utf-8"))
    return frozenset(_imported(tree, root, for_types)) - {name}


def reached(name: str, root: Path = ROOT, *, without: frozenset[str] = frozenset()) -> set[str]:
    """Return the module, all that it reaches by imports and through tables of names, and the packages they lie in.

    Python loads a package before what lies in it.

    Args:
        name: of the module.
        root: of the tree.
        without: modules that are not gone through.
    """
    found: set[str] = set()
    ahead = [name]
    while ahead:
        module = ahead.pop()
        if module not in found and module not in without:
            found.add(module)
            ahead += imported(module, root) | opened(module, root)
            ahead += [package for package in _packages(module) if package in modules(root)]
    return found


@cache
def opened(name: str, root: Path = ROOT) -> frozenset[str]:
    """Return the modules that a table opens: each that ``import_module(f"PACKAGE.{name}").ATTRIBUTE`` may load.

    They are no arrows: what a table opens may import what the table lies beside, and loads after it.
    """
    found = set()
    for node in ast.walk(ast.parse(modules(root)[name].read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(
                value=ast.Call(
                    func=ast.Name("import_module"), args=[ast.JoinedStr(values=[ast.Constant(str(start)), _])]
                ),
                attr=attribute,
            ):
                package = start.removesuffix(".")
                found |= {module for module in modules(root) if _has(module, package, attribute, root)}
    return frozenset(found)


def _has(module: str, package: str, attribute: str, root: Path) -> bool:
    """Whether a module lies in a package itself, and defines a name at its top."""
    if module.rpartition(".")[0] != package:
        return False
    for node in ast.parse(modules(root)[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return True
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == attribute for target in node.targets):
            return True
    return False


def is_bare(file: Path) -> bool:
    """Whether a file has nothing but its docstring, as a room's face."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def _packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts)))


def circles(root: Path = ROOT) -> list[set[str]]:
    """Return the sets of modules of which each reaches every other, imports for types included."""
    arrows = {name: imported(name, root, for_types=True) for name in modules(root)}
    behind = {name: _behind(name, arrows) for name in arrows}
    together = ({other for other in behind[name] if name in behind[other]} | {name} for name in arrows)
    return [set(circle) for circle in {frozenset(each) for each in together if len(each) > 1}]


def _behind(name: str, arrows: dict[str, frozenset[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(arrows[name])
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += arrows[module]
    return found


def _imported(tree: ast.AST, root: Path, for_types: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and not for_types and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules(root))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (home for alias in node.names if (home := _home(node.module, alias.name, root)) is not None)
        yield from _imported(node, root, for_types)


def _home(module: str, name: str, root: Path) -> str | None:
    """Return the module of the tree that ``from module import name`` loads beside packages; None for another's."""
    if f"{module}.{name}" in modules(root):
        return f"{module}.{name}"
    if module in LAZY_NAMES:
        return LAZY_NAMES[module].get(name, module)
    return module if module in modules(root) else None


def _dotted(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")
