"""The rooms: flows -> pipelines -> reft, never back, and each heavy tool in its own room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "reft": {"pipelines", "flows", "mlflow", "optuna", "dvc", "prefect", "yaml"},
    "pipelines": {"flows", "prefect"},
    "flows": {"torch", "mlflow", "optuna", "transformers"},
}
FOREIGN_FILES = ROOT / "reft" / "formats" / "files.py"
MLFLOW_ROOMS = {"runs.py", "versions.py", "promote.py", "pyfunc.py", "store.py", "download.py"}


def imports(path: Path) -> Iterator[str]:
    return imports_of(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_what_is_above_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): found for file in files if (found := FORBIDDEN[room] & set(imports(file)))}
    assert wrong == {}


def test_mlflow_is_imported_in_its_rooms_only() -> None:
    users = {file.name for file in (ROOT / "pipelines").rglob("*.py") if "mlflow" in set(imports(file))}
    assert users <= MLFLOW_ROOMS
    assert "runs.py" in users or "store.py" in users


def test_peft_is_loaded_by_the_methods_that_need_it_alone() -> None:
    """Its import takes seconds, and a job of ReFT trains none of them."""
    files = [file for room in FORBIDDEN for file in sorted((ROOT / room).rglob("*.py"))]
    assert {file.name for file in files if "peft" in set(imports(file))} == {"lora.py", "virtual.py"}
    for file in files:
        assert "peft" not in set(imports_of(ast.parse(file.read_text(encoding="utf-8")).body)), file


def test_nothing_pickles() -> None:
    for room in FORBIDDEN:
        for file in sorted((ROOT / room).rglob("*.py")):
            if file == FOREIGN_FILES:
                continue
            assert not {"pickle", "cloudpickle", "joblib", "dill"} & set(imports(file)), file
            assert not re.search(r"(?<!safetensors\.)torch\.load\(", file.read_text(encoding="utf-8")), file


def test_other_libraries_pickles_are_read_as_plain_tensors_alone() -> None:
    text = FOREIGN_FILES.read_text(encoding="utf-8")
    calls = re.findall(r"torch\.load\((.*)\)", text)
    assert calls == ['path, map_location="cpu", weights_only=True, mmap=True']
    assert re.findall(r"^(?:from|import) \S*pickle.*?(?=  #|$)", text, re.MULTILINE) == [
        "from pickle import UnpicklingError"
    ]


# Each takes seconds to import, and what is named before it does its work without.
LIGHT = {
    "flows.cli flows.commands.data flows.commands.init flows.finetune flows.search flows.compare": {
        "torch", "mlflow", "optuna", "transformers", "prefect.server.api",
    },
    "pipelines.upkeep.leftovers": {"accelerate", "mlflow", "scipy.stats", "transformers.modeling_utils"},
}  # fmt: skip


@pytest.mark.parametrize("modules", LIGHT)
def test_what_needs_no_heavy_tool_loads_none(modules: str) -> None:
    """A run with nothing to do is to end in seconds, and the stages are processes of their own."""
    script = f"import sys, {', '.join(modules.split())}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=True)
    assert LIGHT[modules] & set(done.stdout.split()) == set()
