"""The pages: their links lead somewhere, what is generated is what the code says, and the site asks nobody else."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reft
from docs.params_reference import PAGE, page
from tests.docs.pages import PAGES, ROOT, links

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(path: Path) -> None:
    for link in links(path):
        target = link.partition("#")[0]
        assert re.match(r"(https://|#)", link) or (path.parent / target).is_file(), link


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= 250


def test_the_readme_leads_to_every_page_but_the_home_page() -> None:
    told = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    pages = {path for path in PAGES if path.parent != ROOT and path.name != "index.md"}
    assert pages <= told, "a page that the README does not link is not found"


def rooms() -> dict[str, str]:
    """Each folder of code down to the second level, and what its ``__init__.py`` says that it is for."""
    tops = ("flows", "pipelines", "reft", "benchmarks")
    files = [file for top in tops for file in (ROOT / top / "__init__.py", *(ROOT / top).glob("*/__init__.py"))]
    return {
        f"{file.parent.relative_to(ROOT)}/": (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n")[
            0
        ]
        for file in files
    }


def test_the_file_map_says_of_each_folder_what_its_docstring_says() -> None:
    rows = dict(re.findall(r"^\| `([\w/]+/)` \| (.*) \|$", README, re.MULTILINE))
    assert {path: said for path, said in rows.items() if path in rooms()} == rooms()


def test_the_file_map_names_every_folder_in_git() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tops = {line.partition("/")[0] for line in done.stdout.splitlines() if "/" in line and not line.startswith(".")}
    assert {top for top in tops if f"`{top}/`" not in README} == set()


def test_the_page_on_params_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python docs/params_reference.py"


def test_the_page_on_params_has_every_key_of_params_yaml() -> None:
    for key in (
        "`trials`",
        "`lora.rank`",
        "`labels.NAME.word` of `classification`",
        "`pruner.p` of `wilcoxon`",
        "`overrides[].layer`",
    ):
        assert f"| {key} |" in page()
    assert "| `threads` | `2` | integer ≥ 1 | search, train, evaluate | of torch on the CPU;" in page()


def test_each_key_has_one_row_and_a_group_with_a_comment_has_one_too() -> None:
    for section in page().split("\n## ")[1:]:
        found = re.findall(r"^\| (`[^|]+?) \|", section, re.MULTILINE)
        assert len(found) == len(set(found)), section.splitlines()[0]
    assert re.search(r"^\| `lora` \|  \| the keys below \|.* alpha / rank", page(), re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    assert {name for name in reft.__all__ if f'id="reft.{name}"' not in text} == set()


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loads = r"""(?:<(?:script|img|iframe|source)[^>]*\ssrc|<link[^>]*\shref)=["']?(?:https?:)?//"""
    for file in sorted(site.rglob("*.html")):
        assert not re.search(loads, file.read_text(encoding="utf-8")), file.name
    for file in sorted(site.rglob("*.css")):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", file.read_text(encoding="utf-8")), file.name
    assert not [path for path in PAGES if "```mermaid" in path.read_text(encoding="utf-8")], "loads its own script"
