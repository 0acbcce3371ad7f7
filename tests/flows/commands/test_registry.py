"""``reft registry``, ``lineage``, ``verify`` and ``rollback`` in a project with two versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app, console
from pipelines.contracts.facts import StageFiles
from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.registry.aliases import CHAMPION, PREVIOUS
from pipelines.registry.verify import folder_md5
from pipelines.stages import register
from pipelines.tracking.runs import Store, open_store
from pipelines.yaml_file import read_yaml
from tests.pipelines.finished import PROJECT, finish_stages, make_params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2 is champion, version 1 was before, and dvc.lock is of version 1."""
    folder = tmp_path_factory.mktemp("registry")
    root = folder / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder / "home"))
        for seed in (0, 1):
            paths = finish_stages(root, seed=seed)
            if seed == 0:
                _write_lock(root, paths["adapter"], paths["base"])
            register.run(make_params(), root=root, files=StageFiles(**paths), out=root / "registration.json")
    shutil.copy(PROJECT / "dvc.yaml", root)
    (root / "params.yaml").write_text(yaml.safe_dump(make_params().model_dump(by_alias=True)), encoding="utf-8")
    return root


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project in git, with its dvc.lock not yet committed."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    git(project, "init", "-q")
    git(project, "add", "dvc.yaml", "params.yaml")
    git(project, "commit", "-qm", "A project")
    yield project
    shutil.rmtree(project / ".git")


def _write_lock(root: Path, adapter: Path, base: Path) -> None:
    """A dvc.lock as DVC writes it, with its own hashes of these files."""
    scratch = root.parent / "dvc"
    shutil.copytree(adapter, scratch / "models" / "adapter")
    shutil.copy(base, scratch / "models" / "base.json")
    program = Path(sys.executable).parent / "dvc"
    env = os.environ | {"DVC_NO_ANALYTICS": "1"}
    for words in (["init", "--no-scm", "-q"], ["add", "-q", "models/adapter", "models/base.json"]):
        subprocess.run([program, *words], cwd=scratch, check=True, env=env)
    outs = {name: read_yaml(scratch / f"models/{name}.dvc")["outs"][0]["md5"] for name in ("adapter", "base.json")}
    stages = {
        "train": {
            "cmd": "python -m pipelines train",
            "outs": [{"path": f"models/{name}", "hash": "md5", "md5": md5} for name, md5 in outs.items()],
        }
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}), encoding="utf-8")


