"""From a row's texts to the prompt that the model reads: the same in preparation and in use."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from pipelines.contracts.task import TaskSpec
from pipelines.tasks.keys.template import fill_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TODAY = datetime.datetime(2024, 7, 26)
"""The date for a chat template that writes today's, as Llama 3.2's, whose own this is where it has no clock.

With the real one data would change at midnight, and prompts would be others in use than in training.
"""

TEMPLATE_ERRORS = (TemplateError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What a chat template, a program of somebody else's, raises of turns that it does not take."""

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
    return render_turns(tokenizer, [{"role": "user", "content": prompt}])


def render_turns(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]]) -> str:
    """The prompt of a conversation by the model's chat template, up to where the assistant's next turn begins."""
    # The chat template writes the first token that the tokenizer adds by itself; once is right.
    return _by_template(tokenizer, turns, asks=True).removeprefix(_added_bos(tokenizer))


def answer_turn(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], answer: str) -> str | None:
    """What follows :func:`render_turns` where the assistant answers: as the chat template writes it, up to its end.

    The end is the token that ends a text, which follows in any case. None: the template does not write the answer
    right behind the prompt that it asks with, as one that leaves thoughts out of what was said, has them begun, or puts
    empty ones before the answer.
    """
    prompt = _by_template(tokenizer, turns, asks=True)
    whole = _by_template(tokenizer, [*turns, {"role": "assistant", "content": answer}], asks=False)
    if not whole.startswith(prompt) or not whole[len(prompt) :].lstrip().startswith(answer):
        return None
    said, end = whole[len(prompt) :], str(tokenizer.eos_token)
    return said.partition(end)[0] + end


def _by_template(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], *, asks: bool) -> str:
    template = _DATE.sub(_fixed_day, tokenizer.get_chat_template())
    text = tokenizer.apply_chat_template(
        list(turns), chat_template=template, add_generation_prompt=asks, tokenize=False
    )
    return str(text)


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
