"""The command line: what it says to a newcomer, and to somebody's mistake. Every command of the README is one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from flows.cli import app

USAGE_ERROR = typer.BadParameter.__mro__[1]  # what typer raises for words that it cannot read; not exported
ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:reft|dvc|make|mlflow|prefect) [^`]+)`", README)
    return sorted({line.split("   #")[0].split("  #")[0].strip() for line in [*lines, *inline] if line.strip()})


def reft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=cwd, text=True, capture_output=True, check=False
    )


def parse(words: list[str], *, mentioned: bool = False) -> None:
    """Have typer read a command of `reft` with all its words, and run none of it; a mention may be its name alone."""
    command = typer.main.get_command(app)
    name = "reft"
    while hasattr(command, "commands"):
        assert words, f"{name} needs a command"
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
        if not words and mentioned:
            return
    command.make_context(name, words)


@pytest.mark.parametrize("words", ["run --dryrun", "runs", "data", "data add", "clean --bases all", "run --project"])
def test_what_is_no_command_does_not_parse(words: str) -> None:
    with pytest.raises((USAGE_ERROR, AssertionError)):
        parse(words.split())


def test_the_readme_has_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    while "=" in words[0]:  # settings before the command
        words = words[1:]
    program, rest = words[0], words[1:]
    if program == "make":
        assert set(rest) <= MAKE_TARGETS
    elif program == "reft":
        parse(rest, mentioned=f"`{command}`" in README)
    elif program == "dvc":
        from dvc.cli import parse_args

        assert parse_args(rest).func
    elif program == "mlflow":
        from mlflow.cli import cli

        context = cli.make_context("mlflow", list(rest), resilient_parsing=True)
        found = cli.get_command(context, rest[0])  # `ui` is another name of `server`
        assert found is not None
        if hasattr(found, "commands") and len(rest) > 1 and not rest[1].startswith("-"):
            found, rest = found.commands[rest[1]], rest[1:]
        found.make_context(rest[0], list(rest[1:]))
    elif program == "prefect":
        from prefect import cli as prefect_cli

        subcommand = [word for word in rest if not word.startswith("-")][:2]
        monkeypatch.setattr(sys, "argv", ["prefect", *subcommand, "--help"])
        with pytest.raises(SystemExit) as ended:  # here, since Prefect takes longer to import than to answer
            prefect_cli.app()
        assert ended.value.code == 0
    else:
        assert program in {"curl", ".", "git", "pip", "export", "cd", "python"}


def test_the_yaml_of_the_readme_is_params() -> None:
    from pipelines.params.whole import check_params

    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for block in blocks("yaml"):
        for section, values in yaml.safe_load(block).items():
            raw[section] |= values
        check_params(raw, "README.md")


def test_the_python_of_the_readme_compiles() -> None:
    assert blocks("python")
    for block in blocks("python"):
        compile(block, "README.md", "exec")


def file_map() -> list[str]:
    rows = re.findall(r"^\| (`[^|]+) \|", README.split("## Where things are")[1], re.MULTILINE)
    return [path for row in rows for path in re.findall(r"`([^`]+)`", row)]


def test_each_path_of_the_file_map_exists() -> None:
    assert len(file_map()) > 15
    for path in file_map():
        assert path == ".reft/" or path == "metrics/" or (ROOT / path).exists(), path


def test_each_module_is_in_the_file_map_once() -> None:
    modules = [path for room in ("reft", "pipelines", "flows", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in modules if path.name != "__init__.py"]
    assert sorted(names) == sorted(path for path in file_map() if path.endswith(".py"))


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(app, ["--help"]).output
    for name in ("run", "search", "setup", "schedule", "doctor", "clean"):
        assert name in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "must hold params.yaml"),
        (["params.yaml"], "must hold dvc.yaml"),
        (["params.yaml", "dvc.yaml"], "must hold .dvc"),
    ],
)
def test_a_folder_that_is_no_project_is_refused(tmp_path: Path, files: list[str], said: str) -> None:
    for file in files:
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    done = reft("setup", "--project", str(tmp_path), cwd=ROOT)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
