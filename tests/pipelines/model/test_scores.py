"""How the rows of a task are asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.model.scores import ask
from pipelines.tasks.family import open_family
from reft.cone import keeper
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.models.decoding import Decoding
from reft.models.limits import BaseLimitError
from tests.tiny import tiny_llama, tiny_tokenizer

SETTINGS = {"split": None, "option_columns": ["options"], "options": None, "score": "sum", "train_on": "answer"}
TASK = open_family(TaskSpec("choice", "{text}", False, settings=SETTINGS))
ROWS = [
    Row(f"f:{number}", f"a film, number {number}.", "", choices=(f" good {number}", f" a bad one {number}", " it"))
    for number in range(5)
]


def model() -> ReftModel:
    return ReftModel(tiny_llama(), ReftConfig((0, 1), "l2", 2, init="paper"), seed=0).eval()


def test_rows_with_choices_of_their_own_hash_the_base_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes of the weights, before the first row: for each row it would take longer than the row itself."""
    hashed: list[int] = []
    content = keeper.content

    def counted(base: keeper.Base) -> str:
        hashed.append(1)
        return content(base)

    monkeypatch.setattr(keeper, "content", counted)
    ask(model(), tiny_tokenizer(), TASK, ROWS, batch_size=2)
    assert len(hashed) == 1


def test_an_answer_is_the_likelihood_of_each_of_the_rows_own_choices() -> None:
    asked, tokenizer = model(), tiny_tokenizer()
    found = ask(asked, tokenizer, TASK, ROWS, batch_size=3)
    for row, answer in zip(ROWS, found, strict=True):
        assert isinstance(answer, np.ndarray)
        for choice, score in zip(row.choices, answer, strict=True):
            prompt, own = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (row.prompt, choice))
            ids = torch.tensor([prompt + own])
            mask = torch.ones_like(ids)
            with torch.no_grad(), asked.editing(mask, torch.tensor([len(prompt)])):
                words = asked.base(input_ids=ids, attention_mask=mask).logits.double().log_softmax(-1)[0]
            expected = sum(words[len(prompt) + place - 1, token].item() for place, token in enumerate(own))
            assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("listed", [True, False])
def test_an_answer_ends_at_each_token_that_the_base_was_given_for_it(listed: bool) -> None:
    """As Gemma's <end_of_turn> beside <eos>: a number or a list of them in generation_config.json."""
    settings = {"max_new_tokens": 8, "reader": {"name": "exact"}, "measure": "chrf", "conversation": False}
    task = open_family(TaskSpec("generation", "{text}", False, settings=settings))
    asked, tokenizer = model(), tiny_tokenizer()
    with torch.no_grad():
        for weights in asked.base.model.layers.parameters():
            weights.mul_(10)  # so that the tied embedding does not repeat one token for ever
    row = Row("f:1", "a film", "")
    ids = torch.tensor([tokenizer("a film")["input_ids"]])
    said = asked.generate(ids, torch.ones_like(ids), Decoding(8, eos_token_id=2))[0, ids.shape[1] :].tolist()
    end = next(place for place in range(2, 8) if said[place] not in said[:place])  # a plain token, no special one
    assert ask(asked, tokenizer, task, [row], batch_size=1) == [tokenizer.decode(said, skip_special_tokens=True)]
    asked.base.generation_config.eos_token_id = [7, said[end]] if listed else said[end]
    assert ask(asked, tokenizer, task, [row], batch_size=1) == [tokenizer.decode(said[:end])]
    assert ask(asked, tokenizer, task, [row, Row("f:2", "it", "")], batch_size=2)[0] == tokenizer.decode(said[:end])


def test_a_choice_that_a_base_cannot_run_after_its_prompt_is_refused() -> None:
    positions = int(tiny_llama().config.max_position_embeddings)
    row = Row("f:1", "a film", "", choices=(" good", " good" * positions))
    with pytest.raises(BaseLimitError, match="must fit the base's"):
        ask(model(), tiny_tokenizer(), TASK, [row], batch_size=1)
