"""What is written into Markdown reads as it was: a reader of it gives back the value, and no mark, link or cell."""

from __future__ import annotations

import random
import re

import pytest
from markdown_it import MarkdownIt

from pipelines.markdown import block, code, table, text

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
BARE_LINK = re.compile(r"(?i)\w://|\bwww\.|\b(mailto|xmpp):|\w@")  # what GitHub's readers and others make links of
HOSTILE = [
    "a|b", "`x`", "``", "**b**", "_i_ a_b_", "<script>alert(1)</script>", "<https://evil.example>",
    "https://evil.example", "www.evil.example", "mailto:me@evil.example", "me@evil.example",
    "[a](https://evil.example)", "![a](b)", "# h", "- x", "1. x", "1) x", "---", "===", "> q", "a\\", "a\\|b", "&lt;",
    "~~s~~", "+", "-1", "c++", "::2", "хорошо|", "x\n\n# y", "learning_rate 0.001", "* a", "~~~", "    code", "[x]: y",
    "`` ` ``",
]  # fmt: skip


def plain(value: str) -> str:
    return " ".join(value.split())


def shown(markdown: str) -> tuple[set[str], str]:
    """The kinds of inline elements that a reader finds, and the text that it shows."""
    kinds, words = set(), []
    for token in READER.parse(markdown):
        kinds.add(token.type)
        for child in token.children or []:
            kinds.add(child.type)
            words.append(child.content)
    return kinds, "".join(words)


def random_values(count: int) -> list[str]:
    chosen = random.Random(0)
    return ["".join(chosen.choices("ab1 \\`*_[]()<>|~&@#+-=.:/!\n", k=chosen.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("value", [*HOSTILE, *(value for value in random_values(300) if value.strip())])
def test_a_text_is_shown_as_it_is(value: str) -> None:
    expected = plain(value)
    assert not BARE_LINK.search(text(value))
    assert shown(text(value)) == ({"paragraph_open", "inline", "paragraph_close", "text"}, expected)
    kinds, words = shown("\n".join(table(["name", text(value)], [[text(value), "1"]])))
    assert words == f"name{expected}{expected}1"
    assert not {"link_open", "code_inline", "html_inline", "strong_open", "em_open", "s_open", "image"} & kinds


@pytest.mark.parametrize("value", HOSTILE)
def test_code_is_shown_as_it_is(value: str) -> None:
    kinds, words = shown(code(value))
    assert (kinds, words) == ({"paragraph_open", "inline", "paragraph_close", "code_inline"}, plain(value))


@pytest.mark.parametrize("value", HOSTILE)
def test_a_block_is_shown_as_it_is(value: str) -> None:
    (token,) = READER.parse(block(value, "text"))
    assert (token.type, token.content) == ("fence", f"{value}\n")


def test_columns_of_figures_stand_at_the_right() -> None:
    assert table(["a", "b"], [["x", "1"]], right=[1])[1] == "| --- | ---: |"
    assert not re.search(r"\n", "".join(table(["a"], [["x"]])))
