"""A text's label is the one whose word the model finds likeliest after it."""

from __future__ import annotations

import pytest
import torch

from reft import ReftConfig, ReftModel, classify, encode
from tests.tiny import tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
WORDS = {"bad": " negative", "good": " positive"}
PROMPTS = ["Review: a good film\nSentiment:", "so so"]


def build() -> ReftModel:
    base = tiny_llama(vocab=len(TOKENIZER))
    return ReftModel(base, ReftConfig(layers=(1, 2), positions="l1", rank=2, init="paper"), seed=0)


def test_probabilities_are_the_softmax_of_what_the_model_says_of_each_word() -> None:
    model = build()
    found = classify(model, TOKENIZER, PROMPTS, WORDS)
    for prompt, prediction in zip(PROMPTS, found, strict=True):
        ids = [TOKENIZER(word, add_special_tokens=False)["input_ids"] for word in WORDS.values()]
        assert [len(word) for word in ids] == [1, 1]  # so the logits after the prompt say all
        batch = model.collate([encode(TOKENIZER, prompt, "")], 0)
        with torch.no_grad():
            logits = model.logits(batch)[0, -1].double()
        expected = logits[[word[0] for word in ids]].softmax(-1).tolist()
        assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-6)
        assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.__getitem__)


def test_the_frozen_base_can_be_asked_too() -> None:
    model = build()
    with model.disabled():
        frozen = classify(model, TOKENIZER, PROMPTS, WORDS)
    assert frozen != classify(model, TOKENIZER, PROMPTS, WORDS)


@pytest.mark.parametrize(
    "words", [{"good": " positive"}, {"good": " positive", "fine": " positive"}, {"a": " no", "b": ""}]
)
def test_labels_that_no_answer_tells_apart_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs a word with tokens of its own"):
        classify(build(), TOKENIZER, PROMPTS, words)
