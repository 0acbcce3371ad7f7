"""``reft data add`` in a real project folder, with DVC."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from flows.commands.data import changed_params, inspect_file, question, take_in, write_params
from flows.runs.dvc import read
from pipelines.errors import PipelineError
from pipelines.intake.labels import Usable
from pipelines.intake.layout import Layout
from pipelines.intake.proposal import Example, Proposal
from pipelines.params.whole import load_params
from pipelines.runtime.process import BusyError, locked
from pipelines.sources.raw_row import RawRow
from reft.files import put_in_place
from tests.project import Project, environment, review_rows
from tests.tiny import write_tiny_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    home = tmp_path_factory.mktemp("home")
    project = Project(tmp_path_factory.mktemp("made") / "project", environment(home))
    project.root.parent.mkdir(exist_ok=True)
    Project(project.root.parent, project.env).run("reft", "init", "project")
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    shutil.copytree(made.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", made.env)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in review_rows()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def add(project: Project, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return project.run("reft", "data", "add", *map(str, arguments), check=check)


def params_text(project: Project) -> str:
    return (project.root / "params.yaml").read_text(encoding="utf-8")


def test_without_a_terminal_it_shows_and_says_how(project: Project, rows: Path) -> None:
    before = params_text(project)
    said = add(project, rows).stdout
    assert 'source: "file:data/own/rows.jsonl"' in said
    assert "The film is good" in said
    assert "The model would read\n  | Text: The film" in said
    assert said.index("Of 200 rows, 200 are usable") < said.index("params.yaml would say")
    assert "--yes" in said
    assert params_text(project) == before
    assert (project.root / "data/own/rows.jsonl").read_bytes() == rows.read_bytes()
    tracked = yaml.safe_load((project.root / "data/own/rows.jsonl.dvc").read_text(encoding="utf-8"))
    assert tracked["outs"][0]["path"] == "rows.jsonl"


def test_how_many_rows_are_lost_and_why_is_told() -> None:
    rows = [RawRow("f", number, {}) for number in range(40)]
    example, usable = Example("p", (" a", " b"), " a"), Usable(37, {"have no text": 2, "have no label": 1})
    said = question(Proposal(Layout("jsonl", None, quoting=True), rows, {}, example, usable, ()))
    assert "Of 40 rows, 37 are usable; 2 have no text; 1 have no label" in said.splitlines()


def test_of_a_free_answer_the_prompt_and_the_reference_are_shown() -> None:
    example = Example("Question: why?\nAnswer:", (), " because")
    said = question(Proposal(Layout("jsonl", None, quoting=True), [], {}, example, Usable(0, {}), ())).splitlines()
    shown = ["The model would read", "  | Question: why?", "  | Answer:", "and learn to answer ' because'"]
    assert said[:4] == shown


def test_it_changes_nothing_while_a_run_works_here(project: Project, rows: Path) -> None:
    before = params_text(project)
    with locked(project.root, "run", wait_seconds=0):
        done = add(project, rows, "--yes", check=False)
        with pytest.raises(BusyError):
            write_params(project.root, "")
    assert done.returncode == 2
    assert "only one run at a time" in done.stderr
    assert params_text(project) == before
    assert not (project.root / "data/own/rows.jsonl").exists()


def test_with_yes_it_writes_what_it_showed(project: Project, rows: Path) -> None:
    comments = params_text(project).count("#")
    said = add(project, rows, "--yes", "--name", "reviews.jsonl").stdout
    section = load_params(project.root / "params.yaml").prepare
    assert section.source == "file:data/own/reviews.jsonl"
    assert (section.format, section.template, list(section.labels)) == (
        "jsonl",
        "Text: {text}\nLabel:",
        ["bad", "good"],
    )
    assert section.train_rows + section.validation_rows + section.test_rows <= 190
    assert params_text(project).count("#") == comments - 1  # the one of the default source's address is not a comment
    shown = said.partition("would say:\n\n")[2].partition("\n\n")[0]
    assert shown in params_text(project)


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False)])
def test_a_person_is_asked(project: Project, rows: Path, answer: str, written: bool) -> None:
    before = params_text(project)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "data", "add", str(rows)],
        cwd=project.root, env=project.env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.write(ours, f"{answer}\n".encode())
    said, told = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, told
    assert b"Write this into params.yaml?" in said + told
    assert (params_text(project) != before) == written


@pytest.mark.long
def test_other_content_of_that_name_is_kept_unless_forced(project: Project, rows: Path, tmp_path: Path) -> None:
    add(project, rows, "--yes")
    mine = params_text(project).replace('"Text: {text}', '"A text of mine: {text}')
    (project.root / "params.yaml").write_text(mine, encoding="utf-8")
    add(project, rows)  # the same content: nothing to do
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text(encoding="utf-8").upper().replace("TEXT", "text").replace("LABEL", "label"))
    done = add(project, other, "--name", "rows.jsonl", check=False)
    assert done.returncode == 2
    assert "must not be lost" in done.stderr
    assert (project.root / "data/own/rows.jsonl").read_bytes() == rows.read_bytes()
    add(project, other, "--name", "rows.jsonl", "--force", "--yes")
    assert (project.root / "data/own/rows.jsonl").read_bytes() == other.read_bytes()
    assert params_text(project) == mine  # params.yaml names the file already; what is written there is the user's


def test_a_test_file_goes_beside_the_training_file(project: Project, rows: Path, tmp_path: Path) -> None:
    add(project, rows, "--yes")
    test = tmp_path / "test.jsonl"
    test.write_text("".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[:40]), encoding="utf-8")
    add(project, test, "--split", "test", "--yes")
    section = load_params(project.root / "params.yaml").prepare
    assert (section.source, section.test_source) == ("file:data/own/rows.jsonl", "file:data/own/test.jsonl")
    assert section.test_rows <= 40


def left(project: Project) -> list[str]:
    """What stands in data/own, and what git would add of it."""
    status = project.run("git", "status", "--porcelain", "--untracked-files=all", "data", "params.yaml").stdout
    return [*sorted(path.name for path in (project.root / "data/own").iterdir()), *status.splitlines()]


def test_a_refused_file_leaves_nothing_behind_and_can_be_taken_in_alone(project: Project, tmp_path: Path) -> None:
    before, own = params_text(project), left(project)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(30)), encoding="utf-8")
    done = add(project, texts, "--yes", check=False)
    assert done.returncode == 2
    assert "one column must be a label" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(project) == own
    assert "is yours to write" in add(project, texts, "--no-params").stdout
    assert (project.root / "data/own/texts.jsonl.dvc").is_file()
    assert params_text(project) == before


def test_a_doubt_is_shown_and_yes_is_refused(project: Project, tmp_path: Path) -> None:
    own = left(project)
    doubtful = tmp_path / "rows.csv"
    lines = [f"It was film number {n},{('Good', 'good', 'bad')[n % 3]}" for n in range(60)]
    doubtful.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    done = add(project, doubtful, "--yes", check=False)
    assert done.returncode == 2
    assert "--yes writes what is beyond doubt" in done.stderr
    assert "In doubt: labels that differ in case or spacing alone: ['Good', 'good']" in done.stdout
    assert "and answer with one of 3: ' Good' (right), ' bad', ' good'" in done.stdout
    assert "Of 60 rows, 60 are usable" in done.stdout
    assert left(project) == own


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv"], "must exist"),
        (["{rows}", "--name", "../out.csv"], "a name is letters"),
        (["{rows}", "--name", "README.md"], "a name is letters"),
        (["{folder}"], "a folder to add is a transformers model"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(project: Project, rows: Path, arguments: list[str], said: str) -> None:
    places = {"rows": rows, "folder": rows.parent}
    done = add(project, *(word.format_map(places) for word in arguments), check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert sorted(path.name for path in (project.root / "data/own").iterdir()) == ["README.md"]


def cached(project: Project, cache: Path | None = None) -> set[Path]:
    """The files of DVC's cache."""
    return {path for path in (cache or project.root / ".dvc" / "cache").rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["link out", "link out in own", "pipe", "device", "folder of links"])
