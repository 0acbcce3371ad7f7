"""Versions as earlier releases registered them, and the modules that are kept for the code in them.

MLflow copies a model's Python file into every version. That of 0.1.0 was the whole class, which imports modules that
have moved since. At their old places stand forwarders; they are told by what they are, so nobody keeps a list of them:
their docstring begins with ``KEPT``, and they hold imports and ``__all__`` alone. The order of rooms does not hold for
them, since the old places are what they are for; that nothing but a registered version imports them does.

A folder here holds, for one release: ``model``, the version as MLflow kept it; ``base``, its base as the base store has
it; ``answers.json``, what that release answered.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = "Kept for versions that release "
RELEASES = tuple(sorted(path.parent for path in Path(__file__).parent.glob("*/model")))


def is_forwarder(path: Path) -> bool:
    """Whether a module of ours does nothing but stand at the place where registered versions look for it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not (ast.get_docstring(tree) or "").startswith(KEPT):
        return False
    rest = [node for node in tree.body[1:] if not isinstance(node, ast.ImportFrom)]
    return len(rest) == 1 and isinstance(rest[0], ast.Assign) and ast.unparse(rest[0].targets[0]) == "__all__"


def imported_names(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for each name that a file takes from our modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("pipelines", "reft"):
            yield from ((node.module, alias.name) for alias in node.names)
