"""The Dockerfile, held to what is known without Docker: its paths are there, nothing is missing, its commands parse."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache

import pytest

from tests.docs.pages import ROOT, blocks_of
from tests.docs.test_commands import parse_reft


@dataclass(frozen=True)
class Instruction:
    """A line of the file, continuations joined."""

    target: str
    name: str
    words: str


@cache
def instructions() -> tuple[Instruction, ...]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")).replace("\\\n", " ")
    found, target = [], ""
    for line in filter(str.strip, lines.splitlines()):
        name, _, words = line.partition(" ")
        if name == "FROM":
            target = words.split(" AS ")[1]
        found.append(Instruction(target, name, words))
    return tuple(found)


def copied() -> set[str]:
    """What comes from the clone."""
    copies = (one.words.split()[:-1] for one in instructions() if one.name == "COPY" and "--from" not in one.words)
    return {source for sources in copies for source in sources}


def test_every_instruction_is_one() -> None:
    assert {one.name for one in instructions()} == {
        "FROM", "WORKDIR", "COPY", "ARG", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD",
    }  # fmt: skip
    targets = [one.words for one in instructions() if one.name == "FROM"]
    assert targets == ["python:3.11-slim AS build", "python:3.11-slim AS run", "run AS serve"]


def test_what_it_copies_is_in_git_and_goes_to_the_builder() -> None:
    tracked = subprocess.run(["git", "ls-files", "--", *copied()], cwd=ROOT, capture_output=True, text=True, check=True)
    files = tracked.stdout.split()
    assert [path for path in copied() if not any(f"{file}/".startswith(f"{path}/") for file in files)] == []
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied()


def test_it_copies_all_that_the_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    files = re.search(r"^FILES = \((.*?)\)", (ROOT / "setup.py").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert files is not None
    needed = {"pyproject.toml", "setup.py", "constraints.txt", project["project"]["readme"]}
    needed |= set(project["project"]["license-files"]) | set(re.findall(r'"([^"]+)"', files[1]))
    needed |= {name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert needed <= copied()


@pytest.mark.parametrize("target", ["run", "serve"])
def test_its_commands_are_commands(target: str) -> None:
    (command,) = (json.loads(one.words) for one in instructions() if (one.target, one.name) == (target, "CMD"))
    assert command[0] == "reft"
    parse_reft(command[1:])
    port = {one.words for one in instructions() if one.name == "EXPOSE"}
    assert target == "run" or port == {command[command.index("--port") + 1]}


def test_the_page_builds_these_targets_for_this_release() -> None:
    page = ROOT / "docs" / "containers.md"
    text = "".join(block.text for block in blocks_of(page))
    targets = {one.target for one in instructions()} - {"build"}
    assert set(re.findall(r"--target (\S+)", text)) == targets
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert set(re.findall(r"reft-\w+:([\d.]+)", text)) == {version}
    mounted = {path for path in re.findall(r":(/\w+)", text) if path in ("/project", "/store")}
    made = next(one.words for one in instructions() if one.target == "run" and one.name == "RUN")
    assert all(path in made for path in mounted)
