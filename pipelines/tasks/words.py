"""Words that a model is asked the likelihood of: that its tokens can tell them apart, and how likely each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import PipelineError
from pipelines.tasks.family import Answer
from pipelines.tasks.measures import Floats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_words(words: Mapping[str, str], key: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Each word must have tokens of its own, none that the model reads otherwise, and begin no other word.

    Args:
        words: what each stands for, by its name -> the word.
        key: of params.yaml, where they are given.
        tokenizer: of the base.

    Raises:
        PipelineError: naming the words.
    """
    special = [token for token in tokenizer.all_special_tokens if token.strip()]
    seen: dict[tuple[int, ...], str] = {}
    for name, word in words.items():
        found = next((token for token in special if token in word), None)
        if found is not None:
            raise PipelineError(
                "a word that is answered must not hold a special token of the model",
                got=f"{found} in {word!r} of {name}",
                do=f"Choose another word in {key}.",
            )
        ids = tuple(tokenizer(word, add_special_tokens=False)["input_ids"])
        if not ids or ids in seen:
            raise PipelineError(
                "each word that is answered must have tokens of its own",
                got=f"{word!r} of {name}, " + (f"the same as {seen[ids]}'s" if ids else "without tokens"),
                do=f"Choose other words in {key}.",
            )
        seen[ids] = name
    _check_exclusive(seen, key)


def probabilities(answers: Sequence[Answer]) -> Floats:
    """[rows, words]: log-probabilities of words in nats, normalised over the words."""
    scores = np.stack([np.asarray(answer, np.float64) for answer in answers])
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Floats = likely / likely.sum(axis=1, keepdims=True)
    return found


def _check_exclusive(words: Mapping[tuple[int, ...], str], key: str) -> None:
    """No word may begin another: each token makes a text less likely, so the longer of the two would never win."""
    for ids, name in words.items():
        beginning = next((words[ids[:end]] for end in range(1, len(ids)) if ids[:end] in words), None)
        if beginning is not None:
            raise PipelineError(
                "no word may be the beginning of another's, which would then never be the likelier one",
                got=f"the tokens of {name} begin with those of {beginning}",
                do=f'End each word in {key} with a line end, as " 1\\n" and " 10\\n", or choose other words.',
            )
