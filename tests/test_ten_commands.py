"""The ten commands of docs/promotion.md, as they stand there: from a first run to a rollback, in one shell."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of
from tests.project import Project, make_tiny_project
from tests.servers import free_port, kill

pytestmark = [pytest.mark.slow, pytest.mark.long]

NOUNS = ["film", "plot", "cast", "song", "scene", "hero", "end", "start", "joke", "light"]
WORDS = {"a film": "good", "so so": "bad"}


def ten_commands() -> list[str]:
    """The commands of the page, without their comments."""
    (block,) = (one for one in blocks_of(ROOT / "docs" / "promotion.md") if one.text.startswith("make run"))
    lines = [re.split(r"\s+# ", line)[0] for line in block.text.replace("\\\n", " ").splitlines()]
    assert len(lines) == 10
    return lines


@pytest.fixture
def clone(tmp_path: Path) -> Project:
    """A clone after `make setup`: its .venv is the one that runs the tests.

    A row's label is told by its last words, which edits of the prompt's last tokens can read in a random model too; it
    answers half of the rows rightly by itself.
    """
    keys = {"prepare.template": "Review: {text}", "search.trials": 1, "train.epochs": 6}
    project = make_tiny_project(tmp_path / "project", tmp_path / "home", keys)
    with (project.root / "data" / "own" / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for (one, other), (words, label) in itertools.product(itertools.permutations(NOUNS, 2), WORDS.items()):
            table.writerow([f"The {one} and the {other}: {words}", label])
    project.run("dvc", "add", "data/own/reviews.csv")
    project.run("git", "commit", "--quiet", "--all", "--message", "Other rows")
    (project.root / ".venv").mkdir()
    (project.root / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (project.root / ".venv" / ".ready").touch()
    return project


def test_they_lead_from_a_first_run_to_a_rollback(clone: Project, tmp_path: Path) -> None:
    port = str(free_port())
    shell = [
        f"echo; echo '=== {number}'; {command}".replace("8000", port)
        for number, command in enumerate(ten_commands(), start=1)
    ]
    serving = next(place for place, command in enumerate(shell) if "reft serve" in command)
    shell[serving] += f" > {tmp_path}/server.log 2>&1 & server=$!; trap 'kill $server' EXIT"  # the page's other shell
    said = run_shell(clone, shell, tmp_path / "shell.log")
    assert list(said) == [str(number) for number in range(1, 11)]
    assert "version 1" in said["1"]
    assert "version 2" in said["4"]
    listed = {line.split()[1]: line for line in said["5"].splitlines() if line[:1] == "│"}
    assert "champion" in listed["1"]
    assert "refused" in listed["2"]
    assert "version 1" in said["9"]
    answers = [json.loads(said[number].strip().splitlines()[-1]) for number in ("8", "10")]
    assert [answer["system_fingerprint"].partition("-")[0] for answer in answers] == ["v2", "v1"]
    assert all(row["label"] in ("negative", "positive") for answer in answers for row in answer["data"])


def run_shell(project: Project, commands: list[str], log: Path) -> dict[str, str]:
    """What each command said, by its number; the first one that fails is told with all that was said."""
    with log.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", "\n".join(commands)],
            cwd=project.root, env=project.env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=2000)
        finally:
            kill(shell)
    text = log.read_text(encoding="utf-8")
    assert code == 0, text
    parts = re.split(r"^=== (\d+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))
