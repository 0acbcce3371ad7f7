"""The rooms: flows -> pipelines -> reft, in them only downwards, no circle, and each heavy tool in its own room."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.arrows import circles, imported, is_bare, modules
from tests.registered import is_forwarder

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "reft": {"pipelines", "flows", "mlflow", "optuna", "dvc", "prefect", "yaml"},
    "pipelines": {"flows", "prefect"},
    "flows": {"torch", "mlflow", "optuna", "transformers"},
}
FOREIGN_FILES = ROOT / "reft" / "formats" / "files.py"
MLFLOW_ROOMS = {"pipelines/registry", "pipelines/serving", "pipelines/tracking"}
# Bottom to top; a room imports from those before it alone. A file that lies in no room is one of its own.
ORDER = {
    "reft": (
        "files", "data", "edits/methods", "edits", "edits/formulas", "cone", "models", "batching", "training", "peers",
        "adapters", "formats", "causal", "__init__",
    ),
    "pipelines": (
        "__init__", "errors", "files", "yaml_file", "roundtrip", "sections", "wording", "markdown", "limited",
        "recipes/methods", "recipes", "sources", "runtime",
        "tasks/keys", "params", "contracts", "tracking", "bases", "project", "tasks", "model", "diagnostics",
        "serving", "judge", "registry", "server", "intake", "search", "reports", "reports/search", "upkeep", "exchange",
        "align", "stages", "evaluation", "compare", "__main__",
    ),
    "flows": ("__init__", "runs", "search", "promote", "finetune", "align", "compare", "commands", "cli"),
    "benchmarks": ("__init__", "sides", "speed", "quality", "causal", "cost", "gpu"),
}  # fmt: skip


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


def room_of(file: Path, root: Path) -> tuple[str, str]:
    """The package of a file, and the folder under it that it lies in; of a file in no folder its own name."""
    package, *inner = file.relative_to(root).with_suffix("").parts
    return package, "/".join(inner[:-1]) or inner[0]


def upwards(root: Path = ROOT) -> set[tuple[str, str]]:
    """Imports of a room that lies above the importer's, or of a room that has no place in the order; types included."""
    found = set()
    for name, file in modules(root).items():
        package, room = room_of(file, root)
        if is_forwarder(file):  # it stands where versions of an earlier release look for it, in no room
            continue
        for other in imported(name, root, for_types=True):
            theirs, their_room = room_of(modules(root)[other], root)
            order = ORDER[package]
            if theirs == package and room != their_room:
                placed = room in order and their_room in order
                if not placed or order.index(their_room) > order.index(room):
                    found.add((name, other))
    return found


def test_rooms_import_downwards_only() -> None:
    assert upwards() == set()


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room_of(file, ROOT) for file in modules().values() if not is_forwarder(file)}
    assert sorted((package, room) for package, room in rooms if room not in ORDER[package]) == []


def test_tests_lie_in_the_folders_of_the_code_that_they_test() -> None:
    folders = {file.parent.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("test_*.py")}
    of_packages = {folder for folder in folders if folder.parts and folder.parts[0] in ORDER}
    assert {folder.parts[0] for folder in of_packages} == set(ORDER)
    assert [folder.as_posix() for folder in sorted(of_packages) if not (ROOT / folder).is_dir()] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles() == []


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for package in ORDER:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    return tmp_path


def plant(root: Path, file: str, line: str) -> None:
    path = root / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n\n{line}\n", encoding="utf-8")


def test_a_planted_import_of_a_room_above_is_found(copied: Path) -> None:
    plant(copied, "pipelines/recipes/domains.py", "def _late() -> None:\n    import pipelines.search.trial")
    assert upwards(copied) == {("pipelines.recipes.domains", "pipelines.search.trial")}


def test_a_planted_circle_of_types_alone_is_found(copied: Path) -> None:
    plant(copied, "reft/edits/methods/forms.py", "if TYPE_CHECKING:\n    from reft.edits.config import ReftConfig")
    found = circles(copied)
    assert any({"reft.edits.methods.forms", "reft.edits.config"} <= circle for circle in found)


def test_a_face_of_a_room_is_one_line() -> None:
    """An eager one would load torch or optuna in processes that do without."""
    faces = [file for name, file in modules().items() if file.name == "__init__.py"]
    full = {file.parent.relative_to(ROOT).as_posix() for file in faces if not is_bare(file)}
    # The packages switch off their libraries' reports of use; reft and exchange are promised outside, and stay lazy.
    assert full <= {"flows", "pipelines", "reft", "pipelines/exchange", "reft/causal"}
    assert {"reft", "pipelines/exchange"} <= full


def test_mlflow_is_imported_in_its_rooms_only() -> None:
    users = {file for file in (ROOT / "pipelines").rglob("*.py") if "mlflow" in set(imports(file))}
    assert {file.parent.relative_to(ROOT).as_posix() for file in users} == MLFLOW_ROOMS


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
