"""dvc.yaml names all code that decides a stage's figures: the closure of its imports says so, no list of files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.__main__ import STAGES
from pipelines.align.workspace import CODE as ALIGN_CODE
from pipelines.project.graph import read_graph
from pipelines.project.keys import CELLS_CODE
from tests.arrows import ROOT, is_bare, modules, reached


@dataclass(frozen=True)
class LeftOut:
    """Code that a stage reaches and does not depend on: why, and for which stages the reason does not hold."""

    reason: str
    but_for: frozenset[str] = frozenset()


CODE = ("reft", "pipelines")
FETCHED = LeftOut(
    "fetches files; base.json and the prepared rows name by content what came of them", frozenset({"base"})
)
READ_PARAMS = LeftOut("reads and checks params.yaml; its values are params of the stage, so DVC compares them")
# Files and folders that decide no figure. Each entry is used: one that no stage reaches is taken out again.
DECIDES_NO_FIGURE = {
    "pipelines/__init__.py": LeftOut("switches off the libraries' reports of use"),
    "pipelines/errors.py": LeftOut("the words of a refusal"),
    "pipelines/contracts/reading.py": LeftOut("refuses a file that is not what a stage writes"),
    "pipelines/files.py": LeftOut("whole files and their hashes; what is in them is decided elsewhere"),
    "pipelines/markdown.py": LeftOut("how values are written into Markdown for people"),
    "pipelines/limited.py": LeftOut("a process with limits around a reader, which is named itself"),
    "pipelines/wording.py": LeftOut("how figures are written for people"),
    "pipelines/yaml_file.py": LeftOut("YAML as DVC reads it, whose values DVC compares"),
    "pipelines/roundtrip.py": LeftOut("YAML with its comments kept, for files that people edit"),
    "pipelines/sections.py": READ_PARAMS,
    "pipelines/params": READ_PARAMS,
    "pipelines/tasks/keys": READ_PARAMS,
    "pipelines/project": LeftOut("which stage, which code and which work in progress; no figure follows from a name"),
    "pipelines/reports": LeftOut("how results are shown; a search must not be stale for a label on an axis"),
    "pipelines/runtime/process.py": LeftOut("locks, signals and markers of a stage's process"),
    "pipelines/runtime/database_lock.py": LeftOut("who waits for whom"),
    "pipelines/tracking": LeftOut("what MLflow is told of a stage", but_for=frozenset({"register"})),
    "pipelines/search/fits_base.py": LeftOut(
        "refuses a space that the base has not, before work", frozenset({"search"})
    ),
    "pipelines/bases/space.py": FETCHED,
    "pipelines/bases/store.py": FETCHED,
    "pipelines/bases/intact.py": FETCHED,
    "pipelines/bases/convert.py": FETCHED,
    "pipelines/bases/foreign.py": FETCHED,
    "pipelines/sources": LeftOut(FETCHED.reason, but_for=frozenset({"base", "prepare"})),
    "reft/__init__.py": LeftOut("names of the package and where they are"),
    "reft/files.py": LeftOut("directories that appear whole or not at all"),
}
# What a stage reaches by params.yaml's sections alone, which parse all sections in every stage.
BY_PARAMS_ALONE = {
    "base": ("pipelines/recipes", "reft/edits", "reft/peers"),
    "prepare": ("pipelines/recipes", "reft/edits", "reft/peers"),
    "register": ("pipelines/recipes",),
}


def entry(stage: str) -> str:
    return f"pipelines.stages.{stage}"


def lies_under(file: Path, places: set[str]) -> bool:
    return any(file == Path(place) or Path(place) in file.parents for place in places)


def not_named(stage: str, root: Path = ROOT) -> set[str]:
    """The files that a stage reaches, but for rooms' one-line faces, under no dep of it and under no reason."""
    deps = set(read_graph(root).stage(stage).deps)
    reasons = {place for place, why in DECIDES_NO_FIGURE.items() if stage not in why.but_for}
    reasons |= set(BY_PARAMS_ALONE.get(stage, ()))
    return outside(reached(entry(stage), root), deps | reasons, root)


def outside(names: set[str], places: set[str], root: Path = ROOT) -> set[str]:
    """The files of modules, but for rooms' one-line faces, that lie under none of the places."""
    files = {modules(root)[name].relative_to(root) for name in names if not is_bare(modules(root)[name])}
    return {file.as_posix() for file in files if not lies_under(file, places)}


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_reaches_is_a_dep_or_decides_no_figure(stage: str) -> None:
    assert not_named(stage) == set()


