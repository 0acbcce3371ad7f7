"""Each command of the README and the pages is one: its program reads all of its words, and none of it is run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from flows.cli import app
from tests.docs.pages import ROOT, Command, commands, split

USAGE_ERROR = typer.BadParameter.__mro__[1]  # what typer raises for words that it cannot read; not exported
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
MAKE_SETTINGS = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE))  # which a command may give
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
NOT_OURS = {"curl", "cd", ".", "hf", "pre-commit", "sed", "sleep", "docker"}


def parse_reft(words: list[str], *, mentioned: bool = False) -> None:
    """Have typer read a command of `reft`; a mention may be its name alone, without what it needs."""
    command = typer.main.get_command(app)
    name = "reft"
    if mentioned and words in (["--help"], ["--version"]):
        return
    while hasattr(command, "commands"):
        assert words, f"{name} needs a command"
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
        if not words and mentioned:
            return
    command.make_context(name, words)


def parse_mlflow(words: list[str]) -> None:
    from mlflow.cli import cli

    context = cli.make_context("mlflow", list(words), resilient_parsing=True)
    found = cli.get_command(context, words[0])  # `ui` is another name of `server`
    assert found is not None, words[0]
    if hasattr(found, "commands") and len(words) > 1 and not words[1].startswith("-"):
        found, words = found.commands[words[1]], words[1:]
    found.make_context(words[0], list(words[1:]))


def parse_prefect(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import cli

    subcommand = [word for word in words if not word.startswith("-")][:2]
    monkeypatch.setattr(sys, "argv", ["prefect", *subcommand, "--help"])
    with pytest.raises(SystemExit) as ended:  # in this process, since Prefect takes longer to import than to answer
        cli.app()
    assert ended.value.code == 0


def parse_python(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there, or a module that is found; of a benchmark, whose help names each option."""
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words[0]
        return
    module = words[1]
    if module == "pip":
        parse_pip(words[2:])
    found = importlib.util.find_spec(module)
    assert found is not None, module
    options = {word for word in words[2:] if word.startswith("--")}
    if options and module.startswith("benchmarks."):
        main = importlib.import_module(f"{module}.__main__" if found.submodule_search_locations else module).main
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
        assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def parse_pip(words: list[str]) -> None:
    assert words[0] == "install"
    every = " ".join(words)
    assert "reft-pipeline" not in every, "no package index has it: install it from a file"
    for extras in re.findall(r"\[([\w,]+)\]", every):
        assert set(extras.split(",")) <= EXTRAS


def test_no_message_sends_people_to_an_index_for_this_project() -> None:
    files = [file for top in ("flows", "pipelines", "reft") for file in (ROOT / top).rglob("*.py")]
    assert files
    assert [file for file in files if re.search(r"install\s+'?reft-pipeline", file.read_text(encoding="utf-8"))] == []


def parse_git(words: list[str]) -> None:
    known = subprocess.run(["git", "--list-cmds=main"], capture_output=True, text=True, check=True).stdout.split()
    assert words[0] in known


@pytest.mark.parametrize("words", ["run --dryrun", "runs", "data", "data add", "clean --bases all", "run --project"])
def test_what_is_no_command_does_not_parse(words: str) -> None:
    with pytest.raises((USAGE_ERROR, AssertionError)):
        parse_reft(words.split())


def test_a_line_is_split_into_its_commands() -> None:
    line = 'A_B=c git add --all && git commit -m "own data"   # a comment'
    assert list(split(line)) == [("git", "add", "--all"), ("git", "commit", "-m", "own data")]


def test_the_pages_have_commands() -> None:
    assert {command.page for command in commands()} > {"README.md", "docs/search.md", "docs/schedule.md"}


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_a_command_of_the_pages_parses(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *words = command.words
    if program == "make":
        assert words or command.mentioned
        assert {word for word in words if "=" not in word} <= MAKE_TARGETS
        assert {word.partition("=")[0] for word in words if "=" in word} <= MAKE_SETTINGS
    elif program == "reft":
        if words or not command.mentioned:
            parse_reft(words, mentioned=command.mentioned)
    elif program == "dvc":
        from dvc.cli import parse_args

        assert not words or parse_args(words).func
    elif program in ("python", "python3.11", ".venv/bin/python"):
        parse_python(words, capsys)
    elif program == "mlflow":
        assert not words or parse_mlflow(words) is None
    elif program == "prefect":
        assert not words or parse_prefect(words, monkeypatch) is None
    elif program == "pip":
        assert not words or parse_pip(words) is None
    elif program == "git":
        assert not words or parse_git(words) is None
    else:
        assert program in NOT_OURS or (ROOT / Path(program)).exists() or program.startswith(".venv/bin/"), program
