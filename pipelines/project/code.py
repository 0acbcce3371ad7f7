"""The code of a project folder that holds none: which code of the installed package each stage runs, as hashes.

In a clone of this project dvc.yaml names the code files of a stage as its deps. In a folder that `reft init` made there
are none; there each stage depends on its own key of code.json, which has the hash of the files that the dvc.yaml beside
the installed package names. So another version of the package makes the same stages stale as a change of a clone does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.errors import PipelineError
from pipelines.files import canonical_json, read_json, sha256_file, sha256_json, write_json
from pipelines.project.graph import read_graph
from pipelines.roundtrip import dump_document, load_document
from pipelines.yaml_file import parse_yaml

CODE = "code.json"
FREE = ("desc", "meta")  # of a stage, what is the user's to change
ROOMS = ("pipelines", "reft")  # the packages whose files are deps of stages
PACKAGE = Path(__file__).parents[2]  # where the rooms lie
# Where params.yaml, dvc.yaml and their like lie: at the top of a clone, and in a wheel where its build copied them.
SHIPPED = (PACKAGE, Path(__file__).parent / "shipped")


def is_code(dep: str) -> bool:
    """Whether a dep of a stage is code of the package."""
    return Path(dep).parts[0] in ROOMS


def holds_no_code(root: Path) -> bool:
    """Whether the project's stages depend on code.json and not on code in the folder."""
    if not (root / "dvc.yaml").is_file():
        return False
    return any(CODE in stage.params_files for stage in read_graph(root).stages)


def shipped(name: str) -> Path:
    """Return a file that comes with the package: params.yaml, dvc.yaml and their like.

    Raises:
        PipelineError: if the package was installed without them.
    """
    folder = next((folder for folder in SHIPPED if (folder / "dvc.yaml").is_file()), None)
    if folder is None or not (folder / name).is_file():
        raise PipelineError(
            f"{name} must come with the installed package",
            got=f"none in {' or '.join(map(str, SHIPPED))}",
            do="Install the wheel of a release, or a clone: pip install --editable CLONE.",
        )
    return folder / name


def installed_code() -> dict[str, str]:
    """Return, by stage, the SHA-256 of the code that the installed package runs for it."""
    graph = read_graph(shipped("dvc.yaml").parent)
    hashes = {dep: _digest(PACKAGE / dep) for stage in graph.stages for dep in _code(stage.deps)}
    return {stage.name: sha256_json({dep: hashes[dep] for dep in _code(stage.deps)}) for stage in graph.stages}


def code_sha256(paths: Iterable[str]) -> str:
    """Return the SHA-256 of files and folders of the installed package, for work in progress that is of no stage."""
    return sha256_json({path: _digest(PACKAGE / path) for path in sorted(paths)})


def refresh_code(root: Path) -> bool:
    """Write code.json anew if the project holds no code and the installed package is another; whether it did.

    Raises:
        PipelineError: if the installed package has other stages than the project's dvc.yaml.
    """
    if not holds_no_code(root):
        return False
    check_graph(root)
    code, path = installed_code(), root / CODE
    if _recorded(path) == code:
        return False
    write_json(path, code)
    return True


def check_graph(root: Path) -> None:
    """Refuse a folder without code whose dvc.yaml is that of another release: a key that is new would change nothing.

    The user's own are the paths in ``vars``, the plots, and the descriptions of stages.

    Raises:
        PipelineError: with the stages that differ.
    """
    if not holds_no_code(root):
        return
    here, expected = _stages((root / "dvc.yaml").read_text(encoding="utf-8")), _stages(project_graph())
    changed = [
        f"{name} ({', '.join(keys)})"
        for name in sorted(here.keys() | expected.keys())
        if (keys := _unlike(here.get(name, {}), expected.get(name, {})))
    ]
    if changed:
        raise PipelineError(
            "dvc.yaml must have the stages of the installed release, but for its paths, plots and descriptions",
            got=f"other {'; '.join(changed)}",
            do="Run: reft upgrade",
        )


def _recorded(path: Path) -> dict[str, object]:
    """What code.json says; nothing, if it is not there or damaged: then it is written anew."""
    try:
        return dict(read_json(path))
    except (PipelineError, TypeError, ValueError):
        return {}


def _unlike(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def check_code(root: Path, stage: str) -> None:
    """Refuse to run a stage whose code, as code.json has it, is not what is installed: DVC would not see the change.

    Raises:
        PipelineError: with what to do.
    """
    if not holds_no_code(root):
        return
    check_graph(root)
    path = root / CODE
    recorded = _recorded(path).get(stage)
    installed = installed_code().get(stage)
    if recorded != installed:
        raise PipelineError(
            f"{CODE} must name the installed code of the stage",
            got=f"{str(recorded)[:12]}, and {str(installed)[:12]} is installed",
            do="Run `reft setup`, which writes it anew, then again.",
        )


def project_graph() -> str:
    """Return the text of dvc.yaml for a project folder without code: the shipped one, with code.json for the code."""
    return without_code(shipped("dvc.yaml").read_text(encoding="utf-8"))


def without_code(text: str) -> str:
    """Return a dvc.yaml whose stages depend on code.json in the place of code."""
    document = load_document(text)
    for name, stage in document["stages"].items():
        stage["deps"] = type(stage["deps"])(dep for dep in stage["deps"] if not is_code(dep))
        stage["params"].append({CODE: [name]})
    return dump_document(document)


def _code(deps: Iterable[str]) -> list[str]:
    return sorted(dep for dep in deps if is_code(dep))


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256_file(path)
    return sha256_json({file.relative_to(path).as_posix(): sha256_file(file) for file in _files(path)})


def _files(folder: Path) -> list[Path]:
    """What is in a folder of code, data beside it too, but for what .dvcignore of a clone leaves out of its hash."""
    library = PACKAGE / "pipelines" / "tasks" / "library"
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return [path for path in files if "__pycache__" not in path.parts and library not in path.parents]


def _stages(text: str) -> dict[str, dict[str, object]]:
    """Of each stage, all that decides what DVC runs and when: deps, params and outs in any order."""
    raw: Any = parse_yaml(text, "dvc.yaml")
    return {
        name: {
            key: sorted(map(canonical_json, value)) if isinstance(value, list) else value
            for key, value in entry.items()
            if key not in FREE
        }
        for name, entry in raw["stages"].items()
    }
