"""The README and the pages of docs/ as their parts: blocks of code, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = "reft|dvc|make|mlflow|prefect|python|pip|git|hf"
INLINE = re.compile(rf"(?<!`)`((?:[A-Z_]+=\S+\s+)*(?:{PROGRAMS})(?:\s[^`]+)?)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: it is in.
        line: of the page.
        language: as the block says it.
        text: the code.
        file: of the repository that it shows whole; "" for none. The line before it names that, as `reft/data.py`:
    """

    page: str
    line: int
    language: str
    text: str
    file: str = ""

    @property
    def name(self) -> str:
        """What a test of it is called."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """Words of one command of a page; ``mentioned`` where it stands in a sentence, perhaps by its name alone."""

    page: str
    words: tuple[str, ...]
    mentioned: bool

    @property
    def name(self) -> str:
        """What a test of it is called."""
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(*languages: str) -> list[Block]:
    """Every block of these languages."""
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]


def blocks_of(page: Path) -> Iterator[Block]:
    """Every block of a page."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text[: found.start()].count("\n") + 1
        shown = re.search(r"^`([\w/.]+)`:\n+\Z", text[: found.start()], re.MULTILINE)
        yield Block(page.relative_to(ROOT).as_posix(), line, found[1], found[2], shown[1] if shown else "")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands() -> list[Command]:
    """Every command of a shell block and every one that a sentence mentions, each once."""
    found = [
        Command(block.page, words, mentioned=False)
        for block in blocks("sh")
        for line in block.text.replace("\\\n", " ").splitlines()
        for words in split(line)
    ]
    for page in PAGES:
        for inline in INLINE.findall(prose(page)):
            found += [Command(page.relative_to(ROOT).as_posix(), words, mentioned=True) for words in split(inline)]
    by_words = {(command.words, command.mentioned): command for command in found}
    return sorted(by_words.values(), key=lambda command: command.name)


def split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line, each as its words, without comments and without the settings before them."""
    for part in re.split(r"\s&&\s", re.split(r"(?:^|\s+)#\s", line)[0].strip()):
        words = shlex.split(part)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield tuple(words)


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
