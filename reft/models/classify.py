"""Which of a few words a model would answer a text with, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reft.data import encode
from reft.models.decoder import CausalModel
from reft.models.scoring import score_choices


@dataclass(frozen=True)
class Prediction:
    """The likeliest label of a text, and the probability of each, normalised over the labels."""

    label: str
    probabilities: dict[str, float]


def classify(
    model: CausalModel,
    tokenizer: Callable[..., Any],
    prompts: Sequence[str],
    words: Mapping[str, str],
    *,
    batch_size: int = 16,
) -> list[Prediction]:
    """Classify prompts by the word that a model finds likeliest after each.

    Args:
        model: the model asked; in evaluation mode; inside ``model.disabled()`` the frozen base.
        tokenizer: of its base.
        prompts: whole prompts, as in training: with the template around the text.
        words: label -> the text that stands for it, with the space before it that the prompt leaves out.
        batch_size: prompts in one pass.

    Raises:
        ValueError: if the words are fewer than two, two are the same tokens, or a word or a prompt has no token.
    """
    choices = [tuple(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words.values()]
    if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
        raise ValueError(
            f"each of two labels or more needs a word with tokens of its own; got {dict(words)}, which are {choices}; "
            "choose other words"
        )
    asked = [encode(tokenizer, prompt, "").input_ids for prompt in prompts]
    scores = score_choices(model, asked, choices, batch_size=batch_size)
    return [_prediction(tuple(words), row) for row in scores.double().softmax(-1).tolist()]


def _prediction(labels: Sequence[str], row: Sequence[float]) -> Prediction:
    probabilities = dict(zip(labels, row, strict=True))
    return Prediction(max(probabilities, key=probabilities.__getitem__), probabilities)