def test_what_is_no_plain_file_of_its_folder_is_refused_and_leaves_nothing(
    project: Project, rows: Path, tmp_path: Path, kind: str
) -> None:
    folder, before = tmp_path / "archive", cached(project)
    path = (project.root / "data" / "own" if kind == "link out in own" else folder) / rows.name
    folder.mkdir()
    if kind.startswith("link out"):
        path.symlink_to(rows)
        said = f"{path}, a link to {rows}"
    elif kind == "pipe":
        os.mkfifo(path)
        said = "a pipe or a device"
    elif kind == "device":
        path, said = Path("/dev/zero"), "a pipe or a device"
    else:
        path = write_tiny_base(folder / "model")
        (path / "config.json").rename(tmp_path / "config.json")
        (path / "config.json").symlink_to(tmp_path / "config.json")
        said = "a link may lead to what stands in its own folder alone"
    own = left(project)
    with pytest.raises(PipelineError, match=re.escape(said)):
        inspect_file(project.root, path, name=None, split="train", alone=True)
    assert (left(project), cached(project)) == (own, before)


def test_where_a_link_within_its_folder_leads_is_said(project: Project, rows: Path) -> None:
    link = rows.with_name("latest.jsonl")
    link.symlink_to(rows.name)
    found = inspect_file(project.root, link, name=None, split="train", alone=True)
    assert (found.linked, found.own) == (rows.resolve(), "data/own/rows.jsonl")