@pytest.fixture
def store(project: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("REFT_HOME", str(project.parent / "home"))
    monkeypatch.setattr(console, "width", 250)  # COLUMNS is read when it is made
    found = open_store(make_params().tracking, project)
    found.client.set_registered_model_alias("tiny", CHAMPION, "2")
    found.client.set_registered_model_alias("tiny", PREVIOUS, "1")
    return found


def reft(project: Path, *words: str) -> Result:
    done = CliRunner().invoke(app, [*words, "-p", str(project)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_versions_are_listed_with_what_is_live(project: Path, store: Store) -> None:
    done = reft(project, "registry")
    assert done.exit_code == 0
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line[:1] == "│"}
    assert CHAMPION in lines["2"]
    assert PREVIOUS in lines["1"]
    assert "80.0 %" in lines["1"]
    assert "+30.0 points" in lines["1"]


def test_a_champion_without_its_files_is_said_loudly(
    project: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.registry.promote.holds", lambda *_: False)
    done = reft(project, "registry")
    assert (done.exit_code, "`reft rollback` makes the champion before it live again" in done.stdout) == (1, True)


def test_lineage_is_told_by_names(project: Path, store: Store) -> None:
    said = reft(project, "lineage", "1").stdout
    assert store.client.get_model_version("tiny", "1").tags["reft.adapter_sha256"] in said
    assert "file:models/own/tiny" in said


def test_a_version_is_verified_by_registry_base_and_dvc(project: Path, store: Store) -> None:
    done = reft(project, "verify", "1")
    states = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in done.stdout.splitlines() if "│" in line
    }
    assert done.exit_code == 0
    assert states == {
        "adapter in the registry": "right", "base that the version names": "right", "base in the store": "right",
        "commit in git": "unknown", "dvc.lock": "right", "adapter in dvc.lock": "right", "base in dvc.lock": "right",
    }  # fmt: skip


def test_a_version_whose_files_are_others_is_wrong(project: Path, store: Store, tmp_path: Path) -> None:
    from mlflow.utils.file_utils import local_file_uri_to_path

    folder = Path(local_file_uri_to_path(store.client.get_model_version_download_uri("tiny", "2")))
    file = folder / "artifacts" / "adapter" / "adapter.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        done = reft(project, "verify", "2")
        assert (done.exit_code, "must be the one that was registered" in " ".join(done.stdout.split())) == (1, True)
    finally:
        file.write_bytes(kept)


def test_a_lock_that_is_kept_nowhere_says_so(project: Path, store: Store) -> None:
    """Version 2 was made by the same dvc.lock in this project; one of other contents is nobody's."""
    kept = store.client.get_model_version("tiny", "2").tags["dvc.lock_sha256"]
    store.client.set_model_version_tag("tiny", "2", "dvc.lock_sha256", sha256_json("other"))
    assert "in no commit, nor here" in reft(project, "verify", "2").stdout
    store.client.set_model_version_tag("tiny", "2", "dvc.lock_sha256", kept)


def test_a_folder_is_called_as_dvc_calls_it(project: Path, store: Store) -> None:
    lock = read_yaml(project / "dvc.lock")
    assert folder_md5(project / "stages-0" / "adapter") == lock["stages"]["train"]["outs"][0]["md5"]


def test_a_tag_stands_at_the_commit_whose_lock_made_the_version(repository: Path, store: Store) -> None:
    with pytest.raises(PipelineError, match=r"version 2. Got: no such commit. git add dvc.lock"):
        reft(repository, "promote", "2", "--tag")
    git(repository, "add", "dvc.lock")
    git(repository, "commit", "-qm", "Its lock")
    made = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "-qm", "Something else", "--allow-empty")
    for _ in range(2):  # the second finds it there
        assert "git push origin adapter@v2.0.0" in reft(repository, "promote", "2", "--tag").stdout
        assert git(repository, "rev-parse", "adapter@v2.0.0^{commit}") == made
    git(repository, "rm", "-q", "--cached", "dvc.lock")
    git(repository, "commit", "-qm", "No lock")
    git(repository, "tag", "-f", "adapter@v2.0.0", "HEAD")
    with pytest.raises(PipelineError, match=r"git tag -d adapter@v2\.0\.0"):
        reft(repository, "promote", "2", "--tag")


@pytest.mark.long
def test_dvc_gets_the_adapter_of_a_tag_from_a_clone(repository: Path, store: Store, tmp_path: Path) -> None:
    env = os.environ | {"DVC_NO_ANALYTICS": "1"}

    def dvc(root: Path, *words: str) -> None:
        subprocess.run([Path(sys.executable).parent / "dvc", *words], cwd=root, check=True, env=env)

    dvc(repository, "init", "-q")
    shutil.copytree(repository.parent / "dvc" / ".dvc" / "cache", repository / ".dvc" / "cache")
    dvc(repository, "remote", "add", "--default", "store", str(tmp_path / "store"))
    shutil.copytree(repository / "stages-0" / "adapter", repository / "models" / "adapter")
    git(repository, "add", ".dvc", "dvc.lock")
    git(repository, "commit", "-qm", "Its lock")
    assert reft(repository, "promote", "2", "--tag").exit_code == 0
    dvc(repository, "push", "-q", "models/adapter")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    dvc(tmp_path, "artifacts", "get", str(clone), "adapter", "--rev", "v2.0.0", "--out", "got")
    assert folder_md5(tmp_path / "got") == folder_md5(repository / "stages-0" / "adapter")


def test_rollback_makes_the_previous_champion_live(project: Path, store: Store) -> None:
    done = reft(project, "rollback", "--reason", "a test")
    assert "version 1 of tiny is champion again; version 2 was, and is out of use" in done.stdout
    aliases = store.client.get_registered_model("tiny").aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {CHAMPION: "1"}
    assert "out of use since" in reft(project, "registry").stdout
    store.client.delete_model_version_tag("tiny", "2", "reft.withdrawn")
