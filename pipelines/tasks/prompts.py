"""From a row's texts to the prompt that the model reads: the same in preparation and in use."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.contracts.task import TaskSpec
from pipelines.tasks.keys.template import fill_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TODAY = datetime.datetime(2024, 7, 26)
"""The date for a chat template that writes today's, as Llama 3.2's, whose own this is where it has no clock.

With the real one data would change at midnight, and prompts would be others in use than in training.
"""

_DATE = re.compile(r"""\bstrftime_now\(\s*(["'])([^"'\\]*)\1\s*\)""")
_CHANCE = re.compile(r"\bstrftime_now\s*\(|\|\s*random\b|\blipsum\s*\(")  # all that Jinja leaves to chance or the clock


def render_prompt(tokenizer: PreTrainedTokenizerBase, *, template: str, chat: bool, texts: Mapping[str, str]) -> str:
    """Fill the template and, if ``chat``, make it a user's turn of the model's chat template.

    Args:
        tokenizer: of the base.
        template: with {column} placeholders.
        chat: whether to apply the chat template.
        texts: column -> text.
    """
    prompt = fill_template(template, texts)
    if not chat:
        return prompt
    turn = [{"role": "user", "content": prompt}]
    chat_template = _DATE.sub(_fixed_day, tokenizer.get_chat_template())
    text = str(
        tokenizer.apply_chat_template(turn, chat_template=chat_template, add_generation_prompt=True, tokenize=False)
    )
    # The chat template writes the first token that the tokenizer adds by itself; once is right.
    return text.removeprefix(_added_bos(tokenizer))


def second_text(spec: TaskSpec, texts: Mapping[str, str]) -> str:
    """The second text of a row of a task that has one, which an encoder reads as a pair with the prompt; else ""."""
    return "" if spec.second_template is None else fill_template(spec.second_template, texts)


def chance_in(template: str) -> str | None:
    """Return what in a chat template gives another text at another time, or None; written out dates are fixed ones."""
    found = _CHANCE.search(_DATE.sub("", template))
    return None if found is None else found.group()


def _fixed_day(call: re.Match[str]) -> str:
    return repr(TODAY.strftime(call[2]))


def _added_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of the first token if the tokenizer puts it before every text by itself, or ""."""
    from reft.data import added_tokens  # loads torch, which reading the rows of a file does without

    before, _ = added_tokens(tokenizer)
    ids = tokenizer("")["input_ids"][:before]
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""
