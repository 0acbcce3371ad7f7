"""From a row's texts to the prompt that the model reads: the same in preparation and in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.tasks.keys.template import fill_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    text = str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    # The chat template writes the first token that the tokenizer adds by itself; once is right.
    return text.removeprefix(_added_bos(tokenizer))


def _added_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of the first token if the tokenizer puts it before every text by itself, or ""."""
    ids = tokenizer("")["input_ids"]
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""