def test_no_reason_is_given_for_what_no_stage_reaches() -> None:
    for place, why in DECIDES_NO_FIGURE.items():
        stages = set(STAGES) - why.but_for
        reaching = {s for s in stages for m in reached(entry(s)) if lies_under(modules()[m].relative_to(ROOT), {place})}
        assert reaching, place
    for stage, places in BY_PARAMS_ALONE.items():
        files = {modules()[name].relative_to(ROOT) for name in reached(entry(stage))}
        for place in places:
            assert any(lies_under(file, {place}) for file in files), (stage, place)


def test_what_a_stage_reaches_by_params_alone_it_reaches_in_no_other_way() -> None:
    """Without the sections of params.yaml and what refuses by them, none of it is reached."""
    for stage, places in BY_PARAMS_ALONE.items():
        cut = {name for name in modules() if name.startswith(("pipelines.params", "pipelines.search.fits_base"))}
        found = {modules()[name].relative_to(ROOT) for name in reached(entry(stage), without=frozenset(cut))}
        assert not {file.as_posix() for file in found if lies_under(file, set(places))}, stage


def test_cells_of_a_comparison_are_keyed_by_all_code_that_decides_them() -> None:
    stages = {dep for stage in ("train", "evaluate") for dep in read_graph(ROOT).stage(stage).deps}
    reached_by_cells = reached("pipelines.compare.contenders")
    assert outside(reached_by_cells, stages | set(CELLS_CODE) | set(DECIDES_NO_FIGURE)) == set()


def test_answers_that_are_judged_are_keyed_by_all_code_that_decides_them() -> None:
    """But for what only keeps them, and who is asked, which their key names."""
    from pipelines.judge.answers import ANSWERS_CODE  # imports torch

    beside = {"pipelines/judge/kept.py", "pipelines/judge/systems.py", *DECIDES_NO_FIGURE}
    stage = set(read_graph(ROOT).stage("evaluate").deps)
    assert outside(reached("pipelines.judge.answers"), stage | set(ANSWERS_CODE) | beside) == set()


def test_cells_of_a_causal_map_are_keyed_by_all_code_that_decides_them() -> None:
    names_and_params = {name for name in modules() if name.startswith(("pipelines.params", "pipelines.project"))}
    reached_by_cells = reached("pipelines.align.run", without=frozenset(names_and_params))
    assert outside(reached_by_cells, set(ALIGN_CODE) | set(DECIDES_NO_FIGURE)) == set()
    assert [
        place for place in ALIGN_CODE if outside(reached_by_cells, {place}) == outside(reached_by_cells, set())
    ] == []


@pytest.mark.parametrize("name", ["reports", "causal", "formats", "align", "compare", "exchange", "intake", "upkeep"])
def test_no_stage_depends_on_what_only_shows_or_converts(name: str) -> None:
    for stage in read_graph(ROOT).stages:
        assert not [dep for dep in stage.deps if name in Path(dep).parts[1:2] and Path(dep).parts[0] in CODE], (
            stage.name
        )


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the tree with a module in a new room, on which no stage depends."""
    for package in ("reft", "pipelines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "pipelines" / "novel").mkdir()
    (tmp_path / "pipelines" / "novel" / "__init__.py").write_text('"""A new room."""\n')
    (tmp_path / "pipelines" / "novel" / "luck.py").write_text("SEED = 1\n")
    return tmp_path


def plant(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "\n\ndef _lucky() -> int:\n    from pipelines.novel.luck import SEED\n\n    return SEED\n")


def test_a_planted_import_of_a_room_that_no_dep_names_is_found(planted: Path) -> None:
    plant(planted / "pipelines" / "search" / "trial.py")
    assert not_named("search", planted) == {"pipelines/novel/luck.py"}
    assert not_named("train", planted) == set()


def test_what_a_table_of_names_opens_is_followed_too(planted: Path) -> None:
    """Nobody imports a family or a method by its module; a stage that opens one runs all that it imports."""
    plant(planted / "pipelines" / "tasks" / "generation.py")
    assert not_named("evaluate", planted) == {"pipelines/novel/luck.py"}
    assert not_named("base", planted) == set()