@contextmanager
def refusing(others: Path) -> Iterator[None]:
    """DVC cannot write its note, after its cache has the content; another process of DVC fetches something meanwhile.

    Args:
        others: what that fetches.
    """

    def refuse(root: Path, arguments: list[str]) -> str:
        said = read(root, arguments)
        if arguments[0] != "add":
            return said
        others.parent.mkdir(parents=True, exist_ok=True)
        others.write_bytes(b"of others")
        raise PipelineError("dvc add must succeed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.runs.dvc.read", refuse)
        with pytest.raises(PipelineError, match="dvc add must succeed"):
            yield
    assert others.read_bytes() == b"of others"
    others.unlink()


def test_what_dvc_refuses_leaves_what_was_there(project: Project, rows: Path, tmp_path: Path) -> None:
    take_in(project.root, inspect_file(project.root, rows, name=None, split="train", alone=True), force=False)
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text(encoding="utf-8") * 2, encoding="utf-8")
    own, before = left(project), cached(project)
    addition = inspect_file(project.root, other, name="rows.jsonl", split="train", alone=True)
    with refusing(project.root / ".dvc/cache/files/md5/ab/cdef0123456789"):
        take_in(project.root, addition, force=True)
    assert (project.root / "data/own/rows.jsonl").read_bytes() == rows.read_bytes()
    assert (left(project), cached(project)) == (own, before)
    assert project.run("dvc", "status", "data/own/rows.jsonl.dvc").stdout.strip().endswith("up to date.")


def test_what_dvc_refuses_leaves_nothing_in_a_cache_that_projects_share(
    project: Project, rows: Path, tmp_path: Path
) -> None:
    """There files are links to what the cache has, also one that stood in its place before."""
    cache, content = tmp_path / "shared", rows.read_bytes()
    settings = project.root / ".dvc" / "config.local"
    with settings.open("a", encoding="utf-8") as file:
        file.write(f"[cache]\n    dir = {cache}\n    type = symlink\n")
    inside = project.root / "data" / "own" / "inside.jsonl"
    inside.write_bytes(content + content)
    own = left(project)
    for path in (rows, inside):
        addition = inspect_file(project.root, path, name=None, split="train", alone=True)
        with refusing(cache / "files/md5/ab/cdef0123456789"):
            take_in(project.root, addition, force=False)
        assert (left(project), cached(project, cache)) == (own, set())
    assert not inside.is_symlink()
    assert inside.read_bytes() == content + content


def test_a_model_folder_becomes_the_base(project: Project, tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "My-model")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    add(project, folder, "--yes")
    assert load_params(project.root / "params.yaml").base.source == "file:models/own/My-model"
    taken = {path.name for path in (project.root / "models/own/My-model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= taken
    assert not {"pytorch_model.bin", "modeling.py"} & taken
    add(project, folder)  # again: the same content


def test_a_model_that_is_being_replaced_is_there_again_after_ctrl_c(project: Project, tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "model")
    addition = inspect_file(project.root, folder, name="kept", split="train", alone=True)
    take_in(project.root, addition, force=False)
    (folder / "config.json").write_text((folder / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
    before = (project.root / addition.own / "config.json").read_bytes()

    def stopped(new: Path, target: Path) -> None:
        if new.name != "old":
            raise KeyboardInterrupt
        put_in_place(new, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.commands.data.put_in_place", stopped)
        with pytest.raises(KeyboardInterrupt):
            take_in(project.root, addition, force=True)
    assert (project.root / addition.own / "config.json").read_bytes() == before


def test_a_folder_of_files_becomes_rows_that_grow(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for place, part in enumerate((review_rows()[:150], review_rows()[150:])):
        lines = [json.dumps({"text": text, "label": label}) for text, label in part]
        (folder / f"{place}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    addition = inspect_file(project.root, folder, name=None, split="train")
    assert (addition.own, addition.proposal is not None) == ("data/own/reviews", True)
    take_in(project.root, addition, force=False)
    assert sorted(path.name for path in (project.root / addition.own).iterdir()) == ["0.jsonl", "1.jsonl"]
    assert (project.root / "data/own/reviews.dvc").is_file()
    assert addition.changes is not None
    write_params(project.root, changed_params(project.root, addition.changes)[0])
    prepare = load_params(project.root / "params.yaml").prepare
    assert (prepare.source, prepare.format) == ("file:data/own/reviews", "jsonl")
    assert prepare.growing is not None
    assert prepare.growing.model_dump() == {"validation": 0.2, "test": 0.2}
    # The first file has 150 rows: a tenth of them is the least of a test split that a share of 0.2 is drawn for.
    assert (prepare.train_rows, prepare.validation_rows, prepare.test_rows) == (60, 15, 15)
    test = inspect_file(project.root, folder / "1.jsonl", name="test.jsonl", split="test")
    assert test.changes is not None
    assert test.changes["prepare"]["growing"] == {"validation": 0.2, "test": None}


def test_a_folder_of_two_kinds_of_files_is_refused(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "0.jsonl").write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    (folder / "1.csv").write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"files of one format alone.*reviews/1.csv, a file of csv"):
        inspect_file(project.root, folder, name=None, split="train")
    assert not (project.root / "data/own/reviews").exists()
